"""Claim: however frames are cut and joined on the way, each is answered once, rightly and in order."""

import itertools
import random

import numpy as np
import pytest

from bezant.net.server import inbox
from bezant.protocol.frames import BATCH_COUNT_MAX, FRAME_HEADER_SIZE, FRAME_SIZE_MAX, Operation, encode_frame
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND_SIZE

from .books import COMMITTED, CURRENCY, transfer_frame
from .node import Client, Node, until

ANN = account_id("ann", CURRENCY)


def check_results(results: np.ndarray, count: int, position_before: int) -> int:
    """All are new, committed and numbered on without a gap; returns the last position."""
    assert results["code"].tolist() == [COMMITTED] * count
    assert not results["flags"].any()
    assert results["position"].tolist() == list(range(position_before + 1, position_before + 1 + count))
    return position_before + count


async def test_frames_cut_in_two_at_every_byte(node: Node, client: Client) -> None:
    numbers = itertools.count(1)
    position = node.replica.ledger.next_sequence - 1

    def stream() -> list[bytes]:
        return [
            transfer_frame(next(numbers)),
            encode_frame(Operation.PING, next(numbers), b"ping"),
            transfer_frame(next(numbers), 2),  # longer than the kernel's own checksum
            encode_frame(Operation.LOOKUP_ACCOUNTS, next(numbers), ANN),
            transfer_frame(next(numbers)),
        ]

    for cut in range(1, sum(map(len, stream()))):
        frames = stream()
        whole = b"".join(frames)
        received = node.reactor.counters.bytes_in + cut
        await client.send(whole[:cut])
        await until(lambda received=received: node.reactor.counters.bytes_in == received)
        await client.send(whole[cut:])
        replies = await client.replies(len(frames))
        commands = [reply for reply in replies if reply.operation == Operation.COMMANDS]
        assert [len(reply.results) for reply in commands] == [1, 2, 1]
        assert [reply.request_id for reply in commands] == sorted(reply.request_id for reply in commands)
        position = check_results(np.concatenate([reply.results for reply in commands]), 4, position)
        assert sorted(reply.operation for reply in replies) == [2, 3, 3, 3, 4]


async def test_a_byte_at_a_time(node: Node, client: Client) -> None:
    frames = [transfer_frame(1), encode_frame(Operation.PING, 2, b"x"), transfer_frame(3, 2)]
    for byte in b"".join(frames):
        received = node.reactor.counters.bytes_in + 1
        await client.send(bytes([byte]))
        await until(lambda received=received: node.reactor.counters.bytes_in == received)
    assert [(reply.request_id, len(reply.body)) for reply in await client.replies(3)] == [(1, 64), (2, 1), (3, 128)]


async def test_many_frames_in_one_piece(large_node: Node) -> None:
    client = await large_node.connect()
    counts = [1 + number % 3 for number in range(2500)]
    position = large_node.replica.ledger.next_sequence - 1
    await client.send(*(transfer_frame(number, count) for number, count in enumerate(counts)))
    for number, count in enumerate(counts):
        reply = await client.reply()
        assert reply.request_id == number
        position = check_results(reply.results, count, position)


async def test_more_commands_than_a_batch_holds(large_node: Node) -> None:
    client = await large_node.connect()
    counts = [BATCH_COUNT_MAX, 1, BATCH_COUNT_MAX, 5000, BATCH_COUNT_MAX, 2, BATCH_COUNT_MAX, 4000, 1]
    position = large_node.replica.ledger.next_sequence - 1
    await client.send(*(transfer_frame(number, count) for number, count in enumerate(counts)))
    for number, count in enumerate(counts):
        reply = await client.reply()
        assert reply.request_id == number
        position = check_results(reply.results, count, position)


async def test_more_commands_than_a_batch_holds_from_many(large_node: Node) -> None:
    clients = [await large_node.connect() for _ in range(12)]
    for number, client in enumerate(clients):
        client.write(*(transfer_frame(20 * number + turn, 4000) for turn in range(2)), transfer_frame(20 * number + 2))
    positions: list[int] = []
    for number, client in enumerate(clients):
        replies = await client.replies(3)
        assert [reply.request_id for reply in replies] == [20 * number, 20 * number + 1, 20 * number + 2]
        own = np.concatenate([reply.results for reply in replies])
        assert not own["code"].any()
        assert (np.diff(own["position"]) > 0).all()
        positions += own["position"].tolist()
    assert len(set(positions)) == 12 * 8001


