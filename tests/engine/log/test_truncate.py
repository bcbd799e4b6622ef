"""Claim: after a cut the log is as if the entries had never been appended, wherever a crash interrupts the cut.

Crashes are those of a killed process, which leaves the page cache, and of the power, which leaves what chance has it.
"""

import random
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from bezant.engine.log.control import ControlFile
from bezant.engine.log.log import open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import UNFINISHED_SUFFIX
from bezant.protocol.errors import CorruptLog, LedgerError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import CONTROL_PAGE, CONTROL_PAGE_SIZE, SEGMENT_HEADER_SIZE

from .logs import SEGMENT_SIZE, Fact, Writer, events_of, fact_of, flip, newest_page, open_entries, places, resume_points
from .memory_disk import MemoryDisk, PowerCut

GROUPS: Final = ((1, [1, 2]), (1, [300]), (3, [30, 5]), (3, [310, 2]), (4, [310]), (7, [310, 1, 1]))
"""(term, events of each entry) of groups that fill segments, end them and cross into others: 11 entries."""
COUNT: Final = 11
DURABLE: Final = 8
"""Entries of the groups that are written; the last group waits."""
TERMS: Final = (1, 1, 1, 3, 3, 3, 3, 4, 7, 7, 7)


def disk_of(writer: Writer) -> MemoryDisk:
    disk = writer.log._directory
    assert isinstance(disk, MemoryDisk)
    return disk


def write_history(disk: MemoryDisk) -> Writer:
    """The history above, of which all but the last group is durable."""
    writer = Writer(disk)
    for number, (term, counts) in enumerate(GROUPS, 1):
        writer.log.term = term
        for count in counts:
            writer.append(count)
        if number < len(GROUPS):
            writer.sync()
    assert (writer.log.last_index, writer.log.durable_index) == (COUNT, DURABLE)
    return writer


def truncate(writer: Writer, index: int) -> None:
    writer.log.truncate(index)
    del writer.facts[index:]


def never_appended(writer: Writer, index: int) -> Writer:
    """A log with the same id and the entries up to an index, and no others: written in the same groups, and waiting."""
    disk = MemoryDisk()
    first = bytes(disk_of(writer).current[segment_name(1)][:SEGMENT_HEADER_SIZE])
    disk.create_file(segment_name(1), SEGMENT_SIZE, first)
    disk.create_file("control", 2 * CONTROL_PAGE_SIZE)
    other = Writer(disk)
    for number, (term, counts) in enumerate(GROUPS, 1):
        other.log.term = term
        for count in counts:
            if other.log.last_index < index:
                other.append(count)
        if number < len(GROUPS):
            other.sync()
    return other


def entries_on(disk: MemoryDisk, *, durable: bool) -> list[int]:
    """Indexes of the entries on a disk; behind them there must be nothing."""
    indexes = []
    for name, data in sorted((disk.durable if durable else disk.current).items()):
        if name.startswith("segment-"):
            found = places(data)
            indexes += [int(place.header["index"]) for place in found]
            assert not any(data[found[-1].end if found else SEGMENT_HEADER_SIZE :]), name
    return indexes


def state_of(writer: Writer) -> tuple[object, ...]:
    log = writer.log
    return (
        log.last_index,
        log.durable_index,
        log.durable_sequence,
        log.last_timestamp_ns,
        log.chain_hash,
        log.bytes_count,
        log.idle,
        [log.term_at(index) for index in range(COUNT + 4)],
        [(segment.number, segment.end, segment.first_index) for segment in log._history.segments],
        [segment.summary(segment.end) for segment in log._history.segments],
    )


# --- As if the entries had never been


