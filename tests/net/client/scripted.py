"""A node to test the client against: real loopback sockets, scripted answers, no ledger.

It records every request and answers by default as a node would (all commands are committed); a test replaces the
handlers of single operations to split, delay, drop, refuse or withhold answers.
"""

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import (
    BATCH_COUNT_MAX,
    FRAME_SIZE_MAX,
    PROTOCOL_VERSION,
    FrameFlag,
    FrameHeader,
    FrameReader,
    Operation,
    encode_frame,
)
from bezant.protocol.messages import Currencies, Currency, ErrorMessage, Welcome, encode_message
from bezant.protocol.records import ACCOUNT, COMMAND, COMMAND_SIZE, EVENT_ANSWER, RESULT, Records
from bezant.protocol.statistics import Statistics

WAIT_S = 10.0

WELCOME = Welcome(
    server="scripted",
    protocol_version=PROTOCOL_VERSION,
    log_id="00000000000000a1",
    shard=0,
    rules_version=1,
    kernel_digest="none",
    frame_size_max=FRAME_SIZE_MAX,
    batch_count_max=BATCH_COUNT_MAX,
    connection_bytes_in_flight_max=4 * FRAME_SIZE_MAX,
    clock_ns=0,
)

STATISTICS = Statistics(
    uptime_s=1.5,
    connections=1,
    commands=0,
    events=0,
    accounts=0,
    entries=0,
    syncs=0,
    syncs_inline=0,
    bytes_in=0,
    bytes_out=0,
    log_bytes=0,
    durable_index=0,
    durable_sequence=0,
    bytes_in_flight=0,
)


@dataclass
class Seen:
    """A request that arrived."""

    peer: "Peer"
    header: FrameHeader
    body: bytes

    @property
    def commands(self) -> Records:
        return np.frombuffer(self.body, COMMAND)


Handler = Callable[[Seen], Awaitable[None]]


class Stopwatch:
    """How long something takes, as a context: by the clock, and without what is taken from this process in one piece.

    A machine that does something else for a second makes nothing late that this process does.
    """

    _TURN_S = 0.01

    async def __aenter__(self) -> "Stopwatch":
        self._begun_s, self._counted_s = time.monotonic(), 0.0
        self._counting = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counting.cancel()
        await asyncio.wait([self._counting])

    async def _count(self) -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(self._TURN_S)
            self._counted_s += min(time.monotonic() - before_s, 2 * self._TURN_S)

    @property
    def elapsed_s(self) -> float:
        """Seconds that have passed."""
        return time.monotonic() - self._begun_s

    @property
    def counted_s(self) -> float:
        """Those of them in which this process could do something."""
        return self._counted_s


async def say_nothing(seen: Seen) -> None:
    """A handler for requests that are never answered."""


class Peer:
    """The server's side of one connection."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.writer = writer

    def reply_frame(self, seen: Seen, body: bytes, operation: int | None = None) -> bytes:
        operation = seen.header.operation if operation is None else operation
        return encode_frame(operation, seen.header.request_id, body, flags=FrameFlag.REPLY)

    async def reply(self, seen: Seen, body: bytes) -> None:
        await self.send(self.reply_frame(seen, body))

    async def refuse(self, seen: Seen, code: int, message: str = "because", leader: str = "") -> None:
        body = encode_message(ErrorMessage(code=code, message=message, leader=leader))
        await self.send(self.reply_frame(seen, body, Operation.ERROR))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def drop(self) -> None:
        """Reset the connection: what is in the buffers is lost."""
        linger_no_time = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
        self.writer.transport.abort()

    async def hang_up(self) -> None:
        """Close in good order, after what has been written."""
        self.writer.close()


@dataclass
class ScriptedServer:
    """See the module. While `reading` is clear it takes no more bytes off the connections than it has asked for."""

    welcome: Welcome = WELCOME
    currencies: dict[str, int] = field(default_factory=lambda: {"EUR": 2, "JPY": 0, "BTC": 8})
    handlers: dict[int, Handler] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    accounts: Records = field(default_factory=lambda: np.zeros(0, ACCOUNT))
    event_answer: Records = field(default_factory=lambda: np.zeros(1, EVENT_ANSWER))
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    def __post_init__(self) -> None:
        self.reading.set()
        self._changed = asyncio.Event()
        self._sequence = itertools.count(1)
        self._server: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def frames(self, operation: int) -> list[Seen]:
        return [seen for seen in self.seen if seen.header.operation == operation]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop everybody; `start` opens the same port again."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in self.peers:
            peer.writer.transport.abort()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is looked at whenever a connection or a request arrives."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def wait_for(self, operation: int, count: int = 1) -> list[Seen]:
        """Return the requests of an operation once there are so many."""
        await self.wait_until(lambda: len(self.frames(operation)) >= count)
        return self.frames(operation)

    def results(self, count: int) -> Records:
        """Make RESULT rows of committed commands."""
        results = np.zeros(count, RESULT)
        for row in results:
            sequence = next(self._sequence)
            row["position"] = sequence
            row["timestamp_ns"] = 1_000_000 + sequence
        return results

    async def answer(self, seen: Seen) -> None:
        """Answer as a node would that commits everything."""
        match seen.header.operation:
            case Operation.HELLO:
                body = encode_message(self.welcome)
            case Operation.PING:
                body = seen.body
            case Operation.COMMANDS:
                results = self.results(len(seen.body) // COMMAND_SIZE)
                results["effective_amount"] = seen.commands["amount"]
                body = results.tobytes()
            case Operation.LOOKUP_ACCOUNTS:
                body = self._look_up(seen.body).tobytes()
            case Operation.LIST_ACCOUNTS:
                asked = msgspec.msgpack.decode(seen.body)
                body = self.accounts[asked["cursor"] :][: asked["count"]].tobytes()
            case Operation.LOOKUP_EVENTS:
                body = self.event_answer.tobytes()
            case Operation.REGISTER_CURRENCY:
                currency = msgspec.msgpack.decode(seen.body, type=Currency)
                self.currencies[currency.code] = currency.decimals
                body = self._currencies()
            case Operation.LIST_CURRENCIES:
                body = self._currencies()
            case Operation.STATISTICS:
                body = encode_message(STATISTICS)
            case other:
                raise AssertionError(f"the client asked for operation {other}")
        await seen.peer.reply(seen, body)

    def _look_up(self, body: bytes) -> Records:
        ids = np.frombuffer(body, [("head", "<i8"), ("tail", "<i8")])
        answer = np.zeros(len(ids), ACCOUNT)
        for row, identifier in enumerate(ids):
            found = (self.accounts["id_head"] == identifier["head"]) & (self.accounts["id_tail"] == identifier["tail"])
            if found.any():
                answer[row] = self.accounts[found][0]
        return answer

    def _currencies(self) -> bytes:
        return encode_message(Currencies([Currency(code, decimals) for code, decimals in self.currencies.items()]))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(len(self.peers), writer)
        self.peers.append(peer)
        self._changed.set()
        frames = FrameReader()
        try:
            while True:
                await self.reading.wait()
                data = await reader.read(1 << 16)
                if not data:
                    return
                for header, body in frames.feed(data):
                    seen = Seen(peer, header, bytes(body))
                    self.seen.append(seen)
                    self._changed.set()
                    await self.handlers.get(header.operation, self.answer)(seen)
        except (OSError, RemoteProtocolError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)
