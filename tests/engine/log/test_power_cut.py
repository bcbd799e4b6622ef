"""Claim: whenever the power goes, and however it tears what was not synced, all that was durable is there afterwards.

Random histories over a disk that loses power at a random write or sync, also while an earlier loss is being recovered
from; under any state of the control page that such a loss can leave. Some lives end with a kill instead, which leaves
the page cache, so that the next one reads what is not on the disk. Entries may also be cut, and others follow: of a cut
that a crash interrupts, all is there or nothing of what it was to cut.
"""

import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bezant.engine.log.group import Group
from bezant.engine.log.recovery import RecoveryReport
from bezant.engine.log.storage import UNFINISHED_SUFFIX
from bezant.protocol.records import SEGMENT_HEADER_SIZE

from .logs import Fact, Writer, places
from .memory_disk import MemoryDisk, PowerCut

BEGIN: Final = -1
FINISH: Final = -2
CUT: Final = -3
"""And below: one more entry each is cut."""
STEPS_MAX: Final = 60

actions = st.lists(
    st.one_of(
        st.sampled_from([BEGIN, FINISH, BEGIN, FINISH, CUT, CUT - 3]),
        st.integers(1, 12),
        st.sampled_from([100, 200, 310]),
    ),
    min_size=1,
    max_size=30,
)


@dataclass(frozen=True)
class Life:
    """One life of the process: what it does, when it ends, and how that tears the disk (None: it is killed)."""

    actions: list[int]
    steps: int
    seed: int | None


lives = st.builds(Life, actions, st.integers(1, STEPS_MAX), st.one_of(st.none(), st.integers(0, 2**32)))


class Story:
    """A log through several lives: what was appended, and what was durable when the power went."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.facts: list[Fact] = []
        self.written = 0
        self.durable = 0
        self.cutting: int | None = None
        """The last entry that a cut that was under way when the power went was to leave."""

    def live(self, life: Life) -> None:
        """Open the log, go on with it, and lose power or die."""
        disk = MemoryDisk(self.disk, steps_left=life.steps)
        writer = None
        with suppress(PowerCut):
            writer = Writer(disk)
            self.check_recovered(writer, disk)
            self.act(writer, life.actions)
        if writer is not None:
            with suppress(PowerCut):
                disk.steps_left = 0
                writer.close()
        self.disk = disk
        if life.seed is not None:
            chance = random.Random(life.seed)
            disk.lose_power(chance)
            if chance.random() < 0.2:
                disk.steps_left = 1
                disk.create_file("segment-0000000077.new", 100)

    def act(self, writer: Writer, life: list[int]) -> None:
        """Append entries and write groups; entries may be appended while a group is under way."""
        group: Group | None = None
        for action in life:
            if action == BEGIN:
                group = group or writer.log.begin_group()
                self.written = self.written if group is None else group.last_header.index
            elif action == FINISH:
                if group is not None:
                    group.write_and_sync()
                    self.durable = group.last_header.index
                    writer.log.finish_group(group)
                    writer.log.tidy()
                group = None
            elif action <= CUT:
                if group is None:
                    self.cut(writer, max(writer.log.last_index + action - CUT - 1, 0))
            else:
                writer.append(action)
                self.facts = list(writer.facts)

    def cut(self, writer: Writer, index: int) -> None:
        self.cutting = index
        writer.log.truncate(index)
        self.cutting = None
        del writer.facts[index:]
        self.facts = list(writer.facts)
        self.durable = self.written = min(self.durable, index)

    def check_recovered(self, writer: Writer, disk: MemoryDisk) -> None:
        """What was durable and not cut is there, with perhaps some of the last group, and nothing else."""
        recovered = len(writer.facts)
        assert writer.facts == self.facts[:recovered]
        assert self.durable <= recovered <= self.written or recovered == self.cutting
        self.cutting = None
        assert writer.log.durable_index == recovered
        self.check_torn(writer.log.recovery, disk)
        self.check_files(disk, recovered)
        self.facts = writer.facts.copy()
        self.durable = self.written = recovered
        everything = list(range(1, writer.next_sequence))
        assert writer.read(*everything) == everything

    def check_torn(self, report: RecoveryReport, disk: MemoryDisk) -> None:
        """The file that was set aside has the bytes that lay behind the last entry."""
        if not report.torn_bytes:
            return
        _, number, offset, _ = report.torn_file.split("-")[:4]
        torn = bytes(self.disk.current[f"segment-{number}"][int(offset) :].rstrip(b"\0"))
        assert disk.durable[report.torn_file] == torn
        assert len(torn) == report.torn_bytes

    def check_files(self, disk: MemoryDisk, recovered: int) -> None:
        """All that was recovered is synced; behind the last entry there are zeros; nothing set aside is touched."""
        indexes = []
        for name, data in list(disk.durable.items()):  # the thread that makes segments adds to them
            if name.startswith("segment-"):
                found = places(data)
                indexes += [int(place.header["index"]) for place in found]
                assert not any(data[found[-1].end if found else SEGMENT_HEADER_SIZE :])
        assert sorted(indexes) == list(range(1, recovered + 1))
        for name, data in list(self.disk.current.items()):
            if name.startswith("torn-") and not name.endswith(UNFINISHED_SUFFIX):
                assert disk.durable[name] == data


@settings(max_examples=250)
@example([Life([100, 310, BEGIN, FINISH], 6, 0), Life([BEGIN], 1, None)])  # killed while a tail is set aside
@example([Life([1, 310, 5, BEGIN, FINISH, CUT - 1], 12, 0), Life([7, BEGIN, FINISH], 9, 1)])  # in a cut, and after it
@example([Life([100, 310, BEGIN, FINISH], 6, 0), Life([BEGIN], 3, None)])  # killed between zeroing a tail and its sync
@given(st.lists(lives, min_size=1, max_size=4))
def test_what_was_durable_survives(story_of_lives: list[Life]) -> None:
    story = Story()
    for life in [*story_of_lives, Life([], 1 << 20, 0)]:
        story.live(life)


@pytest.mark.parametrize("steps", range(5, 40))
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_each_moment_of_a_history_with_cuts(steps: int, seed: int | None) -> None:
    story = Story()
    actions = [
        1,
        310,
        BEGIN,
        FINISH,
        200,
        5,
        BEGIN,
        FINISH,
        CUT - 1,
        310,
        1,
        BEGIN,
        FINISH,
        CUT,
        CUT - 2,
        7,
        BEGIN,
        FINISH,
    ]
    story.live(Life(actions, steps, seed))
    story.live(Life([2, BEGIN, FINISH, CUT - 1, 310, BEGIN, FINISH], steps % 11 + 3, seed))
    story.live(Life([300, 300, BEGIN, FINISH, CUT], 1 << 20, seed))
    story.live(Life([], 1 << 20, 0))


@pytest.mark.parametrize("steps", range(1, 30))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_moment_of_one_history(steps: int, seed: int) -> None:
    """The power goes at each write and sync in turn of a history whose last group fills three segments."""
    story = Story()
    story.live(
        Life([1, BEGIN, FINISH, 310, 3, BEGIN, 5, FINISH, 310, 310, 2, BEGIN, 4, FINISH, BEGIN, FINISH], steps, seed)
    )
    story.live(Life([2, BEGIN, FINISH], 4, seed))
    story.live(Life([300, 300, BEGIN, FINISH], 1 << 20, seed))
    story.live(Life([], 1 << 20, 0))
