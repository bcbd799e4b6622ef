"""Claim: a follower's log is its leader's to the byte, but for what each stamps itself; and takes nothing else.

Bytes that are damaged, impossible, out of order or of another history are refused before anything has changed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from bezant.engine.log.entry import Entry, decode_header, encode_entry
from bezant.engine.log.log import Log
from bezant.engine.log.receiving import split_entries
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import LedgerError, RemoteProtocolError, StorageError, UnsupportedFormat
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import ENTRY_HEADER_SIZE, ENTRY_STAMP_SIZE

from .logs import SEGMENT_SIZE, Writer, events_of, fact_of, open_entries, places_in, read_facts, segment_path
from .memory_disk import MemoryDisk


def follower_of(leader: Writer) -> Writer:
    """The log of another replica, empty, on a disk of its own."""
    disk = MemoryDisk()
    first = next(name for name in leader_disk(leader).names() if name.startswith("segment-"))
    size = len(leader_disk(leader).current[first])
    disk.create_file(first, size, bytes(leader_disk(leader).current[first][:4096]))
    disk.create_file("control", 8192)
    return Writer(disk)


def leader_disk(writer: Writer) -> MemoryDisk:
    disk = writer.log._directory
    assert isinstance(disk, MemoryDisk)
    return disk


def encoded(log: Log, first_index: int, last_index: int) -> memoryview:
    return memoryview(b"".join(log.read_encoded(first_index, last_index)))


def receive(follower: Writer, data: memoryview | bytes) -> list[Entry]:
    entries = append(follower.log, memoryview(data))
    follower.facts += [fact_of(entry) for entry in entries]
    return entries


def append(log: Log, data: memoryview) -> list[Entry]:
    entries = split_entries(data, log._end())
    log.append_received(entries)
    return entries


@pytest.fixture
def leader() -> Writer:
    writer = Writer(MemoryDisk())
    writer.log.term = 1
    writer.append_body(EntryKind.CONTROL, b"a control entry")
    writer.write(1, 300)
    writer.log.term = 4
    writer.append_body(EntryKind.FILLER, bytes(100))
    writer.write(2, 310, 1)
    writer.append(3)
    return writer


def stripped(writer: Writer) -> list[bytes]:
    """Every entry that a log has, without the stamp of its node."""
    found = []
    for index in range(1, writer.log.last_index + 1):
        data = bytes(encoded(writer.log, index, index))
        found.append(data[ENTRY_STAMP_SIZE:])
    return found


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 8])
@pytest.mark.parametrize("write_every", [1, 2, 5])
def test_a_follower_has_the_bytes_of_its_leader(leader: Writer, at_a_time: int, write_every: int) -> None:
    follower = follower_of(leader)
    last = leader.log.last_index
    for number, first in enumerate(range(1, last + 1, at_a_time), 1):
        end = min(first + at_a_time - 1, last)
        received = receive(follower, encoded(leader.log, first, end))
        assert [entry.header.index for entry in received] == list(range(first, end + 1))
        if number % write_every == 0:
            follower.sync()
    follower.sync()
    assert follower.facts == leader.facts
    assert stripped(follower) == stripped(leader)
    assert follower.log.chain_hash == leader.log.chain_hash
    assert follower.log.last_timestamp_ns == leader.log.last_timestamp_ns
    assert follower.log.bytes_count == leader.log.bytes_count
    assert [follower.log.term_at(index) for index in range(10)] == [0, 1, 1, 1, 4, 4, 4, 4, 4, None]
    everything = list(range(1, follower.next_sequence))
    assert follower.read(*everything) == everything
    disk = leader_disk(follower)
    follower.close()
    log, entries = open_entries(MemoryDisk(disk))
    assert [fact_of(entry) for entry in entries] == leader.facts
    assert (log.chain_hash, log.recovery.clean_stop) == (leader.log.chain_hash, True)
    assert [log.term_at(index) for index in range(10)] == [0, 1, 1, 1, 4, 4, 4, 4, 4, None]
    log.close()


def test_a_follower_s_watermarks_are_its_own(leader: Writer) -> None:
    """Each entry says where the group before it ended on this node, whatever the leader's said."""
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 2))
    group = follower.log.begin_group()
    assert group is not None
    receive(follower, encoded(leader.log, 3, 5))
    group.write_and_sync()
    follower.log.finish_group(group)
    follower.log.tidy()
    follower.sync()
    receive(follower, encoded(leader.log, 6, 8))
    follower.sync()
    stamps = []
    for index in range(1, 9):
        header = decode_header(encoded(follower.log, index, index))
        assert header is not None
        stamps.append(header.durable_before)
    assert stamps == [0, 0, 2, 2, 2, 5, 5, 5]
    follower.close()


