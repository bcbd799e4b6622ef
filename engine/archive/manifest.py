"""What a snapshot says of itself. Its name is made of its position and of the BLAKE3 of its manifest, which in turn has
the BLAKE3 of every file: who knows the name can tell whether all of it is what it was."""

import re
import zlib
from typing import Final

import blake3
import msgspec
import numpy as np

from bezant.protocol.errors import CorruptLog, UnsupportedFormat
from bezant.protocol.metadata import METADATA_SUBJECTS_MAX
from bezant.protocol.records import Words

SNAPSHOT_FORMAT_VERSION: Final = 1
SNAPSHOT_NAME: Final = re.compile(r"(\d{10,})-([0-9a-f]{32})", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FILE_NAME: Final = re.compile(r"(?:checkpoints/)?[a-z]+-\d+", re.ASCII)
_SIZE_BYTES_MAX: Final = 1 << 44
_INDEXES_BYTES_MAX: Final = 8 * METADATA_SUBJECTS_MAX


class StoredFile(msgspec.Struct, frozen=True):
    """A file of a snapshot: its name in the folder of a shard, and BLAKE3 (hexadecimal) of its first `size_bytes`.

    What lies behind those, up to `full_size_bytes`, is zeros and not stored.
    """

    name: str
    size_bytes: int
    full_size_bytes: int
    digest: str

    def __post_init__(self) -> None:
        """Raises ValueError for a file that no snapshot has."""
        if not _FILE_NAME.fullmatch(self.name) or not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"no snapshot has a file {self.name!r} with the digest {self.digest!r}")
        if not 0 < self.size_bytes <= self.full_size_bytes <= _SIZE_BYTES_MAX:
            raise ValueError(f"{self.name} cannot have {self.size_bytes} of {self.full_size_bytes} bytes")


class SnapshotManifest(msgspec.Struct, frozen=True):
    """The state behind the entry `index`, and the history that leads to it.

    `log_id` is the one for anyone to know; `chain_hash`, `state_digest` are in hexadecimal; `checkpoint` is the name of
    the checkpoint in `files`, "" if there was none yet: then the history from its beginning is the state. `files` are
    what a start needs, `history` the segments before that, if they were to be kept as well. `node_file` is that of the
    member whose folder it was, "" of a node alone. `metadata` has the indexes of the entries whose metadata is that of
    a subject there (`pack_indexes`); None if the version that made it did not say.
    """

    format: int
    created_at: str
    created_by: str
    log_id: str
    shard: int
    index: int
    term: int
    next_sequence: int
    timestamp_ns: int
    chain_hash: str
    state_digest: str
    checkpoint: str
    first_segment: int
    files: list[StoredFile]
    history: list[StoredFile]
    node_file: str = ""
    metadata: bytes | None = None

    @property
    def has_history(self) -> bool:
        """Whether all of the history is in it."""
        return len(self.history) == self.first_segment - 1

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, as they are stored."""
        return sum(file.size_bytes for file in (*self.files, *self.history))


def pack_indexes(indexes: Words) -> bytes:
    """Ascending indexes of entries, made small."""
    return zlib.compress(np.diff(indexes, prepend=0).astype("<i8").tobytes())


def unpack_indexes(packed: bytes) -> frozenset[int]:
    """Indexes again. Raises `CorruptLog` for what is none, or more than there can be."""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(packed, _INDEXES_BYTES_MAX)
    except zlib.error as error:
        raise CorruptLog(f"the list of metadata in a snapshot makes no sense: {error}") from error
    if not unpacking.eof or len(found) % 8:
        raise CorruptLog("the list of metadata in a snapshot is no list of entries")
    return frozenset(np.cumsum(np.frombuffer(found, "<i8")).tolist())


class _Format(msgspec.Struct):
    """The one field that every version of the manifest has."""

    format: int


def encode_manifest(manifest: SnapshotManifest) -> bytes:
    """The manifest as it is stored: JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def snapshot_name(index: int, encoded: bytes) -> str:
    """The name of the snapshot with this manifest."""
    return f"{index:010d}-{blake3.blake3(encoded).hexdigest(16)}"


def decode_manifest(name: str, encoded: bytes) -> SnapshotManifest:
    """Read the manifest of the snapshot of this name. Raises `CorruptLog` unless it is whole, `UnsupportedFormat`."""
    match = SNAPSHOT_NAME.fullmatch(name)
    if match is None:
        raise CorruptLog(f"{name!r} is no name of a snapshot")
    if snapshot_name(int(match[1]), encoded) != name:
        raise CorruptLog(f"snapshot {name}: the manifest is damaged: it is not the one that the name was made of")
    try:
        found = msgspec.json.decode(encoded, type=_Format).format
        if found > SNAPSHOT_FORMAT_VERSION:
            raise UnsupportedFormat(f"snapshot {name} has format {found}, which a newer version of Bezant wrote")
        manifest = msgspec.json.decode(encoded, type=SnapshotManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptLog(f"snapshot {name}: the manifest makes no sense: {error}") from error
    if manifest.index != int(match[1]):
        raise CorruptLog(f"snapshot {name}: the manifest is that of another one")
    return manifest
