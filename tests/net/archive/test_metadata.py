"""Claim: metadata is in snapshots; and what was erased since does not come back from what was kept elsewhere before."""

from pathlib import Path

import pytest

from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import Replica, open_replica, shard_directory
from bezant.engine.verify import verify
from bezant.net.archive.segments import fetch_segments, push_segments
from bezant.net.archive.snapshots import create_snapshot, restore_snapshot
from bezant.net.archive.store import LocalStore
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
