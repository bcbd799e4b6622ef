"""The load process of `bezant bench transfers`: all clients on one uvloop, in a process that does nothing else.

    bezant bench (command) --plan--> this process ==transfers==> node
                           <-progress, outcome--

It opens the accounts, makes the transfers that come before the load, measures the echo, sends the load, measures the
echo again, and reads the books. While the load runs the interpreter sees runs of frames only (connection.py), the
garbage collector is off, and frames are prepared when the loop has nothing to read.
"""

import asyncio
import gc
import statistics
import sys
import time
from typing import Final

import msgspec
import numpy as np

from bezant.engine.compiled import kernel_digest
from bezant.net.access.credentials import own_credentials
from bezant.perf.load.books import CURRENCY, LoadAccounts, books_fault
from bezant.perf.load.child import ProgressListener, serve_plan
from bezant.perf.load.connection import LoadConnection
from bezant.perf.load.control import ControlClient, connection_failure, split_address
from bezant.perf.load.disk import bytes_in_use
from bezant.perf.load.floor import measure_echo
from bezant.perf.load.mixed import PART_NAMES, REFUSED, UNFUNDED_COUNT, Part, UnexpectedResult
from bezant.perf.load.plan import LoadOutcome, LoadPlan
from bezant.perf.load.processor import ProcessorTimes
from bezant.perf.load.ring import FrameRing
from bezant.perf.load.zipf import zipf_table
from bezant.protocol.errors import BezantError, ConnectionFailed, RequestTimedOut, UsageError
from bezant.protocol.messages import Welcome
from bezant.protocol.names import account_id
from bezant.protocol.records import id_words

PROGRESS_EVERY_S: Final = 0.25
WELCOME_TIMEOUT_S: Final = 10.0
_EARLIER_BATCH: Final = 8189
_EARLIER_IN_FLIGHT: Final = 4
_EARLIER_SEED: Final = 1 << 62
"""Sets the seed of the transfers before a load apart from the load's, and so their ids."""
_UNKNOWN_ACCOUNT: Final = "bench:unknown"
"""Never opened."""


