"""Claim: when a leader has closed a time, nothing is ever dated at it or before: not by who leads later, either."""

import asyncio
import time

import pytest

from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.history_messages import CloseTime, TimeClosed
from bezant.protocol.messages import decode_message, encode_message

from ...engine.commands import transfer
from .node import Client, Node, SlowDisk


async def close(client: Client, time_ns: int = 0) -> TimeClosed:
    reply = await client.ask(Operation.CLOSE_TIME, encode_message(CloseTime(time_ns)))
    return decode_message(reply.body, TimeClosed)


async def test_a_time_is_closed_by_an_entry_where_there_is_none(node: Node, client: Client) -> None:
    replica = node.reactor.replica
    told = await close(client)
    last = replica.log.last_index
    assert told.time_ns <= time.time_ns()
    for _ in range(2):
        closed = await close(client, told.time_ns)
        assert (replica.log.last_index, replica.durable_index) == (last + 1, last + 1)
        assert replica.log.last_timestamp_ns >= told.time_ns
        assert (closed.position, closed.timestamp_ns) == (told.position, told.timestamp_ns)
    (result,) = await client.execute(transfer("world", "ann"))
    assert result["timestamp_ns"] > told.time_ns
    # What has been dated since then says itself that nothing can come before it.
    closed = await close(client, told.time_ns)
    assert (closed.position, closed.timestamp_ns) == (result["position"], result["timestamp_ns"])
    assert replica.log.last_index == last + 2


async def test_whoever_leads_next_dates_nothing_before_it(node: Node, client: Client, monkeypatch) -> None:
    """Though its clock is behind."""
    closed_ns = (await close(client)).time_ns
    await close(client, closed_ns)
    monkeypatch.setattr(node.reactor.replica, "_clock_ns", lambda: 1)
    (result,) = await client.execute(transfer("world", "ann"))
    assert result["timestamp_ns"] > closed_ns
    assert (await close(client)).time_ns == result["timestamp_ns"]


@pytest.mark.parametrize(("ahead_s", "code"), [(0.9, FrameError.OVERLOADED), (60, FrameError.REQUEST_REFUSED)])
async def test_a_time_that_has_not_come_is_refused(node: Node, client: Client, ahead_s: float, code: int) -> None:
    last = node.reactor.replica.log.last_index
    time_ns = time.time_ns() + int(ahead_s * 10**9)
    reply = await client.ask(Operation.CLOSE_TIME, encode_message(CloseTime(time_ns)))
    assert (reply.error.code, "in the future of shard 0" in reply.error.message) == (code, True)
    assert node.reactor.replica.log.last_index == last


async def test_it_is_told_when_it_is_durable(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    told = await close(client)
    slow_disk.hold()
    closing = asyncio.create_task(close(client, told.time_ns))
    await slow_disk.busy(slow_disk.writes + 1)
    assert not closing.done()
    slow_disk.release()
    assert (await closing).position == told.position


async def test_a_full_disk_is_told(node: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await close(client)
    monkeypatch.setattr(node.reactor.replica.log, "has_room", lambda size: False)
    reply = await client.ask(Operation.CLOSE_TIME, encode_message(CloseTime(told.time_ns)))
    assert (reply.error.code, "free-space floor" in reply.error.message) == (FrameError.OVERLOADED, True)


async def test_what_is_no_time_is_refused(client: Client) -> None:
    reply = await client.ask(Operation.CLOSE_TIME, b'{"time_ns":"noon"}')
    assert reply.error.code == FrameError.BODY_MALFORMED
