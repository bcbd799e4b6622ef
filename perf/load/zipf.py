"""Accounts by Zipf's law: the one of rank r is chosen in proportion to r to the power of -exponent.

One table answers in constant time, whatever the exponent (A. J. Walker's alias method, in M. D. Vose's construction of
1991): every rank stands in a place of equal weight, which it shares with at most one other, its alias. A draw takes a
place by its upper bits and one of the two by its lower ones.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import inlined, kernel
from bezant.perf.load.frames import draw
from bezant.protocol.records import Words

ZIPF_EXPONENT_MAX: Final = 4.0
"""Steeper than this nearly all falls to the first account, and a second one to pay is hardly ever found."""

_LOW_32: Final = (1 << 32) - 1
_LOW_31: Final = (1 << 31) - 1


@kernel
def _fill_aliases(shares: npt.NDArray[np.float64], waiting: Words, table: Words) -> None:
    """Fill the table from the ranks' shares, which add up to their count and are used up; `waiting` is for its use."""
    count = shares.shape[0]
    small = 0
    large = count
    for rank in range(count):
        if shares[rank] < 1.0:
            waiting[small] = rank
            small += 1
        else:
            large -= 1
            waiting[large] = rank
        table[rank] = _LOW_31 << 32 | rank
    while small > 0 and large < count:
        small -= 1
        poor, rich = waiting[small], waiting[large]
        table[poor] = np.int64(shares[poor] * _LOW_31) << 32 | rich
        shares[rich] -= 1.0 - shares[poor]
        if shares[rich] < 1.0:
            large += 1
            waiting[small] = rich
            small += 1


def zipf_table(count: int, exponent: float) -> Words:
    """The table of `count` ranks for `pick`, int64 of that shape: 31 bits of threshold above 32 of the alias.

    An exponent of 0 gives every rank the same share.
    """
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    table = np.zeros(count, np.int64)
    _fill_aliases(weights * (count / weights.sum()), np.zeros(count, np.int64), table)
    return table


@inlined
def pick(table: Words, random: Words) -> int:
    """Draw a rank, counted from 0."""
    choice = draw(random)
    rank: int = ((choice >> 32 & _LOW_32) * table.shape[0]) >> 32
    word: int = table[rank]
    return rank if (choice & _LOW_31) < word >> 32 else word & _LOW_32
