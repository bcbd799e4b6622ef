"""Claim: recovery decides as well where a history crosses segments, or has lost one, or its control file."""

from pathlib import Path
from typing import Final

import pytest

from bezant.engine.log.segment import segment_name
from bezant.protocol.errors import CorruptLog
from bezant.protocol.records import ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE

from .crashes import (
    COUNT,
    FORGOTTEN,
    FULL,
    Damage,
    History,
    Remains,
    check_recovered,
    check_refused,
    write_history,
)
from .logs import SEGMENT_SIZE, Writer, contents, open_entries

# Entries 2, 3 and 4 are the last group; 2 lies at the end of the first segment, 3 and 4 in the second.
GROUPS_CROSSING: Final = ([FULL], [10, FULL, 1])

# Entries 2, 3 and 4 are the last group, each of which fills a segment: the second, third and fourth.
GROUPS_LONG: Final = ([FULL], [FULL, FULL, FULL])


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> History:
    return write_history(tmp_path_factory.mktemp("crossing"), *GROUPS_CROSSING)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> History:
    return write_history(tmp_path_factory.mktemp("long"), *GROUPS_LONG)


# --- A last group that crosses segments

TORN_CROSSING: Final[dict[str, tuple[int, Damage]]] = {
    "at the end of the first segment": (2, lambda log: log.break_header(2).lose_from(3)),
    "in a body at the end of the first segment": (2, lambda log: log.break_body(2).lose_from(3)),
    "the first header of the second": (3, lambda log: log.break_header(3)),
    "the first body of the second": (3, lambda log: log.break_body(3)),
    "the first header of the second is lost": (3, lambda log: log.lose_header(3)),
    "the first sector of the second is lost": (3, lambda log: log.lose_sector(3)),
    "the first sector is all that is left": (3, lambda log: log.lose(3, 512).lose(4)),
    "the first entry of the second is lost": (3, lambda log: log.lose(3)),
    "the last entry": (4, lambda log: log.break_header(4)),
    "the last body": (4, lambda log: log.break_body(4)),
}


@pytest.mark.parametrize(("at", "damage"), TORN_CROSSING.values(), ids=TORN_CROSSING)
@pytest.mark.parametrize("control", ["of the group before", "forgotten"])
def test_a_torn_tail_in_either_segment(
    tmp_path: Path, crossing: History, at: int, damage: Damage, control: str
) -> None:
    remains = damage(Remains.of(crossing, FORGOTTEN if control == "forgotten" else crossing.controls[-2]))
    check_recovered(tmp_path, remains, at, torn=remains.torn_tail(at))


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_crossing_group_may_end_early(tmp_path: Path, crossing: History, at: int) -> None:
    check_recovered(tmp_path, Remains.of(crossing, crossing.controls[-2]).lose_from(at), at, torn=b"")


ROT_CROSSING: Final[dict[str, Damage]] = {
    "a header in the first segment": lambda log: log.break_header(2),
    "a body in the first segment": lambda log: log.break_body(2),
    "the end of the first segment is lost": lambda log: log.lose(2),
    "a body in the first segment, and the second begins with garbage": lambda log: log.break_body(2).break_header(3),
    "a body in the first segment, and the second has lost its first sector": lambda log: log.break_body(2).lose_sector(
        3
    ),
    "garbage behind the end of the first segment": lambda log: log.lose(2).overwrite(2, 2000, b"\1"),
}


@pytest.mark.parametrize("damage", ROT_CROSSING.values(), ids=ROT_CROSSING)
@pytest.mark.parametrize("control", ["of the group before", "forgotten"])
def test_damage_with_anything_in_a_later_segment_is_rot(
    tmp_path: Path, crossing: History, damage: Damage, control: str
) -> None:
    """A segment is synced before the next one is written, so what is in the next one proves that this one was whole."""
    remains = damage(Remains.of(crossing, FORGOTTEN if control == "forgotten" else crossing.controls[-2]))
    assert segment_name(2) in check_refused(tmp_path, remains, 2)


