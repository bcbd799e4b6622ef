"""A consistent state of a data folder, whose node may run meanwhile: nothing is locked, and nothing is changed.

The newest checkpoint and its runs of ids stay readable while they are open, whatever the next checkpoint removes; of
the log everything up to the published entry is durable and never changes. The entries behind the checkpoint are
executed once more: that verifies them, and gives the digest that whoever restores the snapshot must arrive at.
"""

import os
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.checkpoints.check import check_run
from bezant.engine.checkpoints.file import Manifest
from bezant.engine.checkpoints.folder import FOLDER_NAME as CHECKPOINTS_NAME
from bezant.engine.checkpoints.folder import CheckpointFolder, Found, checkpoint_name
from bezant.engine.following import open_follower
from bezant.engine.ids.run import run_name
from bezant.engine.ids.warm import warm_ids
from bezant.engine.ledger.ledger import Ledger, ids_capacity_for
from bezant.engine.ledger.state import ROW
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.log.archived import ArchivedSegments
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory, LogFile
from bezant.engine.replay import replay_entry
from bezant.engine.snapshots.sending import OpenState
from bezant.protocol.errors import StorageError
from bezant.protocol.records import Words

FILTER_BYTES_MAX: Final = 0
"""Ids of long ago are asked for seldom: no memory for filters."""
ATTEMPTS_MAX: Final = 5
"""Checkpoints in a row that may go away while they are being opened, before it is given up."""


class State(NamedTuple):
    """Where executing has led to: the last entry, the state behind it, and the checkpoint that it began with.

    `metadata`: indexes of the entries that have the metadata of a subject there, in order; `accounts`, `holds`: counts.
    """

    point: ResumePoint
    state_digest: str
    checkpoint: Manifest | None
    metadata: Words
    accounts: int
    holds: int


def execute_to(directory: Directory, shard: int, until_index: int, found: Found | None) -> State:
    """Execute the history behind a checkpoint, or from its beginning, up to an entry, which must be durable.

    Raises `CorruptLog` if something else comes out than is there, `StorageError`, `HistoryIncomplete`.
    """
    warm_ledger()
    warm_ids()
    log = open_log(directory, shard=shard, writable=False)
    try:
        return _execute_to(log, shard, until_index, found)
    finally:
        log.close()


