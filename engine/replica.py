"""A replica: one ledger and one log, joined. Commands in; results out once the log says they are durable.

The ledger runs ahead of the log: `execute` changes the ledger's state and appends the events in memory; the results
may be told to anyone only when `durable_index` has reached the index that `execute` returned. Nothing here waits, and
nothing here knows sockets, loops or threads: whoever drives a replica decides when to write a group and where.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.ledger import (
    ACCOUNTS_MAX_DEFAULT,
    HOLDS_MAX_DEFAULT,
    IDS_CAPACITY_INITIAL_DEFAULT,
    Ledger,
    ids_capacity_for,
)
from bezant.engine.ledger.state import EXPIRES_PER_ENTRY_MAX
from bezant.engine.log.entry import RULES_VERSION
from bezant.engine.log.log import FREE_SPACE_FLOOR_DEFAULT, SEGMENT_SIZE_DEFAULT, Group, Log, open_log
from bezant.engine.log.storage import Directory, FolderLock
from bezant.engine.replay import replay_entry
from bezant.protocol.codes import ResultCode
from bezant.protocol.currencies import ISO_4217
from bezant.protocol.errors import (
    LedgerError,
    StorageError,
)
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import ControlEntry, Currency, encode_message
from bezant.protocol.records import COMMAND, EVENT_ANSWER, EVENT_SIZE, RESULT, Records, Words, position_of

BATCH_COMMANDS_MAX: Final = 32_768
"""Commands that one `execute` takes: the events of so many fit in one entry."""

_NO_PRESET: Final = np.zeros(0, np.int64)


class ReplicaSettings(msgspec.Struct, frozen=True):
    """Sizes of a replica; see the constants for their units."""

    segment_size: int = SEGMENT_SIZE_DEFAULT
    free_space_floor: int = FREE_SPACE_FLOOR_DEFAULT
    accounts_max: int = ACCOUNTS_MAX_DEFAULT
    holds_max: int = HOLDS_MAX_DEFAULT
    ids_capacity_initial: int = IDS_CAPACITY_INITIAL_DEFAULT


class Executed(NamedTuple):
    """Results of a batch, not to be told before the log is durable up to `index`."""

    results: Records
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    event_count: int


def shard_directory(data_directory: Path, shard: int) -> Directory:
    """The folder of one shard's log within a data folder."""
    return Directory(data_directory / f"shard-{shard:04d}")


