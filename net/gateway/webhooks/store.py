"""What webhooks need to survive: a SQLite file (WAL, each change synced) that nobody but its owner can read.

Secrets are in it as they are, because messages are signed with them; so keep its folder like a key. Its methods block,
and are called by one thread at a time.
"""

import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

import msgspec

from bezant.protocol.errors import UsageError

FILE: Final = "webhooks.sqlite3"
LOCK: Final = "lock"
HOOKS_MAX: Final = 256
"""Hooks of a gateway."""
DEAD_MAX: Final = 1000
"""Messages that are kept of a hook for which they were given up; a hook that has so many is disabled."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS hooks (id TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS dead (
    hook TEXT NOT NULL REFERENCES hooks (id) ON DELETE CASCADE,
    message TEXT NOT NULL, time_ns INTEGER NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (hook, message)
) STRICT;
"""


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """One hook. ``position`` is behind what has been told; ``disabled`` says why nothing is, or is "".

    ``old_secret`` signs besides until ``old_until_ns``.
    """

    id: str
    url: str
    accounts: tuple[str, ...] = ()
    currency: str = ""
    kinds: tuple[str, ...] = ()
    made_ns: int
    secret: bytes
    old_secret: bytes = b""
    old_until_ns: int = 0
    position: str = ""
    disabled: str = ""
    delivered: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was given up, and why."""

    message: str
    time_ns: int
    reason: str
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Hook).decode


class Store:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, made if it is not there. Raises `UsageError` if it cannot be had, or another holds it."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"webhooks cannot be kept in {folder}: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(folder / FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._base = sqlite3.connect(folder / FILE, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.execute("PRAGMA foreign_keys=ON")
            self._base.executescript(_SCHEMA)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UsageError(f"another gateway keeps its webhooks in {folder}") from error
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise UsageError(f"webhooks cannot be kept in {folder}: {error}") from error

    def close(self) -> None:
        """Let go of the folder."""
        self._base.close()
        os.close(self._lock)

    def hooks(self) -> list[Hook]:
        """All hooks."""
        return [_decode(state) for (state,) in self._base.execute("SELECT state FROM hooks ORDER BY rowid")]

    def put(self, hook: Hook) -> None:
        """Keep a hook as it now is."""
        self._base.execute(
            "INSERT INTO hooks VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
            (hook.id, _encode(hook)),
        )

    def delete(self, hook: str) -> None:
        """Forget a hook, and what was given up of it."""
        self._base.execute("DELETE FROM hooks WHERE id = ?", (hook,))

    def bury(self, hook: Hook, message: str, reason: str, body: bytes) -> None:
        """Keep a hook as it now is, and a message that it was not told, both or neither."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            self._base.execute(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?)", (hook.id, message, time.time_ns(), reason, body)
            )
            self.put(hook)
            self._base.execute("COMMIT")
        except BaseException:
            self._base.execute("ROLLBACK")
            raise

    def dead_count(self, hook: str) -> int:
        """Messages that were given up."""
        found: tuple[int] = self._base.execute("SELECT count(*) FROM dead WHERE hook = ?", (hook,)).fetchone()
        return found[0]

    def dead(self, hook: str) -> list[DeadLetter]:
        """Messages that were given up, the oldest first."""
        rows = self._base.execute(
            "SELECT message, time_ns, reason, body FROM dead WHERE hook = ? ORDER BY time_ns, message", (hook,)
        )
        return [DeadLetter(*row) for row in rows]

    def forget_dead(self, hook: str, message: str) -> bool:
        """Forget a message that was given up; whether there was one."""
        return self._base.execute("DELETE FROM dead WHERE hook = ? AND message = ?", (hook, message)).rowcount > 0
