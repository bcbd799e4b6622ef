"""The log as the rest of the engine sees it: open, recover, append, write a group, read back.

Indexes, each bounded by the next: ``durable_index`` (synced) <= ``written`` (in a group that is being synced) <=
``last_index`` (appended in memory). Entries that are not durable yet are read back from memory.

One group at a time: `begin_group` hands out everything appended so far as a `Group`; whoever has it calls
`Group.write_and_sync`, on any thread, then `finish_group` on the log's own. A group that fails must end the process.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from bezant.engine.log.control import CONTROL_NAME, ControlFile, Watermark
from bezant.engine.log.entry import (
    BODY_SIZE_MAX,
    HASH_NONE,
    Entry,
    EntryHeader,
    encode_entry,
    entry_hash,
    public_log_id,
    with_durable_before,
)
from bezant.engine.log.group import Group, Placed
from bezant.engine.log.history import History
from bezant.engine.log.preparing import PreparedSegments
from bezant.engine.log.recovery import DURABLE_BY_CHECKPOINT, RecoveryReport, Walk
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.seeking import warm_seeking
from bezant.engine.log.segment import SEGMENT_SIZE_MAX, Segment, segment_name, segment_numbers
from bezant.engine.log.segment_folder import SegmentFolder
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import (
    ENTRY_HEADER_SIZE,
    EVENT,
    EVENT_SIZE,
    LOG_FORMAT_VERSION,
    RULES_VERSION,
    SEGMENT_HEADER_SIZE,
    Records,
    Words,
)

SEGMENT_SIZE_DEFAULT: Final = 64 << 20
SEGMENT_SIZE_MIN: Final = 64 << 10
FREE_SPACE_FLOOR_DEFAULT: Final = 256 << 20
"""Bytes that must stay free on the file system; no segment is made that would go below."""


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
        self._folder = SegmentFolder(directory, shard)
        self._segment_size = segment_size
        self._writable = writable
        self._is_open = False
        self._control: ControlFile | None = None
        self._walk: Walk | None = None
        self._watermark = Watermark()
        self._walked_entries = 0
        self._history = History()
        self._prepared = (
            PreparedSegments(directory, shard=shard, segment_size=segment_size, free_space_floor=free_space_floor)
            if writable
            else None
        )
        self._unwritten: list[Placed] = []
        self._writing: list[Placed] = []
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
        self.bytes_count = 0
        self.watermark_sequence = 0
        self.recovery = RecoveryReport(0, False, 0, "")

    # ---- open and recover ----

    def open(self, start: ResumePoint | None = None, until_index: int | None = None) -> Iterator[Entry]:
        """Open the log, creating it if the folder is empty, and yield every entry of its history in order.

        With `start`, only those behind it, once the entry that it speaks of is found to be there. With `until_index`
        (for a log that is open to read, which another process may be writing) only those up to this index, which must
        be durable; what lies behind is neither judged nor needed, and `follow` goes on. Iterate to the end before
        anything else but `resume_point` and `read_events`, which reads what was yielded before. Raises `CorruptLog`,
        `UnsupportedFormat`, `StorageError`.
        """
        if until_index is not None and self._writable:
            raise LedgerError("a log that is open to write is always read to its end")
        yield from self.walk(start, until_index)
        if until_index is None:
            self.finish_open()

    def walk(self, start: ResumePoint | None = None, until_index: int | None = None) -> Iterator[Entry]:
        """Yield the entries as `open` does, and change nothing on the disk.

        `finish_open` must follow, once whoever executes the entries has found no fault with the last one.
        """
        follows = until_index is not None
        segments = self._history.segments = self._find_segments(start, all_of_them=not follows)
        self.log_id = segments[0].log_id
        self._control = ControlFile(self._directory, shard=self._shard, log_id=self.log_id, writable=self._writable)
        watermark = self._control.read()
        self.watermark_sequence = watermark.durable_sequence
        self._walk = walk = Walk(
            segments,
            log_id=self.log_id,
            shard=self._shard,
            watermark=watermark,
            find_more=(lambda: self._folder.open_next(segments)) if follows else None,
        )
        if start is not None:
            walk.begin_behind(start)
            self._note_walked(walk)
        if until_index is not None:
            yield from self.follow(until_index)
            return
        self._walked_entries, self._watermark = 0, watermark
        for entry in walk:
            yield entry
            self._walked_entries += 1
            self._note_durable(entry.header)

    def follow(self, until_index: int) -> Iterator[Entry]:
        """Yield the entries behind the last one that was yielded, up to this index, which must be durable.

        For a log that was opened with `until_index`; what the writer has made meanwhile is found. Raises as `open`.
        """
        walk = self._walk
        if walk is None or not walk.can_follow:
            raise LedgerError("only a log that was opened up to an index can be followed")
        self._note_walked(walk)  # the entry at which an earlier iteration was given up
        for entry in walk.up_to(until_index):
            yield entry
            self._note_durable(entry.header)
        self._note_walked(walk)

    def resume_point(self) -> ResumePoint | None:
        """Where an opening can begin behind the entry that `open` or `follow` has yielded last; None before the first.

        A checkpoint may be made of it once that entry is durable.
        """
        return None if self._walk is None else self._walk.resume_point()

    def _find_segments(self, start: ResumePoint | None, *, all_of_them: bool) -> list[Segment]:
        """The segments of the folder; or only those that hold the history up to the start."""
        if start is not None:
            why = f"{DURABLE_BY_CHECKPOINT} {segment_name(start.segment_number)}"
            self._folder.check_present(start.segment_number, why)
        elif not segment_numbers(self._directory):
            if not self._writable:
                raise StorageError(f"{self._directory.path} holds no log")
            self._folder.create_log(self._segment_size)
        if all_of_them:
            return self._folder.open_all()
        return self._folder.open_first(start.segment_number if start is not None else 1)

    def finish_open(self) -> None:
        """Set a torn tail aside, and let the log be written to. All entries of `walk` must have been taken."""
        walk, watermark = self._walk, self._watermark
        if walk is None or self._is_open:
            raise LedgerError("a log is opened once, when it has been walked")
        torn_bytes, torn_file = walk.torn_bytes, ""
        if self._writable:
            self._directory.remove_unfinished()  # first, because it makes room
            torn_bytes, torn_file = walk.set_torn_tail_aside(self._directory)
        clean_stop = watermark.is_clean_stop_at(walk.next_index - 1)
        self.recovery = RecoveryReport(self._walked_entries, clean_stop, torn_bytes, torn_file)
        segments = self._history.segments
        behind = segments[walk.last_segment.number :]
        del segments[walk.last_segment.number :]
        self._note_walked(walk)
        self._write_count = watermark.write_count
        self._durable_segment, self._durable_offset = walk.last_segment.number, walk.last_segment.end
        self._is_open = True
        if self._prepared is not None:
            walk.write_tail_again()
            for segment in behind:
                # A torn tail that was zeroed here, and not synced when that process was killed, would come back.
                segment.open_file().sync()
            self._write_watermark(clean_stop=0)
            warm_seeking()
            self._prepared.start(self.log_id, behind, (behind or segments)[-1].number + 1)
        for segment in (segments[-1], *behind):
            segment.unmap()

    def _note_walked(self, walk: Walk) -> None:
        header = walk.last_header
        if header is not None:
            self._note_durable(header)
            self._chain_hash = walk.previous_hash
            self._term = header.term
            self.last_index = header.index
            self.last_timestamp_ns = header.timestamp_ns
            self.bytes_count = walk.bytes_count

    def _note_durable(self, header: EntryHeader) -> None:
        self.durable_index = header.index
        self._history.last_sequence = header.first_sequence + header.count - 1

    @property
    def durable_sequence(self) -> int:
        """Sequence of the last durable event."""
        return self._history.last_sequence

    @property
    def public_id(self) -> str:
        """Which log this is, for anyone to know; see `public_log_id`."""
        return public_log_id(self.log_id)

    @property
    def is_durable(self) -> bool:
        """Whether a sync means anything: false on a file system that lives in memory."""
        return self._directory.is_durable()

    def count_events_at_most(self, start: ResumePoint | None = None) -> int:
        """An upper bound of the events in the log, or of those behind a start, from the sizes of its segments alone.

        Raises `CorruptLog`, `UnsupportedFormat` for a file that is not a segment of the size that it says it has.
        """
        return self._folder.size_behind(start) // EVENT_SIZE

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
        if self._history.segments[-1].room < size:
            self._rotate(size)
        segment = self._history.segments[-1]
        self._unwritten.append(Placed(segment, segment.end, entry))
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
        return self._history.segments[-1].room >= size or self._preparing.have(size)

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
        self._preparing.prepare()

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
        segments = self._history.segments
        for number in range(len(segments) - 2, -1, -1):
            segment = segments[number]
            if segment.file is None:
                return
            if segment not in waiting:
                segment.close()

    def _rotate(self, size: int) -> None:
        """Go on in the next segment."""
        self._history.segments.append(self._preparing.take(size))
        self._close_full_segments()
        self._preparing.prepare()

    @property
    def _preparing(self) -> PreparedSegments:
        if self._prepared is None:
            raise LedgerError("a log that is open to read is written to")
        return self._prepared

    # ---- read ----

    def read_events(self, sequences: Words) -> Records:
        """EVENT records with these sequences (ascending), wherever they are; verified, if they come from the disk.

        Raises `LedgerError` for unknown ones, `CorruptLog` for damaged ones.
        """
        durable = int(np.searchsorted(sequences, self.durable_sequence, side="right"))
        if durable == len(sequences):
            return self._history.read_events(sequences)
        parts = [self._history.read_events(sequences[:durable])]
        for placed in (*self._writing, *self._unwritten):
            header = placed.entry.header
            end = int(np.searchsorted(sequences, header.first_sequence + header.count))
            if end > durable:
                events = np.frombuffer(placed.entry.body, EVENT)
                parts.append(events[sequences[durable:end] - header.first_sequence])
                durable = end
        if durable < len(sequences):
            raise LedgerError(f"no entry has the event with sequence {sequences[durable]}")
        return np.concatenate(parts)

    # ---- close ----

    def close(self) -> None:
        """Close the log; after a writable one that is idle, the next start knows that the stop was clean."""
        if self._prepared is not None:
            self._prepared.close()
        if self._control is not None:
            if self._writable and self._is_open and self.idle:
                self._write_watermark(clean_stop=1)
                self._control.sync()
            self._control.close()
            self._control = None
        for segment in self._history.segments:
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
    if not SEGMENT_SIZE_MIN <= segment_size <= SEGMENT_SIZE_MAX or segment_size % SEGMENT_HEADER_SIZE:
        raise StorageError(
            f"a segment of {segment_size} bytes: it has {SEGMENT_SIZE_MIN} to {SEGMENT_SIZE_MAX}, a multiple of "
            f"{SEGMENT_HEADER_SIZE}"
        )
    if CONTROL_NAME not in directory.names() and segment_numbers(directory):
        raise CorruptLog(f"{directory.path}: there are segments and no file {CONTROL_NAME!r}")
    return Log(
        directory,
        shard=shard,
        segment_size=segment_size,
        free_space_floor=free_space_floor,
        writable=writable,
    )
