"""Claim: behind a checkpoint, recovery decides by the same table, and no bit that it looks at can change unnoticed.

The cases of `test_recovery` and `test_recovery_segments`, from every entry on that a checkpoint can stand behind; and
flips in the whole of a small log, of which what lies before the checkpoint is noticed when it is read back.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest

from bezant.engine.log.log import open_log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, UnsupportedFormat
from bezant.protocol.records import EVENT_SIZE

from .crashes import (
    COUNT,
    FORGOTTEN,
    FULL,
    GROUPS,
    Damage,
    History,
    Remains,
    check_goes_on,
    check_torn_file,
    write_history,
)
from .logs import SEGMENT_SIZE, Fact, Writer, contents, fact_of, open_entries, places_in, resume_points
from .memory_disk import MemoryDisk
from .test_recovery import KINDS, ROT, TORN, expected
from .test_recovery_segments import GROUPS_CROSSING, GROUPS_LONG, ROT_CROSSING, ROT_LONG, TORN_CROSSING

DURABLE_IN_TORN: Final = 4
"""Of the history with the torn cases; a checkpoint is only ever made of a durable entry."""


class Behind(NamedTuple):
    """A history, and where it can be gone on with."""

    history: History
    points: list[ResumePoint]


def write_behind(folder: Path, groups: tuple[list[int], ...]) -> Behind:
    history = write_history(folder, *groups)
    return Behind(history, resume_points(folder))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Behind:
    return write_behind(tmp_path_factory.mktemp("behind"), GROUPS)


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Behind:
    return write_behind(tmp_path_factory.mktemp("crossing"), GROUPS_CROSSING)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Behind:
    return write_behind(tmp_path_factory.mktemp("long"), GROUPS_LONG)


class Outcome(NamedTuple):
    """What an opening found: the entries, or in which words it refused."""

    facts: list[Fact]
    torn_bytes: int
    refusal: str


def try_open(folder: Path | Directory, start: ResumePoint | None) -> Outcome:
    facts: list[Fact] = []
    log = open_log(folder if isinstance(folder, Directory) else Directory(folder), writable=False)
    try:
        for entry in log.open(start):
            facts.append(fact_of(entry))
    except CorruptLog as error:
        return Outcome(facts, 0, str(error))
    finally:
        log.close()
    return Outcome(facts, log.recovery.torn_bytes, "")


def check_same(folder: Path, remains: Remains, points: list[ResumePoint], last: int) -> None:
    """From every point up to `last` on, what is found and what is refused is the same, to the word."""
    remains.save(folder)
    before = contents(folder)
    full = try_open(folder, None)
    for point in points[:last]:
        found = try_open(folder, point)
        assert found == full._replace(facts=full.facts[point.index :])
    assert contents(folder) == before


def check_set_aside(folder: Path, remains: Remains, at: int, points: list[ResumePoint], last: int) -> None:
    """An opening to write, from every point on, sets the torn tail aside, and the log goes on."""
    facts = remains.history.facts[: at - 1]
    for point in points[:last]:
        place = folder / f"behind-{point.index}"
        remains.save(place)
        log, entries = open_entries(place, start=point)
        assert [fact_of(entry) for entry in entries] == facts[point.index :]
        check_torn_file(place, log, remains.torn_tail(at))
        assert log.last_index == log.durable_index == at - 1
        log.close()
        check_goes_on(place, facts)


@pytest.mark.parametrize(("at", "damage"), TORN.values(), ids=TORN)
@pytest.mark.parametrize("control", ["of the group before", "forgotten"])
def test_torn_tails(tmp_path: Path, behind: Behind, at: int, damage: Damage, control: str) -> None:
    history = behind.history
    remains = damage(Remains.of(history, FORGOTTEN if control == "forgotten" else history.controls[-2]))
    check_same(tmp_path, remains, behind.points, DURABLE_IN_TORN)
    check_set_aside(tmp_path, remains, at, behind.points[DURABLE_IN_TORN - 1 :], 1)


@pytest.mark.parametrize("damage", ROT.values(), ids=ROT)
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_rot(tmp_path: Path, behind: Behind, damage: Damage, groups: int) -> None:
    remains = damage(Remains.of(behind.history, behind.history.controls[groups]))
    check_same(tmp_path, remains, behind.points, 1)
    assert "index 2 was expected" in try_open(tmp_path, behind.points[0]).refusal


@pytest.mark.parametrize("at", range(2, COUNT + 1))
def test_after_a_clean_stop_all_damage_is_rot(tmp_path: Path, behind: Behind, at: int) -> None:
    remains = Remains.of(behind.history, behind.history.controls[-1]).break_body(at)
    check_same(tmp_path, remains, behind.points, at - 1)
    assert f"index {at} was expected" in try_open(tmp_path, behind.points[at - 2]).refusal


@pytest.mark.parametrize(("at", "damage"), TORN_CROSSING.values(), ids=TORN_CROSSING)
@pytest.mark.parametrize("control", ["of the group before", "forgotten"])
def test_torn_tails_across_segments(tmp_path: Path, crossing: Behind, at: int, damage: Damage, control: str) -> None:
    """The point stands behind an entry in the first segment; the tail is torn there, or in the next one."""
    history = crossing.history
    remains = damage(Remains.of(history, FORGOTTEN if control == "forgotten" else history.controls[-2]))
    check_same(tmp_path, remains, crossing.points, 1)
    check_set_aside(tmp_path, remains, at, crossing.points, 1)


@pytest.mark.parametrize("damage", ROT_CROSSING.values(), ids=ROT_CROSSING)
def test_rot_across_segments(tmp_path: Path, crossing: Behind, damage: Damage) -> None:
    remains = damage(Remains.of(crossing.history, FORGOTTEN))
    check_same(tmp_path, remains, crossing.points, 1)
    assert "index 2 was expected" in try_open(tmp_path, crossing.points[0]).refusal


@pytest.mark.parametrize(("at", "damage"), ROT_LONG.values(), ids=ROT_LONG)
def test_rot_in_many_segments(tmp_path: Path, long: Behind, at: int, damage: Damage) -> None:
    """Also behind a point at the very end of a segment."""
    remains = damage(Remains.of(long.history, FORGOTTEN))
    check_same(tmp_path, remains, long.points, at - 1)
    assert f"index {at} was expected" in try_open(tmp_path, long.points[at - 2]).refusal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("groups", "known"), [(None, 0), (0, 0), (1, 1), (2, 3), (3, 4), (4, 7)])
def test_every_decision(behind: Behind, groups: int | None, known: int, kind: str) -> None:
    """The whole table, from every entry on: each first damage, each end of what is left, each control page."""
    history, points = behind
    decisions = set()
    for at in range(1, COUNT + 1):
        for lost_from in range(at + 1, COUNT + 2):
            remains = Remains.of(history, FORGOTTEN if groups is None else history.controls[groups])
            KINDS[kind](remains, at).lose_from(lost_from)
            disk = disk_of(remains)
            for point in points:
                found = try_open(disk, point)
                decision = decision_behind(point.index, known, at, kind, lost_from)
                decisions.add(decision)
                if decision == "refused":
                    assert f"index {point.index} was expected; a checkpoint" in found.refusal
                    continue
                damaged = at if point.index < at else lost_from
                assert found.facts == history.facts[point.index : damaged - 1]
                assert (f"index {damaged} was expected" in found.refusal) == (decision == "rot")
                torn = len(remains.torn_tail(at)) if decision == "torn" else 0
                assert found.torn_bytes == torn
                assert bool(torn) == (decision == "torn")
    assert decisions == {"refused", "rot", "end"} | ({"torn"} if known < COUNT else set())


def decision_behind(start: int, known: int, at: int, kind: str, lost_from: int) -> str:
    """What must become of an opening behind entry `start`, when `at` is damaged and all from `lost_from` on is lost."""
    if start == at or start >= lost_from:
        return "refused"
    if start < at:
        return expected(known, at, kind, lost_from)
    return "rot" if known >= lost_from else "end"


def disk_of(remains: Remains) -> MemoryDisk:
    disk = MemoryDisk()
    for number, data in remains.segments.items():
        disk.create_file(segment_name(number), len(data), data)
    disk.create_file("control", len(remains.control), remains.control)
    return disk


# --- Flips

FLIP_STEP: Final = 5


class Read(NamedTuple):
    """All that a log opened behind a point gives: what was walked, its state, and every event of its history."""

    facts: list[Fact]
    chain_hash: bytes
    bytes_count: int
    events: bytes


def read_all(directory: Directory, start: ResumePoint, last_sequence: int, *, writable: bool) -> Read:
    log = open_log(directory, segment_size=SEGMENT_SIZE, free_space_floor=0, writable=writable)
    try:
        facts = [fact_of(entry) for entry in log.open(start)]
        events = log.read_events(np.arange(1, last_sequence + 1))
        return Read(facts, log.chain_hash, log.bytes_count, events.tobytes())
    finally:
        log.close()


@pytest.mark.parametrize("writable", [False, True], ids=["to read", "to write"])
def test_no_bit_can_change_unnoticed(tmp_path: Path, writable: bool) -> None:
    """Wherever it is, before the point or behind it: refused, or found when it is read back, or without effect."""
    writer = Writer(tmp_path)
    writer.write(1, 3)
    writer.write(250, 2)
    writer.write(60)  # in the second segment
    writer.write(1, 4)
    writer.close()
    point = resume_points(tmp_path)[2]
    files = {name: data for name, data in contents(tmp_path).items() if name <= segment_name(3)}
    last_sequence = writer.next_sequence - 1
    whole = read_all(copy(files), point, last_sequence, writable=False)
    assert whole.facts == writer.facts[3:]
    assert whole.events == b"".join(fact.body for fact in writer.facts)
    outcomes: dict[str, set[tuple[str, int]]] = {"same": set(), "refused": set()}
    for name, data in files.items():
        used = len(data.rstrip(b"\0"))
        for number, offset in enumerate([*range(0, used, FLIP_STEP), *range(used, len(data), 997)]):
            disk = copy(files)
            disk.current[name][offset] ^= 1 << number % 8
            try:
                found = read_all(disk, point, last_sequence, writable=writable)
            except (CorruptLog, UnsupportedFormat):
                outcomes["refused"].add((name, offset))
                continue
            assert found == whole, (name, offset)
            outcomes["same"].add((name, offset))
    # Without effect: the control pages, zeros behind the end, and behind those of a segment that the point has passed.
    ends = {"control": 0, segment_name(3): 4096}
    ends |= {segment_name(number): places_in(tmp_path, number)[-1].end for number in (1, 2)}
    assert all(offset >= ends[name] for name, offset in outcomes["same"])
    assert {name for name, _ in outcomes["refused"]} == set(files) - {"control"}


def copy(files: dict[str, bytes]) -> MemoryDisk:
    disk = MemoryDisk()
    for name, data in files.items():
        disk.create_file(name, len(data), data)
    return disk


def test_the_histories_of_the_table_are_as_it_says(behind: Behind, crossing: Behind, long: Behind) -> None:
    """Of the histories that cross segments, the points stand where the cases want them."""
    assert len(behind.points) == COUNT
    assert [point.segment_number for point in crossing.points] == [1, 1, 2, 2]
    assert [point.segment_number for point in long.points] == [1, 2, 3, 4]
    assert all(SEGMENT_SIZE - point.end_offset < FULL * EVENT_SIZE for point in long.points)