@pytest.mark.parametrize("seed", range(6))
async def test_large_and_small_frames_in_pieces(large_node: Node, seed: int, limits) -> None:
    """Pieces of any size, around the size from which a frame gets a buffer of its own."""
    chance = random.Random(seed)
    limits(START_SIZE_MAX=4096)
    counts = [chance.choice([1, 2, 31, 32, 33, 700, 2000]) for _ in range(30)]
    stream = b"".join(transfer_frame(number, count) for number, count in enumerate(counts))
    client = await large_node.connect()
    start = 0
    while start < len(stream):
        size = chance.choice([1, 31, 32, 33, 160, 4095, 4096, 4097, 30_000, 200_000])
        piece = stream[start : start + size]
        received = large_node.reactor.counters.bytes_in + len(piece)
        await client.send(piece)
        await until(lambda received=received: large_node.reactor.counters.bytes_in == received)
        start += size
    position = 3
    for number, count in enumerate(counts):
        reply = await client.reply()
        assert reply.request_id == number
        position = check_results(reply.results, count, position)
    assert large_node.clients.receive_buffer.held_bytes == 0


async def test_the_largest_frames(large_node: Node) -> None:
    client = await large_node.connect()
    body = bytes(range(256)) * 4096
    ping = encode_frame(Operation.PING, 1, body[: FRAME_SIZE_MAX - FRAME_HEADER_SIZE])
    commands = transfer_frame(2, BATCH_COUNT_MAX)
    assert (len(ping), len(commands)) == (FRAME_SIZE_MAX, FRAME_HEADER_SIZE + BATCH_COUNT_MAX * COMMAND_SIZE)
    await client.send(ping + commands + transfer_frame(3))
    replies = await client.replies(3)
    assert [reply.request_id for reply in replies] == [1, 2, 3]
    assert replies[0].body == ping[FRAME_HEADER_SIZE:]
    assert len(replies[1].results) == BATCH_COUNT_MAX
    assert inbox.RECEIVE_BUFFER_SIZE == FRAME_SIZE_MAX


async def test_request_ids_are_the_client_s(client: Client) -> None:
    identifiers = [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 7, 7]
    commands = [transfer_frame(1, first_id=100 + number)[FRAME_HEADER_SIZE:] for number in range(len(identifiers))]
    await client.send(
        *(
            encode_frame(Operation.COMMANDS, identifier, body)
            for identifier, body in zip(identifiers, commands, strict=True)
        )
    )
    assert [reply.request_id for reply in await client.replies(len(identifiers))] == identifiers


async def test_replies_go_to_whoever_asked(node: Node) -> None:
    clients = [await node.connect() for _ in range(8)]
    for turn in range(40):
        for number, client in enumerate(clients):
            client.write(transfer_frame(1000 * number + turn, 1 + (turn + number) % 4))
    for number, client in enumerate(clients):
        replies = await client.replies(40)
        assert [reply.request_id for reply in replies] == [1000 * number + turn for turn in range(40)]
        assert [len(reply.results) for reply in replies] == [1 + (turn + number) % 4 for turn in range(40)]


async def test_commands_are_executed_in_the_order_in_which_they_were_sent(node: Node, client: Client, limits) -> None:
    """Also when they have to wait for room in between: each balance builds on the one before."""
    limits(CONNECTION_BYTES_IN_FLIGHT_MAX=1000, TOTAL_BYTES_IN_FLIGHT_MAX=1000)
    frames = []
    for number in range(400):
        frames.append(transfer_frame(number))
        if number % 5 == 0:
            frames.append(encode_frame(Operation.PING, 1 << 40))
    await client.send(*frames)
    balances = []
    while len(balances) < 400:
        reply = await client.reply()
        if reply.operation == Operation.COMMANDS:
            balances += reply.results["credit_balance"].tolist()
    assert balances == list(range(1, 401))
