"""The disk of a simulated node: folders in memory that lose power, fail to sync, and rot.

It extends the disk that the log's own tests lose power with. What that calls a step, a write or a sync of an open file,
is where a node may be stopped half-way.
"""

import errno
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from typing_extensions import Buffer

from bezant.engine.log.storage import Directory, FolderLock, LogFile
from bezant.protocol.errors import DataFolderInUse

from ..engine.log.memory_disk import MemoryDisk, MemoryFile, PowerCut

STEPS_UNBOUNDED = 1 << 60

_Result = TypeVar("_Result")


class AtOnce(Executor):
    """Does what it is given at once: a simulated node has no threads, so that a seed replays."""

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> "Future[_Result]":
        future: Future[_Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class SimulatedLock(FolderLock):
    """Finds a node that opens a folder which it has open already."""

    def __init__(self, folder: "Folder") -> None:
        self._folder: Folder | None = folder
        if folder.is_locked:
            raise DataFolderInUse(f"{folder.path} is in use")
        folder.is_locked = True

    def release(self) -> None:
        if self._folder is not None:
            self._folder.is_locked = False
            self._folder = None


class Disk:
    """All folders of a node. Nothing of it survives `wipe`, and `steps_left` counts down to the moment it stops."""

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {}
        self.steps_left = STEPS_UNBOUNDED
        self.step_count = 0
        self.fails_next_sync = False
        self.free_bytes = 1 << 40

    @property
    def root(self) -> "Folder":
        """The data folder."""
        return self.folder("")

    def folder(self, name: str) -> "Folder":
        if name not in self.folders:
            self.folders[name] = Folder(self, name)
        return self.folders[name]

    def kill(self) -> None:
        """The process is gone; what it wrote is in the page cache."""
        self.steps_left = STEPS_UNBOUNDED
        self.fails_next_sync = False
        for folder in self.folders.values():
            folder.is_locked = False

    def lose_power(self, chance: random.Random) -> None:
        """The page cache is gone as well."""
        self.kill()
        for name in sorted(self.folders):
            self.folders[name].lose_power(chance)

    def flip(self, folder: str, name: str, offset: int, bit: int) -> int:
        """Rot: one bit of a file, for the page cache and the disk alike. Returns the byte as it was."""
        files = self.folders[folder]
        before = files.durable[name][offset]
        files.current[name][offset] ^= 1 << bit
        rotten = bytearray(files.durable[name])
        rotten[offset] ^= 1 << bit
        files.durable[name] = bytes(rotten)
        return before

    def restore(self, folder: str, name: str, offset: int, byte: int) -> None:
        """Bring a byte back from a copy."""
        files = self.folders[folder]
        restored = bytearray(files.durable[name])
        restored[offset] = files.current[name][offset] = byte
        files.durable[name] = bytes(restored)


class Folder(MemoryDisk):
    """One folder of a `Disk`."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        self.is_locked = False
        super().__init__()
        self.path = self.path / name if name else self.path

    @property
    def steps_left(self) -> int:
        return self._disk.steps_left

    @steps_left.setter
    def steps_left(self, steps: int) -> None:
        """`MemoryDisk` begins with a number of its own."""

    def step(self) -> None:
        self._disk.step_count += 1
        self._disk.steps_left -= 1
        if self.is_dead:
            raise PowerCut

    def subdirectory(self, name: str) -> Directory:
        return self._disk.folder(f"{self._name}/{name}" if self._name else name)

    def open(self, name: str, *, writable: bool) -> LogFile:
        return SimulatedFile(self, name, writable=writable)

    def lock(self) -> FolderLock:
        return SimulatedLock(self)

    def helper(self, name: str) -> Executor:
        return AtOnce()

    def free_bytes(self) -> int:
        return self._disk.free_bytes

    def takes_sync(self) -> bool:
        """Whether a sync works; after one that does not, the kernel takes for written what it has lost."""
        fails, self._disk.fails_next_sync = self._disk.fails_next_sync, False
        return not fails


class SimulatedFile(MemoryFile):
    """An open file; a sync makes durable what was written through it since the last one that was tried."""

    def __init__(self, folder: Folder, name: str, *, writable: bool) -> None:
        super().__init__(folder, name, writable=writable)
        self._folder = folder
        self._dirty: list[tuple[int, int]] = []

    def write(self, buffers: list[Buffer], offset: int) -> None:  # type: ignore[override]
        data = b"".join(buffers)
        self._dirty.append((offset, offset + len(data)))
        super().write([data], offset)

    def sync(self) -> None:
        self._folder.step()
        dirty, self._dirty = self._dirty, []
        if not self._folder.takes_sync():
            raise OSError(errno.EIO, "the disk has not taken it")
        current, durable = self._folder.current[self._name], bytearray(self._folder.durable[self._name])
        for start, end in dirty:
            durable[start:end] = current[start:end]
        self._folder.durable[self._name] = bytes(durable)
