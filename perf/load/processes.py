"""The processes of a measurement beside the node: the load, and how a child is heard and stopped.

The node is `bezant.cli.node_process`. Every wait has a limit.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Final, Self

import msgspec

from bezant.cli.node_process import ProcessFailed, spawn
from bezant.perf.load.plan import LoadFailure, LoadLine, LoadOutcome, LoadPlan, LoadProgress
from bezant.protocol import errors
from bezant.protocol.errors import BezantError

LOAD_LINE_TIMEOUT_S: Final = 180.0
"""Between two lines of the load process; it reports several times a second once its kernels are compiled."""
LOAD_STOP_TIMEOUT_S: Final = 10.0
_LINE_SIZE_MAX: Final = 1 << 20
_STANDARD_ERROR_TAIL_SIZE: Final = 2000
_TOLD_AS_THEY_ARE: Final = frozenset(
    {"UsageError", "ConnectionFailed", "RequestTimedOut", "RemoteProtocolError", "LocalProtocolError"}
)


class LineReader:
    """Reads lines from a pipe, each within a time limit."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        # Not select, which takes no descriptor above 1023, and a process with many connections has those.
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._pending = b""

    def read_line(self, timeout_s: float) -> bytes | None:
        """The next line without its end, or None at the end of the pipe. Raises `TimeoutError`, `ProcessFailed`."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            if len(self._pending) > _LINE_SIZE_MAX:
                raise ProcessFailed(f"a process wrote a line of more than {_LINE_SIZE_MAX} bytes")
            if not self._poll.poll(1e3 * max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.read(self._descriptor, 1 << 16)
            if not part:
                return None
            self._pending += part
        line, self._pending = self._pending.split(b"\n", 1)
        return line


class ChildProcess:
    """A process with its stdout on a pipe and its stderr in a file; stopped when the context ends."""

    def __init__(self, name: str, command: Sequence[str], stop_timeout_s: float) -> None:
        self.name = name
        self._stop_timeout_s = stop_timeout_s
        self._standard_error = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `stop`
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = spawn(
                name,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._standard_error,
            )
        except BaseException:
            self.stop()
            raise
        self._lines = LineReader(self._pipe(self._process.stdout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process_id(self) -> int:
        """Its number in the system."""
        return self._running.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended, by our doing or not."""
        return self._running.poll() is not None

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._process

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise ProcessFailed(f"{self.name} was started without its pipes")
        return pipe

    def send(self, data: bytes) -> None:
        """Write all of its stdin."""
        try:
            with self._pipe(self._running.stdin) as pipe:
                pipe.write(data)
        except BrokenPipeError:
            raise ProcessFailed(self.describe_end()) from None

    def read_line(self, timeout_s: float) -> bytes:
        """Its next line. Raises `ProcessFailed` if it says nothing for so long, or has ended."""
        try:
            line = self._lines.read_line(timeout_s)
        except TimeoutError:
            raise ProcessFailed(f"{self.name} has said nothing for {timeout_s:g} s") from None
        if line is None:
            raise ProcessFailed(self.describe_end())
        return line

    def describe_end(self) -> str:
        """That it ended, how, and what it said last on stderr."""
        try:
            status = str(self._running.wait(self._stop_timeout_s))
        except subprocess.TimeoutExpired:
            status = "unknown: it closed its output and goes on"
        size = self._standard_error.seek(0, os.SEEK_END)
        self._standard_error.seek(max(0, size - _STANDARD_ERROR_TAIL_SIZE))
        told = self._standard_error.read().decode(errors="replace").strip()
        return f"{self.name} ended early (status {status}){': ' + told if told else ''}"

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL if that does not help in time; safe to repeat."""
        process = self._process
        self._standard_error.close()
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            self._pipe(pipe).close()


def run_load(module: str, plan: LoadPlan, on_progress: Callable[[int], None]) -> LoadOutcome:
    """Run a load module in a process of its own and return its outcome; `on_progress` gets the transfers done so far.

    Raises what the load failed with, and `ProcessFailed` if it ends without an outcome.
    """
    with ChildProcess("the load process", (sys.executable, "-m", module), LOAD_STOP_TIMEOUT_S) as child:
        child.send(msgspec.json.encode(plan))
        while True:
            line = _decode_line(child.read_line(LOAD_LINE_TIMEOUT_S))
            if isinstance(line, LoadProgress):
                on_progress(line.done)
            elif isinstance(line, LoadFailure):
                raise _as_error(line)
            else:
                return line


def _decode_line(line: bytes) -> LoadLine:
    try:
        decoded: LoadLine = msgspec.json.decode(line, type=LoadLine)
    except msgspec.MsgspecError as error:
        raise ProcessFailed(f"the load process said something else than its progress: {error}") from error
    return decoded


def _as_error(failure: LoadFailure) -> BezantError:
    if failure.error in _TOLD_AS_THEY_ARE:
        kind: type[BezantError] = getattr(errors, failure.error)
        return kind(failure.message)
    return BezantError(failure.message)