class Load:
    """One load on connected clients; the owner of its connections."""

    def __init__(self, plan: LoadPlan, ring: FrameRing) -> None:
        self.ring = ring
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._connections: list[LoadConnection] = []
        self._hungry: list[LoadConnection] = []
        self._prepare_scheduled = False
        self._closing = False
        self._finished_at = 0.0

    async def connect(self) -> Welcome:
        """Make every connection and exchange hello on it. Raises `ConnectionFailed`, `RequestRefused`."""
        host, port = split_address(self._plan.address)
        own_credentials().check_host(host)
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                for number in range(self._plan.clients):
                    welcome = await self._connect_one(LoadConnection(self, number, self._plan.inflight), host, port)
        except TimeoutError as error:
            raise ConnectionFailed(f"{self._plan.address}: no welcome within {WELCOME_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise connection_failure(self._plan.address, error) from error
        return welcome

    async def _connect_one(self, connection: LoadConnection, host: str, port: int) -> Welcome:
        self._connections.append(connection)
        await self._loop.create_connection(lambda: connection, host, port)
        return await connection.welcome

    async def run(self, on_progress: ProgressListener) -> float:
        """Send every frame, wait for every reply, and return the seconds from the first send to the last reply.

        Raises what ended the load early: `ConnectionFailed`, `RemoteProtocolError`, `RequestRefused`, or
        `RequestTimedOut` if nothing was answered for the plan's `stall_timeout_s`.
        """
        while self.ring.prepare():
            pass
        started = time.perf_counter()
        for connection in self._connections:
            self._feed(connection)
        answered, answered_at = 0, started
        while not self._finished.done():
            await asyncio.wait({self._finished}, timeout=PROGRESS_EVERY_S)
            now = time.perf_counter()
            if self.ring.answered > answered:
                answered, answered_at = self.ring.answered, now
            elif now - answered_at > self._plan.stall_timeout_s and not self._finished.done():
                raise RequestTimedOut(
                    f"the node answered {answered} of {self.ring.frame_count} frames and then nothing for "
                    f"{self._plan.stall_timeout_s:g} s"
                )
            on_progress(min(answered * self._plan.batch, self._plan.transfers))
        self._finished.result()
        return self._finished_at - started

    def close(self) -> None:
        """Close all connections."""
        self._closing = True
        if not self._finished.done():
            self._finished.cancel()
        elif not self._finished.cancelled():
            self._finished.exception()  # seen by `connect` or `run` already; asked, so that asyncio does not report it
        for connection in self._connections:
            connection.close()

    def on_replies(self, connection: LoadConnection) -> None:
        """Keep the connection full; finish after the last reply."""
        if self.ring.sent < self.ring.frame_count:
            self._feed(connection)
        elif self.ring.finished and not self._finished.done():
            self._finished_at = time.perf_counter()
            self._finished.set_result(None)
        if not self._prepare_scheduled and self.ring.can_prepare:
            self._prepare_scheduled = True
            self._loop.call_soon(self._prepare)

    def on_failure(self, error: BezantError) -> None:
        """End the load with the first error."""
        if not self._closing and not self._finished.done():
            self._finished.set_exception(error)

    def _feed(self, connection: LoadConnection) -> None:
        connection.send()
        if connection.room and self.ring.sent < self.ring.frame_count:
            self._hungry.append(connection)

    def _prepare(self) -> None:
        """Prepare one granule between two polls of the sockets, and again until the ring is full."""
        self._prepare_scheduled = False
        self.ring.prepare()
        if self._hungry:
            hungry, self._hungry = self._hungry, []
            for connection in hungry:
                self._feed(connection)
        if self.ring.can_prepare:
            self._prepare_scheduled = True
            self._loop.call_soon(self._prepare)


async def run_transfers(plan: LoadPlan, on_progress: ProgressListener) -> LoadOutcome:
    """Carry out a plan from opening the accounts to reading the books. Raises `BezantError`."""
    accounts = LoadAccounts(plan.accounts, UNFUNDED_COUNT if plan.load == "mixed" else 0)
    _warm_kernels(plan, accounts)
    echo_us: list[float] = []
    async with ControlClient(plan.address) as control:
        await accounts.open_all(control)
        if plan.ids_before:
            await _make_earlier_ids(plan, accounts, control.welcome.batch_count_max, on_progress)
        ring = _make_ring(plan, accounts)
        books_before = await accounts.read(control)
        if plan.echo:
            echo_us += await measure_echo(plan.echo, ring.frame_size)
        load = Load(plan, ring)
        try:
            welcome = await load.connect()
            warnings = check_limits(plan, ring, welcome)
            statistics_before = await control.statistics()
            used_before = bytes_in_use(plan.data, statistics_before)
            gc.collect()
            gc.disable()
            processor = ProcessorTimes(plan.node_process_id)
            replicas = [ProcessorTimes(process_id) for process_id in plan.replica_process_ids]
            seconds = await load.run(lambda done: on_progress(plan.ids_before + done))
            load_cpu_seconds, node_cpu_seconds = processor.own(), processor.other()
            replica_cpu_seconds = [replica.other() for replica in replicas]
        finally:
            gc.enable()
            load.close()
        statistics_after = await control.statistics()
        if plan.echo:
            echo_us += await measure_echo(plan.echo, ring.frame_size)
        books_after = await accounts.read(control)
    kinds = ring.kinds()
    holds = kinds.get(PART_NAMES[Part.HOLD], 0)
    return LoadOutcome(
        seconds=seconds,
        accepted=ring.accepted,
        rejected=plan.transfers - ring.accepted,
        unknown=0,
        repeated=ring.repeated,
        rejected_codes=ring.rejected_codes(),
        latency_us=ring.latency_us(),
        echo_p50_us=round(statistics.median(echo_us), 3) if echo_us else None,
        load_cpu_seconds=load_cpu_seconds,
        node_cpu_seconds=node_cpu_seconds,
        replica_cpu_seconds=replica_cpu_seconds,
        bytes_on_disk=bytes_in_use(plan.data, statistics_after) - used_before,
        books_fault=books_fault(books_before, books_after, ring.accepted - ring.repeated, holds),
        kernel_digest=welcome.kernel_digest or kernel_digest(),
        statistics_before=statistics_before,
        statistics_after=statistics_after,
        kinds=kinds,
        refused=kinds.get(REFUSED, 0),
        warnings=warnings,
    )


async def _make_earlier_ids(
    plan: LoadPlan, accounts: LoadAccounts, batch_max: int, on_progress: ProgressListener
) -> None:
    """Make the plan's transfers with random ids that come before the load, as fast as the node takes them.

    Raises `UnexpectedResult` if one of them is not committed.
    """
    earlier = msgspec.structs.replace(
        plan,
        transfers=plan.ids_before,
        batch=min(_EARLIER_BATCH, batch_max),
        clients=1,
        inflight=_EARLIER_IN_FLIGHT,
        ids="random",
        load="plain",
        zipf=0.0,
        seed=plan.seed ^ _EARLIER_SEED,
    )
    ring = _make_ring(earlier, accounts)
    load = Load(earlier, ring)
    try:
        await load.connect()
        await load.run(on_progress)
    finally:
        load.close()
    if ring.accepted != plan.ids_before:
        raise UnexpectedResult(f"of the transfers before the load some were refused: {ring.rejected_codes()}")


def _make_ring(plan: LoadPlan, accounts: LoadAccounts) -> FrameRing:
    heads, tails = accounts.heads[: plan.accounts], accounts.tails[: plan.accounts]
    table = None
    if plan.load == "mixed" or plan.zipf:
        # The favourite accounts lie anywhere in the order of opening, not side by side in the node's memory.
        order = np.random.default_rng(plan.seed).permutation(plan.accounts)
        unknown = id_words(account_id(_UNKNOWN_ACCOUNT, CURRENCY))
        heads = np.concatenate([heads[order], accounts.heads[plan.accounts :], [unknown[0]]])
        tails = np.concatenate([tails[order], accounts.tails[plan.accounts :], [unknown[1]]])
        table = zipf_table(plan.accounts, plan.zipf)
    return FrameRing(
        transfers=plan.transfers,
        batch=plan.batch,
        frames_in_flight_max=plan.clients * plan.inflight,
        rising_ids=plan.ids == "time",
        seed=plan.seed,
        account_heads=heads,
        account_tails=tails,
        table=table,
        mixed=plan.load == "mixed",
    )


def _warm_kernels(plan: LoadPlan, accounts: LoadAccounts) -> None:
    """Load or compile every kernel on a ring of one frame, so that no part of the load waits for it."""
    one_frame = msgspec.structs.replace(plan, transfers=plan.batch, clients=1, inflight=1)
    ring = _make_ring(one_frame, accounts)
    ring.take(1, 0, 1)
    ring.warm_reply_kernels()


def check_limits(plan: LoadPlan, ring: FrameRing, welcome: Welcome) -> list[str]:
    """Compare the plan with what the node takes. Raises `UsageError` for what it would refuse."""
    if plan.batch > welcome.batch_count_max:
        raise UsageError(f"--batch {plan.batch} is above the {welcome.batch_count_max} that the node takes")
    in_flight = plan.inflight * ring.frame_size
    if in_flight > welcome.connection_bytes_in_flight_max:
        return [
            f"{in_flight} bytes in flight on a connection are over the {welcome.connection_bytes_in_flight_max} that "
            "the node takes, so part of the latency is waiting in the socket"
        ]
    return []


if __name__ == "__main__":
    sys.exit(serve_plan(run_transfers))
