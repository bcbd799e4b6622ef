"""Claim: the bookkeeping of a connection keeps its rules, on a clock that the test moves."""

import asyncio
from typing import Any

import pytest

from bezant.net.client.pipeline import Pipeline, Request
from bezant.protocol.errors import (
    ConnectionFailed,
    LocalProtocolError,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
)
from bezant.protocol.frames import (
    CLOSES_CONNECTION,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameError,
    FrameFlag,
    Operation,
    check_frame,
    encode_frame,
)
from bezant.protocol.messages import ErrorMessage, encode_message

BODY = b"x" * 68
ASK_LEADER = {FrameError.NOT_LEADER, FrameError.OUTCOME_UNKNOWN}
SIZE = FRAME_HEADER_SIZE + len(BODY)


def add(pipeline: Pipeline, body: bytes = BODY, *, deadline_s: float = 10.0, **options: Any) -> Request:
    answer = asyncio.get_running_loop().create_future()
    return pipeline.add(Operation.PING, body, deadline_s=deadline_s, answer=answer, **options)


def roomy(bytes_in_flight_max: int = 1 << 20) -> Pipeline:
    pipeline = Pipeline()
    pipeline.bytes_in_flight_max = bytes_in_flight_max
    return pipeline


def taken(pipeline: Pipeline, now_s: float = 0.0) -> list[int]:
    """Request ids of all that can be sent now."""
    ids = []
    while (frame := pipeline.take(now_s)) is not None:
        ids.append(check_frame(frame).request_id)
    return ids


def reply(pipeline: Pipeline, request_id: int, body: bytes = b"", operation: int = Operation.PING) -> None:
    frame = encode_frame(operation, request_id, body, flags=FrameFlag.REPLY)
    pipeline.on_frame(check_frame(frame), memoryview(frame)[FRAME_HEADER_SIZE:])


def refuse(pipeline: Pipeline, request_id: int, code: int) -> None:
    reply(pipeline, request_id, encode_message(ErrorMessage(code, "because")), Operation.ERROR)


async def test_requests_are_sent_in_order_and_answered_in_any() -> None:
    pipeline = roomy()
    requests = [add(pipeline) for _ in range(3)]
    assert taken(pipeline) == [1, 2, 3]
    for request_id in (2, 3, 1):
        reply(pipeline, request_id, b"answer %d" % request_id)
    assert [bytes(request.answer.result()) for request in requests] == [b"answer 1", b"answer 2", b"answer 3"]
    assert (pipeline.waiting_count, pipeline.bytes_in_flight) == (0, 0)


async def test_the_frame_says_how_long_the_client_still_waits() -> None:
    pipeline = roomy()
    for deadline_s, now_s, timeout_ms in ((5.0, 0.0, 5000), (5.0, 4.9991, 1), (5.0, 4.0, 1000), (5.0, 6.0, 1)):
        add(pipeline, deadline_s=deadline_s)
        frame = pipeline.take(now_s)
        assert frame is not None
        assert check_frame(frame).timeout_ms == timeout_ms


async def test_bytes_in_flight_stay_within_their_bound() -> None:
    pipeline = roomy(2 * SIZE)
    for _ in range(5):
        add(pipeline)
    assert taken(pipeline) == [1, 2]
    assert pipeline.bytes_in_flight == 2 * SIZE
    assert taken(pipeline) == []
    reply(pipeline, 1)
    assert taken(pipeline) == [3]


async def test_one_frame_may_always_go() -> None:
    pipeline = roomy(SIZE - 1)
    add(pipeline)
    add(pipeline)
    assert taken(pipeline) == [1]
    reply(pipeline, 1)
    assert taken(pipeline) == [2]


async def test_a_request_given_up_keeps_its_room_until_the_node_has_replied() -> None:
    pipeline = roomy(SIZE)
    late = add(pipeline, deadline_s=1.0)
    add(pipeline)
    assert taken(pipeline) == [1]
    assert pipeline.expire(1.0) == 10.0
    assert isinstance(late.answer.exception(), RequestTimedOut)
    assert taken(pipeline, 1.0) == []
    reply(pipeline, 1)
    assert taken(pipeline, 1.0) == [2]


async def test_a_request_whose_caller_left_or_whose_deadline_passed_is_not_sent() -> None:
    pipeline = roomy()
    left, overdue, third = add(pipeline), add(pipeline, deadline_s=1.0), add(pipeline)
    left.answer.cancel()
    pipeline.expire(2.0)
    assert isinstance(overdue.answer.exception(), RequestTimedOut)
    assert taken(pipeline, 2.0) == [third.request_id]


async def test_a_reply_to_a_caller_that_left_is_dropped() -> None:
    pipeline = roomy()
    left = add(pipeline)
    assert taken(pipeline) == [1]
    left.answer.cancel()
    reply(pipeline, 1)
    assert (pipeline.waiting_count, pipeline.bytes_in_flight) == (0, 0)


async def test_expire_ends_what_is_overdue_and_tells_the_next_deadline() -> None:
    pipeline = roomy()
    requests = [add(pipeline, deadline_s=deadline_s) for deadline_s in (3.0, 1.0, 2.0)]
    assert pipeline.expire(0.5) == 1.0
    assert pipeline.expire(1.0) == 2.0
    assert [request.answer.done() for request in requests] == [False, True, False]
    assert pipeline.expire(9.0) is None
    assert all(isinstance(request.answer.exception(), RequestTimedOut) for request in requests)


