"""Claim: what was done, or may be, is told as that, whatever comes of asking another shard for the rest."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bezant.net.client.channel import CODE_UNKNOWN, DETAIL_UNSURE, OutcomeUnknown
from bezant.net.client.sharding import ShardedChannel
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import AccessDenied, BezantError, ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameError
from bezant.protocol.placement import SLOT_COUNT
from bezant.protocol.records import RESULT, Records

from ...engine.commands import join, transfer

COMMITTED, WRONG_SHARD = int(ResultCode.COMMITTED), int(ResultCode.WRONG_SHARD)
FAILURES = [
    AccessDenied(FrameError.UNAUTHENTICATED, "revoked"),
    RequestRefused(FrameError.OVERLOADED, "too much"),
    ConnectionFailed("gone"),
]


def results_of(*rows: tuple[int, int]) -> Records:
    results = np.zeros(len(rows), RESULT)
    results["code"], results["detail"] = np.array(rows).T
    return results


async def submit(monkeypatch: pytest.MonkeyPatch, first: Records, failure: BezantError) -> Records:
    """Two transfers, of which this comes at first; whatever has to be asked again fails so."""
    answers: list[Any] = [(first, None), failure]

    async def attempt(_channel: ShardedChannel, _commands: Records, _seconds: float) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def learn(*_arguments: object) -> None:
        return

    monkeypatch.setattr(ShardedChannel, "_try", attempt)
    monkeypatch.setattr(ShardedChannel, "_learn", learn)
    monkeypatch.setattr(ShardedChannel, "_seconds", lambda *_arguments: 5.0)
    channel = ShardedChannel.__new__(ShardedChannel)
    channel._loop = asyncio.get_running_loop()
    channel._map = SimpleNamespace(version=1)  # type: ignore[assignment]
    channel._owners = np.zeros(SLOT_COUNT, np.int64)
    return await channel.submit(join(transfer("a", "b", 1), transfer("a", "c", 2)))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_is_done_stays_told(monkeypatch: pytest.MonkeyPatch, failure: BezantError) -> None:
    told = await submit(monkeypatch, results_of((COMMITTED, 0), (WRONG_SHARD, 0)), failure)
    assert told["code"].tolist() == [COMMITTED, WRONG_SHARD]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_may_be_done_is_unknown(monkeypatch: pytest.MonkeyPatch, failure: BezantError) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await submit(monkeypatch, results_of((WRONG_SHARD, DETAIL_UNSURE), (WRONG_SHARD, 0)), failure)
    assert caught.value.results["code"].tolist() == [CODE_UNKNOWN, WRONG_SHARD]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_did_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, failure: BezantError) -> None:
    with pytest.raises(type(failure)):
        await submit(monkeypatch, results_of((WRONG_SHARD, 0), (WRONG_SHARD, 0)), failure)
