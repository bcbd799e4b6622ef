"""Files of archived segments that were fetched, in a folder beside the log: of a bounded size, those used last stay.

A file takes its place when its bytes have the digest that the archive was verified with, and each process checks that
once more before it uses a file that it finds. Nothing here is ever the only copy: the folder may be removed.

An archive in a folder is read here. Any other address is left to a program of its own (`FETCH_MODULE`), because the
engine has no network: it is given the address and the place of the file to make, and says on its error output what has
kept it from making it.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import blake3
import msgspec

from bezant.engine.child_status import tell_status
from bezant.engine.log.storage import UNFINISHED_SUFFIX, Directory, LogFile
from bezant.protocol.errors import ArchiveUnavailable

CACHE_NAME: Final = "archive-cache"
CACHE_BYTES_DEFAULT: Final = 1 << 30
"""Bytes on the disk that the cache of a shard takes, unless a single segment takes more."""
CACHE_FREE_BYTES: Final = 64 << 20
"""Bytes that stay free on the file system when a segment is fetched."""
FETCH_TIMEOUT_S: Final = 600.0
"""Seconds that the fetching of one segment may take."""
FETCH_POLL_S: Final = 0.1
"""Seconds between two looks at whether a segment that is being fetched is still wanted."""
FETCH_MODULE: Final = "bezant.net.archive.fetching"
UNFINISHED_AGE_S_MAX: Final = 2 * FETCH_TIMEOUT_S
"""Seconds after which a file that is being made is one that a process has left behind."""
CHECKED_MAX: Final = 4096
"""Files that a process remembers to have checked."""
_CHUNK_SIZE: Final = 1 << 20
_FILE_SCHEME: Final = "file://"
_NAME_PREFIX: Final = "segment-"

_fetching = threading.Lock()
"""One segment is fetched at a time by a process, so that many who ask for the same one fetch it once."""
_checked: "OrderedDict[tuple[str, int, int, int], None]" = OrderedDict()


def _never() -> bool:
    return False


class ArchivedSegment(msgspec.Struct, frozen=True):
    """A segment in an archive. `digest`: BLAKE3 (hexadecimal) of its first `size_bytes`; behind those are zeros.

    `path` is its place at the `target`, which is a folder or an address.
    """

    number: int
    first_index: int
    last_index: int
    size_bytes: int
    full_size_bytes: int
    digest: str
    target: str
    path: str

    @property
    def place(self) -> str:
        """What is where, in words."""
        return f"segment {self.number} in the archive {self.target}"

    @property
    def cached_name(self) -> str:
        """Name of its file in the cache."""
        return f"{_NAME_PREFIX}{self.number:010d}-{self.digest}"


def open_cached(directory: Directory, segment: ArchivedSegment, *, checks: bool) -> LogFile | None:
    """The file of a segment, if the cache has it and it is right; without `checks`, if that is known already."""
    folder = directory.subdirectory(CACHE_NAME)
    try:
        file = folder.open(segment.cached_name, writable=False)
        status = file.path.stat()
    except FileNotFoundError:
        return None
    key = (str(file.path), status.st_ino, status.st_mtime_ns, status.st_size)
    if key in _checked or (checks and _is_right(file, segment)):
        _checked[key] = None
        while len(_checked) > CHECKED_MAX:
            _checked.popitem(last=False)
        with suppress(OSError):  # Another process may have removed it; it stays open here.
            os.utime(file.path, ns=(time.time_ns(), status.st_mtime_ns))
        return file
    file.close()
    if checks:
        file.path.unlink(missing_ok=True)
    return None


def _is_right(file: LogFile, segment: ArchivedSegment) -> bool:
    if file.size() != segment.full_size_bytes:
        return False
    hasher, offset = blake3.blake3(), 0
    while offset < segment.size_bytes:
        part = file.read(min(_CHUNK_SIZE, segment.size_bytes - offset), offset)
        if not part:
            return False
        hasher.update(part)
        offset += len(part)
    return hasher.hexdigest() == segment.digest


def fetch(
    directory: Directory, segment: ArchivedSegment, cache_bytes_max: int, is_over: Callable[[], bool] = _never
) -> None:
    """Have the cache have a segment. Raises `ArchiveUnavailable`, in words that name the archive and the entries.

    `is_over` is asked now and then whether nobody wants it any more.
    """
    folder = directory.subdirectory(CACHE_NAME)
    made = folder.path / f"{segment.cached_name}.{os.getpid()}{UNFINISHED_SUFFIX}"
    with _fetching:
        file = open_cached(directory, segment, checks=True)
        if file is not None:
            file.close()
            return
        try:
            folder.path.mkdir(exist_ok=True)
            _make_room(folder.path, segment, cache_bytes_max)
            _carry(segment, made, is_over)
            _check(segment, made)
            os.truncate(made, segment.full_size_bytes)
            made.rename(folder.path / segment.cached_name)
        except OSError as error:
            raise unavailable(segment, f"{error.strerror or error}") from error
        finally:
            made.unlink(missing_ok=True)


def remove_others(directory: Directory, segments: Iterable[ArchivedSegment]) -> None:
    """Remove the files of all segments but these: they may have what has been erased. Raises `StorageError`."""
    folder = directory.subdirectory(CACHE_NAME)
    wanted = {segment.cached_name for segment in segments}
    for path in folder.path.glob(f"{_NAME_PREFIX}*"):
        if path.name not in wanted:
            folder.remove(path.name)


def unavailable(segment: ArchivedSegment, why: str) -> ArchiveUnavailable:
    """What is told of a segment that cannot be had."""
    return ArchiveUnavailable(
        f"{segment.place}, with the entries {segment.first_index} to {segment.last_index}, cannot be had: {why}"
    )


def _make_room(folder: Path, segment: ArchivedSegment, cache_bytes_max: int) -> None:
    """Remove the files that were not used for longest, until there is room for another one."""
    found: list[tuple[int, int, Path]] = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # Another process makes room as well.
            status = entry.stat()
            is_unfinished = entry.name.endswith(UNFINISHED_SUFFIX)
            if entry.name.startswith(_NAME_PREFIX) and not is_unfinished:
                found.append((status.st_atime_ns, status.st_blocks * 512, Path(entry.path)))
            elif is_unfinished and status.st_mtime < time.time() - UNFINISHED_AGE_S_MAX:
                Path(entry.path).unlink()
    found.sort()
    room_bytes = max(cache_bytes_max - segment.size_bytes, 0)
    used_bytes = sum(size_bytes for _, size_bytes, _ in found)
    for _, size_bytes, path in found:
        if used_bytes <= room_bytes and _free_bytes(folder) >= segment.size_bytes + CACHE_FREE_BYTES:
            return
        path.unlink(missing_ok=True)
        used_bytes -= size_bytes
    if _free_bytes(folder) < segment.size_bytes + CACHE_FREE_BYTES:
        raise unavailable(segment, f"{folder} has no room for its {segment.size_bytes} bytes. Make room on the disk")


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _carry(segment: ArchivedSegment, made: Path, is_over: Callable[[], bool]) -> None:
    """Make a file of what the archive has. Raises OSError, `ArchiveUnavailable`."""
    if "://" not in segment.target or segment.target.startswith(_FILE_SCHEME):
        shutil.copyfile(Path(segment.target.removeprefix(_FILE_SCHEME)) / segment.path, made)
        return
    order = {"target": segment.target, "path": segment.path, "made": str(made), "size_bytes": segment.size_bytes}
    command = [sys.executable, "-m", FETCH_MODULE]
    deadline_s = time.monotonic() + FETCH_TIMEOUT_S
    given: bytes | None = msgspec.json.encode(order)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while True:
            try:
                _, said = process.communicate(given, timeout=FETCH_POLL_S)
                break
            except subprocess.TimeoutExpired as error:
                given = None
                if is_over() or time.monotonic() > deadline_s:
                    process.kill()
                    raise unavailable(segment, f"it has not come in {FETCH_TIMEOUT_S:g} s, or in time") from error
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        has_told = lines and process.returncode > 0  # Whom a signal ends tells where it was.
        how = lines[-1] if has_told else f"fetching it has ended with {tell_status(process.returncode)}"
        raise unavailable(segment, how)


def _check(segment: ArchivedSegment, made: Path) -> None:
    hasher = blake3.blake3()
    with made.open("rb") as file:
        while part := file.read(_CHUNK_SIZE):
            hasher.update(part)
        size_bytes = file.tell()
    if (size_bytes, hasher.hexdigest()) != (segment.size_bytes, segment.digest):
        raise unavailable(
            segment,
            "what is kept there is damaged: it is not what was verified when the segment was dropped. Restore "
            f"{segment.path} there from a copy",
        )
