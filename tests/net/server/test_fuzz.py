"""Claim: no bytes that a client can send bring the node down, reach another client, or unbalance the books.

Seeded, and aware of the structure: whole conversations of good frames are flipped, cut, spliced, repeated and given
wrong but well-sealed fields, so that the damage gets past the checksum. Meanwhile a well-behaved client makes transfers
on a connection of its own and must get exactly what is due to it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import FRAME_HEADER_SIZE, Operation, encode_frame, frame_checksum
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import Currency, Hello, ListAccounts, encode_message
from bezant.protocol.names import account_id
from bezant.protocol.records import ACCOUNT, COMMAND_SIZE, id_bytes

from .books import COMMITTED, CURRENCY, opening, transfers
from .conftest import StartNode
from .node import HELLO, LARGE_SETTINGS, Client, Node, until

SEEDS = range(6)
CASES_PER_SEED = 1000
QUIET_ACCOUNTS = ("quiet-1", "quiet-2")
"""Only the well-behaved client knows them; what they hold must be what it moved."""


def good_frames(chance: random.Random) -> list[bytes]:
    """A few requests such as a client might send, of every kind."""
    return [_good_frame(chance, chance.getrandbits(64)) for _ in range(chance.randint(1, 6))]


def _good_frame(chance: random.Random, request_id: int) -> bytes:
    operation = chance.choice([*REQUESTS, *[Operation.COMMANDS] * 4])
    timeout_ms = chance.choice([0, 0, 1, 5000, (1 << 32) - 1])
    return encode_frame(operation, request_id, REQUESTS[operation](chance), timeout_ms=timeout_ms)


def _commands(chance: random.Random) -> bytes:
    commands = transfers(
        chance.choice([1, 1, 1, 2, 5, 40, 700]),
        chance.getrandbits(40),
        amount=chance.choice([1, 100, -5, (1 << 63) - 1]),
    )
    commands["kind"] = chance.choice([CommandKind.TRANSFER] * 6 + [int(kind) for kind in CommandKind] + [0, 99])
    commands["flags"] = chance.choice([0] * 6 + [1, 2, 4, 7, -1])
    return commands.tobytes()


def _account(chance: random.Random) -> bytes:
    return account_id(chance.choice(["ann", "bob", "nobody"]), CURRENCY)


def _list(chance: random.Random) -> bytes:
    return encode_message(ListAccounts(chance.choice([0, 2, 1 << 60]), chance.choice([0, 3, 1 << 20])))


def _currency(chance: random.Random) -> bytes:
    code = chance.choice(["EUR", "XXX", "eur", "", "F1", "A" * 300])
    return encode_message(Currency(code, chance.choice([0, 2, 19, -1])))


def _nothing(_: random.Random) -> bytes:
    return b""


REQUESTS: dict[Operation, Callable[[random.Random], bytes]] = {
    Operation.PING: lambda chance: chance.randbytes(chance.choice([0, 1, 200, 5000])),
    Operation.COMMANDS: _commands,
    Operation.LOOKUP_ACCOUNTS: lambda chance: _account(chance) * chance.choice([0, 1, 50]),
    Operation.LOOKUP_EVENTS: lambda chance: (bytes(16) + _account(chance)) * chance.choice([0, 1, 9]),
    Operation.LIST_ACCOUNTS: _list,
    Operation.LIST_CURRENCIES: _nothing,
    Operation.REGISTER_CURRENCY: _currency,
    Operation.STATISTICS: _nothing,
}


def reseal(frame: bytes) -> bytes:
    """Make the length and the checksum of a frame right again, so that what else is wrong is looked at."""
    changed = bytearray(frame.ljust(FRAME_HEADER_SIZE, b"\0"))
    changed[8:12] = len(changed).to_bytes(4, "little")
    changed[:8] = frame_checksum(changed).to_bytes(8, "little")
    return bytes(changed)


# Mutations of one conversation: frames in, bytes out.


def flip(chance: random.Random, frames: list[bytes]) -> bytes:
    stream = bytearray(b"".join(frames))
    for _ in range(chance.choice([1, 1, 2, 10])):
        stream[chance.randrange(len(stream))] ^= 1 << chance.randrange(8)
    return bytes(stream)


def flip_and_reseal(chance: random.Random, frames: list[bytes]) -> bytes:
    number = chance.randrange(len(frames))
    changed = bytearray(frames[number])
    for _ in range(chance.choice([1, 1, 3])):
        changed[chance.randrange(8, len(changed))] ^= 1 << chance.randrange(8)
    return b"".join([*frames[:number], reseal(bytes(changed)), *frames[number + 1 :]])


def rewrite_a_field(chance: random.Random, frames: list[bytes]) -> bytes:
    """Put a boundary value into a field of the header or of a record, sealed as it should be."""
    number = chance.randrange(len(frames))
    changed = bytearray(frames[number])
    size = chance.choice([1, 2, 4, 8])
    value = chance.choice([0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1])
    offset = chance.randrange(8, len(changed) - size + 1)
    changed[offset : offset + size] = value.to_bytes(size, "little")
    if chance.random() < 0.8:
        changed[:8] = frame_checksum(changed).to_bytes(8, "little")
    return b"".join([*frames[:number], bytes(changed), *frames[number + 1 :]])


def truncate(chance: random.Random, frames: list[bytes]) -> bytes:
    stream = b"".join(frames)
    return stream[: chance.randrange(len(stream))]


def truncate_and_reseal(chance: random.Random, frames: list[bytes]) -> bytes:
    return b"".join(reseal(frame[: chance.randrange(FRAME_HEADER_SIZE, len(frame) + 1)]) for frame in frames)


def splice(chance: random.Random, frames: list[bytes]) -> bytes:
    first, second = b"".join(frames), b"".join(good_frames(chance))
    return first[: chance.randrange(len(first))] + second[chance.randrange(len(second)) :]


def drop_a_piece(chance: random.Random, frames: list[bytes]) -> bytes:
    stream = b"".join(frames)
    start, end = sorted(chance.choices(range(len(stream)), k=2))
    return stream[:start] + stream[end:]


def repeat(chance: random.Random, frames: list[bytes]) -> bytes:
    return b"".join(frame * chance.choice([1, 1, 2, 30]) for frame in frames)


def shuffle_operations(chance: random.Random, frames: list[bytes]) -> bytes:
    """Bodies of one operation under the number of another."""
    bodies = [frame[FRAME_HEADER_SIZE:] for frame in frames]
    return b"".join(encode_frame(chance.choice([*Operation, 0, 10, 200]), 5, body) for body in bodies)


def leave_alone(chance: random.Random, frames: list[bytes]) -> bytes:
    return b"".join(frames)


def noise(chance: random.Random, frames: list[bytes]) -> bytes:
    return chance.randbytes(chance.choice([1, 31, 32, 33, 500, 70_000]))


def sealed_noise(chance: random.Random, frames: list[bytes]) -> bytes:
    body = chance.randbytes(chance.choice([0, 16, COMMAND_SIZE, 3 * COMMAND_SIZE, 1000]))
    return encode_frame(chance.choice(list(Operation)), chance.getrandbits(64), body)


MUTATIONS: list[Callable[[random.Random, list[bytes]], bytes]] = [
    flip,
    flip_and_reseal,
    rewrite_a_field,
    truncate,
    truncate_and_reseal,
    splice,
    drop_a_piece,
    repeat,
    shuffle_operations,
    leave_alone,
    noise,
    sealed_noise,
]


async def attack(node: Node, chance: random.Random) -> None:
    """One connection: perhaps a greeting, then a mutated conversation in pieces, then one of several ends."""
    greet = chance.random() < 0.9
    stream = chance.choice(MUTATIONS)(chance, good_frames(chance))
    if greet:
        stream = HELLO + stream
    elif chance.random() < 0.3:
        stream = reseal(encode_frame(Operation.HELLO, 1, encode_message(Hello("x", chance.choice([0, 2])))) + stream)
    client = await node.connect(greet=False)
    try:
        while stream:
            size = chance.choice([len(stream), len(stream), 1, 40, 3000])
            await client.send(stream[:size])
            stream = stream[size:]
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        if chance.random() < 0.3:
            client.abort()
            return
        client.writer.write_eof()
        # What the node sends is well-formed even then, and it does close.
        await client.rest()
    except (ConnectionError, RuntimeError):
        pass  # the node has closed while this was still sending
    finally:
        client.abort()
        node.connected.remove(client)


@asynccontextmanager
async def well_behaved(node: Node) -> AsyncIterator[None]:
    """Meanwhile a client moves money between accounts of its own, and looks after each transfer what they hold."""
    client = await node.connect()
    await client.execute(opening(*QUIET_ACCOUNTS))
    ids = b"".join(account_id(name, CURRENCY) for name in QUIET_ACCOUNTS)
    stopping = asyncio.Event()

    async def work() -> int:
        number = 0
        while not stopping.is_set():
            number += 1
            commands = transfers(1 + number % 3, (1 << 55) + 10 * number, *QUIET_ACCOUNTS, amount=number)
            results = await client.execute(commands, request_id=number)
            assert results["code"].tolist() == [COMMITTED] * len(commands)
            assert not results["flags"].any()
            accounts = np.frombuffer((await client.ask(Operation.LOOKUP_ACCOUNTS, ids, number)).body, ACCOUNT)
            assert accounts["balance"].tolist() == [results["debit_balance"][-1], results["credit_balance"][-1]]
            assert accounts["balance"].sum() == 0
        return number

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        stopping.set()
        assert await task > 20
        client.abort()


def assert_books_balance(node: Node) -> None:
    node.replica.ledger.check_invariants()
    records = node.replica.ledger.list_accounts(0, 1 << 20)
    assert sum(int(balance) for balance in records["balance"]) == 0
    quiet = [row["balance"] for row in records if id_bytes(row["id_head"], row["id_tail"]) in _quiet_ids()]
    assert len(quiet) == 2
    assert sum(int(balance) for balance in quiet) == 0


def _quiet_ids() -> set[bytes]:
    return {account_id(name, CURRENCY) for name in QUIET_ACCOUNTS}


@pytest.mark.parametrize("seed", SEEDS)
async def test_mutated_conversations(start_node: StartNode, seed: int) -> None:
    """Several at a time, so that they also meet one another in the same batches."""
    node = await start_node(LARGE_SETTINGS)
    async with well_behaved(node):
        for first in range(0, CASES_PER_SEED, 10):
            await asyncio.gather(
                *(attack(node, random.Random(seed * CASES_PER_SEED + first + number)) for number in range(10))
            )
    await until(lambda: node.reactor.counters.connections == 0)
    await until(lambda: node.reactor.bytes_in_flight == 0)
    assert node.clients.receive_buffer.held_bytes == 0
    assert_books_balance(node)


@pytest.mark.parametrize("seed", range(2))
async def test_mutated_conversations_with_tiny_limits(start_node: StartNode, limits, seed: int) -> None:
    """The ways of waiting are taken at every turn."""
    node = await start_node(LARGE_SETTINGS)
    limits(
        CONNECTION_BYTES_IN_FLIGHT_MAX=300,
        TOTAL_BYTES_IN_FLIGHT_MAX=2000,
        START_SIZE_MAX=600,  # what is larger may find no buffer and be refused; no frame of the good client is
        OWN_BUFFERS_BYTES_MAX=20_000,
        READ_SIZE_MIN=50,
        FRAMES_PER_STEP_MAX=1,
        STEP_S_MAX=0.0,
        WRITE_BUFFER_BYTES_MAX=500,
    )
    async with well_behaved(node):
        for first in range(0, 200, 10):
            await asyncio.gather(
                *(attack(node, random.Random(1 << 30 | seed << 20 | first + number)) for number in range(10))
            )
    await until(lambda: node.reactor.counters.connections == 0)
    assert_books_balance(node)


async def test_no_reply_was_ever_malformed() -> None:
    """`Client` checks every frame that it receives; here, that it would notice."""
    client = Client(asyncio.StreamReader(), None)  # type: ignore[arg-type]
    client.reader.feed_data(flip(random.Random(1), [encode_frame(Operation.PING, 1, b"x", flags=1)]))
    with pytest.raises(RemoteProtocolError):
        await client.reply()
