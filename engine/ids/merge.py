"""Which runs become one, and how: in small steps and with little memory beside the filter of the result.

Merging is tiered by powers of four: an id is written again about as often as the history grows fourfold, and but for
the time until they are merged there are at most three runs of each size to be searched.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import accumulate, groupby
from typing import Final

import numpy as np

from bezant.engine.ids.kernels import (
    MERGE_HASH,
    MERGE_OUT,
    MERGE_PROGRESS_SIZE,
    MERGE_SEQUENCE,
    merge_entries,
    unpack_blocks,
)
from bezant.engine.ids.run import (
    ENTRIES_PER_BLOCK,
    ENTRIES_PER_CHUNK,
    RUN_IDS_MAX,
    RunBuilder,
    RunIdentity,
    RunInfo,
    finished_info,
    run_name,
)
from bezant.engine.ids.run_set import Run
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import Words

MERGE_FACTOR: Final = 4
"""Runs of like size that become one."""
INPUT_BLOCKS: Final = 256
"""Blocks of each run that a merge has in memory: 1 MiB."""
INPUT_ENTRIES: Final = INPUT_BLOCKS * ENTRIES_PER_BLOCK


def plan_merge(infos: Sequence[RunInfo], ids_max: int = RUN_IDS_MAX) -> list[RunInfo]:
    """The runs, of all that there are and newest first, to merge next; none if all is well.

    They are neighbours by age, because the newest run wins. A run counts as being as large as the largest newer one, so
    that a small one between large ones goes with them. The result never has more than `ids_max` entries.
    """
    tiers = accumulate((_tier(info.count) for info in infos), max)
    for _, group in groupby(zip(tiers, infos, strict=True), key=lambda pair: pair[0]):
        alike = [info for _, info in group]
        if len(alike) >= MERGE_FACTOR:
            widest = _widest(alike, ids_max)
            if len(widest) > 1:
                return widest
    return []


def _tier(count: int) -> int:
    """The power of four that a count is at least."""
    return (max(count, 1).bit_length() - 1) // 2


def _widest(infos: list[RunInfo], ids_max: int) -> list[RunInfo]:
    """Of neighbours as many as fit into one run; the newest of several such."""
    best: list[RunInfo] = []
    start = total = 0
    for end, info in enumerate(infos, start=1):
        total += info.count
        while total > ids_max:
            total -= infos[start].count
            start += 1
        if end - start > len(best):
            best = infos[start:end]
    return best


class Merge:
    """The merge of some runs, newest first, into run `number`: iterate over it to the end, then take `info`.

    Each step takes some ten milliseconds. The runs that were merged are left where they are; a merge that is given up
    (``close`` of the iterator, or an error) leaves nothing behind.
    """

    def __init__(self, directory: Directory, identity: RunIdentity, infos: Sequence[RunInfo], number: int) -> None:
        """Opens the runs. Raises `CorruptLog`, `UnsupportedFormat`."""
        self.infos = tuple(infos)
        self._directory = directory
        self._number = number
        count_max = sum(info.count for info in infos)
        if count_max > RUN_IDS_MAX:
            raise LedgerError(f"{count_max} ids are too many for one file")
        self._runs = [Run.open(directory, identity, info, load_filter=False, at_random=False) for info in infos]
        self._builder = RunBuilder(identity, number, count_max, max((info.time_ms_max for info in infos), default=0))
        self._is_done = False

    def __iter__(self) -> Generator[None, None, None]:
        """Steps. Raises `StorageError` and, for a damaged block, `CorruptLog`."""
        chunks = self._builder.chunks(self.parts())
        with closing(self._directory.write_file_stepwise(run_name(self._number), chunks)) as steps:
            for _ in steps:
                yield
        self._is_done = True

    @property
    def info(self) -> RunInfo:
        """The run that came of it, once the last step is done."""
        if not self._is_done:
            raise LedgerError("this merge is not at its end")
        return finished_info(self._builder)

    def parts(self) -> Iterator[Words]:
        """The entries of all runs in order, in parts as `RunBuilder.chunks` takes them; the next overwrites each.

        Raises `CorruptLog` for a damaged block.
        """
        inputs = np.empty((len(self._runs), INPUT_ENTRIES, 2), np.int64)
        places, ends, finished, read = np.zeros((4, len(self._runs)), np.int64)
        out = np.empty((ENTRIES_PER_CHUNK, 2), np.int64)
        progress = np.zeros(MERGE_PROGRESS_SIZE, np.int64)
        progress[[MERGE_HASH, MERGE_SEQUENCE]] = -1
        while not (finished.all() and (places == ends).all()):
            for place, run in enumerate(self._runs):
                if places[place] == ends[place] and not finished[place]:
                    ends[place] = read_entries(run, int(read[place]), inputs[place])
                    places[place] = 0
                    read[place] += ends[place]
                    finished[place] = read[place] == run.info.count
            if merge_entries(inputs, places, ends, finished, out, progress):
                yield out
                progress[MERGE_OUT] = 0
        if progress[MERGE_OUT]:
            yield out[: progress[MERGE_OUT]]


def read_entries(run: Run, read: int, entries: Words) -> int:
    """Read the entries of a run behind the first `read` of them, whole blocks; how many it were. Raises `CorruptLog`
    for a damaged block."""
    count = min(run.info.count - read, len(entries))
    damaged = unpack_blocks(run.data, run.words, run.info.number, read // ENTRIES_PER_BLOCK, entries[:count])
    if damaged >= 0:
        raise run.damaged(damaged)
    return count
