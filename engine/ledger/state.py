"""The arrays that hold a ledger's state, as kernels see them.

An account is split in two rows of one cache line each: what every transfer touches (`ROW`) and what only an OPEN, a
look-up or a rare kind touches (`ROW_COLD`). Tables are allocated whole and zeroed by the operating system on first
touch, so a table for four million accounts costs memory only for those that exist.

Invariants: the balances of each currency add up to zero; an account's held sum is that of the open holds and tries that
it pays, its incoming sum that of the open tries that it receives; held, incoming >= 0; balance + incoming <= 2^63 - 1;
balance - held >= -(2^63 - 1), and >= -limit except where a limit was lowered below what was used already.
`Ledger.check_invariants` checks all of them but the last, which cannot be seen in a state alone.
"""

from typing import Final, NamedTuple

import numpy as np

from bezant.engine.hashing import SCRATCH_SIZE
from bezant.engine.ledger.index import IndexArrays
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX
from bezant.protocol.records import EVENT, SEQUENCE_BITS, SEQUENCE_FIRST, Bytes, Records, Words

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
HOLD_ROW: Final = np.dtype(
    [
        ("id_head", "<i8"),
        ("id_tail", "<i8"),
        ("hash", "<i8"),
        ("sequence", "<i8"),
        ("remaining", "<i8"),
        ("deadline_ns", "<i8"),
        ("debit_row", "<i4"),
        ("credit_row", "<i4"),
        ("heap_place", "<i4"),
        ("fate", "<i2"),
        ("kind", "<i2"),
    ]
)
"""An open hold or try; `kind` is the command's that made it. `deadline_ns` 0: never expires, not in the heap
(`heap_place` -1). `sequence` 0: a free row."""
UNSETTLED: Final = np.dtype([("try_sequence", "<i8"), ("decision_sequence", "<i8"), ("is_confirm", "<i8")])
"""A decision that the other shard of a try may not know yet: sequences of the TRY_DEBIT, and of its CONFIRM (1) or
CANCEL (0)."""

ROW_WORDS: Final = 8
UNSETTLED_WORDS: Final = 3

FATE_OPEN: Final = 0
FATE_CAPTURED: Final = 1
FATE_RELEASED: Final = 2
FATE_EXPIRED: Final = 3
FATE_CONFIRMED: Final = 4
FATE_CANCELLED: Final = 5
FATE_NO_DEBIT: Final = 6
FATE_NO_CREDIT: Final = 7
"""FATE_NO_DEBIT, FATE_NO_CREDIT: the event is a CANCEL that came before its TRY_DEBIT or TRY_CREDIT, and used up the id
of that, which is in its reference, so that it will never be executed."""
FATE_REFUSED: Final = 8
FATE_UNUSED: Final = 9
"""Never stored: what a look-up says of a try that was refused, or given up, and of an id that nothing has used."""
SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
"""A value of the id index is the sequence of the event that used the id, and above that the fate of its hold."""

COUNTER_NEXT_SEQUENCE: Final = 0
COUNTER_LAST_TIMESTAMP_NS: Final = 1
COUNTER_ACCOUNTS: Final = 2
COUNTER_CURRENCIES: Final = 3
COUNTER_POSITION_BASE: Final = 4
COUNTER_HOLDS_TOP: Final = 5
COUNTER_HOLDS_FREE: Final = 6
COUNTER_HEAP: Final = 7
COUNTER_UNDO: Final = 8
COUNTER_IN_CHAIN: Final = 9
COUNTER_ENTRY_TIMESTAMP_NS: Final = 10
COUNTER_RULES_VERSION: Final = 11
COUNTER_TRY_DEBITS: Final = 12
COUNTER_UNSETTLED: Final = 13
_COUNTERS_SIZE: Final = 16

UNDO_KIND: Final = 0
UNDO_NUMBER: Final = 1
UNDO_IMAGE: Final = 2
_UNDO_WORDS: Final = UNDO_IMAGE + ROW_WORDS
_UNDO_PER_COMMAND: Final = 4

RULES_VERSION_FIRST: Final = 1
"""The rules that a history begins with. Kernels read the version in force from its counter: where rules of a later
version differ they branch on it, so that those before stay as they were."""
CURRENCIES_MAX: Final = 1024
"""Currencies that a ledger can register."""
EXPIRES_PER_ENTRY_MAX: Final = 1024
"""Holds that expire at the start of one entry; more wait for the next."""

_LINE_BYTES: Final = 64
if {ROW.itemsize, ROW_COLD.itemsize, HOLD_ROW.itemsize} != {_LINE_BYTES}:
    raise AssertionError("a row is one cache line")


class HoldArrays(NamedTuple):
    """Open holds and tries: rows, a stack of free row numbers, a binary heap of row numbers by (deadline, sequence), an
    index. And what is unsettled (int64 of shape (count, 3), as `UNSETTLED`), in the order of the decisions: with the
    open TRY_DEBITs never more than there are rows."""

    rows: Records
    free: Words
    heap: Words
    index: IndexArrays  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    unsettled: Words


class LedgerArrays(NamedTuple):
    """All of a ledger's state, and working memory for kernels. `row_words` is `rows` as int64 of shape (count, 8)."""

    rows: Records
    row_words: Words
    rows_cold: Records
    account_index: IndexArrays
    id_index: IndexArrays
    holds: HoldArrays
    currencies: Words
    counters: Words
    undo: Words
    scratch: Bytes


class Originals(NamedTuple):
    """Events of earlier entries that a batch's ids may repeat or name, fetched for the kernel, and their sequences.

    They ascend, up to those that were fetched singly; the latter come last and are searched one by one.
    """

    events: Records
    sequences: Words


def new_rows(count: int, dtype: np.dtype[np.void]) -> Records:
    """Rows of zeros, each in a cache line of its own: memory as it is given begins within one, and then each row has a
    part of two, of which one more has to be loaded for every account that a transfer touches."""
    space = np.zeros((count + 1) * _LINE_BYTES, np.uint8)
    start = -space.ctypes.data % _LINE_BYTES
    return space[start : start + count * _LINE_BYTES].view(dtype)


def new_arrays(
    accounts_max: int,
    holds_max: int,
    position_base: int,
    account_index: IndexArrays,
    id_index: IndexArrays,
    hold_index: IndexArrays,
) -> LedgerArrays:
    """An empty ledger over empty indexes."""
    counters = np.zeros(_COUNTERS_SIZE, np.int64)
    counters[COUNTER_NEXT_SEQUENCE] = SEQUENCE_FIRST
    counters[COUNTER_POSITION_BASE] = position_base
    counters[COUNTER_RULES_VERSION] = RULES_VERSION_FIRST
    rows = new_rows(accounts_max, ROW)
    holds = HoldArrays(
        new_rows(holds_max, HOLD_ROW),
        np.zeros(holds_max, np.int64),
        np.zeros(holds_max, np.int64),
        hold_index,
        np.zeros((holds_max, UNSETTLED_WORDS), np.int64),
    )
    return LedgerArrays(
        rows,
        rows.view(np.int64).reshape(accounts_max, ROW_WORDS),
        new_rows(accounts_max, ROW_COLD),
        account_index,
        id_index,
        holds,
        np.zeros(CURRENCIES_MAX, np.int64),
        counters,
        np.zeros((CHAIN_COMMANDS_MAX * _UNDO_PER_COMMAND, _UNDO_WORDS), np.int64),
        np.zeros(SCRATCH_SIZE, np.uint8),
    )


NO_ORIGINALS: Final = Originals(np.zeros(0, EVENT), np.zeros(0, np.int64))
"""What a batch starts with: nothing fetched."""
