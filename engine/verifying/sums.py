"""What all parts together prove of the ids: that none is there twice, and by sums over them what became of each."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.hashing import mix_words
from bezant.engine.ledger.state import SEQUENCE_MASK
from bezant.protocol.records import Words

SUM_MASK: Final = (1 << 62) - 1
TOTAL_SUM: Final = 0
TOTAL_COUNT: Final = 1
NO_IDS: Final = (np.zeros(0, np.int64), np.zeros(0, np.int64))
_RANGES_PER_THREAD: Final = 4
_HASH_MAX: Final = (1 << 63) - 1


class IdSum(msgspec.Struct, frozen=True):
    """Number of ids, and the sum of a hash of each with what became of it: the same for the same ids in any order.

    The hash is salted with two secret words, new each time, so that nobody can prepare others that add up to the same.
    """

    count: int = 0
    total: int = 0

    def __add__(self, other: "IdSum") -> "IdSum":
        """The sum over both."""
        return IdSum(self.count + other.count, (self.total + other.total) & SUM_MASK)


@kernel
def add_ids(
    hashes: Words, values: Words, first_sequence: int, salt_1: int, salt_2: int, own_hashes: Words, totals: Words
) -> None:
    """Add what a part has made of ids to `totals`, and write the hashes of its own ids, as many as find room.

    An id is its own if its event has `first_sequence` or a later one. Of an id before that only counts what became of
    it, in place of nothing yet: a hold that the part has closed.
    """
    for number in range(len(hashes)):
        value = values[number]
        sequence = value & SEQUENCE_MASK
        mixed = mix_words(hashes[number], value, 0, salt_1, salt_2) >> 1
        if sequence >= first_sequence:
            if totals[TOTAL_COUNT] < len(own_hashes):
                own_hashes[totals[TOTAL_COUNT]] = hashes[number]
            totals[TOTAL_COUNT] += 1
            totals[TOTAL_SUM] = (totals[TOTAL_SUM] + mixed) & SUM_MASK
        elif value != sequence:
            before = mix_words(hashes[number], sequence, 0, salt_1, salt_2) >> 1
            totals[TOTAL_SUM] = (totals[TOTAL_SUM] + mixed - before) & SUM_MASK


def sum_part(
    parts: Iterable[tuple[Words, Words]],
    first_sequence: int,
    salts: tuple[int, int],
    recalled: tuple[Words, Words],
    own_hashes: Words,
) -> IdSum:
    """The sum over what a part has made of ids: all that it knows (hashes, values), without those it has only recalled.

    `own_hashes` (room for all) takes the hashes of the ids that are new in it.
    """
    totals = np.zeros(2, np.int64)
    for hashes, values in parts:
        add_ids(hashes, values, first_sequence, *salts, own_hashes, totals)
    foreign = np.zeros(2, np.int64)
    add_ids(*recalled, first_sequence, *salts, own_hashes[:0], foreign)
    return IdSum(int(totals[TOTAL_COUNT]), int(totals[TOTAL_SUM] - foreign[TOTAL_SUM]) & SUM_MASK)


def sum_of(parts: Iterable[tuple[Words, Words]], salts: tuple[int, int]) -> IdSum:
    """The sum over ids (hashes, values), each once."""
    return sum_part(parts, 0, salts, NO_IDS, np.zeros(0, np.int64))


def warm_sums() -> None:
    """Compile or load the kernel before anybody waits for it."""
    sum_of([(np.ones(1, np.int64), np.ones(1, np.int64))], (1, 2))


def find_common(hashes: Sequence[Words], threads: int) -> bool:
    """Whether any hash is there twice, among all of these (each sorted, none negative)."""
    count = max(threads * _RANGES_PER_THREAD, 1)
    bounds = [(_HASH_MAX // count + 1) * number for number in range(count)]
    with ThreadPoolExecutor(max(threads, 1), "bezant-ids") as pool:
        ends = [*(bound - 1 for bound in bounds[1:]), _HASH_MAX]
        return any(pool.map(lambda first, last: _is_common(hashes, first, last), bounds, ends))


def _is_common(hashes: Sequence[Words], first: int, last: int) -> bool:
    """The same among those from `first` to `last`."""
    wanted = [part[np.searchsorted(part, first) : np.searchsorted(part, last, side="right")] for part in hashes]
    together = np.concatenate(wanted) if wanted else np.zeros(0, np.int64)
    together.sort()
    return bool((together[1:] == together[:-1]).any())
