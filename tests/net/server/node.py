"""A node in the test's own process and event loop, and a client that may do to it whatever a socket can do."""

import asyncio
import math
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bezant.engine.log.group import Group
from bezant.engine.opening import open_member
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings
from bezant.net.server import reactor as reactor_module
from bezant.net.server import syncing
from bezant.net.server.clients import Clients, make_welcome
from bezant.net.server.connection import Connection
from bezant.net.server.reactor import Reactor
from bezant.protocol.frames import FrameFlag, FrameHeader, FrameReader, Operation, encode_frame
from bezant.protocol.messages import ErrorMessage, Hello, decode_message, encode_message
from bezant.protocol.records import RESULT, Records
from bezant.protocol.statistics import Statistics

WAIT_S = 20.0
SETTINGS = ReplicaSettings(segment_size=1 << 20, accounts_max=1 << 10, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)
LARGE_SETTINGS = ReplicaSettings(segment_size=8 << 20, accounts_max=1 << 10, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)
"""For tests that fill a batch, whose events must fit in one segment."""
SYSTEM_BUFFER_SIZE = 64 << 10
"""Bytes that the system keeps for a client that does not read; few, so that tests soon reach the node's own bounds."""


def hello(token: str) -> bytes:
    """The first frame of a client."""
    return encode_frame(Operation.HELLO, 1, encode_message(Hello("test", 1, token)))


HELLO = encode_frame(Operation.HELLO, 1, encode_message(Hello("test", 1)))


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition on the node's inside holds, for which there is no event to wait for."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


class Reply(NamedTuple):
    header: FrameHeader
    body: bytes

    @property
    def request_id(self) -> int:
        return self.header.request_id

    @property
    def operation(self) -> int:
        return self.header.operation

    @property
    def results(self) -> Records:
        assert self.operation == Operation.COMMANDS, self
        return np.frombuffer(self.body, RESULT)

    @property
    def codes(self) -> list[int]:
        return self.results["code"].tolist()

    @property
    def error(self) -> ErrorMessage:
        assert self.operation == Operation.ERROR, self
        return decode_message(self.body, ErrorMessage)


class Client:
    """One connection, without any of the client's code: bytes go out as they are given, replies are checked.

    ``is_placed``: the node's group is one of several, and it says so in the headers of its replies.
    """

    is_placed = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameReader()
        self.arrived: list[Reply] = []

    def write(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def send(self, *frames: bytes) -> None:
        self.write(*frames)
        async with asyncio.timeout(WAIT_S):
            await self.writer.drain()

    async def reply(self) -> Reply:
        """The next reply. Fails if the node closes instead."""
        async with asyncio.timeout(WAIT_S):
            while not self.arrived:
                assert await self._receive(), "the node closed the connection"
        return self.arrived.pop(0)

    async def replies(self, count: int) -> list[Reply]:
        return [await self.reply() for _ in range(count)]

    async def rest(self) -> list[Reply]:
        """Everything that comes until the node closes the connection."""
        async with asyncio.timeout(WAIT_S):
            while await self._receive():
                pass
        arrived, self.arrived = self.arrived, []
        return arrived

    async def ask(self, operation: int, body: bytes = b"", request_id: int = 7) -> Reply:
        """Send one request and return its reply, which must be the next."""
        await self.send(encode_frame(operation, request_id, body))
        reply = await self.reply()
        assert reply.request_id == request_id
        return reply

    async def execute(self, commands: Records, request_id: int = 7) -> Records:
        return (await self.ask(Operation.COMMANDS, commands.tobytes(), request_id)).results

    async def statistics(self) -> Statistics:
        return decode_message((await self.ask(Operation.STATISTICS)).body, Statistics)

    def abort(self) -> None:
        """Drop the connection, as a client that dies does."""
        self.writer.transport.abort()

    async def _receive(self) -> bool:
        data = await self.reader.read(1 << 20)
        for header, body in self.frames.feed(data):
            assert header.flags == FrameFlag.REPLY
            assert header.timeout_ms == 0
            assert self.is_placed or (header.shard, header.map_version) == (0, 0)
            self.arrived.append(Reply(header, bytes(body)))
        return bool(data)


class Node:
    """A reactor behind a listening socket, without a process of its own."""

    def __init__(self, path: Path, settings: ReplicaSettings = SETTINGS, shard: int = 0) -> None:
        self.path = path
        member = open_member(path, settings=settings, shard=shard)
        self.replica = member.replica
        self.reactor = Reactor(member, asyncio.get_running_loop())
        self.clients = Clients(self.reactor, make_welcome(self.reactor, "test", "digest"))
        self.connections: list[Connection] = []
        self.connected: list[Client] = []
        self.port = 0
        self.stopped = False

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SYSTEM_BUFFER_SIZE)
        self.server = await loop.create_server(self._accept, sock=listening)
        self.port = listening.getsockname()[1]

    def _accept(self) -> Connection:
        connection = Connection(self.clients)
        self.connections.append(connection)
        return connection

    async def connect(
        self, *, greet: bool = True, buffer_size: int | None = None, token: str = "", source: str = "127.0.0.1"
    ) -> Client:
        """Connect; with a `buffer_size`, like somebody whose system takes no more bytes than that."""
        connecting = socket.socket()
        connecting.bind((source, 0))
        if buffer_size is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        connecting.connect(("127.0.0.1", self.port))
        client = Client(*await asyncio.open_connection(sock=connecting))
        self.connected.append(client)
        if greet:
            await client.send(hello(token))
            assert (await client.reply()).operation == Operation.HELLO
        return client

    async def stop(self) -> None:
        """Stop it as `serve` does, its clients having gone, and check that nothing is left behind. May be repeated."""
        if self.stopped:
            return
        self.stopped = True
        for client in self.connected:
            client.abort()
        self.server.close()
        async with asyncio.timeout(WAIT_S):
            await self.clients.stop()
            await self.reactor.wait_idle()
        self.replica.ledger.check_invariants()
        assert self.reactor.bytes_in_flight == 0
        assert self.reactor.counters.connections == 0
        assert (self.clients.unsent_bytes, self.clients.receive_buffer.held_bytes) == (0, 0)
        await self.reactor.stop()

    async def abandon(self) -> None:
        """Leave it as it is, for a test that has broken it."""
        self.stopped = True
        for end in (*self.connected, *self.connections):
            end.abort()
        self.server.close()
        await until(lambda: self.reactor.counters.connections == 0)
        self.replica.close()


class SlowDisk:
    """Holds every write of the log back, on the helper thread, until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed = threading.Condition()
        self._permits: float = math.inf
        self.writes = 0
        self._write = syncing.write_or_die
        monkeypatch.setattr(reactor_module, "INLINE_SYNC_BYTES_MAX", -1)
        monkeypatch.setattr(syncing, "write_or_die", self._wait_and_write)

    def _wait_and_write(self, group: Group) -> float:
        with self._changed:
            self.writes += 1
            assert self._changed.wait_for(lambda: self._permits > 0, WAIT_S)
            self._permits -= 1
        return self._write(group)

    async def busy(self, writes: int = 1) -> None:
        """Return when so many writes have begun, counted from the start."""
        await until(lambda: self.writes >= writes)

    def hold(self) -> None:
        self._permit(0)

    def release(self) -> None:
        self._permit(math.inf)

    def release_one(self) -> None:
        self._permit(1)

    def _permit(self, writes: float) -> None:
        with self._changed:
            self._permits = writes
            self._changed.notify_all()
