"""The arrays that projections are made of, as kernels see them. All int64, but for what is stored in great number.

A *list key* is ``4 * account number + list``: the list of all events that touched the account, and lists of those among
them that say what its limit is, whether it is frozen or closed, and what became of its holds. Account numbers are given
in the order of opening, so they are the same on every node.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.index import IndexArrays
from bezant.protocol.records import Words

Halves = npt.NDArray[np.int32]
Checksums = npt.NDArray[np.uint32]

LIST_ALL: Final = 0
LIST_LIMIT: Final = 1
LIST_FLAGS: Final = 2
LIST_HOLDS: Final = 3
LIST_BITS: Final = 2

POSTING_SHIFT: Final = 20
"""A posting that is not sorted yet is ``list key << 20 | number of the event in its block``."""
BLOCK_EVENTS_MAX: Final = 1 << POSTING_SHIFT
POSTINGS_PER_EVENT: Final = 3
IDS_PER_EVENT: Final = 2

ACCOUNT_HEAD: Final = 0
ACCOUNT_TAIL: Final = 1
ACCOUNT_CURRENCY: Final = 2
ACCOUNT_OPENED: Final = 3
ACCOUNT_NAME: Final = 4
ACCOUNT_WORDS: Final = 10
"""An account: id, number of its currency, sequence of its OPEN, name (six words)."""

HOLD_HEAD: Final = 0
HOLD_TAIL: Final = 1
HOLD_ACCOUNT: Final = 2
HOLD_SEQUENCE: Final = 3
HOLD_REMAINING: Final = 4
HOLD_HASH: Final = 5
HOLD_WORDS: Final = 6
"""An open hold. `HOLD_SEQUENCE` 0: a free row."""

CHANGE_SEQUENCE: Final = 0
CHANGE_HOLD: Final = 1
CHANGE_BEFORE: Final = 2
CHANGE_AFTER: Final = 3
CHANGE_ACCOUNT: Final = 4
CHANGE_HEAD: Final = 5
CHANGE_TAIL: Final = 6
CHANGE_WORDS: Final = 7
"""What an event did to a hold: its own sequence and that of the HOLD, what remained before and after it, the account
that pays, the id of the hold."""

TOTAL_SEQUENCE: Final = 0
TOTAL_CURRENCY: Final = 1
TOTAL_OPENED: Final = 2
TOTAL_CLOSED: Final = 3
TOTAL_MOVES: Final = 4
TOTAL_MOVED: Final = 5
TOTAL_POSITIVE: Final = 7
TOTAL_HELD: Final = 9
TOTAL_WORDS: Final = 11
"""Sums of a currency up to a sequence: accounts opened and closed, moves of money; then sums of amounts in two words
each, the upper one counting in units of 2^32, because they may not fit in 64 bits: moved, of the balances above zero
(those below are as much, with the sign changed), held."""

SUMMARY_FIRST: Final = 0
SUMMARY_COUNT: Final = 1
SUMMARY_KINDS: Final = 2
SUMMARY_CODES: Final = 3
SUMMARY_CURRENCIES: Final = 4
SUMMARY_WORDS: Final = 5
"""What a block of events has, so that a search can pass over it: first sequence, number of events; and a bit for each
kind, for the hash of each code and for the number of each currency. Refused events count as all others."""

COUNTER_ACCOUNTS: Final = 0
COUNTER_CURRENCIES: Final = 1
COUNTER_HOLDS_TOP: Final = 2
COUNTER_HOLDS_FREE: Final = 3
COUNTER_POSTINGS: Final = 4
COUNTER_IDS: Final = 5
COUNTER_CHANGES: Final = 6
COUNTER_TIMES: Final = 7
COUNTERS: Final = 8


class TableArrays(NamedTuple):
    """What is known of accounts, open holds and currencies. `holds_free` is a stack of free rows of `holds`."""

    accounts: Words
    account_index: IndexArrays
    holds: Words
    holds_free: Words
    hold_index: IndexArrays
    currencies: Words
    totals: Words
    counters: Words


class BlockArrays(NamedTuple):
    """What kernels write of the events of a block: postings and ids in the order of the events, and the rest."""

    postings: Words
    hashes: Words
    values: Words
    changes: Words
    times: Words
    checksums: Checksums
    summary: Words
