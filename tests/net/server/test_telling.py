"""Claim: who waits for nothing of another shard is told soon, whatever that does; and each connection is told of all
that it asked for, once, in order, and no sooner than it is decided."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bezant.net.server import coordinating, telling
from bezant.net.server.batch import Batch, Request, Run
from bezant.net.server.frame_kernels import CURSOR_COMMANDS, CURSOR_FRAMES
from bezant.net.server.requests import AnsweredElsewhere
from bezant.net.server.statistics import Counters
from bezant.net.server.telling import Telling
from bezant.protocol.access import ANYBODY
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import FRAME_HEADER_SIZE, FrameError, Operation, decode_header
from bezant.protocol.records import RESULT

from ...engine.commands import transfer
from .node import until
from .two_shards import Network, Shard, settled

COMMITTED = int(ResultCode.COMMITTED)
UNDECIDED = int(ResultCode.UNDECIDED)
CONNECTIONS = 3
BATCHES_MAX = 6


# ---- with two shards ----


async def test_nobody_waits_for_a_shard_that_they_have_nothing_to_do_with(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More transfers are under way to the lost shard, a batch each, than there is room for batches."""
    first, second = pair
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 60.0)
    network.trouble = lambda legs: "lost"
    across = []
    begun_s = time.monotonic()
    for number in range(3 * BATCHES_MAX):
        across.append(asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 1))))
        await until(lambda number=number: len(first.ledger.open_tries()) == number + 1)
        within = await first.execute(transfer(first.names[1], first.names[2], 1))
        assert within["code"].tolist() == [COMMITTED]
    assert time.monotonic() - begun_s < 15.0  # The lost shard's transfers fail after 20 s at the earliest.
    assert not any(one.done() for one in across)
    network.trouble = lambda legs: ""
    assert [(await one)["code"].tolist() for one in across] == [[COMMITTED]] * len(across)
    await settled(first, second)


async def test_what_is_held_is_given_up_with_the_leadership(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    network.trouble = lambda legs: "lost"
    across = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 1)))
    await until(lambda: bool(len(first.ledger.open_tries())))
    await first.execute(transfer(first.names[1], first.names[2], 1))
    assert first.reactor._telling._held
    first.reactor._telling.abandon(AnsweredElsewhere(FrameError.OUTCOME_UNKNOWN, "lost", ""))
    with pytest.raises(AnsweredElsewhere):
        await across
    assert first.reactor._telling.is_empty
    network.trouble = lambda legs: ""
    await settled(first, second)


async def test_a_request_beside_what_is_held_is_answered_once(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    network.trouble = lambda legs: "lost"
    told: list[object] = []
    across = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 1)))
    await asyncio.sleep(0)
    first.reactor.request(Request(Operation.LIST_CURRENCIES, b"", told.append))
    await until(lambda: bool(first.reactor._telling._held))
    assert len(told) == 1
    first.reactor._telling.abandon(AnsweredElsewhere(FrameError.OUTCOME_UNKNOWN, "lost", ""))
    with pytest.raises(AnsweredElsewhere):
        await across
    assert len(told) == 1
    network.trouble = lambda legs: ""
    await settled(first, second)


# ---- connections ----


class Connection:
    """Takes replies apart."""

    principal = ANYBODY

    def __init__(self) -> None:
        self.told: list[tuple[int, list[int]]] = []
        self.request_bytes = 0
        self.errors: list[int] = []

    def send_replies(self, replies: bytes | memoryview, request_bytes: int) -> None:
        self.request_bytes += request_bytes
        data = bytes(replies)
        while data:
            header = decode_header(data)
            size = header.length
            if header.operation == Operation.ERROR:
                self.errors.append(header.request_id)
            else:
                results = np.frombuffer(data[FRAME_HEADER_SIZE:size], RESULT)
                self.told.append((header.request_id, results["position"].tolist()))
                assert not (results["code"] == UNDECIDED).any()
            data = data[size:]

    def send_elsewhere(self) -> None: ...


frames_drawn = st.tuples(st.integers(0, CONNECTIONS - 1), st.lists(st.booleans(), min_size=1, max_size=3))
"""Who sends a frame, and which of its commands go to another shard."""


