"""Claim: another shard is told of decisions with the tries that follow them, and of each, whatever becomes of that."""

import numpy as np
import pytest

from bezant.net.server import riders
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import RESULT, Records

from ...engine.commands import join, transfer
from .two_shards import Network, Shard, settled

COMMITTED = int(ResultCode.COMMITTED)


async def two_in_a_row(first: Shard, second: Shard) -> Records:
    """Two transfers, the second one before anybody has told the other shard what was decided of the first."""
    a, b = first.names[0], second.names[0]
    return np.concatenate([await first.execute(transfer(a, b, amount)) for amount in (30, 20)])


@pytest.mark.parametrize("lost", ["", "lost", "no answer", "twice"])
async def test_decisions_ride_with_the_next_try(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(riders, "END_S", 60.0)
    first, second = pair

    def trouble(legs: Records) -> str:
        is_first = len(legs) == 2 and not any(len(asked) == 2 for asked in network.legs)
        return lost if is_first else ""

    network.trouble = trouble
    results = await two_in_a_row(first, second)
    assert (results["code"] == COMMITTED).all()
    kinds = [[CommandKind(kind) for kind in asked["kind"]] for asked in network.legs if len(asked) == 2]
    assert kinds[0] == [CommandKind.TRY_CREDIT, CommandKind.CONFIRM]
    first.reactor.coordinator._riders._leave()
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([50], [150])


async def test_what_a_shard_does_not_do_of_what_has_ridden_along_is_asked_for_again(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(riders, "END_S", 60.0)
    answer = network.ask

    async def ask(asking: int, shard: int, commands: Records, timeout_s: float) -> Records:
        if len(commands) == 1:
            return await answer(asking, shard, commands, timeout_s)
        results = np.zeros(len(commands), RESULT)
        results["code"] = int(ResultCode.STORAGE_FULL)
        results[:1] = await answer(asking, shard, commands[:1], timeout_s)
        return results

    monkeypatch.setattr(network, "ask", ask)
    assert (await two_in_a_row(first, second))["code"].tolist() == [COMMITTED, COMMITTED]
    first.reactor.coordinator._riders._leave()
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([50], [150])


async def test_what_would_take_a_frame_more_travels_on_its_own(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are asked for one after the other: the tries would wait for two of them."""
    first, second = pair
    monkeypatch.setattr(riders, "END_S", 60.0)
    world, b = f"{{{first.names[0]}}}", second.names[0]
    await first.execute(transfer(world, b, 1))
    results = await first.execute(join(*(transfer(world, b, 1) for _ in range(BATCH_COUNT_MAX))))
    assert (results["code"] == COMMITTED).all()
    assert max(len(asked) for asked in network.legs) == BATCH_COUNT_MAX
    first.reactor.coordinator._riders._leave()
    await settled(first, second)
    assert second.balances(b) == [100 + 1 + BATCH_COUNT_MAX]


async def test_what_is_confirmed_is_sought_past_a_shard_that_does_not_know_the_currency(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never tried there: such a shard may be new, and the slot have gone where it comes after that."""
    first, second = pair
    answer, asked = network.ask, []

    async def ask(asking: int, shard: int, commands: Records, timeout_s: float) -> Records:
        refused = np.zeros(len(commands), RESULT)
        if shard == 0:
            refused["code"] = int(ResultCode.CURRENCY_UNKNOWN)
            return refused
        if (commands["kind"] == CommandKind.CONFIRM).any():
            asked.append(shard)
            if len(asked) <= 2:
                refused["code"] = int(ResultCode.WRONG_SHARD)
                return refused
        return await answer(asking, shard, commands, timeout_s)

    monkeypatch.setattr(network, "ask", ask)
    assert (await first.execute(transfer(first.names[0], second.names[0], 30)))["code"].tolist() == [COMMITTED]
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([70], [130])
