"""Claim: entries are read back as they lie in the log, from memory or from segments, and never damaged ones."""

from pathlib import Path
from typing import Final

import numpy as np
import pytest

from bezant.engine.log.log import Log, open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.engine.log.terms import TermRuns
from bezant.protocol.errors import CorruptLog, LedgerError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import ENTRY_STAMP_SIZE

from .logs import SEGMENT_SIZE, Writer, entry_size, flip, open_entries, places_in, resume_points, segment_path

SIZES: Final = (1, 2, 300, 5, 0, 0, 310, 30, 7, 1)
"""Events of the entries of the small history; those without are control entries of 11 bytes."""


def append(writer: Writer, count: int) -> None:
    if count:
        writer.append(count)
    else:
        writer.append_body(EntryKind.CONTROL, b"no event ..")


def size_of(count: int) -> int:
    return entry_size(count) if count else entry_size(0) + 11


@pytest.fixture(params=["durable", "half of it", "being written", "waiting", "opened again", "behind a checkpoint"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    """The small history, on the disk and in memory in every way in which it can be."""
    writer = Writer(tmp_path)
    for number, count in enumerate(SIZES, 1):
        append(writer, count)
        if request.param in {"durable", "half of it", "being written"} and number in {1, 4, 5}:
            writer.sync()
    if request.param in {"durable", "opened again", "behind a checkpoint"}:
        writer.sync()
    if request.param == "being written":
        assert writer.log.begin_group() is not None
    if request.param not in {"opened again", "behind a checkpoint"}:
        return writer.log
    writer.close()
    start = resume_points(tmp_path)[6] if request.param == "behind a checkpoint" else None
    return open_entries(tmp_path, start=start, writable=False)[0]


@pytest.fixture
def whole(tmp_path: Path) -> list[bytes]:
    """What each entry of the small history is, but for its stamp, its chain and its log."""
    folder = tmp_path / "whole"
    writer = Writer(folder)
    for count in SIZES:
        append(writer, count)
    writer.sync()
    writer.close()
    found = []
    for number in (1, 2, 3):
        data = segment_path(folder, number).read_bytes()
        found += [data[place.start : place.end] for place in places_in(folder, number)]
    return found


def test_any_entries_are_read_back(log: Log, whole: list[bytes]) -> None:
    assert len(whole) == len(SIZES)
    for first in range(1, len(SIZES) + 1):
        for last in range(first, len(SIZES) + 1):
            data = b"".join(log.read_encoded(first, last))
            expected = whole[first - 1 : last]
            assert len(data) == sum(map(len, expected))
            for entry in expected:
                part, data = data[: len(entry)], data[len(entry) :]
                assert part[56:104] == entry[56:104]  # term to kind
                assert part[128:] == entry[128:]


def test_the_bytes_are_those_of_the_segments(tmp_path: Path) -> None:
    """Back to back, a piece for each segment, and a part of what is mapped."""
    writer = Writer(tmp_path)
    for count in SIZES:
        append(writer, count)
    before = b"".join(writer.log.read_encoded(1, len(SIZES)))
    writer.sync()
    pieces = writer.log.read_encoded(1, len(SIZES))
    expected = []
    for number in (1, 2, 3):
        found = places_in(tmp_path, number)
        expected.append(segment_path(tmp_path, number).read_bytes()[found[0].start : found[-1].end])
    assert [bytes(piece) for piece in pieces] == expected
    mapped = [segment.mapping() for segment in writer.log._history.segments]
    assert all(
        np.shares_memory(np.frombuffer(piece, np.uint8), part) for piece, part in zip(pieces, mapped, strict=True)
    )
    assert before[ENTRY_STAMP_SIZE:128] == expected[0][ENTRY_STAMP_SIZE:128]
    assert len(before) == sum(map(len, expected))
    writer.close()


def test_what_waits_is_not_copied(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    fact = writer.append(3)
    pieces = writer.log.read_encoded(1, 1)
    assert len(pieces[0]) == 128
    assert pieces[1] is fact.body
    writer.close()


def test_a_span_has_as_many_entries_as_fit(log: Log) -> None:
    sizes = [size_of(count) for count in SIZES]
    for first in range(1, len(SIZES) + 1):
        for last in range(first, len(SIZES) + 1):
            total = sum(sizes[first - 1 : last])
            assert log.end_of_span(first, total) == last
            assert log.size_of_span(first, last) == total
            assert log.end_of_span(first, total - 1) == max(last - 1, first)
        assert log.end_of_span(first, 0) == first
        assert log.end_of_span(first, 1 << 40) == len(SIZES)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 3), (-1, 1), (3, 2), (1, 11), (11, 11)])
