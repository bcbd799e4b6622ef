"""Claim: a connection begins with HELLO, and whoever begins otherwise learns why and is let go."""

import asyncio
import socket
import time

import msgspec
import pytest

from bezant.engine.log.entry import public_log_id
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameError,
    FrameReader,
    Operation,
    encode_frame,
)
from bezant.protocol.messages import Hello, Welcome, decode_message, encode_message
from bezant.protocol.records import RULES_VERSION

from .books import COMMITTED, transfer_frame
from .conftest import StartNode
from .node import HELLO, WAIT_S, Client, Node, until


async def test_welcome_says_who_answers(node: Node) -> None:
    client = await node.connect(greet=False)
    reply = await client.ask(Operation.HELLO, encode_message(Hello("somebody", 1)))
    welcome = decode_message(reply.body, Welcome)
    assert welcome.log_id == public_log_id(node.replica.log.log_id)
    assert (welcome.protocol_version, welcome.shard, welcome.rules_version) == (1, 0, RULES_VERSION)
    assert (welcome.frame_size_max, welcome.batch_count_max) == (1 << 20, 8191)
    assert welcome.clock_ns >= node.replica.ledger.last_timestamp_ns


async def test_requests_may_follow_hello_without_waiting(node: Node) -> None:
    client = await node.connect(greet=False)
    await client.send(HELLO + transfer_frame(2) + encode_frame(Operation.PING, 3, b"x") + transfer_frame(4))
    replies = {reply.request_id: reply for reply in await client.replies(4)}
    assert (replies[2].codes, replies[3].body, replies[4].codes) == ([COMMITTED], b"x", [COMMITTED])


async def test_hello_may_come_a_byte_at_a_time(node: Node) -> None:
    client = await node.connect(greet=False)
    received = node.reactor.counters.bytes_in
    for number in range(len(HELLO)):
        await client.send(HELLO[number : number + 1])
        await until(lambda number=number: node.reactor.counters.bytes_in == received + number + 1)
    assert (await client.reply()).operation == Operation.HELLO


@pytest.mark.parametrize("operation", [operation for operation in (*Operation, 0, 77) if operation != Operation.HELLO])
async def test_another_first_frame_ends_the_connection(node: Node, operation: int) -> None:
    client = await node.connect(greet=False)
    first = transfer_frame(9) if operation == Operation.COMMANDS else encode_frame(operation, 9)
    await client.send(first + HELLO + transfer_frame(10))
    [refusal] = await client.rest()
    assert (refusal.request_id, refusal.error.code) == (9, FrameError.HELLO_EXPECTED)
    again = await node.connect()
    await again.send(transfer_frame(9) + transfer_frame(10))
    assert [reply.results["flags"].tolist() for reply in await again.replies(2)] == [[0], [0]]


async def test_a_version_that_is_not_spoken(node: Node) -> None:
    client = await node.connect(greet=False)
    await client.send(encode_frame(Operation.HELLO, 3, encode_message(Hello("new", 2))) + HELLO)
    [refusal] = await client.rest()
    assert (refusal.request_id, refusal.error.code) == (3, FrameError.VERSION_UNSUPPORTED)


@pytest.mark.parametrize("greet", [False, True], ids=["first", "later"])
async def test_a_frame_version_that_is_not_spoken(node: Node, greet: bool) -> None:
    client = await node.connect(greet=greet)
    frame = bytearray(HELLO)
    frame[13] = 2
    await client.send(bytes(frame) + HELLO)
    [refusal] = await client.rest()
    assert (refusal.request_id, refusal.error.code) == (0, FrameError.VERSION_UNSUPPORTED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"client": "x"}),
        msgspec.msgpack.encode({"client": "x", "protocol_version": "1"}),
        encode_message(Hello("x", 1)) + b"\0",
        b"\x91" * 2000,
        b"\x82\xa6client\xa2\xff\xfe\xb0protocol_version\x01",
    ],
)
async def test_a_hello_that_is_none_may_be_said_again(node: Node, body: bytes) -> None:
    client = await node.connect(greet=False)
    refusal = await client.ask(Operation.HELLO, body, 5)
    assert refusal.error.code == FrameError.BODY_MALFORMED
    assert (await client.ask(Operation.HELLO, encode_message(Hello("x", 1)))).operation == Operation.HELLO


async def test_hello_has_no_flags(node: Node) -> None:
    client = await node.connect(greet=False)
    await client.send(encode_frame(Operation.HELLO, 5, encode_message(Hello("x", 1)), flags=1))
    assert (await client.reply()).error.code == FrameError.BODY_MALFORMED


async def test_what_a_later_hello_may_add_is_ignored(node: Node) -> None:
    client = await node.connect(greet=False)
    body = msgspec.msgpack.encode({"protocol_version": 1, "colour": "red", "client": "x", "token": "t"})
    assert (await client.ask(Operation.HELLO, body)).operation == Operation.HELLO


async def test_hello_twice_is_refused_and_the_connection_goes_on(client: Client) -> None:
    refusal = await client.ask(Operation.HELLO, encode_message(Hello("x", 1)))
    assert refusal.error.code == FrameError.OPERATION_UNKNOWN
    assert (await client.ask(Operation.PING, b"still")).body == b"still"


