"""Puts a state that has arrived in the place of a log and its checkpoints, in steps that may be interrupted and begun
again.

All of it lies in the folder ``snapshot`` beside the log, verified and durable, when `leave_intent` adds the file
``ready``. From then on the state counts, and whoever opens the log finishes first what is left to be done. Without that
file nothing has happened, and what lies in the folder is removed.

The old segments are set aside, and not removed before the history is complete: they may be among the last copies of it.
"""

from pathlib import Path
from typing import Final

import msgspec

from bezant.engine.checkpoints.cuts import parse_cut_name
from bezant.engine.checkpoints.file import Manifest, read_manifest
from bezant.engine.checkpoints.folder import CHECKPOINT_NAME, CheckpointFolder, checkpoint_name
from bezant.engine.ids.run import RUN_NAME, run_name
from bezant.engine.log.archived import ARCHIVED_NAME
from bezant.engine.log.control import ControlFile, Watermark
from bezant.engine.log.incomplete import INCOMPLETE_NAME, mark_incomplete
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import segment_name, segment_numbers
from bezant.engine.log.storage import Directory, as_directory
from bezant.protocol.errors import CorruptLog

FOLDER_NAME: Final = "snapshot"
READY_NAME: Final = "ready"
BEFORE_PREFIX: Final = "before-"
"""Begins the names of segments that were set aside."""


class Ready(msgspec.Struct, frozen=True):
    """Which files of the folder the state is made of; its log begins in that segment."""

    checkpoint: str
    runs: list[str]
    segment: str


def leave_intent(snapshot: Directory, manifest: Manifest) -> None:
    """From now on the state in this folder counts. Raises `StorageError`."""
    ready = Ready(
        checkpoint_name(manifest.point.index),
        [run_name(info.number) for info in manifest.runs],
        segment_name(manifest.point.segment_number),
    )
    snapshot.write_file(READY_NAME, [msgspec.msgpack.encode(ready)])


def finish_install(data_directory: Path | Directory, directory: Directory, shard: int) -> int:
    """Finish what `leave_intent` has begun in the folder of a shard, or clear it; the index of the state, or 0.

    Raises `DataFolderInUse`, `CorruptLog`, `StorageError`, and may then be called again.
    """
    snapshot = directory.subdirectory(FOLDER_NAME)
    names = names_in(snapshot)
    if not names:
        return 0
    lock = as_directory(data_directory).lock()
    try:
        if READY_NAME not in names:
            clear(snapshot)
            return 0
        return _install(directory, snapshot, shard)
    finally:
        lock.release()


def names_in(folder: Directory) -> list[str]:
    """Names of the files in a folder, of which there are none in one that is not there."""
    try:
        return folder.names()
    except FileNotFoundError:
        return []


def clear(folder: Directory) -> None:
    """Remove the files of a folder. Raises `StorageError`."""
    for name in names_in(folder):
        folder.remove(name)


def _install(directory: Directory, snapshot: Directory, shard: int) -> int:
    ready = _read_ready(snapshot)
    checkpoints = CheckpointFolder(directory)
    lock = checkpoints.lock()
    try:
        if ready.segment in snapshot.names():  # It is moved last: everything else has been done once it has.
            place = snapshot if ready.checkpoint in snapshot.names() else checkpoints.directory
            manifest = read_manifest(place, ready.checkpoint)
            _set_log_aside(directory)
            if ARCHIVED_NAME in directory.names():
                directory.remove(ARCHIVED_NAME)  # It speaks of the log that was here, which may be cut differently.
            begin_log(directory, shard, manifest.point, manifest.point.segment_number)
            _replace_checkpoints(checkpoints.directory, snapshot, ready)
            snapshot.move(ready.segment, directory, ready.segment)
        else:
            manifest = read_manifest(checkpoints.directory, ready.checkpoint)
        snapshot.remove(READY_NAME)
        clear(snapshot)
    finally:
        lock.release()
    return manifest.point.index


def _read_ready(snapshot: Directory) -> Ready:
    file = snapshot.open(READY_NAME, writable=False)
    try:
        return msgspec.msgpack.decode(file.read(file.size(), 0), type=Ready)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptLog(f"{file.path}: it does not say what the state of the group consists of: {error}") from error
    finally:
        file.close()


def _set_log_aside(directory: Directory) -> None:
    for number in segment_numbers(directory):
        directory.rename(segment_name(number), BEFORE_PREFIX + segment_name(number))


def begin_log(directory: Directory, shard: int, point: ResumePoint, first_segment: int) -> None:
    """Leave what a log says of itself that ends with this entry, and may lack the segments before the first one."""
    if first_segment > 1:
        mark_incomplete(directory, shard, first_segment)
    elif INCOMPLETE_NAME in directory.names():
        directory.remove(INCOMPLETE_NAME)
    ControlFile.create(directory)
    control = ControlFile(directory, shard=shard, log_id=point.log_id, writable=True)
    try:
        control.write(
            Watermark(
                write_count=1,
                durable_index=point.index,
                durable_sequence=point.next_sequence - 1,
                durable_segment=point.segment_number,
                durable_offset=point.end_offset,
                commit_index=point.index,
            )
        )
        control.sync()
    finally:
        control.close()


def _replace_checkpoints(checkpoints: Directory, snapshot: Directory, ready: Ready) -> None:
    """Remove all but what belongs to the new state, of which some may be there already; then move the rest."""
    wanted = [*ready.runs, ready.checkpoint]
    for name in checkpoints.names():
        is_ours = CHECKPOINT_NAME.fullmatch(name) or RUN_NAME.fullmatch(name) or parse_cut_name(name)
        if name not in wanted and is_ours:
            checkpoints.remove(name)
    arrived = snapshot.names()
    for name in wanted:
        if name in arrived:
            snapshot.move(name, checkpoints, name)
