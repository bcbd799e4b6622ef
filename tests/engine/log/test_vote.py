"""Claim: a term and a vote that were written are never forgotten, whenever the power goes and whichever slot rots.

Voting twice in one term elects two leaders, and two leaders pay the same money out twice.
"""

import random
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from bezant.engine.log.storage import Directory
from bezant.engine.log.vote import BLANK, VOTE_NAME, VoteFile, open_vote_file
from bezant.engine.raft.hard_state import HardState
from bezant.protocol.errors import CorruptLog, LedgerError, UnsupportedFormat
from bezant.protocol.records import VOTE_FORMAT_VERSION, VOTE_MAGIC, VOTE_SLOT, VOTE_SLOT_SIZE

from .memory_disk import MemoryDisk, PowerCut

SLOTS: Final = (0, 1)
RECORD_SIZE: Final = 52
HISTORY: Final = [
    HardState(1, 0),
    HardState(1, 2),
    HardState(2, 0, True),
    HardState(3, 3, True),
    HardState(3, 3),
    HardState(9, 2),
]


def open_on(directory: Directory, *, log_is_empty: bool = False) -> VoteFile:
    return open_vote_file(directory, shard=0, log_is_empty=log_is_empty)


def new_disk(*states: HardState) -> MemoryDisk:
    """A disk with a vote file that was written to so often."""
    disk = MemoryDisk()
    file = open_on(disk, log_is_empty=True)
    for state in states:
        file.write(state)
    return disk


def slot_of(disk: MemoryDisk, number: int) -> np.void:
    return np.frombuffer(disk.durable[VOTE_NAME], VOTE_SLOT)[number]


def overwrite(disk: MemoryDisk, number: int, offset: int, data: bytes) -> None:
    """Change bytes of a slot, on the disk and in the page cache."""
    start = number * VOTE_SLOT_SIZE + offset
    disk.current[VOTE_NAME][start : start + len(data)] = data
    disk.durable[VOTE_NAME] = bytes(disk.current[VOTE_NAME])


def lose(disk: MemoryDisk, number: int) -> None:
    overwrite(disk, number, 0, bytes(VOTE_SLOT_SIZE))


def test_a_new_file_has_seen_no_term() -> None:
    disk = MemoryDisk()
    assert open_on(disk, log_is_empty=True).read() == BLANK
    assert open_on(disk).read() == BLANK


def test_what_was_written_is_read_on_a_real_disk(tmp_path: Path) -> None:
    for state in HISTORY:
        file = open_on(Directory(tmp_path), log_is_empty=True)
        file.write(state)
        assert file.read() == state
        file.close()
        file = open_on(Directory(tmp_path))
        assert file.read() == state
        file.close()
    assert [path.name for path in tmp_path.iterdir()] == [VOTE_NAME]


def test_a_slot_is_laid_out_as_specified() -> None:
    disk = new_disk(HardState(7, 3, True))
    for number in SLOTS:
        slot = slot_of(disk, number)
        assert slot["checksum"] == xxhash.xxh3_64_intdigest(slot.tobytes()[8:])
        fields = [slot[name].item() for name in VOTE_SLOT.names[1:]]
        assert fields == [VOTE_MAGIC, VOTE_FORMAT_VERSION, 0, slot_of(disk, 0)["write_count"].item(), 7, 3, 1]
        assert not any(slot.tobytes()[RECORD_SIZE:])


class Recording(MemoryDisk):
    """Counts down to a power cut, and notes what was on the disk at each step."""

    def __init__(self, before: MemoryDisk) -> None:
        super().__init__(before)
        self.seen: list[tuple[int, int]] = []

    def step(self) -> None:
        super().step()
        counts = np.frombuffer(bytes(self.current[VOTE_NAME]), VOTE_SLOT)["write_count"].tolist()
        self.seen.append((counts[0], counts[1]))


