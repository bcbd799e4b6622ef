"""Claim: no byte of a run can change unnoticed, and no run is taken for another one."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import xxhash

from bezant.engine.ids.merge import Merge
from bezant.engine.ids.run import BLOCK_SIZE, ENTRIES_PER_BLOCK, PAGE_SIZE, RunIdentity, RunInfo, run_name
from bezant.engine.ids.run_set import Run, RunSet, open_runs
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, UnsupportedFormat

from ..log.memory_disk import MemoryDisk
from .model import IDENTITY, WITHOUT_END, find, write

ENTRIES = [(number * 7_777_777_777_777_777 + 5, number + 1) for number in range(ENTRIES_PER_BLOCK + 40)]
HASHES = [hash_value for hash_value, _ in ENTRIES]
NAME = run_name(1)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def info(disk: MemoryDisk) -> RunInfo:
    return write(disk, 1, ENTRIES, 9)


def test_the_run_is_right_while_nothing_has_changed(disk: MemoryDisk, info: RunInfo) -> None:
    assert find(open_runs(disk, IDENTITY, [info], WITHOUT_END), HASHES) == ENTRIES


@pytest.mark.parametrize("flip", [lambda offset: 1 << offset % 8, lambda _: 0xFF], ids=["one bit", "all bits"])
def test_every_flipped_byte_is_detected(disk: MemoryDisk, info: RunInfo, flip: Callable[[int], int]) -> None:
    """In a block when it is used, and elsewhere when the run is opened."""
    data = disk.current[NAME]
    blocks_size = info.block_count * BLOCK_SIZE
    used = RunSet([Run.open(disk, IDENTITY, info, load_filter=True)])
    for offset in range(len(data)):
        data[offset] ^= flip(offset)
        if offset < blocks_size:
            with pytest.raises(CorruptLog, match=rf"{NAME}, offset {offset // BLOCK_SIZE * BLOCK_SIZE}: .*checkpoints"):
                find(used, [HASHES[-1 if offset >= BLOCK_SIZE else 0]])
        else:
            with pytest.raises(CorruptLog, match=rf"{NAME}, offset \d+: .*checkpoints"):
                Run.open(disk, IDENTITY, info, load_filter=True)
        data[offset] ^= flip(offset)
    assert find(used, HASHES) == ENTRIES


def test_a_filter_that_is_not_loaded_does_no_harm(disk: MemoryDisk, info: RunInfo) -> None:
    start = info.block_count * BLOCK_SIZE
    for offset in range(start, start + info.filter_bytes):
        disk.current[NAME][offset] ^= 0x10
    runs = RunSet([Run.open(disk, IDENTITY, info, load_filter=False)])
    assert find(runs, HASHES) == ENTRIES


def test_a_damaged_block_ends_a_merge_and_leaves_nothing(disk: MemoryDisk, info: RunInfo) -> None:
    other = write(disk, 2, [(1, 1)])
    disk.current[NAME][BLOCK_SIZE + 100] ^= 1
    names = disk.names()
    merge = Merge(disk, IDENTITY, [other, info], 3)
    with pytest.raises(CorruptLog, match=f"offset {BLOCK_SIZE}: a block of ids is damaged"):
        list(merge)
    assert disk.names() == names


def test_a_block_in_the_wrong_place_is_damage(disk: MemoryDisk) -> None:
    """Of the same run, and of another one at the same place."""
    many = [(number << 40, number + 1) for number in range(2 * ENTRIES_PER_BLOCK)]
    info = write(disk, 1, many)
    write(disk, 2, many)
    data, original = disk.current[NAME], bytes(disk.current[NAME])
    for block in (original[BLOCK_SIZE : 2 * BLOCK_SIZE], bytes(disk.current[run_name(2)][:BLOCK_SIZE])):
        data[:BLOCK_SIZE] = block
        with pytest.raises(CorruptLog, match="offset 0: a block of ids is damaged"):
            find(open_runs(disk, IDENTITY, [info], 0), [0])


@pytest.mark.parametrize("size", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, 2 * PAGE_SIZE])
def test_a_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    directory = Directory(tmp_path)
    info = write(directory, 1, ENTRIES)
    os.truncate(tmp_path / NAME, size)
    with pytest.raises(CorruptLog, match=f"{size} bytes where {info.size_bytes} were expected"):
        Run.open(directory, IDENTITY, info, load_filter=True)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    info = write(directory, 1, ENTRIES)
    directory.remove(NAME)
    with pytest.raises(CorruptLog, match=f"{NAME}: is not there; .*checkpoints"):
        Run.open(directory, IDENTITY, info, load_filter=True)


@pytest.mark.parametrize("field", RunIdentity._fields)
def test_a_run_of_somebody_else_is_refused(disk: MemoryDisk, info: RunInfo, field: str) -> None:
    identity = IDENTITY._replace(**{field: getattr(IDENTITY, field) + 1})
    with pytest.raises(CorruptLog, match=r"made for shard 3 of log -5000000000, and not for .* the salts of this data"):
        Run.open(disk, identity, info, load_filter=True)


def test_salts_that_change_places_are_others(disk: MemoryDisk, info: RunInfo) -> None:
    swapped = RunIdentity(IDENTITY.shard, IDENTITY.log_id, IDENTITY.salt_2, IDENTITY.salt_1)
    with pytest.raises(CorruptLog, match="the salts of this data folder"):
        Run.open(disk, swapped, info, load_filter=True)


def test_another_run_of_the_same_number_is_refused(disk: MemoryDisk, info: RunInfo) -> None:
    write(disk, 1, [(hash_value, value + 1) for hash_value, value in ENTRIES], 9)
    with pytest.raises(CorruptLog, match="the page that describes the file is damaged"):
        Run.open(disk, IDENTITY, info, load_filter=True)


@pytest.mark.parametrize("field", ["count", "sequence_least", "sequence_greatest", "time_ms_max"])
def test_what_is_remembered_must_be_what_is_there(disk: MemoryDisk, info: RunInfo, field: str) -> None:
    other = msgspec.structs.replace(info, **{field: getattr(info, field) + 1})
    with pytest.raises(CorruptLog, match=r"holds RunInfo.* where RunInfo.* was expected"):
        Run.open(disk, IDENTITY, other, load_filter=True)


def test_what_a_newer_version_wrote_is_refused(disk: MemoryDisk, info: RunInfo) -> None:
    page = disk.current[NAME][-PAGE_SIZE:]
    struct.pack_into("<i", page, 16, 2)
    checksum = xxhash.xxh3_64_intdigest(bytes(page[8:]))
    struct.pack_into("<Q", page, 0, checksum)
    disk.current[NAME][-PAGE_SIZE:] = page
    with pytest.raises(UnsupportedFormat, match=f"{NAME} has format 2; this version of Bezant reads up to 1"):
        Run.open(disk, IDENTITY, msgspec.structs.replace(info, checksum=checksum), load_filter=True)


def test_what_is_remembered_survives_a_manifest(info: RunInfo) -> None:
    assert msgspec.json.decode(msgspec.json.encode(info), type=RunInfo) == info
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(info), type=RunInfo) == info
