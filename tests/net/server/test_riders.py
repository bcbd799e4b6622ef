"""Claim: another shard is told of decisions with the tries that follow them, and of each, whatever becomes of that."""

import numpy as np
import pytest

from bezant.net.server import failure, riders
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, LedgerError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import RESULT, Records

from ...engine.commands import join, transfer
from .node import until
from .two_shards import Asking, Network, Shard, settled

COMMITTED = int(ResultCode.COMMITTED)


async def two_in_a_row(first: Shard, second: Shard) -> Records:
    """Two transfers, the second one before anybody has told the other shard what was decided of the first."""
    a, b = first.names[0], second.names[0]
    return np.concatenate([await first.execute(transfer(a, b, amount)) for amount in (30, 20)])


def raise_bug(*_: object) -> None:
    raise LedgerError("a bug")


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
    """The tries would wait for the answers to two frames."""
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


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_to_ride_with_a_question_that_cannot_leave_goes_on_its_own(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    monkeypatch.setattr(riders, "END_S", 60.0)
    first, second = pair
    begun: list[int] = []

    def begin(asking: Asking, shard: int, commands: Records, timeout_s: float) -> None:
        begun.append(len(commands))
        if fails:
            raise ConnectionFailed("just now")

    monkeypatch.setattr(Asking, "begin", begin)
    assert (await two_in_a_row(first, second))["code"].tolist() == [COMMITTED, COMMITTED]
    assert begun == [2]  # The first one has had the transit account opened.
    first.reactor.coordinator._riders._leave()
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([50], [150])


async def test_what_has_ridden_along_is_found_again_by_who_leads_next(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its answer had come, and had not been looked at."""
    monkeypatch.setattr(riders, "END_S", 60.0)
    first, second = pair
    coordinator, answered = first.reactor.coordinator, []
    monkeypatch.setattr(coordinator, "_end_riders", lambda *answer: answered.append(answer))
    await two_in_a_row(first, second)
    await until(lambda: len(answered) == 1)
    coordinator.lose()
    coordinator._on_riders_answered(*answered[0])
    assert (coordinator._settled, coordinator.under_way_count) == ([], 0)
    first.reactor.schedule()
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([50], [150])


@pytest.mark.parametrize("where", ["the answer", "the settling", "the time"])
async def test_a_bug_in_what_nobody_waits_for_ends_the_node(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It was written to the log, and the transfers stayed under way until another node led."""
    monkeypatch.setattr(riders, "END_S", 0.005 if where == "the time" else 60.0)
    bugs: list[BaseException] = []
    monkeypatch.setattr(failure, "end_after_bug", bugs.append)
    first, second = pair
    coordinator = first.reactor.coordinator
    broken = {"the answer": (coordinator, "_settle"), "the settling": (first.member.replica, "settle")}
    monkeypatch.setattr(*broken.get(where, (coordinator._riders, "_on_left")), raise_bug)
    await two_in_a_row(first, second)
    await until(lambda: bool(bugs))
    assert [str(bug) for bug in bugs] == ["a bug"]
