"""Recovery's walk over a log, for a report: it also tells the place where it stopped, and what lay there."""

from typing import NamedTuple

from bezant.engine.log.entry import EntryHeader
from bezant.engine.log.recovery import Walk
from bezant.engine.log.segment import Segment


class Stop(NamedTuple):
    """Where a walk could not go on: what lay there, which index should have, and what proves that it was durable."""

    segment: str
    offset: int
    problem: str
    entry_index: int
    proof: str = ""


class ExaminingWalk(Walk):
    """A walk that also remembers where it stopped; all decisions are those of `Walk`."""

    refused: Stop | None = None

    @property
    def torn(self) -> Stop | None:
        """Where the torn tail begins, if the walk found one."""
        if self._torn is None:
            return None
        segment, offset = self._torn
        return Stop(segment.name, offset, self._problem, self.next_index)

    def _rot(self, segment: Segment, why: str) -> str:
        offset = self._torn[1] if self._torn is not None else segment.end
        self.refused = Stop(segment.name, offset, self._problem, self.next_index, why)
        return super()._rot(segment, why)

    def _check_known(self, segment: Segment, header: EntryHeader, offset: int) -> None:
        self.refused = Stop(segment.name, offset, "an entry that is not known here", header.index)
        super()._check_known(segment, header, offset)
        self.refused = None
