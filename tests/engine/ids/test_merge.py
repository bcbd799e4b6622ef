"""Claim: merges keep runs few without losing or changing an answer, in small steps, and can be given up at any one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.ids import merge as merge_module
from bezant.engine.ids.merge import MERGE_FACTOR, Merge, plan_merge
from bezant.engine.ids.run import ENTRIES_PER_CHUNK, RUN_IDS_MAX, RunInfo, run_name, write_run
from bezant.engine.ids.run_set import open_runs
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import SEQUENCE_BITS

from ..log.memory_disk import MemoryDisk, PowerCut
from .model import HASH_MAX, IDENTITY, WITHOUT_END, find, merge, write

# --- What to merge


def infos_of(counts: list[int]) -> list[RunInfo]:
    return [RunInfo(number, count, 0, 0, 0, 0, 0) for number, count in enumerate(counts)]


@pytest.mark.parametrize(
    ("counts", "planned"),
    [
        ([], []),
        ([4, 4, 4], []),
        ([4, 4, 4, 4], [4, 4, 4, 4]),
        ([5, 4, 15, 7, 4], [5, 4, 15, 7, 4]),
        ([4, 4, 4, 16, 16, 16, 64], []),
        ([4, 16, 16, 17, 63, 64], [16, 16, 17, 63]),
        ([4, 4, 4, 4, 16, 16, 16, 16], [4, 4, 4, 4]),
        ([16, 0, 1, 3, 64], [16, 0, 1, 3]),  # small ones behind a larger one go with it
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_the_plan(counts: list[int], planned: list[int]) -> None:
    assert [info.count for info in plan_merge(infos_of(counts))] == planned


@pytest.mark.parametrize(
    ("counts", "planned"),
    [
        ([30, 30, 30, 30], [30, 30, 30]),
        ([30, 25, 25, 25, 25], [25, 25, 25, 25]),
        ([16, 90, 90, 90], []),
        ([101, 102, 103, 104], []),
    ],
)
def test_the_plan_never_makes_a_run_too_large(counts: list[int], planned: list[int]) -> None:
    assert [info.count for info in plan_merge(infos_of(counts), 100)] == planned


@given(st.lists(st.integers(1, 40), max_size=200))
def test_runs_stay_few(dumps: list[int]) -> None:
    """Whatever is dumped, the plan is of neighbours, and when it is carried out few runs are left and no id is lost."""
    infos: list[RunInfo] = []
    merged = 0
    for number, count in enumerate(dumps):
        infos.insert(0, RunInfo(number, count, 0, 0, 0, 0, 0))
        while planned := plan_merge(infos):
            start = infos.index(planned[0])
            assert infos[start : start + len(planned)] == planned
            total = sum(info.count for info in planned)
            merged += total
            infos[start : start + len(planned)] = [RunInfo(1000 + merged, total, 0, 0, 0, 0, 0)]
    total = sum(dumps)
    assert sum(info.count for info in infos) == total
    tiers = max(total, 1).bit_length() // 2 + 1
    assert len(infos) <= (MERGE_FACTOR - 1) * tiers
    assert merged <= total * tiers


# --- Merging


def test_a_merge_of_many_ids_answers_the_same(tmp_path: Path) -> None:
    """Several chunks, ids that newer runs replace, and runs that end at different times."""
    directory = Directory(tmp_path)
    rng = np.random.default_rng(7)
    infos: list[RunInfo] = []
    hashes = rng.integers(0, HASH_MAX, 200_000)
    values = np.arange(1, len(hashes) + 1)
    for number, (start, end) in enumerate([(0, 150_000), (100_000, 100_010), (90_000, 200_000), (0, 40_000)]):
        fated = values[start:end] | number << SEQUENCE_BITS
        infos.insert(0, write_run(directory, IDENTITY, number, hashes[start:end], fated, time_ms_max=10 + number))
    made = merge(directory, infos, 9)
    assert made.count == len(hashes)
    assert (made.number, made.sequence_least, made.sequence_greatest, made.time_ms_max) == (9, 1, len(hashes), 13)
    asked = np.concatenate([hashes, rng.integers(0, HASH_MAX, 1000)])
    zeros = np.zeros(len(asked), np.int64)
    before = open_runs(directory, IDENTITY, infos, WITHOUT_END).find(asked, zeros, len(asked))
    after = open_runs(directory, IDENTITY, [made], WITHOUT_END).find(asked, zeros, len(asked))
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert len(before[0]) == len(hashes)


def test_a_merge_goes_in_steps_and_fills_its_chunks(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    count = ENTRIES_PER_CHUNK // 2 + 10
    infos = [
        write_run(
            directory,
            IDENTITY,
            number,
            np.arange(count) * 2 + number,
            np.arange(1, count + 1),
            time_ms_max=0,
        )
        for number in range(2)
    ]
    made = Merge(directory, IDENTITY, infos, 5)
    steps = 0
    for _ in made:
        steps += 1
        if steps < 5:
            assert run_name(5) not in directory.names()
            with pytest.raises(LedgerError, match="not at its end"):
                _ = made.info
    assert steps == 6  # two of blocks, filter, fences, page; and the one that ends the file
    assert made.info.count == 2 * count
    runs = open_runs(directory, IDENTITY, [made.info], WITHOUT_END)
    stored = runs.runs[0].words[:, 1:511].reshape(-1, 2)[: 2 * count, 0]
    assert np.array_equal(stored, np.arange(2 * count))


@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3], [3, 0, 256]])
def test_runs_without_entries_merge(counts: list[int]) -> None:
    disk = MemoryDisk()
    infos = [
        write(disk, number, [(100 * number + key, number * 1000 + key + 1) for key in range(count)])
        for number, count in enumerate(counts)
    ]
    made = merge(disk, infos, 9)
    assert made.count == sum(counts)
    assert made.time_ms_max == 0


def test_a_merge_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    infos = [write(directory, number, [(number, 1)]) for number in range(2)]
    names = directory.names()
    for steps in range(1, 5):
        iterator = iter(Merge(directory, IDENTITY, infos, 5))
        for _ in range(steps - 1):
            next(iterator)
        iterator.close()
        assert directory.names() == names


def test_power_that_goes_leaves_the_runs_that_were_there() -> None:
    before = MemoryDisk()
    infos = [write(before, number, [(number, 1), (9, number + 1)]) for number in range(3)]
    for steps in range(1, 8):
        disk = MemoryDisk(before, steps_left=steps)
        try:
            merge(disk, infos, 5)
        except PowerCut:
            after = MemoryDisk(disk)
            after.remove_unfinished()
            assert after.names() == before.names()
            assert find(open_runs(after, IDENTITY, infos, WITHOUT_END), [2, 9]) == [(2, 1), (9, 1), (9, 2), (9, 3)]
    assert not disk.is_dead


def test_too_many_ids_for_one_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    infos = [write(disk, number, [(1, 1), (2, 2)]) for number in range(2)]
    monkeypatch.setattr(merge_module, "RUN_IDS_MAX", 3)
    with pytest.raises(LedgerError, match="4 ids are too many"):
        Merge(disk, IDENTITY, infos, 3)
    assert RUN_IDS_MAX == 1 << 28
