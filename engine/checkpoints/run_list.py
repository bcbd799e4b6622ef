"""The runs of ids that the next checkpoint will list, and the merge of some of them that is under way."""

from collections.abc import Generator
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
        self._merge_number = 0
        self._steps: Generator[None, None, None] | None = None

    @property
    def numbers(self) -> frozenset[int]:
        """Numbers of the files that the next checkpoint may list: the one that is being merged may be whole already."""
        merging = () if self._merge is None else (self._merge_number,)
        return frozenset((*(info.number for info in self.infos), *merging))

    def take_number(self) -> int:
        """A number for a file that no other has."""
        self.number_next += 1
        return self.number_next - 1

    def add(self, info: RunInfo) -> None:
        """Add the newest run."""
        self.infos = (info, *self.infos)

    def merge_step(self, identity: RunIdentity) -> bool:
        """Do a little of the merge that is due; False if none is."""
        if self._merge is None or self._steps is None:
            planned = plan_merge(self.infos)
            if not planned:
                return False
            self._merge_number = self.take_number()
            self._merge = Merge(self._directory, identity, planned, self._merge_number)
            self._steps = iter(self._merge)
        try:
            next(self._steps)
        except StopIteration:
            self._replace(self._merge)
            self._merge = self._steps = None
        return True

    def close(self) -> None:
        """Give the merge up that is under way."""
        if self._steps is not None:
            self._steps.close()
        self._merge = self._steps = None

    def _replace(self, merge: Merge) -> None:
        """Put the merged run in the place of those that it was made of: they are neighbours."""
        numbers = {info.number for info in merge.infos}
        place = next(place for place, info in enumerate(self.infos) if info.number in numbers)
        self.infos = (*self.infos[:place], merge.info, *self.infos[place + len(numbers) :])
