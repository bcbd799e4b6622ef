"""The servers of the peers as child processes, on loopback, with folders of their own, and never as root.

PostgreSQL refuses to run as root, and no database should: where we are root, servers run as `nobody`, who then owns
their folders. A kill is SIGKILL for the server and everything that it started. Every wait has a limit.
"""

import os
import pwd
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from bezant.cli.node_process import ProcessFailed, spawn
from bezant.cli.ports import free_ports
from bezant.perf.peers.programs import Programs

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 30.0
CONNECTIONS_SPARE: Final = 20
"""Connections that a server allows beside those of the load."""
_POLL_S: Final = 0.02
_CONNECT_TIMEOUT_S: Final = 5.0
_TOLD_SIZE_MAX: Final = 1000
_LOOPBACK: Final = "127.0.0.1"
_OTHER_USER: Final = "nobody"
_TRAVERSABLE: Final = 0o711


class Site:
    """A folder for servers, and who they run as: ourselves, or, if we are root, `nobody`."""

    def __init__(self, folder: Path) -> None:
        """Raises `ProcessFailed` if the other user could not come to the folder."""
        self.folder = folder
        self._copies: dict[Path, Programs] = {}
        self._owner = pwd.getpwnam(_OTHER_USER) if os.geteuid() == 0 else None
        if self._owner is not None:
            folder.chmod(_TRAVERSABLE)
            closed = [parent for parent in folder.resolve().parents if not parent.stat().st_mode & 0o001]
            if closed:
                raise ProcessFailed(
                    f"the servers run as {_OTHER_USER}, who may not enter {closed[-1]}; choose another --directory"
                )

    def identity(self) -> dict[str, Any]:
        """Arguments of `subprocess.Popen` with which a child is nobody that can do harm."""
        if self._owner is None:
            return {}
        return {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}

    def make_folder(self, name: str) -> Path:
        """A new folder that belongs to the servers' user."""
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        if self._owner is not None:
            os.chown(folder, self._owner.pw_uid, self._owner.pw_gid)
        return folder

    def reachable(self, programs: Programs) -> Programs:
        """The programs where the servers' user may read them: root's cache folder is nobody else's."""
        if self._owner is None or programs.top is None:
            return programs
        if programs.top not in self._copies:
            self._copies[programs.top] = programs.copied_to(self.folder / f"programs-{len(self._copies)}")
        return self._copies[programs.top]


