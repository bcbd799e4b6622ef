"""Claim: a log that is opened behind a checkpoint is the log that it would be if all of it had been walked.

And it is refused where the entry of the checkpoint is not there any more, whole and the same: a checkpoint is made of
durable entries alone.
"""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bezant.engine.log.log import Log, open_log
from bezant.engine.log.resume import ResumePoint, SegmentSummary
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT_SIZE, SEGMENT_HEADER_SIZE

from .crashes import COUNT, FORGOTTEN, GROUPS, History, Remains, write_history
from .logs import (
    SEGMENT_SIZE,
    Fact,
    Writer,
    contents,
    events_of,
    fact_of,
    flip,
    open_entries,
    resume_points,
)
from .memory_disk import MemoryDisk

CONTROL = 0
"""In the histories of hypothesis: an entry without events."""
histories = st.lists(
    st.lists(st.one_of(st.integers(0, 12), st.sampled_from([100, 200, 300])), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


def write(disk: MemoryDisk, groups: list[list[int]]) -> Writer:
    writer = Writer(disk)
    for group in groups:
        for count in group:
            if count == CONTROL:
                writer.append_body(EntryKind.CONTROL, b"without events")
            else:
                writer.append(count)
        writer.sync()
    return writer


def open_behind(folder: Path | Directory, start: ResumePoint, facts: list[Fact]) -> Writer:
    """Go on with a log behind a point, given what was written before it."""
    writer = Writer.__new__(Writer)
    writer.log, entries = open_entries(folder, start=start)
    writer.facts = [*facts[: start.index], *(fact_of(entry) for entry in entries)]
    return writer


def state_of(log: Log) -> tuple[object, ...]:
    return (
        log.log_id,
        log.last_index,
        log.durable_index,
        log.durable_sequence,
        log.last_timestamp_ns,
        log.chain_hash,
        log.bytes_count,
        log.resume_point(),
    )


# --- The same log


@settings(max_examples=40, deadline=None)
@given(histories)
def test_a_log_is_the_same_from_every_entry_on(groups: list[list[int]]) -> None:
    disk = MemoryDisk()
    writer = write(disk, groups)
    facts = writer.facts
    writer.close()
    everything = list(range(1, writer.next_sequence))
    full, _ = open_entries(MemoryDisk(disk))
    expected = state_of(full)
    full.close()
    points = resume_points(disk)
    assert [point.index for point in points] == [fact.index for fact in facts]
    for point in points:
        again = open_behind(MemoryDisk(disk), point, facts)
        assert again.facts == facts
        assert again.log.recovery.entries == len(facts) - point.index
        assert state_of(again.log) == expected
        assert again.read(*everything) == everything
        again.close()


@settings(max_examples=15, deadline=None)
@given(histories, st.data())
def test_a_log_goes_on_behind_a_point_as_it_would_have(groups: list[list[int]], data: st.DataObject) -> None:
    """New entries follow; a full walk finds what was written, and points made of either walk are the same."""
    disk = MemoryDisk()
    writer = write(disk, groups)
    writer.close()
    point = data.draw(st.sampled_from(resume_points(disk)))
    again = open_behind(disk, point, writer.facts)
    again.write(3, 300, 1)
    again.write(2)
    everything = list(range(1, again.next_sequence))
    assert again.read(*everything) == everything
    again.close()
    log, entries = open_entries(disk, writable=False)
    assert [fact_of(entry) for entry in entries] == again.facts
    log.close()
    points = resume_points(disk)
    log = open_log(disk, writable=False)
    behind = [log.resume_point() for _ in log.open(point)]
    assert behind == points[point.index :]
    log.close()


def test_there_is_no_point_before_the_first_entry(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    assert writer.log.resume_point() is None
    writer.close()
    log = open_log(Directory(tmp_path), writable=False)
    assert log.resume_point() is None
    log.close()


def test_a_point_stays_as_it_is_while_the_log_goes_on(tmp_path: Path) -> None:
    """That of a log that is open to write is about the last entry that was there at its start."""
    size = 4 * SEGMENT_SIZE
    writer = Writer(tmp_path, segment_size=size)
    writer.write(3, 1)
    writer.close()
    writer = Writer(tmp_path, segment_size=size)
    before = writer.log.resume_point()
    assert before is not None
    assert before.index == 2
    for counts in ((1, 400, 20), (400,), (1000, 1)):
        writer.write(*counts)
        assert writer.log.resume_point() == before
    writer.close()
    again = open_behind(tmp_path, before, writer.facts)
    assert again.facts == writer.facts
    again.close()


def test_points_can_be_had_while_a_log_is_opened_to_write(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(3, 300, 1)
    writer.close()
    expected = resume_points(tmp_path)
    log = open_log(Directory(tmp_path), segment_size=SEGMENT_SIZE, free_space_floor=0)
    assert [log.resume_point() for _ in log.open()] == expected
    log.close()


def test_events_before_a_point_are_found_through_its_index(tmp_path: Path) -> None:
    """In a segment with several places that are remembered, each with many entries behind it."""
    size = 4 * SEGMENT_SIZE
    writer = Writer(tmp_path, segment_size=size)
    for _ in range(20):
        writer.write(*[1] * 50)
    writer.close()
    points = resume_points(tmp_path)
    assert [len(summary.offsets) // 8 for summary in points[-1].segments] == [4, 1]
    for point in (points[0], points[300], points[-1]):
        again = open_behind(tmp_path, point, writer.facts)
        everything = list(range(1, again.next_sequence))
        assert again.read(*everything) == everything
        assert [again.read(sequence)[0] for sequence in everything[::37]] == everything[::37]
        again.close()


def test_only_what_lies_behind_a_point_is_counted(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(300, 300, 300)
    writer.close()
    points = resume_points(tmp_path)
    log = open_log(Directory(tmp_path), writable=False)
    sizes = sum(path.stat().st_size for path in tmp_path.glob("segment-*"))
    assert log.count_events_at_most() == sizes // EVENT_SIZE
    for point in points:
        behind = sizes - (point.segment_number - 1) * SEGMENT_SIZE - point.end_offset
        assert log.count_events_at_most(point) == behind // EVENT_SIZE
    log.close()


# --- A log that is not that of the checkpoint


def check_start_refused(folder: Path, point: ResumePoint, words: str) -> None:
    before = contents(folder)
    for writable in (False, True):
        with pytest.raises(CorruptLog, match=words):
            open_entries(folder, writable=writable, start=point)
        assert contents(folder) == before
    with pytest.raises(CorruptLog, match=words):
        open_entries(folder, writable=False, start=point, until_index=point.index)


BY_CHECKPOINT = "a checkpoint, which is only ever made of durable entries, proves that the log reached"


@pytest.mark.parametrize("at", range(1, COUNT + 1))
@pytest.mark.parametrize("control", ["at the end", "forgotten"])
def test_a_log_that_was_cut_short_is_refused(tmp_path: Path, history: History, at: int, control: str) -> None:
    """Also where nothing else tells that anything was there."""
    remains = Remains.of(history, FORGOTTEN if control == "forgotten" else history.controls[-1])
    remains.save(tmp_path)
    points = resume_points(tmp_path)
    for lost_from in range(1, at + 1):
        remains.lose_from(at + 1 - lost_from).save(tmp_path)
        check_start_refused(tmp_path, points[at - 1], f"index {at} was expected; {BY_CHECKPOINT} that entry")


@pytest.mark.parametrize("at", [1, 4, COUNT])
def test_every_byte_of_the_checkpoint_s_entry_counts(tmp_path: Path, history: History, at: int) -> None:
    remains = Remains.of(history, history.controls[-1])
    remains.save(tmp_path)
    points = resume_points(tmp_path)
    place = remains.where[at][1]
    path = tmp_path / segment_name(1)
    where = f"{segment_name(1)}, offset {place.start}: "
    for offset in range(place.start, place.end):
        flip(path, offset, offset % 8)
        with pytest.raises(CorruptLog, match=f"^{where}.*{BY_CHECKPOINT}"):
            open_entries(tmp_path, writable=False, start=points[at - 1])
        flip(path, offset, offset % 8)


def test_a_log_without_its_segments_is_refused_and_not_made_anew(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(300, 300, 300)
    writer.close()
    points = resume_points(tmp_path)
    for number in (2, 3, 1):
        (tmp_path / segment_name(number)).unlink()
        check_start_refused(tmp_path, points[-1], rf"{segment_name(min(number, 2))} is not there; {BY_CHECKPOINT}")
    for path in tmp_path.iterdir():
        path.unlink()
    before = contents(tmp_path)
    with pytest.raises(CorruptLog, match=f"is not there; {BY_CHECKPOINT}"):
        open_entries(tmp_path, start=points[0])
    assert contents(tmp_path) == before


def test_the_point_of_another_log_is_refused(tmp_path: Path, history: History) -> None:
    other = tmp_path / "other"
    write_history(other, *GROUPS)
    folder = tmp_path / "log"
    Remains.of(history, history.controls[-1]).save(folder)
    for point in resume_points(other):
        check_start_refused(folder, point, "the checkpoint is one of another log")


def test_the_point_of_another_branch_of_the_same_log_is_refused(tmp_path: Path, history: History) -> None:
    """Same log, same index, same place, same sizes; another entry."""
    folder = tmp_path / "fork"
    Remains.of(history, history.controls[-1]).save(tmp_path)
    points = resume_points(tmp_path)
    Remains.of(history, history.controls[-2]).lose_from(5).save(folder)
    writer = Writer(folder)
    writer.append_body(EntryKind.EVENTS, events_of(77, 1).tobytes(), 1)
    writer.sync()
    writer.close()
    assert resume_points(folder)[4].end_offset == points[4].end_offset
    check_start_refused(folder, points[4], f"found another entry than the checkpoint's .*{BY_CHECKPOINT}")


def test_a_segment_that_is_too_small_for_its_summary_is_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path, segment_size=2 * SEGMENT_SIZE)
    writer.write(400, 400)
    writer.close()
    point = resume_points(tmp_path)[-1]
    first, second = point.segments
    point = msgspec.structs.replace(point, segments=(msgspec.structs.replace(first, end=2 * SEGMENT_SIZE + 1), second))
    check_start_refused(tmp_path, point, f"{segment_name(1)} has {2 * SEGMENT_SIZE} bytes; {BY_CHECKPOINT}")


def test_segments_before_a_point_belong_to_the_log_all_the_same(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log")
    writer.write(300, 300)
    writer.close()
    point = resume_points(tmp_path / "log")[-1]
    flip(tmp_path / "log" / segment_name(1), 100)
    check_start_refused(tmp_path / "log", point, "the header of the segment is damaged")
    other = write_history(tmp_path / "other", [1])
    (tmp_path / "log" / segment_name(1)).write_bytes(other.segments[1])
    check_start_refused(tmp_path / "log", point, "belongs to another log|of another log")


# --- What a point can be like

ONE = b"\1" + bytes(7)
SUMMARY = SegmentSummary(1, SEGMENT_HEADER_SIZE + 1000, ONE, ONE, SEGMENT_HEADER_SIZE.to_bytes(8, "little"))
POINT = ResumePoint(
    log_id=7,
    index=1,
    term=3,
    timestamp_ns=10,
    next_sequence=2,
    chain_hash=bytes(32),
    segment_number=1,
    entry_offset=SEGMENT_HEADER_SIZE,
    end_offset=SEGMENT_HEADER_SIZE + 1000,
    bytes_count=1000,
    term_runs=((1, 3),),
    segments=(SUMMARY,),
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"index": 0}, "behind index 0"),
        ({"next_sequence": 0}, "with sequence 0"),
        ({"chain_hash": bytes(31)}, "behind index 1"),
        ({"term": 2}, "the terms"),
        ({"term_runs": ()}, "the terms"),
        ({"term_runs": ((2, 3),), "index": 2}, "the terms"),
        ({"term_runs": ((1, -1),), "term": -1}, "the terms"),
        ({"term_runs": ((1, 2), (2, 3))}, "the terms"),
        ({"term_runs": ((1, 2), (1, 3))}, "the terms"),
        ({"term_runs": ((1, 3), (2, 3)), "index": 2}, "the terms"),
        ({"segment_number": 2}, "up to number 2"),
        ({"segments": ()}, "up to number 1"),
        ({"entry_offset": SEGMENT_HEADER_SIZE - 1}, "no entry lies"),
        ({"entry_offset": SEGMENT_HEADER_SIZE + 900}, "no entry lies"),
        ({"end_offset": SEGMENT_HEADER_SIZE + 999}, "up to the end of the entry"),
    ],
)
def test_a_point_that_cannot_be_is_refused(change: dict[str, object], words: str) -> None:
    fields = {name: getattr(POINT, name) for name in POINT.__struct_fields__}
    with pytest.raises(ValueError, match=words):
        ResumePoint(**{**fields, **change})
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.msgpack.decode(msgspec.msgpack.encode({**fields, **change}), type=ResumePoint)


@pytest.mark.parametrize(
    ("number", "end", "columns", "words"),
    [
        (0, 5000, ([1], [1], [4096]), "segment 0 cannot end"),
        (1, 4095, ([1], [1], [4096]), "cannot end at offset 4095"),
        (1, 5000, ([1], [1], []), "as many indexes and sequences as offsets"),
        (1, 5000, ([1], [], [4096]), "as many indexes and sequences as offsets"),
        (1, 5000, ([], [1], [4096]), "as many indexes and sequences as offsets"),
        (1, 5000, ([], [], []), "if it has entries"),
        (1, 4096, ([1], [1], [4096]), "if it has entries"),
        (1, 5000, ([1], [1], [4095]), "not in it"),
        (1, 5000, ([1], [1], [-1]), "not in it"),
        (1, 5000, ([1, 2], [1, 2], [4096, 5000]), "not in it"),
    ],
)
def test_a_summary_that_cannot_be_is_refused(
    number: int, end: int, columns: tuple[list[int], list[int], list[int]], words: str
) -> None:
    data = [b"".join(word.to_bytes(8, "little", signed=True) for word in column) for column in columns]
    with pytest.raises(ValueError, match=words):
        SegmentSummary(number, end, *data)
    with pytest.raises(ValueError, match="of 8 bytes each"):
        SegmentSummary(1, 5000, bytes(7), bytes(7), bytes(7))