@pytest.mark.parametrize("index", range(COUNT + 1))
def test_the_log_is_as_if_the_entries_had_never_been_appended(index: int) -> None:
    writer = write_history(MemoryDisk())
    other = never_appended(writer, index)
    truncate(writer, index)
    assert state_of(writer) == state_of(other)
    disk, whole = disk_of(writer), list(range(1, min(index, DURABLE) + 1))
    assert entries_on(disk, durable=True) == entries_on(disk, durable=False) == whole
    everything = list(range(1, writer.next_sequence))
    assert writer.read(*everything) == everything
    for sequence in (writer.next_sequence, writer.next_sequence + 1):
        with pytest.raises(LedgerError, match=f"sequence {sequence}$"):
            writer.read(sequence)
    for log in (writer, other):
        log.log.term = 9
        log.append(40)
        log.append(310)
        log.sync()
        log.write(200, 2)
    assert state_of(writer) == state_of(other)
    everything = list(range(1, writer.next_sequence))
    assert writer.read(*everything) == everything
    for log in (writer, other):
        log.close()
    entries = []
    for log in (writer, other):
        again, found = open_entries(MemoryDisk(disk_of(log)))
        entries.append([(fact_of(entry), entry.header.term, entry.header.previous_hash) for entry in found])
        assert again.recovery.clean_stop
        again.close()
    assert entries[0] == entries[1]
    assert [fact for fact, _, _ in entries[0]] == writer.facts


@pytest.mark.parametrize("index", range(COUNT + 1))
def test_a_cut_may_follow_a_cut_and_a_start(index: int) -> None:
    """Also of a log that was opened behind a checkpoint, and knows what lies before only by that."""
    writer = write_history(MemoryDisk())
    writer.sync()
    disk = disk_of(writer)
    writer.close()
    points = resume_points(disk)
    for point in [None, *points[:index]]:
        again = MemoryDisk(disk)
        log, entries = open_entries(again, start=point)
        opened = Writer.__new__(Writer)
        opened.log = log
        opened.facts = [*writer.facts[: 0 if point is None else point.index], *(fact_of(entry) for entry in entries)]
        for step in (min(index + 2, COUNT), index):
            truncate(opened, step)
        assert [log.term_at(number) for number in range(COUNT + 1)] == [
            0,
            *(term if number <= index else None for number, term in enumerate(TERMS, 1)),
        ]
        assert (log.resume_point() is None) == (index < COUNT)
        opened.write(3, 310)
        everything = list(range(1, opened.next_sequence))
        assert opened.read(*everything) == everything
        opened.close()
        log, entries = open_entries(again, writable=False)
        assert [fact_of(entry) for entry in entries] == opened.facts
        log.close()


def test_what_was_verified_at_a_place_says_nothing_of_what_lies_there_later() -> None:
    """A body that was found whole is not hashed again, unless another one has come to lie there."""
    writer = Writer(MemoryDisk())
    writer.write(1, 100)
    assert writer.read(2) == [2]
    truncate(writer, 1)
    writer.append_body(EntryKind.EVENTS, events_of(2, 100).tobytes(), 100)
    writer.sync()
    place = places(disk_of(writer).current[segment_name(1)])[1]
    disk_of(writer).current[segment_name(1)][place.end - 1] ^= 1
    with pytest.raises(CorruptLog, match="body fails its checksum"):
        writer.read(2)


def test_segments_that_are_empty_again_are_filled_again(tmp_path: Path) -> None:
    """In order, and no file is made, shortened or left behind."""
    writer = Writer(tmp_path)
    writer.write(310, 310, 310, 310)
    # Not one that is being made: a thread renames it, perhaps right now.
    finished = [path for path in tmp_path.iterdir() if path.suffix != UNFINISHED_SUFFIX]
    sizes = {path.name: path.stat().st_size for path in finished}
    truncate(writer, 1)
    for _ in range(3):
        writer.write(310)
    writer.close()
    assert set(sizes.items()) <= {(path.name, path.stat().st_size) for path in tmp_path.iterdir()}
    log, entries = open_entries(tmp_path)
    assert [fact_of(entry) for entry in entries] == writer.facts
    log.close()


def test_a_disk_is_not_touched_for_entries_that_it_does_not_have() -> None:
    writer = write_history(MemoryDisk())
    disk = disk_of(writer)
    before = disk.steps_left
    truncate(writer, DURABLE)
    assert disk.steps_left == before
    assert writer.log.idle


# --- What is refused


def test_no_cut_while_a_group_is_under_way() -> None:
    writer = write_history(MemoryDisk())
    before = state_of(writer)
    group = writer.log.begin_group()
    assert group is not None
    for index in (0, DURABLE, COUNT):
        with pytest.raises(LedgerError, match="while a group of it is being written"):
            writer.log.truncate(index)
    assert state_of(writer) == before
    group.write_and_sync()
    writer.log.finish_group(group)
    truncate(writer, 3)
    writer.close()


