"""Claim: a channel survives its connections, keeps deadlines and bounds, and never guesses what became of a command."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import numpy as np
import pytest

from bezant.net.client.channel import CODE_UNKNOWN, TIMEOUT_S_MAX, OutcomeUnknown
from bezant.net.client.connection import TRANSITIONS, State, TcpChannel
from bezant.net.client.link import Link, parse_address
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import (
    ConnectionFailed,
    LocalProtocolError,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
    UsageError,
)
from bezant.protocol.frames import BATCH_COUNT_MAX, FRAME_HEADER_SIZE, FrameError, Operation, encode_frame
from bezant.protocol.messages import ErrorMessage, Welcome, encode_message
from bezant.protocol.records import COMMAND, COMMAND_SIZE, Records

from .scripted import WAIT_S, WELCOME, ScriptedServer, Seen, say_nothing

COMMANDS = Operation.COMMANDS


def numbered(count: int, first: int = 1) -> Records:
    """Commands that are told apart by their ids."""
    commands = np.zeros(count, COMMAND)
    commands["id_head"] = np.arange(first, first + count)
    return commands


@pytest.fixture
async def channel(server: ScriptedServer) -> AsyncIterator[TcpChannel]:
    opened = await TcpChannel.open(server.address, WAIT_S)
    yield opened
    await opened.close()


# Greeting.


async def test_the_first_frame_is_hello_and_the_answer_is_kept(server: ScriptedServer, channel: TcpChannel) -> None:
    assert [seen.header.operation for seen in server.seen] == [Operation.HELLO]
    assert msgspec.msgpack.decode(server.seen[0].body)["protocol_version"] == 1
    assert (channel.welcome, channel.state) == (WELCOME, State.READY)


async def test_nobody_listens(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    await server.stop()
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        await TcpChannel.open(server.address, WAIT_S)
    gc.collect()
    assert caplog.records == []


async def test_somebody_listens_and_says_nothing(server: ScriptedServer) -> None:
    server.reading.clear()
    with pytest.raises(ConnectionFailed, match=r"did not answer within 0\.05 s"):
        await TcpChannel.open(server.address, 0.05)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(FrameError.VERSION_UNSUPPORTED, RemoteProtocolError), (FrameError.REQUEST_REFUSED, RequestRefused)],
)
async def test_the_node_will_not_have_us(server: ScriptedServer, code: FrameError, expected: type[Exception]) -> None:
    server.handlers[Operation.HELLO] = lambda seen: seen.peer.refuse(seen, code)
    with pytest.raises(expected, match="because"):
        await TcpChannel.open(server.address, WAIT_S)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        encode_frame(Operation.HELLO, 0, b"\xc1"),
        encode_frame(Operation.PING, 0, b""),
        encode_frame(Operation.HELLO, 0, encode_message(msgspec.structs.replace(WELCOME, protocol_version=2))),
        encode_frame(Operation.HELLO, 0, encode_message(WELCOME))[:-1] + b"\x7f",
    ],
    ids=["another protocol", "not a message", "another operation", "another version", "damaged"],
)
async def test_whoever_answers_is_no_node(server: ScriptedServer, answer: bytes) -> None:
    server.handlers[Operation.HELLO] = lambda seen: seen.peer.send(answer)
    with pytest.raises(RemoteProtocolError):
        await TcpChannel.open(server.address, WAIT_S)


async def test_the_node_hangs_up_instead_of_greeting(server: ScriptedServer) -> None:
    server.handlers[Operation.HELLO] = lambda seen: seen.peer.hang_up()
    with pytest.raises(ConnectionFailed, match="closed the connection"):
        await TcpChannel.open(server.address, WAIT_S)


async def test_the_node_welcomes_us_and_is_gone(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    greet = Link.greet

    async def greet_and_lose(link: Link, token: str) -> Welcome:
        welcome = await greet(link, token)
        link.end(ConnectionFailed("gone"))
        return welcome

    monkeypatch.setattr(Link, "greet", greet_and_lose)
    with pytest.raises(ConnectionFailed, match="welcomed us and went away"):
        await TcpChannel.open(server.address, WAIT_S)


# Requests and answers.


async def test_requests_are_pipelined_and_answered_in_any_order(server: ScriptedServer, channel: TcpChannel) -> None:
    held: list[Seen] = []

    async def hold_three(seen: Seen) -> None:
        held.append(seen)
        if len(held) == 3:
            for one in reversed(held):
                await server.answer(one)

    server.handlers[Operation.PING] = hold_three
    answers = await asyncio.gather(*(channel.request(Operation.PING, b"%d" % n) for n in range(3)))
    assert answers == [b"0", b"1", b"2"]


@pytest.mark.parametrize("size", [1, 7, FRAME_HEADER_SIZE, 1000])
async def test_answers_may_be_cut_anywhere(server: ScriptedServer, channel: TcpChannel, size: int) -> None:
    async def answer_in_pieces(seen: Seen) -> None:
        frame = seen.peer.reply_frame(seen, server.results(3).tobytes())
        for start in range(0, len(frame), size):
            await seen.peer.send(frame[start : start + size])
            await asyncio.sleep(0)

    server.handlers[COMMANDS] = answer_in_pieces
    results = await asyncio.gather(channel.submit(numbered(3)), channel.submit(numbered(3)))
    assert [rows["position"].tolist() for rows in results] == [[1, 2, 3], [4, 5, 6]]


async def test_the_largest_frame_goes_through(channel: TcpChannel) -> None:
    results = await channel.submit(numbered(BATCH_COUNT_MAX))
    assert results["position"].tolist() == list(range(1, BATCH_COUNT_MAX + 1))
    with pytest.raises(LocalProtocolError):
        await channel.submit(numbered(BATCH_COUNT_MAX + 1))


async def test_commands_need_not_lie_together(server: ScriptedServer, channel: TcpChannel) -> None:
    await channel.submit(numbered(10)[::2])
    assert server.frames(COMMANDS)[0].commands["id_head"].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("code", [FrameError.BODY_MALFORMED, FrameError.REQUEST_REFUSED])
async def test_a_refused_request_raises_and_the_connection_goes_on(
    server: ScriptedServer, channel: TcpChannel, code: FrameError
) -> None:
    server.handlers[COMMANDS] = lambda seen: seen.peer.refuse(seen, code)
    with pytest.raises(RequestRefused, match="because") as caught:
        await channel.submit(numbered(1))
    assert caught.value.code == code
    assert await channel.request(Operation.PING, b"still there") == b"still there"
    assert len(server.peers) == 1


async def test_a_node_without_room_rejects_every_command(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[COMMANDS] = lambda seen: seen.peer.refuse(seen, FrameError.OVERLOADED)
    results = await channel.submit(numbered(3))
    assert results["code"].tolist() == [ResultCode.OVERLOADED] * 3


# Connections that are lost.


def drop_first(server: ScriptedServer, *, after: int = 0) -> Callable[[Seen], object]:
    """A handler that answers the first frame with so many bytes and resets the connection, then answers."""

    async def handle(seen: Seen) -> None:
        if seen.peer.number == 0:
            frame = seen.peer.reply_frame(seen, server.results(len(seen.commands)).tobytes())
            await seen.peer.send(frame[:after])
            seen.peer.drop()
        else:
            await server.answer(seen)

    return handle


@pytest.mark.parametrize("after", [0, 1, FRAME_HEADER_SIZE, 100])
async def test_what_was_unanswered_is_sent_again_with_the_same_ids(
    server: ScriptedServer, channel: TcpChannel, after: int
) -> None:
    server.handlers[COMMANDS] = drop_first(server, after=after)
    first, second = numbered(3), numbered(2, 100)
    results = await asyncio.gather(channel.submit(first), channel.submit(second))
    assert [len(rows) for rows in results] == [3, 2]
    again = [seen for seen in server.frames(COMMANDS) if seen.peer.number == 1]
    assert [seen.body for seen in again] == [first.tobytes(), second.tobytes()]
    assert server.frames(COMMANDS)[0].body == first.tobytes()
    assert [seen.peer.number for seen in server.frames(Operation.HELLO)] == [0, 1]


async def test_what_is_sent_again_has_less_time(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[COMMANDS] = drop_first(server)
    await channel.submit(numbered(1), 3.0)
    first, again = server.frames(COMMANDS)
    assert 0 < again.header.timeout_ms <= first.header.timeout_ms <= 3000


async def test_requests_made_while_the_node_is_away_wait_for_it(server: ScriptedServer, channel: TcpChannel) -> None:
    await server.stop()
    while channel.state is State.READY:
        await asyncio.sleep(0)
    pending = asyncio.ensure_future(channel.submit(numbered(1)))
    await asyncio.sleep(0)
    await server.start()
    assert len(await pending) == 1
    assert (channel.state, server.frames(COMMANDS)[0].peer.number) == (State.READY, 1)


async def test_a_node_that_crashes_on_a_frame_is_not_hammered(server: ScriptedServer, channel: TcpChannel) -> None:
    async def crash(seen: Seen) -> None:
        seen.peer.drop()

    server.handlers[COMMANDS] = crash
    with pytest.raises(OutcomeUnknown):
        await channel.submit(numbered(1), 0.3)
    # Without a backoff there would be hundreds.
    assert 2 <= len(server.frames(COMMANDS)) <= 10


@pytest.mark.parametrize(
    "code",
    [
        ResultCode.DEADLINE_PASSED,
        ResultCode.OVERLOADED,
        ResultCode.NOT_LEADER,
        ResultCode.WRONG_SHARD,
        ResultCode.STORAGE_FULL,
    ],
)
async def test_an_answer_that_does_not_look_at_ids_says_nothing_of_the_first_sending(
    server: ScriptedServer, channel: TcpChannel, code: ResultCode
) -> None:
    async def answer_late(seen: Seen) -> None:
        if seen.peer.number == 0:
            seen.peer.drop()
            return
        results = server.results(3)
        results["code"][1] = code
        await seen.peer.reply(seen, results.tobytes())

    server.handlers[COMMANDS] = answer_late
    commands = numbered(3)
    with pytest.raises(OutcomeUnknown, match="1 of 3 commands") as caught:
        await channel.submit(commands)
    assert caught.value.commands is commands
    assert caught.value.results["code"].tolist() == [0, CODE_UNKNOWN, 0]
    assert caught.value.results["position"].tolist() == [1, 0, 3]
    assert caught.value.unknown.tolist() == [False, True, False]


async def test_the_same_answer_to_a_first_sending_is_certain(server: ScriptedServer, channel: TcpChannel) -> None:
    async def answer_late(seen: Seen) -> None:
        results = server.results(1)
        results["code"] = ResultCode.DEADLINE_PASSED
        await seen.peer.reply(seen, results.tobytes())

    server.handlers[COMMANDS] = answer_late
    assert (await channel.submit(numbered(1)))["code"] == [ResultCode.DEADLINE_PASSED]


@pytest.mark.parametrize("code", [FrameError.OVERLOADED, FrameError.REQUEST_REFUSED])
async def test_a_refusal_of_a_second_sending_leaves_the_outcome_unknown(
    server: ScriptedServer, channel: TcpChannel, code: FrameError
) -> None:
    async def refuse_second(seen: Seen) -> None:
        if seen.peer.number == 0:
            seen.peer.drop()
        else:
            await seen.peer.refuse(seen, code)

    server.handlers[COMMANDS] = refuse_second
    with pytest.raises(OutcomeUnknown, match="sent again they were refused"):
        await channel.submit(numbered(2))


async def test_another_log_at_the_same_address_is_not_asked(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[COMMANDS] = drop_first(server)
    server.welcome = msgspec.structs.replace(WELCOME, log_id="00000000000000b2")
    with pytest.raises(OutcomeUnknown, match="now keeps log 00000000000000b2"):
        await channel.submit(numbered(1))
    assert len(server.frames(COMMANDS)) == 1
    assert channel.state is State.FAILED
    with pytest.raises(RemoteProtocolError, match="now keeps log"):
        await channel.submit(numbered(1))


async def test_a_node_that_refuses_us_later_leaves_outcomes_unknown(
    server: ScriptedServer, channel: TcpChannel
) -> None:
    server.handlers[COMMANDS] = drop_first(server)
    server.handlers[Operation.HELLO] = lambda seen: seen.peer.refuse(seen, FrameError.REQUEST_REFUSED)
    with pytest.raises(OutcomeUnknown, match="refuses us: because"):
        await channel.submit(numbered(1))
    with pytest.raises(ConnectionFailed, match="refuses us"):
        await channel.request(Operation.PING, b"")


@pytest.mark.parametrize("code", [FrameError.OVERLOADED, FrameError.HELLO_EXPECTED])
async def test_a_node_without_room_or_time_for_a_connection_is_asked_again(
    server: ScriptedServer, channel: TcpChannel, code: FrameError
) -> None:
    async def refuse_twice(seen: Seen) -> None:
        if seen.peer.number < 3:
            await seen.peer.refuse(seen, code)
        else:
            await server.answer(seen)

    server.handlers[COMMANDS] = drop_first(server)
    server.handlers[Operation.HELLO] = refuse_twice
    assert len(await channel.submit(numbered(1))) == 1
    assert len(server.peers) == 4


# Deadlines.


async def test_commands_without_an_answer_end_unknown_at_their_deadline(
    server: ScriptedServer, channel: TcpChannel
) -> None:
    server.handlers[COMMANDS] = say_nothing
    commands = numbered(2)
    with pytest.raises(OutcomeUnknown, match="2 commands may have been executed or not") as caught:
        await channel.submit(commands, 0.03)
    assert caught.value.commands is commands
    assert caught.value.unknown.all()


async def test_reads_without_an_answer_time_out(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[Operation.PING] = say_nothing
    with pytest.raises(RequestTimedOut):
        await channel.request(Operation.PING, b"", 0.03)


async def test_a_late_answer_is_dropped_and_the_connection_goes_on(server: ScriptedServer, channel: TcpChannel) -> None:
    may_answer = asyncio.Event()

    async def answer_late(seen: Seen) -> None:
        await may_answer.wait()
        await server.answer(seen)

    server.handlers[COMMANDS] = answer_late
    with pytest.raises(OutcomeUnknown):
        await channel.submit(numbered(1), 0.02)
    may_answer.set()
    assert await channel.request(Operation.PING, b"on") == b"on"
    assert channel.bytes_in_flight == 0
    assert len(server.peers) == 1


async def test_a_deadline_that_passes_while_others_are_ended_disturbs_nobody(
    server: ScriptedServer, channel: TcpChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of requests that takes a while; uvloop gives a handle without a time for what is due already."""
    server.handlers[COMMANDS] = say_nothing
    expire = channel._pipeline.expire

    def expire_slowly(now_s: float) -> float | None:
        next_s = expire(now_s)
        time.sleep(0.1)
        return next_s

    async def submit_then_ask() -> None:
        with pytest.raises(OutcomeUnknown):
            await channel.submit(numbered(1), 0.05)
        assert await channel.request(Operation.PING, b"there?") == b"there?"

    monkeypatch.setattr(channel._pipeline, "expire", expire_slowly)
    asking = asyncio.create_task(submit_then_ask())
    await asyncio.sleep(0)
    with pytest.raises(OutcomeUnknown):
        await channel.submit(numbered(1, 2), 0.1)
    await asking


