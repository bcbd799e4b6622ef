"""Claim: what a client can make the node hold is bounded, in memory and in time, and nobody else pays for it."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bezant.net.server import inbox
from bezant.net.server.connection import FRAMES_PER_STEP_MAX, Connection
from bezant.net.server.inbox import Unread
from bezant.protocol.frames import (
    BATCH_COUNT_MAX,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameError,
    Operation,
    encode_frame,
)
from bezant.protocol.messages import ListAccounts, encode_message

from .books import COMMITTED, opening, transfer_frame, transfers
from .conftest import StartNode
from .node import HELLO, LARGE_SETTINGS, SYSTEM_BUFFER_SIZE, WAIT_S, Client, Node, SlowDisk, until

LIST_ALL = encode_message(ListAccounts(0, 1 << 20))


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[None]:
    """Meanwhile a well-behaved client makes a transfer after the other, each within the time that tests wait."""
    client = await node.connect()
    done = asyncio.Event()

    async def work() -> int:
        number = 0
        while not done.is_set() or number < 20:
            number += 1
            assert not (await client.execute(transfers(1, (1 << 50) + number)))["code"].any()
        return number

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        done.set()
        assert await task >= 20
        client.abort()


async def send_until_stuck(client: Client, frame: bytes, node: Node, unsent_bytes: int) -> None:
    """Write a frame again and again until the node reads no more, having so much that the client does not take.

    Without that it may wait for its disk alone.
    """
    while True:
        client.write(frame * (1 + 200_000 // len(frame)))
        received = node.reactor.counters.bytes_in
        for _ in range(20):
            await asyncio.sleep(0.005)
            if node.reactor.counters.bytes_in != received and client.writer.transport.get_write_buffer_size() < 1 << 20:
                break
        else:
            if node.clients.unsent_bytes > unsent_bytes:
                return


# Ends.


async def test_a_client_that_sends_no_more_gets_its_answers(client: Client, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(transfer_frame(2), encode_frame(Operation.LIST_CURRENCIES, 3), transfer_frame(4)[:100])
    client.writer.write_eof()
    slow_disk.release()
    assert sorted(reply.request_id for reply in await client.rest()) == [1, 2, 3]


@pytest.mark.parametrize("last", [b"", HELLO[:20], HELLO[:40]])
async def test_a_client_that_sends_no_more_and_waits_for_nothing(node: Node, last: bytes) -> None:
    client = await node.connect(greet=False)
    await client.send(last)
    client.writer.write_eof()
    assert await client.rest() == []


async def test_everything_and_the_end_in_one_piece(large_node: Node) -> None:
    """More than a batch holds, so that frames wait while the end of the stream is already there."""
    client = await large_node.connect()
    client.write(*(transfer_frame(number, BATCH_COUNT_MAX) for number in range(6)), transfer_frame(6))
    client.writer.write_eof()
    assert [reply.request_id for reply in await client.rest()] == list(range(7))


async def test_a_client_that_goes_while_the_node_works_for_it(node: Node, slow_disk: SlowDisk) -> None:
    leaver, stayer = await node.connect(), await node.connect()
    connections = node.reactor.counters.connections
    slow_disk.hold()
    await stayer.send(transfer_frame(1))
    await slow_disk.busy()
    await leaver.send(*(transfer_frame(number) for number in range(2, 6)), encode_frame(Operation.LIST_CURRENCIES, 6))
    in_flight = 5 * 160 + 32
    await until(lambda: node.reactor.bytes_in_flight == in_flight)
    node.connections[1].abort()
    await until(lambda: node.reactor.counters.connections == connections - 1)
    # What the node still works on counts until it is done, or leaving would be a way round the bounds.
    assert node.reactor.bytes_in_flight == in_flight
    slow_disk.release()
    assert (await stayer.reply()).codes == [COMMITTED]
    await until(lambda: node.reactor.bytes_in_flight == 0)
    await stayer.send(transfer_frame(5))
    assert (await stayer.reply()).results["flags"].tolist() == [1]  # executed all the same


async def test_clients_that_come_and_go_leave_nothing_behind(node: Node) -> None:
    async with served(node):
        for turn in range(60):
            client = await node.connect(greet=turn % 3 > 0)
            client.write(*(transfer_frame(100 * turn + number) for number in range(20)), transfer_frame(1, 30)[:-9])
            if turn % 2:
                await asyncio.sleep(0)
            client.abort()
    await until(lambda: node.reactor.bytes_in_flight == 0 and node.reactor.counters.connections == 0)


# Clients that do not read.


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.COMMANDS, transfers(1, 5).tobytes()),
        (Operation.COMMANDS, transfers(50, 5).tobytes()),
        (Operation.PING, bytes(2000)),
        (Operation.STATISTICS, b""),
        (Operation.LIST_CURRENCIES, b""),
        (Operation.LIST_ACCOUNTS, LIST_ALL),
        (Operation.LOOKUP_ACCOUNTS, bytes(16 * 1000)),
        (99, b""),
    ],
    ids=["commands", "long commands", "ping", "statistics", "currencies", "list", "look-up", "errors"],
)
async def test_a_client_that_never_reads(start_node: StartNode, limits, operation: int, body: bytes) -> None:
    node = await start_node()
    await (await node.connect()).execute(opening(*(f"account-{number}" for number in range(1000))))
    limits(WRITE_STALL_S_MAX=60.0, WRITE_BUFFER_BYTES_MAX=200_000)
    client = await node.connect(buffer_size=SYSTEM_BUFFER_SIZE)
    client.writer.transport.set_write_buffer_limits(high=1 << 30)
    connection = node.connections[-1]
    async with served(node):
        async with asyncio.timeout(WAIT_S):
            await send_until_stuck(client, encode_frame(operation, 1, body), node, 200_000)
        assert node.clients.unsent_bytes < 8 << 20
        assert node.clients.receive_buffer.held_bytes <= 1 << 20
        assert node.reactor.bytes_in_flight < 9 << 20
    connection.abort()
    await until(lambda: node.clients.unsent_bytes == 0)


async def test_a_client_that_never_reads_is_disconnected(node: Node, limits) -> None:
    limits(WRITE_STALL_S_MAX=0.3, WRITE_BUFFER_BYTES_MAX=100_000)
    client = await node.connect(buffer_size=SYSTEM_BUFFER_SIZE)
    async with served(node):
        client.write(encode_frame(Operation.PING, 1, bytes(FRAME_SIZE_MAX // 2)) * 16)
        await until(lambda: node.clients.unsent_bytes > 0)
        await until(lambda: node.clients.unsent_bytes == 0)
        await until(lambda: node.reactor.counters.connections <= 1)


async def test_a_client_that_reads_late_gets_everything(node: Node, limits) -> None:
    limits(WRITE_BUFFER_BYTES_MAX=100_000)
    client = await node.connect()
    client.write(*(encode_frame(Operation.PING, number, bytes(300_000)) for number in range(40)))
    client.write(transfer_frame(40))
    await until(lambda: node.clients.unsent_bytes > 0)
    assert [reply.request_id for reply in await client.replies(41)] == list(range(41))
    assert node.clients.unsent_bytes == 0


async def test_unread_replies_of_all_together_have_a_bound(node: Node, limits) -> None:
    limits(WRITE_BUFFER_BYTES_MAX=100_000, UNSENT_BYTES_MAX=1_000_000)
    clients = [await node.connect(buffer_size=SYSTEM_BUFFER_SIZE) for _ in range(12)]
    async with served(node):
        for client in clients:
            client.write(encode_frame(Operation.PING, 1, bytes(FRAME_SIZE_MAX // 2)) * 12)
        await until(lambda: node.reactor.counters.connections < 12)
        assert node.clients.unsent_bytes <= 1_000_000 + FRAME_SIZE_MAX


async def test_the_more_connections_the_less_may_each_leave_unread(node: Node, monkeypatch) -> None:
    shares = []
    for count in (0, 1, 256, 512, 4096, 16_384):
        monkeypatch.setattr(node.clients, "_connections", range(count))
        shares.append(node.clients.write_buffer_bytes)
    monkeypatch.undo()
    assert shares == [1 << 20, 1 << 20, 1 << 20, 1 << 19, 1 << 16, 1 << 16]


async def test_small_replies_that_nobody_reads_do_not_keep_large_ones_in_memory(
    node: Node, slow_disk: SlowDisk
) -> None:
    """A reply that is cut out of those of a whole batch must not keep them all."""
    reader, idler = await node.connect(), await node.connect()
    written: list[list[bytes | memoryview]] = [[], []]
    for connection, own in zip(node.connections[-2:], written, strict=True):
        connection._write = own.append  # type: ignore[method-assign]
    slow_disk.hold()
    await reader.send(transfer_frame(0))
    await slow_disk.busy()
    await reader.send(transfer_frame(1, 1000))
    await idler.send(transfer_frame(2))
    await until(lambda: node.reactor.collecting.command_count == 1001)
    slow_disk.release()
    await until(lambda: len(written[0]) == 2 and len(written[1]) == 1)
    assert [type(replies) for replies in (written[0][1], written[1][0])] == [memoryview, bytes]


# Bytes in flight.


async def test_a_connection_has_only_so_much_in_flight(node: Node, slow_disk: SlowDisk, limits) -> None:
    limits(CONNECTION_BYTES_IN_FLIGHT_MAX=2000)
    client, other = await node.connect(), await node.connect()
    slow_disk.hold()
    client.write(*(transfer_frame(number) for number in range(30_000)))
    await slow_disk.busy()
    await other.send(encode_frame(Operation.PING, 1))
    await other.reply()
    received = node.reactor.counters.bytes_in
    await other.send(encode_frame(Operation.PING, 1))
    await other.reply()
    # It reads no further than the piece that took it over its limit.
    assert node.reactor.bytes_in_flight <= 2000 + inbox.RECEIVE_BUFFER_SIZE
    assert node.reactor.counters.bytes_in == received + FRAME_HEADER_SIZE
    slow_disk.release()
    assert [reply.request_id for reply in await client.replies(30_000)] == list(range(30_000))


async def test_requests_that_are_costly_to_answer_wait_their_turn(node: Node, slow_disk: SlowDisk, limits) -> None:
    client, other = await node.connect(), await node.connect()
    slow_disk.hold()
    await other.send(transfer_frame(1))
    await slow_disk.busy()
    client.write(encode_frame(Operation.LIST_ACCOUNTS, 1, LIST_ALL) * 5000)
    await until(lambda: node.clients.receive_buffer.held_bytes > 0)
    assert node.reactor.bytes_in_flight == 160 + 4 * (32 + len(LIST_ALL))
    slow_disk.release()
    async with served(node):
        await client.replies(5000)
    assert (await other.reply()).codes == [COMMITTED]


@pytest.mark.parametrize("operation", [Operation.PING, Operation.STATISTICS, 99])
async def test_a_flood_of_small_requests_does_not_hold_the_loop_up(
    node: Node, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    """Only so many are handled in one step; a step that took all that arrive in one piece would take half a second."""
    steps: list[int] = []
    scan, handle = Connection._scan, Connection._handle

    def counted_scan(connection: Connection, unread: Unread) -> None:
        steps.append(0)
        scan(connection, unread)

    def counted_handle(connection: Connection, frame: memoryview, status: int) -> None:
        steps[-1] += 1
        handle(connection, frame, status)

    monkeypatch.setattr(Connection, "_scan", counted_scan)
    monkeypatch.setattr(Connection, "_handle", counted_handle)
    client = await node.connect()
    client.write(encode_frame(operation, 1) * 20_000)
    async with served(node):
        await client.replies(20_000)
    assert max(steps) == FRAMES_PER_STEP_MAX


@pytest.mark.parametrize(("own", "total"), [(1, 1), (500, 100), (100, 5000), (1 << 30, 200)])
async def test_limits_that_one_frame_exceeds_still_let_everybody_on(node: Node, limits, own: int, total: int) -> None:
    limits(CONNECTION_BYTES_IN_FLIGHT_MAX=own, TOTAL_BYTES_IN_FLIGHT_MAX=total)
    clients = [await node.connect() for _ in range(10)]
    for number, client in enumerate(clients):
        client.write(*(transfer_frame(100 * number + turn, 1 + turn % 3) for turn in range(50)))
    for number, client in enumerate(clients):
        assert [reply.request_id for reply in await client.replies(50)] == [100 * number + turn for turn in range(50)]
    assert node.reactor.bytes_in_flight == 0


# Buffers.


async def test_idle_connections_hold_no_buffers(node: Node) -> None:
    count = 2000
    gc.collect()
    clients = []
    for _ in range(0, count, 100):
        clients += await asyncio.gather(*(node.connect() for _ in range(100)))
    for client in clients[::50]:
        await client.ask(Operation.PING, bytes(5000))
        await client.execute(transfers(1, id(client)))
    assert node.clients.receive_buffer.held_bytes == 0
    assert (await clients[7].statistics()).connections >= count
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await asyncio.gather(*(client.ask(Operation.PING, b"awake") for client in clients[:200]))
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 200 * 4096
    for client in clients:
        client.abort()
    await until(lambda: node.reactor.counters.connections == 0)


def large_frame(request_id: int) -> bytes:
    return transfer_frame(request_id, 1000)


async def send_piece(node: Node, client: Client, piece: bytes) -> None:
    """Send some bytes and return when the node has them."""
    received = node.reactor.counters.bytes_in + len(piece)
    await client.send(piece)
    await until(lambda: node.reactor.counters.bytes_in == received)


async def test_more_large_frames_than_there_are_buffers_for(node: Node, limits) -> None:
    """Whoever finds no buffer is told so, with the request's id, and goes on; the others notice nothing."""
    frames = [large_frame(number) for number in range(5)]
    limits(OWN_BUFFERS_BYTES_MAX=2 * len(frames[0]) + 100)
    clients = [await node.connect() for _ in range(5)]
    for client, frame in zip(clients, frames, strict=True):
        await send_piece(node, client, frame[:1000])
    assert node.clients.receive_buffer.held_bytes == 2 * len(frames[0])
    async with served(node):
        for start in range(1000, len(frames[0]), 9999):
            for client, frame in zip(clients, frames, strict=True):
                await client.send(frame[start : start + 9999])
        for number, client in enumerate(clients):
            reply = await client.reply()
            assert reply.request_id == number
            if number < 2:
                assert len(reply.results) == 1000
            else:
                assert reply.error.code == FrameError.OVERLOADED
    assert node.clients.receive_buffer.held_bytes == 0
    for number in (2, 3, 4):
        await clients[number].send(frames[number])
        assert not (await clients[number].reply()).results["flags"].any()  # the first attempt was not executed