@pytest.mark.parametrize(("commit_index", "index"), [(0, -1), (0, COUNT + 1), (4, 3), (COUNT, 0), (9, 8)])
def test_no_cut_of_what_is_committed_or_not_there(commit_index: int, index: int) -> None:
    writer = write_history(MemoryDisk())
    writer.log.commit_index = commit_index
    before = state_of(writer)
    with pytest.raises(LedgerError, match=f"{commit_index} of them committed, is cut to {index}"):
        writer.log.truncate(index)
    assert state_of(writer) == before
    writer.close()


# --- Crashes

LAST_STEPS: Final = 30
"""More writes and syncs than a cut takes."""


def crash_in_cut(index: int, steps: int, seed: int | None) -> tuple[list[Fact], MemoryDisk, bool]:
    """The history, the disk after a crash so many steps into a cut, and whether the cut had returned."""
    writer = write_history(MemoryDisk())
    writer.sync()
    disk = disk_of(writer)
    disk.steps_left = steps
    returned = False
    with suppress(PowerCut):
        writer.log.truncate(index)
        returned = True
    if returned:
        disk.steps_left = 0
    with suppress(PowerCut):
        writer.close()
    after = MemoryDisk(disk)
    if seed is not None:
        after.lose_power(random.Random(seed))
    return writer.facts, after, returned


def check_either(disk: MemoryDisk, facts: list[Fact], index: int, *, cut: bool) -> bool:
    """The log opens as the old or the cut one, to a reader the same, and goes on. Whether it is the cut one."""
    log, entries = open_entries(MemoryDisk(disk), writable=False)
    found = [fact_of(entry) for entry in entries]
    log.close()
    assert found in (facts, facts[:index])
    assert not cut or found == facts[:index]
    writer = Writer(disk)
    assert writer.facts == found
    assert writer.log.recovery.torn_bytes == 0
    assert writer.log.durable_index == len(found)
    assert entries_on(disk, durable=True) == list(range(1, len(found) + 1))
    writer.log.term = 9
    writer.write(300, 4)
    writer.write(310)
    check_durable(disk, writer)
    writer.close()
    return found == facts[:index]


def check_durable(disk: MemoryDisk, writer: Writer) -> None:
    """Whatever becomes of pages that were not synced, everything is there after the power has gone."""
    for seed in range(3):
        after = MemoryDisk(disk)
        after.lose_power(random.Random(seed))
        log, entries = open_entries(after)
        assert [fact_of(entry) for entry in entries] == writer.facts
        log.close()


@pytest.mark.parametrize("index", [0, 1, 2, 3, 5, 6, 10])
def test_a_crash_at_each_moment_of_a_cut(index: int) -> None:
    outcomes = set()
    for seed in (None, 1, 2, 3, 4, 5):
        for steps in range(1, LAST_STEPS):
            facts, disk, returned = crash_in_cut(index, steps, seed)
            outcomes.add((check_either(disk, facts, index, cut=returned), returned))
    assert outcomes == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("index", [0, 6])
def test_a_crash_while_a_cut_is_being_finished(index: int, seed: int | None) -> None:
    """The next start goes on; a crash in that one, too, leaves the cut log."""
    for steps in (2, 3, 5, 8, 11):
        facts, before, _ = crash_in_cut(index, steps, seed)
        for later in range(1, LAST_STEPS, 2):
            disk = MemoryDisk(before, steps_left=later)
            with suppress(PowerCut):
                Writer(disk).close()
            disk.steps_left = 0
            again = MemoryDisk(disk)
            if seed is not None:
                again.lose_power(random.Random(seed + 100))
            check_either(again, facts, index, cut=False)


def test_a_cut_that_was_finished_is_not_done_again() -> None:
    """No page that a power cut may leave has the intent any more: what was written since would be zeroed."""
    writer = write_history(MemoryDisk())
    writer.sync()
    truncate(writer, 5)
    pages = np.frombuffer(disk_of(writer).durable["control"], CONTROL_PAGE)
    assert pages["cutting"].tolist() == [0, 0]
    assert pages["durable_index"].tolist() == [5, 5]
    writer.write(310)
    check_durable(disk_of(writer), writer)
    writer.close()


def intent_left(index: int) -> tuple[list[Fact], MemoryDisk]:
    """A disk on which a cut has left its intent, and nothing else."""
    facts, disk, _ = crash_in_cut(index, 2, None)
    assert entries_on(disk, durable=False) == list(range(1, COUNT + 1))
    assert sorted(np.frombuffer(bytes(disk.current["control"]), CONTROL_PAGE)["cutting"]) == [0, 1]
    return facts, disk


