"""Claim: a snapshot, restored where nothing was, is the state that it was made of, to the digest; and one that is not
whole, does not fit or would go over something is refused before anything of it counts."""

import shutil
from pathlib import Path

import pytest

from bezant.engine.doctor import examine
from bezant.engine.log.archive_cache import CACHE_NAME
from bezant.engine.log.storage import Directory
from bezant.engine.log.vote import open_vote_file
from bezant.engine.node_file import NODE_NAME, new_cluster_id, new_group_node, read_node_file, write_node_file
from bezant.engine.replica import open_replica, shard_directory
from bezant.engine.verify import verify
from bezant.net.archive.segments import drop_segments, fetch_segments, push_segments
from bezant.net.archive.snapshots import create_snapshot, find_snapshot, list_snapshots, restore_snapshot
from bezant.net.archive.store import LocalStore
from bezant.protocol.errors import ArchiveUnavailable, CorruptLog, StorageError, UsageError

from ...engine.commands import transfers
from .conftest import SETTINGS, Folder, close_cleanly, make_checkpoint, write_history


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "kept")


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


async def test_a_snapshot_restored_where_nothing_was_leads_to_the_same_digest(
    folder: Folder, store: LocalStore, tmp_path: Path
) -> None:
    before = contents(folder.path)
    created = await create_snapshot(folder.path, store)
    assert contents(folder.path) == before
    manifest = created.manifest
    assert (manifest.state_digest, manifest.chain_hash) == (folder.state_digest, folder.chain_hash)
    assert manifest.index == folder.last_index
    assert manifest.checkpoint
    assert manifest.has_history
    assert manifest.history

    restored = tmp_path / "restored"
    chosen = await restore_snapshot(restored, store, free_space_floor=0)
    assert chosen.name == created.name
    report = verify(restored)
    assert (report.state_digest, report.chain_hash) == (folder.state_digest, folder.chain_hash)
    assert report.checkpoints == 1
    assert examine(restored, free_space_floor=0).verdict == "healthy"
    replica = open_replica(restored, settings=SETTINGS)
    assert replica.start_index == manifest.index - 5
    assert replica.ledger.digest() == folder.state_digest
    replica.execute(transfers("world", "ann", 3))
    close_cleanly(replica)
    verify(restored)
    assert not list(tmp_path.glob("*.restoring"))


async def test_a_folder_without_a_checkpoint_is_kept_from_its_beginning(store: LocalStore, tmp_path: Path) -> None:
    folder = write_history(tmp_path / "data", 6)
    created = await create_snapshot(folder.path, store)
    assert not created.manifest.checkpoint
    await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    assert verify(tmp_path / "restored").state_digest == folder.state_digest


async def test_what_a_snapshot_has_is_not_written_again(folder: Folder, store: LocalStore) -> None:
    first = await create_snapshot(folder.path, store)
    assert first.written_bytes == first.manifest.size_bytes
    again = await create_snapshot(folder.path, store)
    assert again.written_bytes == 0
    later = write_history(folder.path, 1, first=False)
    third = await create_snapshot(later.path, store)
    assert 0 < third.written_bytes < third.manifest.size_bytes / 2
    listed = await list_snapshots(store)
    assert listed[-1].name == third.name
    assert (await find_snapshot(store)).name == third.name
    assert (await find_snapshot(store, first.name.partition("-")[2][:12])).name == first.name


async def test_an_earlier_snapshot_can_be_restored_and_lacks_what_came_later(
    folder: Folder, store: LocalStore, tmp_path: Path
) -> None:
    first = await create_snapshot(folder.path, store)
    await create_snapshot(write_history(folder.path, 1, first=False).path, store)
    await restore_snapshot(tmp_path / "restored", store, first.name, free_space_floor=0)
    assert verify(tmp_path / "restored").state_digest == folder.state_digest


async def test_a_snapshot_is_made_of_a_folder_whose_node_has_it_open(store: LocalStore, tmp_path: Path) -> None:
    folder = write_history(tmp_path / "data", 3)
    make_checkpoint(folder)
    replica = open_replica(folder.path, settings=SETTINGS)
    try:
        replica.execute(transfers("world", "ann", 9))  # in memory, not committed: no part of it
        created = await create_snapshot(folder.path, store)
    finally:
        close_cleanly(replica)
    assert created.manifest.index == folder.last_index
    assert created.manifest.state_digest == folder.state_digest


async def test_segments_that_have_left_for_an_archive_are_in_it_as_well(
    folder: Folder, store: LocalStore, tmp_path: Path
) -> None:
    archive = LocalStore(tmp_path / "archive")
    await push_segments(folder.path, archive)
    assert (await drop_segments(folder.path, archive, keep=1)).dropped
    created = await create_snapshot(folder.path, store)
    assert created.manifest.has_history
    (tmp_path / "archive").rename(tmp_path / "away")
    await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    assert verify(tmp_path / "restored").state_digest == folder.state_digest
    shutil.rmtree(shard_directory(folder.path, 0).path / CACHE_NAME)
    with pytest.raises(ArchiveUnavailable, match=r"segment 1 in the archive .*archive"):
        await create_snapshot(folder.path, store)