def test_entries_that_are_not_there_are_our_own_fault(log: Log, first: int, last: int) -> None:
    with pytest.raises(LedgerError, match="of a log that has 10"):
        log.read_encoded(first, last)
    if not 1 <= first <= 10:
        with pytest.raises(LedgerError, match="of a log that has 10"):
            log.end_of_span(first, 1000)


def test_many_small_entries_are_found_from_wherever_one_begins(tmp_path: Path) -> None:
    """In segments with several places that are remembered; entries without events have sequences in common."""
    writer = Writer(tmp_path, segment_size=4 * SEGMENT_SIZE)
    for number in range(60):
        for count in (1, 0, 0, 1, 0, 2, 0):
            append(writer, count)
        if number % 3 == 0:
            append(writer, 300)
        writer.sync()
    last = writer.log.last_index
    everything = b"".join(writer.log.read_encoded(1, last))
    ends = [writer.log.bytes_count]
    assert len(everything) == ends[0]
    writer.close()
    points = resume_points(tmp_path)
    starts = [0, *(point.bytes_count for point in points)]
    for start in (None, points[40], points[-1]):
        log, _ = open_entries(tmp_path, start=start, writable=False)
        for first in [*range(1, last, 13), last]:
            end = min(first + 17, last)
            assert b"".join(log.read_encoded(first, end)) == everything[starts[first - 1] : starts[end]]
            assert log.end_of_span(first, starts[end] - starts[first - 1]) == end
        index = 1
        while index <= last:  # as a follower is sent them
            end = log.end_of_span(index, 10_000)
            assert b"".join(log.read_encoded(index, end)) == everything[starts[index - 1] : starts[end]]
            index = end + 1
        log.close()


def test_damage_is_noticed(tmp_path: Path) -> None:
    """In every byte that is handed out or passed, also before a checkpoint, where no start has looked."""
    writer = Writer(tmp_path)
    writer.write(1, 2)
    writer.write(3, 1)
    writer.close()
    point = resume_points(tmp_path)[-1]
    second, third = places_in(tmp_path)[1:3]
    for offset in range(second.start, third.body):
        flip(tmp_path / segment_name(1), offset, offset % 8)
        log = open_log(Directory(tmp_path), writable=False)
        assert list(log.open(point)) == []
        with pytest.raises(CorruptLog, match=rf"^{segment_name(1)}, offset \d+: found .* is read back; what was"):
            log.read_encoded(2, 3)
        if not second.body <= offset < second.end:
            with pytest.raises(CorruptLog, match=r"index [23] is read back"):
                log.end_of_span(2, 1 << 20)
        log.close()
        flip(tmp_path / segment_name(1), offset, offset % 8)
    log = open_log(Directory(tmp_path), writable=False)
    assert list(log.open(point)) == []
    assert len(b"".join(log.read_encoded(2, 3))) == third.end - second.start
    log.close()


# --- Terms


def test_terms_are_remembered_a_run_at_a_time() -> None:
    runs = TermRuns()
    terms = [0, 0, 2, 2, 2, 3, 9, 9]
    for index, term in enumerate(terms, 1):
        runs.note(index, term)
    assert runs.up_to(8) == ((1, 0), (3, 2), (6, 3), (7, 9))
    assert [runs.term_at(index) for index in range(1, 9)] == terms
    with pytest.raises(LedgerError, match="an entry of term 8 behind one of term 9"):
        runs.note(9, 8)
    with pytest.raises(LedgerError, match="index 0"):
        runs.term_at(0)
    for index in range(8, -1, -1):
        other = TermRuns()
        other.restore(runs.up_to(index))
        runs.cut(index)
        assert runs.up_to(100) == other.up_to(100)
        assert runs.last_term == other.last_term == (terms[index - 1] if index else 0)


def test_a_start_behind_a_checkpoint_knows_all_terms(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    terms = [2, 2, 3, 7, 7, 8]
    for term in terms:
        writer.log.term = term
        writer.write(1)
    assert [writer.log.term_at(index) for index in range(-1, 8)] == [None, 0, *terms, None]
    writer.close()
    points = resume_points(tmp_path)
    assert points[3].term_runs == ((1, 2), (3, 3), (4, 7))
    for start in (None, *points):
        log, _ = open_entries(tmp_path, start=start, writable=False)
        assert [log.term_at(index) for index in range(-1, 8)] == [None, 0, *terms, None]
        assert (log.term, log.first_index) == (8, 1)
        log.close()


def test_a_term_does_not_fall(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.log.term = 3
    writer.write(1)
    writer.log.term = 2
    with pytest.raises(LedgerError, match="an entry of term 2 behind one of term 3"):
        writer.append(1)
    assert (writer.log.last_index, writer.log.idle) == (1, True)
    writer.log.term = 3
    writer.write(1)
    writer.close()
    assert [int(place.header["term"]) for place in places_in(tmp_path)] == [3, 3]
