"""What a member of a group does about rot: it gives up what lies behind the damage, and gets it from the others again.

It must then not vote until it has caught up: entries that it had acknowledged, and on which a majority rested, may be
among what it gives up. So it is barred first.
"""

from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.log.incomplete import INCOMPLETE_NAME
from bezant.engine.log.log import open_log
from bezant.engine.log.repairing import cut_damage, last_whole_entry
from bezant.engine.log.segment import segment_numbers
from bezant.engine.log.storage import Directory, as_directory
from bezant.engine.log.vote import open_vote_file
from bezant.engine.node_file import NodeFile
from bezant.engine.replica import shard_directory
from bezant.protocol.errors import CorruptLog, HistoryIncomplete, UsageError

SPAN_BYTES: Final = 1 << 20
"""Bytes of entries that are checked at a time."""


class RepairReport(NamedTuple):
    """What was wrong, in words; the last entry that is left; the files that hold what was behind it."""

    damage: str
    last_index: int
    set_aside: list[str]


def repair_from_group(data_directory: Path | Directory, node: NodeFile | None, shard: int = 0) -> RepairReport | None:
    """Cut a damaged log before the damage, so that a leader sends the rest again; None if nothing is damaged.

    Reads all of the log, from its beginning. Raises `UsageError` for a node that has nobody to get it from,
    `UnsupportedFormat`, `DataFolderInUse`, `StorageError`; `CorruptLog` if the vote is lost, too.
    """
    if node is None or len(node.members) == 1:
        raise UsageError("this node is alone: there is nobody to get from what it has lost. Restore it from a copy")
    lock = as_directory(data_directory).lock()
    try:
        directory = shard_directory(data_directory, shard)
        damage = _find_damage(directory, shard)
        if not damage:
            return None
        _bar(directory, shard)
        walk = last_whole_entry(directory, shard)
        _remove_checkpoints(directory, 0 if walk is None else walk.next_index - 1)
        repaired = cut_damage(directory, shard, walk)
        if walk is None and INCOMPLETE_NAME in directory.names():
            directory.remove(INCOMPLETE_NAME)  # It begins anew, and nothing of it may be missing.
        return RepairReport(damage, repaired.last_index, repaired.set_aside)
    finally:
        lock.release()


def _find_damage(directory: Directory, shard: int) -> str:
    """What keeps the log from being opened, in words; "" if nothing does."""
    if not segment_numbers(directory):
        return f"{directory.path}: the log is not there"
    try:
        log = open_log(directory, shard=shard, writable=False)
        try:
            for _ in log.walk():
                pass
        finally:
            log.close()
    except HistoryIncomplete:
        return _find_damage_behind(directory, shard)
    except CorruptLog as error:
        return str(error)
    return ""


def _find_damage_behind(directory: Directory, shard: int) -> str:
    """The same of a log whose beginning has not come yet; a part of it cannot be kept, for want of what is before."""
    found = CheckpointFolder(directory).find_newest(shard, 0)
    try:
        log = open_log(directory, shard=shard, writable=False)
        try:
            for _ in log.open(None if found is None else found.checkpoint.manifest.point):
                pass
            index = log.first_index
            while index <= log.last_index:
                end = log.end_of_span(index, SPAN_BYTES)
                log.read_encoded(index, end)
                index = end + 1
        finally:
            log.close()
    except (CorruptLog, HistoryIncomplete) as error:
        return str(error)
    return ""


def _bar(directory: Directory, shard: int) -> None:
    """From now on this disk does not vote."""
    vote_file = open_vote_file(directory, shard=shard, log_is_empty=False)
    try:
        vote_file.write(msgspec.structs.replace(vote_file.read(), barred=True))
    finally:
        vote_file.close()


def _remove_checkpoints(directory: Directory, last_index: int) -> None:
    """Remove the checkpoints behind entries that are not there any more; each would prove that they were."""
    checkpoints = CheckpointFolder(directory)
    lock = checkpoints.lock()
    try:
        for index in checkpoints.indexes():
            if index > last_index:
                checkpoints.directory.remove(checkpoint_name(index))
    finally:
        lock.release()
