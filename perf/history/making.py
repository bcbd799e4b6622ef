"""Makes a history by the engine itself: transfers between accounts of which a few take part in half of all.

It is executed by a ledger and written to a log, as a node does, but in one process and without clients.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from bezant.engine.checkpoints.checkpointer import Checkpointer, LedgerSettings, restore_ledger
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.ledger.ledger import Ledger, ids_capacity_for
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.log.log import Log, open_log
from bezant.engine.node_file import first_control
from bezant.engine.replica import CHECKPOINT_IDS_DEFAULT, shard_directory
from bezant.perf.load.books import CURRENCY, LoadAccounts, opening_commands
from bezant.protocol.errors import LedgerError, StorageError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.messages import encode_message
from bezant.protocol.records import COMMAND, EVENT_SIZE, Records, Words

HOT_ACCOUNTS: Final = 100
"""Accounts that take part in half of all transfers, on either side."""
INDEX_BYTES_PER_EVENT: Final = 70
"""What projections and the tree take on the disk at most, while they are merged, too. Checkpoints take less, before."""
CHECKPOINTS: Final = 16
"""Checkpoints that are made of the history at least, for `verify` to cut it at."""
CHECKPOINT_EVENTS_MAX: Final = CHECKPOINT_IDS_DEFAULT
"""Events between two checkpoints, as a node makes them: each has one id."""
DISK_LEFT_BYTES: Final = 2 << 30
_AMOUNT_MAX: Final = 1000
_ENTRY_NS: Final = 10_000_000
_STARTED_NS: Final = 1_700_000_000_000_000_000
_CODES: Final = 1000


def check_room(folder: Path, events: int) -> None:
    """Raise `StorageError` unless the disk has room for so many events and what is made of them."""
    needed = events * (EVENT_SIZE + INDEX_BYTES_PER_EVENT) + DISK_LEFT_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder}: {events:,} events need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: measure fewer, "
            "or choose another --directory"
        )


def make_history(
    folder: Path, events: int, accounts: LoadAccounts, seed: int, on_progress: Callable[[int], None]
) -> None:
    """Write a log of so many events, the openings among them, into a data folder that is not there yet.

    `on_progress` is told how many there are so far. Raises `StorageError`.
    """
    warm_ledger()
    ledger = Ledger(
        accounts_max=len(accounts.names) + 1,
        ids_capacity_initial=ids_capacity_for(events),
        fetch_events=_no_events,
    )
    control = first_control("bezant bench history")
    for currency in control.currencies:
        ledger.register_currency(currency.code, currency.decimals)
    directory = shard_directory(folder, 0)
    directory.create()
    log = open_log(directory)
    try:
        for _ in log.open():
            raise StorageError(f"{folder}: there is a log already")
        timestamp_ns = _STARTED_NS
        body = encode_message(control)
        rules_version = ledger.rules_version
        log.append(
            EntryKind.CONTROL, body, first_sequence=1, count=0, timestamp_ns=timestamp_ns, rules_version=rules_version
        )
        ledger.switch_rules(control.rules_version)
        for commands in _batches(events, accounts, seed):
            timestamp_ns += _ENTRY_NS
            first_sequence = ledger.next_sequence
            made = ledger.execute(commands, timestamp_ns).events
            _append(log, made, first_sequence, timestamp_ns, ledger.rules_version)
            on_progress(ledger.next_sequence - 1)
        log.commit_index = log.last_index
    finally:
        log.close()


def make_checkpoints(folder: Path, events: int, accounts: LoadAccounts, on_progress: Callable[[int], None]) -> None:
    """Leave the checkpoints beside the log that a node would have left as it grew. Raises `StorageError`."""
    directory = shard_directory(folder, 0)
    checkpoints = CheckpointFolder(directory)
    lock, log = checkpoints.lock(), open_log(directory, writable=False)
    every = max(min(events // CHECKPOINTS, CHECKPOINT_EVENTS_MAX), BATCH_COUNT_MAX)
    settings = LedgerSettings(len(accounts.names) + 1, 1, ids_capacity_for(every + 2 * BATCH_COUNT_MAX))
    try:
        restored = restore_ledger(checkpoints, settings, log.read_events, shard=0, filter_bytes_max=0)
        checkpointer = Checkpointer(restored, log, checkpoints, shard=0, filter_bytes_max=0, free_space_floor=0)
        written = 0
        for entry in log.open():
            checkpointer.take_in(entry)
            done = checkpointer.ledger.next_sequence - 1
            if done >= written + every:
                checkpointer.write()
                while checkpointer.merge_step():
                    pass
                written = done
            on_progress(done)
        checkpointer.close()
    finally:
        log.close()
        lock.release()


def _append(log: Log, events: Records, first_sequence: int, timestamp_ns: int, rules_version: int) -> None:
    if not log.has_room(events.nbytes):
        raise StorageError("the log has no room left")
    log.append(
        EntryKind.EVENTS,
        events.tobytes(),
        first_sequence=first_sequence,
        count=len(events),
        timestamp_ns=timestamp_ns,
        rules_version=rules_version,
    )
    log.commit_index = log.last_index
    group = log.begin_group()
    if group is None:
        raise LedgerError("a log has nothing to write behind an append")
    group.write_and_sync()
    log.finish_group(group)
    log.tidy()


def _batches(events: int, accounts: LoadAccounts, seed: int) -> Iterator[Records]:
    for start in range(0, accounts.count, BATCH_COUNT_MAX):
        yield opening_commands(accounts, range(start, min(start + BATCH_COUNT_MAX, accounts.count)))
    random = np.random.default_rng(seed)
    left = events - accounts.count
    while left > 0:
        count = min(left, BATCH_COUNT_MAX)
        left -= count
        yield _transfers(random, accounts, count)


def _transfers(random: np.random.Generator, accounts: LoadAccounts, count: int) -> Records:
    commands = np.zeros(count, COMMAND)
    ids = random.integers(1, 2**63 - 1, (2, count))
    commands["id_head"], commands["id_tail"] = ids
    paying, paid = _chosen(random, accounts.count, count), _chosen(random, accounts.count, count)
    paid = np.where(paid == paying, (paid + 1) % accounts.count, paid)
    for side, chosen in (("debit", paying), ("credit", paid)):
        commands[f"{side}_head"], commands[f"{side}_tail"] = accounts.heads[chosen], accounts.tails[chosen]
    commands["amount"] = random.integers(1, _AMOUNT_MAX, count)
    commands["code"] = random.integers(0, _CODES, count)
    commands["kind"] = int(CommandKind.TRANSFER)
    return commands


def _chosen(random: np.random.Generator, accounts: int, count: int) -> Words:
    hot = random.integers(0, min(HOT_ACCOUNTS, accounts), count)
    return np.where(random.random(count) < 0.5, hot, random.integers(0, accounts, count))


def _no_events(_sequences: Words) -> Records:
    raise LookupError("a benchmark repeats no id")


__all__ = ["CURRENCY", "HOT_ACCOUNTS", "check_room", "make_checkpoints", "make_history"]
