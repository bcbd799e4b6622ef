"""Claim: what was appended is read back, before and after it is written, in this life of the process and the next."""

from pathlib import Path

import numpy as np
import pytest

from bezant.engine.ledger.state import RULES_VERSION_FIRST
from bezant.engine.log.entry import BODY_SIZE_MAX, HASH_NONE
from bezant.engine.log.group import Group
from bezant.engine.log.log import SEGMENT_SIZE_MIN, open_log
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import LOG_FORMAT_VERSION, SEGMENT_HEADER_SIZE

from .logs import (
    ROOM,
    SEGMENT_SIZE,
    Writer,
    entry_size,
    events_of,
    fact_of,
    newest_page,
    open_entries,
    places_in,
    read_facts,
)


def open_files(folder: Path) -> list[str]:
    """Names of the files of a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:
            continue  # the descriptor of this very listing
        if target.parent == folder:
            found.append(target.name)
    return sorted(found)


def begin(writer: Writer) -> Group:
    group = writer.log.begin_group()
    assert group is not None
    return group


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    log, entries = open_entries(tmp_path)
    assert entries == []
    assert (log.last_index, log.durable_index, log.durable_sequence) == (0, 0, 0)
    assert log.chain_hash == HASH_NONE
    assert log.idle
    assert log.begin_group() is None
    assert log.recovery == (0, False, 0, "")
    log.close()
    assert read_facts(tmp_path) == []


def test_entries_come_back_as_they_were(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append_body(EntryKind.CONTROL, b"a control entry")
    writer.append_body(EntryKind.FILLER, b"")
    writer.write(1, 7)
    writer.write(2)
    chain_hash, log_id = writer.log.chain_hash, writer.log.log_id
    writer.close()

    log, entries = open_entries(tmp_path)
    assert [fact_of(entry) for entry in entries] == writer.facts
    assert (log.last_index, log.durable_index, log.durable_sequence) == (5, 5, 10)
    assert log.last_timestamp_ns == writer.facts[-1].timestamp_ns
    assert (log.chain_hash, log.log_id) == (chain_hash, log_id)
    assert log.recovery == (5, True, 0, "")
    for entry in entries:
        header = entry.header
        assert (header.format_version, header.rules_version) == (LOG_FORMAT_VERSION, RULES_VERSION_FIRST)
        assert (header.log_id, header.shard, header.term) == (log_id, 0, 0)
    log.close()


def test_a_log_goes_on_where_it_stopped(tmp_path: Path) -> None:
    facts = []
    for round_number in range(4):
        writer = Writer(tmp_path)
        assert writer.facts == facts
        writer.write(1 + round_number, 2)
        facts = writer.facts
        writer.close()
    assert read_facts(tmp_path) == facts
    assert [fact.index for fact in facts] == list(range(1, 9))


def test_indexes_follow_the_group(tmp_path: Path) -> None:
    """Appended is not durable; written is not durable either, until the group is finished."""
    writer = Writer(tmp_path)
    writer.append(3)
    writer.append(1)
    assert (writer.log.last_index, writer.log.durable_index, writer.log.idle) == (2, 0, False)
    group = begin(writer)
    assert writer.log.begin_group() is None
    writer.append(2)
    assert writer.log.begin_group() is None
    group.write_and_sync()
    assert (writer.log.last_index, writer.log.durable_index, writer.log.durable_sequence) == (3, 0, 0)
    writer.log.finish_group(group)
    writer.log.tidy()
    assert (writer.log.durable_index, writer.log.durable_sequence, writer.log.idle) == (2, 4, False)
    writer.sync()
    assert (writer.log.durable_index, writer.log.durable_sequence, writer.log.idle) == (3, 6, True)
    writer.close()


def test_nothing_of_a_group_is_on_the_disk_before_it_is_written(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(3)
    group = begin(writer)
    assert places_in(tmp_path) == []
    group.write_and_sync()
    writer.append(1)
    assert [int(place.header["index"]) for place in places_in(tmp_path)] == [1]
    writer.log.finish_group(group)
    writer.log.tidy()
    writer.close()


def test_a_group_knows_its_bytes(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(3)
    writer.append(1)
    group = begin(writer)
    assert group.bytes_count == entry_size(3) + entry_size(1)
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.log.tidy()
    assert writer.log.bytes_count == group.bytes_count
    writer.close()


def test_events_are_read_back_from_wherever_they_are(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(4)
    writer.append(3)
    group = begin(writer)
    writer.append_body(EntryKind.CONTROL, b"without events")
    writer.append(2)
    everything = list(range(1, 10))
    assert writer.read(*everything) == everything
    assert writer.read(2, 5, 9) == [2, 5, 9]
    assert writer.read(9) == [9]
    group.write_and_sync()
    assert writer.read(*everything) == everything
    writer.log.finish_group(group)
    writer.log.tidy()
    assert writer.read(*everything) == everything
    writer.sync()
    assert writer.read(*everything) == everything
    writer.close()
    writer = Writer(tmp_path)
    assert writer.read(*everything) == everything
    assert writer.read() == []
    writer.close()


def test_events_are_read_back_while_the_log_is_walked(tmp_path: Path) -> None:
    """By whoever executes the history again and meets an id that is known: all entries before the one just yielded."""
    writer = Writer(tmp_path)
    for _ in range(4):
        writer.write(200, 10, 90)
    writer.close()
    log = open_log(Directory(tmp_path), writable=False)
    for entry in log.open():
        before = entry.header.first_sequence
        sequences = np.arange(1, before, 7)
        assert log.read_events(sequences)["amount"].tolist() == sequences.tolist()
        with pytest.raises(LedgerError):
            log.read_events(np.array([before]))
    log.close()


@pytest.mark.parametrize("sequence", [0, -1, 8, 2**40])
def test_an_event_that_is_not_there_is_our_own_fault(tmp_path: Path, sequence: int) -> None:
    """Also while entries wait in memory, whose places in the file are still zeros."""
    writer = Writer(tmp_path)
    writer.write(4)
    writer.append(1)
    group = begin(writer)
    writer.append(2)
    with pytest.raises(LedgerError, match=f"sequence {sequence}$"):
        writer.read(sequence)
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.log.tidy()
    writer.close()


def test_small_entries_are_found_without_reading_the_whole_segment(tmp_path: Path) -> None:
    """Every 64 KiB one place is remembered; in a larger segment some entries lie behind each of them."""
    size = 4 * SEGMENT_SIZE
    writer = Writer(tmp_path, segment_size=size)
    for _ in range(20):
        writer.write(*[1] * 50)
    count = writer.next_sequence - 1
    assert count * entry_size(1) > size
    for sequence in range(1, count + 1, 37):
        assert writer.read(sequence) == [sequence]
    assert writer.read(*range(1, count + 1)) == list(range(1, count + 1))
    writer.close()
    writer = Writer(tmp_path)
    assert writer.read(*range(1, count + 1, 11)) == list(range(1, count + 1, 11))
    writer.close()


def test_each_entry_lies_whole_in_one_segment(tmp_path: Path) -> None:
    """200 events leave room for 100 more and no second 200; one entry fills a segment to the last byte."""
    writer = Writer(tmp_path)
    writer.write(200)
    writer.write(200)
    writer.write(100)
    writer.append_body(EntryKind.FILLER, bytes(ROOM - entry_size(0)))
    writer.sync()
    writer.write(1)
    writer.close()
    indexes = [[int(place.header["index"]) for place in places_in(tmp_path, number)] for number in range(1, 5)]
    assert indexes == [[1], [2, 3], [4], [5]]
    assert places_in(tmp_path, 3)[0].end == SEGMENT_SIZE
    assert read_facts(tmp_path) == writer.facts


def test_a_group_may_cross_segments(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(200, 100, 200, 10, 300)
    assert writer.log.durable_index == 5
    assert writer.read(1, 300, 301, 500, 510, 511, 810) == [1, 300, 301, 500, 510, 511, 810]
    writer.close()
    assert read_facts(tmp_path) == writer.facts


def test_the_next_group_may_begin_in_the_segment_that_the_one_before_it_filled(tmp_path: Path) -> None:
    """While a group is being synced, one entry still fits behind it and the next does not."""
    writer = Writer(tmp_path)
    writer.append(200)
    group = begin(writer)
    writer.append(50)
    writer.append(200)
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.log.tidy()
    writer.sync()
    assert writer.log.durable_index == 3
    writer.close()
    assert read_facts(tmp_path) == writer.facts


def test_full_segments_are_closed(tmp_path: Path) -> None:
    """Whether they were filled by one group or by many, alone or while another was under way."""
    writer = Writer(tmp_path)
    for _ in range(5):
        writer.write(300)
        writer.write(200)
        writer.write(100, 300, 300)
        writer.append(300)
        group = begin(writer)
        writer.append(300)
        group.write_and_sync()
        writer.log.finish_group(group)
        writer.log.tidy()
        writer.sync()
    last = newest_page(tmp_path)["durable_segment"]
    assert last == 30
    assert [name for name in open_files(tmp_path) if "segment-" in name and name < f"segment-{last:010d}"] == []
    writer.close()
    assert open_files(tmp_path) == []


def test_a_clean_stop_is_told_from_a_kill(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    assert writer.log.recovery.clean_stop is False
    writer.write(1)
    assert newest_page(tmp_path)["clean_stop"] == 0
    writer.close()
    assert newest_page(tmp_path)["clean_stop"] == 1
    writer = Writer(tmp_path)
    assert writer.log.recovery.clean_stop is True
    assert newest_page(tmp_path)["clean_stop"] == 0
    writer.append(1)
    writer.close()  # with an entry that was never written
    assert newest_page(tmp_path)["clean_stop"] == 0
    log, entries = open_entries(tmp_path)
    assert log.recovery.clean_stop is False
    assert len(entries) == 1
    log.close()


def test_reading_marks_no_stop_as_clean(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(1)
    before = (tmp_path / "control").read_bytes()
    read_facts(tmp_path)
    assert (tmp_path / "control").read_bytes() == before
    writer.close()


def test_the_control_page_says_where_the_last_durable_entry_ends(tmp_path: Path) -> None:
    """Not where the entries end that wait in memory behind it."""
    writer = Writer(tmp_path)
    writer.write(200)
    writer.append(2)
    group = begin(writer)
    writer.append(2)
    writer.append(200)
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.log.tidy()
    page = newest_page(tmp_path)
    assert (page["durable_index"], page["durable_sequence"]) == (2, 202)
    assert (page["durable_segment"], page["durable_offset"]) == (1, places_in(tmp_path)[1].end)
    writer.sync()
    page = newest_page(tmp_path)
    assert (page["durable_index"], page["durable_sequence"]) == (4, 404)
    assert (page["durable_segment"], page["durable_offset"]) == (2, places_in(tmp_path, 2)[-1].end)
    writer.close()


def test_every_entry_of_a_group_says_that_the_group_before_it_is_durable(tmp_path: Path) -> None:
    """Even if it was appended while that one was being synced: else rot there would pass for a torn tail."""
    writer = Writer(tmp_path)
    writer.append(1)
    group = begin(writer)
    writer.append(2)
    writer.log.settle_hash()
    writer.append(3)
    chain_hash = writer.log.chain_hash
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.log.tidy()
    group = begin(writer)
    writer.append(4)
    assert writer.log.chain_hash != chain_hash
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.log.tidy()
    writer.sync()
    writer.close()
    assert [int(place.header["durable_before"]) for place in places_in(tmp_path)] == [0, 1, 1, 3]
    assert read_facts(tmp_path) == writer.facts


def test_the_file_behind_the_last_entry_is_zeros(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(3)
    writer.close()
    data = (tmp_path / "segment-0000000001").read_bytes()
    assert len(data) == SEGMENT_SIZE
    assert not any(data[SEGMENT_HEADER_SIZE + entry_size(3) :])


def test_an_entry_that_is_too_large_is_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    with pytest.raises(LedgerError, match="over the 8388608"):
        writer.log.append(
            EntryKind.FILLER,
            np.zeros(BODY_SIZE_MAX + 1, np.uint8),
            first_sequence=1,
            count=0,
            timestamp_ns=1,
            rules_version=RULES_VERSION_FIRST,
        )
    assert writer.log.idle
    writer.close()


def test_an_entry_that_no_segment_can_hold_has_no_room(tmp_path: Path) -> None:
    """Said before anything is changed, even if an empty segment is ready."""
    writer = Writer(tmp_path)
    assert writer.log.has_room(ROOM - entry_size(0))
    assert not writer.log.has_room(ROOM - entry_size(0) + 1)
    writer.write(1)
    assert writer.log.has_room(ROOM - entry_size(0))
    assert not writer.log.has_room(ROOM - entry_size(0) + 1)
    writer.close()


@pytest.mark.parametrize("size", [0, 4096, SEGMENT_SIZE_MIN - 4096, SEGMENT_SIZE + 1])
def test_segment_sizes_are_checked(tmp_path: Path, size: int) -> None:
    with pytest.raises(StorageError, match="multiple of 4096"):
        open_log(Directory(tmp_path), segment_size=size)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no log"):
        open_entries(tmp_path, writable=False)
    assert list(tmp_path.iterdir()) == []


def test_another_shard_is_another_log(tmp_path: Path) -> None:
    Writer(tmp_path, shard=3).close()
    with pytest.raises(CorruptLog, match="belongs to another log"):
        open_entries(tmp_path, shard=4)
    Writer(tmp_path, shard=3).close()


def test_events_of_the_test_differ() -> None:
    assert len({event.tobytes() for event in events_of(1, 300)}) == 300
