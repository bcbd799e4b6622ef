"""The load process of `bezant bench sdk`: many tasks that each await one transfer after the other, through the SDK.

This is how an application uses Bezant: one object, no batches, amounts as decimal strings. The SDK coalesces what is
awaited at the same time.
"""

import asyncio
import gc
import random
import statistics
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

import numpy as np

from bezant.perf.load.books import CURRENCY, LoadAccounts, books_fault
from bezant.perf.load.child import ProgressListener, serve_plan
from bezant.perf.load.control import ControlClient
from bezant.perf.load.disk import bytes_in_use
from bezant.perf.load.floor import measure_echo
from bezant.perf.load.frames import AMOUNT_MAX, SHORT_FRAME_SIZE
from bezant.perf.load.latency import new_histogram, percentiles_us, record_latencies
from bezant.perf.load.plan import LoadOutcome, LoadPlan
from bezant.perf.load.processor import ProcessorTimes
from bezant.protocol.money import format_amount
from bezant.protocol.statistics import Statistics

if TYPE_CHECKING:
    import bezant

PROGRESS_EVERY_S: Final = 0.25
_TRADE_COUNT: Final = 1 << 16
"""Different transfers that are prepared; a longer load goes through them again, with new ids."""
_LATENCY_COUNT_MAX: Final = 1 << 16

_Trade = tuple[str, str, str]


class SdkLoad:
    """The tasks of a load and what they have seen."""

    def __init__(self, wallet: "bezant.Wallet", plan: LoadPlan, accounts: LoadAccounts) -> None:
        self._wallet = wallet
        self._plan = plan
        self._trades = islice(cycle(_make_trades(accounts.names, plan.seed)), plan.transfers)
        self._latencies_ns = array("q")
        self._histogram = new_histogram()
        self._latency_max_ns = 0
        self.accepted = 0
        self.repeated = 0
        self.unknown = 0
        self.rejected: Counter[str] = Counter()

    @property
    def answered(self) -> int:
        """Transfers whose outcome is known, or known to be unknown."""
        return self.accepted + self.unknown + self.rejected.total()

    async def run(self, on_progress: ProgressListener) -> float:
        """Make all transfers, `concurrency` at a time; the seconds that it took."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            running = {tasks.create_task(self._transfer_all()) for _ in range(self._plan.concurrency)}
            while running:
                _, running = await asyncio.wait(running, timeout=PROGRESS_EVERY_S)
                on_progress(self.answered)
        return time.perf_counter() - started

    async def _transfer_all(self) -> None:
        """Make one transfer after the other as long as there are any left for some task."""
        transfer, clock = self._wallet.transfer, time.perf_counter_ns
        for debit, credit, amount in self._trades:
            sent_ns = clock()
            result = await transfer(debit, credit, amount, CURRENCY)
            self._latencies_ns.append(clock() - sent_ns)
            if len(self._latencies_ns) == _LATENCY_COUNT_MAX:
                self._fold_latencies()
            if result.committed:
                self.accepted += 1
                self.repeated += result.repeated
            elif result.code is None:
                self.unknown += 1
            else:
                self.rejected[result.code.name] += 1

    def _fold_latencies(self) -> None:
        durations = np.array(self._latencies_ns, np.int64)
        self._latencies_ns = array("q")
        self._latency_max_ns = max(self._latency_max_ns, int(durations.max(initial=0)))
        record_latencies(self._histogram, durations)

    def latency_us(self) -> dict[str, float | None]:
        """Percentiles and maximum of the time from call to result, in microseconds."""
        self._fold_latencies()
        return percentiles_us(self._histogram, self._latency_max_ns)


def _make_trades(names: list[str], seed: int) -> list[_Trade]:
    """Transfers between random pairs of accounts, ready to be asked."""
    chance = random.Random(seed)
    amounts = [format_amount(units, 2) for units in range(1, AMOUNT_MAX + 1)]

    def trades() -> Iterator[_Trade]:
        for _ in range(_TRADE_COUNT):
            debit, credit = chance.sample(range(len(names)), 2)
            yield names[debit], names[credit], chance.choice(amounts)

    return list(trades())


async def run_sdk(plan: LoadPlan, on_progress: ProgressListener) -> LoadOutcome:
    """Carry out a plan from opening the accounts to reading the books. Raises `BezantError`."""
    import bezant

    accounts = LoadAccounts(plan.accounts)
    record_latencies(new_histogram(), np.zeros(1, np.int64))  # loads or compiles the kernel ahead of the load
    echo_us: list[float] = []
    async with ControlClient(plan.address) as control:
        await accounts.open_all(control)
        books_before = await accounts.read(control)
        if plan.echo:
            echo_us += await measure_echo(plan.echo, SHORT_FRAME_SIZE)
        async with bezant.connect(plan.address, timeout_s=plan.stall_timeout_s) as wallet:
            load = SdkLoad(wallet, plan, accounts)
            before: Statistics = await wallet.statistics()
            used_before = bytes_in_use(plan.data, before)
            gc.collect()
            gc.freeze()
            processor = ProcessorTimes(plan.node_process_id)
            replicas = [ProcessorTimes(process_id) for process_id in plan.replica_process_ids]
            seconds = await load.run(on_progress)
            load_cpu_seconds, node_cpu_seconds = processor.own(), processor.other()
            replica_cpu_seconds = [replica.other() for replica in replicas]
            after: Statistics = await wallet.statistics()
            kernel_digest = wallet.welcome.kernel_digest
        if plan.echo:
            echo_us += await measure_echo(plan.echo, SHORT_FRAME_SIZE)
        books_after = await accounts.read(control)
    return LoadOutcome(
        seconds=seconds,
        accepted=load.accepted,
        rejected=load.rejected.total(),
        unknown=load.unknown,
        repeated=load.repeated,
        rejected_codes=dict(load.rejected),
        latency_us=load.latency_us(),
        echo_p50_us=round(statistics.median(echo_us), 3) if echo_us else None,
        load_cpu_seconds=load_cpu_seconds,
        node_cpu_seconds=node_cpu_seconds,
        replica_cpu_seconds=replica_cpu_seconds,
        bytes_on_disk=bytes_in_use(plan.data, after) - used_before,
        books_fault=books_fault(books_before, books_after, load.accepted - load.repeated),
        kernel_digest=kernel_digest,
        statistics_before=before,
        statistics_after=after,
    )


if __name__ == "__main__":
    sys.exit(serve_plan(run_sdk))
