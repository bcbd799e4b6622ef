"""Claim: what is read back is what was written, or it is refused with the place where it is damaged."""

import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bezant.engine.compiled import COMPILED
from bezant.engine.log import history as history_module
from bezant.engine.log.entry import (
    BODY_SIZE_MAX,
    EntryHeader,
    body_is_whole,
    decode_header,
    encode_entry,
)
from bezant.engine.log.history import REMEMBERED_FROM_SIZE, SCATTERED_FROM
from bezant.engine.log.log import Log
from bezant.engine.log.seeking import NEAR_BYTES, SOUGHT_FIRST, copy_events, locate_events, warm_seeking
from bezant.engine.log.segment import Segment, segment_name
from bezant.protocol.errors import CorruptLog
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import ENTRY_HEADER_SIZE, EVENT_SIZE, SEGMENT_HEADER_SIZE, Bytes, Words

from .logs import (
    Writer,
    contents,
    damage,
    entry_size,
    events_of,
    flip,
    open_entries,
    places_in,
    resume_points,
    segment_path,
)

LARGE: Final = REMEMBERED_FROM_SIZE // EVENT_SIZE + 1
"""Events of an entry that is remembered once it was verified."""


def read(log: Log, *sequences: int) -> list[int]:
    return log.read_events(np.array(sequences, np.int64))["amount"].tolist()


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """Four entries in one segment: events 1; 2 and 3; 4; 5."""
    writer = Writer(tmp_path)
    writer.write(1, 2, 1)
    writer.write(1)
    return writer


def test_every_byte_of_an_entry_counts(tmp_path: Path, writer: Writer) -> None:
    place = places_in(tmp_path)[1]
    for offset in range(place.start, place.end):
        flip(segment_path(tmp_path), offset, offset % 8)
        for sequences in ((2,), (3,), (1, 2, 5)):
            with pytest.raises(CorruptLog, match=f"^{segment_name(1)}, offset {place.start}: found "):
                writer.read(*sequences)
        assert writer.read(1) == [1]
        flip(segment_path(tmp_path), offset, offset % 8)
    assert writer.read(1, 2, 3, 4, 5) == [1, 2, 3, 4, 5]
    writer.close()


def test_headers_on_the_way_count_as_well(tmp_path: Path, writer: Writer) -> None:
    """So that no damaged size leads the walk to bytes that only look like an entry. Bodies are passed over."""
    place = places_in(tmp_path)[1]
    for offset in range(place.start, place.body):
        flip(segment_path(tmp_path), offset)
        with pytest.raises(CorruptLog, match=rf"offset {place.start}: found no whole entry header .* sequence 5; "):
            writer.read(5)
        flip(segment_path(tmp_path), offset)
    flip(segment_path(tmp_path), place.body)
    assert writer.read(1, 4, 5) == [1, 4, 5]
    with pytest.raises(CorruptLog, match=f"offset {place.start}: found an entry whose body fails its checksum"):
        writer.read(2)
    writer.close()


def test_damage_before_a_checkpoint_is_found_when_it_is_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(200, 100, 300, 1)
    writer.close()
    point = resume_points(tmp_path)[2]
    first = places_in(tmp_path, 1)[1]
    flip(segment_path(tmp_path), first.body + 50 * EVENT_SIZE)
    log, _ = open_entries(tmp_path, start=point)
    assert read(log, 1, 200, 301, 601) == [1, 200, 301, 601]
    for sequence in (201, 250, 300):
        with pytest.raises(CorruptLog, match=f"^{segment_name(1)}, offset {first.start}: .*body fails its checksum"):
            read(log, sequence)
    log.close()


