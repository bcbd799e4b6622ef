"""The log as the rest of the engine sees it: open, recover, append, write a group, read back.

Indexes, each bounded by the next: ``durable_index`` (synced) <= ``written`` (in a group that is being synced) <=
``last_index`` (appended in memory). Entries that are not durable yet are read back from memory.

One group at a time: `begin_group` hands out everything appended so far as a `Group`; whoever has it calls
`Group.write_and_sync`, on any thread, then `finish_group` on the log's own. A group that fails must end the process.
"""

import secrets
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from bezant.engine.log.control import CONTROL_NAME, ControlFile, Watermark
from bezant.engine.log.entry import (
    BODY_SIZE_MAX,
    HASH_NONE,
    RULES_VERSION,
    Entry,
    EntryHeader,
    encode_entry,
    entry_hash,
    with_durable_before,
)
from bezant.engine.log.recovery import RecoveryReport, Walk
from bezant.engine.log.segment import (
    Segment,
    SegmentHeader,
    create_segment,
    read_segment_header,
    segment_name,
    segment_numbers,
)
from bezant.engine.log.storage import Directory, LogFile
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import (
    ENTRY_HEADER_SIZE,
    EVENT,
    EVENT_SIZE,
    LOG_FORMAT_VERSION,
    SEGMENT_HEADER_SIZE,
    Records,
)

SEGMENT_SIZE_DEFAULT: Final = 64 << 20
SEGMENT_SIZE_MIN: Final = 64 << 10
SEGMENTS_PREPARED: Final = 2
"""Empty segments kept ready behind the one that is being written."""
SEGMENTS_MAPPED_MAX: Final = 64
"""Segments mapped at one time for reading history; each mapping holds a file descriptor."""
FREE_SPACE_FLOOR_DEFAULT: Final = 256 << 20
"""Bytes that must stay free on the file system; no segment is made that would go below."""


class _Placed(NamedTuple):
    segment: Segment
    offset: int
    entry: Entry


class Group:
    """Entries that one sync makes durable."""

    def __init__(self, placed: list[_Placed]) -> None:
        self._placed = placed
        self.last_header = placed[-1].entry.header
        self.last_segment = placed[-1].segment
        self.end = placed[-1].offset + ENTRY_HEADER_SIZE + self.last_header.body_size
        self.bytes_count = sum(ENTRY_HEADER_SIZE + item.entry.header.body_size for item in placed)

    def write_and_sync(self) -> None:
        """Write all entries and return when they are durable; a segment is synced before the next is written.

        Raises OSError; the process must then end, because what the page cache says can no longer be believed.
        """
        file: LogFile | None = None
        buffers: list[Buffer] = []
        start = 0
        for segment, offset, entry in self._placed:
            if segment.file is None:
                raise LedgerError(f"{segment.name} is closed and has an entry to write")
            if file is not segment.file:
                if file is not None:
                    file.write_durably(buffers, start)
                file, buffers, start = segment.file, [], offset
            buffers += (entry.encoded, entry.body)
        if file is not None:
            file.write_durably(buffers, start)


