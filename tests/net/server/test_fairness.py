"""Claim: however much some clients send, another one that sends a little is answered soon: within a few batches.

Those that find a batch full wait in a line, each with what it has; whoever has been let in stands at its end again. So
before a newcomer come those who wait already, a batch each at most, and never the same one twice.
"""

import asyncio
from collections import Counter

import pytest

from bezant.engine.replica import BATCH_COMMANDS_MAX
from bezant.net.server.reactor import Reactor

from .books import transfer_frame, transfers
from .node import Client, Node, until

GREEDY = 6
FRAME_COMMANDS = 4096


async def flood(client: Client, number: int, stopping: asyncio.Event) -> int:
    """Send large frames without end, and read all replies; returns how many were answered."""
    sent = answered = 0
    while not stopping.is_set() or answered < sent:
        while sent - answered < 12 and not stopping.is_set():
            client.write(transfer_frame(sent + 10, FRAME_COMMANDS, (number << 40) + sent * FRAME_COMMANDS + 1))
            sent += 1
        if sent > answered:
            assert not any((await client.reply()).codes)
            answered += 1
    return answered


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Counter[int]]:
    """For each batch that was executed, how many commands of which connection were in it."""
    seen: list[Counter[int]] = []
    execute = Reactor._execute

    def note(reactor: Reactor) -> None:
        batch = reactor.collecting
        counts: Counter[int] = Counter()
        for run in batch.runs:
            frames = batch.frames[run.frame_first : run.frame_end]
            counts[id(run.replier)] += int(frames["command_count"].sum())
        if counts:
            seen.append(counts)
        execute(reactor)

    monkeypatch.setattr(Reactor, "_execute", note)
    return seen


async def test_who_sends_little_is_answered_soon_whatever_others_send(
    large_node: Node, batches: list[Counter[int]]
) -> None:
    stopping = asyncio.Event()
    floods = []
    for number in range(1, GREEDY + 1):
        floods.append(asyncio.create_task(flood(await large_node.connect(), number, stopping)))
    polite = await large_node.connect()
    await until(lambda: len(batches) > 3)
    waited = []
    for number in range(20):
        begun = len(batches)
        assert not (await polite.execute(transfers(1, (1 << 50) + number)))["code"].any()
        waited.append(len(batches) - begun)
    stopping.set()
    answered = await asyncio.gather(*floods)
    # Those in line are before it, then come the batch that it is in and those that are executed until it is durable.
    assert max(waited) <= GREEDY + 6, waited
    assert sorted(waited)[len(waited) // 2] <= GREEDY, waited
    assert min(answered) > 0


async def test_who_sends_much_gets_as_much_as_others_who_do(large_node: Node, batches: list[Counter[int]]) -> None:
    """Of clients that always have more to send none gets more than its turn: the shares of the busiest and the least
    busy of them are not far from each other."""
    stopping = asyncio.Event()
    floods = []
    for number in range(1, GREEDY + 1):
        floods.append(asyncio.create_task(flood(await large_node.connect(), number, stopping)))
    await until(lambda: len(batches) >= 130)  # Over few of them a busy machine has clients fall behind by chance.
    shares = sum(batches[10:130], Counter())
    stopping.set()
    await asyncio.gather(*floods)
    assert len(shares) == GREEDY
    assert max(shares.values()) <= 2 * min(shares.values()), shares
    assert all(sum(batch.values()) <= BATCH_COMMANDS_MAX for batch in batches)