# --- What was verified lately


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indexes of the entries whose bodies are hashed, as they are."""
    indexes: list[int] = []

    def noted(header: EntryHeader, body: memoryview) -> bool:
        indexes.append(header.index)
        return body_is_whole(header, body)

    monkeypatch.setattr(history_module, "body_is_whole", noted)
    return indexes


def test_a_large_entry_is_hashed_once(tmp_path: Path, hashed: list[int]) -> None:
    writer = Writer(tmp_path)
    writer.write(LARGE, 1, LARGE - 2)
    for sequence in range(1, LARGE + 1):
        assert writer.read(sequence) == [sequence]
    assert hashed == [1]
    sequences = list(range(1, 2 * LARGE))
    assert writer.read(*sequences) == sequences
    assert writer.read(*sequences) == sequences
    assert hashed == [1, 2, 3, 2, 3]  # small ones are not worth remembering
    writer.close()


def test_only_the_entries_verified_last_are_remembered(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "ENTRIES_VERIFIED_MAX", 2)
    writer = Writer(tmp_path)
    writer.write(LARGE, LARGE, LARGE)
    for number in (0, 1, 0, 2, 0, 1, 2):
        assert writer.read(1 + number * LARGE) == [1 + number * LARGE]
    assert hashed == [1, 2, 3, 2, 3]
    writer.close()


def test_an_entry_is_verified_anew_in_a_new_mapping(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once unmapped, its pages may go and come back from the disk, which may have changed them meanwhile."""
    monkeypatch.setattr(history_module, "SEGMENTS_MAPPED_MAX", 1)
    writer = Writer(tmp_path)
    writer.write(300)  # each fills a segment
    writer.write(300)
    for sequence in (1, 2, 301, 302, 300):
        assert writer.read(sequence) == [sequence]
    assert hashed == [1, 2, 1]
    flip(segment_path(tmp_path, 2), places_in(tmp_path, 2)[0].body + 299 * EVENT_SIZE)
    with pytest.raises(CorruptLog, match="body fails its checksum"):
        writer.read(301)
    writer.close()


