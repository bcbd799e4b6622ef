"""The bytes of a run, node-local and no part of the protocol; and what a checkpoint remembers of one.

::

    blocks   4096 bytes each: checksum (8), then up to 255 entries of hash (8) and value (8), the last padded with
             zeros; entries ascend by (hash, sequence), each pair once, and equal hashes may span blocks
    filter   a blocked Bloom filter (Putze, Sanders, Singler 2007): rows of 512 bits, one cache line, 16 bits an entry
    fences   the first hash of each block (8 bytes each)
    page     4096 bytes: all counts and checksums, padded with zeros

The page stands last, so that a file is written in one go from front to back, also by a merge, which knows only at the
end how many entries are left (entries of a newer run replace those of an older one). A filter made for more entries
than came is merely better. The checksum of a block covers the number of the run and that of the block as well: a
block that was written to the wrong place is damage, too.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
import xxhash
from blake3 import blake3

from bezant.engine.ids.kernels import pack_blocks
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, LedgerError, UnsupportedFormat
from bezant.protocol.records import SEQUENCE_BITS, Words

BLOCK_SIZE: Final = 4096
"""Bytes of a block."""
ENTRIES_PER_BLOCK: Final = 255
PAGE_SIZE: Final = 4096
FILTER_ROW_SIZE: Final = 64
ENTRIES_PER_FILTER_ROW: Final = 32
"""Sixteen bits an entry."""
RUN_IDS_MAX: Final = 1 << 28
"""Entries of one run."""

BLOCKS_PER_CHUNK: Final = 1024
"""Blocks that are packed and written at a time: 4 MiB."""
CHUNK_SIZE: Final = BLOCKS_PER_CHUNK * BLOCK_SIZE
ENTRIES_PER_CHUNK: Final = BLOCKS_PER_CHUNK * ENTRIES_PER_BLOCK

RUN_MAGIC: Final = b"BZIDSRUN"
RUN_FORMAT_VERSION: Final = 1
HOW_TO_REPAIR: Final = (
    "this file is derived from the history: stop the node, remove the folder `checkpoints` and start again"
)

_PAGE: Final = struct.Struct("<Q8siiqQqqqqqqqQQ")
_CHECKSUM: Final = struct.Struct("<Q")
_NAME_PREFIX: Final = "ids-"
_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1

RUN_NAME: Final = re.compile(rf"{_NAME_PREFIX}([0-9]{{10,}})", re.ASCII)
"""File names of runs."""


class RunIdentity(NamedTuple):
    """Whose keys a run holds: a shard's, of one log, hashed with the salts of one data folder (two int64)."""

    shard: int
    log_id: int
    salt_1: int
    salt_2: int

    @property
    def salt_fingerprint(self) -> int:
        """Tells salts apart without giving them away; unsigned 64 bits."""
        salts = struct.pack("<qq", self.salt_1, self.salt_2)
        return int.from_bytes(blake3(salts).digest(8), "little")


