"""Claim: a log whose first segments are not there yet is the log that it will be, but for what only they can tell."""

from pathlib import Path

import pytest

from bezant.engine.log.incomplete import INCOMPLETE_NAME, first_segment_required, mark_incomplete
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, HistoryIncomplete

from .logs import Writer, flip, open_entries, resume_points
from .memory_disk import MemoryDisk

ENTRIES = 12
EVENTS = 100
"""Of each entry: three entries find room in a segment."""
FIRST_HERE = 3
"""Segment."""


@pytest.fixture
def disk() -> MemoryDisk:
    disk = MemoryDisk()
    writer = Writer(disk)
    for _ in range(ENTRIES):
        writer.write(EVENTS)
    writer.close()
    return disk


def without(disk: MemoryDisk, *numbers: int) -> MemoryDisk:
    copy = MemoryDisk(disk)
    for number in numbers:
        copy.remove(segment_name(number))
    return copy


def incomplete(disk: MemoryDisk) -> MemoryDisk:
    copy = without(disk, *range(1, FIRST_HERE))
    mark_incomplete(copy, 0, FIRST_HERE)
    return copy


def a_point(disk: MemoryDisk) -> ResumePoint:
    """One whose entry is in a segment that is there."""
    return next(point for point in resume_points(disk) if point.segment_number == FIRST_HERE)


def opened(disk: MemoryDisk, start: ResumePoint, *, writable: bool = True) -> Log:
    log, _ = open_entries(disk, start=start, writable=writable)
    return log


def test_it_goes_on_and_knows_all_terms_and_reads_what_is_there(disk: MemoryDisk) -> None:
    start = a_point(disk)
    log = opened(incomplete(disk), start)
    first = log.first_index
    assert first == 7
    assert log.last_index == ENTRIES
    assert [log.term_at(index) for index in range(ENTRIES + 1)] == [0] * (ENTRIES + 1)
    full, _ = open_entries(MemoryDisk(disk))
    assert log.read_encoded(first, ENTRIES) == full.read_encoded(first, ENTRIES)
    assert log.chain_hash == full.chain_hash
    assert log.bytes_count == full.bytes_count


@pytest.mark.parametrize("index", [1, 6])
def test_what_is_not_there_yet_is_told(disk: MemoryDisk, index: int) -> None:
    log = opened(incomplete(disk), a_point(disk))
    with pytest.raises(HistoryIncomplete, match="are not here yet"):
        log.read_encoded(index, ENTRIES)


def test_an_event_that_is_not_there_yet_is_told(disk: MemoryDisk) -> None:
    writer = Writer.__new__(Writer)
    writer.log = opened(incomplete(disk), a_point(disk))
    with pytest.raises(HistoryIncomplete, match="are not here yet"):
        writer.read(1)
    assert writer.read(6 * EVENTS + 1) == [6 * EVENTS + 1]


def test_what_has_come_is_read_though_the_log_was_open(disk: MemoryDisk) -> None:
    partial = incomplete(disk)
    log = opened(partial, a_point(disk))
    for number in (2, 1):
        partial.current[segment_name(number)] = bytearray(disk.current[segment_name(number)])
        partial.durable[segment_name(number)] = disk.durable[segment_name(number)]
        log.read_encoded(3 * number - 2, 3 * number)
        assert log.first_index == 3 * number - 2


def test_it_can_be_cut_and_written_and_closed_and_opened_again(disk: MemoryDisk) -> None:
    partial, start = incomplete(disk), a_point(disk)
    log = opened(partial, start)
    log.truncate(start.index)
    log.close()
    assert opened(partial, start).last_index == start.index


def test_who_reads_it_up_to_an_index_can_follow(disk: MemoryDisk) -> None:
    start = a_point(disk)
    log = open_log(incomplete(disk), writable=False)
    assert [entry.header.index for entry in log.open(start, start.index + 1)] == [start.index + 1]
    assert [entry.header.index for entry in log.follow(ENTRIES)] == list(range(start.index + 2, ENTRIES + 1))
    point = log.resume_point()
    assert point == resume_points(disk)[-1]


def test_without_a_checkpoint_it_is_refused(disk: MemoryDisk) -> None:
    with pytest.raises(HistoryIncomplete, match="no checkpoint to begin behind"):
        open_entries(incomplete(disk))


def test_a_checkpoint_whose_own_segment_is_missing_does_not_help(disk: MemoryDisk) -> None:
    with pytest.raises((CorruptLog, HistoryIncomplete)):
        opened(incomplete(disk), resume_points(disk)[0])


@pytest.mark.parametrize("number", [FIRST_HERE, FIRST_HERE + 1])
def test_any_other_gap_is_damage(disk: MemoryDisk, number: int) -> None:
    partial = incomplete(disk)
    partial.remove(segment_name(number))
    with pytest.raises(CorruptLog):
        opened(partial, resume_points(disk)[-1])


def test_without_the_mark_a_gap_is_damage(disk: MemoryDisk) -> None:
    with pytest.raises(CorruptLog):
        opened(without(disk, 1), a_point(disk))


def test_a_damaged_mark_is_refused(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    mark_incomplete(directory, 0, 5)
    assert first_segment_required(directory, 0) == 5
    flip(tmp_path / INCOMPLETE_NAME, 17)
    with pytest.raises(CorruptLog, match="does not say"):
        first_segment_required(directory, 0)


def test_no_mark_says_that_nothing_may_be_missing(tmp_path: Path) -> None:
    assert first_segment_required(Directory(tmp_path), 0) == 1
