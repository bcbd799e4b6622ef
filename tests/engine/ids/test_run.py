"""Claim: a run holds exactly its keys, in order; its filter stops nearly all others; a crash leaves no half of one."""

import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.ids import run as run_module
from bezant.engine.ids.kernels import filter_bits, pass_filter
from bezant.engine.ids.run import (
    BLOCK_SIZE,
    ENTRIES_PER_BLOCK,
    ENTRIES_PER_CHUNK,
    PAGE_SIZE,
    RunBuilder,
    RunInfo,
    finished_info,
    run_name,
    write_run,
)
from bezant.engine.ids.run_set import Run, open_runs
from bezant.engine.ids.times import latest_time_ms
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import LedgerError
from bezant.protocol.names import IdMaker
from bezant.protocol.records import SEQUENCE_BITS, Words, id_words

from ..log.memory_disk import MemoryDisk, PowerCut
from .model import HASH_MAX, IDENTITY, WITHOUT_END, find, words, write


def test_a_run_is_sorted_by_hash_and_sequence() -> None:
    disk = MemoryDisk()
    late, early = 5 | 1 << SEQUENCE_BITS, 6
    info = write(disk, 1, [(9, early), (2, 7), (9, late), (2, 8), (HASH_MAX, 1), (0, 2)], 77)
    run = Run.open(disk, IDENTITY, info, load_filter=True)
    assert run.words[0, 1:13].reshape(6, 2).tolist() == [[0, 2], [2, 7], [2, 8], [9, late], [9, early], [HASH_MAX, 1]]
    assert not run.words[0, 13:].any()
    assert (info.count, info.sequence_least, info.sequence_greatest, info.time_ms_max) == (6, 1, 8, 77)
    assert info.size_bytes == BLOCK_SIZE + 64 + 8 + PAGE_SIZE == len(disk.current[run_name(1)])


@pytest.mark.parametrize("count", [0, 1, 254, 255, 256, 510, 511])
def test_blocks_are_filled_to_the_last(count: int) -> None:
    disk = MemoryDisk()
    info = write(disk, 1, [(number, number + 1) for number in range(count)])
    run = Run.open(disk, IDENTITY, info, load_filter=True)
    assert info.block_count == len(run.fences) == -(-count // ENTRIES_PER_BLOCK)
    assert run.fences.tolist() == list(range(0, count, ENTRIES_PER_BLOCK))
    assert info.filter_bytes == run.filter.nbytes


def test_a_run_of_several_chunks(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    rng = np.random.default_rng(3)
    count = ENTRIES_PER_CHUNK + 1000
    hashes, values = rng.integers(0, HASH_MAX, count), np.arange(1, count + 1)
    info = write_run(directory, IDENTITY, 1, hashes, values, time_ms_max=0)
    run = Run.open(directory, IDENTITY, info, load_filter=True)
    stored = np.concatenate([block[1:511].reshape(-1, 2) for block in run.words])[:count]
    order = np.argsort(hashes)
    assert np.array_equal(stored[:, 0], hashes[order])
    assert np.array_equal(stored[:, 1], values[order])
    assert np.array_equal(run.fences, hashes[order][::ENTRIES_PER_BLOCK])
    rest = count % ENTRIES_PER_BLOCK
    assert rest
    assert not run.words[-1, 1 + 2 * rest :].any()  # nothing of the chunk before is left in the padding


def test_equal_entries_count_once() -> None:
    disk = MemoryDisk()
    info = write(disk, 1, [(1, 5), (1, 6), (1, 5), (2, 5)])
    assert info.count == 3
    assert find(open_runs(disk, IDENTITY, [info], WITHOUT_END), [1, 2]) == [(1, 5), (1, 6), (2, 5)]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(-1, 5), (1, 1)], "negative hash or value, or no sequence"),
        ([(1, 0), (2, 1)], "negative hash or value, or no sequence"),
        ([(1, -1), (2, 1)], "negative hash or value, or no sequence"),
        ([(1, 3 << SEQUENCE_BITS), (2, 1)], "negative hash or value, or no sequence"),
        ([(1, 5), (1, 5 | 1 << SEQUENCE_BITS)], "the same sequence twice, with different fates"),
    ],
)
def test_entries_that_cannot_be_are_refused(entries: list[tuple[int, int]], message: str) -> None:
    disk = MemoryDisk()
    with pytest.raises(LedgerError, match=message):
        write(disk, 1, entries)
    assert disk.names() == []


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "RUN_IDS_MAX", 2)
    with pytest.raises(LedgerError, match="3 ids are too many"):
        write(MemoryDisk(), 1, [(1, 1), (2, 2), (3, 3)])


