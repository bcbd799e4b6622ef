"""RocksDB: what must change together. A few large values, each written seldom, since a write holds the interpreter.

::

    identity              whose this is, and by which settings it was made
    manifest              how far the files go, and which of them count
    accounts/NNNNNNNN     a block of accounts, in the order of opening
    resume                where a log can be opened without walking it from its beginning
"""

import shutil
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from bezant.engine.ids.run import RunInfo
from bezant.engine.log.resume import ResumePoint
from bezant.engine.projections.span import SpanInfo
from bezant.protocol.errors import StorageError

FORMAT_VERSION: Final = 1
_IDENTITY: Final = b"identity"
_MANIFEST: Final = b"manifest"
_RESUME: Final = b"resume"
_ACCOUNTS: Final = b"accounts/%08d"
_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_WRITE_BUFFER_SIZE: Final = 16 << 20
_LOG_FILES_KEPT: Final = 2


class Identity(msgspec.Struct, frozen=True):
    """Whose projections these are. With any other than the one expected they are made anew."""

    format_version: int
    log_id: str
    """The public one."""
    shard: int
    block_events: int
    blocks_per_seal: int


class Manifest(msgspec.Struct, frozen=True):
    """What is durable: everything up to `sequence`, in these files. Salts are those of all hashes of ids."""

    salts: tuple[int, int]
    sequence: int = 0
    index: int = 0
    """Of the entry that has that event, or a later one without events; 0 before any."""
    timestamp_ns: int = 0
    spans: tuple[SpanInfo, ...] = ()
    runs: tuple[RunInfo, ...] = ()
    """Newest first."""
    account_count: int = 0
    currencies: tuple[tuple[str, int], ...] = ()
    """Codes and decimals, in the order of registration."""
    number_next: int = 1


class Store:
    """The database in one folder. Only one process may have it open."""

    def __init__(self, path: Path) -> None:
        """Opens it, or makes it. Raises `StorageError` if it is damaged, or somebody has it open."""
        self.path = path
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_SIZE)
        options.set_keep_log_file_num(_LOG_FILES_KEPT)
        options.set_paranoid_checks(True)
        try:
            self._database = Rdict(str(path), options)
        except Exception as error:  # the library raises nothing more special
            raise StorageError(f"{path}: the database cannot be opened: {error}") from error
        self._synced = WriteOptions()
        self._synced.sync = True

    def read_identity(self) -> Identity | None:
        """Whose it is; None if it is new. Raises `StorageError`."""
        return self._read(_IDENTITY, Identity)

    def read_manifest(self) -> Manifest | None:
        """What is durable; None if nothing is. Raises `StorageError`."""
        return self._read(_MANIFEST, Manifest)

    def read_resume_point(self) -> ResumePoint | None:
        """Where a log can be opened; None if no such place is known. Raises `StorageError`."""
        return self._read(_RESUME, ResumePoint)

    def read_accounts(self, block: int) -> bytes:
        """A block of accounts. Raises `StorageError`."""
        value = self._get(_ACCOUNTS % block)
        if value is None:
            raise StorageError(f"{self.path}: the block {block} of accounts is missing")
        return value

    def write(
        self,
        *,
        manifest: Manifest,
        identity: Identity | None = None,
        accounts: dict[int, bytes] | None = None,
        resume_point: ResumePoint | None = None,
    ) -> None:
        """Write all of this, or nothing of it, durably. Raises `StorageError`."""
        batch = WriteBatch(raw_mode=True)
        batch.put(_MANIFEST, msgspec.msgpack.encode(manifest))
        if identity is not None:
            batch.put(_IDENTITY, msgspec.msgpack.encode(identity))
        for block, rows in (accounts or {}).items():
            batch.put(_ACCOUNTS % block, rows)
        if resume_point is not None:
            batch.put(_RESUME, msgspec.msgpack.encode(resume_point))
        try:
            self._database.write(batch, self._synced)
        except Exception as error:
            raise StorageError(f"{self.path}: the database does not take a write: {error}") from error

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def _get(self, key: bytes) -> bytes | None:
        try:
            value: Any = self._database.get(key)
        except Exception as error:
            raise StorageError(f"{self.path}: the database cannot be read: {error}") from error
        return None if value is None else bytes(value)

    def _read(self, key: bytes, kind: type[_Kind]) -> _Kind | None:
        value = self._get(key)
        if value is None:
            return None
        try:
            return msgspec.msgpack.decode(value, type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StorageError(f"{self.path}: {key.decode()} cannot be read: {error}") from error


def remove_store(path: Path) -> None:
    """Remove a database, damaged or not. Raises `StorageError`."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror}") from error