async def test_what_a_lost_connection_leaves_goes_out_again_with_its_ids_and_in_order() -> None:
    pipeline = roomy(3 * SIZE)
    requests = [add(pipeline) for _ in range(4)]
    assert taken(pipeline) == [1, 2, 3]
    reply(pipeline, 2)
    pipeline.on_connection_lost()
    assert pipeline.bytes_in_flight == 0
    assert taken(pipeline) == [1, 3, 4]
    assert [request.unsure_count for request in requests] == [1, 0, 1, 0]


async def test_what_the_leader_must_be_asked_waits_for_the_next_connection() -> None:
    pipeline = roomy()
    requests = [add(pipeline) for _ in range(5)]
    assert taken(pipeline) == [1, 2, 3, 4, 5]
    assert pipeline.oldest_in_flight == 1
    reply(pipeline, 2)
    refuse(pipeline, 1, FrameError.NOT_LEADER)
    refuse(pipeline, 3, FrameError.OUTCOME_UNKNOWN)
    assert pipeline.oldest_in_flight == 4
    assert (pipeline.waiting_count, pipeline.bytes_in_flight, taken(pipeline)) == (4, 2 * SIZE, [])
    late = add(pipeline)
    pipeline.on_connection_lost()
    assert pipeline.oldest_in_flight is None
    assert taken(pipeline) == [1, 3, 4, 5, late.request_id]
    assert [request.unsure_count for request in requests] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("code", sorted(ASK_LEADER))
async def test_a_request_given_up_needs_no_leader(code: FrameError) -> None:
    pipeline = roomy()
    add(pipeline, deadline_s=1.0)
    taken(pipeline)
    pipeline.expire(1.0)
    refuse(pipeline, 1, code)
    pipeline.on_connection_lost()
    assert (pipeline.waiting_count, pipeline.bytes_in_flight, taken(pipeline)) == (0, 0, [])


async def test_a_late_reply_does_not_outlive_its_connection() -> None:
    pipeline = roomy()
    add(pipeline, deadline_s=1.0)
    assert taken(pipeline) == [1]
    pipeline.expire(1.0)
    pipeline.on_connection_lost()
    with pytest.raises(RemoteProtocolError, match="was not asked"):
        reply(pipeline, 1)


async def test_the_queue_does_not_grow_without_a_connection() -> None:
    pipeline = roomy()
    for now_s in range(50):
        add(pipeline, deadline_s=now_s + 0.5)
        pipeline.expire(float(now_s + 1))
    assert (pipeline.waiting_count, pipeline.unsent_count) == (0, 0)


@pytest.mark.parametrize(
    ("request_id", "operation", "body"), [(7, Operation.PING, b""), (1, Operation.STATISTICS, b""), (1, 77, b"")]
)
async def test_a_reply_to_something_else_breaks_the_protocol(request_id: int, operation: int, body: bytes) -> None:
    pipeline = roomy()
    add(pipeline)
    taken(pipeline)
    with pytest.raises(RemoteProtocolError):
        reply(pipeline, request_id, body, operation)


async def test_a_reply_of_another_size_breaks_the_protocol() -> None:
    pipeline = roomy()
    add(pipeline, reply_size=8)
    taken(pipeline)
    with pytest.raises(RemoteProtocolError, match="a reply of 7 bytes where 8 belong"):
        reply(pipeline, 1, b"x" * 7)


@pytest.mark.parametrize("code", sorted(FrameError))
async def test_a_refusal_ends_its_request_or_the_connection(code: FrameError) -> None:
    pipeline = roomy()
    request = add(pipeline)
    taken(pipeline)
    if code in CLOSES_CONNECTION:
        expected = ConnectionFailed if code is FrameError.UNAUTHENTICATED else RemoteProtocolError
        with pytest.raises(expected, match="because"):
            refuse(pipeline, 1, code)
        return
    refuse(pipeline, 1, code)
    if code in ASK_LEADER:
        assert not request.answer.done()
        return
    error = request.answer.exception()
    assert isinstance(error, RequestRefused)
    assert (error.code, str(error)) == (code, "because")


@pytest.mark.parametrize("code", sorted(FrameError))
async def test_a_refusal_of_no_request_is_about_the_connection(code: FrameError) -> None:
    pipeline = roomy()
    add(pipeline)
    taken(pipeline)
    is_worth_another = code in (FrameError.OVERLOADED, FrameError.UNAUTHENTICATED)
    expected = ConnectionFailed if is_worth_another else RemoteProtocolError
    with pytest.raises(expected, match="because"):
        refuse(pipeline, 0, code)


async def test_the_end_ends_every_request() -> None:
    pipeline = roomy(SIZE)
    requests = [add(pipeline) for _ in range(3)]
    requests[2].answer.cancel()
    taken(pipeline)
    error = ConnectionFailed("gone")
    pipeline.end(error)
    assert [request.answer.exception() for request in requests[:2]] == [error, error]
    assert (pipeline.waiting_count, pipeline.bytes_in_flight) == (0, 0)


async def test_a_body_that_no_frame_can_hold_is_refused() -> None:
    pipeline = roomy()
    with pytest.raises(LocalProtocolError):
        add(pipeline, bytes(FRAME_SIZE_MAX))
    assert pipeline.waiting_count == 0
