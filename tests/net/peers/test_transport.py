"""Claim: messages and payloads arrive as they were sent, over sockets that come and go, and within bounded memory."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from bezant.net.peers import peer as peer_module
from bezant.net.peers.clocks import Clocks
from bezant.net.peers.peer import QUEUE_BYTES_MAX
from bezant.net.peers.transport import PeerTransport
from bezant.protocol.errors import LocalProtocolError, UsageError
from bezant.protocol.peer_frames import PEER_FRAME_SIZE_MAX, encode_peer_head
from bezant.protocol.raft_messages import (
    Append,
    Heartbeat,
    RaftMessage,
    TermRun,
    decode_raft_message,
    encode_raft_message,
)

from .group import Node, Note, Stranger, encode_note, identity_of, until

MakeNode = Callable[..., Node]
Connect = Callable[[Node], Awaitable[Stranger]]
MIB = 1 << 20


def payload_of(size: int, seed: int = 0) -> bytes:
    """Bytes that differ all along."""
    return np.random.default_rng(seed).bytes(size)


async def test_small_messages_arrive_in_order_both_ways(pair: tuple[Node, Node]) -> None:
    for sender, receiver in (pair, pair[::-1]):
        for number in range(100):
            assert sender.send(receiver.node_id, str(number))
        await until(lambda receiver=receiver: len(receiver.notes) == 100)
        assert receiver.texts == [str(number) for number in range(100)]
        assert {(note[0], bytes(note[2])) for note in receiver.notes} == {(sender.node_id, b"")}
    assert pair[0].links == [(2, True)]
    assert pair[0].status(2).reason == ""
    assert pair[0].status(2).is_heard


async def test_a_payload_of_12_mib_in_parts_among_small_ones(pair: tuple[Node, Node]) -> None:
    first, second = pair
    payload = payload_of(12 * MIB)
    view = memoryview(payload)
    assert first.send(2, "before", b"small")
    assert first.send(2, "large", view[:100], view[100 : 5 * MIB], np.frombuffer(view[5 * MIB :], np.int64), b"")
    assert first.send(2, "behind")
    await until(lambda: len(second.notes) == 3)
    assert second.texts == ["before", "large", "behind"]
    assert [bytes(payload) for _, _, payload in second.notes] == [b"small", payload, b""]
    assert first.transport.unsent_bytes(2) == 0


async def test_a_payload_of_more_buffers_than_the_system_takes_at_a_time(pair: tuple[Node, Node]) -> None:
    first, second = pair
    payload = payload_of(300_000)
    assert first.send(2, "many", *(payload[at : at + 100] for at in range(0, len(payload), 100)))
    assert first.send(2, "behind")
    await until(lambda: len(second.notes) == 2)
    assert second.notes[0][2] == payload
    assert second.texts == ["many", "behind"]


@pytest.mark.parametrize("held", [False, True])
async def test_a_callback_that_fails_is_not_passed_over(
    pair: tuple[Node, Node], loop_errors: list[BaseException], held: bool
) -> None:
    """The loop is told, the connection is lost as the message is, and comes back."""
    first, second = pair

    def fail(sender: int) -> None:
        raise ZeroDivisionError

    second.on_note = second.transport.hold if held else fail
    first.send(2, "one")
    first.send(2, "two")
    await until(lambda: second.notes)
    if held:
        second.on_note = fail
        second.transport.release(1)
    await until(lambda: first.links == [(2, True), (2, False), (2, True)])
    assert [type(error) for error in loop_errors] == [ZeroDivisionError]
    loop_errors.clear()
    second.on_note = lambda sender: None
    first.send(2, "three")
    await until(lambda: second.texts[-1] == "three")


async def test_messages_of_one_step_leave_in_one_write(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    writes = []
    connection = first.transport._peers[2]._up
    assert connection is not None
    real = connection.transport
    assert real is not None

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def writelines(self, parts: list[bytes]) -> None:
            writes.append(len(parts))
            real.writelines(parts)

    monkeypatch.setattr(connection, "transport", Counting())
    for _ in range(10):
        first.send(2, "a", b"b")
    assert writes == []
    await until(lambda: len(second.notes) == 10)
    assert writes == [20]
    first.send(2)
    first.transport.flush()
    assert writes == [20, 1]
    first.send(2, "", bytes(peer_module.FLUSH_BYTES))
    assert writes == [20, 1, 2]
    monkeypatch.setattr(connection, "transport", real)
    await until(lambda: len(second.notes) == 12)


async def test_a_small_frame_split_at_every_byte(listener: Node, connect: Connect) -> None:
    stranger = await connect(listener)
    await stranger.greet(listener, 2)
    await stranger.receive()
    note = encode_note(Note(2, 1, "note"))
    frame = encode_peer_head(note, 3) + b"abc"
    for split in range(1, len(frame)):
        stranger.send(frame[:split])
        await asyncio.sleep(0.001)
        stranger.send(frame[split:])
        await until(lambda split=split: len(listener.notes) == split)
    assert {(sender, text, bytes(payload)) for sender, text, payload in listener.notes} == {(2, "note", b"abc")}


async def test_a_reader_that_does_not_read_costs_bounded_memory_and_gets_what_was_taken(
    pair: tuple[Node, Node],
) -> None:
    first, second = pair
    second.transport.hold(1)
    payload = payload_of(3 * MIB)
    taken = 0
    for _ in range(1000):
        if not first.send(2, str(taken), payload):
            break
        taken += 1
        assert first.transport.unsent_bytes(2) <= QUEUE_BYTES_MAX
        await asyncio.sleep(0.001)
    assert QUEUE_BYTES_MAX // len(payload) <= taken < 100
    assert first.status(2).dropped_count == 1
    assert second.notes == []
    second.transport.release(1)
    await until(lambda: len(second.notes) == taken)
    assert second.texts == [str(number) for number in range(taken)]
    assert all(received == payload for _, _, received in second.notes)
    assert first.send(2, "again")
    await until(lambda: second.texts[-1] == "again")


async def test_a_hold_stops_frames_that_have_arrived_already(pair: tuple[Node, Node]) -> None:
    first, second = pair
    second.on_note = second.transport.hold
    for number in range(20):
        first.send(2, str(number))
    for number in range(20):
        await until(lambda number=number: len(second.notes) == number + 1)
        await asyncio.sleep(0.005)
        assert len(second.notes) == number + 1
        second.transport.release(1)


async def test_a_hold_outlasts_the_connection(pair: tuple[Node, Node], make_node: MakeNode) -> None:
    first, second = pair
    second.transport.hold(1)
    await first.stop()
    again = make_node(1, port=first.port)
    again.join({2: second.address})
    await until(lambda: again.transport.is_up(2))
    again.send(2, "held")
    await asyncio.sleep(0.05)
    assert second.notes == []
    second.transport.release(1)
    await until(lambda: second.texts == ["held"])


async def test_a_node_that_dies_and_comes_back_is_found_again(pair: tuple[Node, Node], make_node: MakeNode) -> None:
    first, second = pair
    await second.stop()
    await until(lambda: first.links == [(2, True), (2, False)] and first.resets == [2])
    assert not first.send(2, "lost")
    assert first.transport.unsent_bytes(2) == 0
    assert first.transport.clock_offset_ns(2) is None
    await until(lambda: "nobody answers" in first.status(2).reason)
    again = make_node(2, port=second.port)
    again.join({1: first.address})
    await again.listen()
    await until(lambda: first.transport.is_up(2) and again.transport.is_up(1))
    assert first.links == [(2, True), (2, False), (2, True)]
    assert first.send(2, "found")
    await until(lambda: again.texts == ["found"])


async def test_messages_that_wait_when_the_connection_is_lost_are_not_sent_later(
    pair: tuple[Node, Node], make_node: MakeNode
) -> None:
    first, second = pair
    second.transport.hold(1)
    for _ in range(8):
        first.send(2, "old", bytes(4 * MIB - 100))
    await second.stop()
    await until(lambda: not first.transport.is_up(2))
    assert first.transport.unsent_bytes(2) == 0
    again = make_node(2, port=second.port)
    again.join({1: first.address})
    await again.listen()
    await until(lambda: first.transport.is_up(2))
    first.send(2, "new")
    await until(lambda: again.notes)
    assert again.texts == ["new"]


async def test_members_come_and_go_at_run_time(pair: tuple[Node, Node], make_node: MakeNode) -> None:
    first, second = pair
    third = make_node(3)
    third.join({1: first.address})
    await third.listen()
    await until(lambda: "no member" in third.status(1).reason)
    assert "node 3 is no member" in first.transport.refused()[-1].reason
    first.join({2: second.address, 3: third.address})
    await until(lambda: first.transport.is_up(3) and third.transport.is_up(1))
    assert third.send(1, "joined")
    await until(lambda: first.texts == ["joined"])
    first.join({3: third.address})
    await until(lambda: not second.transport.is_up(1) and second.resets == [1])
    assert (2, False) in first.links
    assert not first.send(2)
    assert [status.node_id for status in first.transport.status()] == [3]
    assert first.transport.is_up(3)
    await until(lambda: "no member" in second.status(1).reason)


async def test_a_node_that_has_moved_is_dialled_at_its_new_address(
    pair: tuple[Node, Node], make_node: MakeNode
) -> None:
    first, second = pair
    await second.stop()
    moved = make_node(2)
    moved.join({1: first.address})
    await moved.listen()
    first.join({2: moved.address})
    await until(lambda: first.transport.is_up(2))
    first.send(2, "moved")
    await until(lambda: moved.texts == ["moved"])


async def test_addresses_that_are_none_change_nothing(pair: tuple[Node, Node]) -> None:
    first, _ = pair
    with pytest.raises(UsageError):
        first.join({3: "nowhere"})
    assert first.transport.is_up(2)


async def test_what_is_too_long_is_the_callers_mistake(pair: tuple[Node, Node]) -> None:
    first, second = pair
    with pytest.raises(LocalProtocolError):
        first.send(2, "", bytes(PEER_FRAME_SIZE_MAX))
    with pytest.raises(LocalProtocolError):
        first.send(2, "x" * 40_000)
    first.send(2, "fine")
    await until(lambda: second.texts == ["fine"])


async def test_clocks_are_compared(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose clock is two hours ahead is known to be, and a step of our own clock shows at once."""
    monkeypatch.setattr(peer_module, "PING_S", 0.01)
    hours_ns = 7200 * 10**9
    step_ns = [0]
    first = make_node(1, clocks=Clocks(wall_ns=lambda: time.time_ns() + step_ns[0]))
    second = make_node(2, clocks=Clocks(wall_ns=lambda: time.time_ns() + hours_ns))
    for node, other in ((first, second), (second, first)):
        node.join({other.node_id: other.address})
        await node.listen()
    await until(lambda: first.transport.clock_offset_ns(2) and second.transport.clock_offset_ns(1))
    await asyncio.sleep(0.1)
    tolerance_ns = 50 * 10**6
    assert first.transport.clock_offset_ns(2) == pytest.approx(hours_ns, abs=tolerance_ns)
    assert second.transport.clock_offset_ns(1) == pytest.approx(-hours_ns, abs=tolerance_ns)
    step_ns[0] = hours_ns
    assert first.transport.clock_offset_ns(2) == pytest.approx(0, abs=tolerance_ns)
    assert first.status(2).round_trip_ns in range(tolerance_ns)