class Log:
    """The log of one shard in one folder. Use `open_log`."""

    def __init__(
        self,
        directory: Directory,
        *,
        shard: int,
        segment_size: int,
        free_space_floor: int,
        writable: bool,
    ) -> None:
        self._directory = directory
        self._shard = shard
        self._segment_size = segment_size
        self._free_space_floor = free_space_floor
        self._writable = writable
        self._is_open = False
        self._control: ControlFile | None = None
        self._segments: list[Segment] = []
        self._prepared: list[Segment] = []
        self._maker = ThreadPoolExecutor(1, "bezant-segments") if writable else None
        self._making: Future[Segment] | None = None
        self._mapped: OrderedDict[int, Segment] = OrderedDict()
        self._unwritten: list[_Placed] = []
        self._writing: list[_Placed] = []
        self._unhashed: Entry | None = None
        self._chain_hash = HASH_NONE
        self._write_count = 0
        self._durable_segment = 0
        self._durable_offset = 0
        self._term = 0
        self.log_id = 0
        self.last_index = 0
        self.last_timestamp_ns = 0
        self.durable_index = 0
        self.durable_sequence = 0
        self.bytes_count = 0
        self.watermark_sequence = 0
        self.recovery = RecoveryReport(0, False, 0, "")

    # ---- open and recover ----

    def open(self) -> Iterator[Entry]:
        """Open the log, creating it if the folder is empty, and yield every entry of its history in order.

        Iterate to the end before anything else but `read_events`, which reads what was yielded before. Raises
        `CorruptLog`, `UnsupportedFormat`, `StorageError`.
        """
        numbers = segment_numbers(self._directory)
        if not numbers:
            self._create()
            numbers = segment_numbers(self._directory)
        if numbers != list(range(1, len(numbers) + 1)):
            raise CorruptLog(f"{self._directory.path}: segments {numbers} are not numbered from 1 without a gap")
        headers = [read_segment_header(self._directory, number) for number in numbers]
        self.log_id = headers[0].log_id
        for header in headers:
            if header.log_id != self.log_id or header.shard != self._shard:
                raise CorruptLog(f"{self._directory.path}: segment {header.segment_number} belongs to another log")
        self._control = ControlFile(self._directory, shard=self._shard, log_id=self.log_id, writable=self._writable)
        watermark = self._control.read()
        self.watermark_sequence = watermark.durable_sequence
        self._segments = [Segment(self._directory, header) for header in headers]
        walk = Walk(self._segments, log_id=self.log_id, shard=self._shard, watermark=watermark)
        entries = 0
        for entry in walk:
            yield entry
            entries += 1
            self.bytes_count += ENTRY_HEADER_SIZE + entry.header.body_size
            self._note_durable(entry.header)
        self._finish_open(walk, watermark, entries)

    def _create(self) -> None:
        if not self._writable:
            raise StorageError(f"{self._directory.path} holds no log")
        if ControlFile.was_written(self._directory):
            raise CorruptLog(f"{self._directory.path}: there is a file {CONTROL_NAME!r} of a log and no segment of it")
        ControlFile.create(self._directory)
        header = SegmentHeader(self._shard, secrets.randbits(62) | 1, 1, self._segment_size)
        create_segment(self._directory, header)

    def _finish_open(self, walk: Walk, watermark: Watermark, entries: int) -> None:
        torn_bytes, torn_file = walk.torn_bytes, ""
        if self._writable:
            torn_bytes, torn_file = walk.set_torn_tail_aside(self._directory)
            self._directory.remove_unfinished()
        self.recovery = RecoveryReport(entries, bool(watermark.clean_stop), torn_bytes, torn_file)
        split = self._segments.index(walk.last_segment) + 1
        self._segments, self._prepared = self._segments[:split], self._segments[split:]
        self._chain_hash = walk.previous_hash
        self._write_count = watermark.write_count
        header = walk.last_header
        if header is not None:
            self._term = header.term
            self.last_index = header.index
            self.last_timestamp_ns = header.timestamp_ns
        self._durable_segment, self._durable_offset = walk.last_segment.number, walk.last_segment.end
        self._is_open = True
        if self._writable:
            self._write_tail_again(watermark)
            for segment in self._prepared:
                # A torn tail that was zeroed here, and not synced when that process was killed, would come back.
                segment.open_file().sync()
            self._write_watermark(clean_stop=0)
            self._prepare()
        for segment in (self._segments[-1], *self._prepared):
            segment.unmap()

    def _write_tail_again(self, watermark: Watermark) -> None:
        """Make durable what was read behind the watermark, which may be in the page cache alone.

        A crash can come between a write and its sync; and after a sync that failed the kernel may hold pages that count
        as clean and are not on the disk, so that another sync alone would do nothing. All of that lies in the last
        segment, because a segment is written only after the sync of the one before it.
        """
        segment = self._segments[-1]
        start = watermark.durable_offset if watermark.durable_segment == segment.number else 0
        start = min(max(start, SEGMENT_HEADER_SIZE), segment.end)
        file = segment.open_file()
        file.write([segment.mapping()[start : segment.end].tobytes()], start)
        file.sync()

    def _note_durable(self, header: EntryHeader) -> None:
        self.durable_index = header.index
        self.durable_sequence = header.first_sequence + header.count - 1

    @property
    def is_durable(self) -> bool:
        """Whether a sync means anything: false on a file system that lives in memory."""
        return self._directory.is_durable()

    def count_events_at_most(self) -> int:
        """An upper bound of the events in the log, from the sizes of its files alone."""
        size = 0
        for number in segment_numbers(self._directory):
            file = self._directory.open(segment_name(number), writable=False)
            size += file.size()
            file.close()
        return size // EVENT_SIZE

    # ---- append and write ----

    def append(
        self,
        kind: EntryKind,
        body: bytes | memoryview,
        *,
        first_sequence: int,
        count: int,
        timestamp_ns: int,
        rules_version: int = RULES_VERSION,
    ) -> EntryHeader:
        """Add an entry, made under these rules, behind the last one, in memory. `has_room` must have said yes."""
        self.settle_hash()
        body_size = memoryview(body).nbytes
        if body_size > BODY_SIZE_MAX:
            raise LedgerError(f"an entry of {body_size} bytes is over the {BODY_SIZE_MAX} that one may have")
        header = EntryHeader(
            header_checksum=0,
            body_checksum=0,
            previous_hash=self._chain_hash,
            term=self._term,
            index=self.last_index + 1,
            first_sequence=first_sequence,
            timestamp_ns=timestamp_ns,
            durable_before=self.durable_index,
            count=count,
            body_size=body_size,
            kind=int(kind),
            format_version=LOG_FORMAT_VERSION,
            rules_version=rules_version,
            log_id=self.log_id,
            shard=self._shard,
        )
        entry = encode_entry(header, body)
        size = ENTRY_HEADER_SIZE + body_size
        if self._segments[-1].room < size:
            self._rotate(size)
        segment = self._segments[-1]
        self._unwritten.append(_Placed(segment, segment.end, entry))
        segment.note_entry(entry.header, segment.end)
        self._hash_later(entry)
        self.last_index = header.index
        self.last_timestamp_ns = timestamp_ns
        self.bytes_count += size
        return entry.header

    def _hash_later(self, entry: Entry) -> None:
        """Leave the hash of the last entry for later, so that it is computed while the entry is being synced."""
        self._unhashed = entry

    def settle_hash(self) -> None:
        """Compute the chain hash of the last entry, if that was left for later."""
        if self._unhashed is not None:
            self._chain_hash = entry_hash(self._unhashed.encoded, self._unhashed.body)
            self._unhashed = None

    @property
    def chain_hash(self) -> bytes:
        """BLAKE3 of the last entry, which covers the whole history."""
        self.settle_hash()
        return self._chain_hash

    def has_room(self, body_size: int) -> bool:
        """Whether an entry with such a body finds room, without waiting for the disk if that can be helped."""
        size = ENTRY_HEADER_SIZE + body_size
        if self._segments[-1].room >= size:
            return True
        if not self._prepared:
            self._collect_prepared(wait=True)
        return bool(self._prepared) and self._prepared[0].room >= size

    def begin_group(self) -> Group | None:
        """Everything appended and not yet written, or None if there is nothing or a group is under way."""
        if self._writing or not self._unwritten:
            return None
        last = self._unwritten[-1]
        if last.entry.header.durable_before != self.durable_index:
            # It was appended while the group before it was being synced. Recovery must know that this one is written
            # only afterwards, or rot in that one would pass for a torn tail.
            entry = with_durable_before(last.entry, self.durable_index)
            self._unwritten[-1] = last._replace(entry=entry)
            self._hash_later(entry)
        self._writing, self._unwritten = self._unwritten, []
        return Group(self._writing)

    def finish_group(self, group: Group) -> None:
        """Take notice that a group is durable. Its results may be told; call `tidy` when they have been."""
        self._writing = []
        self._note_durable(group.last_header)
        self._durable_segment, self._durable_offset = group.last_segment.number, group.end

    def tidy(self) -> None:
        """Do what a durable group leaves to do and nobody waits for: the watermark, the chain hash, full segments."""
        self._write_watermark(clean_stop=0)
        self.settle_hash()
        self._close_full_segments()
        if not self._prepared or len(self._prepared) < SEGMENTS_PREPARED:
            self._prepare()

    @property
    def idle(self) -> bool:
        """Whether everything appended is durable."""
        return not self._writing and not self._unwritten

    def _write_watermark(self, *, clean_stop: int) -> None:
        if self._control is None:
            raise LedgerError("a log is written to before it is open")
        self._write_count += 1
        self._control.write(
            Watermark(
                self._write_count,
                self.durable_index,
                self.durable_sequence,
                self._durable_segment,
                self._durable_offset,
                clean_stop,
            )
        )

    def _close_full_segments(self) -> None:
        """Close the files of segments that nothing more will be written to; they are the oldest of those open."""
        waiting = {placed.segment for placed in (*self._writing, *self._unwritten)}
        for number in range(len(self._segments) - 2, -1, -1):
            segment = self._segments[number]
            if segment.file is None:
                return
            if segment not in waiting:
                segment.close()

    def _rotate(self, size: int) -> None:
        """Go on in the next segment."""
        if not self._prepared:
            self._collect_prepared(wait=True)
        if not self._prepared or self._prepared[0].room < size:
            raise StorageError(f"{self._directory.path}: no segment has room for an entry of {size} bytes")
        self._segments.append(self._prepared.pop(0))
        self._close_full_segments()
        self._prepare()

    def _prepare(self) -> None:
        """Have the helper thread make the next segment, unless enough are ready or one is being made."""
        self._collect_prepared(wait=False)
        if self._maker is None or self._making is not None or len(self._prepared) >= SEGMENTS_PREPARED:
            return
        number = (self._prepared or self._segments)[-1].number + 1
        self._making = self._maker.submit(
            self._make, SegmentHeader(self._shard, self.log_id, number, self._segment_size)
        )

    def _make(self, header: SegmentHeader) -> Segment:
        free = self._directory.free_bytes()
        if free < header.segment_size + self._free_space_floor:
            raise StorageError(
                f"{self._directory.path}: {free} bytes are free; a segment needs {header.segment_size} and "
                f"{self._free_space_floor} must stay free. Make room on the disk; the node goes on by itself"
            )
        create_segment(self._directory, header)
        segment = Segment(self._directory, header)
        segment.open_file()
        return segment

    def _collect_prepared(self, *, wait: bool) -> None:
        """Take over the segment that the helper thread has made."""
        if wait and self._making is None:
            self._prepare()
        making = self._making
        if making is None or not (wait or making.done()):
            return
        self._making = None
        error = making.exception()
        if error is None:
            self._prepared.append(making.result())
        elif not isinstance(error, StorageError):
            raise error

    # ---- read ----

    def read_events(self, sequences: npt.NDArray[np.int64]) -> Records:
        """EVENT records with these sequences (ascending), wherever they are. Raises `LedgerError` for unknown ones."""
        events = np.zeros(len(sequences), EVENT)
        done = 0
        while done < len(sequences):
            first, body = self._find_entry(int(sequences[done]))
            end = int(np.searchsorted(sequences, first + len(body)))
            events[done:end] = body[sequences[done:end] - first]
            done = end
        return events

    def _find_entry(self, sequence: int) -> tuple[int, Records]:
        """First sequence and events of the entry that has this sequence."""
        for placed in (*self._writing, *self._unwritten):
            header = placed.entry.header
            if 0 <= sequence - header.first_sequence < header.count:
                return header.first_sequence, np.frombuffer(placed.entry.body, EVENT)
        if not 0 < sequence <= self.durable_sequence:
            raise LedgerError(f"no entry has the event with sequence {sequence}")
        place = bisect_right(self._segments, sequence, key=lambda segment: segment.first_sequence) - 1
        segment = self._segments[max(place, 0)]
        mapping = segment.mapping()
        self._keep_mapped(segment)
        for header, offset in segment.find(sequence):
            if 0 <= sequence - header.first_sequence < header.count and header.kind == EntryKind.EVENTS:
                body = mapping[offset : offset + header.count * EVENT_SIZE]
                return header.first_sequence, body.view(EVENT)
        raise LedgerError(f"no entry has the event with sequence {sequence}")

    def _keep_mapped(self, segment: Segment) -> None:
        """Remember that a segment was read; unmap the one that was not for longest if there are too many."""
        self._mapped[segment.number] = segment
        self._mapped.move_to_end(segment.number)
        if len(self._mapped) > SEGMENTS_MAPPED_MAX:
            _, oldest = self._mapped.popitem(last=False)
            oldest.unmap()

    # ---- close ----

    def close(self) -> None:
        """Close the log; after a writable one that is idle, the next start knows that the stop was clean."""
        if self._maker is not None:
            self._maker.shutdown(wait=True)
            self._collect_prepared(wait=False)
        if self._control is not None:
            if self._writable and self._is_open and self.idle:
                self._write_watermark(clean_stop=1)
                self._control.sync()
            self._control.close()
            self._control = None
        for segment in (*self._segments, *self._prepared):
            segment.close()
            segment.unmap()


def open_log(
    directory: Directory,
    *,
    shard: int = 0,
    segment_size: int = SEGMENT_SIZE_DEFAULT,
    free_space_floor: int = FREE_SPACE_FLOOR_DEFAULT,
    writable: bool = True,
) -> Log:
    """A log over a folder; call `Log.open` and iterate that to the end before using it.

    `segment_size` (bytes) counts for segments made from now on and must hold the largest entry: `has_room` says no to
    one that does not fit in an empty segment.
    """
    if segment_size < SEGMENT_SIZE_MIN or segment_size % SEGMENT_HEADER_SIZE:
        raise StorageError(f"a segment has at least {SEGMENT_SIZE_MIN} bytes, a multiple of {SEGMENT_HEADER_SIZE}")
    if CONTROL_NAME not in directory.names() and segment_numbers(directory):
        raise CorruptLog(f"{directory.path}: there are segments and no file {CONTROL_NAME!r}")
    return Log(
        directory,
        shard=shard,
        segment_size=segment_size,
        free_space_floor=free_space_floor,
        writable=writable,
    )
