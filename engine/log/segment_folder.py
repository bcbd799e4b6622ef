"""The segment files of one folder: which of them there are, and that all belong to one log."""

import secrets
from collections.abc import Iterable

from bezant.engine.log.archived import ArchivedSegments
from bezant.engine.log.control import CONTROL_NAME, ControlFile
from bezant.engine.log.incomplete import count_missing, first_segment_required
from bezant.engine.log.resume import ResumePoint, SegmentSummary
from bezant.engine.log.segment import (
    Segment,
    SegmentHeader,
    create_segment,
    read_segment_header,
    segment_name,
    segment_numbers,
)
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, HistoryIncomplete


class SegmentFolder:
    """Finds the segments of one shard's log in its folder."""

    def __init__(self, directory: Directory, shard: int) -> None:
        self._directory = directory
        self._shard = shard
        self.archive = ArchivedSegments(directory, shard)

    def numbers(self) -> list[int]:
        """Numbers of the segments that are here or in an archive, ascending. Raises `CorruptLog`."""
        here = segment_numbers(self._directory)
        # The mark is looked at behind the files: it is there before the first of them goes.
        self.archive.load()
        # A number that is here twice, under a name that no node gives, stays twice: it is no log that can be trusted.
        return sorted([*here, *{segment.number for segment in self.archive.segments}.difference(here)])

    def header(self, number: int) -> SegmentHeader:
        """The header of a segment that is here or in an archive. Raises `CorruptLog`, `UnsupportedFormat`."""
        try:
            return read_segment_header(self._directory, number)
        except FileNotFoundError:
            self.archive.load()  # It may have gone meanwhile.
            segments = self.archive.segments
            if number > len(segments):
                raise
            return SegmentHeader(self._shard, self.archive.log_id, number, segments[number - 1].full_size_bytes)

    def create_log(self, segment_size: int, log_id: int = 0) -> None:
        """Make the control file and the first segment of a new log, with a random id if it is to have no other.

        Raises `CorruptLog` if there was a log before.
        """
        if ControlFile.was_written(self._directory):
            raise CorruptLog(f"{self._directory.path}: there is a file {CONTROL_NAME!r} of a log and no segment of it")
        ControlFile.create(self._directory)
        create_segment(self._directory, SegmentHeader(self._shard, log_id or secrets.randbits(62) | 1, 1, segment_size))

    def open_all(self, start: ResumePoint | None = None) -> list[Segment]:
        """All segments; those that are not there yet as the start describes them.

        Raises `CorruptLog`, `UnsupportedFormat`; `HistoryIncomplete` if some are not there yet, and there is no start.
        """
        first_required = first_segment_required(self._directory, self._shard)
        numbers = self.numbers()
        missing = count_missing(numbers, first_required)
        if missing < 0:
            whole = "1" if first_required == 1 else f"{first_required} or less"
            raise CorruptLog(f"{self._directory.path}: segments {numbers} are not numbered from {whole} without a gap")
        return self._open_known(numbers, missing, start)

    def open_first(self, count: int, start: ResumePoint | None) -> list[Segment]:
        """The first segments, whatever is behind them. Raises as `open_all`."""
        self.check_present(count, f"the segments up to {segment_name(count)} were expected")
        numbers = [number for number in self.numbers() if number <= count]
        return self._open_known(numbers, numbers[0] - 1, start)

    def _open_known(self, numbers: list[int], missing: int, start: ResumePoint | None) -> list[Segment]:
        if not missing:
            return self._open(numbers)
        if start is None or start.segment_number <= missing:
            raise HistoryIncomplete(
                f"{self._directory.path}: the segments before {segment_name(missing + 1)} have not come from the group "
                "yet: start the node, and see how far it is: bezant members status. If they were archived: bezant "
                "archive fetch. A node that has no checkpoint to begin behind gets all of it from the group again: "
                "bezant serve --repair-from-group"
            )
        summaries = start.segments[:missing]
        return [self._expect(summary, start.log_id) for summary in summaries] + self._open(numbers, start.log_id)

    def _expect(self, summary: SegmentSummary, log_id: int) -> Segment:
        """A segment whose file will come."""
        segment = Segment(self._directory, SegmentHeader(self._shard, log_id, summary.number, summary.end))
        segment.restore(summary)
        segment.archive = self.archive
        segment.is_missing = True
        return segment

    def open_next(self, segments: list[Segment]) -> bool:
        """Add the segment behind these to them, if it is there by now, and say whether it is. Raises as `open_all`."""
        number = segments[-1].number + 1
        if segment_name(number) not in self._directory.names() and number not in self.numbers():
            return False
        segments += self._open([number], segments[0].log_id)
        return True

    def check_present(self, count: int, why: str) -> None:
        """Raise `CorruptLog` unless the first segments are there."""
        first_required = first_segment_required(self._directory, self._shard)
        numbers = self.numbers()
        missing = set(range(min([first_required, *numbers]), count + 1)).difference(numbers)
        if missing:
            name = segment_name(min(missing))
            raise CorruptLog(
                f"{self._directory.path}: {name} is not there; {why}. Restore the file from a copy, such as "
                "that of an archive: bezant archive fetch"
            )

    def size_behind(self, start: ResumePoint | None) -> int:
        """Bytes of the segments behind a start. Raises `CorruptLog`, `UnsupportedFormat`."""
        size = 0
        for number in self.numbers():
            if start is None or number >= start.segment_number:
                size += self.header(number).segment_size
        return max(size - start.end_offset, 0) if start is not None else size

    def _open(self, numbers: Iterable[int], log_id: int | None = None) -> list[Segment]:
        headers = [self.header(number) for number in numbers]
        for header in headers:
            if header.log_id != (headers[0].log_id if log_id is None else log_id) or header.shard != self._shard:
                raise CorruptLog(f"{self._directory.path}: segment {header.segment_number} belongs to another log")
        return [self.make_segment(header) for header in headers]

    def make_segment(self, header: SegmentHeader) -> Segment:
        """A segment that finds its file wherever it is."""
        segment = Segment(self._directory, header)
        segment.archive = self.archive
        return segment