async def test_stopping_while_dialling_and_twice_leaves_nothing(make_node: MakeNode) -> None:
    """Nobody answers at the first address, nobody accepts at the second, and no name leads to the third."""
    node, silent = make_node(1), make_node(2)
    silent._socket.listen(1)
    node.join({2: silent.address, 3: "127.0.0.1:1", 4: "no-such-host.invalid:1", 5: "x" * 80 + ":1"})
    await node.listen()
    await until(lambda: node.status(3).reason != "not connected yet")
    await until(lambda: "nobody answers" in node.status(5).reason)
    await node.stop()
    await node.stop()
    assert node.links == []
    with pytest.raises(UsageError):
        node.join({2: silent.address})


async def test_no_callback_comes_once_stop_has_begun(pair: tuple[Node, Node]) -> None:
    first, second = pair
    await first.stop()
    assert first.links == [(2, True)]
    assert first.resets == []
    await until(lambda: second.resets == [1])


async def test_an_address_that_is_taken_is_refused_in_words(pair: tuple[Node, Node], make_node: MakeNode) -> None:
    first, _ = pair
    other = make_node(3)
    with pytest.raises(UsageError, match="cannot listen"):
        await other.transport.listen(first.address)
    port = other.port
    other._socket.close()
    await other.transport.listen(f"127.0.0.1:{port}")
    first.join({3: f"127.0.0.1:{port}"})
    other.join({1: first.address})
    await until(lambda: first.transport.is_up(3))