class Replica:
    """The write side of one shard on one node. Use `open_replica`."""

    def __init__(
        self, log: Log, lock: FolderLock, settings: ReplicaSettings, *, shard: int, clock_ns: Callable[[], int]
    ) -> None:
        self.log = log
        self.shard = shard
        self.ledger = Ledger(
            shard=shard,
            accounts_max=settings.accounts_max,
            holds_max=settings.holds_max,
            ids_capacity_initial=ids_capacity_for(log.count_events_at_most(), settings.ids_capacity_initial),
            fetch_events=log.read_events,
        )
        self.durable = log.is_durable
        self._closed = False
        self._lock = lock
        self._clock_ns = clock_ns

    # ---- recovery ----

    def recover(self, on_progress: Callable[[int], None] | None = None) -> None:
        """Rebuild the ledger from the log. `on_progress` is told the number of events so far, an entry at a time."""
        events = 0
        for entry in self.log.open():
            replay_entry(self.ledger, entry)
            events += entry.header.count
            if on_progress is not None:
                on_progress(events)
        if self.log.last_index == 0:
            self._append_control(
                ControlEntry(
                    currencies=[Currency(code, decimals) for code, decimals in ISO_4217.items()],
                    rules_version=RULES_VERSION,
                    created_by=f"bezant {version('bezant')}",
                )
            )
            self.write_group()
        self.ledger.check_invariants()

    # ---- commands ----

    def execute(self, commands: Records, preset: Words = _NO_PRESET) -> Executed:
        """Execute commands (at most BATCH_COMMANDS_MAX) and append their events in memory.

        `preset` may hold a code a command, which refuses it unseen unless it is 0. When the disk has no room for
        their events all of them are refused as STORAGE_FULL.
        """
        if len(commands) > BATCH_COMMANDS_MAX:
            raise LedgerError(f"a batch of {len(commands)} commands is over the {BATCH_COMMANDS_MAX} that one may have")
        events_max = len(commands) + (EXPIRES_PER_ENTRY_MAX if self.ledger.holds_with_deadline else 0)
        if not self.log.has_room(events_max * EVENT_SIZE):
            # Without the ledger, in which holds that are due would expire: their events need room as well.
            refused = np.zeros(len(commands), RESULT)
            refused["code"] = int(ResultCode.STORAGE_FULL)
            return Executed(refused, self.log.last_index, 0)
        first_sequence = self.ledger.next_sequence
        timestamp_ns = self._next_timestamp_ns()
        execution = self.ledger.execute(commands, timestamp_ns, preset)
        count = len(execution.events)
        if count:
            self.log.append(
                EntryKind.EVENTS,
                execution.events.view(np.uint8).data,
                first_sequence=first_sequence,
                count=count,
                timestamp_ns=timestamp_ns,
                rules_version=self.ledger.rules_version,
            )
        return Executed(execution.results, self.log.last_index, count)

    def register_currency(self, code: str, decimals: int) -> int:
        """Register a currency; returns the index that must be durable before anyone is told. Raises `UsageError`."""
        if code not in self.ledger.currencies:
            if not self.log.has_room(EVENT_SIZE):
                raise StorageError("the disk is at its free-space floor; nothing can be registered now")
            self.ledger.register_currency(code, decimals)
            self._append_control(ControlEntry(currencies=[Currency(code, decimals)]))
        else:
            self.ledger.register_currency(code, decimals)
        return self.log.last_index

    def switch_rules(self, version: int) -> int:
        """Execute under these rules from the next entry on; returns the index that must be durable before that is told.

        Once every voter supports them: one that does not can go no further. Raises `UsageError` for unknown rules and
        for earlier ones than those in force.
        """
        if version != self.ledger.rules_version:
            if not self.log.has_room(EVENT_SIZE):
                raise StorageError("the disk is at its free-space floor; the rules cannot be switched now")
            before = self.ledger.rules_version
            self.ledger.switch_rules(version)
            self._append_control(ControlEntry(rules_version=version), before)
        return self.log.last_index

    def _append_control(self, control: ControlEntry, rules_version: int | None = None) -> None:
        """Append a control entry, made under these rules or those in force."""
        timestamp_ns = self._next_timestamp_ns()
        body = encode_message(control)
        self.log.append(
            EntryKind.CONTROL,
            body,
            first_sequence=self.ledger.next_sequence,
            count=0,
            timestamp_ns=timestamp_ns,
            rules_version=self.ledger.rules_version if rules_version is None else rules_version,
        )
        if self.log.last_index == 1:
            self.ledger.switch_rules(control.rules_version)
            for currency in control.currencies:
                self.ledger.register_currency(currency.code, currency.decimals)

    def _next_timestamp_ns(self) -> int:
        return max(self._clock_ns(), self.log.last_timestamp_ns + 1, self.ledger.last_timestamp_ns + 1)

    # ---- durability ----

    def begin_group(self) -> Group | None:
        """What is to be written next; see `Log.begin_group`."""
        return self.log.begin_group()

    def finish_group(self, group: Group) -> None:
        """Take notice that a group is durable."""
        self.log.finish_group(group)

    def tidy(self) -> None:
        """Do what nobody waits for, when the results of a durable group have been told."""
        self.log.tidy()

    def write_group(self) -> None:
        """Write and sync everything appended, here and now."""
        group = self.begin_group()
        if group is not None:
            group.write_and_sync()
            self.finish_group(group)
            self.tidy()

    @property
    def durable_index(self) -> int:
        """Index of the last entry whose results may be told."""
        return self.log.durable_index

    # ---- look-ups ----

    def lookup_events(self, keys: npt.NDArray[np.int64]) -> Records:
        """EVENT_ANSWER records for keys (int64 of shape (count, 4): command id, debit account id)."""
        commands = np.zeros(len(keys), COMMAND)
        commands["id_head"], commands["id_tail"] = keys[:, 0], keys[:, 1]
        commands["debit_head"], commands["debit_tail"] = keys[:, 2], keys[:, 3]
        sequences, events = self.ledger.find_events(commands)
        answers = np.zeros(len(keys), EVENT_ANSWER)
        for number in np.flatnonzero(sequences).tolist():
            answers[number]["position"] = position_of(self.shard, int(sequences[number]))
            answers[number]["found"] = 1
            answers[number]["event"] = events[number].tobytes()
        return answers

    def close(self) -> None:
        """Close the log and let others have the folder. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.log.close()
        self._lock.release()


def open_replica(
    data_directory: Path,
    *,
    shard: int = 0,
    settings: ReplicaSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    on_progress: Callable[[int], None] | None = None,
) -> Replica:
    """Open the replica in a data folder, creating it if there is none, and recover its state.

    Raises `DataFolderInUse`, `UnsupportedFormat`, `CorruptLog`, `StorageError`.
    """
    settings = settings or ReplicaSettings()
    directory = shard_directory(data_directory, shard)
    directory.create()
    lock = FolderLock(data_directory)
    try:
        log = open_log(
            directory,
            shard=shard,
            segment_size=settings.segment_size,
            free_space_floor=settings.free_space_floor,
        )
        try:
            replica = Replica(log, lock, settings, shard=shard, clock_ns=clock_ns)
            replica.recover(on_progress)
        except BaseException:
            log.close()
            raise
    except BaseException:
        lock.release()
        raise
    return replica