def test_bodies_are_parts_of_what_was_received(leader: Writer) -> None:
    follower = follower_of(leader)
    data = np.frombuffer(bytes(encoded(leader.log, 1, 4)), np.uint8)
    entries = append(follower.log, data.data)
    for entry in entries:
        assert isinstance(entry.body, memoryview)
        assert np.shares_memory(np.frombuffer(entry.body, np.uint8), data)
    follower.close()


def test_nothing_is_no_entries(leader: Writer) -> None:
    assert append(leader.log, memoryview(b"")) == []
    assert leader.log.last_index == 8


def test_a_follower_leads_later(leader: Writer) -> None:
    """It goes on in a term of its own, and its former leader takes its entries."""
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 8))
    follower.log.term = 5
    follower.append(2)
    follower.sync()
    receive(leader, encoded(follower.log, 9, 9))
    leader.sync()
    assert stripped(follower) == stripped(leader)
    assert leader.log.term_at(9) == follower.log.term_at(9) == 5
    assert leader.log.term == 4  # which is for whoever drives it to say
    with pytest.raises(LedgerError, match="an entry of term 4 behind one of term 5"):
        leader.append(1)
    assert leader.log.last_index == 9


# --- What is refused

AT: Final = 5
"""The entry that is changed; those from 3 on are sent, to a follower that has two."""


def changed(leader: Writer, body: bytes | None = None, **change: int | bytes) -> bytes:
    """Entries 3 to 8 with a change in one of them, under right checksums and in a chain that goes on behind it."""
    parts = [bytes(encoded(leader.log, index, index)) for index in range(3, 9)]
    entry = parts[AT - 3]
    header = decode_header(entry)
    assert header is not None
    other = encode_entry(header._replace(**change), entry[ENTRY_HEADER_SIZE:] if body is None else body)
    parts[AT - 3] = other.encoded + bytes(other.body)
    return b"".join(parts)


IMPOSSIBLE: Final[dict[str, tuple[Callable[[Writer], bytes], str]]] = {
    "an index too high": (lambda leader: changed(leader, index=6), "an entry with index 6 where entry 5"),
    "an index too low": (lambda leader: changed(leader, index=4), "an entry with index 4 where entry 5"),
    "another log": (lambda leader: changed(leader, log_id=77), "an entry of another log where entry 5"),
    "another shard": (lambda leader: changed(leader, shard=77), "an entry of another log where entry 5"),
    "another chain": (lambda leader: changed(leader, previous_hash=bytes(32)), "not continue the hash chain"),
    "a term that falls": (lambda leader: changed(leader, term=3), "an entry of term 3 behind one of term 4"),
    "a term that rises": (lambda leader: changed(leader, term=5), "continue the hash chain where entry 6"),
    "a count too high": (lambda leader: changed(leader, count=3), "3 events in 384 bytes"),
    "a count too low": (lambda leader: changed(leader, count=0), "0 events in 384 bytes"),
    "a count below zero": (lambda leader: changed(leader, count=-1), "an entry of -1 events"),
    "events in a control entry": (lambda leader: changed(leader, kind=2), "kind 2, and 2 events"),
    "a filler that is not zeros": (lambda leader: changed(leader, kind=4, count=0), "a filler that is not zeros"),
    "an earlier format": (lambda leader: changed(leader, format_version=1), "an entry of format 1"),
    "durable beyond itself": (lambda leader: changed(leader, durable_before=5), "durable up to index 5"),
    "a sequence too high": (lambda leader: changed(leader, first_sequence=303), "first sequence 303, and not 302"),
    "a time that stands still": (lambda leader: changed(leader, timestamp_ns=40), "the time 40, not after 40"),
    "a body too long": (lambda leader: changed(leader, body_size=400), "no whole header where entry 6"),
    "a size that cannot be": (lambda leader: changed(leader, body_size=-1), "no whole header where entry 5"),
}


