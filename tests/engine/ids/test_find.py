"""Claim: a set of runs answers as dictionaries would, whatever was written, merged, replaced or skipped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bezant.engine.compiled import COMPILED
from bezant.engine.ids import run_set as run_set_module
from bezant.engine.ids.run import ENTRIES_PER_BLOCK, RunInfo
from bezant.engine.ids.run_set import FIND_BATCH, FOUND_BATCH, RunSet, open_runs
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import SEQUENCE_BITS

from ..log.memory_disk import MemoryDisk
from .model import (
    HASH_MAX,
    IDENTITY,
    WITHOUT_END,
    Entry,
    ModelRun,
    find,
    merge,
    model_find,
    model_merge,
    model_run,
    words,
    write,
)

# Few hashes, so that runs share them: at both ends, neighbours, and some in between.
POOL = (0, 1, 2, HASH_MAX, HASH_MAX - 1, 1 << 62, (1 << 62) + 1, 0x1F2E3D4C5B6A7988, 77 << 40)
hashes_of_keys = st.sampled_from(POOL) | st.integers(0, HASH_MAX)
sequences = st.integers(1, 12) | st.integers(1, (1 << SEQUENCE_BITS) - 1)
fates = st.integers(0, 3)
times = st.integers(0, 4)
budgets = st.sampled_from([0, 64, 200, WITHOUT_END])


@st.composite
def runs_of_entries(draw: st.DrawFn) -> list[Entry]:
    """Any entries, each (hash, sequence) once; sometimes a hash that fills a block and more."""
    keys = draw(st.dictionaries(st.tuples(hashes_of_keys, sequences), fates, max_size=12))
    entries = [(hash_value, sequence | fate << SEQUENCE_BITS) for (hash_value, sequence), fate in keys.items()]
    if draw(st.integers(0, 4)) == 0:
        crowded = draw(st.sampled_from(POOL))
        count = draw(st.sampled_from([1, ENTRIES_PER_BLOCK - 1, ENTRIES_PER_BLOCK, 2 * ENTRIES_PER_BLOCK + 3]))
        entries += [(crowded, 1000 + number) for number in range(count) if (crowded, 1000 + number) not in keys]
    return entries


@settings(max_examples=200 if COMPILED else 20)
@given(
    written=st.lists(st.tuples(runs_of_entries(), times), max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=3),
    asked=st.lists(st.tuples(hashes_of_keys, times), max_size=8),
    budget=budgets,
)
def test_runs_answer_as_the_model(
    written: list[tuple[list[Entry], int]],
    cuts: list[tuple[int, int]],
    asked: list[tuple[int, int]],
    budget: int,
) -> None:
    """Before any merge and after each one."""
    disk = MemoryDisk()
    infos: list[RunInfo] = []
    model: list[ModelRun] = []
    for number, (entries, time_ms_max) in enumerate(written):
        infos.insert(0, write(disk, number, entries, time_ms_max))
        model.insert(0, model_run(entries, time_ms_max))
    everything = sorted({hash_value for run in model for hash_value, _ in run.entries})
    runs = open_runs(disk, IDENTITY, infos, budget)
    check(runs, model, asked, everything)
    for number, (start, size) in enumerate(cuts, start=len(written)):
        part = slice(start, start + size)
        if infos[part]:
            merged = merge(disk, infos[part], number)
            model[part] = [model_merge(model[part])]
            assert merged.count == len(model[start].entries)
            infos[part] = [merged]
            runs = open_runs(disk, IDENTITY, infos, budget, runs)
            assert runs.infos == infos
            check(runs, model, asked, everything)


def check(runs: RunSet, model: list[ModelRun], asked: list[tuple[int, int]], everything: list[int]) -> None:
    hashes, times_ms = [hash_value for hash_value, _ in asked], [time for _, time in asked]
    assert find(runs, hashes, times_ms) == model_find(model, hashes, times_ms)
    assert find(runs, everything) == model_find(model, everything, [0] * len(everything))
    assert runs.count == sum(len(run.entries) for run in model)


def test_a_run_whose_keys_are_all_older_is_not_asked() -> None:
    disk = MemoryDisk()
    infos = [write(disk, 2, [(5, 20)], 200), write(disk, 1, [(5, 10)], 100)]
    runs = open_runs(disk, IDENTITY, infos, WITHOUT_END)
    assert runs.time_ms_max == 200
    assert RunSet().time_ms_max == 0
    for time_ms, expected in [(0, [10, 20]), (99, [10, 20]), (100, [10, 20]), (101, [20]), (200, [20]), (201, [])]:
        assert find(runs, [5], [time_ms]) == [(5, value) for value in expected]


def test_runs_whose_filter_does_not_fit_are_searched_without() -> None:
    """The newest come first; one that is too large does not keep smaller ones behind it out."""
    disk = MemoryDisk()
    sizes = [40, 400, 40, 40]
    infos = [
        write(disk, number, [(1000 * number + key, 1 + key) for key in range(size)])
        for number, size in enumerate(sizes)
    ]
    assert [info.filter_bytes for info in infos] == [128, 832, 128, 128]
    runs = open_runs(disk, IDENTITY, infos, 256)
    assert [run.has_filter for run in runs.runs] == [True, False, True, False]
    assert runs.filter_bytes == 256
    assert runs.size_bytes == sum(len(disk.current[name]) for name in disk.names())
    for number, size in enumerate(sizes):
        assert find(runs, [1000 * number + size - 1]) == [(1000 * number + size - 1, size)]
    again = open_runs(disk, IDENTITY, infos, 128, runs)
    assert [run.has_filter for run in again.runs] == [True, False, False, False]
    assert again.runs[1].data is runs.runs[1].data
    more = open_runs(disk, IDENTITY, infos, WITHOUT_END, runs)
    assert [run.has_filter for run in more.runs] == [True] * 4


def test_many_keys_of_many_blocks_are_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    """More than one batch of them, and none that is not there."""
    directory = Directory(tmp_path_factory.mktemp("runs"))
    rng = np.random.default_rng(5)
    count = 3 * FIND_BATCH + 5
    hashes = rng.integers(0, HASH_MAX, count)
    values = rng.permutation(count) + 1
    entries = list(zip(hashes.tolist(), values.tolist(), strict=True))
    half = count // 2
    infos = [write(directory, 2, entries[half:]), write(directory, 1, entries[:half])]
    for budget in (0, WITHOUT_END):
        runs = open_runs(directory, IDENTITY, infos, budget)
        order = np.argsort(hashes)
        found, found_values = runs.find(hashes, np.zeros(count, np.int64), count)
        assert np.array_equal(found, hashes[order])
        assert np.array_equal(found_values, values[order])
        others = rng.integers(0, HASH_MAX, FIND_BATCH)
        assert len(runs.find(others, np.zeros(FIND_BATCH, np.int64), FIND_BATCH)[0]) == 0
        assert len(runs.find(hashes, np.zeros(count, np.int64), 7)[0]) == 7


def test_a_hash_far_from_where_it_is_expected_is_found() -> None:
    """Hashes are uniform, and only then are they where they are expected; crowded ones are found as well."""
    disk = MemoryDisk()
    count = 200 * ENTRIES_PER_BLOCK
    for number, base in enumerate((0, HASH_MAX - 3 * count, HASH_MAX // 2)):
        hashes = [base + 3 * key for key in range(count)]
        info = write(disk, number, [(hash_value, 1 + key) for key, hash_value in enumerate(hashes)])
        runs = open_runs(disk, IDENTITY, [info], 0)
        chosen = [0, 1, 254, 255, 256, count // 2, count - 256, count - 1]
        assert find(runs, [hashes[key] for key in chosen]) == [(hashes[key], key + 1) for key in chosen]
        assert find(runs, [hashes[key] + 1 for key in chosen]) == []


def test_more_entries_than_one_search_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    info = write(disk, 1, [(hash_value, 1 + number) for hash_value in range(40) for number in range(7)])
    runs = open_runs(disk, IDENTITY, [info], WITHOUT_END)
    monkeypatch.setattr(run_set_module, "FOUND_BATCH", 10)
    assert len(find(runs, list(range(40)))) == 280
    monkeypatch.setattr(run_set_module, "FOUND_BATCH", 6)
    with pytest.raises(LedgerError, match="over 6 ids have one hash"):
        find(runs, [4])


def test_no_runs_and_no_hashes() -> None:
    disk = MemoryDisk()
    assert find(RunSet(), [1, 2]) == []
    runs = open_runs(disk, IDENTITY, [write(disk, 1, []), write(disk, 2, [(1, 1)])], WITHOUT_END)
    assert find(runs, []) == []
    assert find(runs, [1]) == [(1, 1)]
    assert runs.infos[0].count == runs.infos[0].sequence_least == runs.infos[0].sequence_greatest == 0
    assert FOUND_BATCH > 2 * ENTRIES_PER_BLOCK
    with pytest.raises(LedgerError, match="never negative"):
        runs.find(words([-1]), words([0]), 1)