def test_zeros_are_what_is_behind_the_end_of_a_full_segment(tmp_path: Path, crossing: History) -> None:
    """All entries are whole; a byte between the last one of a segment and its end is rot all the same."""
    _, last = Remains.of(crossing, FORGOTTEN).where[2]
    remains = Remains.of(crossing, crossing.controls[-1]).put(1, SEGMENT_SIZE - 1, b"\1")
    remains.where[3] = (1, last._replace(start=last.end))
    check_refused(tmp_path, remains, 3)


ROT_LONG: Final[dict[str, tuple[int, Damage]]] = {
    "the second of four segments": (2, lambda log: log.break_body(2)),
    "the second is lost": (2, lambda log: log.lose(2)),
    "the third is lost": (3, lambda log: log.lose(3)),
    "the third has lost its first sector": (3, lambda log: log.lose_sector(3)),
    "the third is lost and the fourth torn": (3, lambda log: log.lose(3).break_header(4)),
    "the third and the first sector of the fourth are lost": (3, lambda log: log.lose(3).lose_sector(4)),
}


@pytest.mark.parametrize(("at", "damage"), ROT_LONG.values(), ids=ROT_LONG)
def test_rot_in_the_middle_of_a_group_of_many_segments(tmp_path: Path, long: History, at: int, damage: Damage) -> None:
    """Wherever the damage is: a lost entry that began a segment is missed where the segment before it ends."""
    remains = damage(Remains.of(long, FORGOTTEN))
    remains.save(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(CorruptLog, match=f"entry with index {at} was expected"):
        open_entries(tmp_path)
    assert contents(tmp_path) == before


def test_a_torn_tail_at_the_end_of_many_segments(tmp_path: Path, long: History) -> None:
    remains = Remains.of(long, FORGOTTEN).break_header(4)
    check_recovered(tmp_path, remains, 4, torn=remains.torn_tail(4))


def test_the_events_before_a_torn_segment_can_be_read_at_once(tmp_path: Path, crossing: History) -> None:
    """Before anything new is appended: a node must answer a repeat of an old command as soon as it is up."""
    Remains.of(crossing, crossing.controls[-2]).break_body(3).save(tmp_path)
    writer = Writer(tmp_path)
    assert writer.read(1, FULL, FULL + 10) == [1, FULL, FULL + 10]
    assert writer.log.has_room(SEGMENT_SIZE - SEGMENT_HEADER_SIZE - ENTRY_HEADER_SIZE)
    writer.close()


# --- Segments that are missing or not ours


def open_refused(folder: Path, words: str) -> None:
    """It refuses to open, both ways, and changes nothing."""
    before = contents(folder)
    for writable in (False, True):
        with pytest.raises(CorruptLog, match=words):
            open_entries(folder, writable=writable)
    assert contents(folder) == before


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_gap_in_the_segments_is_refused(tmp_path: Path, long: History, missing: int) -> None:
    Remains.of(long, long.controls[-1]).save(tmp_path)
    (tmp_path / segment_name(missing)).unlink()
    open_refused(tmp_path, "not numbered from 1 without a gap")


def test_missing_segments_at_the_end_are_missed(tmp_path: Path, long: History) -> None:
    Remains.of(long, long.controls[-1]).save(tmp_path)
    for number in range(3, len(long.segments) + 1):
        (tmp_path / segment_name(number)).unlink()
    open_refused(tmp_path, "index 3 was expected; the log was durable up to index 4")


@pytest.mark.parametrize("groups", [1, 2])
def test_a_folder_that_has_lost_all_its_segments_is_not_started_anew(
    tmp_path: Path, long: History, groups: int
) -> None:
    (tmp_path / "control").write_bytes(long.controls[groups])
    before = contents(tmp_path)
    with pytest.raises(CorruptLog, match="no segment"):
        open_entries(tmp_path)
    assert contents(tmp_path) == before


def test_a_crash_while_the_log_was_being_made_leaves_nothing_to_refuse(tmp_path: Path) -> None:
    """The control file is made first, of zeros; then the first segment."""
    (tmp_path / "control").write_bytes(FORGOTTEN)
    (tmp_path / "segment-0000000001.new").write_bytes(b"half")
    log, entries = open_entries(tmp_path)
    assert entries == []
    log.close()


@pytest.mark.parametrize("number", [1, 2])
def test_a_segment_of_another_log_is_refused(tmp_path: Path, long: History, number: int) -> None:
    other = write_history(tmp_path / "other", [1])
    folder = tmp_path / "log"
    Remains.of(long, long.controls[-1]).save(folder)
    (folder / segment_name(number)).write_bytes(other.segments[number])
    open_refused(folder, "belongs to another log")


@pytest.mark.parametrize("offset", [0, 7, 8, 15, 20, 24, 32, 40, 48, 2000, SEGMENT_HEADER_SIZE - 1])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_damaged_segment_header_is_refused(tmp_path: Path, long: History, number: int, offset: int) -> None:
    """That of a segment that is still empty as well: it is about to be used."""
    remains = Remains.of(long, long.controls[-1])
    remains.segments[number][offset] ^= 1
    remains.save(tmp_path)
    open_refused(tmp_path, f"{segment_name(number)}, offset 0: the header of the segment is damaged")


# --- The control file


def test_a_missing_control_file_is_refused(tmp_path: Path, history: History) -> None:
    Remains.of(history, b"").save(tmp_path)
    (tmp_path / "control").unlink()
    open_refused(tmp_path, "no file 'control'")


@pytest.mark.parametrize("size", [0, 100, 4096, 5000])
def test_a_control_file_that_is_cut_short_is_like_a_forgotten_one(tmp_path: Path, history: History, size: int) -> None:
    control = history.controls[-1][:size]
    remains = Remains.of(history, control)
    remains.save(tmp_path)
    log, entries = open_entries(tmp_path)
    assert len(entries) == COUNT
    log.close()


def pages_of(control: bytes) -> tuple[int, int]:
    """Offsets of the newer and the older page."""
    counts = [int.from_bytes(control[at + 32 : at + 40], "little") for at in (0, 4096)]
    return (0, 4096) if counts[0] > counts[1] else (4096, 0)


def damaged_page(control: bytes, offset: int) -> bytes:
    return control[: offset + 100] + bytes([control[offset + 100] ^ 1]) + control[offset + 101 :]


def test_when_the_newer_page_is_damaged_the_older_one_counts(tmp_path: Path, history: History) -> None:
    newer, older = pages_of(history.controls[-1])
    remains = Remains.of(history, damaged_page(history.controls[-1], newer))
    check_refused(tmp_path, remains.break_header(4), 4)
    remains = Remains.of(history, damaged_page(history.controls[-1], older)).break_header(7)
    folder = tmp_path / "older"
    check_refused(folder, remains, 7)


def test_when_the_newer_page_is_damaged_the_last_group_is_in_doubt(tmp_path: Path, history: History) -> None:
    newer, _ = pages_of(history.controls[-1])
    remains = Remains.of(history, damaged_page(history.controls[-1], newer)).break_header(5)
    check_recovered(tmp_path, remains, 5, torn=remains.torn_tail(5))


def test_when_both_pages_are_damaged_the_headers_count(tmp_path: Path, history: History) -> None:
    control = damaged_page(damaged_page(history.controls[-1], 0), 4096)
    check_refused(tmp_path, Remains.of(history, control).break_header(4), 4)
    folder = tmp_path / "whole"
    check_recovered(folder, Remains.of(history, control), COUNT + 1, torn=b"")


def test_the_pages_of_another_log_do_not_count(tmp_path: Path, history: History) -> None:
    other = write_history(tmp_path / "other", *[[1]] * 20)
    folder = tmp_path / "log"
    check_recovered(folder, Remains.of(history, other.controls[-1]), COUNT + 1, torn=b"")
