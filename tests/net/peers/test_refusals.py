"""Claim: whoever is not the member that it says it is stays outside, is told why, and the node goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from bezant.net.peers import accepted, connection
from bezant.net.peers.identity import NO_PROOF, proof_of
from bezant.protocol.access import token_text
from bezant.protocol.frames import FRAME_HEADER_SIZE, FrameError, FrameFlag, Operation, encode_frame
from bezant.protocol.messages import ErrorMessage, PeerHello, decode_message, encode_message
from bezant.protocol.peer_frames import PeerClocks, encode_peer_head

from .group import LOG_ID, Node, Note, Stranger, encode_note, identity_of, until

MakeNode = Callable[..., Node]
Connect = Callable[[Node], Awaitable[Stranger]]


async def refusal(stranger: Stranger) -> ErrorMessage:
    """The error that a node answers with before it closes."""
    header, body = await stranger.receive()
    assert header.operation == Operation.ERROR
    await stranger.wait_closed()
    return decode_message(body, ErrorMessage)


HELLO_CHANGES: list[tuple[dict[str, Any], FrameError, str]] = [
    ({"log_id": "feed"}, FrameError.REQUEST_REFUSED, "node 2 is of the group feed, and node 1 of another one"),
    ({"node_id": 7}, FrameError.REQUEST_REFUSED, "node 7 is no member"),
    ({"term": -1}, FrameError.REQUEST_REFUSED, "in term -1, which no node ever is"),
    ({"term": (1 << 63) - 1}, FrameError.REQUEST_REFUSED, "which no node ever is"),
    ({"node_id": 1}, FrameError.REQUEST_REFUSED, "two nodes have the id 1"),
    ({"incarnation": 5}, FrameError.REQUEST_REFUSED, "the disk of node 2 is not the one that the group knows"),
    ({"receiver": 3}, FrameError.REQUEST_REFUSED, "this is node 1, not node 3"),
    (
        {"receiver_incarnation": 5},
        FrameError.REQUEST_REFUSED,
        "this disk is not the one that the group knows as node 1",
    ),
    ({"protocol_version": 9}, FrameError.VERSION_UNSUPPORTED, "node 2 speaks protocol version 9, and node 1 1"),
    ({"log_format_version": 1}, FrameError.VERSION_UNSUPPORTED, "node 2 has log format 1, and node 1 2"),
]


@pytest.mark.parametrize(("changes", "code", "words"), HELLO_CHANGES, ids=[next(iter(row[0])) for row in HELLO_CHANGES])
async def test_a_wrong_greeting_is_answered_with_the_reason(
    listener: Node, connect: Connect, changes: dict[str, Any], code: FrameError, words: str
) -> None:
    stranger = await connect(listener)
    await stranger.greet(listener, 2, **changes)
    error = await refusal(stranger)
    assert error.code == code
    assert words in error.message
    assert listener.transport.refused()[-1].reason == error.message
    assert listener.resets == listener.notes == []


@pytest.mark.parametrize(
    "changes", [row[0] for row in HELLO_CHANGES], ids=[next(iter(row[0])) for row in HELLO_CHANGES]
)
async def test_a_stranger_is_not_told_of_which_group_a_node_is(
    listener: Node, connect: Connect, changes: dict[str, Any]
) -> None:
    stranger = await connect(listener)
    await stranger.greet(listener, 2, **({"log_id": "feed"} | changes))
    assert LOG_ID not in (await refusal(stranger)).message


TOKEN, OTHER_TOKEN = (token_text("cccccccccccc", letter * 43) for letter in "ab")


def greeting(receiver: int = 1, token: str = TOKEN) -> PeerHello:
    """What node 2 says to node 1, or another one, if it has this token."""
    return identity_of(2, cluster_token=token).hello(receiver, 1000 + receiver, 9)


PROOFS = {
    "none": b"",
    "short": greeting().proof[:-1],
    "of another token": greeting(token=OTHER_TOKEN).proof,
    "for another node": greeting(receiver=3).proof,
}


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
async def test_who_does_not_prove_that_it_has_the_token_of_the_cluster_is_no_node(
    make_node: MakeNode, connect: Connect, proof: bytes
) -> None:
    """Though it knows the log id, the disks and the members."""
    node = make_node(1, cluster_token=TOKEN)
    node.join({2: ""}, {2: 1002})
    await node.listen()
    stranger = await connect(node)
    stranger.send(
        encode_frame(Operation.PEER_HELLO, 1, encode_message(msgspec.structs.replace(greeting(), proof=proof)))
    )
    error = await refusal(stranger)
    assert error.code == FrameError.UNAUTHENTICATED
    assert not {LOG_ID, "node 1", TOKEN} & set(error.message.split())
    assert node.resets == node.notes == []


@pytest.mark.parametrize("field", [name for name in PeerHello.__struct_fields__ if name != "proof"])
async def test_a_proof_is_good_for_one_greeting_alone(make_node: MakeNode, connect: Connect, field: str) -> None:
    node = make_node(1, cluster_token=TOKEN)
    node.join({2: ""}, {2: 1002})
    await node.listen()
    hello = greeting()
    right = await connect(node)
    right.send(encode_frame(Operation.PEER_HELLO, 1, encode_message(hello)))
    header, body = await right.receive()
    assert header.operation == Operation.PEER_HELLO
    answer = decode_message(body, PeerHello)
    assert answer.proof == proof_of(TOKEN, answer)
    value = getattr(hello, field)
    other = f"{value}x" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1
    changed = msgspec.structs.replace(hello, **{field: other})
    wrong = await connect(node)
    wrong.send(encode_frame(Operation.PEER_HELLO, 1, encode_message(changed)))
    assert (await refusal(wrong)).code == FrameError.UNAUTHENTICATED


async def test_nodes_with_one_token_know_each_other_and_none_with_another_or_without(make_node: MakeNode) -> None:
    """Who dials and has the token looks at the answer likewise."""
    nodes = [make_node(number, cluster_token=token) for number, token in enumerate((TOKEN, TOKEN, OTHER_TOKEN, ""), 1)]
    for node in nodes:
        node.join({other.node_id: other.address for other in nodes if other is not node})
        await node.listen()
    first, second, third, without = nodes
    await until(lambda: first.transport.is_up(2) and second.transport.is_up(1))
    for node in (first, second):
        for other in (third, without):
            await until(lambda node=node, other=other: NO_PROOF in node.status(other.node_id).reason)  # type: ignore[misc]
            assert not other.transport.is_up(node.node_id)


async def test_a_right_greeting_is_answered_with_the_nodes_own(listener: Node, connect: Connect) -> None:
    stranger = await connect(listener)
    await stranger.greet(listener, 2)
    header, body = await stranger.receive()
    answer = decode_message(body, PeerHello)
    assert (header.operation, header.flags) == (Operation.PEER_HELLO, FrameFlag.REPLY)
    assert (answer.node_id, answer.incarnation, answer.receiver, answer.receiver_incarnation) == (1, 1001, 2, 1002)
    stranger.send(encode_frame(Operation.PEER_PING, 5, PeerClocks(123).encode()))
    header, body = await stranger.receive()
    clocks = PeerClocks.decode(body)
    assert (header.operation, header.request_id, clocks.sent_ns) == (Operation.PEER_PING, 5, 123)
    assert answer.clock_ns <= clocks.received_ns <= clocks.answered_ns
    await stranger.close()
    await until(lambda: listener.resets == [2])


@pytest.mark.parametrize("changes", [{"log_id": "feed"}, {"incarnation": 5}, {"log_format_version": 1}])
async def test_a_refused_node_says_so_and_tries_again_when_that_may_help(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Both ends: the one that dials is refused, and it would refuse the one that answers."""
    first, second = make_node(1), make_node(2, **changes)
    first.join({2: second.address}, {2: 1002})
    second.join({1: first.address})
    for node in (first, second):
        await node.listen()
    await until(lambda: "the other end says" in second.status(1).reason)
    await until(lambda: first.status(2).reason not in ("", "not connected yet"))
    assert not first.transport.is_up(2)
    assert not second.transport.is_up(1)
    count = len(first.transport.refused())
    await asyncio.sleep(0.3)
    assert len(first.transport.refused()) <= count + 1
    assert first.links == second.links == []