@pytest.mark.parametrize("which", ["checkpoint", "segment", "ids", "manifest"])
async def test_a_snapshot_that_is_damaged_is_refused_and_leaves_nothing(
    folder: Folder, store: LocalStore, tmp_path: Path, which: str
) -> None:
    created = await create_snapshot(folder.path, store)
    path = tmp_path / "kept" / "snapshots" / f"{created.name}.json"
    if which != "manifest":
        (digest, *_) = [stored.digest for stored in created.manifest.files if which in stored.name]
        path = tmp_path / "kept" / "files" / digest
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptLog, match="damaged"):
        await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    assert not (tmp_path / "restored").exists()
    assert not list(tmp_path.glob("*.restoring"))
    if which != "manifest":
        with pytest.raises(CorruptLog, match="not what is read back"):
            await create_snapshot(folder.path, store)


async def test_a_snapshot_that_lacks_a_file_is_refused(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    created = await create_snapshot(folder.path, store)
    (tmp_path / "kept" / "files" / created.manifest.history[0].digest).unlink()
    with pytest.raises(StorageError, match="the target does not do it"):
        await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    assert not (tmp_path / "restored").exists()


async def test_nothing_is_restored_over_a_log_that_is_there(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    await create_snapshot(folder.path, store)
    other = write_history(tmp_path / "other", 1)
    before = contents(other.path)
    with pytest.raises(UsageError, match="is not empty"):
        await restore_snapshot(other.path, store, free_space_floor=0)
    assert contents(other.path) == before


async def test_what_an_interrupted_restore_has_left_does_not_count(
    folder: Folder, store: LocalStore, tmp_path: Path
) -> None:
    await create_snapshot(folder.path, store)
    left = tmp_path / "restored.restoring" / "shard-00000"
    shutil.copytree(shard_directory(folder.path, 0).path, left)
    (tmp_path / "restored").mkdir()  # empty: it may be there
    await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    assert verify(tmp_path / "restored").state_digest == folder.state_digest


async def test_without_room_nothing_is_begun(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    await create_snapshot(folder.path, store)
    with pytest.raises(StorageError, match="Make room on the disk"):
        await restore_snapshot(tmp_path / "restored", store, free_space_floor=1 << 60)
    assert not (tmp_path / "restored").exists()


async def test_snapshots_of_two_logs_are_not_mistaken_for_each_other(
    folder: Folder, store: LocalStore, tmp_path: Path
) -> None:
    created = await create_snapshot(folder.path, store)
    other = write_history(tmp_path / "other", 1)
    second = await create_snapshot(other.path, store)
    with pytest.raises(UsageError, match="snapshots of 2 logs"):
        await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    await restore_snapshot(tmp_path / "restored", store, created.name, free_space_floor=0)
    begins = {part[0] for name in (created.name, second.name) for part in name.split("-")}
    wrong = next(digit for digit in "0123456789abcdef" if digit not in begins)
    with pytest.raises(UsageError, match=f"has no snapshot {wrong}"):
        await find_snapshot(store, wrong)


async def test_a_member_of_a_group_comes_back_without_a_vote(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    members = {number: (f"127.0.0.1:{7000 + number}", f"127.0.0.1:{7100 + number}") for number in (1, 2, 3)}
    write_node_file(tmp_path / "node", new_group_node(new_cluster_id(), 2, members))
    shutil.copy(tmp_path / "node" / NODE_NAME, folder.path / NODE_NAME)
    await create_snapshot(folder.path, store)
    with pytest.raises(UsageError, match="--as-lost-node"):
        await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    await restore_snapshot(tmp_path / "restored", store, as_lost_node=True, free_space_floor=0)
    assert read_node_file(tmp_path / "restored") == read_node_file(folder.path)
    directory: Directory = shard_directory(tmp_path / "restored", 0)
    vote_file = open_vote_file(directory, shard=0, log_is_empty=False)
    state = vote_file.read()
    vote_file.close()
    assert state.barred
    assert state.voted_for == 0
    assert state.term == 1


async def test_a_node_alone_has_no_group_to_come_back_to(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    await create_snapshot(folder.path, store)
    with pytest.raises(UsageError, match="node alone"):
        await restore_snapshot(tmp_path / "restored", store, as_lost_node=True, free_space_floor=0)


async def test_the_folder_of_any_shard_is_kept(store: LocalStore, tmp_path: Path) -> None:
    path, restored = tmp_path / "data", tmp_path / "restored"
    path.mkdir()
    members = {1: ("h:1", "h:2"), 2: ("h:3", "h:4")}
    write_node_file(path, new_group_node(new_cluster_id(), 1, members, shard=3, placement=["h:5"]))
    folder = write_history(path, 12, shard=3)
    created = await create_snapshot(path, store)
    assert (created.manifest.shard, created.manifest.state_digest) == (3, folder.state_digest)
    pushed = await push_segments(path, store)
    assert pushed.written
    segments = shard_directory(path, 3).path
    (segments / "segment-0000000001").unlink()
    assert (await fetch_segments(path, store, free_space_floor=0)).fetched == [1]
    assert (await drop_segments(path, store, keep=2)).dropped == []  # A start needs all of it.
    await restore_snapshot(restored, store, free_space_floor=0, as_lost_node=True)
    assert verify(restored).state_digest == folder.state_digest