async def test_more_connections_than_the_node_takes(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await start_node()
    await until(lambda: node.reactor.counters.connections == 0)
    monkeypatch.setattr(node.clients, "connections_max", 2)
    first, second = await node.connect(), await node.connect()
    for _ in range(3):
        third = await node.connect(greet=False)
        [refusal] = await third.rest()
        assert (refusal.request_id, refusal.error.code) == (0, FrameError.OVERLOADED)
    assert (await first.statistics()).connections == 2
    first.abort()
    await until(lambda: node.reactor.counters.connections == 1)
    assert (await (await node.connect()).statistics()).connections == 2
    assert (await second.ask(Operation.PING)).operation == Operation.PING


async def test_one_address_does_not_take_all_places_of_those_who_have_said_nothing(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    await until(lambda: node.reactor.counters.connections == 0)
    monkeypatch.setattr(node.clients, "connections_max", 6)
    silent = [await node.connect(greet=False) for _ in range(3)]
    await until(lambda: node.reactor.counters.connections == 3)
    [refusal] = await (await node.connect(greet=False)).rest()
    assert (refusal.request_id, refusal.error.code) == (0, FrameError.OVERLOADED)
    other = await node.connect(source="127.0.0.2")
    assert (await other.ask(Operation.PING)).operation == Operation.PING
    await silent[0].send(HELLO)
    assert (await silent[0].reply()).operation == Operation.HELLO
    assert (await (await node.connect()).ask(Operation.PING)).operation == Operation.PING
    silent[1].abort()
    silent[2].abort()
    await until(lambda: not node.clients._ungreeted_of)


async def test_connections_that_say_nothing_are_let_be_for_a_while(node: Node) -> None:
    silent = [await node.connect(greet=False) for _ in range(20)]
    client = await node.connect()
    assert (await client.statistics()).connections == 21 + 0
    await silent[3].send(HELLO)
    assert (await silent[3].reply()).operation == Operation.HELLO
    await asyncio.gather(*(other.send(HELLO) for other in silent if other is not silent[3]))


@pytest.mark.parametrize("said", [b"", HELLO[:20], HELLO[:-1], encode_frame(Operation.HELLO, 5, b"\xc1")])
async def test_a_connection_that_does_not_say_hello_in_time_is_told_so(node: Node, limits, said: bytes) -> None:
    limits(GREETING_S_MAX=0.2, WRITE_STALL_S_MAX=0.1)
    silent = await node.connect(greet=False)
    await silent.send(said)
    talker = await node.connect()
    last = (await silent.rest())[-1]
    assert (last.request_id, last.error.code) == (0, FrameError.HELLO_EXPECTED)
    assert "within" in last.error.message
    await silent.send(HELLO)
    # It is counted out though it does not close, and whoever has said hello may be silent for as long as they like.
    await until(lambda: node.reactor.counters.connections == 1)
    assert (await talker.ask(Operation.PING)).operation == Operation.PING


async def test_many_that_do_not_say_hello_are_told_a_few_at_a_time(node: Node, limits, monkeypatch) -> None:
    """Each when its time is up, by one timer, however many have come and gone meanwhile."""
    limits(GREETING_S_MAX=0.3, GREETINGS_PER_STEP_MAX=3, GREETING_GRACE_S=0.05, WRITE_STALL_S_MAX=0.1)
    await until(lambda: node.reactor.counters.connections == 0)
    steps: list[int] = []
    end_late = node.clients._end_late

    def counted() -> None:
        before = len(node.clients._ungreeted)
        end_late()
        steps.append(before - len(node.clients._ungreeted))

    monkeypatch.setattr(node.clients, "_end_late", counted)
    silent = [await node.connect(greet=False) for _ in range(10)]
    (await node.connect(greet=False)).abort()
    talker = await node.connect()
    for client in silent:
        [refusal] = await client.rest()
        assert refusal.error.code == FrameError.HELLO_EXPECTED
        client.abort()
    assert sum(steps) == 10
    assert max(steps) == 3
    assert node.clients._ungreeted == {}
    assert (await talker.ask(Operation.PING)).operation == Operation.PING


async def test_a_hello_that_came_while_the_node_was_held_up_is_in_time(node: Node, limits, monkeypatch) -> None:
    """It is there to be read when the deadline has passed, and the loop looks at deadlines first."""
    limits(GREETING_S_MAX=0.2)
    await until(lambda: node.reactor.counters.connections == 0)
    neighbour = await node.connect()
    connections = node.reactor.counters.connections
    talker = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", node.port), WAIT_S)
    await until(lambda: node.reactor.counters.connections == connections + 1)

    def hold_up(*_: object) -> None:
        talker.sendall(HELLO)
        time.sleep(0.5)

    monkeypatch.setattr(next(one for one in node.connections if one._greeted and one._transport), "_dispatch", hold_up)
    await neighbour.send(encode_frame(Operation.PING, 1))
    [(header, _)] = FrameReader().feed(await asyncio.to_thread(talker.recv, 4096))
    assert header.operation == Operation.HELLO
    talker.close()


@pytest.mark.parametrize("operation", [Operation.HELLO, Operation.COMMANDS])
async def test_who_has_not_said_who_it_is_gets_no_memory(node: Node, operation: Operation) -> None:
    """A large first frame is refused at its header, whatever it says it is, and no buffer is made for it."""
    client = await node.connect(greet=False)
    frame = encode_frame(operation, 7, bytes(FRAME_SIZE_MAX - FRAME_HEADER_SIZE))
    await client.send(frame[:FRAME_HEADER_SIZE])
    (told,) = await client.rest()
    assert told.error.code == FrameError.HELLO_EXPECTED
    assert node.clients.receive_buffer.held_bytes == 0
