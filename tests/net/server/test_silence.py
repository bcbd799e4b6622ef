"""Claim: a shard that answers nothing keeps clients of others waiting once, and after that not for long."""

import asyncio
import time

import pytest

from bezant.net.server import coordinating
from bezant.net.server.silence import SILENT_S_MAX
from bezant.protocol.codes import ResultCode

from ...engine.commands import transfer
from .node import until
from .two_shards import Network, Shard, settled

COMMITTED = int(ResultCode.COMMITTED)
UNREACHABLE = int(ResultCode.SHARD_UNREACHABLE)
TRY_S_MAX = 5.0
UNDER_WAY_MAX = 4
"""What had been asked for when the shard fell silent, and what sweeps for orphans."""


async def lose(first: Shard, second: Shard, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one shard hear nothing of the other for as long as a try may take."""
    network.trouble = lambda legs: "lost"
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 0.05)
    assert (await first.execute(transfer(first.names[0], second.names[0], 30)))["code"].tolist() == [UNREACHABLE]
    monkeypatch.setattr(coordinating, "TRY_S_MAX", TRY_S_MAX)


def deafen(network: Network) -> float:
    """Have questions lost for longer than a silent shard is waited for; returns until when, by the loop's time."""
    loop = asyncio.get_running_loop()
    hears_s = loop.time() + 4 * SILENT_S_MAX
    network.trouble = lambda legs: "lost" if loop.time() < hears_s else ""
    return hears_s


async def test_who_has_answered_nothing_is_not_waited_for_again(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    await lose(first, second, network, monkeypatch)
    begun_s = time.monotonic()
    across = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: bool(len(first.ledger.open_tries())))
    assert (await first.execute(transfer(first.names[0], first.names[1], 1)))["code"].tolist() == [COMMITTED]
    assert (await across)["code"].tolist() == [UNREACHABLE]
    assert SILENT_S_MAX <= time.monotonic() - begun_s < TRY_S_MAX
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert first.account(first.names[0])["held"] == 0


async def test_what_was_given_up_is_not_asked_for_again_and_again_of_who_is_silent(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question goes on being asked; what is decided meanwhile waits for its answer."""
    first, second = pair
    await lose(first, second, network, monkeypatch)
    tries = 0
    for _ in range(20):
        across = [first.execute(transfer(first.names[0], second.names[0], 1)) for _ in range(3)]
        tries += len(across)
        assert all(one["code"].tolist() == [UNREACHABLE] for one in await asyncio.gather(*across))
    coordinator = first.reactor.coordinator
    assert coordinator is not None
    await until(lambda: coordinator.under_way_count <= UNDER_WAY_MAX)
    assert len(first.ledger.unsettled()) == tries + 1
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert first.account(first.names[0])["held"] == 0


async def test_who_is_heard_of_again_is_waited_for_as_before(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    await lose(first, second, network, monkeypatch)
    network.trouble = lambda legs: ""
    await settled(first, second)  # It has been told of the cancel, and has answered.
    hears_s = deafen(network)
    assert (await first.execute(transfer(first.names[0], second.names[0], 30)))["code"].tolist() == [COMMITTED]
    assert asyncio.get_running_loop().time() >= hears_s


async def test_a_shard_without_a_leader_for_less_than_a_try_is_not_silent(
    pair: tuple[Shard, Shard], network: Network
) -> None:
    first, second = pair
    for _ in range(2):
        deafen(network)
        assert (await first.execute(transfer(first.names[0], second.names[0], 3)))["code"].tolist() == [COMMITTED]
