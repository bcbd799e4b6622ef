"""Claim: every subscription is told exactly the published events that match, in order, each once, whatever happens."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bezant.net.reader import hub as hub_module
from bezant.net.reader.hub import Hub
from bezant.net.reader.tables import SLOTS_MIN, SubscriptionTables
from bezant.net.reader.warm import warm_subscriptions
from bezant.protocol.errors import ArchiveUnavailable, HistoryIncomplete
from bezant.protocol.kinds import CommandKind

from .histories import ACCOUNTS, CURRENCIES, REQUEST_ID, History, Listener, Row, Wanted, id_of

OPEN, TRANSFER, FREEZE = int(CommandKind.OPEN), int(CommandKind.TRANSFER), int(CommandKind.FREEZE)
WAIT_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    warm_subscriptions()


class World:
    """A history, its follower and a hub, driven by hand."""

    def __init__(self, folder: Path) -> None:
        self.history = History(folder)
        self.history.publish()
        self.follower = self.history.follower()
        self.failures: list[Exception] = []
        self.unavailable: list[tuple[int, str]] = []
        self.hub = Hub(self.follower, self.failures.append, self.on_unavailable)

    def on_unavailable(self, connection: object, request_id: int, error: Exception) -> None:
        self.unavailable.append((request_id, str(error)))
        (number,) = [number for number, other in self.hub._connections.items() if other is connection]
        self.hub.remove(number)

    def feed(self) -> None:
        """Publish everything that was written, and have the hub told."""
        self.history.publish()
        while entries := self.follower.take():
            self.hub.take_in(entries)

    def listen(self) -> Listener:
        listener = Listener()
        listener.on_congested = lambda: self.hub.on_congested(listener)  # type: ignore[arg-type]
        return listener

    def subscribe(self, listener: Listener, wanted: Wanted, after: int, request_id: int = REQUEST_ID) -> int:
        return self.hub.add(listener, request_id, wanted.filter, after)  # type: ignore[arg-type]

    def resume(self, listener: Listener) -> None:
        listener.is_congested = False
        self.hub.on_writable(listener)  # type: ignore[arg-type]

    async def settle(self) -> None:
        """Return when nobody is catching up."""
        async with asyncio.timeout(WAIT_S):
            while self.hub.is_catching:
                await asyncio.sleep(0.001)
        assert self.failures == []

    def close(self) -> None:
        self.hub.stop()
        self.follower.close()
        self.history.close()


def run(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            try:
                await scenario(world)
            finally:
                world.close()

    asyncio.run(main())


ROWS = st.builds(
    Row,
    kind=st.sampled_from([OPEN, TRANSFER, FREEZE]),
    debit=st.integers(1, ACCOUNTS),
    credit=st.integers(0, ACCOUNTS),
    result=st.sampled_from([0, 0, 0, 301]),
)
ENTRIES = st.lists(st.lists(ROWS, min_size=1, max_size=5), max_size=8)
WANTED = st.builds(
    Wanted,
    accounts=st.lists(st.integers(1, ACCOUNTS), max_size=4).map(tuple),
    currency=st.sampled_from(["", *CURRENCIES]),
    kinds=st.lists(st.sampled_from([OPEN, TRANSFER, FREEZE]), max_size=2).map(tuple),
    refused=st.booleans(),
)
OPENINGS = tuple(Row(OPEN, account) for account in range(1, ACCOUNTS + 1))


@settings(max_examples=60, deadline=None)
@given(first=ENTRIES, then=ENTRIES, subscribers=st.lists(st.tuples(WANTED, st.floats(0, 1)), min_size=1, max_size=5))
def test_from_every_position_and_then_live(first: list[Any], then: list[Any], subscribers: list[Any]) -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        for rows in first:
            world.history.write(*rows)
        world.feed()
        last = len(world.history.rows)
        listener = world.listen()
        starts = []
        for number, (wanted, where) in enumerate(subscribers):
            after = round(where * last)
            starts.append((number, wanted, after))
            world.subscribe(listener, wanted, after, number)
        for rows in then:
            world.history.write_filler()
            world.history.write(*rows)
            world.feed()
            await asyncio.sleep(0)
        await world.settle()
        world.history.write(Row(TRANSFER, 1, 2))
        world.feed()
        for number, wanted, after in starts:
            assert listener.events.get(number, []) == world.history.told(wanted, after)
        assert world.hub.is_awaited

    run(scenario)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(ROWS, min_size=1, max_size=4)),
        st.tuples(st.just("subscribe"), st.tuples(WANTED, st.floats(0, 1), st.integers(0, 2))),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("congest"), st.integers(0, 2)),
        st.tuples(st.just("resume"), st.integers(0, 2)),
        st.tuples(st.just("turn"), st.none()),
        st.tuples(st.just("progress"), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(actions=ACTIONS, pairs_max=st.integers(1, 12), chunk=st.integers(1, 5), inline=st.integers(0, 3))
def test_whatever_happens(actions: list[Any], pairs_max: int, chunk: int, inline: int) -> None:  # noqa: PLR0915
    """Clients that stop reading, at any moment, and read again; frames and chunks that are full at once."""

    async def scenario(world: World) -> None:
        world.hub._pairs = np.zeros((pairs_max, 3), np.int64)
        world.hub._long_frames = np.zeros((64, 2), np.int64)
        world.history.write(*OPENINGS)
        world.feed()
        listeners = [world.listen() for _ in range(3)]
        present: dict[int, tuple[int, Listener, Wanted, int]] = {}
        gone: list[tuple[int, Listener, Wanted, int, int]] = []
        for request_id, (action, value) in enumerate(actions):
            if action == "write":
                world.history.write(*value)
                world.feed()
            elif action == "subscribe":
                wanted, where, which = value
                after = round(where * world.hub.position)
                number = world.subscribe(listeners[which], wanted, after, request_id)
                present[number] = (request_id, listeners[which], wanted, after)
            elif action == "remove" and present:
                number = sorted(present)[value % len(present)]
                world.hub.remove(number)
                gone.append((*present.pop(number), world.hub.position))
            elif action == "congest":
                listeners[value].congest_at = listeners[value].bytes + 1
            elif action == "resume":
                listeners[value].congest_at = None
                world.resume(listeners[value])
            elif action == "progress":
                world.hub._timer.cancel()
                world.hub._tell_progress()
            else:
                await asyncio.sleep(0)
        for listener in listeners:
            listener.congest_at = None
            world.resume(listener)
        await world.settle()
        world.history.write(Row(TRANSFER, 1, 2), Row(TRANSFER, 3, 4))
        world.feed()
        world.hub._timer.cancel()
        world.hub._tell_progress()
        for request_id, listener, wanted, after in present.values():
            told = listener.events.get(request_id, [])
            assert told == world.history.told(wanted, after)
            known = max([0, *listener.progress.get(request_id, []), *(position for position, _, _ in told)])
            assert known == len(world.history.rows)
        for request_id, listener, wanted, after, until in gone:
            told = listener.events.get(request_id, [])
            assert told == world.history.told(wanted, after, until)[: len(told)]

    before = hub_module.CHUNK_EVENTS, hub_module.INLINE_EVENTS_MAX
    hub_module.CHUNK_EVENTS, hub_module.INLINE_EVENTS_MAX = chunk, inline
    try:
        run(scenario)
    finally:
        hub_module.CHUNK_EVENTS, hub_module.INLINE_EVENTS_MAX = before


def test_many_who_catch_up_share_the_reading_of_the_log() -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        for _ in range(50):
            world.history.write(*[Row(TRANSFER, 1, 2)] * 20)
        world.feed()
        reads = 0
        read = world.hub._read

        def counted(after: int, last: int) -> Any:
            nonlocal reads
            reads += 1
            return read(after, last)

        world.hub._read = counted  # type: ignore[method-assign]
        listener = world.listen()
        for number in range(200):
            world.subscribe(listener, Wanted((1,)), number, number)
        await world.settle()
        assert all(listener.events[number] == world.history.told(Wanted((1,)), number) for number in range(200))
        assert reads <= 3

    run(scenario)


@pytest.mark.parametrize("error", [ArchiveUnavailable, HistoryIncomplete])
def test_what_cannot_be_had_ends_those_alone_that_ask_for_it_and_nobody_waits_for_it(error: Any) -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        for _ in range(10):
            world.history.write(*[Row(TRANSFER, 1, 2)] * 20)
        world.feed()
        away, asked, answered = 100, threading.Event(), threading.Event()
        read = world.hub._read

        def read_what_is_here(after: int, last: int) -> Any:
            if after < away:
                asked.set()
                assert answered.wait(WAIT_S)
                raise error("it is not there")
            return read(after, last)

        world.hub._read = read_what_is_here  # type: ignore[method-assign]
        world.follower.is_archived = lambda sequence: sequence <= away  # type: ignore[method-assign]
        far, near, live = world.listen(), world.listen(), world.listen()
        last = len(world.history.rows)
        world.subscribe(live, Wanted((1,)), last, 1)
        world.subscribe(far, Wanted((1,)), 0, 2**64 - 2)
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        world.subscribe(near, Wanted((1,)), away, 3)
        async with asyncio.timeout(WAIT_S):
            while len(near.events.get(3, [])) < last - away:
                await asyncio.sleep(0.001)
        world.history.write(Row(TRANSFER, 1, 2))
        world.feed()
        assert live.events[1] == world.history.told(Wanted((1,)), last)
        assert near.events[3] == world.history.told(Wanted((1,)), away)
        answered.set()
        await world.settle()
        assert [request_id for request_id, _ in world.unavailable] == [2**64 - 2]
        assert (far.events, world.hub.count) == ({}, 2)

    run(scenario)


def test_a_filter_of_very_many_accounts_and_its_going() -> None:
    tables = SubscriptionTables()
    ids = np.array([id_of(account) for account in range(1, 100_001)], np.int64)
    numbers = [tables.add(ids), tables.add(ids[:10]), tables.add(None)]
    assert len(tables.filters.slots) >= 200_000
    tables.remove(numbers[0], ids)
    again = [tables.add(ids[start : start + 1000]) for start in range(0, 100_000, 1000)]
    for start, number in zip(range(0, 100_000, 1000), again, strict=True):
        tables.remove(number, ids[start : start + 1000])
    # What was freed is used again: one more of the same size takes no more memory.
    nodes = len(tables.filters.nodes)
    tables.remove(tables.add(ids), ids)
    assert len(tables.filters.nodes) == nodes
    assert tables.count == 2
    assert len(tables.filters.slots) >= SLOTS_MIN


def test_what_one_client_does_not_read_keeps_nothing_of_others_in_memory() -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        world.feed()
        kept: list[memoryview] = []
        for account in (1, 2, 3):
            listener = world.listen()
            world.subscribe(listener, Wanted((account,)), world.hub.position)
            listener.push = lambda view: kept.append(memoryview(view))  # type: ignore[method-assign]
        world.history.write(*[Row(TRANSFER, 1, 2)] * 30, Row(TRANSFER, 3, 1))
        world.feed()
        assert len(kept) == 3
        assert [memoryview(view.obj).nbytes for view in kept] == [view.nbytes for view in kept]

    run(scenario)


def test_who_stops_and_goes_on_waits_once_for_the_log() -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        for _ in range(10):
            world.history.write(*[Row(TRANSFER, 1, 2)] * 20)
        world.feed()
        answered, read = threading.Event(), world.hub._read

        def read_later(after: int, last: int) -> Any:
            assert answered.wait(WAIT_S)
            return read(after, last)

        world.hub._read = read_later  # type: ignore[method-assign]
        first, other = world.listen(), world.listen()
        world.subscribe(first, Wanted((1,)), 0, 1)
        await asyncio.sleep(0.01)
        world.subscribe(other, Wanted((1,)), 5, 2)
        for _ in range(20):
            world.hub.on_congested(other)  # type: ignore[arg-type]
            world.resume(other)
        assert sum(len(lane.waiting) for lane in world.hub._lanes) == 1
        answered.set()
        await world.settle()
        assert first.events[1] == world.history.told(Wanted((1,)), 0)
        assert other.events[2] == world.history.told(Wanted((1,)), 5)

    run(scenario)


def test_an_account_that_a_filter_has_twice_is_told_once() -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        world.feed()
        listener = world.listen()
        wanted = Wanted((1, 2, 1, 2, 1))
        number = world.subscribe(listener, wanted, 0)
        await world.settle()
        world.history.write(Row(TRANSFER, 1, 2), Row(TRANSFER, 2, 1), Row(TRANSFER, 3, 1))
        world.feed()
        assert listener.events[REQUEST_ID] == world.history.told(wanted, 0)
        world.hub.remove(number)
        world.history.write(Row(TRANSFER, 1, 2))
        world.feed()
        assert len(listener.events[REQUEST_ID]) == 5

    run(scenario)


def test_a_damaged_log_fails_the_hub_and_tells_nothing_wrong() -> None:
    async def scenario(world: World) -> None:
        world.history.write(*OPENINGS)
        world.history.write(*[Row(TRANSFER, 1, 2)] * 50)
        world.feed()
        path = next(iter(sorted(world.history.directory.path.glob("segment-*"))))
        with path.open("r+b") as file:
            file.seek(4096 + 128 + 6 * 192 + 128 + 20 * 192)
            file.write(b"\xff")
        listener = world.listen()
        world.subscribe(listener, Wanted((1,)), 0)
        async with asyncio.timeout(WAIT_S):
            while not world.failures:
                await asyncio.sleep(0.001)
        assert "damaged" in str(world.failures[0])
        assert listener.events.get(REQUEST_ID, []) == []

    run(scenario)