async def test_a_large_frame_that_finds_no_buffer_and_is_damaged(node: Node, client: Client, limits) -> None:
    limits(OWN_BUFFERS_BYTES_MAX=1000)
    frame = bytearray(large_frame(1))
    frame[-1] ^= 1
    await send_piece(node, client, bytes(frame[:50]))
    await client.send(bytes(frame[50:]), transfer_frame(2))
    [refusal] = await client.rest()
    assert (refusal.request_id, refusal.error.code) == (0, FrameError.CHECKSUM_WRONG)


async def test_frames_behind_one_that_found_no_buffer(node: Node, client: Client, limits) -> None:
    limits(OWN_BUFFERS_BYTES_MAX=1000)
    await send_piece(node, client, large_frame(1)[:40])
    await client.send(large_frame(1)[40:] + transfer_frame(2) + encode_frame(Operation.PING, 3))
    assert {reply.request_id for reply in await client.replies(3)} == {1, 2, 3}


async def test_a_large_frame_that_does_not_arrive_gives_its_buffer_back(node: Node, limits) -> None:
    limits(LARGE_FRAME_S_MAX=0.2)
    client, other = await node.connect(), await node.connect()
    await client.send(large_frame(1)[:70_000])
    await until(lambda: node.clients.receive_buffer.held_bytes > 0)
    await other.send(large_frame(2)[:70_000])
    await other.send(large_frame(2)[70_000:])
    assert len((await other.reply()).results) == 1000
    assert await client.rest() == []
    assert node.clients.receive_buffer.held_bytes == 0
    await asyncio.sleep(0.25)
    assert (await other.ask(Operation.PING)).operation == Operation.PING  # its frame came in time


