"""What all parts together prove of the ids, by sums over them: what became of each."""

from collections.abc import Iterable
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
NO_IDS: Final[Words] = np.zeros((0, 2), np.int64)
_NO_ROOM: Final[Words] = np.zeros(0, np.int64)


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
def add_ids(ids: Words, first_sequence: int, salt_1: int, salt_2: int, own_hashes: Words, totals: Words) -> None:
    """Add what a part has made of ids to `totals`, and write the hashes of its own ids, as many as find room.

    `ids` (count, 2) has hash and value of each; where the value is not above 0 there is none. An id is its own if its
    event has `first_sequence` or a later one. Of an id before that only counts what became of it, in place of nothing
    yet: a hold that the part has closed.
    """
    count, total, room = totals[TOTAL_COUNT], totals[TOTAL_SUM], len(own_hashes)
    for number in range(len(ids)):
        hash_value, value = ids[number, 0], ids[number, 1]
        if value <= 0:
            continue
        sequence = value & SEQUENCE_MASK
        if sequence >= first_sequence:
            if count < room:
                own_hashes[count] = hash_value
            count += 1
            total = (total + (mix_words(hash_value, value, 0, salt_1, salt_2) >> 1)) & SUM_MASK
        elif value != sequence:
            mixed = mix_words(hash_value, value, 0, salt_1, salt_2) >> 1
            before = mix_words(hash_value, sequence, 0, salt_1, salt_2) >> 1
            total = (total + mixed - before) & SUM_MASK
    totals[TOTAL_COUNT], totals[TOTAL_SUM] = count, total


def sum_part(
    tables: Iterable[Words], first_sequence: int, salts: tuple[int, int], recalled: Words, own_hashes: Words
) -> IdSum:
    """The sum over what a part has made of ids: all that it knows, without those it has only recalled.

    `own_hashes` takes the hashes of the ids that are new in it, as many as find room.
    """
    totals, foreign = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for table in tables:
        add_ids(table, first_sequence, *salts, own_hashes, totals)
    add_ids(recalled, first_sequence, *salts, _NO_ROOM, foreign)
    return IdSum(int(totals[TOTAL_COUNT]), int(totals[TOTAL_SUM] - foreign[TOTAL_SUM]) & SUM_MASK)


def sum_of(parts: Iterable[Words], salts: tuple[int, int]) -> IdSum:
    """The sum over ids, each once."""
    return sum_part(parts, 0, salts, NO_IDS, _NO_ROOM)
