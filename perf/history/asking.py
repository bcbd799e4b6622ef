"""Asks what a reader keeps of a history, and times each question by itself."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from bezant.engine.projections.answers import Range
from bezant.engine.projections.queries import AsOf, Questions
from bezant.engine.proofs.issuing import Issuer
from bezant.perf.history.report import Latencies, Receipts
from bezant.perf.load.books import LoadAccounts
from bezant.perf.load.latency import new_histogram, percentiles_us, record_latency
from bezant.protocol.errors import LedgerError
from bezant.protocol.receipts import check_receipt
from bezant.protocol.records import position_of

STATEMENT_LINES: Final = 100


class Asking:
    """Asks, and times each question by itself."""

    def __init__(self, questions: Questions, accounts: LoadAccounts, random: np.random.Generator) -> None:
        self._questions = questions
        self._accounts = accounts
        self._random = random
        self._first_ns = questions.moment(questions.view(), AsOf(position=1)).timestamp_ns
        self._last_ns = questions.view().timestamp_ns

    def time_as_of(self, accounts: range, count: int) -> Latencies:
        """One account as of a past time, each chosen with equal chance; held included."""

        def ask() -> None:
            view = self._questions.view()
            moment = self._questions.moment(
                view, AsOf(time_ns=int(self._random.integers(self._first_ns, self._last_ns)))
            )
            self._questions.accounts(view, np.array([self._account(accounts)], np.int64), moment)

        return _time(ask, count)

    def time_statement(self, accounts: range, count: int) -> Latencies:
        """The last lines of a statement."""

        def ask() -> None:
            view = self._questions.view()
            moment = self._questions.moment(view, AsOf())
            wanted = Range(limit=STATEMENT_LINES, reverse=True)
            self._questions.statement(view, self._account(accounts), moment, wanted)

        return _time(ask, count)

    def time_by_id(self, count: int) -> Latencies:
        """A transfer by its id."""
        view = self._questions.view()
        chosen = np.unique(self._random.integers(1, view.sequence + 1, count))
        events = self._questions.reader.read(view, chosen)
        ids = iter(zip(events["id_head"].tolist(), events["id_tail"].tolist(), strict=True))

        def ask() -> None:
            moment = self._questions.moment(view, AsOf())
            if not len(self._questions.transfer(view, [next(ids)], moment, Range()).sequences):
                raise LedgerError("an id that was used is not found")

        return _time(ask, len(chosen))

    def _account(self, accounts: range) -> tuple[int, int]:
        number = accounts[int(self._random.integers(len(accounts)))]
        return int(self._accounts.heads[number]), int(self._accounts.tails[number])


def time_receipts(issuer: Issuer, log_id: str, count: int, random: np.random.Generator) -> Receipts:
    """Have receipts given for events chosen at random, and check each as a client does: signature, path and log."""
    sequences = random.integers(1, issuer.size + 1, count).tolist()
    receipts: list[bytes] = []
    wanted, given = iter(sequences), iter(receipts)
    key = issuer.public_key

    def ask() -> None:
        receipts.append(issuer.receipt(position_of(0, next(wanted))))

    def check() -> None:
        check_receipt(next(given), key=key, log_id=log_id)

    return Receipts(
        count=count,
        issue_us=_time(ask, count),
        check_us=_time(check, count),
        size_bytes_max=max(len(receipt) for receipt in receipts),
    )


def _time(ask: Callable[[], None], count: int) -> Latencies:
    histogram, longest_ns = new_histogram(), 0
    for _ in range(count):
        started_ns = time.perf_counter_ns()
        ask()
        taken_ns = time.perf_counter_ns() - started_ns
        record_latency(histogram, taken_ns, 1)
        longest_ns = max(longest_ns, taken_ns)
    return percentiles_us(histogram, longest_ns)