class Model:
    """Batches of drawn frames, and what is to be told of them."""

    def __init__(self, drawn: list[list[tuple[int, list[bool]]]]) -> None:
        self.connections = [Connection() for _ in range(CONNECTIONS)]
        self.asked: list[list[tuple[int, list[int]]]] = [[] for _ in range(CONNECTIONS)]
        self.runs: list[list[list[tuple[int, list[int]]]]] = [[] for _ in range(CONNECTIONS)]
        self.asked_bytes = [0] * CONNECTIONS
        self.member = SimpleNamespace(committed_index=0, is_alone=False, reads_confirmed=[])
        self.spare: list[Batch] = []
        self.timers = 0
        self.telling = Telling(self.member, Counters(), self.spare, self.call_later, lambda: None)  # type: ignore[arg-type]
        self.undecided: list[tuple[Batch, int]] = []
        self.numbers = 0
        for index, frames in enumerate(drawn, 1):
            self.add(index, frames)

    def call_later(self, delay_s: float, action: Any) -> Any:
        self.timers += 1

    def add(self, index: int, frames: list[tuple[int, list[bool]]]) -> None:
        batch, row = Batch(), 0
        batch.index = index
        batch.results = np.zeros(sum(len(rows) for _, rows in frames), RESULT)
        for number, (sender, rows) in enumerate(frames):
            self.numbers += 1
            batch.frames[number] = (self.numbers, row, len(rows), 0)
            if batch.runs and batch.runs[-1].replier is self.connections[sender]:
                batch.runs[-1] = batch.runs[-1]._replace(frame_end=number + 1)
            else:
                batch.runs.append(Run(self.connections[sender], number, number + 1, 100 + number, 0))
                self.asked_bytes[sender] += 100 + number
            positions = []
            for is_across in rows:
                positions.append(1000 * index + row)
                batch.results[row]["position"] = positions[-1]
                if is_across:
                    batch.results[row]["code"] = UNDECIDED
                    batch.undecided_count += 1
                    self.undecided.append((batch, row))
                row += 1
            self.asked[sender].append((self.numbers, positions))
            if number and frames[number - 1][0] == sender:
                self.runs[sender][-1].append(self.asked[sender][-1])
            else:
                self.runs[sender].append([self.asked[sender][-1]])
        batch.cursor[CURSOR_COMMANDS], batch.cursor[CURSOR_FRAMES] = row, len(frames)
        self.telling.waiting.append(batch)

    def decide(self, number: int) -> None:
        batch, row = self.undecided.pop(number)
        batch.results[row]["code"] = COMMITTED
        batch.undecided_count -= 1

    def check(self) -> None:
        """What has been told is a beginning of what was asked, and in it nothing that is undecided."""
        for connection, asked in zip(self.connections, self.asked, strict=True):
            assert connection.told == asked[: len(connection.told)]

    def due_count(self, sender: int) -> int:
        """How many frames of a connection come before the first run that is not decided or not committed."""
        open_rows = {1000 * batch.index + row for batch, row in self.undecided}
        count = 0
        for run in self.runs[sender]:
            rows = {position for _, positions in run for position in positions}
            if max(rows) // 1000 > self.member.committed_index or open_rows & rows:
                break
            count += len(run)
        return count


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), drawn=st.lists(st.lists(frames_drawn, min_size=1, max_size=6), min_size=1, max_size=6))
def test_each_connection_is_told_in_order_of_what_is_decided(
    data: Any, drawn: list[list[tuple[int, list[bool]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "HOLD_AFTER_S", -1.0)
    model = Model(drawn)
    while model.undecided or model.member.committed_index < len(drawn):
        may_commit = model.member.committed_index < len(drawn)
        if may_commit and (not model.undecided or data.draw(st.booleans())):
            model.member.committed_index += 1
        else:
            model.decide(data.draw(st.integers(0, len(model.undecided) - 1)))
        model.telling.tell()
        model.check()
        for sender, connection in enumerate(model.connections):
            assert len(connection.told) == model.due_count(sender)
    model.telling.tell()
    assert [connection.told for connection in model.connections] == model.asked
    assert [connection.request_bytes for connection in model.connections] == model.asked_bytes
    assert model.telling.is_empty
    assert model.telling._held_bytes == model.telling._undecided_count == 0
    assert len(model.spare) == len(drawn)
    assert len({batch.commands.ctypes.data for batch in model.spare}) == len(drawn)


def test_what_is_decided_soon_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model([[(0, [True])], [(1, [False])]])
    for batch in model.telling.waiting:
        batch.started_s = time.perf_counter()
    model.member.committed_index = 2
    model.telling.tell()
    assert not model.spare
    model.decide(0)
    model.telling.tell()
    assert model.telling.is_empty
    assert not model.telling._held
    assert [len(connection.told) for connection in model.connections] == [1, 1, 0]


def test_what_finds_no_room_waits_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "HOLD_AFTER_S", -1.0)
    monkeypatch.setattr(telling, "HELD_BYTES_MAX", 1)
    model = Model([[(0, [True])], [(1, [True])], [(2, [False])]])
    model.member.committed_index = 3
    model.telling.tell()
    assert [len(connection.told) for connection in model.connections] == [0, 0, 0]
    model.decide(0)
    model.telling.tell()
    assert [len(connection.told) for connection in model.connections] == [1, 0, 1]


def test_a_lost_leader_refuses_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "HOLD_AFTER_S", -1.0)
    model = Model([[(0, [True]), (1, [False])], [(0, [False]), (2, [False])], [(0, [False])]])
    model.member.committed_index = 2
    model.telling.tell()
    assert [len(connection.told) for connection in model.connections] == [0, 1, 1]
    model.telling.abandon(AnsweredElsewhere(FrameError.OUTCOME_UNKNOWN, "lost", ""))
    assert [connection.errors for connection in model.connections] == [[1, 3, 5], [], []]  # In order.
    assert [connection.request_bytes for connection in model.connections] == model.asked_bytes
    assert model.telling.is_empty
