"""A node as a child process: started, heard, paused, killed and stopped like one that somebody else runs.

A child has a process group of its own, so that a Ctrl-C at the terminal reaches the command alone, which then stops its
nodes in order; and if the command is killed, the system ends them. What a node writes goes to a file rather than to a
pipe: nobody has to read it, so the node never waits for a reader. Every wait has a limit.

The methods that wait come twice: plain, and as coroutines for code that runs in an event loop.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from bezant.cli.errors import CommandFailed

NODE_COMMAND: Final = (sys.executable, "-m", "bezant", "serve")
WRITE_SIDE_COMMAND: Final = (*NODE_COMMAND, "--no-reader")
"""A node whose processor time is all for those who write: nothing follows its log."""
LISTEN_ANYWHERE: Final = "127.0.0.1:0"
START_TIMEOUT_S: Final = 300.0
"""The first start on a machine compiles the kernels, which takes a slow machine minutes."""
STOP_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.005
"""Between two looks at whether a node has got so far."""
_LOG_TAIL_SIZE: Final = 2000
"""Bytes at the end of what it wrote that are told when it fails."""
_LOG_LINE_COUNT: Final = 3
_LINE_SIZE_MAX: Final = 1 << 20
_READY: Final = b"listening on "
_ECHO: Final = b"echo on "

_SET_PARENT_DEATH_SIGNAL: Final = 1
_SIGNALS_HELD: Final = (signal.SIGINT, signal.SIGTERM)
_LIBC: Final = ctypes.CDLL(None)


class ProcessFailed(CommandFailed):
    """A process that we started did not start, or ended before its work was done."""


def spawn(name: str, command: Sequence[str], **settings: Any) -> "subprocess.Popen[bytes]":
    """Start a child in a process group of its own that ends with this process, or rather with this thread.

    `settings` are those of `subprocess.Popen`. Raises `ProcessFailed` if the system cannot start it.
    """
    try:
        with _signals_held():
            return subprocess.Popen(
                command,
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, with nothing to wait for
                **settings,
            )
    except OSError as error:
        raise ProcessFailed(f"{name} does not start: {error}") from error


def _end_with_parent() -> None:
    """In a child, before it becomes its program: have the system send it SIGTERM when its parent ends; prctl(2)."""
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Put SIGINT and SIGTERM off while the block runs.

    Their exceptions would be lost in the hooks that run at a fork, or lose us the handle of a process just made.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals, and only it may change what they do
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda caught, _frame: held.append(caught)) for number in _SIGNALS_HELD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for caught in held:
        signal.raise_signal(caught)


class NodeProcess:
    """`bezant serve` in a process of its own; as a context manager, of either kind, it is never left running.

    ``address`` and ``echo`` are where it listens, once it is ready. Started again after its end it listens there again,
    unless its data folder says where (`listen` None). What it writes goes to `log_path`, appended, or nowhere.
    """

    def __init__(
        self,
        data: Path,
        *,
        log_path: Path | None = None,
        listen: str | None = LISTEN_ANYWHERE,
        echo: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = NODE_COMMAND,
        name: str = "the node",
    ) -> None:
        """`arguments` go behind those of `serve` that are given here, `environment` is added to ours."""
        self.name = name
        self.address = ""
        self.echo = ""
        self._data = data
        self._log_path = log_path
        self._listen = listen
        self._echo_listen = echo
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._log_start = self._read_to = 0
        self._is_paused = False

    def __enter__(self) -> Self:
        try:
            self.start()
            self.await_ready()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        try:
            self.start()
            await self.ready()
        except BaseException:
            self.end()
            raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.end()

    # ---- its start ----

    def start(self) -> None:
        """Start it, for the first time or again, and return at once. Raises `ProcessFailed`."""
        if self._process is not None and not self.ended:
            raise ProcessFailed(f"{self.name} runs already")
        if self._log is None:
            self._log = self._open_log()
        self._log_start = self._read_to = os.fstat(self._log.fileno()).st_size
        words = [*self._command, "--data", str(self._data)]
        for option, listen, known in (
            ("--listen", self._listen, self.address),
            ("--echo", self._echo_listen, self.echo),
        ):
            if listen is not None:
                words += [option, known or listen]
        self.address = self.echo = ""
        self._is_paused = False
        try:
            self._process = spawn(
                self.name,
                [*words, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=os.environ | self._environment,
            )
        except BaseException:
            self.end()
            raise

    def _open_log(self) -> IO[bytes]:
        return tempfile.TemporaryFile("a+b") if self._log_path is None else self._log_path.open("a+b")

    def await_ready(self, timeout_s: float | None = None) -> None:
        """Return when it listens. Raises `ProcessFailed` if it ends instead, or takes longer than START_TIMEOUT_S."""
        limit_s = START_TIMEOUT_S if timeout_s is None else timeout_s
        if not _wait(self._is_ready, limit_s):
            raise self._failure(f"{self.name} was not ready within {limit_s:g} s")

    async def ready(self, timeout_s: float | None = None) -> None:
        """The same for an event loop."""
        limit_s = START_TIMEOUT_S if timeout_s is None else timeout_s
        if not await _wait_async(self._is_ready, limit_s):
            raise self._failure(f"{self.name} was not ready within {limit_s:g} s")

    def _is_ready(self) -> bool:
        """Read on in what it wrote, and see whether it has said all that it is to say."""
        has_ended = self.ended  # before reading: what it wrote until then is all there is
        while line := self._next_line():
            if line.startswith(_READY):
                self.address = line.removeprefix(_READY).decode("ascii", "replace").strip()
            elif line.startswith(_ECHO):
                self.echo = line.removeprefix(_ECHO).decode("ascii", "replace").strip()
        is_ready = bool(self.address) and (self._echo_listen is None or bool(self.echo))
        if has_ended and not is_ready:
            raise self._failure(f"{self.name} ended with status {self.status} before it listened")
        return is_ready

    def _next_line(self) -> bytes:
        """The next whole line that it wrote, with its end; empty if there is none yet."""
        line, end, _ = os.pread(self._log_file.fileno(), _LINE_SIZE_MAX, self._read_to).partition(b"\n")
        if not end and len(line) == _LINE_SIZE_MAX:
            raise ProcessFailed(f"{self.name} wrote a line of more than {_LINE_SIZE_MAX} bytes")
        self._read_to += len(line) + 1 if end else 0
        return line + end if end else b""

    # ---- what it is doing ----

    @property
    def process_id(self) -> int:
        """Its number in the system."""
        return self._running.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended, by our doing or not."""
        return self._running.poll() is not None

    @property
    def status(self) -> int | None:
        """Its exit status, less than zero for a signal; None while it runs."""
        return self._running.poll()

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._process

    @property
    def _log_file(self) -> IO[bytes]:
        if self._log is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._log

    # ---- its end ----

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and return when it is gone.

        Raises `ProcessFailed` if it has ended by itself.
        """
        self._check_runs()
        self._running.kill()
        self._running.wait()

    def kill_after(self, delay_s: float) -> bool:
        """Kill it after so long; false if it had ended by itself before."""
        try:
            self._running.wait(delay_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return True
        return False

    def pause(self) -> None:
        """Stop it where it stands, with SIGSTOP: to others it is a node that hangs."""
        self._check_runs()
        self._running.send_signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Let it go on, with SIGCONT."""
        self._check_runs()
        self._running.send_signal(signal.SIGCONT)
        self._is_paused = False

    def ask_to_stop(self) -> None:
        """Send SIGTERM. Raises `ProcessFailed` if it has ended by itself."""
        self._check_runs()
        self._running.send_signal(signal.SIGTERM)

    def await_stop(self) -> None:
        """Return when it has stopped with status 0. Raises `ProcessFailed` if it does not, or not so."""
        self._check_stopped(_wait(lambda: self.ended, STOP_TIMEOUT_S))

    async def stopped(self) -> None:
        """The same for an event loop."""
        self._check_stopped(await _wait_async(lambda: self.ended, STOP_TIMEOUT_S))

    async def stop(self) -> None:
        """Ask it to stop and wait until it has."""
        self.ask_to_stop()
        await self.stopped()

    def end(self) -> None:
        """Leave nothing running, whatever happened; safe to repeat. A node that does not stop in time is killed."""
        process = self._process
        if process is not None and process.poll() is None:
            # One that is paused does not hear SIGTERM.
            process.send_signal(signal.SIGKILL if self._is_paused else signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def describe_end(self) -> str:
        """That it ended, how, and what it said last since it was started."""
        return f"{self.name} ended early (status {self.status}){self._last_words(': ')}"

    def _check_runs(self) -> None:
        if self.ended:
            raise self._failure(f"{self.name} ended by itself with status {self.status}")

    def _check_stopped(self, has_ended: bool) -> None:
        if not has_ended:
            raise self._failure(f"{self.name} did not stop within {STOP_TIMEOUT_S:g} s of SIGTERM")
        if self.status != 0:
            raise self._failure(f"{self.name} stopped with status {self.status}")

    def _failure(self, message: str) -> ProcessFailed:
        """An error with the end of what the node wrote."""
        return ProcessFailed(f"{message}; it wrote: {self._last_words('') or '(nothing)'}")

    def _last_words(self, prefix: str) -> str:
        file = self._log_file
        size = os.fstat(file.fileno()).st_size
        told = os.pread(file.fileno(), _LOG_TAIL_SIZE, max(self._log_start, size - _LOG_TAIL_SIZE))
        lines = [line.strip() for line in told.splitlines() if not line.startswith((_READY, _ECHO))]
        words = " | ".join(line.decode("utf-8", "replace") for line in lines[-_LOG_LINE_COUNT:] if line)
        return prefix + words if words else ""


def _wait(is_done: Callable[[], bool], timeout_s: float) -> bool:
    """Look again and again whether it is done; false if it is not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


async def _wait_async(is_done: Callable[[], bool], timeout_s: float) -> bool:
    """The same for an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
