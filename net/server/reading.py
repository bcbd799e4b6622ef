"""The node's side of its reader: starts the child process, gives it what it needs, starts it again if it dies.

The child (`net/reader`) reads the log and, as any client, asks the node to keep named positions; nothing that becomes
of it is of any harm to the node. The sockets that it listens on are bound here, so that clients find it at the same
address however often it is started; the wake-up tells it at once when more of the log is published.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bezant.engine.child_status import tell_status
from bezant.engine.publication import NO_DESCRIPTOR
from bezant.net.access.settings import OPEN, NodeSecurity
from bezant.net.logs import about
from bezant.net.reader.setup import Setup
from bezant.net.server.reactor import Reactor

BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 10.0
"""Seconds between the end of a child and the start of the next: doubled each time."""
LIVED_S_MIN: Final = 30.0
"""Seconds after which a child that ended has not failed at its start."""
HISTORY_WAIT_S: Final = 1.0
"""Seconds between two looks at whether the history has come that a node lacks which began with a state."""
STOP_S_MAX: Final = 3.0
"""Seconds that the child has to end when it is told to; then it is killed."""

_log = logging.getLogger("bezant")


class Reading:
    """The reader of one node. All methods on the loop."""

    def __init__(
        self,
        reactor: Reactor,
        sockets: Sequence[socket.socket],
        address: str,
        node: str,
        security: NodeSecurity = OPEN,
        *,
        metrics: Sequence[socket.socket] = (),
    ) -> None:
        """`sockets` are bound and stay the caller's, like those for `metrics`; `address` is what clients are told,
        `node` where it finds this."""
        self._publisher = reactor.publisher
        self._log = reactor.replica.log
        self._sockets = sockets
        self._metrics = metrics
        replica = reactor.replica
        data_directory = Path(replica.checkpoints.directory.path).parent.parent
        self._setup = Setup(str(data_directory), replica.shard, address, node=node, security=security)
        self._wake = NO_DESCRIPTOR
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Have the child run until `stop`."""
        if self._publisher is not None:
            self._wake = self._publisher.wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._task = asyncio.get_running_loop().create_task(self._keep_running(), name="bezant reader")

    async def stop(self) -> None:
        """End the child."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._publisher is not None and self._wake != NO_DESCRIPTOR:
            self._publisher.wake_descriptor = NO_DESCRIPTOR
            os.close(self._wake)
            self._wake = NO_DESCRIPTOR

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_S_MIN
        while True:
            while not self._log.is_complete:
                await asyncio.sleep(HISTORY_WAIT_S)  # It reads from the first entry on.
            started_s = loop.time()
            try:
                ended = f"has ended with {tell_status(await self._run())}"
            except OSError as error:
                ended = f"cannot be started: {error}"
            if loop.time() - started_s > LIVED_S_MIN:
                backoff_s = BACKOFF_S_MIN
            about_it = about("reader_ended", again_s=backoff_s)
            _log.warning("bezant: the reader %s; it is started again in %g s", ended, backoff_s, extra=about_it)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _run(self) -> int:
        """Run one child to its end; returns its exit status. Raises OSError if it cannot be started."""
        listening = [bound.fileno() for bound in self._sockets]
        metrics = [bound.fileno() for bound in self._metrics]
        inherited = [*listening, *metrics, *([self._wake] if self._wake != NO_DESCRIPTOR else [])]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bezant.net.reader.child",
            stdin=asyncio.subprocess.PIPE,
            pass_fds=inherited,
        )
        setup = msgspec.structs.replace(self._setup, listening=listening, wake=self._wake, metrics=metrics)
        try:
            if process.stdin is not None:
                process.stdin.write(msgspec.json.encode(setup) + b"\n")
            return await process.wait()
        finally:
            await self._end(process)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        """End a child that may run: by the end of its input, which it has even if this process just vanishes."""
        if process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await process.wait()
        except TimeoutError:
            # It may have ended just now. An error here would be taken for a child that cannot be started, by who is
            # being cancelled.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