async def test_earlier_deadlines_do_not_wait_for_later_ones(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[Operation.PING] = say_nothing
    ended: list[str] = []

    async def ask(name: str, timeout_s: float) -> None:
        with pytest.raises(RequestTimedOut):
            await channel.request(Operation.PING, b"", timeout_s)
        ended.append(name)

    await asyncio.gather(ask("late", 0.12), ask("early", 0.02), ask("middle", 0.07))
    assert ended == ["early", "middle", "late"]


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), TIMEOUT_S_MAX + 1])
async def test_a_timeout_that_is_none_is_refused(channel: TcpChannel, timeout_s: float) -> None:
    with pytest.raises(UsageError, match="a timeout is above 0"):
        await channel.submit(numbered(1), timeout_s)


# Bounds.


async def test_no_more_bytes_are_in_flight_than_the_node_allows(server: ScriptedServer) -> None:
    frame_size = FRAME_HEADER_SIZE + 10 * COMMAND_SIZE
    server.welcome = msgspec.structs.replace(WELCOME, connection_bytes_in_flight_max=3 * frame_size)
    held: list[Seen] = []

    async def hold(seen: Seen) -> None:
        held.append(seen)

    server.handlers[COMMANDS] = hold
    channel = await TcpChannel.open(server.address, WAIT_S)
    tasks = [asyncio.ensure_future(channel.submit(numbered(10, 10 * n))) for n in range(8)]
    await server.wait_for(COMMANDS, 3)
    # A ping, were it sent, would come behind a fourth frame; it waits in line as well.
    ping = asyncio.ensure_future(channel.request(Operation.PING, b""))
    for answered in range(8):
        assert channel.bytes_in_flight <= 3 * frame_size
        assert len(server.frames(COMMANDS)) == min(answered + 3, 8)
        await server.answer(held[answered])
        await tasks[answered]
        await server.wait_for(COMMANDS, min(answered + 4, 8))
    await ping
    assert [seen.commands["id_head"][0] for seen in held] == [10 * n for n in range(8)]
    await channel.close()


