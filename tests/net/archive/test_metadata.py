"""Claim: metadata is in snapshots; and what was erased since does not come back from what was kept elsewhere before."""

import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bezant.engine.archive.manifest import pack_indexes, unpack_indexes
from bezant.engine.log.segment import segment_name
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.node_file import new_cluster_id, new_group_node, write_node_file
from bezant.engine.replica import Replica, open_replica, shard_directory
from bezant.engine.verify import verify
from bezant.net.archive.removing import erased_since, remove_snapshots, remove_unneeded
from bezant.net.archive.segments import drop_segments, fetch_segments, push_segments
from bezant.net.archive.snapshots import create_snapshot, list_snapshots, restore_snapshot
from bezant.net.archive.store import LocalStore
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.metadata import SALT_SIZE, SetMetadata, SubjectKind, blob_content
from bezant.protocol.names import account_id

from .conftest import SETTINGS, Folder, close_cleanly, make_checkpoint, write_history

MARK = b"ann@example.org"
ANN = SetMetadata(SubjectKind.ACCOUNT, account_id("ann", "EUR"), b'{"email":"ann@example.org"}')
BOB = SetMetadata(SubjectKind.ACCOUNT, account_id("bob", "EUR"), b'{"email":"bob@example.org"}')


def change(path: Path, *changes: SetMetadata) -> Folder:
    """Set or erase metadata, and stop."""
    replica = open_replica(path, settings=SETTINGS)
    for asked in changes:
        set_metadata(replica, asked, bytes(SALT_SIZE))
    replica.write_group()
    replica.settle_erasing(replica.durable_index)
    found = Folder(path, replica.ledger.digest(), replica.log.chain_hash.hex(), replica.log.last_index)
    close_cleanly(replica)
    return found


def segments_with(path: Path, mark: bytes) -> list[Path]:
    folder = shard_directory(path, 0).path
    return [file for file in sorted(folder.glob("segment-*")) if mark in file.read_bytes()]


def metadata(replica: Replica, asked: SetMetadata) -> bytes | None:
    index = replica.ledger.metadata.index_of(asked.subject_kind, asked.subject)
    return blob_content(bytes(replica.log.read_entry(index).body)) if index else None


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "kept")


