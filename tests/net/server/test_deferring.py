"""Claim: a try waits for its decision or for what else is written, not for long; one that is lost is taken back."""

import asyncio

import pytest

from bezant.engine.transactions.ids import joined
from bezant.net.server import coordinating, deferring
from bezant.net.server.reactor import EXECUTE_EARLY_COMMANDS_MIN
from bezant.protocol.codes import ResultCode

from ...engine.commands import transfer
from .node import until
from .test_coordinating import restart_sweeps
from .two_shards import Network, Shard, settled

COMMITTED = int(ResultCode.COMMITTED)


@pytest.fixture
async def quick_pair(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> tuple[Shard, Shard]:
    """Two shards that have met, whose disks are quick whatever else this machine does, and which defer for ever."""
    first, second = pair
    for shard, other in ((first, second), (second, first)):
        await shard.execute(transfer(shard.names[0], other.names[0], 1))
    await settled(first, second)
    await until(lambda: first.is_still and second.is_still)
    monkeypatch.setattr(deferring, "WRITE_TRIES_S_MAX", 60.0)
    for shard in pair:
        monkeypatch.setattr(shard.reactor, "_syncs_inline", lambda size_bytes: size_bytes < 1 << 14)
    return pair


async def test_a_try_and_its_decision_wait_for_the_disk_together(quick_pair: tuple[Shard, Shard]) -> None:
    first, second = quick_pair
    before = [shard.reactor.counters.syncs for shard in quick_pair]
    (result,) = await first.execute(transfer(first.names[0], second.names[0], 30))
    assert result["code"] == COMMITTED
    assert [shard.reactor.counters.syncs for shard in quick_pair] == [count + 1 for count in before]
    assert first.is_still


async def test_a_try_whose_shard_does_not_answer_is_written(
    quick_pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = quick_pair
    monkeypatch.setattr(deferring, "WRITE_TRIES_S_MAX", 0.5)  # Time to see that it is not written yet.
    network.trouble = lambda legs: "lost"
    waiting = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: bool(len(first.ledger.open_tries())))
    assert not first.is_still
    await until(lambda: first.is_still)
    assert len(first.ledger.open_tries()) == 1
    network.trouble = lambda legs: ""
    assert (await waiting)["code"].tolist() == [COMMITTED]


async def test_nobody_else_waits(quick_pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = quick_pair
    network.trouble = lambda legs: "lost" if legs["amount"][0] == 30 else ""
    waiting = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: bool(len(first.ledger.open_tries())))
    assert not first.is_still
    async with asyncio.timeout(2):  # less than the first shard takes to give its own transfer up
        assert (await second.execute(transfer(second.names[0], first.names[0], 2)))["code"].tolist() == [COMMITTED]
    assert first.member.replica.durable_index == first.member.replica.log.last_index
    network.trouble = lambda legs: ""
    assert (await waiting)["code"].tolist() == [COMMITTED]
    await settled(first, second)


async def test_a_large_batch_is_not_put_off(quick_pair: tuple[Shard, Shard], network: Network) -> None:
    """It is executed in one turn of the loop and written in the next."""
    first, second = quick_pair
    network.trouble = lambda legs: "lost"
    waiting = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: bool(len(first.ledger.open_tries())))
    assert not first.is_still
    many = joined([transfer(first.names[0], first.names[1], 1) for _ in range(EXECUTE_EARLY_COMMANDS_MIN)])
    behind = asyncio.create_task(first.execute(many))
    await until(lambda: first.ledger.next_sequence > EXECUTE_EARLY_COMMANDS_MIN and first.is_still)
    network.trouble = lambda legs: ""
    assert (await waiting)["code"].tolist() == [COMMITTED]
    assert len(await behind) == EXECUTE_EARLY_COMMANDS_MIN


async def test_what_a_slow_disk_takes_is_not_put_off(
    quick_pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = quick_pair
    monkeypatch.setattr(first.reactor, "_syncs_inline", lambda size_bytes: False)
    network.trouble = lambda legs: "lost"
    waiting = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: bool(len(first.ledger.open_tries())))
    await until(lambda: first.is_still)
    network.trouble = lambda legs: ""
    assert (await waiting)["code"].tolist() == [COMMITTED]


async def test_a_try_that_is_lost_unwritten_is_taken_back(
    quick_pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = quick_pair
    monkeypatch.setattr(coordinating, "SWEEP_S", 0.05)
    a, b = first.names[0], second.names[0]
    balances = first.balances(a), second.balances(b)
    network.trouble = lambda legs: "no answer"
    waiting = asyncio.create_task(first.execute(transfer(a, b, 30)))
    await until(lambda: second.account(b)["incoming"] == 30)
    assert not first.is_still
    first.crash()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not len(first.ledger.open_tries())
    network.trouble = lambda legs: ""
    restart_sweeps(second)
    await until(lambda: second.account(b)["incoming"] == 0)
    await settled(first, second)
    assert (first.balances(a), second.balances(b)) == balances
    assert first.account(a)["held"] == 0
