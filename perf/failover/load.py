"""An open load: so many transfers a second through the SDK, whether the ones before were answered or not.

A client that waits for its answer asks nothing while nobody answers, and so sees one slow request where a thousand were
kept waiting. Here every request that is due is made (Tene, "How NOT to Measure Latency", calls the other way
coordinated omission).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bezant.perf.failover.book import FAILED, UNKNOWN, Book
from bezant.perf.load.books import CURRENCY
from bezant.protocol.errors import BezantError, ConnectionFailed

if TYPE_CHECKING:
    import bezant

PACE_S: Final = 0.002
"""Between two looks at what is due."""
IN_FLIGHT_FACTOR: Final = 2
"""Requests unanswered, at most, in those that come within a deadline; beyond that they are not made, and counted."""
DRAIN_S: Final = 5.0
"""Above the deadline: until then every request has an end."""


class OpenLoad:
    """See the module. ``errors`` counts, by name, what clients were told instead of a result;
    ``late_ms_max``: by how much it was late at most, because this process had other things to do or did not run."""

    def __init__(self, wallets: Sequence["bezant.Wallet"], book: Book, rate: int, deadline_s: float) -> None:
        self._wallets = wallets
        self._book = book
        self._rate = rate
        self._deadline_s = deadline_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight_max = max(int(IN_FLIGHT_FACTOR * rate * deadline_s), 1)
        self._stopping = False
        self._failure: BaseException | None = None
        self.not_made = 0
        self.late_ms_max = 0.0
        self.errors: Counter[str] = Counter()

    async def run(self) -> None:
        """Ask until stopped, then wait for the answers. Raises what a request failed with that is no error of ours."""
        started_s, asked = time.monotonic(), 0
        while not self._stopping and self._failure is None:
            due = int((time.monotonic() - started_s) * self._rate) - asked
            for _ in range(due):
                self._ask()
            asked += due
            began_s = time.monotonic()
            await asyncio.sleep(PACE_S)
            self.late_ms_max = max(self.late_ms_max, 1e3 * (time.monotonic() - began_s - PACE_S))
        async with asyncio.timeout(self._deadline_s + DRAIN_S):
            while self._tasks:
                await asyncio.wait(self._tasks)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopping = True

    def _ask(self) -> None:
        if len(self._tasks) >= self._in_flight_max:
            self.not_made += 1
            return
        row = self._book.begin(time.monotonic_ns())
        task = asyncio.create_task(self._transfer(row))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = self._failure or failure

    async def _transfer(self, row: int) -> None:
        book = self._book
        trade = book.trade(row)
        wallet = self._wallets[row % len(self._wallets)]
        try:
            result = await wallet.transfer(*trade, CURRENCY, id=book.identifier(row), timeout_s=self._deadline_s)
        except BezantError as error:
            self.errors[type(error).__name__] += 1
            outcome = UNKNOWN if isinstance(error, ConnectionFailed) else FAILED
            book.end(row, time.monotonic_ns(), (outcome, 0, 0, 0, 0, 0, 0, 0))
            return
        if result.code is None:
            self.errors["unknown"] += 1
            book.end(row, time.monotonic_ns(), (UNKNOWN, 0, 0, 0, 0, 0, 0, 0))
            return
        if not result.committed:
            self.errors[result.code.name] += 1
        book.end(
            row,
            time.monotonic_ns(),
            (
                int(result.code),
                result.position or 0,
                result.timestamp_ns,
                result.amount,
                result.debit_balance,
                result.debit_held,
                result.credit_balance,
                result.credit_held,
            ),
        )
