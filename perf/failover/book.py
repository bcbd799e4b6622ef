"""What was asked and answered: a row for every transfer, in the order of asking.

The row's number is in the transfer's id, so the logs can be held against the book without a look-up; accounts and
amounts follow from the number and the seed.
"""

import random
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.perf.failover.settings import REQUESTS_MAX
from bezant.perf.load.books import CURRENCY
from bezant.protocol.codes import CODE_ROW
from bezant.protocol.errors import UsageError
from bezant.protocol.money import format_amount
from bezant.protocol.names import account_id
from bezant.protocol.records import Words, id_bytes

TRADE_COUNT: Final = 1 << 16
"""Different transfers that are prepared; a longer load goes through them again, with new ids."""
AMOUNT_MAX: Final = 100
UNANSWERED: Final = -1
UNKNOWN: Final = -2
"""The client was told that nobody knows what became of it."""
FAILED: Final = -3
"""The client was told that it could not be asked: nothing of it may have been done."""
_CAPACITY_INITIAL: Final = 1 << 14

ANSWER: Final = np.dtype(
    [
        ("sent_ns", np.int64),
        ("answered_ns", np.int64),
        ("code", np.int16),
        ("position", np.int64),
        ("timestamp_ns", np.int64),
        ("effective_amount", np.int64),
        ("debit_balance", np.int64),
        ("debit_held", np.int64),
        ("credit_balance", np.int64),
        ("credit_held", np.int64),
    ]
)
"""``code`` is a result code, or UNANSWERED, UNKNOWN, FAILED, with which all that follows is 0. Times are monotonic."""
OUTCOME_FIELDS: Final = tuple(ANSWER.names or ())[4:]
"""Fields that an answer and an event have by the same name."""

Answers = npt.NDArray[np.void]
AnswerRow = tuple[int, int, int, int, int, int, int, int]
"""The fields from ``code`` on."""


class Trade(NamedTuple):
    """A transfer as the SDK is asked for it."""

    debit: str
    credit: str
    amount: str


class Book:
    """See the module. ``names`` are the accounts, ``prefix`` the first word of every id."""

    def __init__(self, account_count: int, seed: int) -> None:
        chance = random.Random(seed)
        self.prefix = chance.getrandbits(62) + 1
        self.names = [f"failover:{number:06d}" for number in range(account_count)]
        pairs = [chance.sample(range(account_count), 2) for _ in range(TRADE_COUNT)]
        amounts = [chance.randint(1, AMOUNT_MAX) for _ in range(TRADE_COUNT)]
        texts = [format_amount(units, 2) for units in range(AMOUNT_MAX + 1)]
        self._trades = [
            Trade(self.names[debit], self.names[credit], texts[units])
            for (debit, credit), units in zip(pairs, amounts, strict=True)
        ]
        self._pairs: Words = np.array(pairs, np.int64)
        self._amounts: Words = np.array(amounts, np.int64)
        ids = b"".join(account_id(name, CURRENCY) for name in self.names)
        self.account_words: Words = np.frombuffer(ids, np.int64).reshape(account_count, 2)
        """(head, tail) of the id of each account."""
        self._rows: Answers = np.zeros(_CAPACITY_INITIAL, ANSWER)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def answers(self) -> Answers:
        """What became of each transfer; a view."""
        return self._rows[: self._count]

    def begin(self, now_ns: int) -> int:
        """Take notice of a transfer that is being asked for; returns its row. Raises `UsageError`."""
        row = self._count
        if row == len(self._rows):
            if row >= REQUESTS_MAX:
                raise UsageError(f"a run has at most {REQUESTS_MAX} requests")
            self._rows = np.concatenate([self._rows, np.zeros(row, ANSWER)])
        self._rows[row] = (now_ns, 0, UNANSWERED, 0, 0, 0, 0, 0, 0, 0)
        self._count = row + 1
        return row

    def end(self, row: int, now_ns: int, answer: AnswerRow) -> None:
        """Take notice of what became of it."""
        self._rows[row] = (self._rows[row]["sent_ns"], now_ns, *answer)

    def trade(self, row: int) -> Trade:
        """What the transfer of a row moves."""
        return self._trades[row % TRADE_COUNT]

    def identifier(self, row: int) -> bytes:
        """The id of the transfer of a row."""
        return id_bytes(self.prefix, row)

    def asked(self, rows: Words) -> tuple[Words, Words, Words]:
        """(debit account, credit account, amount) of rows: numbers of accounts, and minor units."""
        trades = rows % TRADE_COUNT
        return self._pairs[trades, 0], self._pairs[trades, 1], self._amounts[trades]

    @property
    def left_events(self) -> npt.NDArray[np.bool_]:
        """Whether each transfer was answered with a code that leaves an event."""
        return np.isin(self.answers["code"], [code for code, row in CODE_ROW.items() if row.leaves_event])

    @property
    def left_nothing(self) -> npt.NDArray[np.bool_]:
        """Whether each transfer was answered, and as one that was not executed."""
        codes = self.answers["code"]
        nothing: npt.NDArray[np.bool_] = (codes >= 0) & ~self.left_events | (codes == FAILED)
        return nothing
