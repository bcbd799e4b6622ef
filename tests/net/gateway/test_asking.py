"""Claim: that a currency is not registered is said only by a node that was asked, and after the request came."""

import asyncio
from typing import cast

import pytest

from bezant.net.client.wallet import Wallet
from bezant.net.gateway.asking import Ledger
from bezant.net.gateway.problems import ProblemRaised
from bezant.protocol.errors import BezantError, RequestRefused, RequestTimedOut
from bezant.protocol.frames import FrameError


class Currencies:
    """A wallet that is asked for its currencies alone, and answers when told to."""

    def __init__(self) -> None:
        self.asked_count = 0
        self.registered: dict[str, int] = {"EUR": 2}
        self.failure: BezantError | None = None
        self.may_answer = asyncio.Event()

    async def currencies(self, *, timeout_s: float) -> dict[str, int]:
        assert timeout_s == 5.0
        self.asked_count += 1
        told = dict(self.registered)
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return told


def ledger_of(node: Currencies) -> Ledger:
    return Ledger(cast(Wallet, node), 5.0)


async def test_all_who_ask_first_are_told_what_the_one_question_found() -> None:
    node = Currencies()
    ledger = ledger_of(node)
    asking = [asyncio.create_task(ledger.decimals_of("EUR")) for _ in range(5)]
    await asyncio.sleep(0)
    node.may_answer.set()
    assert await asyncio.gather(*asking) == [2] * 5
    assert node.asked_count == 1


@pytest.mark.parametrize("failure", [RequestTimedOut("late"), RequestRefused(FrameError.REQUEST_REFUSED, "no")])
async def test_a_question_that_fails_says_nothing_about_a_currency(failure: BezantError) -> None:
    node = Currencies()
    node.failure = failure
    node.may_answer.set()
    ledger = ledger_of(node)
    for _ in range(2):
        told = await asyncio.gather(*(ledger.decimals_of("EUR") for _ in range(3)), return_exceptions=True)
        for error in told:
            if isinstance(failure, RequestTimedOut):
                assert error is failure
            else:
                assert isinstance(error, ProblemRaised)
                assert (error.problem.status, error.problem.retryable) == (503, True)
    node.failure = None
    assert await ledger.decimals_of("EUR") == 2


async def test_a_currency_that_was_registered_while_others_asked_is_found() -> None:
    node = Currencies()
    ledger = ledger_of(node)
    first = asyncio.create_task(ledger.decimals_of("USD"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    node.registered["USD"] = 2
    second = asyncio.create_task(ledger.decimals_of("USD"))
    await asyncio.sleep(0)
    node.may_answer.set()
    with pytest.raises(ProblemRaised) as raised:
        await first
    assert raised.value.problem.code == "CURRENCY_NOT_REGISTERED"
    assert await second == 2


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    node = Currencies()
    ledger = ledger_of(node)
    first, second = (asyncio.create_task(ledger.decimals_of("EUR")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    node.may_answer.set()
    assert await second == 2
    with pytest.raises(asyncio.CancelledError):
        await first
