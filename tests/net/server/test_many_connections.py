"""Claim: ten thousand connections that do nothing cost a real node some memory each, and nobody else any time.

So do as many that have begun a frame and stay silent; and one connection more than there may be is told so, or closed,
while those that are there go on.
"""

import asyncio
import math
import os
import resource
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bezant.net.server.open_connections import FILES_RESERVED
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import FrameError, FrameReader, Operation
from bezant.protocol.messages import ErrorMessage, decode_message

from .books import COMMITTED, NAMES, opening, transfer_frame, transfers
from .node import HELLO, WAIT_S, Client
from .process import NodeProcess, running

IDLE_COUNT = 10_000
CONNECTIONS_PER_TURN = 400
"""So few that the system's queue of those that wait to be accepted never overflows."""
CONNECTION_BYTES_MAX = 4096
"""Memory of the node that an idle connection may cost, and one with the start of a short frame as well."""
ROUNDS, ROUNDS_MAX, TRANSFERS_PER_ROUND = 3, 60, 150
"""So many rounds, of which the best counts, and more while what else this machine does makes all of them slow."""
SLOWER_FACTOR_MAX, SLOWER_S_MAX = 2.0, 0.005
"""How much longer a transfer may take beside idle connections; generous, because machines that test are busy."""
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection without leaving its port in use for a minute."""


@pytest.fixture
def files() -> Iterator[None]:
    """Lets this process open as many files as the system allows, if those are enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE_COUNT + FILES_RESERVED + 100
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may open {hard} files here (RLIMIT_NOFILE); this test needs {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is one, so that what is measured is not the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


class Crowd:
    """Connections that send what they are given and nothing else."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.sockets: list[socket.socket] = []

    async def grow(self, count: int, said: bytes, watch: Client) -> None:
        """Add so many, each with the same first words, and return when the node has them all."""
        for start in range(0, count, CONNECTIONS_PER_TURN):
            size = min(CONNECTIONS_PER_TURN, count - start)
            for _ in range(size):
                added = socket.create_connection(self._node.address, WAIT_S)
                added.sendall(said)
                self.sockets.append(added)
            await connected(watch, len(self.sockets) + len(self._node.connected))

    def say(self, more: bytes) -> None:
        for one in self.sockets:
            one.sendall(more)

    def leave(self) -> None:
        while self.sockets:
            one = self.sockets.pop()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            one.close()


async def connected(watch: Client, count: int) -> None:
    """Return when the node counts so many connections."""
    async with asyncio.timeout(WAIT_S):
        while (await watch.statistics()).connections != count:
            await asyncio.sleep(0.005)


async def transfer_s_p99(client: Client, first_id: int, enough_s: float = math.inf) -> float:
    """Seconds that a transfer takes, 99th percentile, of the best of some rounds; of more while that is above this."""
    rounds: list[float] = []
    while len(rounds) < ROUNDS or (min(rounds) >= enough_s and len(rounds) < ROUNDS_MAX):
        turn, taken = len(rounds), []
        for number in range(TRANSFERS_PER_ROUND):
            started = time.perf_counter()
            results = await client.execute(transfers(1, first_id + turn * TRANSFERS_PER_ROUND + number))
            taken.append(time.perf_counter() - started)
            assert results["code"].tolist() == [COMMITTED]
        rounds.append(float(np.percentile(taken, 99)))
    return min(rounds)


async def open_books(node: NodeProcess) -> Client:
    client = await node.connect()
    assert not (await client.execute(opening(*NAMES)))["code"].any()
    return client


async def test_ten_thousand_idle_connections_and_as_many_half_sent_frames(quick_path: Path, files: None) -> None:
    async with running(quick_path / "data") as node:
        client = await open_books(node)
        alone_s = await transfer_s_p99(client, 1)
        resident_bytes = node.resident_bytes
        crowd = Crowd(node)
        await crowd.grow(IDLE_COUNT, HELLO, client)
        enough_s = SLOWER_FACTOR_MAX * alone_s + SLOWER_S_MAX
        beside_idle_s = await transfer_s_p99(client, 10_000, enough_s)
        idle_bytes = node.resident_bytes - resident_bytes
        # Not enough for a header in half of them, not enough for the body in the other half.
        half = len(crowd.sockets) // 2
        frame = transfer_frame(1, 3)
        for number, one in enumerate(crowd.sockets):
            one.sendall(frame[: 20 if number < half else 100])
        beside_half_sent_s = await transfer_s_p99(client, 20_000, enough_s)
        half_sent_bytes = node.resident_bytes - resident_bytes
        print(f"p99 of a transfer: {1e3 * alone_s:.2f} ms alone, {1e3 * beside_idle_s:.2f} ms beside idle connections")
        print(f"and {1e3 * beside_half_sent_s:.2f} ms beside half-sent frames; memory of one connection:")
        print(f"{idle_bytes / IDLE_COUNT:.0f} bytes idle, {half_sent_bytes / IDLE_COUNT:.0f} with a half-sent frame")
        for slower_s in (beside_idle_s, beside_half_sent_s):
            assert slower_s < enough_s
        assert idle_bytes < IDLE_COUNT * CONNECTION_BYTES_MAX
        assert half_sent_bytes < IDLE_COUNT * CONNECTION_BYTES_MAX
        # They were not forgotten: whoever sends the rest is answered.
        last = crowd.sockets[-1]
        last.sendall(frame[100:])
        reader, arrived = FrameReader(), []
        while len(arrived) < 2:
            arrived += [(header.operation, bytes(body)) for header, body in reader.feed(last.recv(4096))]
        assert [operation for operation, _ in arrived] == [Operation.HELLO, Operation.COMMANDS]
        crowd.leave()
        await connected(client, 1)
        # Memory is used again: coming a second time costs next to nothing more.
        most_bytes = node.resident_bytes - resident_bytes
        await crowd.grow(IDLE_COUNT, HELLO, client)
        assert node.resident_bytes - resident_bytes < most_bytes + IDLE_COUNT * CONNECTION_BYTES_MAX // 4
        crowd.leave()
        await connected(client, 1)


def last_words(one: socket.socket) -> int | None:
    """The code that the node has ended a connection with, or None if it did so without a word."""
    reader, found = FrameReader(), None
    try:
        while data := one.recv(4096):
            for header, body in reader.feed(data):
                assert header.operation == Operation.ERROR
                found = decode_message(bytes(body), ErrorMessage).code
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("files_max", [300, 400])
async def test_no_more_connections_than_the_system_has_files_for(tmp_path: Path, files_max: int) -> None:
    """However many more come at once, those that are there are served, also with new files of the log."""
    limited = ("sh", "-c", f'ulimit -n {files_max}; exec "$@"', "sh")
    room = files_max - FILES_RESERVED
    async with running(tmp_path / "data", options=("--segment-size-mib", "1"), within=limited) as node:
        client = await open_books(node)
        crowd, refused = Crowd(node), Crowd(node)
        await crowd.grow(room - 1, HELLO, client)
        for turn in range(5):
            for _ in range(CONNECTIONS_PER_TURN):
                one = socket.create_connection(node.address, WAIT_S)
                one.sendall(HELLO)
                refused.sockets.append(one)
            # Half a segment of events each time.
            results = await client.execute(transfers(2700, 1 + turn * 2700))
            assert set(results["code"].tolist()) == {COMMITTED}
        codes = [last_words(one) for one in refused.sockets]
        assert set(codes) <= {FrameError.OVERLOADED, None}
        assert codes.count(FrameError.OVERLOADED) > len(codes) // 2
        refused.leave()
        await connected(client, room)
        crowd.say(transfer_frame(1, first_id=1))
        for one in crowd.sockets:
            reader, arrived = FrameReader(), []
            while len(arrived) < 2:
                arrived += [header.operation for header, _ in reader.feed(one.recv(4096))]
            assert arrived == [Operation.HELLO, Operation.COMMANDS]
        crowd.sockets.pop().close()
        await connected(client, room - 1)
        assert (await (await node.connect()).execute(transfers(1, 1)))["code"].tolist() == [ResultCode.COMMITTED]
        crowd.leave()