async def test_a_node_that_never_reads_costs_a_bounded_amount(server: ScriptedServer, channel: TcpChannel) -> None:
    server.reading.clear()
    tasks = [asyncio.ensure_future(channel.submit(numbered(BATCH_COUNT_MAX), 0.3)) for _ in range(12)]
    for _ in range(10):
        await asyncio.sleep(0)
        assert channel.bytes_in_flight <= WELCOME.connection_bytes_in_flight_max
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
    assert channel.bytes_in_flight <= WELCOME.connection_bytes_in_flight_max
    server.reading.set()
    assert await channel.request(Operation.PING, b"again") == b"again"
    # What had not been sent when its deadline passed was never sent.
    assert len(server.frames(COMMANDS)) <= 4


# A broken protocol, and the end.


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * FRAME_HEADER_SIZE,
        encode_frame(COMMANDS, 99, b""),
        encode_frame(Operation.ERROR, 0, encode_message(ErrorMessage(FrameError.CHECKSUM_WRONG, "broken"))),
        encode_frame(Operation.ERROR, 0, b"\xc1"),
    ],
    ids=["no frame", "not asked", "it says we broke it", "no message"],
)
async def test_a_broken_protocol_ends_the_channel_for_good(
    server: ScriptedServer, channel: TcpChannel, data: bytes
) -> None:
    server.handlers[COMMANDS] = lambda seen: seen.peer.send(data)
    with pytest.raises(OutcomeUnknown) as caught:
        await channel.submit(numbered(1))
    assert isinstance(caught.value.__cause__, RemoteProtocolError)
    assert channel.state is State.FAILED
    with pytest.raises(RemoteProtocolError):
        await channel.request(Operation.PING, b"")
    assert len(server.peers) == 1