async def test_the_driver_judges_both_who_dials_and_who_is_dialled(make_node: MakeNode) -> None:
    first, second = make_node(1), make_node(2)
    first.verdict = lambda hello: f"node {hello.node_id} with rules {hello.rules_version_max} is not wanted"
    for node, other in ((first, second), (second, first)):
        node.join({other.node_id: other.address})
        await node.listen()
    words = "node 2 with rules 1 is not wanted"
    await until(lambda: words in first.status(2).reason and words in second.status(1).reason)
    first.verdict = lambda hello: None
    await until(lambda: first.transport.is_up(2) and second.transport.is_up(1))


async def test_a_second_living_process_with_the_same_identity_is_refused(
    listener: Node, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await connect(listener), await connect(listener)
    await one.greet(listener, 2, run_id=1)
    await one.receive()
    await two.greet(listener, 2, run_id=2)
    assert "two nodes have the id 2" in (await refusal(two)).message
    monkeypatch.setattr(accepted, "SILENT_S", 0.0)
    three = await connect(listener)
    await three.greet(listener, 2, run_id=3)
    assert (await three.receive())[0].operation == Operation.PEER_HELLO
    await one.wait_closed()
    assert listener.resets == []


async def test_the_same_process_may_dial_again_before_its_old_connection_is_gone(
    listener: Node, connect: Connect
) -> None:
    one, two = await connect(listener), await connect(listener)
    for stranger in (one, two):
        await stranger.greet(listener, 2, run_id=1)
        assert (await stranger.receive())[0].operation == Operation.PEER_HELLO
    await one.wait_closed()
    two.send(encode_peer_head(encode_note(Note(2, 1, "second")), 0))
    await until(lambda: listener.texts == ["second"])
    assert listener.resets == []


NOTE = encode_note(Note(2, 1, "note"))
HEAD = encode_peer_head(NOTE, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\nAccept: everything\r\n\r\n",
        bytes(200),
        HEAD,
        encode_frame(Operation.HELLO, 1, b"\x80"),
        encode_frame(Operation.PEER_HELLO, 1, b"\xc1"),
        encode_frame(Operation.PEER_HELLO, 1, b"\x80"),
        encode_frame(Operation.PEER_HELLO, 1, bytes(5000)),
        encode_frame(Operation.ERROR, 1, b"nothing"),
    ],
    ids=lambda data: f"{len(data)}-bytes-{data[12]}",
)
async def test_garbage_instead_of_a_greeting(listener: Node, connect: Connect, data: bytes) -> None:
    stranger = await connect(listener)
    stranger.send(data)
    await stranger.wait_closed()
    assert listener.transport.refused()
    assert listener.notes == []
    await still_works(listener, connect)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff" * 64, FrameError.VERSION_UNSUPPORTED),
        (HEAD[:8] + (17 << 20).to_bytes(4, "little") + HEAD[12:FRAME_HEADER_SIZE], FrameError.LENGTH_INVALID),
        (HEAD[:-1] + b"!", FrameError.CHECKSUM_WRONG),
        (encode_peer_head(b"\xc1", 0), FrameError.BODY_MALFORMED),
        (encode_peer_head(encode_note(Note(3, 1)), 0), FrameError.BODY_MALFORMED),
        (encode_peer_head(encode_note(Note(2, 3)), 0), FrameError.BODY_MALFORMED),
        (encode_frame(Operation.PEER_PING, 1, b"short"), FrameError.BODY_MALFORMED),
        (encode_frame(Operation.PEER_PING, 1, bytes(24), flags=1), FrameError.BODY_MALFORMED),
        (encode_frame(Operation.COMMANDS, 1, bytes(128)), FrameError.OPERATION_UNKNOWN),
        (encode_frame(Operation.PEER_HELLO, 1, b"\x80"), FrameError.OPERATION_UNKNOWN),
    ],
    ids=lambda value: value.name if isinstance(value, FrameError) else f"{len(value)}-bytes-{value[12]}",
)
async def test_garbage_behind_the_greeting(listener: Node, connect: Connect, data: bytes, code: FrameError) -> None:
    stranger = await connect(listener)
    await stranger.greet(listener, 2)
    await stranger.receive()
    stranger.send(HEAD)
    stranger.send(data)
    assert (await refusal(stranger)).code == code
    await until(lambda: listener.resets == [2])
    assert listener.texts == ["note"]
    await still_works(listener, connect)


