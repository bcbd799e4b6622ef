"""The engine in the caller's own process and event loop: the same wallet, without a node and without a socket.

The reactor is the node's; only the way in differs. What ends a node at once, a failed sync of the log or a bug in the
engine, ends the whole process here (`bezant.net.server.failure`). One process at a time can have a data folder open.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bezant.engine.compiled import kernel_digest
from bezant.engine.member import Member
from bezant.engine.node_file import shard_of_folder
from bezant.engine.opening import open_member
from bezant.engine.replica import ReplicaSettings
from bezant.net.client.channel import OutcomeUnknown, check_timeout, unknown_results
from bezant.net.reader.local import OPERATIONS as HISTORY_OPERATIONS
from bezant.net.reader.local import LocalHistory
from bezant.net.server.batch import Request
from bezant.net.server.clients import make_welcome
from bezant.net.server.reactor import Reactor
from bezant.net.server.reporting import report
from bezant.net.server.requests import error_code
from bezant.net.server.starting import prepare_start, tell_findings
from bezant.protocol.errors import RequestRefused, RequestTimedOut, UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX, Operation
from bezant.protocol.messages import Welcome, encode_message
from bezant.protocol.records import Records

TIMEOUT_S_DEFAULT: Final = 30.0
"""Deadline, in seconds, of calls that bring none."""


class EngineChannel:
    """A channel (`bezant.net.client.channel.Channel`) to a reactor on the same loop."""

    def __init__(self, reactor: Reactor, path: Path) -> None:
        self._reactor = reactor
        self._history = LocalHistory(path, reactor.replica.shard)
        self._welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest())
        # Submissions that found no room, in order. They are their callers' arrays, and leave with their deadlines.
        self._waiting: deque[tuple[Records, asyncio.Future[Records]]] = deque()
        self._stopping: asyncio.Task[None] | None = None

    @property
    def welcome(self) -> Welcome:
        """What the engine takes."""
        return self._welcome

    async def submit(self, commands: Records, timeout_s: float | None) -> Records:
        """Execute up to BATCH_COUNT_MAX commands; see `Channel.submit`. Raises `UsageError` when closed."""
        seconds = self._check_call(timeout_s)
        if len(commands) > BATCH_COUNT_MAX:
            raise UsageError(f"one submission has up to {BATCH_COUNT_MAX} commands, not {len(commands)}")
        answered: asyncio.Future[Records] = asyncio.get_running_loop().create_future()
        if self._waiting or not self._reactor.submit(commands, answered):
            self._wait_for_room(commands, answered)
        try:
            async with asyncio.timeout(seconds):
                return await answered
        except TimeoutError as error:
            raise OutcomeUnknown("no result in time", commands, unknown_results(len(commands))) from error

    def _wait_for_room(self, commands: Records, answered: "asyncio.Future[Records]") -> None:
        if not self._waiting:
            self._reactor.add_waiter(self)
        self._waiting.append((commands, answered))

    def resume(self) -> None:
        """The reactor has room again."""
        while self._waiting:
            commands, answered = self._waiting[0]
            # Done already: its deadline has passed, or its caller has gone.
            if not answered.done() and not self._reactor.submit(commands, answered):
                self._reactor.add_waiter(self)
                return
            self._waiting.popleft()

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """Ask anything but commands; see `Channel.request`. Raises `UsageError` when closed."""
        seconds = self._check_call(timeout_s)
        if operation is Operation.PING:
            return body
        if operation in HISTORY_OPERATIONS:
            try:
                async with asyncio.timeout(seconds):
                    return await self._history.request(operation, body)
            except TimeoutError as error:
                raise RequestTimedOut(f"no answer to {operation.name} in time") from error
        if operation is Operation.STATISTICS:
            return encode_message(report(self._reactor))
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(answer: bytes | Exception) -> None:
            if answered.done():
                return
            if isinstance(answer, bytes):
                answered.set_result(answer)
            else:
                answered.set_exception(RequestRefused(int(error_code(answer)), str(answer)))

        self._reactor.request(Request(operation, body, respond))
        try:
            async with asyncio.timeout(seconds):
                return await answered
        except TimeoutError as error:
            raise RequestTimedOut(f"no answer to {operation.name} in time") from error

    async def prepare_history(self, on_progress: Callable[[int, int], None]) -> None:
        """Make ready to answer questions about the past at once; `on_progress` is told (events read, in all)."""
        await self._history.prepare(on_progress)

    def _check_call(self, timeout_s: float | None) -> float:
        """Return the deadline of a call in seconds. Raises `UsageError` if it cannot be made."""
        if self._stopping is not None:
            raise UsageError("the ledger has been closed")
        return check_timeout(TIMEOUT_S_DEFAULT if timeout_s is None else timeout_s)

    async def close(self) -> None:
        """Finish what was submitted and close the data folder. May be called again; returns when it is closed."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        # Shielded, so that a caller who stops waiting does not leave the folder locked.
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        try:
            await self._history.close()
        finally:
            await self._reactor.stop()


async def open_channel(path: Path, settings: ReplicaSettings | None = None) -> EngineChannel:
    """Open the ledger in a data folder, creating it if there is none. Raises `StorageError` and its kinds."""
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, _open_warm, path, settings)
    try:
        member = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    return EngineChannel(Reactor(member, loop), path)


def _open_warm(path: Path, settings: ReplicaSettings | None) -> Member:
    """Compile what is not compiled yet, here and not on the loop at the first commands; then recover the ledger."""
    shard = shard_of_folder(path)
    prepare_start(path, shard)
    member = open_member(path, shard=shard, settings=settings)
    tell_findings(member.replica)
    return member


def _close_unwanted(opening: "asyncio.Future[Member]") -> None:
    """Close a member that was opened for somebody who has gone."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