def test_an_entry_that_fails_is_not_remembered(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(LARGE)
    offset = places_in(tmp_path)[0].end - 1
    for _ in range(2):
        flip(segment_path(tmp_path), offset)
        for _ in range(2):
            with pytest.raises(CorruptLog, match="body fails its checksum"):
                writer.read(1)
        flip(segment_path(tmp_path), offset)
    assert writer.read(1) == [1]
    writer.close()


# --- Headers that are whole, and wrong

WRONG: Final[dict[str, dict[str, int]]] = {
    "a body that ends behind the segment": {"body_size": BODY_SIZE_MAX},
    "a body below zero": {"body_size": -1},
    "a body far below zero": {"body_size": -(2**31)},
    "a body as if to go back": {"body_size": -entry_size(1)},
    "no body for its events": {"body_size": 0},
    "a body that ends in the middle": {"body_size": EVENT_SIZE - 8},
    "more events than fit in it": {"count": 2**31 - 1},
    "events below zero": {"count": -1},
    "no events": {"count": 0},
    "events that come later": {"first_sequence": 4},
    "events far away": {"first_sequence": 2**62},
    "events that came before": {"first_sequence": -(2**62), "count": 2**31 - 1},
    "another kind": {"kind": int(EntryKind.FILLER)},
    "another log": {"log_id": 1},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_header_that_is_whole_is_not_believed_blindly(tmp_path: Path, change: dict[str, int]) -> None:
    """It lies before a checkpoint, so that nothing but reading comes across it."""
    writer = Writer(tmp_path)
    writer.write(1, 1, 1, 1)
    writer.close()
    point = resume_points(tmp_path)[3]
    place = places_in(tmp_path)[1]
    data = np.frombuffer(segment_path(tmp_path).read_bytes(), np.uint8)
    header = decode_header(data[place.start : place.body])
    assert header is not None
    wrong = encode_entry(header._replace(**change), bytes(data[place.body : place.end]))
    assert wrong.header.body_checksum == header.body_checksum
    damage(segment_path(tmp_path), place.start, wrong.encoded)
    log, entries = open_entries(tmp_path, writable=False, start=point)
    assert entries == []
    with pytest.raises(CorruptLog, match=f"^{segment_name(1)}, offset "):
        read(log, 2)
    assert read(log, 1) == [1]
    log.close()


def test_an_entry_of_another_log_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    """Whole, in the same place, with the same sequences."""
    for name in ("ours", "other"):
        writer = Writer(tmp_path / name)
        writer.write(1, 1, 1)
        writer.close()
    place = places_in(tmp_path / "other")[1]
    stale = contents(tmp_path / "other")[segment_name(1)][place.start : place.end]
    point = resume_points(tmp_path / "ours")[2]
    damage(segment_path(tmp_path / "ours"), place.start, stale)
    log, _ = open_entries(tmp_path / "ours", start=point)
    with pytest.raises(CorruptLog, match=f"offset {place.start}: found an entry of another log"):
        read(log, 2)
    log.close()


# --- The kernel

LOG_ID: Final = 77
COUNTS: Final = (1, 3, 0, 1, 2, 1)


def segment_of(counts: tuple[int, ...]) -> tuple[Bytes, list[int]]:
    """A segment with entries of so many events, and the offset of each."""
    data, offsets, sequence = bytearray(SEGMENT_HEADER_SIZE), [], 1
    for index, count in enumerate(counts, 1):
        body = events_of(sequence, count).tobytes()
        header = EntryHeader(
            0, 0, 0, bytes(32), 0, index, sequence, index, count, len(body), int(EntryKind.EVENTS), 2, 1, LOG_ID, 0
        )
        offsets.append(len(data))
        data += encode_entry(header, body).encoded + body
        sequence += count
    return np.frombuffer(bytes(data), np.uint8), offsets


def run(
    function: Callable[..., Any],
    segment: Bytes,
    sequences: list[int],
    starts: list[int],
    places: Sequence[int] = (),
) -> tuple[int, list[int], bytes]:
    found, events = np.full(len(sequences), -1, np.int64), np.zeros(len(sequences) * EVENT_SIZE, np.uint8)
    known = np.array(places or [0] * len(sequences), np.int64)
    segments = np.array([[segment.ctypes.data, len(segment), 0, 0, 0, len(sequences)]], np.int64)
    copied = function(segments, np.array(sequences, np.int64), np.array(starts, np.int64), known, found, events)
    return int(copied), found.tolist(), events.tobytes()


def test_events_are_copied_and_their_entries_told() -> None:
    segment, offsets = segment_of(COUNTS)
    sequences = [1, 2, 4, 5, 7, 8]
    expected = [offsets[0], offsets[1], offsets[1], offsets[3], offsets[4], offsets[5]]
    events = b"".join(events_of(sequence, 1).tobytes() for sequence in sequences)
    for starts in ([offsets[0]] * 6, [*expected[:3], offsets[2], *expected[4:]]):
        assert run(copy_events, segment, sequences, starts) == (6, expected, events)
    first = [offset + ENTRY_HEADER_SIZE for offset in offsets]
    places = [0, first[1], first[1] + 2 * EVENT_SIZE, 0, first[4] + EVENT_SIZE, first[5]]
    assert run(copy_events, segment, sequences, expected, places) == (6, expected, events)
    assert run(copy_events, segment[:-1], sequences, expected, places)[0] == 5
    assert run(copy_events, segment, [], []) == (0, [], b"")
    for start in (-1, 0, SEGMENT_HEADER_SIZE - 1, len(segment) - ENTRY_HEADER_SIZE + 1, len(segment), 2**62):
        copied, found, _ = run(copy_events, segment, [8], [start])
        assert (copied, found) == (0, [max(start, 0)])
    for sequence in (0, -1, 9, 2**62):
        assert run(copy_events, segment, [sequence], [offsets[0]])[0] == 0
    warm_seeking()


@pytest.mark.skipif(not COMPILED, reason="this run is the uncompiled one")
@settings(max_examples=300, deadline=None)
@given(
    sequences=st.lists(st.integers(0, 9), max_size=6).map(sorted),
    starts=st.lists(st.integers(0, len(COUNTS) - 1), min_size=6, max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 7)), max_size=2),
    cut=st.integers(0, 400),
    places=st.lists(st.integers(0, 3000), min_size=6, max_size=6),
)
def test_compiled_or_not_is_the_same(
    sequences: list[int], starts: list[int], flips: list[tuple[int, int]], cut: int, places: list[int]
) -> None:
    whole, offsets = segment_of(COUNTS)
    segment = whole.copy()
    for offset, bit in flips:
        segment[SEGMENT_HEADER_SIZE + offset] ^= 1 << bit
    segment = segment[: len(segment) - cut]
    segment.flags.writeable = False
    at = [offsets[start] for start in starts[: len(sequences)]]
    for known in ([], places[: len(sequences)]):
        compiled = run(copy_events, segment, sequences, at, known)
        assert compiled == run(copy_events.py_func, segment, sequences, at, known)


