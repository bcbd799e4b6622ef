"""Claim: a gateway that nodes let in no more says so once, tries again now and then, and goes on when it is let in."""

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bezant.net.gateway import own as own_module
from bezant.net.gateway.asking import Ledger
from bezant.net.gateway.own import REFUSED, OwnLedger
from bezant.protocol.errors import AccessDenied, BezantError, ConnectionFailed, UsageError
from bezant.protocol.frames import FrameError

DENIED = AccessDenied(FrameError.UNAUTHENTICATED, "no")


class OneLedger:
    """A ledger that is over when told so, and says when it was closed."""

    def __init__(self, log_id: str = "one") -> None:
        self.is_broken = False
        self.closed = 0
        self.wallet: Any = SimpleNamespace(owner=self, welcome=SimpleNamespace(log_id=log_id), close=self.close)

    @property
    def is_over(self) -> bool:
        return bool(self.wallet.owner.is_broken)

    async def close(self) -> None:
        self.closed += 1


class Nodes:
    """What attempts to be let in come to, one after the other."""

    def __init__(self, *outcomes: BezantError | OneLedger) -> None:
        self.outcomes = list(outcomes)
        self.attempts = 0
        self.at_a_time = 0
        self.first = OneLedger()
        self.own = OwnLedger(cast(Ledger, self.first), self.reopen)

    async def reopen(self) -> Ledger:
        self.attempts += 1
        self.at_a_time += 1
        assert self.at_a_time == 1
        await asyncio.sleep(0.001)
        self.at_a_time -= 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BezantError):
            raise outcome
        return cast(Ledger, outcome)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WATCH_S", "REOPEN_S_MIN", "REOPEN_S_MAX"):
        monkeypatch.setattr(own_module, name, 0.002)
    yield


async def until(is_so: Any) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.001)


async def test_it_is_told_once_and_mended(caplog: pytest.LogCaptureFixture) -> None:
    second = OneLedger()
    nodes = Nodes(DENIED, UsageError("the file is away"), ConnectionFailed("nobody"), DENIED, second)
    wallet = nodes.first.wallet
    watching = asyncio.create_task(nodes.own.watch())
    await asyncio.sleep(0.02)
    assert (nodes.attempts, nodes.own.is_refused) == (0, False)
    with caplog.at_level(logging.WARNING, "bezant"):
        nodes.first.is_broken = True
        await until(lambda: nodes.own.is_refused)
        waiting = asyncio.create_task(nodes.own.served())
        await asyncio.sleep(0.001)
        assert not waiting.done()
        await waiting
    assert not nodes.own.is_refused
    assert nodes.own.ledger.wallet is second.wallet is not wallet
    assert (nodes.first.closed, second.closed, nodes.attempts) == (1, 0, 5)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert REFUSED in told[0]
    assert "--token-file" in told[0]
    assert "in again" in told[1]
    watching.cancel()


async def test_connections_that_find_by_themselves_that_they_are_let_in_stay() -> None:
    nodes = Nodes(*[DENIED] * 1000)
    wallet = nodes.first.wallet
    watching = asyncio.create_task(nodes.own.watch())
    nodes.first.is_broken = True
    await until(lambda: nodes.own.is_refused)
    nodes.first.is_broken = False
    await nodes.own.served()
    assert (nodes.own.is_refused, nodes.own.ledger.wallet, nodes.first.closed) == (False, wallet, 0)
    watching.cancel()


async def test_another_ledger_is_none_to_go_on_with() -> None:
    other, same = OneLedger("another"), OneLedger()
    nodes = Nodes(other, same)
    nodes.first.is_broken = True
    watching = asyncio.create_task(nodes.own.watch())
    await until(lambda: nodes.own.ledger.wallet is same.wallet)
    assert other.closed == 1
    watching.cancel()