async def test_results_that_are_too_few_break_the_protocol(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[COMMANDS] = lambda seen: seen.peer.reply(seen, server.results(1).tobytes())
    with pytest.raises(OutcomeUnknown, match="a reply of 64 bytes where 128 belong"):
        await channel.submit(numbered(2))
    assert channel.state is State.FAILED


async def test_closing_ends_what_is_unanswered(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[COMMANDS] = server.handlers[Operation.PING] = say_nothing
    commands = asyncio.ensure_future(channel.submit(numbered(1)))
    ping = asyncio.ensure_future(channel.request(Operation.PING, b""))
    await server.wait_for(Operation.PING)
    await channel.close()
    await channel.close()
    with pytest.raises(OutcomeUnknown, match="closed by this side"):
        await commands
    with pytest.raises(ConnectionFailed, match="closed by this side"):
        await ping
    with pytest.raises(UsageError, match="has been closed"):
        await channel.request(Operation.PING, b"")
    assert channel.state is State.CLOSED


async def test_closing_while_the_node_is_away(server: ScriptedServer, channel: TcpChannel) -> None:
    await server.stop()
    while channel.state is not State.WAITING:
        await asyncio.sleep(0)
    pending = asyncio.ensure_future(channel.submit(numbered(1)))
    await asyncio.sleep(0)
    await channel.close()
    with pytest.raises(OutcomeUnknown):
        await pending


async def test_closing_in_the_middle_of_connecting(server: ScriptedServer, channel: TcpChannel) -> None:
    server.handlers[Operation.HELLO] = say_nothing
    server.peers[0].drop()
    await server.wait_for(Operation.HELLO, 2)
    assert channel.state is State.CONNECTING
    await channel.close()
    assert channel.state is State.CLOSED


def test_every_transition_but_those_of_the_table_is_absent() -> None:
    assert set(TRANSITIONS) == set(State)
    present = {(before, after) for before, allowed in TRANSITIONS.items() for after in allowed}
    assert present == {
        (State.CONNECTING, State.READY),
        (State.CONNECTING, State.WAITING),
        (State.CONNECTING, State.FAILED),
        (State.CONNECTING, State.CLOSED),
        (State.READY, State.WAITING),
        (State.READY, State.FAILED),
        (State.READY, State.CLOSED),
        (State.WAITING, State.CONNECTING),
        (State.WAITING, State.CLOSED),
        (State.FAILED, State.CLOSED),
    }


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
async def test_an_absent_transition_is_refused(before: State, after: State) -> None:
    channel = TcpChannel("127.0.0.1:1", WAIT_S)
    channel._state = before
    if after in TRANSITIONS[before]:
        channel._become(after)
        assert channel.state is after
    else:
        with pytest.raises(RuntimeError, match="does not go from"):
            channel._become(after)


# Addresses.


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:7420", ("127.0.0.1", 7420)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", ":7420", "::1:7420", "h:0", "h:65536", "h:-1", "h:+1", "h:٣", "h:1x"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="an address is written like"):
        parse_address(address)


async def test_a_dead_peer_is_noticed_by_the_system(channel: TcpChannel) -> None:
    link = channel._link
    assert link is not None
    stream = link._transport.get_extra_info("socket")  # type: ignore[union-attr]
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