@pytest.mark.parametrize("index", [1, 5, 6])
def test_damage_below_a_cut_is_rot_and_nothing_is_zeroed(index: int) -> None:
    _, whole = intent_left(index)
    for number in range(index):
        disk = MemoryDisk(whole)
        segment, place = [
            (name, place)
            for name in sorted(disk.current)
            if name.startswith("segment-")
            for place in places(disk.current[name])
        ][number]
        disk.current[segment][place.end - 1] ^= 1
        before = {name: bytes(data) for name, data in disk.current.items()}
        for writable in (False, True):
            with pytest.raises(CorruptLog, match=f"index {number + 1} was expected; .* durable"):
                open_entries(disk, writable=writable)
        assert disk.current == before


def test_damage_above_a_cut_does_not_matter() -> None:
    facts, whole = intent_left(5)
    for name, data in whole.current.items():
        for place in places(data) if name.startswith("segment-") else []:
            if place.header["index"] > 5:
                disk = MemoryDisk(whole)
                disk.current[name][place.start + 100] ^= 1
                assert check_either(disk, facts, 5, cut=True)


@pytest.mark.parametrize("change", [{"durable_offset": 8}, {"durable_segment": 1}])
def test_an_intent_that_does_not_fit_the_log_is_refused(change: dict[str, int]) -> None:
    facts, disk = intent_left(5)
    control = ControlFile(
        disk, shard=0, log_id=open_log(disk, writable=False)._folder.open_all()[0].log_id, writable=True
    )
    mark = control.read()
    control.write(mark._replace(write_count=mark.write_count + 1, **change))
    before = {name: bytes(data) for name, data in disk.current.items()}
    with pytest.raises(
        CorruptLog, match="another place than that of the cut where the entry with index 6 was expected"
    ):
        open_entries(disk)
    assert disk.current == before
    assert len(facts) == COUNT


def test_a_start_behind_an_entry_that_was_cut_is_refused() -> None:
    writer = write_history(MemoryDisk())
    writer.sync()
    points = resume_points(disk_of(writer))
    with suppress(PowerCut):
        disk_of(writer).steps_left = 2
        writer.log.truncate(5)
    disk = MemoryDisk(disk_of(writer))
    with pytest.raises(CorruptLog, match="the log was being cut behind index 5"):
        open_entries(disk, start=points[7])
    log, entries = open_entries(disk, start=points[3])
    assert [fact_of(entry) for entry in entries] == writer.facts[4:5]
    log.close()


# --- The hint


def test_the_commit_index_is_found_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    assert writer.log.commit_index == 0
    writer.write(1, 1, 1)
    writer.log.commit_index = 2
    writer.write(1)
    assert newest_page(tmp_path)["commit_index"] == 2
    writer.close()
    writer = Writer(tmp_path)
    assert writer.log.commit_index == 2
    assert newest_page(tmp_path)["commit_index"] == 2
    writer.log.commit_index = 4
    writer.close()
    log, _ = open_entries(tmp_path, writable=False)
    assert log.commit_index == 4
    log.close()


def test_the_hint_is_never_beyond_the_log(tmp_path: Path) -> None:
    """Of a torn group, others may have acknowledged entries that are not here any more."""
    writer = Writer(tmp_path)
    writer.write(1)
    writer.append(2)
    writer.append(1)
    group = writer.log.begin_group()
    assert group is not None
    group.write_and_sync()
    writer.log.commit_index = 3
    writer.log.tidy()  # a watermark of the group before, while this one is under way
    writer.close()
    flip(tmp_path / segment_name(1), places((tmp_path / segment_name(1)).read_bytes())[1].end - 1)
    log, entries = open_entries(tmp_path)
    assert len(entries) == 1
    assert log.commit_index == 1
    log.close()


def test_the_sizes_of_the_history_are_as_the_cases_want_them() -> None:
    counts = [count for _, group in GROUPS for count in group]
    assert len(counts) == COUNT
    assert list(accumulate(len(group) for _, group in GROUPS))[-2] == DURABLE
    writer = write_history(MemoryDisk())
    assert [segment.first_index for segment in writer.log._history.segments] == [1, 4, 6, 8, 9]