# --- What is asked of the disk before it is read


@pytest.mark.parametrize("counts", [[1] * 900, [600] * 40, [1, 5, 300, 700, 1, 1, 900] * 6, [40] * 90])
def test_events_that_lie_apart_are_asked_for_with_the_headers_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: list[int]
) -> None:
    """Every page from which something is read, and not much more than those; headers only where they are needed."""
    writer = Writer(tmp_path, segment_size=1 << 20)
    writer.write(*counts)
    asked: set[int] = set()

    def ask_for(ways: Words) -> None:
        for address, size in ways.tolist():
            assert address % mmap.PAGESIZE == 0 and size > 0
            asked.update(range(address // mmap.PAGESIZE, -(-(address + size) // mmap.PAGESIZE)))

    monkeypatch.setattr(history_module, "ask_for", ask_for)
    wanted = list(range(3, sum(counts), SCATTERED_FROM * 2))
    events = writer.log.read_events(np.array(wanted, np.int64), check_bodies=False)
    assert events["amount"].tolist() == wanted
    near = NEAR_BYTES // mmap.PAGESIZE
    assert len(asked) <= ((20 if min(counts) < 100 else 3) + near) * len(wanted)
    number = 0
    for segment in writer.log.segments:
        base = segment.mapping().ctypes.data
        for place in places_in(tmp_path, segment.number):
            first, count = int(place.header["first_sequence"]), int(place.header["count"])
            for sequence in range(first, first + count):
                if number < len(wanted) and sequence == wanted[number]:
                    number += 1
                    begin = place.body + (sequence - first) * EVENT_SIZE
                    located = locate(segment, sequence)
                    assert located in {0, begin}
                    for offset in (begin, begin + EVENT_SIZE - 1, *(() if located else (place.start,))):
                        assert (base + offset) // mmap.PAGESIZE in asked, (sequence, offset)
    assert number == len(wanted)
    writer.close()


def test_events_that_are_near_are_asked_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request for all that costs the disk no more than two would, and none across what lies further away."""
    monkeypatch.setattr(history_module, "SCATTERED_FROM", 0)
    writer = Writer(tmp_path, segment_size=4 << 20)
    writer.write(8000, 8000)
    asked: list[list[tuple[int, int]]] = []
    monkeypatch.setattr(history_module, "ask_for", lambda ways: asked.append(ways.tolist()))
    apart = NEAR_BYTES // EVENT_SIZE
    for distance, count in ((1, 1), (apart, 1), (apart + 2, 9), (3 * apart, 9)):
        wanted = np.arange(5, 5 + 9 * distance, distance)
        assert writer.log.read_events(wanted, check_bodies=False)["amount"].tolist() == wanted.tolist()
        ways = asked.pop()
        assert len(ways) == count
        used = wanted[-1] - wanted[0] if count == 1 else 0
        assert sum(size for _, size in ways) <= used * EVENT_SIZE + count * (mmap.PAGESIZE + EVENT_SIZE)
    writer.close()


@pytest.mark.parametrize("check_bodies", [True, False])
def test_one_read_of_many_segments_says_in_which_one_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_bodies: bool
) -> None:
    """They are read some at a time, each with as many segments as may be mapped."""
    monkeypatch.setattr(history_module, "SEGMENTS_MAPPED_MAX", 3)
    writer, segments = Writer(tmp_path), 8
    for _ in range(segments):
        writer.write(149, 150, 1)  # fill a segment; the last one's place is known from no entry behind it
    wanted = np.array([first + 300 * number for number in range(segments) for first in (1, 7, 150, 299, 300)], np.int64)
    assert writer.log.read_events(wanted, check_bodies)["amount"].tolist() == wanted.tolist()
    for number in range(1, segments + 1):
        place = places_in(tmp_path, number)[-1]
        flip(segment_path(tmp_path, number), place.start + 8)
        with pytest.raises(CorruptLog, match=rf"^{segment_name(number)}, offset {place.start}: .* {300 * number}; "):
            writer.log.read_events(wanted, check_bodies)
        flip(segment_path(tmp_path, number), place.start + 8)
    assert writer.log.read_events(wanted, check_bodies)["amount"].tolist() == wanted.tolist()
    writer.close()


@pytest.mark.parametrize("check_bodies", [True, False])
def test_nothing_is_read_behind_the_end_of_a_file_that_is_shorter_by_now(tmp_path: Path, check_bodies: bool) -> None:
    """Somebody copies another one over it, say, before it is mapped anew: what lies behind in memory is not of it."""
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.write(149, 150, 1)  # fill a segment
    writer.close()
    log, _ = open_entries(tmp_path, start=resume_points(tmp_path)[-1])
    os.truncate(segment_path(tmp_path), SEGMENT_HEADER_SIZE + mmap.PAGESIZE)
    for sequences in ((1,), (150, 300), (300,), (1, 200, 400, 900)):
        with pytest.raises(CorruptLog, match=f"{segment_name(1)}: it had 65536 bytes and has 8192 now; it was"):
            log.read_events(np.array(sequences, np.int64), check_bodies)
    assert read(log, 301, 600, 900) == [301, 600, 900]
    log.close()


def test_what_is_known_is_copied_again_when_there_is_more_of_it(tmp_path: Path) -> None:
    """Not with every entry: of a segment of 4 GiB it is 1.5 MiB."""
    writer = Writer(tmp_path, segment_size=1 << 20)
    writer.write(1)
    segment = writer.log.segments[0]
    known = segment.sought().known
    writer.write(1, 340)
    assert segment.sought().known is known and segment.sought().end == segment.end
    writer.write(100)
    assert segment.sought().known.shape == (3, 2)
    assert writer.read(1, 2, 342, 343, 442) == [1, 2, 342, 343, 442]
    writer.close()


def test_what_is_known_of_a_mapping_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if another thread, which follows the log, unmaps a segment while a question looks at it."""
    writer = Writer(tmp_path)
    writer.write(300, 1)
    segment, stack = writer.log.segments[0], np.stack

    def unmap_meanwhile(parts: Sequence[Words]) -> Words:
        segment.unmap()
        return stack(parts)

    monkeypatch.setattr(np, "stack", unmap_meanwhile)
    before = segment.sought()
    monkeypatch.undo()
    assert before.mapping is not segment.mapping()
    assert segment.sought().mapping is segment.mapping()
    writer.close()


def locate(segment: Segment, sequence: int) -> int:
    """The place of an event, as far as it is known without headers."""
    sought, places, starts = segment.sought(), np.zeros(1, np.int64), np.zeros(1, np.int64)
    locate_events(np.array([[*sought[:SOUGHT_FIRST], 0, 1]], np.int64), np.array([sequence], np.int64), starts, places)
    return int(places[0])