@pytest.mark.parametrize("sent", [1, 31, 32, 100, 70_000])
async def test_a_client_that_goes_in_the_middle_of_a_frame(node: Node, sent: int) -> None:
    client = await node.connect()
    await send_piece(node, client, large_frame(1)[:sent])
    client.abort()
    await until(lambda: node.reactor.counters.connections == 0)
    assert node.clients.receive_buffer.held_bytes == 0


async def test_frames_that_wait_for_a_batch_are_copied_once(start_node: StartNode, slow_disk: SlowDisk) -> None:
    """With all batches full, what has arrived waits; it is neither copied again at each attempt nor without a bound."""
    node = await start_node(LARGE_SETTINGS)
    clients = [await node.connect() for _ in range(16)]
    slow_disk.hold()
    for number, client in enumerate(clients):
        client.writer.transport.set_write_buffer_limits(high=1 << 30)
        client.write(*(transfer_frame(10 * number + turn, BATCH_COUNT_MAX) for turn in range(2)))
    await slow_disk.busy()
    await until(lambda: any(connection._inbox.has_kept for connection in node.connections))
    slow_disk.release()
    positions = []
    for number, client in enumerate(clients):
        replies = await client.replies(2)
        assert [reply.request_id for reply in replies] == [10 * number, 10 * number + 1]
        positions += [position for reply in replies for position in reply.results["position"].tolist()]
    assert len(set(positions)) == 16 * 2 * BATCH_COUNT_MAX
    assert node.clients.receive_buffer.held_bytes == 0


async def test_reads_become_small_when_much_is_held(node: Node, client: Client, limits) -> None:
    limits(OWN_BUFFERS_BYTES_MAX=10_000, READ_SIZE_MIN=64)
    other = await node.connect()
    inbox_of_client = node.connections[1]._inbox
    assert len(inbox_of_client.space()) == 10_000
    node.clients.receive_buffer.held_bytes += 20_000
    try:
        assert len(inbox_of_client.space()) == 64
        assert not (await other.execute(transfers(3, 1)))["code"].any()
        assert (await client.ask(Operation.PING, bytes(500))).body == bytes(500)
    finally:
        node.clients.receive_buffer.held_bytes -= 20_000