async def still_works(listener: Node, connect: Connect) -> None:
    """The real node 2 is let in and heard."""
    count = len(listener.notes)
    stranger = await connect(listener)
    await stranger.greet(listener, 2)
    assert (await stranger.receive())[0].operation == Operation.PEER_HELLO
    stranger.send(HEAD)
    await until(lambda: len(listener.notes) == count + 1)


async def test_who_does_not_greet_is_closed(listener: Node, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELLO_S_MAX", 0.05)
    monkeypatch.setattr(accepted, "HELLO_S_MAX", 0.05)
    assert (await refusal(await connect(listener))).code == FrameError.HELLO_EXPECTED


async def test_connections_that_do_not_greet_are_bounded(
    listener: Node, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted, "GREETING_CONNECTIONS_MAX", 4)
    for _ in range(2):
        await connect(listener)
    await (await connect(listener)).wait_closed()  # more than one address may have
    monkeypatch.setattr(accepted, "SHARE", 1)
    for _ in range(2):
        await connect(listener)
    await (await connect(listener)).wait_closed()


async def test_who_does_not_read_the_answers_to_its_pings_is_closed(listener: Node, connect: Connect) -> None:
    stranger = await connect(listener)
    await stranger.greet(listener, 2)
    await stranger.receive()
    stranger.writer.transport.pause_reading()
    pings = encode_frame(Operation.PEER_PING, 1, bytes(24)) * 1000
    async with asyncio.timeout(20):
        while not listener.resets:
            stranger.send(pings)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 64,
        encode_frame(Operation.PEER_HELLO, 0, b"\x80", flags=1),
        encode_frame(Operation.PEER_PING, 1, bytes(24), flags=1),
        encode_frame(Operation.ERROR, 0, b"\x82\xa4code\x07\xa7message\xa4gone", flags=1),
        HEAD,
    ],
    ids=lambda data: f"{len(data)}-bytes-{data[12]}",
)
async def test_garbage_from_whom_the_node_dials(make_node: MakeNode, answer: bytes) -> None:
    """The node closes the connection, says why, and does not dial in a hurry for ever."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(answer)
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionResetError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node = make_node(1)
    node.join({2: f"127.0.0.1:{server.sockets[0].getsockname()[1]}"})
    await until(lambda: served and node.status(2).reason != "not connected yet")
    assert node.status(2).reason
    assert node.links == []
    await node.stop()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.05)
