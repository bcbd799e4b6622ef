"""Claim: another process reads what the writer has made durable, goes on with it, and is not troubled by the rest."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.log.history import SEGMENTS_MAPPED_MAX
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, LedgerError
from bezant.protocol.records import SEGMENT_HEADER_SIZE

from .crashes import COUNT, FULL, History, Remains
from .logs import SEGMENT_SIZE, Fact, Writer, contents, fact_of, flip, open_entries, resume_points, segment_path
from .memory_disk import MemoryDisk
from .test_segments import mapped_segments

GROUPS = ([1], [2, 1], [FULL], [1], [3, FULL, 2], [FULL, FULL, FULL, 1], [4])
"""Groups that fill segments, end them, and cross into the next."""


def follow(log: Log, until_index: int) -> list[Fact]:
    return [fact_of(entry) for entry in log.follow(until_index)]


def check_all_read(log: Log, writer: Writer) -> None:
    sequences = list(range(1, writer.next_sequence))
    reader = Writer.__new__(Writer)
    reader.log = log
    assert reader.read(*sequences) == sequences


@pytest.fixture(params=["in memory", "in a folder"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    return MemoryDisk() if request.param == "in memory" else Directory(tmp_path)


def test_a_reader_follows_a_writer(directory: Directory) -> None:
    writer = Writer(directory)
    log = open_log(directory, writable=False)
    assert list(log.open(until_index=0)) == []
    assert log.resume_point() is None
    facts: list[Fact] = []
    for group in GROUPS:
        writer.write(*group)
        assert follow(log, log.last_index) == []
        facts += follow(log, writer.log.durable_index)
        assert facts == writer.facts
        assert (log.last_index, log.durable_index, log.chain_hash) == (
            writer.log.last_index,
            writer.log.durable_index,
            writer.log.chain_hash,
        )
        assert (log.durable_sequence, log.last_timestamp_ns, log.bytes_count) == (
            writer.log.durable_sequence,
            writer.log.last_timestamp_ns,
            writer.log.bytes_count,
        )
        check_all_read(log, writer)
    log.close()
    writer.close()


def test_entries_that_are_not_durable_are_not_read(directory: Directory) -> None:
    """They may be on the disk already, in any state."""
    writer = Writer(directory)
    writer.write(1, 2)
    writer.append(FULL)
    writer.append(FULL)
    group = writer.log.begin_group()
    assert group is not None
    group.write_and_sync()
    log, entries = open_entries(directory, writable=False, until_index=writer.log.durable_index)
    assert [fact_of(entry) for entry in entries] == writer.facts[:2]
    with pytest.raises(LedgerError):
        log.read_events(sequences_of(writer.facts[2]))
    writer.log.finish_group(group)
    assert follow(log, writer.log.durable_index) == writer.facts[2:]
    log.close()
    writer.log.tidy()
    writer.close()


def sequences_of(fact: Fact) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.arange(fact.first_sequence, fact.first_sequence + fact.count)


def test_a_reader_may_stop_anywhere_and_go_on(directory: Directory) -> None:
    """An iteration that is given up has taken in what it was given; no entry comes twice, and none is left out."""
    writer = Writer(directory)
    for group in GROUPS:
        writer.write(*group)
    points = resume_points(directory)
    log = open_log(directory, writable=False)
    facts = [fact_of(entry) for entry in islice(log.open(until_index=writer.log.durable_index), 2)]
    for steps in (1, 3, 2):
        facts += [fact_of(entry) for entry in islice(log.follow(writer.log.durable_index), steps)]
        assert log.resume_point() == points[len(facts) - 1]
        for _ in islice(log.follow(writer.log.durable_index), 1):
            events = log.read_events(np.arange(1, facts[-1].first_sequence + facts[-1].count))
            assert events.tobytes() == b"".join(fact.body for fact in facts)
        facts.append(writer.facts[len(facts)])
    facts += follow(log, writer.log.durable_index)
    assert facts == writer.facts
    check_all_read(log, writer)
    log.close()
    writer.close()


def test_a_reader_begins_behind_a_checkpoint(directory: Directory) -> None:
    writer = Writer(directory)
    for group in GROUPS:
        writer.write(*group)
    for point in resume_points(directory):
        log, entries = open_entries(directory, writable=False, start=point, until_index=point.index)
        assert entries == []
        assert log.resume_point() == point
        assert follow(log, writer.log.durable_index) == writer.facts[point.index :]
        check_all_read(log, writer)
        log.close()
    writer.close()


def test_a_reader_maps_few_segments(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    log = open_log(Directory(tmp_path), writable=False)
    assert list(log.open(until_index=0)) == []
    mapped = 0
    for _ in range(SEGMENTS_MAPPED_MAX + 8):
        writer.write(FULL)
        assert len(follow(log, writer.log.durable_index)) == 1
        mapped = max(mapped, mapped_segments(tmp_path))
    assert mapped <= 2  # the one that was left, the one that is read; the writer maps none
    check_all_read(log, writer)
    assert mapped_segments(tmp_path) <= SEGMENTS_MAPPED_MAX + 1
    log.close()
    writer.close()
    assert mapped_segments(tmp_path) == 0


# --- What lies behind is nobody's business

BEHIND: dict[str, Callable[[Remains], Remains]] = {
    "a torn tail": lambda log: log.break_header(5),
    "a torn body": lambda log: log.break_body(5),
    "rot": lambda log: log.break_header(5),
    "zeros": lambda log: log.lose_from(5),
    "garbage at the end of the segment": lambda log: log.put(1, SEGMENT_SIZE - 1, b"\1"),
    "a later segment with a damaged header": lambda log: log.put(2, 100, b"\1"),
    "a later segment that is not empty": lambda log: log.put(max(log.segments), SEGMENT_HEADER_SIZE, b"garbage"),
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_lies_behind_does_not_matter(
    tmp_path: Path, history: History, behind: Callable[[Remains], Remains]
) -> None:
    remains = behind(Remains.of(history, history.controls[-1]))
    remains.save(tmp_path)
    before = contents(tmp_path)
    for until_index in range(5):
        log, entries = open_entries(tmp_path, writable=False, until_index=until_index)
        assert [fact_of(entry) for entry in entries] == history.facts[:until_index]
        assert follow(log, 4) == history.facts[until_index:4]
        assert log.recovery == (0, False, 0, "")
        log.close()
    assert contents(tmp_path) == before


def test_later_segments_may_be_missing(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(FULL, FULL, FULL)
    writer.close()
    (tmp_path / segment_name(2)).unlink()
    log, entries = open_entries(tmp_path, writable=False, until_index=1)
    assert [fact_of(entry) for entry in entries] == writer.facts[:1]
    with pytest.raises(CorruptLog, match="index 2 was expected; the log is durable up to index 2"):
        follow(log, 2)
    log.close()


@pytest.mark.parametrize("at", range(1, COUNT + 1))
@pytest.mark.parametrize("damage", [Remains.break_header, Remains.break_body, Remains.lose, Remains.lose_header])
def test_what_cannot_be_reached_is_refused(
    tmp_path: Path, history: History, at: int, damage: Callable[[Remains, int], Remains]
) -> None:
    damage(Remains.of(history, history.controls[-1]), at).save(tmp_path)
    log = open_log(Directory(tmp_path), writable=False)
    facts = []
    with pytest.raises(CorruptLog, match=rf"index {at} was expected; the log is durable up to index {COUNT}"):
        for entry in log.open(until_index=COUNT):
            facts.append(fact_of(entry))
    assert facts == history.facts[: at - 1]
    log.close()


def test_more_than_there_is_is_refused(tmp_path: Path, history: History) -> None:
    Remains.of(history, history.controls[-1]).save(tmp_path)
    log, _ = open_entries(tmp_path, writable=False, until_index=COUNT)
    with pytest.raises(CorruptLog, match=rf"nothing but zeros where the entry with index {COUNT + 1} was expected"):
        follow(log, COUNT + 1)
    log.close()


def test_a_segment_that_was_made_meanwhile_must_be_whole_and_ours(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(FULL)
    log, _ = open_entries(tmp_path, writable=False, until_index=1)
    writer.write(FULL)
    flip(tmp_path / segment_name(2), 100)
    with pytest.raises(CorruptLog, match="the header of the segment is damaged"):
        follow(log, 2)
    other = Writer(tmp_path / "other")
    other.write(FULL, FULL)
    other.close()
    segment_path(tmp_path, 2).write_bytes(segment_path(tmp_path / "other", 2).read_bytes())
    with pytest.raises(CorruptLog, match="segment 2 belongs to another log"):
        follow(log, 2)
    log.close()
    writer.close()


def test_only_a_log_that_was_opened_up_to_an_index_is_followed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    with pytest.raises(LedgerError, match="opened up to an index"):
        list(writer.log.follow(1))
    writer.close()
    log, _ = open_entries(tmp_path, writable=False)
    with pytest.raises(LedgerError, match="opened up to an index"):
        list(log.follow(1))
    log.close()
    log = open_log(Directory(tmp_path), writable=False)
    with pytest.raises(LedgerError, match="opened up to an index"):
        list(log.follow(1))
    log.close()
    with pytest.raises(LedgerError, match="read to its end"):
        open_entries(tmp_path, until_index=0)
