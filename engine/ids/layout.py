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

import struct
from typing import Final, NamedTuple

import msgspec
import xxhash
from blake3 import blake3

from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, UnsupportedFormat

BLOCK_SIZE: Final = 4096
"""Bytes of a block."""
ENTRIES_PER_BLOCK: Final = 255
PAGE_SIZE: Final = 4096
FILTER_ROW_SIZE: Final = 64
ENTRIES_PER_FILTER_ROW: Final = 32
"""Sixteen bits an entry."""
RUN_IDS_MAX: Final = 1 << 28
"""Entries of one run."""

RUN_MAGIC: Final = b"BZIDSRUN"
RUN_FORMAT_VERSION: Final = 1
HOW_TO_REPAIR: Final = (
    "this file is derived from the history: stop the node, remove the folder `checkpoints` and start again"
)

_PAGE: Final = struct.Struct("<Q8siiqQqqqqqqqQQ")
_CHECKSUM: Final = struct.Struct("<Q")


class Identity(NamedTuple):
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
    return f"ids-{number:010d}"


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


def read_page(directory: Directory, identity: Identity, info: RunInfo) -> Page:
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