def test_a_run_that_is_not_finished_tells_nothing() -> None:
    with pytest.raises(LedgerError, match="before its last page"):
        finished_info(RunBuilder(IDENTITY, 1, 1, 0))


def test_the_filter_stops_nearly_all_and_never_its_own() -> None:
    disk = MemoryDisk()
    rng = np.random.default_rng(11)
    count = 100_000
    hashes = rng.integers(0, HASH_MAX, count)
    info = write_run(disk, IDENTITY, 1, hashes, np.arange(1, count + 1), time_ms_max=0)
    run = Run.open(disk, IDENTITY, info, load_filter=True)
    assert info.filter_bytes == count * 2

    def passing(asked: Words) -> int:
        bits, candidates = np.empty(len(asked), np.int64), np.empty(len(asked), np.int64)
        filter_bits(asked, bits)
        return pass_filter(asked, bits, np.zeros(len(asked), np.int64), 0, run.filter, candidates)

    assert passing(hashes) == count
    assert 0 < passing(rng.integers(0, HASH_MAX, count)) < count // 100


def test_power_that_goes_leaves_a_whole_run_or_none() -> None:
    """At every step of making it."""
    entries = [(number, number + 1) for number in range(600)]
    outcomes = set()
    for steps in range(1, 20):
        disk = MemoryDisk(steps_left=steps)
        info: RunInfo | None = None
        try:
            info = write(disk, 1, entries)
        except PowerCut:
            assert run_name(1) not in disk.names()
        after = MemoryDisk(disk)
        after.remove_unfinished()
        assert after.names() == ([] if info is None else [run_name(1)])
        if info is not None:
            assert find(open_runs(after, IDENTITY, [info], WITHOUT_END), [599]) == [(599, 600)]
        outcomes.add(info is None)
    assert outcomes == {False, True}


# --- Times of ids


def words_of(ids: list[bytes]) -> Words:
    return words([id_words(identifier)[0] for identifier in ids])


def times_of(ids: list[bytes]) -> list[int]:
    return [latest_time_ms(words_of([identifier])) for identifier in ids]


@given(st.integers(0, 2**48 - 1), st.integers(0, 15), st.integers(0, 2**76 - 1))
def test_the_time_of_an_id_is_that_of_a_version_7_uuid(time_ms: int, version: int, rest: int) -> None:
    identifier = (time_ms << 80 | version << 76 | rest).to_bytes(16, "big")
    assert times_of([identifier]) == [time_ms if version == 7 else 0]
    assert latest_time_ms(words_of([bytes(16), identifier, uuid.UUID(int=7).bytes])) == times_of([identifier])[0]


def test_the_ids_that_clients_make_tell_their_time() -> None:
    maker = IdMaker()
    ids = [maker.make() for _ in range(3)]
    assert times_of(ids) == [int.from_bytes(identifier[:6], "big") for identifier in ids]
    assert latest_time_ms(words_of(ids)) == max(times_of(ids))
    assert times_of([uuid.UUID(int=2**128 - 1).bytes, uuid.uuid4().bytes, bytes(16)]) == [0, 0, 0]
    assert latest_time_ms(words_of([])) == 0
