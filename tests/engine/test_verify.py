"""Claim: `verify` passes every history that the rules gave, and finds what was changed even by one who recomputes the
checksums and the hash chain."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from bezant.engine import verify as verify_module
from bezant.engine.ahead import CHUNK_ENTRIES_MAX, CHUNKS_AHEAD_MAX
from bezant.engine.compiled import kernel_digest
from bezant.engine.ledger.ledger import TIMESTAMP_NS_MAX
from bezant.engine.log.entry import HASH_NONE, Entry, encode_entry, entry_hash, public_log_id
from bezant.engine.log.log import open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.replica import ReplicaSettings, open_replica, shard_directory
from bezant.engine.verify import verify
from bezant.protocol.errors import CorruptLog, DataFolderInUse, StorageError, UnsupportedFormat
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.messages import ControlEntry, Currency, encode_message
from bezant.protocol.records import EVENT, EVENT_SIZE, RULES_VERSION, SEGMENT_HEADER_SIZE

from .commands import join, opening, opening_world, transfer, transfers
from .conftest import NOON_NS, Clock


@pytest.fixture
def settings(small: ReplicaSettings) -> ReplicaSettings:
    """One segment holds the whole history, which is so the easier to forge."""
    return msgspec.structs.replace(small, segment_size=1 << 20)


class Good(NamedTuple):
    """A folder with a history, and what the node that wrote it said of it at the end."""

    folder: Path
    state_digest: str
    chain_hash: bytes
    events: int


@pytest.fixture
def good(tmp_path: Path, settings: ReplicaSettings) -> Good:
    """Entries: 1 control, 2 openings, 3 transfers, 4 control, 5 refusals among others, 6 a hold and its release."""
    replica = open_replica(tmp_path, settings=settings)
    replica.execute(opening_world("ann", "bob"))
    replica.execute(transfers("world", "ann", 30, 7))
    replica.register_currency("POINTS", 2)
    replica.execute(join(opening("shop", 5, currency="POINTS"), transfer("bob", "ann"), transfer("ann", "bob", 3)))
    replica.execute(join(transfer("ann", "bob", 3, kind=int(CommandKind.HOLD)), transfer("ann", "bob", 2)))
    replica.write_group()
    found = Good(tmp_path, replica.ledger.digest(), replica.log.chain_hash, replica.ledger.next_sequence - 1)
    replica.close()
    return found


def run(folder: Path) -> None:
    verify(folder)


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but the lock, in which the last holder has written its name."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


# --- Good histories


def test_a_good_history_passes(good: Good) -> None:
    before = contents(good.folder)
    report = verify(good.folder)
    assert (report.events, report.entries, report.accounts) == (good.events, 6, 4)
    assert (report.state_digest, report.chain_hash) == (good.state_digest, good.chain_hash.hex())
    assert report.kernel_digest == kernel_digest()
    assert report.seconds > 0
    assert report.torn_bytes == 0
    log = open_log(shard_directory(good.folder, 0), writable=False)
    assert len(list(log.open())) == report.entries
    assert report.log_id == public_log_id(log.log_id)
    log.close()
    assert contents(good.folder) == before


def test_a_new_folder_passes(tmp_path: Path, settings: ReplicaSettings) -> None:
    open_replica(tmp_path, settings=settings).close()
    report = verify(tmp_path)
    assert (report.events, report.entries, report.accounts) == (0, 1, 0)


ENTRIES = 2 * CHUNKS_AHEAD_MAX * CHUNK_ENTRIES_MAX


def test_a_history_over_many_segments_passes(tmp_path: Path, small: ReplicaSettings) -> None:
    """More entries than are read ahead."""
    replica = open_replica(tmp_path, settings=small)
    replica.execute(opening_world("ann"))
    for _ in range(ENTRIES):
        replica.execute(transfers("world", "ann", 150))
        replica.write_group()
    digest = replica.ledger.digest()
    replica.close()
    told: list[tuple[int, int]] = []
    report = verify(tmp_path, lambda done, total: told.append((done, total)))
    assert report.state_digest == digest
    assert report.entries == len(told) == ENTRIES + 2
    assert told[-1] == (report.events, report.events)
    assert told == sorted(told)
    assert {total for _, total in told} == {report.events}


def test_a_torn_tail_is_told_and_left(good: Good) -> None:
    path = shard_directory(good.folder, 0).path / segment_name(1)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    path.write_bytes(data[: end + 500] + b"torn" + data[end + 504 :])  # the last event may end in a few zeros
    before = contents(good.folder)
    report = verify(good.folder)
    assert 0 <= 504 - report.torn_bytes < EVENT_SIZE
    assert report.chain_hash == good.chain_hash.hex()
    assert contents(good.folder) == before


# --- Forged histories

Forgery = Callable[[list[Entry]], list[Entry]]


def forge(folder: Path, change: Forgery) -> None:
    """Rewrite a log as somebody would who knows the formats: with checksums and hash chain computed anew."""
    log = open_log(shard_directory(folder, 0), writable=False)
    entries = [entry._replace(body=bytes(entry.body)) for entry in log.open()]
    log.close()
    data = bytearray()
    previous_hash = HASH_NONE
    for number, entry in enumerate(change(entries), 1):
        header = entry.header._replace(index=number, previous_hash=previous_hash, body_size=len(entry.body))
        forged = encode_entry(header, entry.body)
        previous_hash = entry_hash(forged.encoded, forged.body)
        data += forged.encoded + bytes(forged.body)
    path = shard_directory(folder, 0).path / segment_name(1)
    old = path.read_bytes()
    path.write_bytes(old[:SEGMENT_HEADER_SIZE] + data + bytes(len(old) - SEGMENT_HEADER_SIZE - len(data)))


def in_event(entry: int, event: int, **fields: int) -> Forgery:
    """Other values in an event (numbered from 0) of an entry (from 1)."""

    def change(entries: list[Entry]) -> list[Entry]:
        events = np.frombuffer(entries[entry - 1].body, EVENT).copy()
        for field, value in fields.items():
            events[event][field] = value
        entries[entry - 1] = entries[entry - 1]._replace(body=events.tobytes())
        return entries

    return change


def in_header(entry: int, **fields: int) -> Forgery:
    def change(entries: list[Entry]) -> list[Entry]:
        header = entries[entry - 1].header._replace(**fields)
        entries[entry - 1] = entries[entry - 1]._replace(header=header)
        return entries

    return change


def with_body(entry: int, body: bytes, **fields: int) -> Forgery:
    def change(entries: list[Entry]) -> list[Entry]:
        return in_header(entry, **fields)(
            [*entries[: entry - 1], entries[entry - 1]._replace(body=body), *entries[entry:]]
        )

    return change


def without_event(entries: list[Entry]) -> list[Entry]:
    """Leave the last event of entry 3 out, and move all sequences behind it."""
    entry = entries[2]
    entries[2] = entry._replace(
        body=entry.body[:-EVENT_SIZE], header=entry.header._replace(count=entry.header.count - 1)
    )
    return entries[:3] + [shift(later, -1) for later in entries[3:]]


def with_event_twice(entries: list[Entry]) -> list[Entry]:
    """Pay the last event of entry 3 again, within the entry."""
    entry = entries[2]
    body = bytes(entry.body) + bytes(entry.body[-EVENT_SIZE:])
    entries[2] = entry._replace(body=body, header=entry.header._replace(count=entry.header.count + 1))
    return entries[:3] + [shift(later, 1) for later in entries[3:]]


def with_entry_twice(entries: list[Entry]) -> list[Entry]:
    """Pay all of entry 3 again, later: the ids are known from an entry before."""
    again = shift(entries[2], entries[2].header.count)
    again = again._replace(header=again.header._replace(timestamp_ns=entries[3].header.timestamp_ns - 1))
    return [*entries[:3], again, *(shift(later, entries[2].header.count) for later in entries[3:])]


def without_entry(entries: list[Entry]) -> list[Entry]:
    count = entries[2].header.count
    return entries[:2] + [shift(later, -count) for later in entries[3:]]


def swapped(entries: list[Entry]) -> list[Entry]:
    entries[1], entries[2] = entries[2], entries[1]
    return entries


def shift(entry: Entry, by: int) -> Entry:
    return entry._replace(header=entry.header._replace(first_sequence=entry.header.first_sequence + by))


FORGED: dict[str, tuple[Forgery, str]] = {
    "an amount": (in_event(3, 4, amount=8), "entry 3, sequence 8: effective_amount is 7 in the history and 8 when"),
    "an effective amount": (in_event(3, 4, effective_amount=8), "sequence 8: effective_amount is 8 in the history"),
    "a balance": (in_event(3, 29, credit_balance=10**9), "sequence 33: credit_balance is 1000000000 in the history"),
    "a refusal": (in_event(5, 1, result=0), "sequence 35: result is 0 in the history and 309 when"),
    "a payment that becomes a refusal": (in_event(5, 2, result=309), "sequence 36: result is 309 in the history"),
    "a time": (in_event(3, 0, timestamp_ns=5), "sequence 4: timestamp_ns is 5 in the history"),
    "a back-pointer": (in_event(3, 1, debit_previous=2), "sequence 5: debit_previous is 2 in the history and 4 when"),
    "reserved bytes": (in_event(3, 1, event_reserved=1), "sequence 5: event_reserved is 1 in the history"),
    "an id that was used": (
        in_event(3, 1, id_tail=0, id_head=0),
        "sequence 5: there is an event in the history, and none .* ID_INVALID, flags 0",
    ),
    "a limit": (in_event(2, 1, amount=10**6), "sequence 2: effective_amount is 0 in the history"),
    "what is held": (in_event(6, 0, debit_held=0), "debit_held is 0 in the history and 3 when"),
    "a kind": (in_event(3, 0, kind=200), "sequence 4: there is an event .* KIND_UNKNOWN, flags 0"),
    "an event that is left out": (
        without_event,
        "entry 5, sequence 34: credit_balance is 210 in the history and 203 when",
    ),
    "an event that is there twice": (
        with_event_twice,
        "sequence 34: there is an event in the history, and none .* COMMITTED, flags 1",
    ),
    "an entry that is there twice": (
        with_entry_twice,
        "entry 4, sequence 34: there is an event in the history, and none .* flags 1",
    ),
    "two entries swapped": (swapped, "its first sequence is 4, and 1 comes next"),
    "a first sequence": (in_header(5, first_sequence=35), "first sequence is 35, and 34 comes next"),
    "a first sequence of a control entry": (in_header(4, first_sequence=35), "first sequence is 35, and 34 comes next"),
    "an earlier time": (in_header(5, timestamp_ns=10**18), "its time is 1000000000000000000, and that"),
    "an earlier time of a control entry": (in_header(4, timestamp_ns=1), "its time is 1, and that"),
    "a time beyond all clocks": (in_header(5, timestamp_ns=2**63 - 1), "entry 5 cannot be executed again: the time 92"),
    "a time beyond all clocks of a control entry": (
        in_header(4, timestamp_ns=TIMESTAMP_NS_MAX + 1),
        "entry 4 has the time 5995814400000000001, which is beyond the year 2160",
    ),
    "a time beyond all clocks of an entry without meaning": (
        with_body(4, bytes(40), timestamp_ns=2**63 - 1, kind=int(EntryKind.FILLER)),
        "entry 4 has the time 9223372036854775807, which is beyond the year 2160",
    ),
    "an entry that knew itself to be durable": (
        in_header(3, durable_before=3),
        "an entry that claims the log to be durable up to index 3 where the entry with index 3 was expected; its check",
    ),
    "an entry that knew the future to be durable": (in_header(3, durable_before=2**62), "claims the log to be durable"),
    "an entry that knew less than nothing to be durable": (in_header(3, durable_before=-1), "durable up to index -1"),
    "a term below zero": (in_header(1, term=-1), "an entry of term -1 behind one of term 0 where the .* index 1 was"),
    "a term that falls": (in_header(2, term=5), "an entry of term 1 behind one of term 5 where the .* index 3 was"),
    "format 0": (in_header(5, format_version=0), "an entry of format 0 where the entry with index 5 was expected"),
    "a format below zero": (in_header(5, format_version=-7), "an entry of format -7 where"),
    "fewer events than none": (in_header(4, count=-1), "an entry of -1 events where the entry with index 4 was"),
    "an entry without meaning that has a meaning": (
        in_header(4, kind=int(EntryKind.FILLER)),
        "a filler that is not zeros where the entry with index 4 was expected",
    ),
    "a count": (in_header(3, count=29), "29 events in 5760 bytes"),
    "no events": (with_body(3, b"", count=0), "0 events in 0 bytes"),
    "half an event": (with_body(3, bytes(100), count=1), "1 events in 100 bytes"),
    "events of a control entry": (in_header(4, count=1), "kind 2, and 1 events"),
    "a control entry that is none": (with_body(4, b"\xc1"), "control entry 4 cannot be read"),
    "a currency with other decimals": (
        with_body(4, encode_message(ControlEntry(currencies=[Currency("EUR", 3)]))),
        "control entry 4 cannot be applied: currency EUR is registered with 2 decimals, not 3",
    ),
    "a currency that cannot be": (
        with_body(4, encode_message(ControlEntry(currencies=[Currency("eur", 2)]))),
        "control entry 4 cannot be applied",
    ),
    "a currency that is left out": (with_body(4, encode_message(ControlEntry())), "sequence 34: result is 0 in the"),
}


@pytest.mark.parametrize(("change", "words"), FORGED.values(), ids=FORGED)
def test_a_forgery_is_found(good: Good, settings: ReplicaSettings, change: Forgery, words: str) -> None:
    """By whoever verifies and by the node that would start on it, and both leave the folder as it is."""
    forge(good.folder, change)
    before = contents(good.folder)
    with pytest.raises(CorruptLog, match=words):
        run(good.folder)
    with pytest.raises(CorruptLog, match=words):
        open_replica(good.folder, settings=settings)
    assert contents(good.folder) == before


def test_what_is_cut_off_is_missed(good: Good) -> None:
    """The control page knows how many entries there were."""
    forge(good.folder, lambda entries: entries[:-1])
    with pytest.raises(CorruptLog, match="durable up to index 6"):
        run(good.folder)


def test_a_newer_kind_of_entry_is_refused(good: Good) -> None:
    forge(good.folder, in_header(4, kind=int(EntryKind.PHASES)))
    with pytest.raises(UnsupportedFormat, match="entry 4 has kind 6"):
        run(good.folder)


def test_newer_rules_are_refused(good: Good) -> None:
    forge(good.folder, with_body(4, encode_message(ControlEntry(rules_version=RULES_VERSION + 1))))
    with pytest.raises(UnsupportedFormat, match=f"entry 4 switches to rules {RULES_VERSION + 1}"):
        run(good.folder)


def test_a_control_entry_that_says_more_than_is_known_is_refused(good: Good, settings: ReplicaSettings) -> None:
    """A node that passed over a field would go on with another state than the one that wrote it."""
    body = msgspec.msgpack.encode({"currencies": [{"code": "POINTS", "decimals": 2}], "members": ["a", "b"]})
    forge(good.folder, with_body(4, body))
    before = contents(good.folder)
    with pytest.raises(UnsupportedFormat, match=r"entry 4: .* unknown field `members`.* newer version"):
        run(good.folder)
    with pytest.raises(UnsupportedFormat, match=r"entry 4: .* unknown field `members`.* newer version"):
        open_replica(good.folder, settings=settings)
    assert contents(good.folder) == before


def test_an_entry_without_meaning_changes_nothing(good: Good) -> None:
    """FILLER is passed over; the chain covers it all the same."""

    def fill(entries: list[Entry]) -> list[Entry]:
        header = entries[3].header._replace(kind=int(EntryKind.FILLER))
        return [*entries[:3], Entry(header, b"", bytes(40)), *entries[3:]]

    forge(good.folder, fill)
    report = verify(good.folder)
    assert report.state_digest == good.state_digest
    assert report.chain_hash != good.chain_hash.hex()
    assert report.entries == 7


def test_another_history_has_another_hash(good: Good) -> None:
    """A history that the rules could have given verifies; the last hash of the true one tells them apart."""
    forge(good.folder, in_event(3, 4, user_data_head=99))
    report = verify(good.folder)
    assert report.chain_hash != good.chain_hash.hex()


def test_bytes_that_were_changed_without_knowledge_are_found_before_they_are_executed(good: Good) -> None:
    path = shard_directory(good.folder, 0).path / segment_name(1)
    data = bytearray(path.read_bytes())
    data[len(data.rstrip(b"\0")) - EVENT_SIZE] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptLog, match="an entry whose body fails its checksum"):
        run(good.folder)


# --- Events that no command asked for


@pytest.fixture
def expired(tmp_path: Path, settings: ReplicaSettings, clock: Clock) -> Good:
    """Entries: 1 control, 2 openings and three holds, 3 a transfer, before which two of the holds expire."""
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    holds = [
        transfer("world", "ann", 5, kind=int(CommandKind.HOLD), timeout_ms=timeout_ms) for timeout_ms in (1, 2, 10**6)
    ]
    replica.execute(join(opening_world("ann"), *holds))
    clock.now_ns += 10**9
    replica.execute(transfer("world", "ann", 1))
    replica.write_group()
    found = Good(tmp_path, replica.ledger.digest(), replica.log.chain_hash, replica.ledger.next_sequence - 1)
    assert (found.events, replica.ledger.hold_count) == (8, 1)
    replica.close()
    return found


def test_expiries_are_executed_again(expired: Good) -> None:
    report = verify(expired.folder)
    assert (report.events, report.state_digest) == (expired.events, expired.state_digest)


def without_expiry(entries: list[Entry]) -> list[Entry]:
    entry = entries[2]
    entries[2] = entry._replace(body=entry.body[EVENT_SIZE:], header=entry.header._replace(count=2))
    return entries


def with_expiry_too_many(entries: list[Entry]) -> list[Entry]:
    entry = entries[2]
    body = bytes(entry.body[:EVENT_SIZE]) + bytes(entry.body)
    entries[2] = entry._replace(body=body, header=entry.header._replace(count=4))
    return entries


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_expiry, "entry 3, sequence 6: "),
        (with_expiry_too_many, "entry 3, sequence 7: "),
        (in_event(3, 0, effective_amount=4), "entry 3, sequence 6: effective_amount is 4 in the history and 5 when"),
        (in_header(3, timestamp_ns=NOON_NS + 10), "entry 3, sequence 6: "),
    ],
    ids=["left out", "too many", "another amount", "too early"],
)
def test_expiries_are_not_believed(expired: Good, settings: ReplicaSettings, change: Forgery, words: str) -> None:
    forge(expired.folder, change)
    with pytest.raises(CorruptLog, match=words):
        run(expired.folder)
    with pytest.raises(CorruptLog, match=words):
        open_replica(expired.folder, settings=settings)


# --- Folders


def test_a_folder_in_use_is_not_verified(good: Good, settings: ReplicaSettings) -> None:
    replica = open_replica(good.folder, settings=settings)
    with pytest.raises(DataFolderInUse):
        run(good.folder)
    replica.close()
    run(good.folder)
    run(good.folder)


def test_a_folder_without_a_log_is_not_one_and_does_not_become_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a data folder"):
        run(tmp_path)
    with pytest.raises(StorageError, match="is not a data folder"):
        run(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_nobody_needs_to_say_how_many_accounts_there_are(good: Good, settings: ReplicaSettings) -> None:
    """A history has no more accounts than events. Where memory is short that is said, and not called damage."""
    with pytest.raises(StorageError, match="--accounts-max") as caught:
        open_replica(good.folder, settings=msgspec.structs.replace(settings, accounts_max=3))
    assert not isinstance(caught.value, CorruptLog)
    assert verify(good.folder).accounts == 4


def test_memory_that_is_not_there_is_told(good: Good, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "_rows_at_most", lambda log: 1 << 56)
    with pytest.raises(StorageError, match="no memory for tables of up to"):
        run(good.folder)


def test_nothing_is_changed_nor_made_nor_followed(good: Good, tmp_path: Path) -> None:
    lock = good.folder / "lock"
    before = (lock.read_bytes(), lock.stat().st_mtime_ns)
    run(good.folder)
    assert (lock.read_bytes(), lock.stat().st_mtime_ns) == before
    lock.unlink()
    run(good.folder)
    assert not lock.exists()
    lock.symlink_to("elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        run(good.folder)
    assert not (tmp_path / "elsewhere").exists()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bezant-walk")]


def test_whoever_stops_early_leaves_no_thread(good: Good) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(good.folder, stop)
    assert threads() == []
    run(good.folder)
