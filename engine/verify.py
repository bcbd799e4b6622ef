"""Proof of a history: every command rebuilt from its event, executed again, and every byte compared.

Checked on the way: the checksums of every entry, the hash chain from the first to the last, every checkpoint where the
history passes it, and the invariants of the state at the end. A long history that has checkpoints is executed in parts
at the same time, from one checkpoint to the next (`bezant.engine.verifying`). Whatever that does not prove, and every
other history, is executed in one go from the beginning, which needs no checkpoint and decides: one thread reads and
hashes, another executes; both leave the interpreter's lock while they work.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bezant.engine.ahead import Ahead
from bezant.engine.checkpoints.check import CheckpointCheck
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.compiled import kernel_digest
from bezant.engine.ids.warm import warm_ids
from bezant.engine.ledger.ledger import Ledger, ids_capacity_for
from bezant.engine.ledger.state import ROW
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.storage import LookingLock
from bezant.engine.metadata.kept import check_kept
from bezant.engine.node_file import shard_of_folder
from bezant.engine.replay import read_configuration, replay_entry
from bezant.engine.replica import shard_directory
from bezant.engine.verifying.parallel import Doubt, verify_parts
from bezant.engine.verifying.plan import EVENTS_IN_PARTS_MIN, PART_EVENTS_MIN, plan_parts, processes_default
from bezant.protocol.errors import DataFolderInUse, StorageError


class VerifyReport(NamedTuple):
    """What was verified; digests and hashes in hexadecimal."""

    events: int
    entries: int
    accounts: int
    seconds: float
    kernel_digest: str
    log_id: str
    state_digest: str
    chain_hash: str
    torn_bytes: int
    checkpoints: int
    """Checkpoints that were compared with the state, and the newest also with the ids, of the history up to them."""
    checkpoints_damaged: tuple[str, ...]
    """What is wrong with those that a start would pass over: that costs it time, and nothing else."""
    parts: int = 1
    """Parts that were executed at the same time, as far as there were processors; 1: all in one go."""
    processes: int = 1
    doubt: str = ""
    """Why the parts did not prove the history, which was then executed in one go."""


class Parallelism(NamedTuple):
    """Processes to use (0: one for each processor), and events from which on parts are worth it."""

    processes: int = 0
    events_min: int = EVENTS_IN_PARTS_MIN
    part_events_min: int = PART_EVENTS_MIN


def verify(
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
    parallelism: Parallelism = Parallelism(),  # noqa: B008 - it is immutable
) -> VerifyReport:
    """Verify the history in a data folder, which no node may have open. Changes nothing in it.

    `on_progress` is told (events done, events in all). Memory: some 130 bytes for each account and 25 to 100 for each
    event, whose ids are all in memory here, or for those of a part in each process; the history is mapped.

    Raises `CorruptLog` with the first thing that is wrong in the history, or with a checkpoint that is whole and does
    not agree with it; `UnsupportedFormat` for what a newer version wrote; `DataFolderInUse`; `StorageError` if there is
    no log, or more accounts than this computer has memory for; and `LedgerError` if the state at the end breaks an
    invariant that executing it should have kept.
    """
    shard = shard_of_folder(directory)
    folder = shard_directory(directory, shard)
    if not folder.path.is_dir():
        raise StorageError(f"{directory} is not a data folder: it has no {folder.path.name}")
    checkpoints = CheckpointFolder(folder)
    with _looking(directory), _looking(checkpoints.directory.path):
        log = open_log(folder, shard=shard, writable=False)
        try:
            return _verify(log, checkpoints, CheckpointCheck(checkpoints, shard), on_progress, parallelism)
        finally:
            log.close()


@contextmanager
def _looking(folder: Path) -> Iterator[None]:
    """Keep out of a folder whoever would write to it. Raises `DataFolderInUse`."""
    lock = LookingLock(folder)
    try:
        if lock.holder:
            raise DataFolderInUse(f"{folder} is in use by process {lock.holder}")
        yield
    finally:
        lock.release()


_OnProgress = Callable[[int, int], None] | None


def _verify(
    log: Log,
    folder: CheckpointFolder,
    checkpoints: CheckpointCheck,
    on_progress: _OnProgress,
    parallelism: Parallelism,
) -> VerifyReport:
    """In parts if that is worth it and comes out right, else in one go."""
    started = time.perf_counter()
    try:
        report = _verify_in_parts(log, folder, checkpoints, on_progress, parallelism)
        doubt = ""
    except Doubt as error:
        report, doubt = None, str(error)
    report = report or _verify_in_one_go(log, checkpoints, on_progress)._replace(doubt=doubt)
    return report._replace(seconds=time.perf_counter() - started)


def _verify_in_parts(
    log: Log,
    folder: CheckpointFolder,
    checkpoints: CheckpointCheck,
    on_progress: _OnProgress,
    parallelism: Parallelism,
) -> VerifyReport | None:
    """None if the history is too short, or has no checkpoints. Raises `Doubt`."""
    processes = parallelism.processes or processes_default()
    events_max = log.count_events_at_most()
    if processes < 2 or events_max < parallelism.events_min:
        return None
    plan = plan_parts(folder, checkpoints, checkpoints.shard, parallelism.part_events_min)
    if plan is None:
        return None
    proven = verify_parts(
        folder.directory.path.parent.parent,
        checkpoints.shard,
        plan,
        processes=processes,
        events_max=events_max,
        rows_max=_rows_at_most(log),
        on_progress=lambda done: (
            None if on_progress is None else on_progress(done, max(done, plan.cuts[-1].last_sequence))
        ),
    )
    last = proven.last
    return VerifyReport(
        events=proven.events,
        entries=proven.entries,
        accounts=last.accounts,
        seconds=0.0,
        kernel_digest=kernel_digest(),
        log_id=last.log_id,
        state_digest=last.end.state_digest if last.end is not None else "",
        chain_hash=last.chain_hash,
        torn_bytes=last.torn_bytes,
        checkpoints=proven.parts - 1,
        checkpoints_damaged=tuple(checkpoints.damaged),
        parts=proven.parts,
        processes=processes,
    )


def _verify_in_one_go(log: Log, checkpoints: CheckpointCheck, on_progress: _OnProgress) -> VerifyReport:
    warm_ledger()
    warm_ids()
    rows_max = _rows_at_most(log)
    try:
        ledger = Ledger(
            shard=checkpoints.shard,
            accounts_max=rows_max,
            holds_max=rows_max,
            ids_capacity_initial=ids_capacity_for(log.count_events_at_most()),
            salts=checkpoints.salts,
            fetch_events=log.read_events,
        )
    except MemoryError as error:
        raise StorageError(
            f"there is no memory for tables of up to {rows_max} accounts and holds: verify a copy of the folder on a "
            "computer with more of it, or with no limit on address space"
        ) from error
    events, entries, is_alone = 0, 0, True
    with Ahead(log.open()) as walked:
        for entry in walked:
            replay_entry(ledger, entry)
            checkpoints.note(ledger, entry)
            is_alone = is_alone and read_configuration(entry) is None
            entries += 1
            events += entry.header.count
            if on_progress is not None:
                on_progress(events, max(events, log.watermark_sequence))
    ledger.check_invariants()
    if is_alone:
        check_kept(ledger, log)
    checkpoints.finish(log.last_index)
    return VerifyReport(
        events=events,
        entries=entries,
        accounts=ledger.account_count,
        seconds=0.0,
        kernel_digest=kernel_digest(),
        log_id=log.public_id,
        state_digest=ledger.digest(),
        chain_hash=log.chain_hash.hex(),
        torn_bytes=log.recovery.torn_bytes,
        checkpoints=checkpoints.compared,
        checkpoints_damaged=tuple(checkpoints.damaged),
    )


def _rows_at_most(log: Log) -> int:
    """Rows of accounts, and of holds, that are enough for any history of this size, or as many as memory could hold.

    Nobody needs to know what the node was set to: a table takes memory only for the rows that are used.
    """
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(log.count_events_at_most(), memory_bytes // (2 * ROW.itemsize)), 1)
