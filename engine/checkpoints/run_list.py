"""The runs of ids that the next checkpoint will list, and the merge of some of them that is under way."""

from collections.abc import Iterator
from typing import Final

from bezant.engine.ids.merge import Merge, plan_merge
from bezant.engine.ids.run import RunIdentity, RunInfo
from bezant.engine.log.storage import Directory

RUN_NUMBER_FIRST: Final = 1


class RunList:
    """Newest first. Files of runs that were merged stay until no checkpoint that is kept lists them."""

    def __init__(self, directory: Directory, infos: tuple[RunInfo, ...], number_next: int) -> None:
        self.infos = infos
        self.number_next = number_next
        self._directory = directory
        self._merge: Merge | None = None
        self._steps: Iterator[None] = iter(())

    def take_number(self) -> int:
        """A number for a file that no other has."""
        self.number_next += 1
        return self.number_next - 1

    def add(self, info: RunInfo) -> None:
        """Add the newest run."""
        self.infos = (info, *self.infos)

    def merge_step(self, identity: RunIdentity) -> bool:
        """Do a little of the merge that is due; False if none is."""
        if self._merge is None:
            planned = plan_merge(self.infos)
            if not planned:
                return False
            self._merge = Merge(self._directory, identity, planned, self.take_number())
            self._steps = iter(self._merge)
        try:
            next(self._steps)
        except StopIteration:
            self._replace(self._merge)
            self._merge = None
        return True

    def _replace(self, merge: Merge) -> None:
        """Put the merged run in the place of those that it was made of: they are neighbours."""
        numbers = {info.number for info in merge.infos}
        place = next(place for place, info in enumerate(self.infos) if info.number in numbers)
        self.infos = (*self.infos[:place], merge.info, *self.infos[place + len(numbers) :])
