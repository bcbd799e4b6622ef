"""Accounts, open holds and sums by currency, up to the last event taken in; and how accounts are kept in blocks."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from bezant.engine.ledger.index import Index
from bezant.engine.projections.kernels import find_accounts, restore_accounts, restore_holds
from bezant.engine.projections.layout import (
    ACCOUNT_OPENED,
    ACCOUNT_WORDS,
    COUNTER_ACCOUNTS,
    COUNTER_CURRENCIES,
    COUNTER_HOLDS_TOP,
    COUNTERS,
    HOLD_WORDS,
    TOTAL_CURRENCY,
    TOTAL_OPENED,
    TOTAL_SEQUENCE,
    TOTAL_WORDS,
    TableArrays,
)
from bezant.engine.projections.lists import add_counts
from bezant.engine.projections.span import Span
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.names import currency_word
from bezant.protocol.records import Words

ACCOUNTS_PER_BLOCK: Final = 1 << 12
"""Accounts in one value of the database: 320 KiB."""
_ROWS_INITIAL: Final = 1 << 10
_CURRENCIES_MAX: Final = 1024
_CHANGES_AT_A_TIME: Final = 1 << 14


class Tables:
    """What the kernels look up and change; tables grow by doubling."""

    def __init__(self, salts: tuple[int, int]) -> None:
        self._account_index, self._hold_index = Index(_ROWS_INITIAL, salts), Index(_ROWS_INITIAL, salts)
        self._accounts = np.zeros((_ROWS_INITIAL, ACCOUNT_WORDS), np.int64)
        self._holds = np.zeros((_ROWS_INITIAL, HOLD_WORDS), np.int64)
        self._holds_free = np.zeros(_ROWS_INITIAL, np.int64)
        self._currency_words = np.zeros(_CURRENCIES_MAX, np.int64)
        self._totals = np.zeros((_CURRENCIES_MAX, TOTAL_WORDS), np.int64)
        self._totals[:, TOTAL_CURRENCY] = np.arange(_CURRENCIES_MAX)
        self._counters = np.zeros(COUNTERS, np.int64)
        self.counts = np.zeros(_ROWS_INITIAL, np.int64)
        """How many events have touched each account, up to the last whole block."""
        self.currencies: dict[str, int] = {}
        """Decimals by code, in the order of registration."""
        self.arrays = self._make_arrays()

    # ---- what changes them ----

    def register_currency(self, code: str, decimals: int) -> None:
        """Add a currency, or find it registered. Raises `CorruptLog` if it was registered with other decimals."""
        if self.currencies.setdefault(code, decimals) != decimals:
            raise CorruptLog(f"the history registers currency {code} with {decimals} decimals, and with others before")
        if len(self.currencies) > _CURRENCIES_MAX:
            raise StorageError(f"the history registers more than {_CURRENCIES_MAX} currencies")
        self._currency_words[len(self.currencies) - 1] = currency_word([*self.currencies][-1])
        self._counters[COUNTER_CURRENCIES] = len(self.currencies)

    def make_room(self, events: int) -> TableArrays:
        """Room for whatever so many events bring; the arrays to give to the kernel that takes them in."""
        accounts, holds = int(self._counters[COUNTER_ACCOUNTS]), int(self._counters[COUNTER_HOLDS_TOP])
        if accounts + events > len(self._accounts):
            self._accounts = _grown(self._accounts, accounts + events)
            self.counts = _grown(self.counts, accounts + events)
        if holds + events > len(self._holds):
            self._holds, self._holds_free = (
                _grown(self._holds, holds + events),
                _grown(self._holds_free, holds + events),
            )
        self._account_index.make_room(events)
        self._hold_index.make_room(events)
        self.arrays = self._make_arrays()
        return self.arrays

    def _make_arrays(self) -> TableArrays:
        return TableArrays(
            self._accounts,
            self._account_index.arrays,
            self._holds,
            self._holds_free,
            self._hold_index.arrays,
            self._currency_words,
            self._totals,
            self._counters,
        )

    # ---- what is asked ----

    @property
    def account_count(self) -> int:
        """Accounts, open and closed."""
        return int(self._counters[COUNTER_ACCOUNTS])

    @property
    def accounts(self) -> Words:
        """Rows of all accounts (`ACCOUNT_WORDS`)."""
        return self._accounts[: self.account_count]

    @property
    def holds(self) -> Words:
        """Rows of holds (`HOLD_WORDS`), those that are free among them."""
        return self._holds[: int(self._counters[COUNTER_HOLDS_TOP])]

    def numbers_of(self, ids: Words) -> Words:
        """Numbers of the accounts with these ids (count, 2); -1 where there is none."""
        numbers = np.empty(len(ids), np.int64)
        find_accounts(self.arrays, np.ascontiguousarray(ids, np.int64), numbers)
        return numbers

    def opened_sequences(self, numbers: Words) -> Words:
        """Sequences of the events that opened accounts, by their numbers; for -1 that of any other one."""
        return np.asarray(self._accounts[numbers, ACCOUNT_OPENED])

    def totals_rows(self, sequence: int) -> Words:
        """The sums of the currencies that are in use, as rows of the end of a block (`TOTAL_WORDS`)."""
        rows = self._totals[self._totals[:, TOTAL_OPENED] > 0].copy()
        rows[:, TOTAL_SEQUENCE] = sequence
        return rows

    # ---- kept and restored ----

    def account_blocks(self, first: int) -> dict[int, bytes]:
        """The blocks of all accounts from the one with number `first` on."""
        rows = self.accounts
        return {
            block: rows[block * ACCOUNTS_PER_BLOCK : (block + 1) * ACCOUNTS_PER_BLOCK].tobytes()
            for block in range(first // ACCOUNTS_PER_BLOCK, -(-len(rows) // ACCOUNTS_PER_BLOCK))
        }

    def restore_accounts(self, blocks: Iterable[bytes], count: int) -> None:
        """Take accounts back. Raises `StorageError` if they are not what was written."""
        rows = np.frombuffer(b"".join(blocks), np.int64)
        if len(rows) % ACCOUNT_WORDS or len(rows) < count * ACCOUNT_WORDS:
            raise StorageError(f"{len(rows)} words for {count} accounts")
        rows = rows.reshape(-1, ACCOUNT_WORDS)[:count]
        if count and (np.diff(rows[:, ACCOUNT_OPENED]) <= 0).any():
            raise StorageError("the accounts are not in the order of opening")
        self.make_room(count)
        self._accounts[:count] = rows
        self._counters[COUNTER_ACCOUNTS] = count
        restore_accounts(self._make_arrays(), 0, count)

    def restore_span(self, span: Span) -> None:
        """Take back what a span says of holds and sums, and how often accounts were touched; in the order of events.

        Raises `CorruptLog` if it does not fit to those before it.
        """
        lists = span.lists
        for start in range(0, len(lists.changes), _CHANGES_AT_A_TIME):
            changes = lists.changes[start : start + _CHANGES_AT_A_TIME]
            taken = restore_holds(self.make_room(len(changes)), changes)
            if taken < len(changes):
                raise CorruptLog(f"index {span.number}: change {start + taken} of a hold follows from none before")
        add_counts(lists.keys, lists.starts, lists.before, self.counts)
        if len(lists.totals):
            last = lists.totals[lists.totals[:, TOTAL_SEQUENCE] == lists.totals[-1, TOTAL_SEQUENCE]]
            self._totals[last[:, TOTAL_CURRENCY]] = last


def _grown(array: Words, rows: int) -> Words:
    grown = np.zeros((1 << rows.bit_length(), *array.shape[1:]), np.int64)
    grown[: len(array)] = array
    return grown
