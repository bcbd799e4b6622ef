"""Files: how the engine touches the file system. A simulator replaces `LogFile` and `Directory`, and needs no lock.

Besides, `file_system.py` asks what kind of disk it is, and whoever takes a data folder apart for a person
(`bezant.engine.doctor`) opens its files to read.

Assumptions about disks: a write that `fdatasync` has covered survives; one that it has not covered may be lost, torn at
any byte or reordered with others since the last sync, and touches no byte outside of itself (powersafe overwrite: see
``README.md``); a rename is durable once its directory is synced.
"""

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from typing_extensions import Buffer

from bezant.engine.log.file_system import file_system_type, is_memory
from bezant.protocol.errors import DataFolderInUse, StorageError
from bezant.protocol.records import Bytes

IO_VECTORS_MAX: Final = 1024
"""Buffers that one `pwritev` takes (IOV_MAX)."""
ZERO_CHUNK_SIZE: Final = 1 << 20
"""Zeros written at a time when a file is made; small enough not to hold up syncs of other files."""
PAGE_SIZE: Final = 4096
"""Bytes of a page of the page cache."""
SYNC_DISTANCE: Final = 4 << 20
"""Bytes written between two syncs of a file that is made of chunks, for the same reason."""
READ_SIZE_MAX: Final = 64 << 20
"""Bytes that one system call is asked to read."""
UNFINISHED_SUFFIX: Final = ".new"
"""Ends the name of a file that is being made."""
LOCK_NAME: Final = "lock"
_HOLDER_SIZE_MAX: Final = 32
"""Bytes of a lock file that are believed to name a process."""