def _execute_to(log: Log, shard: int, until_index: int, found: Found | None) -> State:
    manifest = None if found is None else found.checkpoint.manifest
    start = None if manifest is None else manifest.point
    events_max = log.count_events_at_most(start)
    rows_max = events_max + (0 if found is None else len(found.checkpoint.image.rows))
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows_max = max(min(rows_max, memory_bytes // (2 * ROW.itemsize)), 1)
    ledger = Ledger(
        shard=shard,
        accounts_max=rows_max,
        holds_max=rows_max,
        ids_capacity_initial=ids_capacity_for(events_max),
        salts=None if manifest is None else manifest.salts,
        fetch_events=log.read_events,
    )
    ledger.replaying = True
    if found is not None:
        ledger.restore(found.checkpoint.image)
        ledger.cold_ids = found.runs
    for entry in log.open(start, until_index):
        replay_entry(ledger, entry)
    ledger.check_invariants()
    point = log.resume_point()
    if point is None or point.index != until_index:
        raise StorageError(f"{log.directory.path}: entry {until_index} is not there")
    metadata = ledger.metadata.records()["index"].astype(np.int64)
    return State(point, ledger.digest(), manifest, metadata, ledger.account_count, ledger.hold_count)


class SourceFile(NamedTuple):
    """A file to be kept: its name in the folder of the shard, itself, how much of it counts, its size with zeros."""

    name: str
    file: LogFile
    size_bytes: int
    full_size_bytes: int


class Source:
    """A state, and the files that it is made of, held open. Made by `open_source`."""

    def __init__(self, state: State, files: list[SourceFile], history: list[SourceFile], first_segment: int) -> None:
        self.state = state
        self.files = files
        self.history = history
        self.first_segment = first_segment
        """Number of the first segment that a start needs."""

    def close(self) -> None:
        """Let the files go."""
        for file in (*self.files, *self.history):
            file.file.close()


def open_source(directory: Directory, shard: int, *, with_history: bool) -> Source:
    """Find and open what a snapshot of the folder of a shard is made of. Raises `StorageError` and its kinds.

    With history, all segments before those that a start needs must be there, or in an archive.
    """
    until_index = published_index(directory, shard)
    folder = CheckpointFolder(directory)
    problem: Exception | None = None
    for _ in range(ATTEMPTS_MAX):
        found = folder.find_newest(shard, FILTER_BYTES_MAX)
        try:
            opened = None if found is None else _open_state(folder, found.checkpoint.manifest)
        except (StorageError, OSError) as error:
            problem = error  # If it has gone meanwhile there is a newer one.
            continue
        try:
            index = 0 if opened is None else opened.manifest.point.index
            # What a checkpoint stands behind is committed and durable, however old the published position is.
            state = execute_to(directory, shard, max(until_index, index), found)
            return _open_files(directory, shard, state, opened, with_history=with_history)
        except BaseException:
            if opened is not None:
                opened.close()
            raise
    raise StorageError(f"{folder.directory.path}: the newest checkpoint cannot be read: {problem}") from problem


def _open_state(folder: CheckpointFolder, manifest: Manifest) -> OpenState:
    """Open a checkpoint and its runs, and check every byte of those. Raises `StorageError`, OSError."""
    opened = OpenState(folder.directory, manifest.point.index)
    try:
        for info in manifest.runs:
            check_run(folder.directory, manifest.identity, info)
    except BaseException:
        opened.close()
        raise
    return opened


def published_index(directory: Directory, shard: int) -> int:
    """Index of the last entry that is known to be committed and durable. Raises `StorageError` if there is none."""
    follower = open_follower(directory, shard)
    if follower is None:
        raise StorageError(f"{directory.path} holds no log")
    try:
        if not follower.published_index:
            raise StorageError(f"{directory.path}: no entry is known to be committed yet; start its node once")
        return follower.published_index
    finally:
        follower.close()


def _open_files(
    directory: Directory, shard: int, state: State, opened: OpenState | None, *, with_history: bool
) -> Source:
    files = [] if opened is None else _state_files(opened)
    first_segment = 1 if opened is None else opened.manifest.point.segment_number
    history: list[SourceFile] = []
    archive = ArchivedSegments(directory, shard)
    try:
        for summary in state.point.segments:
            if summary.number >= first_segment or with_history:
                chosen = files if summary.number >= first_segment else history
                chosen.append(_segment_file(directory, archive, summary.number, summary.end))
    except BaseException:
        for file in (*files, *history):
            file.file.close()
        raise
    return Source(state, files, history, first_segment)


def _state_files(opened: OpenState) -> list[SourceFile]:
    names = {0: checkpoint_name(opened.manifest.point.index)}
    names |= {info.number: run_name(info.number) for info in opened.manifest.runs}
    return [
        SourceFile(f"{CHECKPOINTS_NAME}/{names[number]}", file, file.size(), file.size())
        for number, file in opened.files.items()
    ]


def _segment_file(directory: Directory, archive: ArchivedSegments, number: int, end: int) -> SourceFile:
    name = segment_name(number)
    try:
        file = directory.open(name, writable=False)
    except FileNotFoundError as error:
        archived = archive.open(number)
        if archived is None:
            raise StorageError(
                f"{directory.path / name} is not here, and in no archive that the folder knows of: the history is not"
                " whole. See how far it is: bezant members status; or: bezant archive fetch"
            ) from error
        file = archived
    return SourceFile(name, file, end, file.size())
