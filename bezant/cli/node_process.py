"""A node as a child process: started, killed and stopped like one that somebody else runs."""

import asyncio
import signal
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bezant.cli.errors import CommandFailed

START_TIMEOUT_S: Final = 300.0
"""The first start on a machine compiles the kernels, which takes a slow machine minutes."""

STOP_TIMEOUT_S: Final = 60.0
LOG_TAIL_LINES: Final = 3
_READY: Final = "listening on "


class NodeProcess:
    """`bezant serve` in a process of its own; as a context manager it is never left running.

    ``address`` is where it listens. What it writes goes to `log_path`, appended.
    """

    def __init__(self, data: Path, log_path: Path) -> None:
        self._data = data
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self.address = ""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        command = (sys.executable, "-m", "bezant.cli.main", "serve", "--data", str(self._data))
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--listen",
                "127.0.0.1:0",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # A Ctrl-C in the terminal is for the command that started the node; the node is told by that command.
                start_new_session=True,
            )
        try:
            self.address = await asyncio.wait_for(self._await_ready(), START_TIMEOUT_S)
        except TimeoutError:
            raise self._failure(f"the node was not ready within {START_TIMEOUT_S:.0f} s") from None
        self._drain = asyncio.create_task(self._drain_output())

    async def _await_ready(self) -> str:
        """Read its output until it says where it listens."""
        while line := (await self._output.readline()).decode("utf-8", "replace"):
            if line.startswith(_READY):
                return line.removeprefix(_READY).strip()
        status = await self._running.wait()
        raise self._failure(f"the node ended with status {status} before it listened")

    async def _drain_output(self) -> None:
        """Take what the node prints later, so that it never waits for a reader of a full pipe."""
        with self._log_path.open("ab") as log:
            while block := await self._output.read(65_536):
                log.write(block)

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise CommandFailed("the node was not started")
        return self._process

    @property
    def _output(self) -> asyncio.StreamReader:
        if self._running.stdout is None:
            raise CommandFailed("the node was started without a pipe for its output")
        return self._running.stdout

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until it is gone.

        Raises `CommandFailed` if it has ended by itself.
        """
        status = self._running.returncode
        if status is not None:
            raise self._failure(f"the node ended by itself with status {status}")
        self._running.kill()
        await self._running.wait()

    async def stop(self) -> None:
        """Ask it to stop with SIGTERM and wait until it has. Raises `CommandFailed` if it does not, or not cleanly."""
        status = self._running.returncode
        if status is not None:
            raise self._failure(f"the node ended by itself with status {status}")
        self._running.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.wait_for(self._running.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            raise self._failure(f"the node did not stop within {STOP_TIMEOUT_S:.0f} s of SIGTERM") from None
        if status != 0:
            raise self._failure(f"the node stopped with status {status}")

    async def _end(self) -> None:
        """Leave nothing running, whatever happened."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        if self._drain is not None:
            await self._drain

    def _failure(self, message: str) -> CommandFailed:
        """An error with the end of what the node wrote."""
        with self._log_path.open(encoding="utf-8", errors="replace") as log:
            tail = " | ".join(line.strip() for line in deque(log, LOG_TAIL_LINES) if line.strip())
        return CommandFailed(f"{message}; it wrote: {tail or '(nothing)'}")
