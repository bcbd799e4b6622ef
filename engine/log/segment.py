"""One segment file: a header page, then entries back to back, then zeros; and the way to an event in it."""

import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

import numpy as np
import xxhash

from bezant.engine.log.archived import ArchivedSegments
from bezant.engine.log.checking import check_format
from bezant.engine.log.entry import EntryHeader
from bezant.engine.log.resume import SegmentSummary
from bezant.engine.log.seeking import SPARSE_DISTANCE
from bezant.engine.log.storage import Directory, LogFile
from bezant.protocol.errors import CorruptLog, HistoryIncomplete
from bezant.protocol.records import (
    ENTRY_HEADER_SIZE,
    LOG_FORMAT_VERSION,
    SEGMENT_HEADER_SIZE,
    SEGMENT_MAGIC,
    SEQUENCE_BITS,
    Bytes,
    Words,
)

_HEADER: Final = struct.Struct("<Q8siiqqq")
_CHECKSUM: Final = struct.Struct("<Q")
_NAME_PREFIX: Final = "segment-"
_NAME: Final = re.compile(rf"{_NAME_PREFIX}([0-9]{{10,}})", re.ASCII)
_SEQUENCE_NEVER: Final = 1 << SEQUENCE_BITS
_INDEX_NEVER: Final = 1 << 62

SEGMENT_SIZE_MAX: Final = 4 << 30
"""Bytes of a segment, at most: after a crash, all of one may be searched and set aside."""


class SegmentHeader(NamedTuple):
    """A decoded segment header; fields as in `SEGMENT_HEADER`."""

    shard: int
    log_id: int
    segment_number: int
    segment_size: int


class Sought(NamedTuple):
    """A segment as kernels see it, which take addresses; what lies there stays for as long as this does.

    `known` has the index, first sequence and offset of each entry whose place is remembered (3, count): a copy, because
    another thread may be adding to what one walks. It is there for as long as the segment is mapped.
    """

    address: int
    end: int
    known_address: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    mapping: Bytes
    known: Words


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{_NAME_PREFIX}{number:010d}"


def segment_numbers(directory: Directory) -> list[int]:
    """Numbers of the segments in a folder, ascending; one that a crash left unfinished does not count."""
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, directory.names()) if match is not None)