async def test_what_was_erased_since_does_not_come_back(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "data"
    write_history(path, 4)
    change(path, ANN, BOB)
    write_history(path, 8, first=False)
    await push_segments(path, store)
    (segment,) = segments_with(path, MARK)
    make_checkpoint(change(path, SetMetadata(ANN.subject_kind, ANN.subject)))
    assert not segments_with(path, MARK)
    last = write_history(path, 5, first=False)
    segment.unlink()
    assert (await fetch_segments(path, store, free_space_floor=0)).missing == []
    assert segment.exists()
    assert not segments_with(path, MARK)
    report = verify(path)
    assert (report.state_digest, report.chain_hash) == (last.state_digest, last.chain_hash)
    replica = open_replica(path, settings=SETTINGS)
    assert (metadata(replica, ANN), metadata(replica, BOB)) == (None, BOB.content)
    replica.close()


async def test_a_snapshot_has_it(tmp_path: Path, store: LocalStore) -> None:
    path, restored = tmp_path / "data", tmp_path / "restored"
    write_history(path, 4)
    make_checkpoint(change(path, ANN))
    last = write_history(path, 2, first=False)
    await create_snapshot(path, store)
    await restore_snapshot(restored, store, free_space_floor=0)
    replica = open_replica(restored, settings=SETTINGS)
    assert (replica.ledger.digest(), metadata(replica, ANN)) == (last.state_digest, ANN.content)
    replica.close()


# ---- a snapshot that is older than an erasing ----


async def snapshots_before_and_after(path: Path, store: LocalStore) -> tuple[str, str]:
    """Names of a snapshot that has metadata of two accounts, and of one made when that of one had been erased."""
    write_history(path, 4)
    make_checkpoint(change(path, ANN, BOB))
    write_history(path, 2, first=False)
    before = await create_snapshot(path, store)
    change(path, SetMetadata(ANN.subject_kind, ANN.subject))
    after = await create_snapshot(path, store)
    return before.name, after.name


def has_mark(folder: Path) -> bool:
    return any(MARK in file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_what_was_erased_after_a_snapshot_is_not_restored_from_it(tmp_path: Path, store: LocalStore) -> None:
    before, _ = await snapshots_before_and_after(tmp_path / "data", store)
    restored = tmp_path / "restored"
    done = await restore_snapshot(restored, store, before, free_space_floor=0)
    assert (done.name, done.left_out) == (before, 1)
    assert not has_mark(restored)
    verify(restored)
    replica = open_replica(restored, settings=SETTINGS)
    assert (metadata(replica, ANN), metadata(replica, BOB)) == (None, BOB.content)
    assert replica.log.last_index == done.manifest.index + 1  # The erasing is a part of its history.
    replica.close()
    assert not list(tmp_path.glob("*.restoring"))


async def test_what_nobody_knows_to_be_erased_is_restored(tmp_path: Path, store: LocalStore) -> None:
    before, after = await snapshots_before_and_after(tmp_path / "data", store)
    as_it_was = await restore_snapshot(tmp_path / "as-it-was", store, before, free_space_floor=0, as_it_was=True)
    assert as_it_was.left_out == 0
    assert has_mark(tmp_path / "as-it-was")
    await remove_snapshots(store, [after])
    assert (await restore_snapshot(tmp_path / "alone", store, free_space_floor=0)).left_out == 0
    assert has_mark(tmp_path / "alone")
    verify(tmp_path / "alone")


async def test_that_of_a_member_has_none_of_it_and_no_entry_that_is_not_the_groups(
    tmp_path: Path, store: LocalStore
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    write_node_file(path, new_group_node(new_cluster_id(), 1, {1: ("h:1", "h:2"), 2: ("h:3", "h:4")}))
    before, _ = await snapshots_before_and_after(path, store)
    done = await restore_snapshot(tmp_path / "restored", store, before, free_space_floor=0, as_lost_node=True)
    assert done.left_out == 1
    assert not has_mark(tmp_path / "restored")
    replica = open_replica(tmp_path / "restored", settings=SETTINGS)
    assert replica.log.last_index == done.manifest.index
    assert (metadata(replica, ANN), metadata(replica, BOB)) == (None, BOB.content)
    replica.close()


async def test_what_was_erased_leaves_the_target_with_the_snapshots_that_have_it(
    tmp_path: Path, store: LocalStore
) -> None:
    before, after = await snapshots_before_and_after(tmp_path / "data", store)
    (tmp_path / "kept" / "files" / ("0" * 64)).write_bytes(MARK)  # What a program that was killed has left.
    assert erased_since(await list_snapshots(store)) == {before: 1, after: 0}
    assert has_mark(tmp_path / "kept")
    done = await remove_snapshots(store, [before])
    assert done.names == [before]
    assert done.files >= 2
    assert not has_mark(tmp_path / "kept")
    restored = await restore_snapshot(tmp_path / "restored", store, free_space_floor=0)
    assert (restored.name, restored.left_out) == (after, 0)
    verify(tmp_path / "restored")


async def test_what_a_segment_is_kept_for_stays(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "data"
    write_history(path, 12)
    await push_segments(path, store)
    created = await create_snapshot(path, store)
    await remove_snapshots(store, [created.name])
    assert (await push_segments(path, store)).written == 0
    (shard_directory(path, 0).path / segment_name(1)).unlink()
    assert (await fetch_segments(path, store, free_space_floor=0)).fetched == [1]


async def test_what_was_erased_leaves_an_archive_when_it_is_pushed_anew(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "data"
    write_history(path, 4)
    change(path, ANN, BOB)
    make_checkpoint(write_history(path, 12, first=False))
    pushed = await push_segments(path, store)
    (segment,) = segments_with(path, MARK)
    assert (await drop_segments(path, store, keep=2)).dropped
    assert not segment.exists()
    verify(path)
    assert has_mark(path)  # In the cache, from which it was verified.
    make_checkpoint(change(path, SetMetadata(ANN.subject_kind, ANN.subject)))
    assert (await push_segments(path, store, replaces=True)).written == 0
    assert (await remove_unneeded(store))[0] == 0
    assert has_mark(tmp_path / "kept")  # It is the only copy of that segment.
    assert (await fetch_segments(path, store, free_space_floor=0)).missing == []
    assert not has_mark(path)
    again = await push_segments(path, store, replaces=True)
    assert (again.written, again.there) == (1, pushed.written - 1)
    assert (await remove_unneeded(store))[0] == 1
    assert not has_mark(tmp_path / "kept")
    assert (await drop_segments(path, store, keep=2)).dropped
    verify(path)


async def test_a_member_of_a_group_replaces_nothing_that_others_may_have_dropped(
    tmp_path: Path, store: LocalStore
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    write_node_file(path, new_group_node(new_cluster_id(), 1, {1: ("h:1", "h:2"), 2: ("h:3", "h:4")}))
    write_history(path, 4)
    with pytest.raises(UsageError, match="others may have dropped"):
        await push_segments(path, store, replaces=True)


async def test_nothing_is_removed_while_nobody_can_tell_what_is_needed(tmp_path: Path, store: LocalStore) -> None:
    before, after = await snapshots_before_and_after(tmp_path / "data", store)
    with pytest.raises(UsageError, match="has no snapshot"):
        await remove_snapshots(store, [before, "0000000001-" + "0" * 32])
    manifest = tmp_path / "kept" / "snapshots" / f"{after}.json"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    with pytest.raises(UsageError, match="delete it as well"):
        await remove_snapshots(store, [before])
    assert before in {one.name for one in await list_snapshots(store)}
    await remove_snapshots(store, [before, after])
    assert not list((tmp_path / "kept" / "files").iterdir())


async def test_a_version_that_did_not_say_what_it_had_is_not_known(tmp_path: Path, store: LocalStore) -> None:
    before, after = await snapshots_before_and_after(tmp_path / "data", store)
    older, newer = await list_snapshots(store)
    assert older.manifest is not None
    silent = older._replace(manifest=msgspec.structs.replace(older.manifest, metadata=None))
    assert erased_since([silent, newer]) == {before: None, after: 0}
    damaged = newer._replace(manifest=None)
    assert erased_since([older, damaged]) == {before: 0, after: None}


@pytest.mark.parametrize("packed", [b"", b"nothing", pack_indexes(np.arange(1, 50))[:-5], zlib.compress(bytes(9))])
def test_a_list_of_metadata_that_makes_no_sense_is_refused(packed: bytes) -> None:
    assert unpack_indexes(pack_indexes(np.array([3, 7, 900]))) == {3, 7, 900}
    assert unpack_indexes(pack_indexes(np.zeros(0, np.int64))) == frozenset()
    with pytest.raises(CorruptLog, match="list of"):
        unpack_indexes(packed)