def test_one_slot_is_durable_before_the_other_is_touched() -> None:
    disk = Recording(new_disk(HardState(1)))
    file = open_on(disk)
    before = slot_of(disk, 0)["write_count"].item()
    disk.seen.clear()
    file.write(HardState(2))
    written, synced, other, other_synced = disk.seen
    assert written == synced
    assert sorted(synced) == [before, before + 1]
    assert other == other_synced == (before + 1, before + 1)
    disk.seen.clear()
    file.write(HardState(2))
    assert disk.seen == [], "what is known already costs no sync"


@pytest.mark.parametrize("number", SLOTS)
def test_a_lost_slot_is_mended_before_the_only_good_one_is_touched(number: int) -> None:
    disk = Recording(new_disk(HardState(2)))
    count = slot_of(disk, 0)["write_count"].item()
    lose(disk, number)
    open_on(disk)
    first, *_ = disk.seen
    assert (first[1 - number], first[number]) == (count, count + 1)


# ---- any one slot may be lost ----


@pytest.mark.parametrize("number", SLOTS)
@pytest.mark.parametrize("state", HISTORY)
def test_either_slot_alone_says_it_all_and_mends_the_other(number: int, state: HardState) -> None:
    disk = new_disk(HardState(0, 1), state)
    lose(disk, number)
    assert open_on(disk).read() == state
    lose(disk, 1 - number)
    assert open_on(disk).read() == state


@pytest.mark.parametrize("number", SLOTS)
@pytest.mark.parametrize("offset", [*range(RECORD_SIZE), RECORD_SIZE, VOTE_SLOT_SIZE - 1])
def test_each_flipped_byte_is_noticed(number: int, offset: int) -> None:
    disk = new_disk(HardState(5, 2))
    flipped = disk.durable[VOTE_NAME][number * VOTE_SLOT_SIZE + offset] ^ 0x10
    overwrite(disk, number, offset, bytes([flipped]))
    lose(disk, 1 - number)
    with pytest.raises(CorruptLog, match=r"does not match its checksum.*bezant init --join"):
        open_on(disk)


@pytest.mark.parametrize("log_is_empty", [True, False])
def test_both_slots_lost_is_refused_and_nothing_is_changed(log_is_empty: bool) -> None:
    disk = new_disk(HardState(5, 2))
    lose(disk, 0)
    overwrite(disk, 1, 40, b"\x09")
    before = dict(disk.durable)
    with pytest.raises(
        CorruptLog, match=r"memory/vote: the first slot .* the second .*: whom this node voted for is lost"
    ):
        open_on(disk, log_is_empty=log_is_empty)
    assert disk.durable == before


def test_a_file_that_is_gone_is_refused_if_there_is_a_log() -> None:
    disk = MemoryDisk()
    with pytest.raises(CorruptLog, match=r"memory/vote: the file is not there, and the log is: .*Remove the node"):
        open_on(disk)
    assert disk.names() == []


@pytest.mark.parametrize("size", [0, 51, VOTE_SLOT_SIZE - 1, VOTE_SLOT_SIZE])
def test_a_file_that_was_cut_short(size: int) -> None:
    disk = new_disk(HardState(5, 2))
    disk.current[VOTE_NAME] = bytearray(disk.durable[VOTE_NAME][:size])
    if size == VOTE_SLOT_SIZE:
        assert open_on(disk).read() == HardState(5, 2)
        assert slot_of(disk, 1)["term"] == 5
    else:
        with pytest.raises(CorruptLog, match=f"the first slot has {size} bytes of 4096, the second has 0"):
            open_on(disk)


# ---- what is never written ----


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (HardState(4, 2), "the term would fall from 5 to 4"),
        (HardState(0, 0), "the term would fall from 5 to 0"),
        (HardState(5, 3), "the vote of term 5 went to node 2 and cannot go to 3"),
        (HardState(5, 0), "the vote of term 5 went to node 2 and cannot go to 0"),
    ],
)
def test_a_vote_is_never_taken_back(state: HardState, why: str) -> None:
    disk = new_disk(HardState(5, 2))
    file = open_on(disk)
    with pytest.raises(LedgerError, match=why):
        file.write(state)
    assert file.read() == open_on(disk).read() == HardState(5, 2)


