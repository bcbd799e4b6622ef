"""Claim: projections take small batches in together, and never hold up whoever waits for an event."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry
from bezant.net.reader import projecting
from bezant.net.reader.projecting import TOGETHER_EVENTS_MIN, Awaits, Intake, Projector
from bezant.protocol.errors import ArchiveUnavailable, HistoryIncomplete, StorageError

LONG_S = 600.0
SOON_S = 30.0
"""Seconds that a busy machine is given for what takes none."""


class Log:
    """What a projector asks of a follower: every entry has one event."""

    def __init__(self) -> None:
        self.published_index = self.applied_index = self.last_sequence = 0
        self.is_closed = False

    def begin(self, start: None) -> None:
        assert start is None

    def take(self) -> list[Any]:
        indexes = range(self.applied_index + 1, self.published_index + 1)
        self.applied_index = self.last_sequence = indexes.stop - 1
        return [SimpleNamespace(header=SimpleNamespace(index=index)) for index in indexes]

    def close(self) -> None:
        self.is_closed = True


class Batches:
    """A projection that notes how many entries came at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.is_closed = False

    def start(self) -> None:
        return

    def begin(self, follower: Follower) -> None:
        return

    def take_in(self, entries: Sequence[Entry]) -> None:
        self.sizes.append(len(entries))

    def rest(self) -> None:
        return

    def close(self) -> None:
        self.is_closed = True


def raise_it(error: Exception) -> None:
    raise error


async def make(find_obstacle: Callable[[], str] = lambda: "") -> tuple[Log, Batches, Projector]:
    """A projector that has taken one entry in, if nothing is against it, and rests."""

    log, batches = Log(), Batches()
    log.published_index = 1
    projector = Projector([batches], cast(Follower, log), raise_it, find_obstacle)
    projector.start()
    if find_obstacle():
        return log, batches, projector
    async with asyncio.timeout(SOON_S):
        while batches.sizes != [1]:
            await asyncio.sleep(0.001)
    return log, batches, projector


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes in time comes because somebody was woken up."""
    monkeypatch.setattr(projecting, "REST_S", LONG_S)
    monkeypatch.setattr(projecting, "POLL_S", LONG_S)


async def test_it_says_when_all_projections_have_begun() -> None:
    begun: list[int] = []
    log, batches = Log(), Batches()
    log.published_index = 1
    projector = Projector([batches], cast(Follower, log), raise_it, on_begun=lambda: begun.append(len(batches.sizes)))
    projector.start()
    assert await projector.wait(Awaits(sequence=1), SOON_S)
    projector.stop()
    assert begun == [0]


async def test_what_comes_during_a_rest_is_taken_in_together_and_at_once_when_awaited() -> None:
    log, batches, projector = await make()
    for index in (2, 3):
        log.published_index = index
        projector.wake()
    await asyncio.sleep(0.05)
    assert batches.sizes == [1]
    assert await projector.wait(Awaits(sequence=3), SOON_S)
    assert batches.sizes == [1, 2]
    projector.stop()


async def test_what_is_published_while_somebody_waits_needs_no_wake_up() -> None:
    log, batches, projector = await make()
    waiting = asyncio.create_task(projector.wait(Awaits(sequence=2), SOON_S))
    await asyncio.sleep(0.01)
    log.published_index = 2
    assert await waiting
    assert batches.sizes == [1, 1]
    projector.stop()


async def test_an_obstacle_keeps_it_where_it_is_until_it_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projecting, "UNAVAILABLE_RETRY_S", 0.01)
    obstacles = ["the disk is full"]
    log, batches, projector = await make(lambda: obstacles[0])
    log.published_index = 2
    projector.wake()
    assert not await projector.wait(Awaits(sequence=2), 0.1)
    assert (batches.sizes, projector.problem) == ([], "the disk is full")
    obstacles[0] = ""
    assert await projector.wait(Awaits(sequence=2), SOON_S)
    assert (batches.sizes, projector.problem) == ([2], "")
    projector.stop()


@pytest.mark.parametrize("error", [ArchiveUnavailable, HistoryIncomplete])
async def test_what_cannot_be_had_is_asked_for_again(
    error: type[ArchiveUnavailable] | type[HistoryIncomplete], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "UNAVAILABLE_RETRY_S", 0.01)
    log, batches, projector = await make()
    take, away = log.take, [True]

    def take_what_is_there() -> list[Any]:
        if away[0]:
            raise error("it is not there")
        return take()

    monkeypatch.setattr(log, "take", take_what_is_there)
    log.published_index = 2
    assert not await projector.wait(Awaits(sequence=2), 0.2)
    assert projector.problem == "it is not there"
    away[0] = False
    assert await projector.wait(Awaits(sequence=2), SOON_S)
    assert (batches.sizes, projector.problem) == ([1, 1], "")
    projector.stop()


async def test_what_cannot_be_saved_does_not_hide_what_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    log, batches, projector = await make()

    def fail() -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(batches, "close", fail)
    await asyncio.get_running_loop().run_in_executor(None, projector.stop)
    assert log.is_closed


async def test_who_waits_too_long_is_told() -> None:
    _, batches, projector = await make()
    assert not await projector.wait(Awaits(sequence=2), 0.01)
    assert batches.sizes == [1]
    projector.stop()


async def test_after_a_large_batch_there_is_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projecting, "REST_EVENTS_MAX", 0)
    log, batches, projector = await make()
    log.published_index = 2
    projector.wake()
    async with asyncio.timeout(SOON_S):
        while batches.sizes != [1, 1]:
            await asyncio.sleep(0.001)
    projector.stop()


async def test_a_rest_does_not_hold_up_the_end() -> None:
    log, batches, projector = await make()
    await asyncio.get_running_loop().run_in_executor(None, projector.stop)
    assert (log.is_closed, batches.is_closed) == (True, True)


class Meeting:
    """Takes entries in only while another does."""

    def __init__(self, barrier: threading.Barrier, fails: bool = False) -> None:
        self._barrier = barrier
        self._fails = fails
        self.indexes: list[int] = []

    def take_in(self, entries: Sequence[Entry]) -> None:
        self._barrier.wait(SOON_S)
        if self._fails:
            raise StorageError("the disk is full")
        self.indexes += [entry.header.index for entry in entries]


def entries_until(index: int) -> list[Entry]:
    return [cast(Entry, SimpleNamespace(header=SimpleNamespace(index=number))) for number in range(1, index + 1)]


def test_a_large_batch_is_taken_in_by_all_at_the_same_time_each_from_where_it_begins() -> None:
    barrier = threading.Barrier(2)
    first, second = Meeting(barrier), Meeting(barrier)
    intake = Intake([first, second], [0, 2])
    intake.take_in(entries_until(4), TOGETHER_EVENTS_MIN)
    intake.close()
    assert (first.indexes, second.indexes) == ([1, 2, 3, 4], [3, 4])


@pytest.mark.parametrize("failing", [0, 1])
def test_one_that_fails_is_told_when_the_others_are_done(failing: int) -> None:
    barrier = threading.Barrier(2)
    both = [Meeting(barrier, fails=number == failing) for number in range(2)]
    intake = Intake(both, [0, 0])
    with pytest.raises(StorageError):
        intake.take_in(entries_until(4), TOGETHER_EVENTS_MIN)
    intake.close()
    assert both[1 - failing].indexes == [1, 2, 3, 4]
