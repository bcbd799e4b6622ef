"""Claim: sealed segments that are kept elsewhere come back as they were, to the byte, wherever they were missed; and
nothing comes back that does not lead to what is there."""

from pathlib import Path

import pytest

from bezant.engine.log.incomplete import INCOMPLETE_NAME, mark_incomplete
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.engine.replica import open_replica, shard_directory
from bezant.engine.verify import verify
from bezant.net.archive.segments import fetch_segments, log_of, push_segments, read_records
from bezant.net.archive.store import LocalStore
from bezant.protocol.errors import CorruptLog, DataFolderInUse, StorageError

from .conftest import SETTINGS, Folder, write_history


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "kept")


def segment(folder: Folder, number: int) -> Path:
    return shard_directory(folder.path, 0).path / segment_name(number)


async def test_segments_that_were_lost_come_back_to_the_byte(folder: Folder, store: LocalStore) -> None:
    pushed = await push_segments(folder.path, store)
    assert pushed.written >= 4
    assert await push_segments(folder.path, store) == (0, pushed.written, 0)
    lost = {number: segment(folder, number).read_bytes() for number in (1, 2, 4)}
    for number in lost:
        segment(folder, number).unlink()
    with pytest.raises(CorruptLog, match=r"Restore the file from a copy|not numbered"):
        verify(folder.path)
    assert await fetch_segments(folder.path, store, free_space_floor=0) == ([4, 2, 1], [])
    assert {number: segment(folder, number).read_bytes() for number in lost} == lost
    assert verify(folder.path).state_digest == folder.state_digest


async def test_a_log_that_begins_later_gets_its_beginning(folder: Folder, store: LocalStore) -> None:
    await push_segments(folder.path, store)
    directory = shard_directory(folder.path, 0)
    mark_incomplete(directory, 0, 3)
    for number in (1, 2):
        segment(folder, number).unlink()
    assert (await fetch_segments(folder.path, store, free_space_floor=0)).missing == []
    assert INCOMPLETE_NAME not in directory.names()
    assert verify(folder.path).state_digest == folder.state_digest


async def test_what_was_not_kept_stays_missing(folder: Folder, tmp_path: Path) -> None:
    segment(folder, 2).unlink()
    assert await fetch_segments(folder.path, LocalStore(tmp_path / "none"), free_space_floor=0) == ([], [2])


async def test_a_segment_that_is_damaged_here_is_not_kept(folder: Folder, store: LocalStore) -> None:
    path = segment(folder, 2)
    damaged = bytearray(path.read_bytes())
    damaged[20_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptLog, match="nothing of it was kept"):
        await push_segments(folder.path, store)
    assert sorted(await read_records(store, log_of(folder.path))) == [1]


@pytest.mark.parametrize("what", ["content", "record"])
async def test_an_archive_that_is_damaged_gives_nothing_back(
    folder: Folder, store: LocalStore, tmp_path: Path, what: str
) -> None:
    await push_segments(folder.path, store)
    log_id = log_of(folder.path)
    (record,) = (await read_records(store, log_id))[2]
    path = tmp_path / "kept" / "files" / record.digest
    if what == "record":
        (path,) = (tmp_path / "kept" / "segments" / log_id).glob(f"{segment_name(2)}-*")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    segment(folder, 2).unlink()
    with pytest.raises(CorruptLog, match="damaged"):
        await fetch_segments(folder.path, store, free_space_floor=0)
    assert not segment(folder, 2).exists()
    assert not list(shard_directory(folder.path, 0).path.glob("*.new"))


async def test_segments_of_another_log_do_not_come(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    other = write_history(tmp_path / "other", 12)
    await push_segments(other.path, store)
    segment(folder, 2).unlink()
    assert (await fetch_segments(folder.path, store, free_space_floor=0)).missing == [2]


async def test_nothing_comes_to_a_folder_in_use_or_without_room(folder: Folder, store: LocalStore) -> None:
    await push_segments(folder.path, store)
    replica = open_replica(folder.path, settings=SETTINGS)
    try:
        with pytest.raises(DataFolderInUse):
            await fetch_segments(folder.path, store, free_space_floor=0)
    finally:
        replica.close()
    segment(folder, 2).unlink()
    with pytest.raises(StorageError, match="Make room"):
        await fetch_segments(folder.path, store, free_space_floor=1 << 60)
    assert segment_name(2) not in Directory(segment(folder, 2).parent).names()