def check_refused(follower: Writer, data: bytes, words: str, error: type[Exception] = RemoteProtocolError) -> None:
    """Refused, and nothing has changed: what should come is taken as if nothing had been there."""
    log = follower.log
    before = (log.last_index, log.chain_hash, log.bytes_count, log.last_timestamp_ns, log.idle, log.term_at(2))
    with pytest.raises(error, match=words):
        append(log, memoryview(data))
    after = (log.last_index, log.chain_hash, log.bytes_count, log.last_timestamp_ns, log.idle, log.term_at(2))
    assert after == before
    assert log.term_at(log.last_index + 1) is None


@pytest.mark.parametrize(("data", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("is_written", [False, True])
def test_what_cannot_be_is_refused(
    leader: Writer, data: Callable[[Writer], bytes], words: str, is_written: bool
) -> None:
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 2))
    if is_written:
        follower.sync()
    check_refused(follower, data(leader), words)
    receive(follower, encoded(leader.log, 3, 8))
    follower.sync()
    assert stripped(follower) == stripped(leader)
    follower.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kind": 99}, "kind 99"), ({"format_version": 3}, "format 3"), ({"rules_version": 99}, "rules 99")],
)
def test_what_a_newer_leader_writes_is_refused_in_words(leader: Writer, change: dict[str, int], words: str) -> None:
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 2))
    check_refused(follower, changed(leader, **change), f"entry 5 has {words}, which", UnsupportedFormat)
    follower.close()


def test_no_bit_can_change_on_the_way(leader: Writer) -> None:
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 4))
    data = bytearray(encoded(leader.log, 5, 5))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        check_refused(follower, bytes(data), "where entry 5 was expected")
        data[bit // 8] ^= 1 << bit % 8
    for size in range(1, len(data)):
        check_refused(follower, bytes(data[:size]), "where entry 5 was expected")
    check_refused(follower, bytes(data) + b"\0", f"no whole header where entry 6 was expected, at byte {len(data)}")
    receive(follower, data)
    assert follower.log.last_index == 5
    follower.close()


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, 2), (2, 3), (4, 4), (8, 8)])
def test_entries_that_do_not_come_next_are_refused(leader: Writer, first: int, last: int) -> None:
    """Also those that are there already: what to do with those is for whoever drives the log to say."""
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 2))
    check_refused(follower, bytes(encoded(leader.log, first, last)), f"index {first} where entry 3")
    follower.close()


def test_entries_of_another_branch_are_refused(leader: Writer) -> None:
    follower = follower_of(leader)
    receive(follower, encoded(leader.log, 1, 7))
    follower.log.term = 4
    follower.append_body(EntryKind.EVENTS, events_of(7000, 3).tobytes(), 3)
    leader.append(1)
    check_refused(follower, bytes(encoded(leader.log, 9, 9)), "does not continue the hash chain")
    follower.close()


def test_a_full_disk_takes_all_of_them_or_none(tmp_path: Path) -> None:
    leader = Writer(tmp_path / "leader")
    leader.write(*[300] * 12)
    folder = tmp_path / "follower"
    folder.mkdir()
    segment_path(folder).write_bytes(segment_path(tmp_path / "leader").read_bytes()[:4096] + bytes(SEGMENT_SIZE - 4096))
    (folder / "control").write_bytes(bytes(8192))
    follower = Writer(Small(folder))
    receive(follower, encoded(leader.log, 1, 1))
    for first in (2, 1, 2):
        if first == 2:
            data = bytes(encoded(leader.log, 2, 12))
            check_refused(follower, data, "are free; a segment needs|no segment has room", StorageError)
        assert follower.log.last_index == 1
    receive(follower, encoded(leader.log, 2, 3))
    follower.sync()
    assert stripped(follower) == stripped(leader)[:3]
    assert [len(places_in(folder, number)) for number in (1, 2, 3)] == [1, 1, 1]
    follower.close()
    leader.close()
    assert read_facts(folder) == leader.facts[:3]


class Small(Directory):
    """A folder on a disk with room for three segments."""

    def free_bytes(self) -> int:
        return max(3 - len([name for name in self.names() if "segment" in name]), 0) * SEGMENT_SIZE