class LogFile:
    """One open file, written at offsets and read through a mapping; closed at the latest when nobody has it."""

    _descriptor = -1

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self._descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write buffers one after the other, starting at a byte offset."""
        self._write(buffers, offset, 0)

    def write_durably(self, buffers: Sequence[Buffer], offset: int) -> None:
        """The same, and return when what was written is on the disk: `write` and `sync` in one system call."""
        self._write(buffers, offset, os.RWF_DSYNC)

    def _write(self, buffers: Sequence[Buffer], offset: int, flags: int) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        while views:
            written = os.pwritev(self._descriptor, views[:IO_VECTORS_MAX], offset, flags)
            offset += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        os.fdatasync(self._descriptor)

    def read(self, size: int, offset: int) -> bytes:
        """Read up to `size` bytes at an offset."""
        return os.pread(self._descriptor, size, offset)

    def read_into(self, buffer: Buffer, offset: int) -> int:
        """Read from an offset until the buffer is full or the file ends; how many bytes it was."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            size = os.preadv(self._descriptor, [view[done : done + READ_SIZE_MAX]], offset + done)
            if not size:
                break
            done += size
        return done

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._descriptor).st_size

    def map(self, *, at_random: bool = False) -> Bytes:
        """The whole file as a read-only array that shows what is written later, too.

        `at_random`: only the pages that are used are read, not those behind them.
        """
        mapping = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        if at_random:
            mapping.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapping, np.uint8)

    def leave_cache(self) -> None:
        """Have the page cache forget what is on the disk, and not mapped by anybody."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file; mappings stay."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class Directory:
    """One folder of log files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def subdirectory(self, name: str) -> "Directory":
        """A folder within this one, there or not."""
        return Directory(self.path / name)

    def create(self) -> None:
        """Make the folder and those above it, durably, if they are not there. Raises `StorageError`."""
        try:
            missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            for path in missing:
                _sync_directory(path.parent)
        except OSError as error:
            raise StorageError(
                f"{self.path}: the folder cannot be made: {error.strerror}: give one that can be, and that you may "
                "write to"
            ) from error

    def lock(self) -> "FolderLock":
        """Keep other processes out of the folder. Raises `DataFolderInUse`, `StorageError`."""
        return FolderLock(self.path)

    def helper(self, name: str) -> Executor:
        """A thread that does one thing after another, for work on these files that nobody should wait for."""
        return ThreadPoolExecutor(1, name)

    def names(self) -> list[str]:
        """Names of the files in the folder, sorted."""
        with os.scandir(self.path) as entries:  # It knows what is a file without a call for each.
            return sorted(entry.name for entry in entries if entry.is_file())

    def open(self, name: str, *, writable: bool) -> LogFile:
        """Open a file that exists."""
        return LogFile(self.path / name, writable=writable)

    def create_file(self, name: str, size: int, head: Buffer = b"") -> None:
        """Make a file of `head` and zeros; it appears under its name only when all of it is durable.

        Raises `StorageError`, having left nothing behind that takes up room.
        """
        temporary = self.path / f"{name}{UNFINISHED_SUFFIX}"
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                _write_zeros(temporary, descriptor, size)
                _write_all(descriptor, memoryview(head).cast("B"), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(self.path / name)
            _sync_directory(self.path)
        except OSError as error:
            _remove_made(temporary)
            raise StorageError(f"{temporary}: cannot make a file of {size} bytes: {error.strerror}") from error

    def write_file(self, name: str, chunks: Iterable[Buffer]) -> int:
        """Make a file of chunks; it appears under its name only when all of it is durable. Returns its size in bytes.

        Raises `StorageError` when the disk does not take it, or what the chunks raise, having left nothing behind.
        """
        size = 0
        for size in self.write_file_stepwise(name, chunks):  # noqa: B007 - the last one is the size of the file
            pass
        return size

    def write_file_stepwise(self, name: str, chunks: Iterable[Buffer]) -> Generator[int, None, None]:
        """`write_file` in steps, a chunk each and one to end it: yields how many bytes are written so far.

        A chunk is not looked at again once the next one is asked for. The file is there, and durable, when the iterator
        is exhausted; one that is closed before leaves nothing behind.
        """
        made = self.path / f"{name}{UNFINISHED_SUFFIX}"
        size = 0
        try:
            descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                for chunk in chunks:
                    size = _write_syncing(descriptor, memoryview(chunk).cast("B"), size)
                    yield size
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            made = made.rename(self.path / name)
            _sync_directory(self.path)
        except OSError as error:
            _remove_made(made)
            raise StorageError(f"{made}: cannot make a file of {size} bytes or more: {error.strerror}") from error
        except BaseException:
            _remove_made(made)
            raise
        yield size

    def rename(self, name: str, wanted: str) -> None:
        """Give a file another name, durably. Raises `StorageError`."""
        self.move(name, self, wanted)

    def move(self, name: str, folder: "Directory", wanted: str) -> None:
        """Move a file to a folder on the same file system, under a name, durably. Raises `StorageError`."""
        try:
            (self.path / name).rename(folder.path / wanted)
            _sync_directory(folder.path)
            if folder.path != self.path:
                _sync_directory(self.path)
        except OSError as error:
            raise StorageError(
                f"{self.path / name}: cannot be moved to {folder.path / wanted}: {error.strerror}"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, durably; what maps it keeps it. Raises `StorageError`."""
        try:
            (self.path / name).unlink()
            _sync_directory(self.path)
        except OSError as error:
            raise StorageError(f"{self.path / name}: cannot be removed: {error.strerror}") from error

    def free_bytes(self) -> int:
        """Bytes that the file system has left for us."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def is_durable(self) -> bool:
        """Whether what is synced here survives a power cut: false on a file system that lives in memory."""
        return not is_memory(file_system_type(self.path))

    def remove_unfinished(self) -> None:
        """Remove what a crash left of files that were being made. Raises `StorageError`."""
        for path in self.path.glob(f"*{UNFINISHED_SUFFIX}"):
            try:
                _remove_made(path)
            except OSError as error:
                raise StorageError(f"{path}: cannot be removed: {error.strerror}") from error


def as_directory(folder: Path | Directory) -> Directory:
    """A folder by its path, or as it is given."""
    return folder if isinstance(folder, Directory) else Directory(folder)


class FolderLock:
    """Keeps other processes out of a data folder for as long as this one lives."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataFolderInUse`, and `StorageError` if the folder cannot be locked at all."""
        path = folder / LOCK_NAME
        self._descriptor = -1
        try:
            self._descriptor = _open_lock(path, os.O_RDWR | os.O_CREAT)
            holder = _lock(self._descriptor, fcntl.LOCK_EX)
            if not holder:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            self.release()
            raise _unusable(path, error) from error
        if holder:
            self.release()
            raise DataFolderInUse(f"{folder} is in use by process {holder}")

    def release(self) -> None:
        """Let others in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LookingLock:
    """Keeps out of a data folder whoever would write to it, shared with others who only look; changes nothing.

    `holder`: the process that has the folder, so that the lock could not be had; "" if none has it. Without a lock file
    there is nothing to hold: no process has ever had the folder, or it is a copy.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StorageError` if the lock file is none."""
        path = folder / LOCK_NAME
        self.holder = ""
        self._descriptor = -1
        try:
            self._descriptor = _open_lock(path, os.O_RDONLY)
            self.holder = _lock(self._descriptor, fcntl.LOCK_SH)
        except FileNotFoundError:
            return
        except OSError as error:
            self.release()
            raise _unusable(path, error) from error

    def release(self) -> None:
        """Let others in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open_lock(path: Path, flags: int) -> int:
    """Open a lock file: what a link leads to is not touched, and nobody waits for the other end of a pipe."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def _lock(descriptor: int, how: int) -> str:
    """Lock a file; returns "" or, if another process has it, that process."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        told = os.pread(descriptor, _HOLDER_SIZE_MAX, 0)
        return told.decode() if told.isdigit() else "unknown"
    return ""


def _unusable(path: Path, error: OSError) -> StorageError:
    why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
    return StorageError(
        f"{path}: cannot be locked: {why}: see to the rights of the folder and, if no node made it, remove what lies "
        "in the place of this file"
    )


def _remove_made(path: Path) -> None:
    """Remove a file that is not finished, if it is there; a folder of that name is left to whoever made it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)


def _write_zeros(path: Path, descriptor: int, size: int) -> None:
    """Fill a new file with zeros: past the page cache where the file system lets us, because nobody will read them.

    What is behind the last whole page, and all of it elsewhere, goes through the cache.
    """
    zeros = memoryview(mmap.mmap(-1, ZERO_CHUNK_SIZE))  # It begins with a page, as the disk wants it.
    whole = size - size % PAGE_SIZE
    try:
        direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            for offset in range(0, whole, ZERO_CHUNK_SIZE):
                _write_all(direct, zeros[: whole - offset], offset)
        finally:
            os.close(direct)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        whole = 0
    for offset in range(whole, size, ZERO_CHUNK_SIZE):
        _write_all(descriptor, zeros[: size - offset], offset)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of it; a disk that is nearly full takes a part and then fails."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _write_syncing(descriptor: int, data: memoryview, offset: int) -> int:
    """Write all of it, and sync at every multiple of `SYNC_DISTANCE` in the file; the offset behind it."""
    while data:
        part = data[: SYNC_DISTANCE - offset % SYNC_DISTANCE]
        _write_all(descriptor, part, offset)
        data, offset = data[len(part) :], offset + len(part)
        if offset % SYNC_DISTANCE == 0:
            os.fdatasync(descriptor)
    return offset


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
