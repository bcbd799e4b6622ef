"""Claim: the ring sends every frame once, reuses only what was answered, and takes no reply that is not due."""

from collections.abc import Iterator

import numpy as np
import pytest

from bezant.perf.load.limits import RING_SIZE_MAX
from bezant.perf.load.ring import FrameRing, ReceiveBuffer
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import FrameFlag, Operation, encode_frame
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import RESULT


def reply_to(ring: FrameRing, frame: int, *, code: int = 0, flags: int = 0, request_id: int | None = None) -> bytes:
    results = np.zeros(ring.transfers_in(frame), RESULT)
    results["code"], results["flags"] = code, flags
    number = frame if request_id is None else request_id
    return encode_frame(Operation.COMMANDS, number, results.tobytes(), flags=FrameFlag.REPLY)


def feed(ring: FrameRing, buffer: ReceiveBuffer, data: bytes, *, connection: int = 0, now_ns: int = 2) -> int:
    room = buffer.room(len(data))
    room[: len(data)] = data
    buffer.end += len(data)
    return ring.take_replies(buffer, connection, now_ns)


def take_all(ring: FrameRing, count: int) -> int:
    taken = 0
    while taken < count:
        part, _ = ring.take(count - taken, 0, 1)
        if not part:
            break
        taken += part
    return taken


def rounds(ring: FrameRing, in_flight: int) -> Iterator[range]:
    """Send `in_flight` frames at a time, and say which, until all are sent."""
    while ring.sent < ring.frame_count:
        first = ring.sent
        taken = take_all(ring, in_flight)
        assert taken > 0
        yield range(first, first + taken)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_run_through_a_ring_that_is_smaller_than_the_run(make_ring, monkeypatch, batch: int) -> None:
    monkeypatch.setattr("bezant.perf.load.limits.SLOT_COUNT_MAX", 16)
    ring = make_ring(transfers=batch * 100 - batch // 2, batch=batch, frames_in_flight_max=7)
    assert ring.slots == 16
    buffer = ReceiveBuffer(1 << 16)
    for frames in rounds(ring, 7):
        # Replies in the opposite order, and all at once.
        assert feed(ring, buffer, b"".join(reply_to(ring, frame) for frame in reversed(frames))) == len(frames)
        while ring.prepare():
            pass
        assert ring.answered <= ring.sent <= ring.built <= ring.answered + ring.slots
    assert ring.finished
    assert ring.accepted == ring.transfers
    assert ring.histogram.sum() == ring.transfers


def test_nothing_is_reused_before_it_is_answered(make_ring, monkeypatch) -> None:
    monkeypatch.setattr("bezant.perf.load.limits.SLOT_COUNT_MAX", 8)
    ring = make_ring(frames_in_flight_max=4)
    assert take_all(ring, 100) == ring.slots == 8
    assert not ring.prepare()
    buffer = ReceiveBuffer(1 << 12)
    for frame in range(1, 8):
        feed(ring, buffer, reply_to(ring, frame))
        assert not ring.can_prepare
    feed(ring, buffer, reply_to(ring, 0))
    assert take_all(ring, 100) == 8


@pytest.mark.parametrize("batch", [1, 3])
def test_replies_may_arrive_a_byte_at_a_time(make_ring, batch: int) -> None:
    ring = make_ring(transfers=4 * batch, batch=batch)
    take_all(ring, 4)
    reply_size = len(reply_to(ring, 0))
    buffer = ReceiveBuffer(reply_size + 8)
    for byte in b"".join(reply_to(ring, frame) for frame in range(4)):
        buffer.room(reply_size)[:1] = bytes([byte])
        buffer.end += 1
        ring.take_replies(buffer, 0, 2)
    assert ring.finished


def test_results_are_counted_by_code(make_ring) -> None:
    ring = make_ring(transfers=6, batch=2)
    take_all(ring, 3)
    buffer = ReceiveBuffer(1 << 12)
    feed(ring, buffer, reply_to(ring, 0))
    feed(ring, buffer, reply_to(ring, 1, code=ResultCode.INSUFFICIENT_FUNDS))
    feed(ring, buffer, reply_to(ring, 2, flags=ResultFlag.REPEATED))
    assert (ring.accepted, ring.repeated) == (4, 2)
    assert ring.rejected_codes() == {"INSUFFICIENT_FUNDS": 2}


def test_latency_is_from_send_to_reply(make_ring) -> None:
    ring = make_ring(transfers=2)
    ring.take(2, 0, 1_000)
    buffer = ReceiveBuffer(1 << 12)
    feed(ring, buffer, reply_to(ring, 0), now_ns=3_000)
    feed(ring, buffer, reply_to(ring, 1), now_ns=7_000)
    assert ring.latency_us() == {"p50": 2.0, "p90": 6.0, "p99": 6.0, "p999": 6.0, "max": 6.0}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("damage", "meaning"),
    [
        ("checksum", "checksum"),
        ("operation", "not one to a frame of commands"),
        ("never-sent", "not one to a frame of commands|no request that is waiting"),
        ("twice", "no request that is waiting"),
        ("negative", "not one to a frame of commands|no request that is waiting"),
        ("connection", "another connection"),
        ("code", "beyond the table"),
        ("short-rest", "not one to a frame of commands"),
    ],
)
def test_a_wrong_reply_is_refused(make_ring, batch: int, damage: str, meaning: str) -> None:
    ring = make_ring(transfers=4 * batch, batch=batch)
    take_all(ring, 2)
    data, connection = bytearray(reply_to(ring, 0)), 0
    if damage == "checksum":
        data[-1] ^= 1
    elif damage == "operation":
        data = bytearray(encode_frame(Operation.PING, 0, bytes(64 * batch), flags=FrameFlag.REPLY))
    elif damage == "never-sent":
        data = bytearray(reply_to(ring, 0, request_id=1 << 40))
    elif damage == "twice":
        data = data * 2
    elif damage == "negative":
        data = bytearray(reply_to(ring, 0, request_id=(1 << 64) - 4))
    elif damage == "connection":
        connection = 1
    elif damage == "code":
        data = bytearray(reply_to(ring, 0, code=-1))
    elif damage == "short-rest":
        data = bytearray(encode_frame(Operation.PING, 0, b"", flags=FrameFlag.REPLY))
    with pytest.raises(RemoteProtocolError, match=meaning):
        feed(ring, ReceiveBuffer(1 << 12), bytes(data), connection=connection)


def test_a_reply_with_too_few_results_is_refused(make_ring) -> None:
    ring = make_ring(transfers=8, batch=4)
    take_all(ring, 1)
    data = encode_frame(Operation.COMMANDS, 0, bytes(3 * RESULT.itemsize), flags=FrameFlag.REPLY)
    with pytest.raises(RemoteProtocolError, match="4 commands"):
        feed(ring, ReceiveBuffer(1 << 12), data)


@pytest.mark.parametrize("batch", [1, 256, 8191])
def test_memory_is_bounded_whatever_the_run(make_ring, batch: int) -> None:
    ring = make_ring(transfers=1 << 40, batch=batch)
    assert ring.slots * ring.frame_size <= RING_SIZE_MAX
    assert ring.slots >= 8


def test_too_much_in_flight_is_the_callers_fault(make_ring) -> None:
    with pytest.raises(UsageError, match="lower --clients"):
        make_ring(transfers=1 << 40, batch=8191, frames_in_flight_max=100)
