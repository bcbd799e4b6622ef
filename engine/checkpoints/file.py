"""One checkpoint file: a header page, a manifest (MessagePack), then the arrays of a ledger's image, page by page.

    page 0     magic, version, size and XXH3-64 of the manifest, XXH3-64 of the page itself
    page 1..   the manifest
    then       for each section of the manifest: its bytes, at the next page

Every byte is covered by a checksum or must be zero. Written whole under another name, synced, and renamed.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import xxhash

from bezant.engine.created_by import created_by
from bezant.engine.ids.run import RunIdentity, RunInfo
from bezant.engine.ledger.image import IMAGE_HOLD, IMAGE_TRY, LedgerImage
from bezant.engine.ledger.state import ROW, ROW_COLD, UNSETTLED
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.metadata.table import SUBJECT
from bezant.engine.moves.state import MovesRecord
from bezant.protocol.access import Token
from bezant.protocol.errors import CorruptLog, UnsupportedFormat
from bezant.protocol.messages import Configuration
from bezant.protocol.placement import SlotMap
from bezant.protocol.records import Bytes, Records

CHECKPOINT_VERSION: Final = 2
PAGE_SIZE: Final = 4096
_MAGIC: Final = b"BZNTCKPT"
_HEADER: Final = struct.Struct("<8sqqQ")
_CHECKSUM: Final = struct.Struct("<Q")
_MANIFEST_SIZE_MAX: Final = 1 << 30
_SECTIONS: Final = (("rows", ROW), ("rows_cold", ROW_COLD), ("holds", IMAGE_HOLD))
_SECTIONS_OPTIONAL: Final = (("tries", IMAGE_TRY), ("unsettled", UNSETTLED), ("metadata", SUBJECT))
"""Further ones, where there is something in them; without, a checkpoint is one that earlier versions can read."""


class Section(msgspec.Struct, frozen=True):
    """An array in the file: records, and XXH3-64 of its bytes."""

    name: str
    count: int
    checksum: int


class Manifest(msgspec.Struct, frozen=True):
    """All of a checkpoint but its arrays.

    `point` is the durable entry that it stands behind; `runs` the files of ids, newest first; `salts` those of every
    hash in them; `state_digest` that of the ledger (`Ledger.digest`), in hexadecimal; `configuration` the latest of the
    group's up to there, and the index of its entry, if the group is not one node alone; `slot_map` that of a metadata
    group; `positions` those that have names; `moves` what is known of moves of slots; `tokens` those
    of clients, and `tokens_forgotten` the numbers of those of which nothing else is known.
    """

    created_by: str
    shard: int
    point: ResumePoint
    currencies: dict[str, int]
    rules_version: int
    last_timestamp_ns: int
    salts: tuple[int, int]
    runs: tuple[RunInfo, ...]
    run_number_next: int
    state_digest: str
    sections: tuple[Section, ...]
    configuration: tuple[int, Configuration] | None = None
    slot_map: SlotMap | None = None
    positions: dict[str, int] = {}
    moves: MovesRecord | None = None
    tokens: tuple[Token, ...] = ()
    tokens_forgotten: bytes = b""

    @property
    def identity(self) -> RunIdentity:
        """What the runs are made for."""
        return RunIdentity(self.shard, self.point.log_id, *self.salts)


class Checkpoint:
    """A checkpoint that has been read and checked."""

    def __init__(self, manifest: Manifest, image: LedgerImage) -> None:
        self.manifest = manifest
        self.image = image


def write_checkpoint(
    directory: Directory,
    name: str,
    image: LedgerImage,
    *,
    shard: int,
    point: ResumePoint,
    salts: tuple[int, int],
    runs: tuple[RunInfo, ...],
    run_number_next: int,
    state_digest: str,
    configuration: tuple[int, Configuration] | None,
    slot_map: SlotMap | None = None,
) -> Manifest:
    """Write a checkpoint durably. Raises `StorageError`, having left nothing behind."""
    sections = [*_SECTIONS, *(section for section in _SECTIONS_OPTIONAL if len(getattr(image, section[0])))]
    arrays = [np.ascontiguousarray(getattr(image, section)).view(np.uint8) for section, _ in sections]
    manifest = Manifest(
        created_by=created_by(),
        shard=shard,
        point=point,
        currencies=image.currencies,
        rules_version=image.rules_version,
        last_timestamp_ns=image.last_timestamp_ns,
        salts=salts,
        runs=runs,
        run_number_next=run_number_next,
        state_digest=state_digest,
        configuration=configuration,
        slot_map=slot_map,
        positions=dict(image.positions),
        moves=image.moves,
        tokens=image.tokens,
        tokens_forgotten=image.tokens_forgotten,
        sections=tuple(
            Section(section, len(array) // dtype.itemsize, xxhash.xxh3_64_intdigest(array.data))
            for (section, dtype), array in zip(sections, arrays, strict=True)
        ),
    )
    directory.write_file(name, _chunks(msgspec.msgpack.encode(manifest), arrays))
    return manifest


def _chunks(manifest: bytes, arrays: list[Bytes]) -> Iterator[bytes | memoryview]:
    page = bytearray(PAGE_SIZE)
    _HEADER.pack_into(page, 0, _MAGIC, CHECKPOINT_VERSION, len(manifest), xxhash.xxh3_64_intdigest(manifest))
    _CHECKSUM.pack_into(page, PAGE_SIZE - _CHECKSUM.size, xxhash.xxh3_64_intdigest(memoryview(page)[: -_CHECKSUM.size]))
    yield bytes(page)
    yield manifest
    yield bytes(-len(manifest) % PAGE_SIZE)
    for array in arrays:
        yield array.data
        yield bytes(-len(array) % PAGE_SIZE)


def read_manifest(directory: Directory, name: str) -> Manifest:
    """Read the manifest alone. Raises `CorruptLog`, `UnsupportedFormat`."""
    file = directory.open(name, writable=False)
    try:
        page = file.read(PAGE_SIZE, 0)
        if len(page) < PAGE_SIZE:
            raise CorruptLog(f"{file.path}: {len(page)} bytes are less than a header")
        magic, format_version, size, checksum = _HEADER.unpack_from(page)
        whole = xxhash.xxh3_64_intdigest(page[: -_CHECKSUM.size]) == _CHECKSUM.unpack(page[-_CHECKSUM.size :])[0]
        if magic == _MAGIC and whole and format_version != CHECKPOINT_VERSION:
            raise UnsupportedFormat(f"{file.path} has format {format_version}, which another version of Bezant wrote")
        if magic != _MAGIC or not whole or not 0 < size <= min(_MANIFEST_SIZE_MAX, file.size()):
            raise CorruptLog(f"{file.path}, offset 0: the header of the checkpoint is damaged")
        encoded = file.read(size, PAGE_SIZE)
    finally:
        file.close()
    if len(encoded) != size or xxhash.xxh3_64_intdigest(encoded) != checksum:
        raise CorruptLog(f"{file.path}, offset {PAGE_SIZE}: the manifest of the checkpoint is damaged")
    try:
        return msgspec.msgpack.decode(encoded, type=Manifest)
    except msgspec.ValidationError as error:
        raise CorruptLog(f"{file.path}: the manifest of the checkpoint makes no sense: {error}") from error


def read_checkpoint(directory: Directory, name: str) -> Checkpoint:
    """Read and check a checkpoint; its arrays are views of the file. Raises `CorruptLog`, `UnsupportedFormat`."""
    manifest = read_manifest(directory, name)
    file = directory.open(name, writable=False)
    try:
        mapping = file.map()
    finally:
        file.close()
    _, _, manifest_size, _ = _HEADER.unpack_from(mapping[: _HEADER.size].tobytes())
    offset = PAGE_SIZE + manifest_size
    arrays: dict[str, Records] = {}
    names = [section.name for section in manifest.sections]
    sections = [*_SECTIONS, *(section for section in _SECTIONS_OPTIONAL if section[0] in names)]
    if names != [name for name, _ in sections]:
        raise CorruptLog(f"{file.path}: the manifest does not list the arrays of a checkpoint")
    for section, (_, dtype) in zip(manifest.sections, sections, strict=True):
        start = _next_page(file.path.name, mapping, offset)
        offset = start + section.count * dtype.itemsize
        array = mapping[start:offset]
        if len(array) != offset - start or xxhash.xxh3_64_intdigest(array.data) != section.checksum:
            raise CorruptLog(f"{file.path}, offset {start}: the {section.name} of the checkpoint are damaged")
        arrays[section.name] = array.view(dtype)
    if _next_page(file.path.name, mapping, offset) != len(mapping):
        raise CorruptLog(f"{file.path}: {len(mapping)} bytes are more than the checkpoint has")
    image = LedgerImage(
        currencies=manifest.currencies,
        rules_version=manifest.rules_version,
        next_sequence=manifest.point.next_sequence,
        last_timestamp_ns=manifest.last_timestamp_ns,
        positions=manifest.positions,
        moves=manifest.moves,
        tokens=manifest.tokens,
        tokens_forgotten=manifest.tokens_forgotten,
        **arrays,
    )
    return Checkpoint(manifest, image)


def _next_page(name: str, mapping: Bytes, offset: int) -> int:
    """The next page boundary from an offset on; what lies before it must be zeros."""
    end = offset + -offset % PAGE_SIZE
    if np.any(mapping[offset:end]):
        raise CorruptLog(f"{name}, offset {offset}: something lies where a checkpoint has only zeros")
    return end
