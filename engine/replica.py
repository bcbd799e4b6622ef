"""A replica: one ledger and one log, joined. Commands in; results out once the log says they are durable.

The ledger runs ahead of the log: `execute` changes the ledger's state and appends the events in memory; the results
may be told to anyone only when `durable_index` has reached the index that `execute` returned. Nothing here waits, and
nothing here knows sockets, loops or threads: whoever drives a replica decides when to write a group and where.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bezant.engine.ahead import CHUNK_EVENTS_MIN, CHUNKS_AHEAD_MAX, Ahead
from bezant.engine.away import refuse_what_waits, waits_for_archive
from bezant.engine.checkpoints.checkpointer import Checkpointer, LedgerSettings, restore_ledger
from bezant.engine.checkpoints.file import Manifest
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.created_by import created_by
from bezant.engine.ids.run_set import RunSet
from bezant.engine.ledger.index import SLOT_BYTES
from bezant.engine.ledger.ledger import ACCOUNTS_MAX_DEFAULT, HOLDS_MAX_DEFAULT, TIMESTAMP_NS_MAX
from bezant.engine.ledger.state import EXPIRES_PER_ENTRY_MAX
from bezant.engine.log.entry import Entry
from bezant.engine.log.group import Group
from bezant.engine.log.log import FREE_SPACE_FLOOR_DEFAULT, SEGMENT_SIZE_DEFAULT, Log, open_log
from bezant.engine.log.storage import Directory, FolderLock, as_directory
from bezant.engine.looking_up import find_answers
from bezant.engine.metadata.applying import apply_blob
from bezant.engine.metadata.erasing import Erasing
from bezant.engine.node_file import FirstEntry, first_control
from bezant.engine.replay import read_configuration, replay_entry
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import HistoryIncomplete, LedgerError, StorageError, UsageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import Configuration, ControlEntry, Currency, encode_message
from bezant.protocol.records import (
    ENTRY_HEADER_SIZE,
    ENTRY_INDEX_FIRST,
    EVENT,
    EVENT_SIZE,
    RESULT,
    SEGMENT_HEADER_SIZE,
    Records,
    Words,
)

BATCH_COMMANDS_MAX: Final = 16_384
"""Commands that one `execute` takes: two of the largest frames, and some 8 ms in which nothing else is done."""

ENTRIES_BESIDE_MAX: Final = 4
"""Entries of one command for whose ids there is room besides those of a batch: transit accounts are opened before it,
and holds may expire with each."""

IDS_MEMORY_BYTES_DEFAULT: Final = 1 << 30
"""Memory for ids, of whatever age: tables, filters of those on disk, and those of the child that makes checkpoints."""
IDS_MEMORY_BYTES_MIN: Final = 64 << 20
"""Memory for ids with which a table still takes a batch while another one is frozen."""
CHECKPOINT_IDS_DEFAULT: Final = 3 << 20
"""New ids after which a checkpoint is made; while that goes on as many again find room."""
CHECKPOINT_ENTRIES_DEFAULT: Final = 100_000
"""Entries after which a checkpoint is made, however few ids they have: each costs a start some 30 us."""

SNAPSHOT_BEHIND_BYTES_DEFAULT: Final = 256 << 20
"""Bytes of entries that a member of the group lacks, and a checkpoint has, at which a leader sends it that instead."""

EVENTS_AHEAD_MAX: Final = CHUNKS_AHEAD_MAX * (CHUNK_EVENTS_MIN + BATCH_COMMANDS_MAX + EXPIRES_PER_ENTRY_MAX)
"""Events that a start has read, and whose ids must find room, when it decides to write a checkpoint."""

SETTLED_MAX: Final = BATCH_COMMANDS_MAX
"""Tries that one entry settles: 128 KiB."""

CONTROL_SIZE_BESIDE_MAX: Final = 256
"""Bytes of an encoded control entry besides the one field of it that has any length."""

TERM_FIRST: Final = 1
"""The term of the first entry of every log, which no leader has made."""

_NO_PRESET: Final = np.zeros(0, np.int64)


class ReplicaSettings(msgspec.Struct, frozen=True):
    """Sizes of a replica; see the constants for their units."""

    segment_size: int = SEGMENT_SIZE_DEFAULT
    free_space_floor: int = FREE_SPACE_FLOOR_DEFAULT
    accounts_max: int = ACCOUNTS_MAX_DEFAULT
    holds_max: int = HOLDS_MAX_DEFAULT
    ids_memory_bytes: int = IDS_MEMORY_BYTES_DEFAULT
    checkpoint_ids: int = CHECKPOINT_IDS_DEFAULT
    checkpoint_entries: int = CHECKPOINT_ENTRIES_DEFAULT
    snapshot_behind_bytes: int = SNAPSHOT_BEHIND_BYTES_DEFAULT

    def __post_init__(self) -> None:
        """Raises ValueError for what no replica can work with."""
        if self.ids_memory_bytes < IDS_MEMORY_BYTES_MIN:
            raise ValueError(f"ids need {IDS_MEMORY_BYTES_MIN} bytes of memory at least, not {self.ids_memory_bytes}")
        expires = min(EXPIRES_PER_ENTRY_MAX, self.holds_max)
        segment_size_min = SEGMENT_HEADER_SIZE + ENTRY_HEADER_SIZE + (expires + 1) * EVENT_SIZE
        if self.segment_size < segment_size_min:
            raise ValueError(
                f"a segment of {self.segment_size} bytes has no room for a command and the {expires} holds that may "
                f"expire before it: at least {segment_size_min}"
            )
        if self.checkpoint_ids < 1 or self.checkpoint_entries < 1:
            raise ValueError("a checkpoint comes after one id and one entry at the earliest")

    @property
    def ledger_settings(self) -> LedgerSettings:
        """Sizes of the ledger. A quarter of the memory for ids is for the two tables, each a power of two of slots."""
        slots = self.ids_memory_bytes // 4 // (2 * SLOT_BYTES)
        return LedgerSettings(self.accounts_max, self.holds_max, 1 << (slots.bit_length() - 1))

    @property
    def filter_bytes_max(self) -> int:
        """Memory for filters of ids on disk: half of the memory for ids. (The last quarter is the child's.)"""
        return self.ids_memory_bytes // 2

    @property
    def freeze_at_ids(self) -> int:
        """Ids in memory at which a checkpoint is due; a table must have as much room again while it is made."""
        return min(self.checkpoint_ids, self.ledger_settings.generation_capacity // 2)


class Executed(NamedTuple):
    """Results of a batch, not to be told before the log is durable up to `index`; and its events."""

    results: Records
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    events: Records

    @property
    def event_count(self) -> int:
        """How many events there are."""
        return len(self.events)


def shard_directory(data_directory: Path | Directory, shard: int) -> Directory:
    """The folder of one shard's log within a data folder."""
    return as_directory(data_directory).subdirectory(f"shard-{shard:04d}")


class Replica:
    """The write side of one shard on one node. Use `open_replica`."""

    def __init__(
        self,
        log: Log,
        lock: FolderLock,
        checkpoints: CheckpointFolder,
        settings: ReplicaSettings,
        *,
        shard: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self.log = log
        self.shard = shard
        self.settings = settings
        self.checkpoints = checkpoints
        self.durable = log.is_durable
        self.frozen_index = 0
        self._restored = restore_ledger(
            checkpoints,
            settings.ledger_settings,
            log.read_events,
            shard=shard,
            filter_bytes_max=settings.filter_bytes_max,
        )
        self.ledger = self._restored.ledger
        self.id_runs = self._restored.runs
        self.checkpoint_index = 0
        """The entry that the newest checkpoint stands behind; 0 if there is none."""
        self.applied_index = 0  # The last entry that the ledger has executed.
        manifest = self._restored.manifest
        self.slot_map = None if manifest is None else manifest.slot_map
        """The map of a metadata group; the leader's may not be committed yet."""
        self.configurations: list[tuple[int, Configuration]] = []
        """(index, configuration) of the entries that say who is in the group, as far as a start has come upon them."""
        if manifest is not None and manifest.configuration is not None:
            self.configurations.append(manifest.configuration)
        self.stalled_index = 0
        """Not 0: what comes next rests on events that are not here yet, as is any before the one with this index.

        The ledger is half-way through an entry then. It is of no more use, and must be made anew when they are here.
        """
        self.start_index = 0
        """The entry behind which the log was read at the start; 0 if all of it was."""
        self.erasing = Erasing(log, log.directory.helper("bezant-erase"))
        self.parked: set[int] = set()  # Sequences of tries whose end waits for a person: known to the leader alone.
        self.has_cluster_token = False  # Whether an administrator gets in without a token of the log: who serves says.
        self.find_unready: Callable[[int], str] = _nobody_unready
        """Why no entries may be made that take an ENTRIES_VERSION; "" if they may: set by whoever knows the group."""
        self._closed = False
        self._lock = lock
        self._clock_ns = clock_ns

    # ---- recovery ----

    def recover(self, on_progress: Callable[[int], None] | None = None, first: FirstEntry | None = None) -> None:
        """Rebuild the ledger from the newest checkpoint and the log behind it. The checkpoints' lock must be held.

        A long tail leaves checkpoints on the way, because its ids would not fit in memory. `on_progress` is told the
        number of events so far, an entry at a time. `first` is the entry that a new log begins with, the same for all
        members of a group; what such a member does not know to be committed is walked and not executed.
        """
        checkpointer = Checkpointer(
            self._restored,
            self.log,
            self.checkpoints,
            shard=self.shard,
            filter_bytes_max=self.settings.filter_bytes_max,
            free_space_floor=self.settings.free_space_floor,
        )
        point = self._restored.point
        self.checkpoint_index = self.start_index = self.applied_index = 0 if point is None else point.index
        wanted_log_id = self.log.log_id
        thread = self.checkpoints.directory.helper("bezant-walk")
        with Ahead(self.log.walk(point), thread) as entries:
            for entry in entries:
                configuration = read_configuration(entry)
                if configuration is not None:
                    self.configurations.append((entry.header.index, configuration))
                if first is not None and entry.header.index > max(self.log.commit_index, ENTRY_INDEX_FIRST):
                    continue
                if self.stalled_index or not self._take_in(checkpointer, entry):
                    continue
                too_many = self.ledger.generations.key_count >= 2 * self.settings.freeze_at_ids
                if too_many or not self.ledger.has_room_for_ids(EVENTS_AHEAD_MAX + BATCH_COMMANDS_MAX):
                    entries.pause()
                if entries.is_level:
                    self.erasing.erase_walked(self.applied_index)
                    self.checkpoint_index = checkpointer.write().point.index
                if on_progress is not None:
                    on_progress(self.ledger.next_sequence - 1)
        if wanted_log_id not in (0, self.log.log_id):
            raise StorageError("the log in this folder is of another group than its node file says")
        self.log.finish_open()
        self.settle_erasing(self.applied_index)
        self.log.archive.waits = False  # From now on others wait for what is done here.
        self.ledger.replaying = False
        self.id_runs = checkpointer.runs
        if self.log.last_index == 0:
            first = first or FirstEntry(first_control(created_by()), self._next_timestamp_ns(), self.log.log_id)
            if first.control is not None:
                self._begin_log(first.control, first.timestamp_ns)
        if not self.stalled_index:
            self.ledger.check_invariants()

    def _take_in(self, checkpointer: Checkpointer, entry: Entry) -> bool:
        """Execute an entry of the log again; False if that takes history which is not here yet."""
        try:
            checkpointer.take_in(entry)
        except HistoryIncomplete as error:
            self.stalled_index = error.first_index
            return False
        self.slot_map = checkpointer.slot_map
        self._note_applied(entry)
        return True

    def _note_applied(self, entry: Entry) -> None:
        self.applied_index = entry.header.index
        if entry.header.kind == EntryKind.BLOB:
            self.erasing.note(entry)

    def _begin_log(self, control: ControlEntry, timestamp_ns: int) -> None:
        """Write the first entry, which is committed by definition: all members of a group begin with it."""
        self.log.term = TERM_FIRST
        self._append_control(control, timestamp_ns)
        self.write_group()
        if control.configuration is not None:
            self.configurations.append((ENTRY_INDEX_FIRST, control.configuration))

    # ---- what was committed elsewhere ----

    def apply(self, entry: Entry) -> bool:
        """Execute the entry behind the last one applied again, and require the same events; False if its ids find no
        room in memory until a checkpoint has been made, if an archived event that it takes is being fetched, or if
        `stalled_index` says why it cannot be.

        Raises `CorruptLog` if something else comes out.
        """
        if entry.header.index != self.applied_index + 1:
            raise LedgerError(f"entry {entry.header.index} is to be applied behind entry {self.applied_index}")
        if self.stalled_index or not self.ledger.has_room_for_ids(entry.header.count):
            return False
        if self.log.archived_sequence and waits_for_archive(self.ledger, self.log, entry):
            return False
        try:
            self.slot_map = replay_entry(self.ledger, entry) or self.slot_map
        except HistoryIncomplete as error:
            self.stalled_index = error.first_index
            return False
        self._note_applied(entry)
        return True

    def append_first_of_term(self) -> None:
        """Append the entry with which a new leader commits what its predecessors have left."""
        self.append_control(ControlEntry())

    def append_control(self, control: ControlEntry) -> None:
        """Append a control entry that changes nothing in the ledger."""
        self._append_control(control, self._next_timestamp_ns())

    def append_configuration(self, configuration: Configuration) -> int:
        """Append a configuration of the group; returns its index."""
        self._append(EntryKind.CONFIGURATION, encode_message(configuration), self._next_timestamp_ns())
        return self.log.last_index

    # ---- metadata ----

    def check_ready(self, version: int) -> None:
        """Raise `UsageError` while a voter of the group does not know the entries of this ENTRIES_VERSION."""
        problem = self.find_unready(version)
        if problem:
            raise UsageError(problem)

    def append_blob(self, body: bytes) -> int:
        """Append metadata that was checked, and take it into the ledger; returns its index."""
        self._append(EntryKind.BLOB, body, self._next_timestamp_ns())
        entry = self.log.read_entry(self.log.last_index)
        apply_blob(self.ledger, entry)
        self.erasing.note(entry)
        return self.log.last_index

    def settle_erasing(self, until_index: int) -> None:
        """Return when all is erased that entries up to this one supersede, which are committed and durable.

        To be called before a checkpoint is made behind that entry. Raises OSError: then the process must end.
        """
        self.erasing.begin(until_index)
        self.erasing.finish()

    # ---- checkpoints ----

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the ids in memory are to be frozen, and a checkpoint to be made of what there is."""
        ids = self.ledger.generations
        if ids.frozen or self.stalled_index:
            return False
        if not self.has_room_for_batch(BATCH_COMMANDS_MAX):
            return True  # Whatever zeroing the rest of the spare table costs: nothing could be executed any more.
        entries = self.applied_index - self.checkpoint_index
        is_due = ids.key_count >= self.settings.freeze_at_ids or entries >= self.settings.checkpoint_entries
        return is_due and ids.can_freeze

    def has_room_for_batch(self, commands: int) -> bool:
        """Whether the ids of so many commands find room in memory, also behind ENTRIES_BESIDE_MAX other entries."""
        return self.ledger.has_room_for_ids(commands + ENTRIES_BESIDE_MAX, 1 + ENTRIES_BESIDE_MAX)

    def freeze(self) -> None:
        """Freeze the ids in memory; `adopt` must follow with the checkpoint behind `frozen_index`."""
        self.ledger.generations.freeze()
        self.frozen_index = self.applied_index

    def adopt(self, manifest: Manifest, runs: RunSet) -> None:
        """Go on with a checkpoint that holds the frozen ids, and whose runs have been opened."""
        if not self.frozen_index or manifest.point.index != self.frozen_index:
            raise LedgerError(f"a checkpoint at index {manifest.point.index}, where {self.frozen_index} was asked for")
        if manifest.salts != self.ledger.salts:
            raise LedgerError("a checkpoint whose ids are hashed with other salts than those in memory")
        self.checkpoint_index, self.frozen_index = self.frozen_index, 0
        self.id_runs = self.ledger.cold_ids = runs
        self.ledger.generations.drop()

    # ---- commands ----

    def execute(self, commands: Records, preset: Words = _NO_PRESET, floor_ns: int = 0) -> Executed:
        """Execute commands (at most BATCH_COMMANDS_MAX) and append their events in memory, dated after `floor_ns`.

        `preset` may hold a code a command, which refuses it unseen unless it is 0. When the disk has no room for
        their events, or the memory none for their ids, all of them are refused as STORAGE_FULL; one that takes an event
        which is in an archive, and being fetched from now on, as OVERLOADED.
        """
        if len(commands) > BATCH_COMMANDS_MAX:
            raise LedgerError(f"a batch of {len(commands)} commands is over the {BATCH_COMMANDS_MAX} that one may have")
        events_max = len(commands) + min(EXPIRES_PER_ENTRY_MAX, self.ledger.holds_with_deadline)
        if not self.ledger.has_room_for_ids(len(commands)) or not self.log.has_room(events_max * EVENT_SIZE):
            # Without the ledger, in which holds that are due would expire: their events need room as well.
            refused = np.zeros(len(commands), RESULT)
            refused["code"] = int(ResultCode.STORAGE_FULL)
            return Executed(refused, self.log.last_index, np.zeros(0, EVENT))
        if self.log.archived_sequence and len(commands):
            preset = refuse_what_waits(self.ledger, self.log, commands, preset)
        first_sequence = self.ledger.next_sequence
        timestamp_ns = self._next_timestamp_ns(floor_ns)
        execution = self.ledger.execute(commands, timestamp_ns, preset)
        count = len(execution.events)
        if count:
            self._append_events(execution.events, first_sequence, timestamp_ns)
        return Executed(execution.results, self.log.last_index, execution.events)

    def register_currency(self, code: str, decimals: int) -> int:
        """Register a currency; returns the index that must be durable before anyone is told. Raises `UsageError`."""
        is_new = code not in self.ledger.currencies
        if is_new and not self.log.has_room(EVENT_SIZE):
            raise StorageError("the disk is at its free-space floor; nothing can be registered now")
        timestamp_ns = self._next_timestamp_ns()
        self.ledger.register_currency(code, decimals)
        if is_new:
            self._append_control(ControlEntry(currencies=[Currency(code, decimals)]), timestamp_ns)
        return self.log.last_index

    def settle(self, try_sequences: Words) -> int:
        """Note that other shards know what was decided on these tries, SETTLED_MAX at most; see `Ledger.settle`."""
        if len(try_sequences) > SETTLED_MAX:
            raise LedgerError(f"{len(try_sequences)} tries are over the {SETTLED_MAX} that one entry may settle")
        if len(try_sequences):
            settled = np.ascontiguousarray(try_sequences, np.int64).tobytes()
            if not self.log.has_room(len(settled) + CONTROL_SIZE_BESIDE_MAX):
                raise StorageError("the disk is at its free-space floor; nothing can be settled now")
            timestamp_ns = self._next_timestamp_ns()
            self.ledger.settle(try_sequences)
            self._append_control(ControlEntry(settled=settled), timestamp_ns)
        return self.log.last_index

    def execute_moves(self, events: Records, floor_ns: int = 0) -> int:
        """Execute events of a move of slots, BATCH_COMMANDS_MAX at most, dated after `floor_ns`; returns their index.

        Raises `StorageError` if there is no room for them on the disk, or for their ids in memory.
        """
        if not len(events) or len(events) > BATCH_COMMANDS_MAX:
            raise LedgerError(f"an entry of a move has 1 to {BATCH_COMMANDS_MAX} events, not {len(events)}")
        if not self.ledger.has_room_for_ids(len(events)) or not self.log.has_room(len(events) * EVENT_SIZE):
            raise StorageError("there is no room now for what a move of slots brings")
        first_sequence, timestamp_ns = self.ledger.next_sequence, self._next_timestamp_ns(floor_ns)
        executed = self.ledger.execute_moves(events, timestamp_ns)
        self._append_events(executed, first_sequence, timestamp_ns)
        return self.log.last_index

    def switch_rules(self, version: int) -> int:
        """Execute under these rules from the next entry on; returns the index that must be durable before that is told.

        Once every voter supports them: one that does not can go no further. Raises `UsageError` for unknown rules and
        for earlier ones than those in force.
        """
        if version != self.ledger.rules_version:
            if not self.log.has_room(EVENT_SIZE):
                raise StorageError("the disk is at its free-space floor; the rules cannot be switched now")
            timestamp_ns, before = self._next_timestamp_ns(), self.ledger.rules_version
            self.ledger.switch_rules(version)
            self._append_control(ControlEntry(rules_version=version), timestamp_ns, before)
        return self.log.last_index

    def _append_events(self, events: Records, first_sequence: int, timestamp_ns: int) -> None:
        """Append events that the ledger has made."""
        body = events.view(np.uint8).data
        self._append(EntryKind.EVENTS, body, timestamp_ns, first_sequence=first_sequence, count=len(events))

    def _append_control(self, control: ControlEntry, timestamp_ns: int, rules_version: int | None = None) -> None:
        """Append a control entry, made under these rules or those in force."""
        self._append(EntryKind.CONTROL, encode_message(control), timestamp_ns, rules_version)
        if self.log.last_index == 1:
            self.ledger.switch_rules(control.rules_version)
            for currency in control.currencies:
                self.ledger.register_currency(currency.code, currency.decimals)

    def _append(
        self, kind: EntryKind, body: bytes | memoryview, timestamp_ns: int, rules_version: int | None = None, **of: int
    ) -> None:
        """Append an entry, without events unless `of` says which; its effect on the ledger is the caller's."""
        rules = self.ledger.rules_version if rules_version is None else rules_version
        of = {"first_sequence": self.ledger.next_sequence, "count": 0} | of
        self.log.append(kind, body, timestamp_ns=timestamp_ns, rules_version=rules, **of)
        self.applied_index = self.log.last_index

    @property
    def clock_ns(self) -> int:
        """What this node's clock shows."""
        return self._clock_ns()

    @property
    def last_timestamp_ns(self) -> int:
        """What comes next is dated after this."""
        return max(self.log.last_timestamp_ns, self.ledger.last_timestamp_ns)

    def _next_timestamp_ns(self, floor_ns: int = 0) -> int:
        timestamp_ns = max(self._clock_ns(), self.last_timestamp_ns + 1, floor_ns + 1)
        if timestamp_ns > TIMESTAMP_NS_MAX:
            raise StorageError(f"the time {timestamp_ns} ns is beyond the year 2160: see to the clock")
        return timestamp_ns

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
        return find_answers(self.ledger, self.shard, keys)

    def close(self) -> None:
        """Close the log and let others have the folder. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.erasing.close()
        self.log.close()
        self._lock.release()


def _nobody_unready(version: int) -> str:
    """A node alone knows what it makes."""
    return ""


def open_replica(
    data_directory: Path | Directory,
    *,
    shard: int = 0,
    settings: ReplicaSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    on_progress: Callable[[int], None] | None = None,
    first: FirstEntry | None = None,
) -> Replica:
    """Open the replica in a data folder, creating it if there is none, and recover its state.

    `first` is what a new log of a group begins with. See `Replica.recover`.
    Raises `DataFolderInUse`, `UnsupportedFormat`, `CorruptLog`, `StorageError`.
    """
    settings = settings or ReplicaSettings()
    directory = shard_directory(data_directory, shard)
    directory.create()
    lock = as_directory(data_directory).lock()
    try:
        log = open_log(
            directory,
            shard=shard,
            segment_size=settings.segment_size,
            free_space_floor=settings.free_space_floor,
        )
        if first is not None:
            log.log_id = first.log_id
        try:
            return recover_replica(
                log, lock, directory, settings, shard=shard, clock_ns=clock_ns, on_progress=on_progress, first=first
            )
        except BaseException:
            log.close()
            raise
    except BaseException:
        lock.release()
        raise


def recover_replica(
    log: Log,
    lock: FolderLock,
    directory: Directory,
    settings: ReplicaSettings,
    *,
    shard: int,
    clock_ns: Callable[[], int],
    on_progress: Callable[[int], None] | None = None,
    first: FirstEntry | None = None,
) -> Replica:
    """The replica of a log in a folder, not opened yet; after an exception the log and the lock are the caller's."""
    checkpoints = CheckpointFolder(directory)
    checkpoints_lock = checkpoints.lock()
    try:
        replica = Replica(log, lock, checkpoints, settings, shard=shard, clock_ns=clock_ns)
        replica.recover(on_progress, first)
    finally:
        checkpoints_lock.release()
    return replica
