"""Claim: a replica that is opened again is the one that was closed, and tells nothing before it is durable."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bezant.engine.checkpoints import checkpointer as checkpointer_module
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.log import open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory, FolderLock
from bezant.engine.replay import replay_entry
from bezant.engine.replica import (
    BATCH_COMMANDS_MAX,
    Executed,
    Replica,
    ReplicaSettings,
    open_replica,
    recover_replica,
    shard_directory,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.currencies import ISO_4217
from bezant.protocol.errors import CorruptLog, DataFolderInUse, LedgerError, StorageError, UsageError
from bezant.protocol.kinds import CommandKind, EntryKind, ResultFlag
from bezant.protocol.messages import ControlEntry, decode_message
from bezant.protocol.names import account_id
from bezant.protocol.records import (
    COMMAND,
    ENTRY_HEADER_SIZE,
    EVENT,
    EVENT_SIZE,
    RULES_VERSION,
    SEGMENT_HEADER_SIZE,
    Records,
    id_words,
    split_position,
)

from .commands import join, keys_of, opening, opening_world, transfer, transfers
from .conftest import Clock


def codes_of(results: Records) -> list[ResultCode]:
    return [ResultCode(int(code)) for code in results["code"]]


def balance_of(replica: Replica, name: str, currency: str = "EUR") -> int:
    ids = np.array([id_words(account_id(name, currency))], np.int64)
    return int(replica.ledger.lookup_accounts(ids)[0]["balance"])


def some_history(replica: Replica) -> None:
    """Openings, transfers, refusals, repeats, a currency of our own; in entries of one and of many, over segments."""
    replica.execute(opening_world("ann", "bob"))
    replica.write_group()
    first = transfers("world", "ann", 200, 5)
    replica.execute(first)
    replica.register_currency("POINTS", 3)
    replica.execute(opening("points", 10, currency="POINTS"))
    replica.write_group()
    replica.execute(join(transfers("ann", "bob", 50), transfer("bob", "ann", 10**6), first[:3]))
    replica.execute(transfers("world", "bob", 150))
    replica.execute(transfer("ann", "bob", 1))
    replica.write_group()


# --- Across a restart


def test_the_state_is_the_same_after_a_restart(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    some_history(replica)
    before = (replica.ledger.digest(), replica.log.chain_hash, replica.ledger.next_sequence, replica.durable_index)
    accounts = replica.ledger.list_accounts(0, 100).tobytes()
    replica.close()
    told: list[int] = []
    replica = open_replica(tmp_path, settings=small, on_progress=told.append)
    assert before == (
        replica.ledger.digest(),
        replica.log.chain_hash,
        replica.ledger.next_sequence,
        replica.durable_index,
    )
    assert replica.ledger.list_accounts(0, 100).tobytes() == accounts
    assert told[-1] == replica.ledger.next_sequence - 1
    assert told == sorted(told)
    assert len(told) == replica.log.last_index
    replica.close()


def test_repeats_are_known_after_a_restart(tmp_path: Path, small: ReplicaSettings) -> None:
    """The first outcome, with its position and time, of entries near and far; and a conflict names its field."""
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world("ann"))
    first = transfers("world", "ann", 300, 5)
    outcomes = replica.execute(first).results
    replica.execute(transfers("world", "ann", 300))
    replica.write_group()
    replica.close()
    replica = open_replica(tmp_path, settings=small)
    index = replica.log.last_index
    again = replica.execute(first)
    assert (again.index, again.event_count) == (index, 0)
    assert set(again.results["flags"].tolist()) == {int(ResultFlag.REPEATED)}
    again.results["flags"] = 0
    assert again.results.tobytes() == outcomes.tobytes()
    changed = first[:1].copy()
    changed["amount"] = 6
    assert codes_of(replica.execute(changed).results) == [ResultCode.ID_CONFLICT]
    replica.close()


def test_what_was_not_written_is_gone_and_its_ids_are_free(tmp_path: Path, small: ReplicaSettings) -> None:
    """Nobody was told; so the same commands, sent again, are executed."""
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world("ann"))
    replica.write_group()
    unwritten = transfers("world", "ann", 3, 5)
    position = replica.execute(unwritten).results["position"].tolist()
    assert balance_of(replica, "ann") == 15
    replica.close()
    replica = open_replica(tmp_path, settings=small)
    assert balance_of(replica, "ann") == 0
    results = replica.execute(unwritten).results
    assert codes_of(results) == [ResultCode.COMMITTED] * 3
    assert results["position"].tolist() == position
    replica.close()


def test_currencies_are_registered_for_ever(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    assert replica.ledger.currencies == ISO_4217
    index = replica.register_currency("POINTS", 0)
    assert index == replica.log.last_index == 2
    assert replica.durable_index == 1
    assert replica.register_currency("POINTS", 0) == index
    replica.write_group()
    replica.register_currency("LATER", 18)
    replica.execute(opening("shop", currency="LATER"))
    replica.write_group()
    replica.close()
    replica = open_replica(tmp_path, settings=small)
    assert replica.ledger.currencies == ISO_4217 | {"POINTS": 0, "LATER": 18}
    assert list(replica.ledger.currencies)[-2:] == ["POINTS", "LATER"]
    with pytest.raises(UsageError, match="registered with 18 decimals, not 2"):
        replica.register_currency("LATER", 2)
    for code, decimals in (("lower", 2), ("", 2), ("TOOLONGAC", 2), ("NEW", -1), ("NEW", 19)):
        with pytest.raises(UsageError):
            replica.register_currency(code, decimals)
    assert replica.log.idle
    assert codes_of(replica.execute(opening("shop2", currency="LATER")).results) == [ResultCode.COMMITTED]
    replica.close()


def test_the_first_entry_says_what_the_log_starts_with(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    assert replica.durable_index == replica.log.last_index == 1
    replica.close()
    log = open_log(shard_directory(tmp_path, 0), writable=False)
    (entry,) = log.open()
    assert entry.header.kind == EntryKind.CONTROL
    control = decode_message(bytes(entry.body), ControlEntry)
    assert {currency.code: currency.decimals for currency in control.currencies} == ISO_4217
    assert control.rules_version == RULES_VERSION
    assert control.created_by.startswith("bezant ")
    log.close()


@pytest.mark.parametrize("left", [0, 60, 1000])
def test_a_crash_while_the_first_entry_was_written_starts_anew(
    tmp_path: Path, small: ReplicaSettings, left: int
) -> None:
    """Nothing of the log was ever acknowledged; half of its first entry is set aside."""
    open_replica(tmp_path, settings=small).close()
    folder = shard_directory(tmp_path, 0).path
    path = folder / segment_name(1)
    data = path.read_bytes()[: SEGMENT_HEADER_SIZE + left]
    path.write_bytes(data + bytes(small.segment_size - len(data)))
    (folder / "control").write_bytes(bytes(8192))
    replica = open_replica(tmp_path, settings=small)
    assert replica.ledger.currencies == ISO_4217
    assert (replica.log.recovery.torn_bytes > 0) == (left > 0)
    assert replica.durable_index == 1
    replica.close()


def test_a_shard_of_another_number_has_its_own_log_and_positions(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, shard=9, settings=small)
    results = replica.execute(opening_world()).results
    replica.write_group()
    assert [split_position(int(position)) for position in results["position"]] == [(9, 1)]
    answers = replica.lookup_events(np.zeros((0, 4), np.int64))
    assert len(answers) == 0
    replica.close()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["shard-0009"]


# --- The log is the ledger


def test_replaying_the_log_gives_the_same_digest_as_executing_did(
    tmp_path: Path, small: ReplicaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entry by entry: a ledger that is fed from the log is never different from the one that wrote it."""
    digests = []
    replica = open_replica(tmp_path, settings=small)
    execute = replica.execute

    def execute_noted(commands: Records) -> Executed:
        done = execute(commands)
        digests.append((done.index, replica.ledger.digest()))
        return done

    monkeypatch.setattr(replica, "execute", execute_noted)
    some_history(replica)
    replica.close()
    log = open_log(shard_directory(tmp_path, 0), writable=False)
    ledger = Ledger(accounts_max=small.accounts_max, ids_capacity_initial=1024, fetch_events=log.read_events)
    replayed = {}
    for entry in log.open():
        replay_entry(ledger, entry)
        replayed[entry.header.index] = ledger.digest()
    log.close()
    assert len(digests) == 6
    assert [(index, replayed[index]) for index, _ in digests] == digests