def create_segment(directory: Directory, header: SegmentHeader) -> None:
    """Make a segment file of zeros, durably."""
    directory.create_file(segment_name(header.segment_number), header.segment_size, encode_segment_header(header))


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The page that a segment file begins with."""
    page = bytearray(SEGMENT_HEADER_SIZE)
    _HEADER.pack_into(
        page,
        0,
        0,
        SEGMENT_MAGIC,
        LOG_FORMAT_VERSION,
        header.shard,
        header.log_id,
        header.segment_number,
        header.segment_size,
    )
    _CHECKSUM.pack_into(page, 0, xxhash.xxh3_64_intdigest(memoryview(page)[_CHECKSUM.size :]))
    return bytes(page)


def read_segment_header(directory: Directory, number: int) -> SegmentHeader:
    """Read and check the header of a segment file. Raises `CorruptLog`, `UnsupportedFormat`."""
    file = directory.open(segment_name(number), writable=False)
    try:
        page = file.read(SEGMENT_HEADER_SIZE, 0)
        size = file.size()
    finally:
        file.close()
    if len(page) < SEGMENT_HEADER_SIZE:
        raise CorruptLog(f"{file.path}: {len(page)} bytes where a header of {SEGMENT_HEADER_SIZE} was expected")
    checksum, magic, version, *rest = _HEADER.unpack_from(page)
    is_whole = xxhash.xxh3_64_intdigest(page[_CHECKSUM.size :]) == checksum
    if magic == SEGMENT_MAGIC and (is_whole or version > LOG_FORMAT_VERSION):
        check_format(version, str(file.path))
    if magic != SEGMENT_MAGIC or not is_whole:
        raise CorruptLog(f"{file.path}, offset 0: the header of the segment is damaged")
    header = SegmentHeader(*rest)
    if header.segment_size > SEGMENT_SIZE_MAX:
        raise CorruptLog(
            f"{file.path}: the header speaks of {header.segment_size} bytes; a segment has {SEGMENT_SIZE_MAX} at most"
        )
    if header.segment_number != number or header.segment_size != size:
        raise CorruptLog(
            f"{file.path}: the header speaks of segment {header.segment_number} of {header.segment_size} bytes; "
            f"the file is number {number} of {size}"
        )
    return header


class Segment:
    """A segment, mapped while it is read; its file is open (`open_file`) only while it may be written.

    `end` is the offset behind its last entry; `first_index` and `first_sequence` are those of its first entry and
    event, beyond all while it is empty.
    """

    def __init__(self, directory: Directory, header: SegmentHeader) -> None:
        self.number = header.segment_number
        self.log_id = header.log_id
        self.shard = header.shard
        self.size = header.segment_size
        self.end = SEGMENT_HEADER_SIZE
        self.first_index = _INDEX_NEVER
        self.first_sequence = _SEQUENCE_NEVER
        self.file: LogFile | None = None
        self.archive: ArchivedSegments | None = None
        """Where its file is to be had if it is not here."""
        self.is_missing = False
        """Whether its file has not come yet (``incomplete.py``), as far as is known: a reader looks for it."""
        self._directory = directory
        self.mapped_count = 0
        """How often it was mapped. What was checked in one mapping may come from the disk anew in the next."""
        self._sought: Sought | None = None
        self._mapping: Bytes | None = None
        self._view: memoryview | None = None
        self._sparse_indexes = array("q")
        self._sparse_sequences = array("q")
        self._sparse_offsets = array("q")

    @property
    def name(self) -> str:
        """File name."""
        return segment_name(self.number)

    @property
    def room(self) -> int:
        """Bytes left behind the last entry."""
        return self.size - self.end

    def mapping(self) -> Bytes:
        """The file's bytes, read-only; mapped at the first use. Raises `CorruptLog` for one that was shortened."""
        mapping = self._mapping
        if mapping is None:
            file = self._open_to_read()
            try:
                if file.size() < self.size:
                    raise CorruptLog(
                        f"{file.path}: it had {self.size} bytes and has {file.size()} now; it was shortened while it "
                        "was in use. Restore the file from a copy"
                    )
                mapping = self._mapping = file.map()
                self.mapped_count += 1
            finally:
                file.close()
        return mapping

    def _open_to_read(self) -> LogFile:
        """Open the file. Raises `HistoryIncomplete` if it has not come yet, `ArchiveUnavailable`."""
        try:
            file = self._directory.open(self.name, writable=False)
        except FileNotFoundError as error:
            archived = self.archive.open(self.number) if self.archive is not None else None
            if archived is not None:
                return archived
            if not self.is_missing:
                raise
            raise HistoryIncomplete(
                f"entries from {self.first_index} on, in {self.name}, are not here yet: this node began with the state "
                "of its group and gets the history behind it from the others; see: bezant members status",
                self.first_index,
            ) from error
        if self.is_missing:
            self.is_missing, self.size = False, file.size()
        return file

    def fetch(self) -> None:
        """Have its file come to the cache if it is in an archive, and nobody has it mapped."""
        if self._mapping is None:
            self._open_to_read().close()

    def view(self) -> memoryview:
        """The same bytes for the interpreter, which takes parts of these sooner."""
        view = self._view
        if view is None:
            view = self._view = self.mapping().data
        return view

    def unmap(self) -> None:
        """Give the mapping up, once nobody uses a part of it; the next `mapping` makes it anew."""
        self._mapping = self._view = self._sought = None

    def note_entry(self, header: EntryHeader, offset: int) -> None:
        """Take notice of the entry that now lies at `offset`, behind all others."""
        if not self._sparse_offsets or offset - self._sparse_offsets[-1] >= SPARSE_DISTANCE:
            if not self._sparse_offsets:
                self.first_index, self.first_sequence = header.index, header.first_sequence
            self._sparse_offsets.append(offset)
            self._sparse_sequences.append(header.first_sequence)
            self._sparse_indexes.append(header.index)
        self.end = offset + ENTRY_HEADER_SIZE + header.body_size

    def sought(self) -> "Sought":
        """What kernels need to find events in it, mapped."""
        mapping, sought, count = self.mapping(), self._sought, len(self._sparse_indexes)  # which are added last
        end = min(self.end, len(mapping))  # Its file may be shorter by now than when it was looked at.
        # Another thread may have unmapped it while one was made.
        if sought is None or sought.mapping is not mapping or sought.count != count:
            words = (self._sparse_indexes, self._sparse_sequences, self._sparse_offsets)
            known = np.stack([np.frombuffer(some.tobytes(), np.int64)[:count] for some in words])
            sought = Sought(mapping.ctypes.data, end, known.ctypes.data, known.shape[1], mapping, known)
            self._sought = sought
        elif sought.end != end:
            self._sought = sought = sought._replace(end=end)
        return sought

    def start_of(self, index: int) -> tuple[int, int]:
        """(index, offset) of an entry at or before the one with this index, less than 64 KiB and an entry away."""
        number = max(bisect_right(self._sparse_indexes, index) - 1, 0)
        return self._sparse_indexes[number], self._sparse_offsets[number]

    def cut(self, end: int) -> None:
        """Forget all entries from an offset on."""
        self.restore(self.summary(end))

    def summary(self, end: int) -> SegmentSummary:
        """What is known of the entries before an offset."""
        count = bisect_left(self._sparse_offsets, end)
        words = (self._sparse_indexes, self._sparse_sequences, self._sparse_offsets)
        return SegmentSummary(self.number, end, *(known[:count].tobytes() for known in words))

    def restore(self, summary: SegmentSummary) -> None:
        """Know of the entries what a summary says, without having walked them."""
        self._sparse_indexes = array("q", summary.indexes)
        self._sparse_sequences = array("q", summary.sequences)
        self._sparse_offsets = array("q", summary.offsets)
        self._sought = None
        self.first_index = self._sparse_indexes[0] if summary.offsets else _INDEX_NEVER
        self.first_sequence = self._sparse_sequences[0] if summary.offsets else _SEQUENCE_NEVER
        self.end = summary.end

    def open_file(self) -> LogFile:
        """The file, to write to; opened at the first use."""
        if self.file is None:
            self.file = self._directory.open(self.name, writable=True)
        return self.file

    def leave_cache(self) -> None:
        """Have the page cache forget it, but for what is mapped; whoever reads it reads it from the disk."""
        file = self._directory.open(self.name, writable=False)
        try:
            file.leave_cache()
        finally:
            file.close()

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None
