"""Proof of a history: every command rebuilt from its event, executed again, and every byte compared.

Checked on the way: the checksums of every entry, the hash chain from the first to the last, and the invariants of the
state at the end. One thread reads and hashes, another executes; both leave the interpreter's lock while they work.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bezant.engine.compiled import kernel_digest
from bezant.engine.ledger.ledger import ACCOUNTS_MAX_DEFAULT, Ledger, ids_capacity_for
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.storage import FolderLock
from bezant.engine.replay import replay_entry
from bezant.engine.replica import shard_directory
from bezant.protocol.errors import StorageError

ENTRIES_AHEAD_MAX: Final = 16
"""Entries that are hashed ahead of the one being executed."""


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


def verify(
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    accounts_max: int = ACCOUNTS_MAX_DEFAULT,
) -> VerifyReport:
    """Verify the history in a data folder, which no node may have open. Changes nothing in it.

    `on_progress` is told (events done, events in all); `accounts_max` is at least that of the node. Raises `CorruptLog`
    with the first thing that is wrong.
    """
    folder = shard_directory(directory, 0)
    if not folder.path.is_dir():
        raise StorageError(f"{directory} is not a data folder: it has no {folder.path.name}")
    lock = FolderLock(directory)
    try:
        log = open_log(folder, writable=False)
        try:
            return _verify(log, on_progress, accounts_max)
        finally:
            log.close()
    finally:
        lock.release()


def _verify(log: Log, on_progress: Callable[[int, int], None] | None, accounts_max: int) -> VerifyReport:
    warm_ledger()
    started = time.perf_counter()
    ledger = Ledger(
        accounts_max=accounts_max,
        ids_capacity_initial=ids_capacity_for(log.count_events_at_most()),
        fetch_events=log.read_events,
    )
    events = entries = 0
    for entry in _ahead(log.open()):
        replay_entry(ledger, entry)
        entries += 1
        events += entry.header.count
        if on_progress is not None:
            on_progress(events, max(events, log.watermark_sequence))
    ledger.check_invariants()
    return VerifyReport(
        events=events,
        entries=entries,
        accounts=ledger.account_count,
        seconds=time.perf_counter() - started,
        kernel_digest=kernel_digest(),
        log_id=log.public_id,
        state_digest=ledger.digest(),
        chain_hash=log.chain_hash.hex(),
        torn_bytes=log.recovery.torn_bytes,
    )


def _ahead(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Iterate in a thread of its own, a bounded number of entries ahead; an exception there is raised here."""
    ready: queue.Queue[Entry | BaseException | None] = queue.Queue(ENTRIES_AHEAD_MAX)
    stopped = threading.Event()

    def put(item: Entry | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def run() -> None:
        try:
            for entry in entries:
                put(entry)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=run, name="bezant-verify", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
