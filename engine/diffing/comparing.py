"""Two installations of Bezant execute one history at the same time; the first event that differs is found."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np

from bezant.engine.child_status import tell_status
from bezant.engine.diffing import executing
from bezant.engine.diffing.executing import WINDOW
from bezant.engine.log.storage import LookingLock
from bezant.engine.node_file import shard_of_folder
from bezant.engine.replica import shard_directory
from bezant.protocol.errors import DataFolderInUse, StorageError, UsageError
from bezant.protocol.records import EVENT, EVENT_SIZE

_END: Final = 0
"""The index under which the digest of the state at the end is told."""


class Version(NamedTuple):
    """An installation, by what it says of itself."""

    python: str
    version: str
    kernel_digest: str


class FieldDifference(NamedTuple):
    """A field of an event as both have made it."""

    field: str
    own: str
    other: str


class Divergence(NamedTuple):
    """Where they part: at an entry, and at an event in it, if both have one there (else `sequence` is 0).

    `words` says what differs when it is no field: that one has more events, or that one does not execute the entry.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    sequence: int
    fields: tuple[FieldDifference, ...]
    words: str


class DiffReport(NamedTuple):
    """What a comparison has found; no divergence if both make the same of the whole history."""

    own: Version
    other: Version
    entries: int
    events: int
    divergence: Divergence | None


def find_python(installation: Path) -> Path:
    """The interpreter of an installation: given itself, or a `bezant` beside it, or the folder of its environment.

    Raises `UsageError`.
    """
    candidates = [installation]
    if installation.is_dir():
        candidates = [installation / "bin" / "python", installation / ".venv" / "bin" / "python"]
    elif installation.name == "bezant":
        candidates = [installation.with_name("python"), installation.with_name("python3")]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise UsageError(f"{installation} is not an installation: give its python, its bezant, or the folder of both")


class _Executor:
    """One installation at work."""

    def __init__(self, python: Path, data: Path, environment: dict[str, str] | None) -> None:
        self.python = str(python)
        source = Path(executing.__file__).read_text(encoding="utf-8")
        try:
            self._process = subprocess.Popen(
                [self.python, "-P", "-c", source, str(data.resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
        except OSError as error:
            raise UsageError(f"{python} cannot be started: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def hear(self) -> dict[str, Any]:
        """The next line. Raises `UsageError` if there is none: this installation cannot do it."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        try:
            told = json.loads(line)
        except ValueError:
            told = {"failed": f"it ended with {tell_status(self._process.wait())}"}
        if "failed" in told:
            raise UsageError(f"the Bezant of {self.python} cannot execute this history: {told['failed']}")
        return dict(told)

    def say(self, word: str) -> None:
        """Answer what it waits for. If it has ended, that is heard."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(word + "\n")
                self._process.stdin.flush()
        except BrokenPipeError:
            return

    def greet(self) -> Version:
        """Who it is."""
        told = self.hear()
        return Version(self.python, str(told["version"]), str(told["kernel_digest"]))

    def show(self, index: int, told: dict[str, Any], at: int) -> bytes:
        """The events that it has made of an entry; `at` is how many entries of its window it has told."""
        if "error" in told:
            return b""
        # It goes on to the end of its window before it listens.
        while at < WINDOW and told["index"] != _END and "error" not in told:
            told = self.hear()
            at += 1
        self.say(str(index))
        return bytes.fromhex(self.hear()["events"])


def diff(data: Path, installation: Path, on_progress: Callable[[int], None] = lambda _: None) -> DiffReport:
    """Execute the history in a data folder, which no node may have open, with this and another installation.

    Changes nothing. `on_progress` is told the events done. Raises `DataFolderInUse`, `StorageError`; `UsageError` if
    the other installation cannot do it.
    """
    if not shard_directory(data, shard_of_folder(data)).path.is_dir():
        raise StorageError(f"{data} is not a data folder")
    lock = LookingLock(data)
    try:
        if lock.holder:
            raise DataFolderInUse(f"{data} is in use by process {lock.holder}")
        foreign = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with ExitStack() as stack:
            own = stack.enter_context(_Executor(Path(sys.executable), data, None))
            other = stack.enter_context(_Executor(find_python(installation), data, foreign))
            return _compare(own, other, on_progress)
    finally:
        lock.release()


def _compare(own: _Executor, other: _Executor, on_progress: Callable[[int], None]) -> DiffReport:
    versions = own.greet(), other.greet()
    entries = events = 0
    while True:
        told, told_other = own.hear(), other.hear()
        at = entries % WINDOW + 1
        if told != told_other:
            return DiffReport(*versions, entries, events, _find(own, other, told, told_other, at))
        if "error" in told or told["index"] == _END:
            return DiffReport(*versions, entries, events, _fails_alike(told))
        entries += 1
        events += told["count"]
        on_progress(events)
        if at == WINDOW:
            own.say("")
            other.say("")


def _fails_alike(told: dict[str, Any]) -> Divergence | None:
    if "error" not in told:
        return None
    return Divergence(told["index"], 0, (), f"neither executes the entry: {told['error']}")


def _find(own: _Executor, other: _Executor, told: dict[str, Any], told_other: dict[str, Any], at: int) -> Divergence:
    """What differs in an entry."""
    index = max(told["index"], told_other["index"])
    for name, found in (("this", told), ("the other", told_other)):
        if "error" in found:
            return Divergence(index, 0, (), f"{name} version does not execute the entry: {found['error']}")
    if told["index"] == _END and told_other["index"] == _END:
        return Divergence(index, 0, (), "every event is the same, and the state at the end is not")
    made, made_other = own.show(index, told, at), other.show(index, told_other, at)
    return _compare_events(index, told["first_sequence"], made, made_other)


def _compare_events(index: int, first_sequence: int, made: bytes, made_other: bytes) -> Divergence:
    """The first event that differs; these are the bytes of all events of the entry."""
    for number in range(min(len(made), len(made_other)) // EVENT_SIZE):
        part = slice(number * EVENT_SIZE, (number + 1) * EVENT_SIZE)
        if made[part] != made_other[part]:
            event, event_other = np.frombuffer(made[part], EVENT)[0], np.frombuffer(made_other[part], EVENT)[0]
            fields = tuple(
                FieldDifference(name, str(event[name]), str(event_other[name]))
                for name in EVENT.names or ()
                if event[name] != event_other[name]
            )
            return Divergence(index, first_sequence + number, fields, "")
    counts = len(made) // EVENT_SIZE, len(made_other) // EVENT_SIZE
    return Divergence(index, 0, (), f"this version makes {counts[0]} events of the entry, the other {counts[1]}")
