"""Positions that clients have acknowledged, by name: one small file, written whole and synced before it is told.

Beside the log, and not part of it: what another node of the group knows is what was acknowledged there. The folder is
locked, so that of two readers on one data folder only one remembers.
"""

import logging
from typing import Final

import msgspec
import xxhash

from bezant.engine.log.storage import Directory, FolderLock
from bezant.protocol.errors import StorageError, UsageError

FILE_NAME: Final = "positions"
NAMES_MAX: Final = 10_000
"""Names that are remembered; they take up to 1 MB of the file."""
_CHECKSUM_SIZE: Final = 8
_FILE_SIZE_MAX: Final = 4 << 20

_log = logging.getLogger("bezant")


class _File(msgspec.Struct, frozen=True):
    """What the file holds: MessagePack behind the XXH3-64 of it."""

    log_id: int
    sequences: dict[str, int]


class NamedPositions:
    """See the module. `changed` is to be followed by `save`, which may run on another thread."""

    def __init__(self, directory: Directory, log_id: int) -> None:
        self._directory = directory
        self._log_id = log_id
        self.problem = ""
        """Why nothing can be remembered here, in words; "" if it can."""
        self._sequences: dict[str, int] = {}
        self._changes = 0
        self._saved = 0
        self._lock: FolderLock | None = None
        try:
            directory.create()
            self._lock = directory.lock()
            self._sequences = self._read()
        except (StorageError, OSError) as error:
            self.problem = f"this reader remembers no named positions: {error}"
            _log.warning("bezant: %s", self.problem)

    def _read(self) -> dict[str, int]:
        if FILE_NAME not in self._directory.names():
            return {}
        file = self._directory.open(FILE_NAME, writable=False)
        try:
            content = file.read(_FILE_SIZE_MAX, 0)
        finally:
            file.close()
        encoded = content[_CHECKSUM_SIZE:]
        if xxhash.xxh3_64_intdigest(encoded).to_bytes(_CHECKSUM_SIZE, "little") != content[:_CHECKSUM_SIZE]:
            raise StorageError(f"{file.path} is damaged: remove it if what was acknowledged may be forgotten")
        try:
            found = msgspec.msgpack.decode(encoded, type=_File)
        except msgspec.MsgspecError as error:
            raise StorageError(f"{file.path} makes no sense: {error}") from error
        if found.log_id != self._log_id:
            raise StorageError(f"{file.path} belongs to another log")
        return found.sequences

    def get(self, name: str) -> int | None:
        """The sequence that was acknowledged under a name; None if none was. Raises `UsageError`."""
        self._check()
        return self._sequences.get(name)

    def set(self, name: str, sequence: int) -> int:
        """Remember a sequence unless a later one is; returns the number of changes that must be saved. Raises
        `UsageError`."""
        self._check()
        if name not in self._sequences and len(self._sequences) >= NAMES_MAX:
            raise UsageError(f"{NAMES_MAX} names are remembered already, and this reader takes no more")
        if sequence > self._sequences.get(name, -1):
            self._sequences[name] = sequence
            self._changes += 1
        return self._changes

    def _check(self) -> None:
        if self.problem:
            raise UsageError(self.problem)

    @property
    def saved(self) -> int:
        """How many changes are durable."""
        return self._saved

    def snapshot(self) -> tuple[int, bytes]:
        """The number of changes so far, and what the file must hold for them."""
        encoded = msgspec.msgpack.encode(_File(self._log_id, self._sequences))
        return self._changes, xxhash.xxh3_64_intdigest(encoded).to_bytes(_CHECKSUM_SIZE, "little") + encoded

    def write(self, content: bytes) -> None:
        """Make the file what a snapshot says, durably; on any thread. Raises `StorageError`."""
        self._directory.write_file(FILE_NAME, [content])

    def close(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            self._lock.release()

    def note_saved(self, changes: int) -> None:
        """So many changes are durable."""
        self._saved = max(self._saved, changes)
