"""Claim: another shard is told of decisions with the tries that follow them, and of each, whatever becomes of that."""

import numpy as np
import pytest

from bezant.net.server import coordinating, riders
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import RESULT, Records

from ...engine.commands import transfer
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


async def test_more_than_a_question_takes_rides_on_its_own(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(coordinating, "BATCH_COMMANDS_MAX", 1)
    await two_in_a_row(first, second)
    await settled(first, second)
    assert {len(asked) for asked in network.legs} == {1}
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([50], [150])
