"""The engine in the caller's own process and event loop: the same wallet, without a node and without a socket.

The reactor is the node's; only the way in differs. A failed sync of the log ends the whole process, as it ends a node:
see the log's README. One process at a time can have a data folder open.
"""

import asyncio
from importlib.metadata import version
from pathlib import Path

from bezant.engine.compiled import kernel_digest
from bezant.engine.log.entry import RULES_VERSION
from bezant.engine.replica import ReplicaSettings, open_replica
from bezant.net.client.channel import OutcomeUnknown, unknown_results
from bezant.net.server.batch import Request
from bezant.net.server.connection import make_welcome
from bezant.net.server.reactor import Reactor
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError, RequestRefused, RequestTimedOut, UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX, FrameError, Operation
from bezant.protocol.messages import Welcome, encode_message
from bezant.protocol.records import Records

TIMEOUT_S_DEFAULT = 30.0


class EngineChannel:
    """A channel (`bezant.net.client.channel.Channel`) to a reactor on the same loop."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest(), RULES_VERSION)
        self._room: list[asyncio.Future[None]] = []
        self._closed = False

    @property
    def welcome(self) -> Welcome:
        """What the engine takes."""
        return self._welcome

    def resume(self) -> None:
        """The reactor has room again."""
        room, self._room = self._room, []
        for future in room:
            if not future.done():
                future.set_result(None)

    async def submit(self, commands: Records, timeout_s: float | None) -> Records:
        """Execute up to BATCH_COUNT_MAX commands; see `Channel.submit`."""
        if len(commands) > BATCH_COUNT_MAX:
            raise UsageError(f"one submission has up to {BATCH_COUNT_MAX} commands, not {len(commands)}")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Records] = loop.create_future()
        try:
            async with asyncio.timeout(TIMEOUT_S_DEFAULT if timeout_s is None else timeout_s):
                await self._add(commands, answered)
                return await answered
        except TimeoutError as error:
            raise OutcomeUnknown("no result in time", commands, unknown_results(len(commands))) from error

    async def _add(self, commands: Records, answered: "asyncio.Future[Records]") -> None:
        while True:
            if self._closed:
                raise ConnectionFailed("the ledger is closed")
            if not self._room and self._reactor.submit(commands, answered):
                return
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if not self._room:
                self._reactor.add_waiter(self)
            self._room.append(room)
            await room

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """Ask anything but commands; see `Channel.request`."""
        if self._closed:
            raise ConnectionFailed("the ledger is closed")
        if operation is Operation.PING:
            return body
        if operation is Operation.STATISTICS:
            return encode_message(self._reactor.counters.snapshot(self._reactor.bytes_in_flight))
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(answer: bytes | Exception) -> None:
            if answered.done():
                return
            if isinstance(answer, bytes):
                answered.set_result(answer)
            elif isinstance(answer, RemoteProtocolError):
                answered.set_exception(RequestRefused(int(FrameError.BODY_MALFORMED), str(answer)))
            else:
                answered.set_exception(RequestRefused(int(FrameError.REQUEST_REFUSED), str(answer)))

        self._reactor.request(Request(operation, body, respond))
        try:
            async with asyncio.timeout(TIMEOUT_S_DEFAULT if timeout_s is None else timeout_s):
                return await answered
        except TimeoutError as error:
            raise RequestTimedOut(f"no answer to {operation.name} in time") from error

    async def close(self) -> None:
        """Finish what was submitted and close the data folder."""
        if not self._closed:
            self._closed = True
            self.resume()
            await self._reactor.stop()


async def open_channel(path: Path, settings: ReplicaSettings | None = None) -> EngineChannel:
    """Open the ledger in a data folder, creating it if there is none. Raises `StorageError` and its kinds."""
    loop = asyncio.get_running_loop()
    replica = await loop.run_in_executor(None, lambda: open_replica(path, settings=settings))
    return EngineChannel(Reactor(replica, loop))