class Server(ABC):
    """One server on one port. After `start` it is never left running if `end` is called."""

    _stop_signal: int = signal.SIGTERM

    def __init__(self, site: Site, name: str, programs: Programs) -> None:
        self.name = name
        self._site = site
        self._programs = site.reachable(programs)
        self._data = site.make_folder(name)
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._log_path = site.folder / f"{name}.log"

    @property
    def address(self) -> str:
        """HOST:PORT, the same after every start."""
        return f"{_LOOPBACK}:{self._port}"

    @property
    def process_id(self) -> int | None:
        """Its number in the system, None if it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start it, for the first time or again, and return when it answers. Raises `ProcessFailed`."""
        if self.process_id is not None:
            raise ProcessFailed(f"{self.name} runs already")
        if self._log is None:
            self._log = self._log_path.open("ab")
        self._process = spawn(
            self.name,
            self._command(),
            cwd=self._data,
            env=self._programs.environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            **self._site.identity(),
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None:
                raise ProcessFailed(f"{self.name} ended at its start: {self._last_words()}")
            if time.monotonic() >= deadline_s:
                raise ProcessFailed(f"{self.name} did not answer within {START_TIMEOUT_S:g} s: {self._last_words()}")
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """SIGKILL it with all that it started, and return when all are gone. Raises `ProcessFailed` if it ended."""
        process_id = self.process_id
        if self._process is None or process_id is None:
            raise ProcessFailed(f"{self.name} ended by itself: {self._last_words()}")
        # It is stopped first, so that it starts nobody whom we do not see.
        self._process.send_signal(signal.SIGSTOP)
        _kill_all([process_id, *_descendants(process_id)])
        self._process.wait()

    def end(self) -> None:
        """Leave nothing running; safe to repeat. A server that does not stop in time is killed."""
        process_id = self.process_id
        if self._process is not None and process_id is not None:
            family = _descendants(process_id)
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill_all([process_id, *family])
                self._process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _run(self, command: Sequence[str]) -> None:
        """Run one of the programs to its end. Raises `ProcessFailed`."""
        try:
            done = subprocess.run(
                command,
                cwd=self._data,
                env=self._programs.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_TIMEOUT_S,
                check=False,
                **self._site.identity(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProcessFailed(f"{command[0]} cannot be run: {error}") from error
        if done.returncode:
            raise ProcessFailed(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-_TOLD_SIZE_MAX:]}")

    def _last_words(self) -> str:
        if not self._log_path.exists():
            return "(nothing)"
        return " | ".join(self._log_path.read_text(errors="replace")[-_TOLD_SIZE_MAX:].splitlines()) or "(nothing)"

    def _converse(self, question: bytes) -> bytes:
        """The first bytes of the answer, empty if there is none."""
        try:
            with socket.create_connection((_LOOPBACK, self._port), _CONNECT_TIMEOUT_S) as connection:
                connection.sendall(question)
                return connection.recv(64)
        except OSError:
            return b""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class PostgresServer(Server):
    """PostgreSQL with every commit synced, which is how it comes, and sizes that fit the load."""

    _stop_signal = signal.SIGINT  # "fast shutdown": it does not wait for clients

    SETTINGS: Final = (
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "wal_level=replica",
        "shared_buffers=256MB",
        "max_wal_size=4GB",
        "min_wal_size=512MB",
        "checkpoint_timeout=30min",
        "jit=off",
        "max_prepared_transactions=512",
        "unix_socket_directories=",
        f"listen_addresses={_LOOPBACK}",
    )

    def __init__(self, site: Site, name: str, programs: Programs, *, user: str, connections: int) -> None:
        """Makes the database, for which `user` may do everything from this machine. Raises `ProcessFailed`."""
        super().__init__(site, name, programs)
        self._connections = connections
        self._run(
            [
                str(self._programs.folder / "initdb"),
                *("--pgdata", str(self._data), "--username", user, "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ]
        )

    def _command(self) -> list[str]:
        settings = [*self.SETTINGS, f"port={self._port}", f"max_connections={self._connections + CONNECTIONS_SPARE}"]
        options = [word for setting in settings for word in ("-c", setting)]
        return [str(self._programs.folder / "postgres"), "-D", str(self._data), *options]

    def _answers(self) -> bool:
        # A start-up message of protocol 3.0 for a user who does not exist: "R" or "FATAL" of class 28 means that it
        # takes connections, class 57P03 that it is still starting.
        startup = b"\0\x03\0\0user\0nobody\0database\0postgres\0\0"
        answer = self._converse((len(startup) + 4).to_bytes(4, "big") + startup)
        return answer[:1] in {b"R", b"E"} and b"C57P03" not in answer


class RedisServer(Server):
    """Redis with its append-only file synced before every answer, and no snapshots beside it."""

    SETTINGS: Final = (
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("save", ""),
        ("bind", _LOOPBACK),
        ("protected-mode", "yes"),
        ("maxclients", "1000"),
    )

    def _command(self) -> list[str]:
        settings = [*self.SETTINGS, ("port", str(self._port)), ("dir", str(self._data))]
        options = [word for name, value in settings for word in (f"--{name}", value)]
        return [str(self._programs.folder / "redis-server"), *options]

    def _answers(self) -> bool:
        return self._converse(b"PING\r\n").startswith(b"+PONG")


def _descendants(process_id: int) -> list[int]:
    """All processes that a process started and that these started."""
    children: dict[int, list[int]] = {}
    for number, parent, _ in _processes():
        children.setdefault(parent, []).append(number)
    found: list[int] = []
    new = [process_id]
    while new:
        new = [child for one in new for child in children.get(one, [])]
        found += new
    return found


def _processes() -> Iterator[tuple[int, int, str]]:
    """(number, number of its parent, state) of every process, from proc(5)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue  # it has just ended
            yield int(folder.name), int(parent), state


def _kill_all(process_ids: Sequence[int]) -> None:
    for process_id in process_ids:
        try:
            os.kill(process_id, signal.SIGKILL)
        except ProcessLookupError:
            pass
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while {number for number, _, state in _processes() if state != "Z"} & set(process_ids):
        if time.monotonic() >= deadline_s:
            raise ProcessFailed(f"processes go on {STOP_TIMEOUT_S:g} s after SIGKILL")
        time.sleep(_POLL_S)