def test_the_events_in_the_log_are_those_of_the_ledger(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    executed = replica.execute(join(opening_world("ann"), transfer("ann", "world", 1), transfer("world", "ann", 0)))
    assert codes_of(executed.results) == [
        ResultCode.COMMITTED,
        ResultCode.COMMITTED,
        ResultCode.INSUFFICIENT_FUNDS,
        ResultCode.AMOUNT_NOT_POSITIVE,
    ]
    assert executed.event_count == 3
    events = replica.log.read_events(np.arange(1, 4))
    assert events["result"].tolist() == executed.results["code"][:3].tolist()
    assert events["timestamp_ns"].tolist() == executed.results["timestamp_ns"][:3].tolist()
    replica.close()


# --- Told only when durable


def test_results_wait_for_the_index_that_came_with_them(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    first = replica.execute(opening_world("ann"))
    assert first.index == 2 > replica.durable_index == 1
    group = replica.begin_group()
    assert group is not None
    second = replica.execute(transfer("world", "ann", 5))
    repeated = replica.execute(transfer("world", "ann", 0))
    assert (second.index, repeated.index, repeated.event_count) == (3, 3, 0)
    group.write_and_sync()
    assert replica.durable_index == 1
    replica.finish_group(group)
    assert first.index == replica.durable_index < second.index
    replica.write_group()
    assert replica.durable_index == second.index
    replica.write_group()
    assert replica.durable_index == second.index
    replica.close()


def test_a_repeat_waits_for_the_original(tmp_path: Path, small: ReplicaSettings) -> None:
    """It leaves no event, and yet it must not be told that something happened which a crash could undo."""
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world("ann"))
    replica.write_group()
    command = transfer("world", "ann", 5)
    original = replica.execute(command)
    repeat = replica.execute(command)
    assert repeat.results["flags"].tolist() == [int(ResultFlag.REPEATED)]
    assert (repeat.event_count, repeat.index) == (0, original.index)
    assert repeat.index > replica.durable_index
    replica.close()


def test_batches_are_bounded(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    with pytest.raises(LedgerError, match="over the 16384"):
        replica.execute(np.zeros(BATCH_COMMANDS_MAX + 1, COMMAND))
    assert replica.log.idle
    replica.close()


# --- Time


def test_time_never_stands_still(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    """However the clock jumps, also across a restart: each event is later than the one before it."""
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    start_ns = clock.now_ns
    replica.execute(opening_world("ann"))
    assert replica.ledger.last_timestamp_ns == start_ns + 2
    clock.now_ns -= 10**12
    replica.execute(transfers("world", "ann", 3))
    replica.register_currency("POINTS", 0)
    replica.execute(transfers("world", "ann", 1))
    replica.write_group()
    last_ns = replica.ledger.last_timestamp_ns
    assert last_ns == start_ns + 7  # the control entry took a nanosecond, too
    replica.close()
    clock.now_ns = 1
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    replica.execute(transfers("world", "ann", 2))
    assert replica.ledger.last_timestamp_ns == last_ns + 2
    clock.now_ns = start_ns + 10**9
    replica.execute(transfers("world", "ann", 1))
    assert replica.ledger.last_timestamp_ns == clock.now_ns
    replica.write_group()
    events = replica.log.read_events(np.arange(1, replica.ledger.next_sequence))
    assert np.all(np.diff(events["timestamp_ns"]) > 0)
    replica.close()


def test_a_control_entry_after_a_restart_is_later_too(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    """The last entry before the stop had no event whose time the ledger could know."""
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    replica.register_currency("POINTS", 0)
    replica.write_group()
    last_ns = replica.log.last_timestamp_ns
    replica.close()
    clock.now_ns -= 10**9
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    replica.register_currency("LATER", 0)
    assert replica.log.last_timestamp_ns == last_ns + 1
    replica.write_group()
    replica.close()


# --- A full disk


class Disk(Directory):
    """A folder whose free space the test decides."""

    free = 1 << 40

    def free_bytes(self) -> int:
        return self.free


def open_on(disk: Disk, settings: ReplicaSettings, clock: Clock) -> Replica:
    disk.create()
    log = open_log(disk, segment_size=settings.segment_size, free_space_floor=1 << 20)
    return recover_replica(log, FolderLock(disk.path.parent), disk, settings, shard=0, clock_ns=clock)


def test_a_full_disk_refuses_and_changes_nothing_until_there_is_room(
    tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    disk = Disk(tmp_path / "shard-0000")
    replica = open_on(disk, small, clock)
    replica.execute(opening_world("ann"))
    disk.free = 0
    batch = transfers("world", "ann", 250)
    executed = replica.execute(batch)
    while codes_of(executed.results)[0] == ResultCode.COMMITTED:
        replica.write_group()
        batch = transfers("world", "ann", 250)
        executed = replica.execute(batch)
    assert set(codes_of(executed.results)) == {ResultCode.STORAGE_FULL}
    assert (executed.event_count, executed.index) == (0, replica.log.last_index)
    assert not executed.results["position"].any()
    digest = replica.ledger.digest()
    assert codes_of(replica.execute(batch).results)[0] == ResultCode.STORAGE_FULL
    assert replica.ledger.digest() == digest
    # The same commands are executed when there is room again, without a restart.
    disk.free = 1 << 40
    executed = replica.execute(batch)
    assert set(codes_of(executed.results)) == {ResultCode.COMMITTED}
    replica.write_group()
    assert replica.durable_index == executed.index
    replica.close()


def test_holds_do_not_expire_on_a_full_disk(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    """Their events need room as well; they expire as soon as there is some."""
    disk = Disk(tmp_path / "shard-0000")
    settings = msgspec.structs.replace(small, segment_size=512 << 10)
    replica = open_on(disk, settings, clock)
    hold = transfer("world", "ann", 5, kind=int(CommandKind.HOLD), timeout_ms=1)
    assert codes_of(replica.execute(join(opening_world("ann"), hold)).results) == [ResultCode.COMMITTED] * 3
    disk.free = 0
    executed = replica.execute(transfers("world", "ann", 1000))
    while codes_of(executed.results)[0] == ResultCode.COMMITTED:
        replica.write_group()
        executed = replica.execute(transfers("world", "ann", 1000))
    assert replica.ledger.hold_count == 1
    clock.now_ns += 10**9
    executed = replica.execute(transfers("world", "ann", 1000))
    assert set(codes_of(executed.results)) == {ResultCode.STORAGE_FULL}
    assert (executed.event_count, replica.ledger.hold_count) == (0, 1)
    disk.free = 1 << 40
    executed = replica.execute(transfers("world", "ann", 1))
    assert (executed.event_count, replica.ledger.hold_count) == (2, 0)
    replica.write_group()
    digest = replica.ledger.digest()
    replica.close()
    replica = open_on(disk, settings, clock)
    assert replica.ledger.digest() == digest
    replica.close()


def test_nothing_is_registered_on_a_full_disk(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    disk = Disk(tmp_path / "shard-0000")
    replica = open_on(disk, small, clock)
    disk.free = 0
    replica.execute(opening_world("ann"))
    for count in (250, 100, 30, 10, 3, 1):
        while codes_of(replica.execute(transfers("world", "ann", count)).results)[0] == ResultCode.COMMITTED:
            replica.write_group()
    with pytest.raises(StorageError, match="free-space floor"):
        replica.register_currency("POINTS", 0)
    assert "POINTS" not in replica.ledger.currencies
    disk.free = 1 << 40
    replica.register_currency("POINTS", 0)
    replica.write_group()
    replica.close()


def test_a_batch_that_no_segment_can_hold_is_refused_whole(tmp_path: Path, small: ReplicaSettings) -> None:
    """Before the ledger has changed: a segment of 64 KiB takes some 300 events."""
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world("ann"))
    digest = replica.ledger.digest()
    most = (small.segment_size - SEGMENT_HEADER_SIZE - ENTRY_HEADER_SIZE) // EVENT_SIZE
    executed = replica.execute(transfers("world", "ann", most + 1))
    assert set(codes_of(executed.results)) == {ResultCode.STORAGE_FULL}
    assert replica.ledger.digest() == digest
    assert set(codes_of(replica.execute(transfers("world", "ann", most)).results)) == {ResultCode.COMMITTED}
    replica.close()


def test_a_free_space_floor_above_the_disk_stops_at_the_first_segment(tmp_path: Path, small: ReplicaSettings) -> None:
    """The setting, on a real disk: no disk has an exbibyte to spare."""
    replica = open_replica(tmp_path, settings=msgspec.structs.replace(small, free_space_floor=1 << 60))
    replica.execute(opening_world("ann"))
    found = set()
    for _ in range(3):
        found |= set(codes_of(replica.execute(transfers("world", "ann", 200)).results))
        replica.write_group()
    assert found == {ResultCode.COMMITTED, ResultCode.STORAGE_FULL}
    assert len(list(shard_directory(tmp_path, 0).path.glob("segment-*"))) == 1
    replica.close()


# --- Look-ups


def test_events_are_found_by_the_id_of_their_command(tmp_path: Path, small: ReplicaSettings) -> None:
    """Committed or refused, durable or not yet; not those of commands that left none, nor of other slots."""
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world("ann", "bob"))
    replica.write_group()
    commands = join(
        transfer("world", "ann", 5), transfer("ann", "bob", 100), transfer("ann", "bob", 0), transfer("ann", "ann", 1)
    )
    results = replica.execute(commands).results
    elsewhere = commands[:1].copy()
    elsewhere["debit_head"], elsewhere["debit_tail"] = id_words(account_id("bob", "EUR"))
    asked = join(commands, elsewhere, commands[:1])
    answers = replica.lookup_events(keys_of(asked))
    assert answers["found"].tolist() == [1, 1, 0, 0, 0, 1]
    assert answers["position"].tolist() == [*results["position"][:2].tolist(), 0, 0, 0, int(results["position"][0])]
    events = np.frombuffer(answers["event"].tobytes(), EVENT)
    assert events["amount"].tolist() == [5, 100, 0, 0, 0, 5]
    assert events[2].tobytes() == bytes(EVENT_SIZE)
    replica.write_group()
    assert replica.lookup_events(keys_of(asked)).tobytes() == answers.tobytes()
    replica.close()


# --- Opening and closing


def test_a_folder_is_held_while_its_replica_is_open(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    with pytest.raises(DataFolderInUse, match="in use by process"):
        open_replica(tmp_path, settings=small)
    replica.close()
    replica.close()
    open_replica(tmp_path, settings=small).close()


def test_a_folder_that_is_refused_is_let_go_and_left_as_it_was(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    some_history(replica)
    replica.close()
    path = shard_directory(tmp_path, 0).path / segment_name(1)
    good = path.read_bytes()
    path.write_bytes(good[:9000] + b"rot" + good[9003:])
    files = {found: found.read_bytes() for found in tmp_path.rglob("*") if found.is_file()}
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(CorruptLog):
            open_replica(tmp_path, settings=small)
    assert {found: found.read_bytes() for found in tmp_path.rglob("*") if found.is_file()} == files
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    path.write_bytes(good)
    open_replica(tmp_path, settings=small).close()


def test_fewer_accounts_than_the_history_has_are_not_taken_for_damage(tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world(*(f"account-{number}" for number in range(20))))
    replica.write_group()
    replica.close()
    with pytest.raises(StorageError, match="accounts_max") as caught:
        open_replica(tmp_path, settings=msgspec.structs.replace(small, accounts_max=20))
    assert not isinstance(caught.value, CorruptLog)
    replica = open_replica(tmp_path, settings=msgspec.structs.replace(small, accounts_max=21))
    assert codes_of(replica.execute(opening("one-more")).results) == [ResultCode.ACCOUNTS_FULL]
    replica.close()


def test_a_replica_knows_whether_its_disk_is_one(
    tmp_path: Path, small: ReplicaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Directory, "is_durable", lambda _: False)
    replica = open_replica(tmp_path, settings=small)
    assert replica.durable is False
    replica.close()


def test_an_interrupted_recovery_marks_no_stop_as_clean(
    tmp_path: Path, small: ReplicaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops a start half way must not have the log believe that all of it was seen."""
    replica = open_replica(tmp_path, settings=small)
    some_history(replica)
    replica.close()
    control = shard_directory(tmp_path, 0).path / "control"
    before = control.read_bytes()
    replayed = 0

    def replay_some(ledger: Ledger, entry: object) -> None:
        nonlocal replayed
        replayed += 1
        if replayed == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpointer_module, "replay_entry", replay_some)
    with pytest.raises(KeyboardInterrupt):
        open_replica(tmp_path, settings=small)
    assert control.read_bytes() == before
