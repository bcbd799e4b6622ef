"""Claim: a node whose clock is set back or ahead goes on, or says that it is the clock; and a restart changes nothing.

The clock is a file that the test writes, read by a real node in the place of the system's.
"""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Final

import numpy as np

from bezant.engine.replica import open_replica
from bezant.engine.verify import verify
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import ACCOUNT, Records

from .books import COMMITTED, CURRENCY, NAMES, WORLD, opening, transfers
from .node import WAIT_S, Client
from .process import STOP_S, running

NOON_NS: Final = 1_800_000_000_000_000_000
YEAR_NS: Final = 365 * 86_400 * 10**9
BEYOND_NS: Final = NOON_NS + 150 * YEAR_NS

SERVE = """
import functools, sys, time
from pathlib import Path
from types import SimpleNamespace
from bezant.net.server import expiry, serve

data = Path(sys.argv[1])

def clock_ns():
    return int(data.with_name("clock").read_text())

expiry.time = SimpleNamespace(time_ns=clock_ns)
serve.open_member = functools.partial(serve.open_member, clock_ns=clock_ns)
sys.exit(serve.serve(data, "127.0.0.1:0", say=lambda line: print(line, flush=True), reader=False))
"""


class FileClock:
    """What a node takes for the time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "clock"
        self.set(NOON_NS)

    def set(self, now_ns: int) -> None:
        written = self._path.with_suffix(".new")
        written.write_text(str(now_ns))
        written.rename(self._path)


def hold(identifier: int, timeout_ms: int) -> Records:
    made = transfers(1, identifier)
    made["kind"], made["timeout_ms"] = CommandKind.HOLD, timeout_ms
    return made


def capture(named: int, identifier: int) -> Records:
    made = transfers(1, identifier, amount=0)
    made["kind"], made["reference_head"], made["reference_tail"] = CommandKind.CAPTURE, named, 1
    return made


async def held(client: Client) -> int:
    reply = await client.ask(Operation.LOOKUP_ACCOUNTS, account_id(WORLD, CURRENCY))
    return int(np.frombuffer(reply.body, ACCOUNT)[0]["held"])


async def wait_until_held(client: Client, amount: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while await held(client) != amount:
            await asyncio.sleep(0.01)


async def test_a_clock_that_is_set_back_by_decades(tmp_path: Path) -> None:
    """Deadlines wait for the clock to come back to them, and captures are taken meanwhile; also after a restart."""
    clock, data = FileClock(tmp_path), tmp_path / "data"
    async with running(data, SERVE) as node:
        client = await node.connect()
        assert not (await client.execute(opening(*NAMES)))["code"].any()
        made = await client.execute(np.concatenate([hold(1, 60_000), hold(2, 60_000)]))
        last_ns = int(made["timestamp_ns"][-1])
        clock.set(NOON_NS - 40 * YEAR_NS)
        assert (await client.execute(transfers(3, 10)))["timestamp_ns"].tolist() == [last_ns + n for n in (1, 2, 3)]
        assert await node.end(signal.SIGKILL) == -signal.SIGKILL
    async with running(data, SERVE) as node:
        client = await node.connect()
        results = await client.execute(np.concatenate([transfers(1, 20), capture(1, 21)]))
        assert results["code"].tolist() == [COMMITTED, COMMITTED]
        assert results["timestamp_ns"].tolist() == [last_ns + 4, last_ns + 5]
        assert (await client.execute(transfers(1, 10)))["flags"].tolist() == [1]
        assert await held(client) == 1
        # Nobody asks: the node finds out by itself that the time has come.
        clock.set(NOON_NS + 61 * 10**9)
        await wait_until_held(client, 0)
        assert (await client.execute(capture(2, 22)))["code"].tolist() == [ResultCode.HOLD_EXPIRED]
        assert await node.end(signal.SIGTERM) == 0
    check_history(data)


async def test_what_fell_due_while_the_clock_was_ahead_expires_though_it_is_back(tmp_path: Path) -> None:
    """More than one entry lets expire: the rest does not wait for decades."""
    clock, data = FileClock(tmp_path), tmp_path / "data"
    async with running(data, SERVE) as node:
        client = await node.connect()
        assert not (await client.execute(opening(*NAMES)))["code"].any()
        many = np.repeat(hold(1, 60_000), 1500)
        many["id_head"] = np.arange(1, 1501)
        assert not (await client.execute(many))["code"].any()
        clock.set(NOON_NS + 40 * YEAR_NS)
        await client.execute(transfers(1, 2000))
        clock.set(NOON_NS)
        started = time.monotonic()
        await wait_until_held(client, 0)
        assert time.monotonic() - started < WAIT_S / 2
        assert await node.end(signal.SIGTERM) == 0
    check_history(data)


async def test_a_clock_beyond_2160_ends_the_node_with_the_reason(tmp_path: Path) -> None:
    """Nothing is told and nothing is lost; with the clock set right it starts and goes on."""
    clock, data = FileClock(tmp_path), tmp_path / "data"
    async with running(data, SERVE) as node:
        client = await node.connect()
        assert not (await client.execute(opening(*NAMES)))["code"].any()
        first = await client.execute(transfers(5, 1))
        clock.set(BEYOND_NS)
        await client.send(encode_frame(Operation.COMMANDS, 1, transfers(1, 10).tobytes()))
        assert await client.rest() == []
        assert await asyncio.wait_for(node.process.wait(), STOP_S) == os.EX_SOFTWARE
        assert node.process.stderr is not None
        assert "beyond the year 2160: see to the clock" in (await node.process.stderr.read()).decode()
    clock.set(NOON_NS + 10**9)
    async with running(data, SERVE) as node:
        client = await node.connect()
        again = await client.execute(transfers(5, 1))
        assert (again["flags"].tolist(), again["position"].tolist()) == ([1] * 5, first["position"].tolist())
        assert (await client.execute(transfers(1, 10)))["code"].tolist() == [COMMITTED]
        assert await node.end(signal.SIGTERM) == 0
    check_history(data)


def check_history(data: Path) -> None:
    """It verifies, and each event is later than the one before."""
    verify(data)
    replica = open_replica(data)
    times_ns = replica.log.read_events(np.arange(1, replica.ledger.next_sequence))["timestamp_ns"]
    replica.close()
    assert np.all(np.diff(times_ns) > 0)
