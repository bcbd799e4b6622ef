"""Positions that clients have acknowledged, by name: here, in one small file that is written whole and synced before it
is told, and anywhere in the group, by entries of the log. What is later counts.

The folder is locked, so that of two readers on one data folder only one remembers. What the log does not have yet is
`pending`, for `forwarding.py` to have the leader make an entry of it.
"""

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Final

import msgspec
import xxhash

from bezant.engine.log.entry import Entry
from bezant.engine.log.storage import Directory, FolderLock
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import POSITION_NAMES_MAX
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import split_position

FILE_NAME: Final = "positions"
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
        self._replicated: dict[str, int] = {}
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
        replicated = self._replicated.get(name)
        if replicated is None:
            self._check()
        own = self._sequences.get(name)
        return replicated if own is None else max(own, replicated or 0)

    def learn(self, positions: Mapping[str, int]) -> None:
        """The log has positions by name, later than what it had before."""
        for name, position in positions.items():
            self._replicated[name] = split_position(position)[1]

    def take_in(self, entry: Entry) -> None:
        """Learn from an entry of kind CONTROL. Raises `CorruptLog`."""
        try:
            control = decode_control_entry(entry.body)
        except RemoteProtocolError as error:
            raise CorruptLog(f"control entry {entry.header.index} cannot be read: {error}") from error
        self.learn(control.positions)

    def pending(self, count: int) -> dict[str, int]:
        """Sequences by name, `count` of them at most, that are later than what the log has."""
        later = (item for item in self._sequences.items() if item[1] > self._replicated.get(item[0], -1))
        return dict(islice(later, count))

    def set(self, name: str, sequence: int) -> int:
        """Remember a sequence unless a later one is; returns the number of changes that must be saved. Raises
        `UsageError`."""
        self._check()
        is_known = name in self._sequences or name in self._replicated
        if not is_known and len(self._sequences.keys() | self._replicated.keys()) >= POSITION_NAMES_MAX:
            raise UsageError(f"{POSITION_NAMES_MAX} names are remembered already, for ever: take one of them")
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
