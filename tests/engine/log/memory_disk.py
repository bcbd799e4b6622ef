"""A disk in memory that loses power: it knows what was written and what a sync has made durable.

A killed process keeps its page cache, so a log that never synced would pass every test that kills one. Here, what was
not synced when the power went is, sector by sector, old, new or garbage.
"""

import errno
import random
import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Final

import numpy as np
from typing_extensions import Buffer

from bezant.engine.log.storage import UNFINISHED_SUFFIX, Directory, LogFile
from bezant.protocol.errors import StorageError
from bezant.protocol.records import Bytes

SECTOR_SIZE: Final = 512


class PowerCut(Exception):
    """The power has gone; nothing that is done from now on has an effect."""


class MemoryDisk(Directory):
    """A folder in memory. `steps_left` counts writes and syncs of open files down to the moment the power goes."""

    def __init__(self, before: "MemoryDisk | None" = None, *, steps_left: int = 1 << 30) -> None:
        """`before` is the disk as another process has left it, page cache included."""
        super().__init__(Path("memory"))
        self.steps_left = steps_left
        self.durable: dict[str, bytes] = {}
        self.current: dict[str, bytearray] = {}
        self._making = threading.Lock()
        """The next segment is made by a thread, perhaps while the disk is copied."""
        if before is not None:
            with before._making:
                self.durable = dict(before.durable)
                self.current = {name: bytearray(data) for name, data in before.current.items()}
        self._paths: dict[str, Path] = {}

    @property
    def is_dead(self) -> bool:
        return self.steps_left <= 0

    def step(self) -> None:
        """One write or sync is done, unless the power goes in the middle of it."""
        self.steps_left -= 1
        if self.is_dead:
            raise PowerCut

    def path_of(self, name: str) -> Path:
        """The path of a file, made once: files are opened again and again."""
        path = self._paths.get(name)
        if path is None:
            path = self._paths[name] = self.path / name
        return path

    def create(self) -> None:
        pass

    def names(self) -> list[str]:
        return sorted(self.current)

    def open(self, name: str, *, writable: bool) -> LogFile:
        return MemoryFile(self, name, writable=writable)

    def create_file(self, name: str, size: int, head: Buffer = b"") -> None:
        """At once and durable: a file that is half made has another name, and is removed."""
        if self.is_dead:
            raise StorageError("the power has gone")
        head = bytes(head)
        with self._making:
            self.durable[name] = head + bytes(size - len(head))
            self.current[name] = bytearray(self.durable[name])

    def write_file_stepwise(self, name: str, chunks: Iterable[Buffer]) -> Generator[int, None, None]:
        """Under another name, and each chunk durable at once, as it may be, until all of it is there."""
        made = f"{name}{UNFINISHED_SUFFIX}"
        data = self.current[made] = bytearray()
        self.durable[made] = b""
        try:
            for chunk in chunks:
                data += bytes(chunk)
                self.durable[made] = bytes(data)
                self.step()
                yield len(data)
            self.step()
        except BaseException:
            if not self.is_dead and self.current.get(made) is data:  # else it is another process's by now, or gone
                del self.current[made], self.durable[made]
            raise
        self.current[name], self.durable[name] = self.current.pop(made), self.durable.pop(made)
        yield len(data)

    def rename(self, name: str, wanted: str) -> None:
        """At once and durable, as a rename is when its folder has been synced."""
        self.move(name, self, wanted)

    def move(self, name: str, folder: Directory, wanted: str) -> None:
        if self.is_dead:
            raise StorageError("the power has gone")
        if name not in self.current or not isinstance(folder, MemoryDisk):
            raise StorageError(f"{name} cannot be moved")
        folder.current[wanted], folder.durable[wanted] = self.current.pop(name), self.durable.pop(name)

    def remove(self, name: str) -> None:
        if name not in self.current:
            raise StorageError(f"{name} cannot be removed")
        del self.current[name], self.durable[name]

    def free_bytes(self) -> int:
        return 1 << 40

    def is_durable(self) -> bool:
        return True

    def remove_unfinished(self) -> None:
        for name in self.names():
            if name.endswith(UNFINISHED_SUFFIX):
                del self.current[name], self.durable[name]

    def lose_power(self, chance: random.Random) -> None:
        """Forget the page cache: every sector that was not synced is as chance has it."""
        for name in self.names():
            self.durable[name] = _torn(self.durable[name], bytes(self.current[name]), chance)
            self.current[name] = bytearray(self.durable[name])


class MemoryFile(LogFile):
    """An open file of a `MemoryDisk`."""

    def __init__(self, disk: MemoryDisk, name: str, *, writable: bool) -> None:  # it has no descriptor
        self.path = disk.path_of(name)
        self._disk = disk
        self._name = name
        self._writable = writable
        if name not in disk.current:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", str(self.path))
        self._file = disk.current[name]
        """What is read stays there when the name is given to another file, or removed."""

    def write(self, buffers: list[Buffer], offset: int) -> None:
        if self._disk.is_dead:
            raise PowerCut
        if not self._writable:
            raise OSError("the file is open for reading only")
        data = b"".join(buffers)
        self._disk.current[self._name][offset : offset + len(data)] = data
        self._disk.step()

    def write_durably(self, buffers: list[Buffer], offset: int) -> None:
        self.write(buffers, offset)
        self.sync()

    def sync(self) -> None:
        self._disk.step()
        self._disk.durable[self._name] = bytes(self._disk.current[self._name])

    def read(self, size: int, offset: int) -> bytes:
        return bytes(self._file[offset : offset + size])

    def read_into(self, buffer: Buffer, offset: int) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view), offset)
        view[: len(data)] = data
        return len(data)

    def leave_cache(self) -> None:
        pass

    def size(self) -> int:
        return len(self._file)

    def map(self, *, at_random: bool = False) -> Bytes:
        mapping = np.frombuffer(self._file, np.uint8)
        mapping.flags.writeable = False
        return mapping

    def close(self) -> None:
        pass


def _torn(durable: bytes, current: bytes, chance: random.Random) -> bytes:
    if durable == current:
        return durable
    lost = chance.choice([0.0, 0.1, 0.5, 0.9])  # most crashes tear a little or lose nearly everything
    garbage = chance.choice([0.0, 0.0, 0.1])
    result = bytearray(current)
    for start in range(0, len(current), SECTOR_SIZE):
        sector = slice(start, start + SECTOR_SIZE)
        old, new = np.frombuffer(durable[sector], np.uint8), np.frombuffer(current[sector], np.uint8)
        changed = np.flatnonzero(old != new)
        if not len(changed):
            continue
        lot = chance.random()
        if lot < lost:
            result[sector] = durable[sector]
        elif lot < lost + garbage:
            # Of the bytes that were being written, and no others: those before them were synced and are in place.
            first, end = start + int(changed[0]), start + int(changed[-1]) + 1
            result[first:end] = chance.randbytes(end - first)
    return bytes(result)