class RunInfo(msgspec.Struct, frozen=True):
    """What a checkpoint remembers of a run. Both sequences are 0 in a run without entries."""

    number: int
    count: int
    """Entries."""
    size_bytes: int
    sequence_least: int
    sequence_greatest: int
    time_ms_max: int
    """No key that tells its time has a later one."""
    checksum: int
    """That of the page, unsigned 64 bits; the page holds those of filter and fences."""

    @property
    def block_count(self) -> int:
        """Blocks of the file."""
        return -(-self.count // ENTRIES_PER_BLOCK)

    @property
    def filter_bytes(self) -> int:
        """Memory that the filter takes when it is loaded."""
        return self.size_bytes - PAGE_SIZE - self.block_count * (BLOCK_SIZE + 8)


class Page(NamedTuple):
    """The last page of a run, in the order of its fields behind checksum, magic and version."""

    shard: int
    log_id: int
    salt_fingerprint: int
    number: int
    entry_count: int
    block_count: int
    filter_bytes: int
    sequence_least: int
    sequence_greatest: int
    time_ms_max: int
    filter_checksum: int
    fences_checksum: int

    def info(self, checksum: int) -> RunInfo:
        """What a checkpoint remembers of this run."""
        return RunInfo(
            self.number,
            self.entry_count,
            self.block_count * (BLOCK_SIZE + 8) + self.filter_bytes + PAGE_SIZE,
            self.sequence_least,
            self.sequence_greatest,
            self.time_ms_max,
            checksum,
        )


def run_name(number: int) -> str:
    """File name of a run."""
    return f"{_NAME_PREFIX}{number:010d}"


def filter_rows(count: int) -> int:
    """Rows of a filter for so many entries; one at least."""
    return max(-(-count // ENTRIES_PER_FILTER_ROW), 1)


def encode_page(page: Page) -> tuple[bytes, int]:
    """The page and its checksum."""
    encoded = bytearray(PAGE_SIZE)
    _PAGE.pack_into(encoded, 0, 0, RUN_MAGIC, RUN_FORMAT_VERSION, *page)
    checksum = xxhash.xxh3_64_intdigest(memoryview(encoded)[_CHECKSUM.size :])
    _CHECKSUM.pack_into(encoded, 0, checksum)
    return bytes(encoded), checksum


def read_page(directory: Directory, identity: RunIdentity, info: RunInfo) -> Page:
    """The page of a run, checked against what is remembered of it. Raises `CorruptLog`, `UnsupportedFormat`."""
    try:
        file = directory.open(run_name(info.number), writable=False)
    except FileNotFoundError as error:
        raise corrupt(f"{error.filename}: is not there") from error
    try:
        size = file.size()
        encoded = file.read(PAGE_SIZE, max(size - PAGE_SIZE, 0))
    finally:
        file.close()
    if size != info.size_bytes or len(encoded) < PAGE_SIZE:
        raise corrupt(f"{file.path}: {size} bytes where {info.size_bytes} were expected")
    checksum, magic, version, *fields = _PAGE.unpack_from(encoded)
    computed = xxhash.xxh3_64_intdigest(encoded[_CHECKSUM.size :])
    if not magic == RUN_MAGIC or not checksum == computed == info.checksum:
        raise corrupt(f"{file.path}, offset {size - PAGE_SIZE}: the page that describes the file is damaged")
    if version > RUN_FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{file.path} has format {version}; this version of Bezant reads up to {RUN_FORMAT_VERSION}: "
            "start the newer version that wrote it"
        )
    page = Page(*fields)
    if (page.shard, page.log_id, page.salt_fingerprint) != (*identity[:2], identity.salt_fingerprint):
        raise corrupt(
            f"{file.path}: made for shard {page.shard} of log {page.log_id}, and not for shard {identity.shard} of log "
            f"{identity.log_id} with the salts of this data folder"
        )
    described = page.info(checksum)
    if described != info or page.block_count != info.block_count:
        raise corrupt(f"{file.path}: holds {described}, where {info} was expected")
    return page


def corrupt(what: str) -> CorruptLog:
    """The error that says what is damaged and how to go on."""
    return CorruptLog(f"{what}; {HOW_TO_REPAIR}")


class RunBuilder:
    """Makes the chunks of one run; `info` says what came of it when they have been taken."""

    def __init__(self, identity: RunIdentity, number: int, count_max: int, time_ms_max: int) -> None:
        """For `count_max` entries at most."""
        self.info: RunInfo | None = None
        self._identity = identity
        self._number = number
        self._time_ms_max = time_ms_max
        self._filter = np.zeros((filter_rows(count_max), FILTER_ROW_SIZE // 8), np.int64)
        self._fences = np.zeros(-(-count_max // ENTRIES_PER_BLOCK), np.int64)

    def chunks(self, parts: Iterable[Words]) -> Iterator[memoryview]:
        """The file, from sorted parts of its entries, (count, 2), all of them but the last of `ENTRIES_PER_CHUNK`.

        A chunk is overwritten when the next one is asked for.
        """
        data = np.empty(CHUNK_SIZE, np.uint8)
        words = data.view(np.int64).reshape(BLOCKS_PER_CHUNK, BLOCK_SIZE // 8)
        count = blocks = sequence_greatest = 0
        sequence_least = 1 << SEQUENCE_BITS
        for part in parts:
            pack_blocks(part, self._number, blocks, data, words, self._filter, self._fences)
            packed = -(-len(part) // ENTRIES_PER_BLOCK)
            count, blocks = count + len(part), blocks + packed
            sequences = part[:, 1] & _SEQUENCE_MASK
            sequence_least = min(sequence_least, int(sequences.min()))
            sequence_greatest = max(sequence_greatest, int(sequences.max()))
            yield data[: packed * BLOCK_SIZE].data
        filter_hasher, fences_hasher = xxhash.xxh3_64(), xxhash.xxh3_64()
        yield from _hashed(self._filter, filter_hasher)
        yield from _hashed(self._fences[:blocks], fences_hasher)
        page = Page(
            *self._identity[:2],
            self._identity.salt_fingerprint,
            self._number,
            count,
            blocks,
            self._filter.nbytes,
            sequence_least if count else 0,
            sequence_greatest,
            self._time_ms_max,
            filter_hasher.intdigest(),
            fences_hasher.intdigest(),
        )
        encoded, checksum = encode_page(page)
        yield memoryview(encoded)
        self.info = page.info(checksum)


def write_run(
    directory: Directory, identity: RunIdentity, number: int, hashes: Words, values: Words, time_ms_max: int
) -> RunInfo:
    """Make a run of keys in any order, durably. `time_ms_max` is the latest time that any key tells, 0 if none does.

    Two equal entries count as one. Raises `StorageError`, and `LedgerError` for entries that cannot be.
    """
    order = np.argsort(hashes)
    ordered = hashes[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        order = np.lexsort((values & _SEQUENCE_MASK, hashes))
        order = order[_is_first(hashes[order], values[order])]
        ordered = hashes[order]
    if len(order) > RUN_IDS_MAX:
        raise LedgerError(f"{len(order)} ids are too many for one file")
    if len(order) and (ordered[0] < 0 or values.min() <= 0 or not (values & _SEQUENCE_MASK).all()):
        raise LedgerError("an id for a file has a negative hash or value, or no sequence")
    builder = RunBuilder(identity, number, len(order), time_ms_max)
    directory.write_file(run_name(number), builder.chunks(_parts(ordered, values, order)))
    return finished_info(builder)


def finished_info(builder: RunBuilder) -> RunInfo:
    """What came of a run whose file has been made."""
    if builder.info is None:
        raise LedgerError("a file of ids was finished before its last page was made")
    return builder.info


def _is_first(hashes: Words, values: Words) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which sorted entries differ from the one before; the same hash and sequence with another fate cannot be."""
    first = np.ones(len(hashes), np.bool_)
    first[1:] = (hashes[1:] != hashes[:-1]) | (values[1:] != values[:-1])
    sequences = values & _SEQUENCE_MASK
    if bool(((hashes[1:] == hashes[:-1]) & (sequences[1:] == sequences[:-1]) & first[1:]).any()):
        raise LedgerError("the ids for one file have the same sequence twice, with different fates")
    return first


def _parts(ordered: Words, values: Words, order: Words) -> Iterator[Words]:
    entries = np.empty((min(len(order), ENTRIES_PER_CHUNK), 2), np.int64)
    for start in range(0, len(order), ENTRIES_PER_CHUNK):
        chosen = order[start : start + ENTRIES_PER_CHUNK]
        entries[: len(chosen), 0] = ordered[start : start + len(chosen)]
        entries[: len(chosen), 1] = values[chosen]
        yield entries[: len(chosen)]


def _hashed(array: Words, hasher: xxhash.xxh3_64) -> Iterator[memoryview]:
    """The bytes of an array in pieces of `CHUNK_SIZE`, each of them hashed."""
    data = array.reshape(-1).view(np.uint8)
    for start in range(0, len(data), CHUNK_SIZE):
        piece = data[start : start + CHUNK_SIZE]
        hasher.update(piece.data)
        yield piece.data