def sealed(disk: MemoryDisk, number: int, field: str, value: int) -> None:
    """Change a field of a slot and give it the checksum that it then has."""
    slot = np.frombuffer(disk.durable[VOTE_NAME], VOTE_SLOT)[number : number + 1].copy()
    slot[field] = value
    slot["checksum"] = xxhash.xxh3_64_intdigest(slot.tobytes()[8:])
    overwrite(disk, number, 0, slot.tobytes())


@pytest.mark.parametrize("number", SLOTS)
def test_a_later_format_is_refused_even_in_one_slot(number: int) -> None:
    disk = new_disk(HardState(5, 2))
    sealed(disk, number, "format_version", VOTE_FORMAT_VERSION + 1)
    with pytest.raises(UnsupportedFormat, match="has format 2; this version of Bezant reads up to 1"):
        open_on(disk)


def test_a_slot_of_another_shard_does_not_count() -> None:
    disk = new_disk(HardState(5, 2))
    sealed(disk, 0, "shard", 1)
    assert open_on(disk).read() == HardState(5, 2)
    for number in SLOTS:
        sealed(disk, number, "shard", 1)
    with pytest.raises(CorruptLog, match="is of shard 1, not 0"):
        open_on(disk)


def test_nothing_is_written_after_a_write_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk(HardState(5, 2))
    file = open_on(disk)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(file._file), "write_durably", fail)
    with pytest.raises(OSError, match="Input/output"):
        file.write(HardState(6))
    monkeypatch.undo()
    with pytest.raises(LedgerError, match="has failed, and the process went on"):
        file.write(HardState(6))
    assert file.read() == HardState(5, 2)


# ---- power cuts ----


class Story:
    """A vote file through several lives. ``floor`` is the place in the history of what must not be forgotten."""

    def __init__(self) -> None:
        self.disk = new_disk()
        self.history = [BLANK, *HISTORY]
        self.floor = self.reached = 0

    def live(self, steps: int, seed: int | None) -> None:
        """Open the file and go on writing until the power goes after so many writes and syncs; None: a kill."""
        disk = MemoryDisk(self.disk, steps_left=steps)
        with suppress(PowerCut):
            file = open_on(disk)
            found = self.history.index(file.read())
            assert self.floor <= found <= self.reached
            self.floor = found  # Whoever asked was told, and may act on it.
            for place in range(found + 1, len(self.history)):
                self.reached = max(self.reached, place)
                file.write(self.history[place])
                self.floor = place
        self.disk = disk
        if seed is not None:
            disk.lose_power(random.Random(seed))

    def check_each_slot_alone(self) -> None:
        """After an opening that was not cut off, either slot may rot."""
        known = open_on(MemoryDisk(self.disk)).read()
        assert self.floor <= self.history.index(known) <= self.reached
        for number in SLOTS:
            disk = MemoryDisk(self.disk)
            assert open_on(disk).read() == known
            disk.lose_power(random.Random(number))
            lose(disk, number)
            assert open_on(disk).read() == known


STEPS_MAX: Final = 4 * (1 + len(HISTORY)) + 1


@pytest.mark.parametrize("steps", range(1, STEPS_MAX))
@pytest.mark.parametrize("seed", [None, 1, 2, 3, 4])
def test_each_moment_of_one_history(steps: int, seed: int | None) -> None:
    """The power goes, or the process is killed, at each write and sync in turn; then again while that is mended."""
    for again in range(1, 6):
        story = Story()
        story.live(steps, seed)
        story.live(again, again)
        story.check_each_slot_alone()


lives = st.lists(st.tuples(st.integers(1, STEPS_MAX), st.one_of(st.none(), st.integers(0, 2**32))), max_size=8)


@settings(max_examples=300, deadline=None)
@given(lives)
def test_what_was_told_is_never_forgotten(story_of_lives: list[tuple[int, int | None]]) -> None:
    story = Story()
    for steps, seed in story_of_lives:
        story.live(steps, seed)
    story.check_each_slot_alone()
