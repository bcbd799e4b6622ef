"""Which sealed segments may leave the disk once an archive has them, and how they go.

A segment goes when all before it are gone or go with it, when a node that starts from any of its checkpoints reads
nothing of it, and when it is none of the newest ones. Everyone else knows where to find it: whoever reads the history
has it fetched, a follower that lacks it is sent the state, and what leads there.

The steps, each of which may be the last one before a crash: the archive has the segment and was read back (the
caller's); the mark names it, durably; its file goes. The mark alone decides, so whoever has the folder locked (a node
that runs, or starts) can finish. Without it nothing has happened.
"""

from collections.abc import Sequence
from typing import Final

from bezant.engine.checkpoints.file import read_manifest
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.log.archive_cache import CACHE_NAME
from bezant.engine.log.archived import ARCHIVED_NAME, read_archived
from bezant.engine.log.incomplete import INCOMPLETE_NAME
from bezant.engine.log.segment import read_segment_header, segment_name, segment_numbers
from bezant.engine.log.storage import Directory, FolderLock
from bezant.protocol.errors import CorruptLog, UsageError

KEEP_MIN: Final = 2
"""Newest sealed segments that always stay: a node that writes still does something about them."""
KEEP_DEFAULT: Final = 4


def droppable(sealed: Sequence[int], starts: Sequence[int], gone: int, keep: int) -> list[int]:
    """Numbers of the segments that may go, ascending.

    `sealed`: numbers of the sealed segments that are here, ascending; `starts`: for each checkpoint the number of the
    segment that a start from it reads first; `gone`: how many have left before; `keep`: how many of the newest sealed
    ones are to stay.
    """
    if not starts:
        return []
    end = min(starts)
    kept = sealed[-max(keep, KEEP_MIN) :]
    if kept:
        end = min(end, kept[0])
    wanted = [number for number in sealed if gone < number < end]
    without_gap: list[int] = []
    for number in wanted:
        if number != gone + 1 + len(without_gap):
            break
        without_gap.append(number)
    return without_gap


def first_segments_needed(directory: Directory) -> list[int]:
    """For each checkpoint, the segment that a start from it reads first. Raises `StorageError` if one is damaged: what
    a start would do then is not to be told."""
    folder = CheckpointFolder(directory)
    return [read_manifest(folder.directory, checkpoint_name(index)).point.segment_number for index in folder.indexes()]


def check_may_drop(directory: Directory) -> None:
    """Raise `UsageError` where the history has not come to the folder yet: first it must be whole."""
    if INCOMPLETE_NAME in directory.names():
        raise UsageError(
            f"{directory.path} lacks the beginning of its history, which comes from the group or from bezant archive "
            "fetch; nothing can be dropped before it is here"
        )


def lock_archive(directory: Directory) -> FolderLock:
    """Keep others from changing which segments are in an archive. Raises `DataFolderInUse`, `StorageError`."""
    cache = directory.subdirectory(CACHE_NAME)
    cache.create()
    return cache.lock()


def still_here(directory: Directory, shard: int) -> bool:
    """Whether a file is here that the mark names. Raises `CorruptLog`."""
    mark = read_archived(directory, shard)
    return mark is not None and not segment_numbers(directory)[0] > len(mark.segments)


def remove_archived(directory: Directory, shard: int) -> int:
    """Remove the files that the mark names; how many it were. For whoever has the folder locked, as often as wanted.

    Raises `CorruptLog` for a mark that is damaged, `StorageError`.
    """
    mark = read_archived(directory, shard)
    if mark is None:
        return 0
    last = segment_numbers(directory)[-1]
    if last <= len(mark.segments) or read_segment_header(directory, last).log_id != mark.log_id:
        raise CorruptLog(
            f"{directory.path}: the file {ARCHIVED_NAME!r} speaks of another log than the one that is here"
        )
    names, count = frozenset(directory.names()), 0
    for segment in mark.segments:
        if segment_name(segment.number) in names:
            directory.remove(segment_name(segment.number))
            count += 1
    return count
