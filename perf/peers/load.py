"""The load process of a comparison: as many tasks as there are connections, each of which asks, waits and asks again.

A task whose server is gone ends, and what it had in flight counts as unknown: it does not ask again, as no caller does
that died with its server.
"""

import asyncio
import gc
import sys
import time
from array import array
from typing import Final, assert_never

import msgspec
import numpy as np
import uvloop

from bezant.perf.peers.plan import PeerClient, PeerFailure, PeerLine, PeerOutcome, PeerPlan, PeerProgress, make_trades

PROGRESS_EVERY_S: Final = 0.1
_STDOUT: Final = 1


class PeerLoad:
    """The tasks of a load and what they have seen."""

    def __init__(self, plan: PeerPlan, client: PeerClient) -> None:
        self._plan = plan
        self._client = client
        self._trades = make_trades(plan)
        self._latencies_ns = array("q")
        self._made = self._refused = self._unknown = 0

    async def run(self) -> PeerOutcome:
        """Load for the plan's time, or until no connection is left, and tell what was seen."""
        gc.collect()
        gc.freeze()
        processor_s, started_s = time.process_time(), time.perf_counter()
        deadline_s = started_s + self._plan.seconds
        async with asyncio.TaskGroup() as tasks:
            running = {tasks.create_task(self._ask(number, deadline_s)) for number in range(self._plan.clients)}
            while running:
                _, running = await asyncio.wait(running, timeout=PROGRESS_EVERY_S)
                _write(PeerProgress(self._made))
        seconds = time.perf_counter() - started_s
        median, high = self._percentiles_us()
        return PeerOutcome(
            seconds=seconds,
            made=self._made,
            refused=self._refused,
            unknown=self._unknown,
            retries=self._client.retries,
            latency_us_p50=median,
            latency_us_p99=high,
            cpu_s=time.process_time() - processor_s,
        )

    async def _ask(self, connection: int, deadline_s: float) -> None:
        clock, pipeline = time.perf_counter_ns, self._plan.pipeline
        while time.perf_counter() < deadline_s:
            trades = [next(self._trades) for _ in range(pipeline)]
            asked_ns = clock()
            try:
                made = await self._client.transfer(connection, trades)
            except self._client.losses:
                self._unknown += pipeline
                return
            self._latencies_ns.append(clock() - asked_ns)
            self._made += made
            self._refused += pipeline - made

    def _percentiles_us(self) -> tuple[float | None, float | None]:
        if not self._latencies_ns:
            return None, None
        median, high = np.percentile(np.frombuffer(self._latencies_ns, np.int64), (50, 99)) / 1000
        return round(float(median), 1), round(float(high), 1)


async def open_client(plan: PeerPlan) -> PeerClient:
    """Connect to the servers of a plan."""
    match plan.kind:
        case "bezant":
            from bezant.perf.peers.bezant_client import open_bezant

            return await open_bezant(plan)
        case "postgres":
            from bezant.perf.peers.postgres_client import open_postgres

            return await open_postgres(plan)
        case "postgres-2pc":
            from bezant.perf.peers.two_phase import open_two_phase

            return await open_two_phase(plan)
        case "redis" | "redis-sharded":
            from bezant.perf.peers.redis_client import open_redis

            return await open_redis(plan)
        case _:
            assert_never(plan.kind)


async def _run(plan: PeerPlan) -> PeerOutcome:
    client = await open_client(plan)
    try:
        return await PeerLoad(plan, client).run()
    finally:
        await client.close()


def _write(line: PeerLine) -> None:
    with open(_STDOUT, "wb", closefd=False) as stream:
        stream.write(msgspec.json.encode(line) + b"\n")


def main() -> int:
    """Read a plan from stdin, run it, and write progress and the outcome to stdout; the exit status."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=PeerPlan)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            _write(runner.run(_run(plan)))
    except Exception as error:
        # Whatever it is: the process that waits for a line tells it, and fails.
        _write(PeerFailure(_describe(error)))
        return 1
    return 0


def _describe(error: BaseException) -> str:
    """The error in one line; of a group, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
