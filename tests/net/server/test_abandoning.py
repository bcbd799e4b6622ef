"""Claim: a node that loses its leadership answers everybody once: with results, or that the outcome is not known."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bezant.net.server.batch import Batch, Request
from bezant.net.server.reactor import BATCHES_MAX, Reactor
from bezant.net.server.requests import AnsweredElsewhere
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.records import COMMAND, RESULT, Records

from .node import Node

Patch = pytest.MonkeyPatch
COMMITTED_INDEX = 10


@pytest.fixture
def waiting(node: Node) -> Iterator[list[Batch]]:
    """Three batches that wait: one is committed, one rests on leading still, and one is not committed."""
    reactor, member = node.reactor, node.reactor.member
    follower = SimpleNamespace(
        is_leader=False, is_alone=False, committed_index=COMMITTED_INDEX, reads_confirmed=[], leader_address=""
    )
    reactor.member = reactor._telling._member = follower  # type: ignore[assignment]
    batches = [reactor._spare.pop() for _ in range(3)]
    for batch, index in zip(batches, (COMMITTED_INDEX, COMMITTED_INDEX, COMMITTED_INDEX + 1), strict=True):
        batch.index = index
    reactor._telling.waiting.extend(batches)
    yield batches
    reactor.member = reactor._telling._member = member


async def test_each_is_answered_once_and_no_batch_is_in_two_places(node: Node, waiting: list[Batch]) -> None:
    told: list[object] = []
    futures: list[asyncio.Future[Records]] = [asyncio.Future() for _ in range(2)]
    committed, asked, uncommitted = waiting
    for batch, future in ((committed, futures[0]), (uncommitted, futures[1])):
        batch.add_submission(np.zeros(1, COMMAND), future)
        batch.results = np.zeros(1, RESULT)
    asked.read_ticket = 7
    asked.answers.append((Request(Operation.LIST_CURRENCIES, b"", told.append), b"stale"))
    for _ in range(2):
        node.reactor._reply()
    assert len(futures[0].result()) == 1
    error = futures[1].exception()
    assert isinstance(error, AnsweredElsewhere)
    assert error.code is FrameError.OUTCOME_UNKNOWN
    assert [type(answer) for answer in told] == [AnsweredElsewhere]
    assert node.reactor._telling.is_empty
    assert len({id(batch) for batch in node.reactor._spare}) == len(node.reactor._spare) == BATCHES_MAX - 1


async def test_a_request_that_waits_is_answered_once(node: Node) -> None:
    reactor, told = node.reactor, list[object]()
    reactor.request(Request(Operation.LIST_CURRENCIES, b"", told.append))
    reactor._execute()
    reactor._telling.waiting.append(reactor._executed.pop())
    reactor._telling.waiting[0].index += 1000
    reactor._telling.abandon(AnsweredElsewhere(FrameError.OUTCOME_UNKNOWN, "lost", ""))
    assert [type(answer) for answer in told] == [AnsweredElsewhere]


# Without the safeguard.


def what_is_not_known_is_told_as_not_executed(patch: Patch) -> None:
    whole = Reactor._elsewhere
    patch.setattr(Reactor, "_elsewhere", lambda self, code: whole(self, FrameError.NOT_LEADER))


def lost_leaders_answer_what_they_have(patch: Patch) -> None:
    def abandon(self: Any) -> None:
        while self._telling.waiting:
            batch = self._telling.waiting.popleft()
            batch.send_replies()
            batch.clear()
            self._spare.append(batch)

    patch.setattr(Reactor, "_abandon", abandon)


@pytest.mark.parametrize(
    "switch_off",
    [what_is_not_known_is_told_as_not_executed, lost_leaders_answer_what_they_have],
)
async def test_without_its_safeguard_the_test_fails(
    node: Node, waiting: list[Batch], monkeypatch: Patch, switch_off: Any
) -> None:
    with monkeypatch.context() as patch:
        switch_off(patch)
        with pytest.raises(BaseException):  # noqa: B017 - however it shows
            await test_each_is_answered_once_and_no_batch_is_in_two_places(node, waiting)
