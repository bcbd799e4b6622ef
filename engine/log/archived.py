"""Segments whose files have left the disk for an archive: a file beside the others says which, and where they are.

The mark is written, durably, before the first of those files goes, and whoever has the folder locked removes them: so
a file that is named there and is still here is one that is about to go, and counts as long as it is here. Those that
are gone are the first ones of the log, without a gap. Who reads the history finds them again through
`ArchivedSegments`, which has them fetched into a cache (``archive_cache.py``).
"""

import logging
import threading
from concurrent.futures import Executor
from typing import Final

import msgspec
import xxhash

from bezant.engine.log.archive_cache import CACHE_BYTES_DEFAULT, ArchivedSegment, fetch, open_cached
from bezant.engine.log.storage import Directory, LogFile
from bezant.protocol.errors import ArchiveUnavailable, CorruptLog, UnsupportedFormat

ARCHIVED_NAME: Final = "archived"
MARK_FORMAT_VERSION: Final = 1
_MAGIC: Final = b"BZNTARCH"
_CHECKSUM_SIZE: Final = 8
_HEAD_SIZE: Final = len(_MAGIC) + _CHECKSUM_SIZE

_log = logging.getLogger("bezant")


class ArchivedMark(msgspec.Struct, frozen=True):
    """What has left the disk: segments 1 to as many as there are, and the bytes that the cache of them may take."""

    format: int
    shard: int
    log_id: int
    segments: list[ArchivedSegment]
    cache_bytes_max: int = CACHE_BYTES_DEFAULT


class _Format(msgspec.Struct):
    """The one field that every version of the mark has."""

    format: int


def write_archived(directory: Directory, mark: ArchivedMark) -> None:
    """Say, durably, which segments are elsewhere; of none, nothing is said. Raises `StorageError`."""
    if not mark.segments:
        if ARCHIVED_NAME in directory.names():
            directory.remove(ARCHIVED_NAME)
        return
    encoded = msgspec.json.encode(mark)
    head = _MAGIC + xxhash.xxh3_64_intdigest(encoded).to_bytes(_CHECKSUM_SIZE, "little")
    directory.write_file(ARCHIVED_NAME, [head, encoded])


def read_archived(directory: Directory, shard: int | None) -> ArchivedMark | None:
    """Which segments are elsewhere; None if nothing says so. `shard` is the one that they must be of, None: whichever.

    Raises `CorruptLog`, `UnsupportedFormat`.
    """
    try:
        file = directory.open(ARCHIVED_NAME, writable=False)
    except FileNotFoundError:
        return None
    try:
        data = file.read(file.size(), 0)
    finally:
        file.close()
    encoded = data[_HEAD_SIZE:]
    checksum = xxhash.xxh3_64_intdigest(encoded).to_bytes(_CHECKSUM_SIZE, "little")
    damaged = f"{file.path}: it does not say, as it should, which segments are in an archive. Restore it from a copy"
    if data[:_HEAD_SIZE] != _MAGIC + checksum:
        raise CorruptLog(damaged)
    try:
        found = msgspec.json.decode(encoded, type=_Format).format
        if found > MARK_FORMAT_VERSION:
            raise UnsupportedFormat(f"{file.path} has format {found}, which a newer version of Bezant wrote")
        mark = msgspec.json.decode(encoded, type=ArchivedMark)
    except msgspec.DecodeError as error:
        raise CorruptLog(damaged) from error
    if shard not in (None, mark.shard) or [segment.number for segment in mark.segments] != list(
        range(1, len(mark.segments) + 1)
    ):
        raise CorruptLog(damaged)
    return mark


def is_archived(directory: Directory, name: str) -> bool:
    """Whether a segment file of this name has left the folder for an archive. Raises `CorruptLog`."""
    mark = read_archived(directory, None)
    return mark is not None and any(name == f"segment-{segment.number:010d}" for segment in mark.segments)


class ArchivedSegments:
    """The segments of one folder that are elsewhere. Any thread may use it."""

    def __init__(self, directory: Directory, shard: int) -> None:
        self._directory = directory
        self._shard = shard
        self._mark: ArchivedMark | None = None
        self._lock = threading.Lock()
        self._helper: Executor | None = None
        self._is_over = threading.Event()
        self._under_way: set[int] = set()
        self.waits = True
        """Whether who asks for a segment that has to be fetched waits for it; otherwise it is fetched meanwhile."""

    def load(self) -> ArchivedMark | None:
        """Look at the mark again. Raises `CorruptLog`, `UnsupportedFormat`."""
        self._mark = read_archived(self._directory, self._shard)
        return self._mark

    @property
    def segments(self) -> list[ArchivedSegment]:
        """Those that were elsewhere when the mark was looked at, from the first one on."""
        mark = self._mark
        return [] if mark is None else mark.segments

    @property
    def log_id(self) -> int:
        """Number of the log that they are of; 0 if there are none."""
        return 0 if self._mark is None else self._mark.log_id

    def open(self, number: int) -> LogFile | None:
        """The file of a segment, of the bytes that were archived; None if it is not one of these.

        Raises `ArchiveUnavailable` if it cannot be had, or, where nobody is to wait, is being fetched.
        """
        if number > len(self.segments):
            self.load()  # It went when this had been looked at.
        if not 0 < number <= len(self.segments):
            return None
        segment = self.segments[number - 1]
        file = open_cached(self._directory, segment, checks=self.waits)
        if file is None and not self.waits:
            self._fetch_meanwhile(segment)
            raise ArchiveUnavailable(
                f"{segment.place} is being fetched, because entries {segment.first_index} to {segment.last_index} are "
                "asked for: try again"
            )
        return file or self._fetch(segment)

    def _fetch(self, segment: ArchivedSegment) -> LogFile:
        mark = self._mark
        cache_bytes_max = CACHE_BYTES_DEFAULT if mark is None else mark.cache_bytes_max
        fetch(self._directory, segment, cache_bytes_max, self._is_over.is_set)
        file = open_cached(self._directory, segment, checks=True)
        if file is None:
            raise ArchiveUnavailable(
                f"{segment.place} was fetched, and others have taken its room since: the cache is too small for who "
                "uses it at the same time"
            )
        return file

    def _fetch_meanwhile(self, segment: ArchivedSegment) -> None:
        """Fetch it on a thread, unless that is being done; segments one after the other."""
        with self._lock:
            if segment.number in self._under_way:
                return
            self._under_way.add(segment.number)
            self._helper = self._helper or self._directory.helper("bezant-archive")
            self._helper.submit(self._fetch_quietly, segment)

    def _fetch_quietly(self, segment: ArchivedSegment) -> None:
        try:
            file = open_cached(self._directory, segment, checks=True) or self._fetch(segment)
            file.close()
        except ArchiveUnavailable as error:
            _log.warning("bezant: %s", error)  # Who asks again has it tried again.
        finally:
            with self._lock:
                self._under_way.discard(segment.number)

    def close(self) -> None:
        """Fetch nothing more."""
        self._is_over.set()
        with self._lock:
            helper, self._helper = self._helper, None
        if helper is not None:
            helper.shutdown(wait=True, cancel_futures=True)
