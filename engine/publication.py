"""The published position: how far other processes may read the log that one process writes.

One page in the file ``published`` beside the segments, mapped at both ends. Whoever drives the log stores the index of
the last entry that is both committed and durable here; who follows reads it. It is never synced and nothing rests on
it: entries up to there are on the disk and are never cut, so what is left of it after a crash names what is there, and
at worst it is old, which makes a reader late. A reader does not believe a page of another log, or no page at all.

    offset  0  magic `BZPUBLSH`
    offset  8  int64 log_id
    offset 16  int64 index of the last published entry; one aligned store, so it is never seen in part
    offset 24  int64 1 while the reader that has the other end of the wake-up waits, else 0

Before it sleeps a reader says that it waits and then looks once more; the publisher stores and then looks whether
somebody waits. Nothing orders the two across processors but the time that they take, so a wake-up may be missed: a
reader that waits also looks by itself every so often.
"""

import logging
import mmap
import os
import stat
from pathlib import Path
from typing import Final

from bezant.protocol.errors import StorageError

PUBLISHED_NAME: Final = "published"
PUBLISHED_SIZE: Final = 4096
"""Bytes of the file."""
PUBLISHED_MAGIC: Final = b"BZPUBLSH"

_MAGIC_WORD: Final = int.from_bytes(PUBLISHED_MAGIC, "little", signed=True)
_MAGIC_AT, _LOG_ID_AT, _INDEX_AT, _WAITING_AT = range(4)
"""Places of the fields, in words of 8 bytes."""
NO_DESCRIPTOR: Final = -1

_log = logging.getLogger("bezant")


class Publisher:
    """The end of the process that drives the log."""

    def __init__(self, folder: Path, log_id: int) -> None:
        """Publish nothing of this log yet; `folder` is that of its segments. Raises `StorageError`."""
        path = folder / PUBLISHED_NAME
        try:
            descriptor = _open(path, os.O_RDWR | os.O_CREAT)
            try:
                if os.fstat(descriptor).st_size < PUBLISHED_SIZE:
                    # Real zeros: a store into a hole would end the process if the disk were full.
                    os.pwrite(descriptor, bytes(PUBLISHED_SIZE), 0)
                self._mapping = mmap.mmap(descriptor, PUBLISHED_SIZE)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: the position cannot be published: {error}") from error
        self._words = memoryview(self._mapping).cast("q")
        self.index = 0
        """What was published last."""
        self.wake_descriptor = NO_DESCRIPTOR
        """An eventfd (Linux, eventfd(2)) of the reader that says when it waits; none if there is no such reader."""
        for place, value in ((_MAGIC_AT, 0), (_INDEX_AT, 0), (_WAITING_AT, 0), (_LOG_ID_AT, log_id)):
            self._words[place] = value
        self._words[_MAGIC_AT] = _MAGIC_WORD

    def publish(self, index: int) -> None:
        """Let entries be read up to this index: all of them are committed, and durable in this log."""
        if index <= self.index:
            return
        self.index = index
        words = self._words
        words[_INDEX_AT] = index
        if words[_WAITING_AT] and self.wake_descriptor != NO_DESCRIPTOR:
            words[_WAITING_AT] = 0
            os.eventfd_write(self.wake_descriptor, 1)

    def close(self) -> None:
        """Publish no more; what was published stands. May be called again."""
        self._words.release()
        self._mapping.close()


def make_publisher(folder: Path, log_id: int) -> Publisher | None:
    """What publishes a log; None if its folder does not let it be made, which is no reason not to serve."""
    try:
        return Publisher(folder, log_id)
    except StorageError as error:
        _log.warning("bezant: %s. Whoever follows the log of this node is late until that is seen to", error)
        return None


class Publication:
    """The end of a process that reads."""

    def __init__(self, folder: Path, log_id: int) -> None:
        """Follow what is published of this log. The file need not be there yet."""
        self._path = folder / PUBLISHED_NAME
        self._log_id = log_id
        self._words: memoryview | None = None
        self._mapping: mmap.mmap | None = None
        self._inode = 0
        self.refresh()

    def refresh(self) -> None:
        """Look for the file again: it may have been made meanwhile, or made anew. Cheap, but not for every look."""
        try:
            found = self._path.stat(follow_symlinks=False)
        except OSError:
            return
        if found.st_ino == self._inode or found.st_size < PUBLISHED_SIZE:
            return
        writable = True
        try:
            descriptor = _open(self._path, os.O_RDWR)
        except OSError:
            try:
                descriptor, writable = _open(self._path, os.O_RDONLY), False
            except OSError:
                return
        try:
            mapping = mmap.mmap(descriptor, PUBLISHED_SIZE, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        except (OSError, ValueError):
            return
        finally:
            os.close(descriptor)
        self.close()
        self._mapping, self._words, self._inode = mapping, memoryview(mapping).cast("q"), found.st_ino

    @property
    def index(self) -> int:
        """Index of the last published entry; 0 if nothing is, or if the page is not one of this log."""
        words = self._words
        if words is None or words[_MAGIC_AT] != _MAGIC_WORD or words[_LOG_ID_AT] != self._log_id:
            return 0
        return max(words[_INDEX_AT], 0)

    def announce_waiting(self) -> None:
        """Say that this reader is about to wait for its wake-up; it must look at `index` once more before it does."""
        if self._words is not None and not self._words.readonly:
            self._words[_WAITING_AT] = 1

    def close(self) -> None:
        """Let go of the file. May be called again."""
        if self._words is not None and self._mapping is not None:
            self._words.release()
            self._mapping.close()
        self._words = self._mapping = None
        self._inode = 0


def _open(path: Path, flags: int) -> int:
    """Open a regular file and nothing that a link leads to."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return descriptor
