"""A log as it is opened, walked, followed and asked about; `Log` in ``log.py`` also writes to it."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bezant.engine.log.archived import ArchivedSegments
from bezant.engine.log.control import ControlFile, Watermark
from bezant.engine.log.entry import HASH_NONE, Entry, EntryHeader, public_log_id
from bezant.engine.log.history import History
from bezant.engine.log.recovery import DURABLE_BY_CHECKPOINT, RecoveryReport, Walk
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import Segment, segment_name
from bezant.engine.log.segment_folder import SegmentFolder
from bezant.engine.log.spans import Spans
from bezant.engine.log.storage import Directory
from bezant.engine.log.terms import TermRuns
from bezant.protocol.errors import ArchiveUnavailable, LedgerError, StorageError
from bezant.protocol.records import ENTRY_INDEX_FIRST, EVENT_SIZE, SEGMENT_HEADER_SIZE, Words


class OpenedLog(ABC):
    """What `Log` does before it is written to, and what it knows of the history that it has."""

    def __init__(
        self,
        directory: Directory,
        *,
        shard: int,
        segment_size: int,
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
        self._spans = Spans(self._history)
        self._terms = TermRuns()
        self._archived_count = 0
        self._chain_hash = HASH_NONE
        self.term = 0
        """The term of entries that are appended here; set by whoever knows it, never below that of the last entry."""
        self.commit_index = 0
        """Up to where entries are known to be committed; set by whoever knows it, and none of those is ever cut.

        It is written with each watermark, and found again, perhaps an older one, when the log is opened: a hint.
        """
        self.log_id = 0
        """Number of this log; for one that is not there yet, the number that it is to have, or 0 for any."""
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
        self._archived_count = min(len(self.archive.segments), len(segments) - 1)
        self.log_id = segments[0].log_id
        if self._control is not None:
            self._control.close()  # of an opening that could not have what it began at
        self._control = ControlFile(self._directory, shard=self._shard, log_id=self.log_id, writable=self._writable)
        watermark = self._control.read()
        self.watermark_sequence = watermark.durable_sequence
        self.commit_index = watermark.commit_index
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
        elif not self._folder.numbers():
            if not self._writable:
                raise StorageError(f"{self._directory.path} holds no log")
            self._folder.create_log(self._segment_size, self.log_id)
        if all_of_them:
            return self._folder.open_all(start)
        return self._folder.open_first(start.segment_number if start is not None else 1, start)

    @property
    def directory(self) -> Directory:
        """The folder that the log is in."""
        return self._directory

    @property
    def segments(self) -> Sequence[Segment]:
        """All segments, by number from 1 on."""
        return self._history.segments

    def _note_walked(self, walk: Walk) -> None:
        header = walk.last_header
        if header is not None:
            self._note_durable(header)
            self._chain_hash = walk.previous_hash
            self._terms = walk.terms
            self.term = header.term
            self.last_index = header.index
            self.last_timestamp_ns = header.timestamp_ns
            self.bytes_count = walk.bytes_count

    def _note_durable(self, header: EntryHeader) -> None:
        self.durable_index = header.index
        self._history.last_sequence = header.first_sequence + header.count - 1

    @abstractmethod
    def finish_open(self) -> None:
        """Set a torn tail aside, and let the log be written to. All entries of `walk` must have been taken."""

    @property
    def archive(self) -> ArchivedSegments:
        """The segments that have left the disk."""
        return self._folder.archive

    def note_archived(self) -> None:
        """Take notice of the segments that are named in the mark by now, before their files go."""
        segments = self._history.segments
        self._archived_count = min(len(self.archive.segments), len(segments) - 1)
        for segment in segments[: self._archived_count]:
            segment.unmap()

    @property
    def archived_sequence(self) -> int:
        """Sequence of the last event in segments that have left the disk; 0 if none have."""
        count = self._archived_count
        return self._history.segments[count].first_sequence - 1 if count else 0

    def fetch_archived(self, sequences: Words) -> None:
        """Have the cache have what these events (ascending) lie in. On any thread. Raises `ArchiveUnavailable`."""
        if len(sequences) and sequences[0] <= self.archived_sequence:
            for segment, _, _ in self._history.split(sequences):
                segment.fetch()

    def fetch_archived_entry(self, index: int) -> None:
        """The same for what an entry lies in."""
        segments = self._history.segments
        number = bisect_right(segments, index, key=lambda segment: segment.first_index)
        if number:
            segments[number - 1].fetch()

    def are_away(self, sequences: Words) -> npt.NDArray[np.bool_]:
        """Which of some events (in any order; 0 is none) are in an archive and not to be had at once.

        Where nobody is to wait for them (`ArchivedSegments.waits`), they are being fetched from now on.
        """
        away = np.zeros(len(sequences), np.bool_)
        last_sequence = self.archived_sequence
        order = np.argsort(sequences)
        order = order[(sequences[order] > 0) & (sequences[order] <= last_sequence)]
        for segment, start, end in self._history.split(sequences[order]):
            try:
                segment.mapping()
                self._history.keep_mapped(segment)
            except ArchiveUnavailable:
                away[order[start:end]] = True
        return away

    @property
    def is_complete(self) -> bool:
        """Whether the log has its beginning, here or in an archive: not yet, where the state of a group was installed
        before it."""
        segments = self._history.segments
        return not segments or not segments[0].is_missing

    @property
    def first_index(self) -> int:
        """Index of the first entry of those that are here without a gap up to the last; the first of all once the
        history is complete and none of it has left for an archive, and of a log that is empty."""
        if self.is_complete:
            count = self._archived_count
            return self._history.segments[count].first_index if count else ENTRY_INDEX_FIRST
        return next(segment.first_index for segment in self._history.segments if not segment.is_missing)

    @property
    def history_index(self) -> int:
        """The same, counting what is in an archive as here: it can be had, though not at once."""
        return ENTRY_INDEX_FIRST if self.is_complete else self.first_index

    def bytes_between(self, index: int, later_index: int) -> int:
        """Bytes of the entries between two, give or take 64 KiB and an entry; the later one must be there."""
        (first, start), (last, end) = self._place_of(index), self._place_of(later_index)
        whole = sum(segment.end - SEGMENT_HEADER_SIZE for segment in self._history.segments[first:last])
        return max(whole + end - start, 0)

    def _place_of(self, index: int) -> tuple[int, int]:
        """(number of its segment in the list, offset there) of an entry, or of the first one behind it."""
        segments = self._history.segments
        number = bisect_right(segments, index, key=lambda segment: segment.first_index)
        return (number - 1, segments[number - 1].start_of(index)[1]) if number else (0, SEGMENT_HEADER_SIZE)

    def term_at(self, index: int) -> int | None:
        """The term of an entry; 0 for index 0, before the first one; None where there is no entry."""
        if not 0 < index <= self.last_index:
            return 0 if index == 0 else None
        return self._terms.term_at(index)

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