async def test_an_identity_that_none_can_have_is_refused() -> None:
    for changes in ({"server": "x" * 300}, {"log_id": "x" * 300}):
        with pytest.raises(UsageError):
            identity_of(1, **changes)
    for node_id in (0, -1, 2**31):
        with pytest.raises(UsageError):
            identity_of(node_id)


async def test_messages_of_raft_are_messages_of_this_transport(make_node: MakeNode) -> None:
    """The real codec, which checks what it decodes, with entries beside an Append."""
    received: list[tuple[int, RaftMessage, bytes]] = []
    nodes = [make_node(node_id) for node_id in (1, 2)]
    transports: list[PeerTransport[RaftMessage]] = [
        PeerTransport(
            identity_of(node.node_id),
            encode=encode_raft_message,
            decode=decode_raft_message,
            judge=lambda hello: None,
            on_message=lambda sender, message, payload: received.append((sender, message, bytes(payload))),
            on_link=lambda node_id, is_up: None,
            on_reset=lambda node_id: None,
        )
        for node in nodes
    ]
    first, second = transports
    for node, transport in zip(nodes, transports, strict=True):
        transport.set_members({node.node_id: node.address for node in nodes})
        await transport.listen([node._socket])
    await until(lambda: first.is_up(2) and second.is_up(1))
    append = Append(1, 2, 7, 10, 6, (TermRun(11, 6), TermRun(12, 7)), 12, 9, 3)
    heartbeat = Heartbeat(1, 2, 7, 9, 1, 3)
    assert first.send(2, append, [b"entry 11", b"entry 12"])
    assert first.send(2, heartbeat)
    await until(lambda: len(received) == 2)
    assert received == [(1, append, b"entry 11entry 12"), (1, heartbeat, b"")]
    for transport in transports:
        await transport.stop()
