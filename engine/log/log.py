"""The log as the rest of the engine sees it: open, recover, append, write a group, read back.

Indexes, each bounded by the next: ``durable_index`` (synced) <= ``written`` (in a group that is being synced) <=
``last_index`` (appended in memory). Entries that are not durable yet are read back from memory.

One group at a time: `begin_group` hands out everything appended so far as a `Group`; whoever has it calls
`Group.write_and_sync`, on any thread, then `finish_group` on the log's own. A group that fails must end the process.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final

import numpy as np

from bezant.engine.log.control import CONTROL_NAME, ControlFile, Watermark
from bezant.engine.log.cutting import zero_behind
from bezant.engine.log.entry import (
    BODY_SIZE_MAX,
    Entry,
    EntryHeader,
    decode_header,
    encode_entry,
    entry_hash,
)
from bezant.engine.log.group import Group, Placed, Waiting
from bezant.engine.log.preparing import PreparedSegments
from bezant.engine.log.reading import OpenedLog
from bezant.engine.log.receiving import LogEnd, verify_entries
from bezant.engine.log.recovery import RecoveryReport
from bezant.engine.log.seeking import warm_seeking
from bezant.engine.log.segment import SEGMENT_SIZE_MAX, segment_numbers
from bezant.engine.log.spans import Located
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import (
    ENTRY_HEADER_SIZE,
    ENTRY_INDEX_FIRST,
    EVENT,
    LOG_FORMAT_VERSION,
    SEGMENT_HEADER_SIZE,
    Records,
    Words,
)

SEGMENT_SIZE_DEFAULT: Final = 64 << 20
SEGMENT_SIZE_MIN: Final = 16 << 10
SEGMENTS_CACHED: Final = 1
"""Full segments that are left in the page cache; older ones are read from the disk again by who needs them. A log that
goes through all of a machine's memory pays for pages that nobody has used before: with three nodes on two cores of a
virtual machine, system time fell from 460 to 240 ns an event and node by this and by zeros that pass by the cache."""
FREE_SPACE_FLOOR_DEFAULT: Final = 256 << 20
"""Bytes that must stay free on the file system; no segment is made that would go below."""


class Log(OpenedLog):
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
        super().__init__(directory, shard=shard, segment_size=segment_size, writable=writable)
        self._prepared = (
            PreparedSegments(directory, shard=shard, segment_size=segment_size, free_space_floor=free_space_floor)
            if writable
            else None
        )
        self._waiting = Waiting()
        self._unhashed: Entry | None = None
        self._write_count = 0
        self._durable_segment = 0
        self._durable_offset = 0

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
        self.commit_index = min(self.commit_index, self.last_index)
        self._write_count = watermark.write_count
        self._durable_segment, self._durable_offset = walk.last_segment.number, walk.last_segment.end
        self._is_open = True
        if self._prepared is not None:
            if watermark.cutting:
                zero_behind(walk.last_segment, walk.last_segment.end, behind, to_the_end=True)
                self._end_cut()
            walk.write_tail_again()
            for segment in behind:
                # A torn tail that was zeroed here, and not synced when that process was killed, would come back.
                segment.open_file().sync()
            self._write_watermark()
            warm_seeking()
            self._prepared.start(self.log_id, behind, (behind or segments)[-1].number + 1)
        for segment in (segments[-1], *behind):
            segment.unmap()

    # ---- append and write ----

    def append(
        self,
        kind: EntryKind,
        body: bytes | memoryview,
        *,
        first_sequence: int,
        count: int,
        timestamp_ns: int,
        rules_version: int,
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
            term=self.term,
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
        self._place(entry)
        return entry.header

    def append_received(self, entries: Sequence[Entry]) -> None:
        """Add entries of a leader behind the last one, in memory: as they lie in its log.

        They are verified first, to be whole and to continue this log, and stay the leader's to the byte, but for what
        each replica stamps itself when it writes them. Bodies are not copied: they must not change until they are
        durable.

        Raises, having changed nothing: `RemoteProtocolError` for anything damaged or impossible, `UnsupportedFormat`
        for an entry that only a newer version knows, `StorageError` if the disk has no room for all of them.
        """
        before = self.last_index
        verify_entries(entries, self._end())
        try:
            for entry in entries:
                self._place(entry)
        except StorageError:
            if self.last_index > before:
                self._cut(before)
            raise

    def _end(self) -> LogEnd:
        return LogEnd(
            log_id=self.log_id,
            shard=self._shard,
            last_index=self.last_index,
            last_term=self._terms.last_term,
            next_sequence=self._next_sequence(),
            last_timestamp_ns=self.last_timestamp_ns,
            chain_hash=self.chain_hash,
        )

    def _next_sequence(self) -> int:
        last = self._waiting.find(self.last_index)
        return self.durable_sequence + 1 if last is None else last.entry.header.first_sequence + last.entry.header.count

    def _place(self, entry: Entry) -> None:
        """Put an entry that continues the log behind all others, in memory.

        Raises, having changed nothing that counts: `StorageError` if it has no room, `LedgerError` if its term falls.
        """
        header = entry.header
        size = ENTRY_HEADER_SIZE + header.body_size
        if self._history.segments[-1].room < size:
            self._rotate(size)
        segment = self._history.segments[-1]
        self._terms.note(header.index, header.term)
        self._waiting.unwritten.append(Placed(segment, segment.end, entry))
        segment.note_entry(header, segment.end)
        # Its own hash is left for later, so that it is computed while the entry is being synced.
        self._chain_hash, self._unhashed = header.previous_hash, entry
        self.last_index = header.index
        self.last_timestamp_ns = header.timestamp_ns
        self.bytes_count += size

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

    def free_bytes(self) -> int:
        """Bytes that are left on the disk."""
        return self._directory.free_bytes()

    def has_room(self, body_size: int) -> bool:
        """Whether an entry with such a body finds room, without waiting for the disk if that can be helped."""
        size = ENTRY_HEADER_SIZE + body_size
        return self._history.segments[-1].room >= size or self._preparing.have(size)

    def begin_group(self) -> Group | None:
        """Everything appended and not yet written, or None if there is nothing or a group is under way."""
        return self._waiting.begin_group(self.durable_index)

    def finish_group(self, group: Group) -> None:
        """Take notice that a group is durable. Its results may be told; call `tidy` when they have been."""
        self._waiting.finish_group()
        self._note_durable(group.last_header)
        self._durable_segment, self._durable_offset = group.last_segment.number, group.end

    def tidy(self) -> None:
        """Do what a durable group leaves to do and nobody waits for: the watermark, the chain hash, full segments."""
        self._write_watermark()
        self.settle_hash()
        self._close_full_segments()
        self._preparing.prepare()

    @property
    def has_unwritten(self) -> bool:
        """Whether there is anything for the next group."""
        return bool(self._waiting.unwritten)

    @property
    def idle(self) -> bool:
        """Whether everything appended is durable."""
        return not self._waiting.writing and not self._waiting.unwritten

    def _write_watermark(self, *, clean_stop: int = 0, cutting: int = 0) -> None:
        self._write_count += 1
        self._open_control.write(
            Watermark(
                self._write_count,
                self.durable_index,
                self.durable_sequence,
                self._durable_segment,
                self._durable_offset,
                clean_stop,
                cutting,
                self.commit_index,
            )
        )

    @property
    def _open_control(self) -> ControlFile:
        if self._control is None:
            raise LedgerError("a log is written to before it is open")
        return self._control

    def _close_full_segments(self) -> None:
        """Close the files of segments that nothing more will be written to; they are the oldest of those open."""
        segments = self._history.segments
        for number in range(len(segments) - 2, -1, -1):
            segment = segments[number]
            if segment.file is None:
                return
            if all(placed.segment is not segment for placed in self._waiting):
                segment.close()
                # Each twice: pages that somebody looks at just then stay the first time.
                for left in (number - SEGMENTS_CACHED - 1, number - SEGMENTS_CACHED):
                    if left >= 0 and not segments[left].is_missing:
                        self._preparing.leave_cache(segments[left])

    def _rotate(self, size: int) -> None:
        """Go on in the next segment."""
        segment = self._preparing.take(size)
        segment.archive = self.archive
        self._history.segments.append(segment)
        self._close_full_segments()
        self._preparing.prepare()

    @property
    def _preparing(self) -> PreparedSegments:
        if self._prepared is None:
            raise LedgerError("a log that is open to read is written to")
        return self._prepared

    # ---- cut ----

    def truncate(self, index: int) -> None:
        """Cut every entry above an index, durably: the log goes on as if they had never been appended.

        `LedgerError` while a group is under way, for entries that are committed, and for an index that is not there.
        Returns when the disk has done it; after OSError the process must end, and the next start finishes the cut. What
        `read_encoded` has given of those entries must not be used any more.
        """
        if self._waiting.writing:
            raise LedgerError("a log is cut while a group of it is being written")
        if not self.commit_index <= index <= self.last_index:
            raise LedgerError(
                f"a log with {self.last_index} entries, {self.commit_index} of them committed, is cut to {index}"
            )
        if index < self.last_index:
            self._cut(index)

    def _cut(self, index: int) -> None:
        """Cut every entry above an index, of which there is one; those that were written, on the disk as well."""
        first = self._locate(index + 1)
        timestamp_ns = self._locate(index).header.timestamp_ns if index else 0
        segments = self._history.segments
        segment, end = first.segment, first.offset
        if end == SEGMENT_HEADER_SIZE and segment.number > 1:
            segment = segments[segment.number - 2]
            end = segment.end
        later = segments[segment.number :]
        if index < self.durable_index:
            self.durable_index = index
            self._history.cut(first.header.first_sequence - 1)
            self._durable_segment, self._durable_offset = segment.number, end
            self._begin_cut()
            zero_behind(segment, end, later, to_the_end=False)
            self._end_cut()
        self.bytes_count -= segment.end - end + sum(other.end - SEGMENT_HEADER_SIZE for other in later)
        del segments[segment.number :]
        segment.cut(end)
        segment.open_file()
        for other in later:
            other.cut(SEGMENT_HEADER_SIZE)
        self._preparing.give_back(later)
        self._waiting.cut(index)
        self._terms.cut(index)
        self._spans.forget()
        self._chain_hash, self._unhashed = first.header.previous_hash, None
        self.last_index, self.last_timestamp_ns = index, timestamp_ns
        if self._walk is not None and self._walk.next_index > index + 1:
            self._walk = None  # Where it stopped there is nothing any more that could be gone on with.

    def _begin_cut(self) -> None:
        """Leave the intent, durably, before anything is zeroed: only the entries up to the watermark count."""
        self._write_watermark(cutting=1)
        self._open_control.sync()

    def _end_cut(self) -> None:
        """Take the intent back once all zeros are durable: from both pages, each synced before the other is written.

        Any other page may be lost or torn when the power goes; one with the intent must not be what is left then, or
        entries that have been written meanwhile would be zeroed.
        """
        for _ in range(2):
            self._write_watermark()
            self._open_control.sync()

    # ---- read ----

    def end_of_span(self, first_index: int, size_bytes_max: int) -> int:
        """Index of the last of the entries, from one on, that have so many bytes at most; at least of that one.

        Raises `LedgerError` for an entry that is not there, `CorruptLog` for what is damaged on the way.
        """
        self._check_there(first_index, first_index)
        if first_index == self.last_index:
            return first_index
        size_bytes, last_index = 0, first_index
        for located in self._walk_from(first_index):
            size_bytes += located.size
            if size_bytes > size_bytes_max:
                break
            last_index = located.header.index
        return last_index

    def size_of_span(self, first_index: int, last_index: int) -> int:
        """Bytes of the entries from one on up to another. Raises as `end_of_span`."""
        self._check_there(first_index, last_index)
        if first_index == last_index:
            return self._locate(first_index).size
        return sum(located.size for located in islice(self._walk_from(first_index), last_index - first_index + 1))

    def _walk_from(self, first_index: int) -> Iterator[Located]:
        durable = self._spans.walk(first_index, self.durable_index)
        return chain(durable, map(_located, self._waiting.since(first_index)))

    def read_encoded(self, first_index: int, last_index: int) -> list[bytes | memoryview]:
        """Entries as they lie in the log, back to back, in as many pieces as it takes; nothing is copied.

        Those that are not durable yet come from memory, the others, verified, from segments: parts of mappings, which
        show what becomes of the file. Raises as `end_of_span`.
        """
        self._check_there(first_index, last_index)
        pieces: list[bytes | memoryview] = []
        if first_index <= self.durable_index:
            pieces += self._spans.read(first_index, min(last_index, self.durable_index))
        for placed in self._waiting.since(first_index):
            header = placed.entry.header
            if header.index > last_index:
                break
            pieces += (placed.entry.encoded, placed.entry.body)
            self._spans.remember(header.index + 1, placed.segment, placed.offset + ENTRY_HEADER_SIZE + header.body_size)
        return pieces

    def read_entry(self, index: int) -> Entry:
        """A copy of one entry. Raises as `end_of_span`."""
        data = memoryview(b"".join(self.read_encoded(index, index)))
        header = decode_header(data)
        if header is None:
            raise LedgerError(f"the log gave bytes that are no entry where entry {index} was read")
        return Entry(header, bytes(data[:ENTRY_HEADER_SIZE]), data[ENTRY_HEADER_SIZE:])

    def place_of(self, index: int) -> Located:
        """Where a durable entry lies, also while the log is walked. Raises as `end_of_span`, `HistoryIncomplete`."""
        if not ENTRY_INDEX_FIRST <= index <= self.durable_index:
            raise LedgerError(f"entry {index} of a log that is durable up to {self.durable_index}")
        return next(self._spans.walk(index, index))

    def _check_there(self, first_index: int, last_index: int) -> None:
        if not ENTRY_INDEX_FIRST <= first_index <= last_index <= self.last_index:
            raise LedgerError(f"entries {first_index} to {last_index} of a log that has {self.last_index}")

    def _locate(self, index: int) -> Located:
        placed = self._waiting.find(index)
        if placed is not None:
            return _located(placed)
        return next(self._spans.walk(index, index))

    def read_events(self, sequences: Words, check_bodies: bool = True) -> Records:
        """EVENT records with these sequences (ascending), wherever they are; verified, if they come from the disk.

        Without `check_bodies` only the headers on the way are verified. Raises `LedgerError` for unknown ones,
        `CorruptLog` for damaged ones.
        """
        if not len(sequences) or int(sequences[-1]) <= self.durable_sequence:
            return self._history.read_events(sequences, check_bodies)
        durable = int(np.searchsorted(sequences, self.durable_sequence, side="right"))
        parts = [self._history.read_events(sequences[:durable], check_bodies)]
        for placed in self._waiting:
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
        self.archive.close()


def _located(placed: Placed) -> Located:
    return Located(placed.segment, placed.offset, placed.entry.header)


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
