"""The arrays that hold a ledger's state, as kernels see them.

An account is split in two rows of one cache line each: what every transfer touches (`ROW`) and what only an OPEN, a
look-up or a rare kind touches (`ROW_COLD`). Tables are allocated whole and zeroed by the operating system on first
touch, so a table for four million accounts costs memory only for those that exist.

Invariants (checked by `Ledger.check_invariants`): the balances of each currency add up to zero; held >= 0;
balance - held >= -(2^63 - 1), and >= -limit except where a limit was lowered below what was used already.
"""

from typing import Final, NamedTuple

import numpy as np

from bezant.engine.hashing import SCRATCH_SIZE
from bezant.engine.ledger.index import IndexArrays
from bezant.protocol.records import EVENT, SEQUENCE_FIRST, Bytes, Records, Words

ROW: Final = np.dtype(
    [
        ("id_head", "<i8"),
        ("id_tail", "<i8"),
        ("balance", "<i8"),
        ("held", "<i8"),
        ("limit", "<i8"),
        ("last_position", "<i8"),
        ("event_count", "<i8"),
        ("currency_number", "<i4"),
        ("flags", "<i4"),
    ]
)
ROW_COLD: Final = np.dtype([("incoming", "<i8"), ("opened_position", "<i8"), ("name", "<i8", 6)])

COUNTER_NEXT_SEQUENCE: Final = 0
COUNTER_LAST_TIMESTAMP_NS: Final = 1
COUNTER_ACCOUNTS: Final = 2
COUNTER_CURRENCIES: Final = 3
COUNTER_POSITION_BASE: Final = 4
_COUNTERS_SIZE: Final = 8

CURRENCIES_MAX: Final = 1024
"""Currencies that a ledger can register."""

if ROW.itemsize != 64 or ROW_COLD.itemsize != 64:
    raise AssertionError("an account row is one cache line")


class LedgerArrays(NamedTuple):
    """All of a ledger's state, and working memory for kernels."""

    rows: Records
    rows_cold: Records
    account_index: IndexArrays
    id_index: IndexArrays
    currencies: Words
    counters: Words
    scratch: Bytes


class Originals(NamedTuple):
    """Events of earlier entries that a batch's ids may repeat, fetched for the kernel.

    `of_command` is empty or has, for each command, the number of its candidate in `events` or -1; `sequences` are
    theirs. Those from `first_extra` on were fetched singly and are searched one by one.
    """

    events: Records
    sequences: Words
    of_command: Words


def new_arrays(
    accounts_max: int, position_base: int, account_index: IndexArrays, id_index: IndexArrays
) -> LedgerArrays:
    """An empty ledger over two empty indexes."""
    counters = np.zeros(_COUNTERS_SIZE, np.int64)
    counters[COUNTER_NEXT_SEQUENCE] = SEQUENCE_FIRST
    counters[COUNTER_POSITION_BASE] = position_base
    return LedgerArrays(
        np.zeros(accounts_max, ROW),
        np.zeros(accounts_max, ROW_COLD),
        account_index,
        id_index,
        np.zeros(CURRENCIES_MAX, np.int64),
        counters,
        np.zeros(SCRATCH_SIZE, np.uint8),
    )


NO_ORIGINALS: Final = Originals(np.zeros(0, EVENT), np.zeros(0, np.int64), np.zeros(0, np.int64))
"""What a batch starts with: nothing fetched."""
