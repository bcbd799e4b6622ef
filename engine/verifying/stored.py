"""The ids that the files of a checkpoint have: added up, and none there twice.

The files are read side by side, a range of hashes at a time, so that the same id is in the same range wherever it is.
A range whose hashes all differ is added up as it is. Two entries of one id, of which a newer file says what became of
it, are as one; then, and only then, the range is merged first, which takes some ten times as long.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.ids.kernels import MERGE_HASH, MERGE_OUT, MERGE_PROGRESS_SIZE, MERGE_SEQUENCE, merge_entries
from bezant.engine.ids.merge import INPUT_ENTRIES, read_entries
from bezant.engine.ids.run_set import Run
from bezant.engine.verifying.sums import NO_IDS, IdSum, sum_of
from bezant.protocol.errors import StorageError
from bezant.protocol.records import Words

_HASH_MAX: Final = (1 << 63) - 1


@kernel
def copy_hashes(entries: Words, first: int, last: int, hashes: Words) -> int:
    """Copy the hashes of the first entries, up to `last`; how many it were, or -1 if one is below `first`, or the
    hashes do not ascend."""
    count, before = 0, first
    for number in range(len(entries)):
        hash_value = entries[number, 0]
        if hash_value < before:
            return -1
        if hash_value > last:
            break
        before = hash_value
        hashes[count] = hash_value
        count += 1
    return count


class _Reading:
    """Reads one file, a range of hashes at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._read = 0
        self._room = np.empty((2 * INPUT_ENTRIES, 2), np.int64)
        self.entries: Words = NO_IDS
        """Those that have been read and not taken, in order."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left in the file."""
        return self._read == self._run.info.count

    def read_on(self) -> None:
        """Have some entries to take, if there are any. Raises `CorruptLog`."""
        left = len(self.entries)
        if self.is_finished or left >= INPUT_ENTRIES:
            return
        self._room[:left] = self.entries.copy()
        count = read_entries(self._run, self._read, self._room[left : left + INPUT_ENTRIES])
        self._read += count
        self.entries = self._room[: left + count]

    def take(self, first: int, last: int, hashes: Words) -> Words:
        """Take the entries with hashes from `first` to `last`, and copy these. Raises `StorageError`."""
        count = copy_hashes(self.entries, first, last, hashes)
        if count < 0:
            raise StorageError(f"{self._run.name}: ids are out of order")
        taken, self.entries = self.entries[:count], self.entries[count:]
        return taken


def sum_stored(runs: Sequence[Run], salts: tuple[int, int], later: Words) -> IdSum:
    """The sum over the ids in the files, newest first. `later`: sorted hashes of ids that came after them.

    Raises `StorageError` if two ids have the same hash, `CorruptLog` for a damaged block.
    """
    total, taken = IdSum(), 0
    for ranges, last in _ranges(runs):
        behind = int(np.searchsorted(later, last, side="right"))
        hashes = np.concatenate([*(hashes for _, hashes in ranges), later[taken:behind]])
        parts = [entries for entries, _ in ranges]
        if _has_common(hashes):
            parts = [_merge(parts)]
            if _has_common(np.concatenate([parts[0][:, 0], later[taken:behind]])):
                raise StorageError("two ids have the same hash")
        total += sum_of(parts, salts)
        taken = behind
    return total


def _ranges(runs: Sequence[Run]) -> Iterator[tuple[list[tuple[Words, Words]], int]]:
    """Of each range of hashes the entries of every run and their hashes, and the last hash that may be in it.

    The arrays are good until the next one.
    """
    readings = [_Reading(run) for run in runs]
    room = np.empty((len(runs), 2 * INPUT_ENTRIES), np.int64)
    first = 0
    while first <= _HASH_MAX:
        for reading in readings:
            reading.read_on()
        known = [int(reading.entries[-1, 0]) for reading in readings if not reading.is_finished]
        last = min(known) - 1 if known else _HASH_MAX
        if last < first:
            raise StorageError("two ids have the same hash")
        found = [reading.take(first, last, hashes) for reading, hashes in zip(readings, room, strict=True)]
        yield [(entries, hashes[: len(entries)]) for entries, hashes in zip(found, room, strict=True)], last
        first = last + 1


def _has_common(hashes: Words) -> bool:
    """Whether a hash is there twice; sorts them."""
    hashes.sort()
    return bool((hashes[1:] == hashes[:-1]).any())


def _merge(parts: list[Words]) -> Words:
    """The entries of a range, newest run first, each id once."""
    inputs = np.zeros((len(parts), max(len(part) for part in parts), 2), np.int64)
    ends = np.array([len(part) for part in parts], np.int64)
    for place, part in enumerate(parts):
        inputs[place, : len(part)] = part
    out = np.empty((int(ends.sum()) + 1, 2), np.int64)
    progress = np.zeros(MERGE_PROGRESS_SIZE, np.int64)
    progress[[MERGE_HASH, MERGE_SEQUENCE]] = -1
    merge_entries(inputs, np.zeros(len(parts), np.int64), ends, np.ones(len(parts), np.int64), out, progress)
    return out[: progress[MERGE_OUT]]


def warm_sums() -> None:
    """Compile or load the kernels before anybody waits for them."""
    entries = np.ones((1, 2), np.int64)
    sum_of([entries, NO_IDS], (1, 2))
    copy_hashes(entries, 0, 1, np.zeros(1, np.int64))
    _merge([entries])
