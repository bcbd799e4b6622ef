"""Sealed segments: those that nothing more will be written to, because entries lie in the one behind them.

Before one is kept elsewhere every entry of it is checked, and the chain from its first to the first of the segment
behind. One that comes back is made of entries again, and has its place when it leads to that very entry.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from bezant.engine.archive.source import FILTER_BYTES_MAX, published_index
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.log.archived import read_archived, write_archived
from bezant.engine.log.entry import body_is_whole, decode_header, hash_in_place
from bezant.engine.log.incomplete import INCOMPLETE_NAME, mark_incomplete
from bezant.engine.log.log import open_log
from bezant.engine.log.resume import SegmentSummary
from bezant.engine.log.segment import SegmentHeader, read_segment_header, segment_name, segment_numbers
from bezant.engine.log.storage import Directory, LogFile
from bezant.engine.metadata.kept import IsWanted
from bezant.engine.metadata.table import MetadataTable
from bezant.engine.snapshots.making import SegmentMaker
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError
from bezant.protocol.records import ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE

PIECE_SIZE_BYTES: Final = 1 << 20
"""Bytes of entries after which they are checked and written."""


class SealedSegment(msgspec.Struct, frozen=True):
    """What is known of a sealed segment. `last_hash`: BLAKE3 of its last entry, which covers all before it."""

    summary: SegmentSummary
    full_size_bytes: int
    first_index: int
    last_index: int
    last_hash: bytes

    @property
    def number(self) -> int:
        """Its number in the log."""
        return self.summary.number

    @property
    def size_bytes(self) -> int:
        """Bytes up to the end of its last entry."""
        return self.summary.end


def sealed_segments(directory: Directory, shard: int) -> Iterator[tuple[SealedSegment, LogFile]]:
    """The sealed segments of a folder, whose node may run, each open while it is looked at.

    Raises `CorruptLog`, `StorageError`.
    """
    until_index = published_index(directory, shard)
    found = CheckpointFolder(directory).find_newest(shard, FILTER_BYTES_MAX)
    start = None if found is None else found.checkpoint.manifest.point
    log = open_log(directory, shard=shard, writable=False)
    try:
        for _ in log.open(start, max(until_index, 0 if start is None else start.index)):
            pass
        point = log.resume_point()
        for summary in () if point is None else point.segments[:-1]:
            is_here = not log.segments[summary.number - 1].is_missing and summary.number > len(log.archive.segments)
            if not is_here or not summary.offsets:
                continue
            file = directory.open(segment_name(summary.number), writable=False)
            try:
                last_index, last_hash = _before(directory, summary.number + 1)
                first_index = int.from_bytes(summary.indexes[:8], "little")
                yield SealedSegment(summary, file.size(), first_index, last_index, last_hash), file
            finally:
                file.close()
    finally:
        log.close()


def _before(directory: Directory, number: int) -> tuple[int, bytes]:
    """(index, hash) of the entry that the first one of a segment continues."""
    file = directory.open(segment_name(number), writable=False)
    try:
        header = decode_header(file.read(ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE))
    finally:
        file.close()
    if header is None:
        raise CorruptLog(f"{file.path}, offset {SEGMENT_HEADER_SIZE}: the entry that it begins with is damaged")
    return header.index - 1, header.previous_hash


def check_sealed(sealed: SealedSegment, file: LogFile) -> None:
    """Check every entry of a segment, and that they lead to the one behind it. Raises `CorruptLog`."""
    view = file.map().data
    offset, index, previous_hash = SEGMENT_HEADER_SIZE, sealed.first_index, b""
    while offset < sealed.size_bytes:
        header = decode_header(view[offset : offset + ENTRY_HEADER_SIZE])
        end = offset + ENTRY_HEADER_SIZE + (0 if header is None else header.body_size)
        is_next = header is not None and header.index == index and previous_hash in (b"", header.previous_hash)
        if header is None or not is_next or not body_is_whole(header, view[offset + ENTRY_HEADER_SIZE : end]):
            raise CorruptLog(f"{file.path}, offset {offset}: the entry {index} is damaged: nothing of it was kept")
        previous_hash = hash_in_place(view[offset:end])
        offset, index = end, index + 1
    if (offset, index - 1, previous_hash) != (sealed.size_bytes, sealed.last_index, sealed.last_hash):
        raise CorruptLog(f"{file.path}: it does not lead to the entry {sealed.last_index + 1} behind it")


def has_same_bodies(sealed: SealedSegment, file: LogFile, other: LogFile) -> bool:
    """Whether two files of a segment, both checked, have the same bodies: of metadata one may have less left."""
    view, other_view = file.map().data, other.map().data
    offset = SEGMENT_HEADER_SIZE
    while offset < sealed.size_bytes:
        header, start = decode_header(view[offset : offset + ENTRY_HEADER_SIZE]), offset + ENTRY_HEADER_SIZE
        if header is None:
            raise CorruptLog(f"{file.path}, offset {offset}: the entry there was whole and is damaged now")
        offset = start + header.body_size
        if view[start:offset] != other_view[start:offset]:
            return False
    return True


def missing_segments(directory: Directory) -> list[int]:
    """Numbers of segments that are not there, before some that are; the last one first, because it must come first."""
    numbers = segment_numbers(directory)
    return sorted(set(range(1, numbers[-1])).difference(numbers), reverse=True) if numbers else []


class SegmentReturn:
    """A sealed segment that comes back to its folder, in parts; the one behind it is there."""

    def __init__(
        self, directory: Directory, shard: int, sealed: SealedSegment, is_wanted: IsWanted | None = None
    ) -> None:
        """`is_wanted`: see `SegmentMaker`. Raises `CorruptLog` if the segment is not the one that is missing."""
        last_index, last_hash = _before(directory, sealed.number + 1)
        if (last_index, last_hash) != (sealed.last_index, sealed.last_hash):
            raise CorruptLog(f"{segment_name(sealed.number)}: what was kept is not what is missing here")
        log_id = read_segment_header(directory, sealed.number + 1).log_id
        header = SegmentHeader(shard, log_id, sealed.number, sealed.full_size_bytes)
        self._maker = SegmentMaker(
            directory,
            header,
            sealed.summary,
            last_index=sealed.last_index,
            last_hash=sealed.last_hash,
            is_wanted=is_wanted,
        )
        self._name = segment_name(sealed.number)
        self._buffer = bytearray()
        self._skip_bytes = SEGMENT_HEADER_SIZE

    def add(self, part: bytes) -> None:
        """Take a part of the file. Raises `CorruptLog`, `StorageError`."""
        skipped = min(self._skip_bytes, len(part))
        self._skip_bytes -= skipped
        self._buffer += part[skipped:]
        if len(self._buffer) >= PIECE_SIZE_BYTES:
            self._take()

    def _take(self) -> None:
        """Write the entries that are there whole."""
        data = bytes(self._buffer)
        end = 0
        while (header := decode_header(data[end : end + ENTRY_HEADER_SIZE])) is not None:
            if end + ENTRY_HEADER_SIZE + header.body_size > len(data):
                break
            end += ENTRY_HEADER_SIZE + header.body_size
        if not end:
            return
        del self._buffer[:end]
        try:
            self._maker.add(memoryview(data)[:end])
        except RemoteProtocolError as error:
            raise CorruptLog(f"{self._name}: what was kept is damaged: {error}") from error

    def finish(self) -> None:
        """Have the segment be there. Raises `CorruptLog` if it is not the one that was kept."""
        self._take()
        try:
            self._maker.finish()
        except RemoteProtocolError as error:
            raise CorruptLog(f"{self._name}: what was kept is damaged: {error}") from error

    def discard(self) -> None:
        """Leave nothing behind."""
        self._maker.discard()


def wanted_metadata(directory: Directory, shard: int) -> IsWanted | None:
    """What is to come back of metadata: what the newest checkpoint knows of. The next start erases what is superseded
    behind it. None if there is no checkpoint, and a start goes through all of the log."""
    found = CheckpointFolder(directory).find_newest(shard, FILTER_BYTES_MAX)
    if found is None:
        return None
    table = MetadataTable()
    table.restore(found.checkpoint.image.metadata)
    return lambda blob, index: table.index_of(blob.subject_kind, blob.subject) == index


def note_history(directory: Directory, shard: int) -> bool:
    """Say, after some segments have come back, what is still missing; whether all is there. Raises `StorageError`."""
    missing = missing_segments(directory)
    mark = read_archived(directory, shard)
    if mark is not None:
        segments = mark.segments[: missing[0] if missing else 0]
        write_archived(directory, msgspec.structs.replace(mark, segments=segments))
    if INCOMPLETE_NAME in directory.names():
        if not missing:
            directory.remove(INCOMPLETE_NAME)
        else:
            mark_incomplete(directory, shard, missing[0] + 1)
    return not missing


def check_room(directory: Directory, size_bytes: int, free_space_floor: int) -> None:
    """Raise `StorageError` if there is no room for so much."""
    free_bytes = directory.free_bytes()
    if free_bytes < size_bytes + free_space_floor:
        raise StorageError(
            f"{directory.path}: {free_bytes} bytes are free; the segments need {size_bytes} and {free_space_floor} "
            "must stay free. Make room on the disk"
        )
