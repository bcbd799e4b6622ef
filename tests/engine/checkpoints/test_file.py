"""Claim: a checkpoint is read back as it was written, or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest

from bezant.engine.checkpoints.checkpointer import Checkpointer, restore_ledger
from bezant.engine.checkpoints.file import PAGE_SIZE, Checkpoint, read_checkpoint, read_manifest
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.log.log import open_log
from bezant.engine.log.storage import Directory
from bezant.engine.replica import ReplicaSettings, open_replica, shard_directory
from bezant.protocol.errors import CorruptLog, StorageError, UnsupportedFormat

from ..commands import join, opening_world, transfer, transfers
from .test_checkpointed_replica import hold

EVERY: Final = 3
"""Every third byte, with a bit that moves on: prime to the sizes of all records."""


class Written(NamedTuple):
    """A folder with one checkpoint, and what its ledger was."""

    folder: CheckpointFolder
    name: str
    digest: str

    @property
    def path(self) -> Path:
        return self.folder.directory.path / self.name


@pytest.fixture
def written(tmp_path: Path, small: ReplicaSettings) -> Iterator[Written]:
    replica = open_replica(tmp_path, settings=small)
    replica.execute(join(opening_world("ann", "bob"), transfers("world", "ann", 3, 50)))
    replica.execute(join(hold("ann", "bob", 7), hold("ann", "world", 5, 60_000), transfer("ann", "bob", 2)))
    replica.register_currency("POINTS", 3)
    replica.write_group()
    digest, index = replica.ledger.digest(), replica.durable_index
    replica.close()
    directory = shard_directory(tmp_path, 0)
    folder = CheckpointFolder(directory)
    log = open_log(directory, writable=False)
    restored = restore_ledger(folder, small.ledger_settings, log.read_events, shard=0, filter_bytes_max=0)
    checkpointer = Checkpointer(restored, log, folder, shard=0, filter_bytes_max=0, free_space_floor=0)
    for entry in log.open(None, index):
        checkpointer.take_in(entry)
    folder.directory.create()
    checkpointer.write()
    log.close()
    yield Written(folder, checkpoint_name(index), digest)


def digest_of(checkpoint: Checkpoint, settings: ReplicaSettings, directory: Directory) -> str:
    folder = CheckpointFolder(directory)
    restored = restore_ledger(
        folder, settings.ledger_settings, lambda _: pytest.fail("asked for events"), shard=0, filter_bytes_max=0
    )
    assert restored.manifest == checkpoint.manifest
    return restored.ledger.digest()


def test_what_is_read_is_what_was_written(written: Written, small: ReplicaSettings, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(written.folder.directory, written.name)
    assert checkpoint.manifest.state_digest == written.digest
    assert checkpoint.manifest.currencies["POINTS"] == 3
    assert [info.count for info in checkpoint.manifest.runs] == [9]
    assert (len(checkpoint.image.rows), len(checkpoint.image.holds)) == (3, 2)
    assert digest_of(checkpoint, small, shard_directory(tmp_path, 0)) == written.digest


def test_a_bit_flipped_anywhere_is_found(written: Written) -> None:
    data = written.path.read_bytes()
    for place in range(0, len(data), EVERY):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        written.path.write_bytes(flipped)
        with pytest.raises((CorruptLog, UnsupportedFormat)):
            read_checkpoint(written.folder.directory, written.name)
    written.path.write_bytes(data)
    read_checkpoint(written.folder.directory, written.name)


@pytest.mark.parametrize("change", [-PAGE_SIZE, -1, 1, PAGE_SIZE])
def test_a_file_of_another_size_is_refused(written: Written, change: int) -> None:
    data = written.path.read_bytes()
    written.path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(CorruptLog):
        read_checkpoint(written.folder.directory, written.name)
    written.path.write_bytes(b"")
    with pytest.raises(CorruptLog, match="less than a header"):
        read_manifest(written.folder.directory, written.name)


def test_a_checkpoint_under_another_name_does_not_count(written: Written) -> None:
    written.path.rename(written.path.with_name(checkpoint_name(99)))
    assert written.folder.find_newest(0, 0) is None
    assert "stands behind another entry" in written.folder.damaged[0]


def test_a_checkpoint_of_another_shard_or_with_other_salts_does_not_count(written: Written) -> None:
    assert written.folder.find_newest(1, 0) is None
    assert written.folder.find_newest(0, 0, salts=(1, 2)) is None
    assert len(written.folder.damaged) == 2


def test_a_run_that_is_missing_makes_the_checkpoint_useless(written: Written) -> None:
    [run] = written.path.parent.glob("ids-*")
    run.unlink()
    assert written.folder.find_newest(0, 0) is None
    assert run.name in written.folder.damaged[0]


def test_too_many_accounts_for_these_settings_are_said(written: Written, small: ReplicaSettings) -> None:
    """That is no damage: replaying everything would end in the same way."""
    settings = msgspec.structs.replace(small, accounts_max=2).ledger_settings
    with pytest.raises(StorageError, match="3 accounts"):
        restore_ledger(written.folder, settings, lambda _: pytest.fail("asked"), shard=0, filter_bytes_max=0)


def test_the_folder_is_locked_for_one_who_writes(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bezant.engine.checkpoints.folder.LOCK_WAIT_S", 0.1)
    lock = written.folder.lock()
    with pytest.raises(StorageError, match="in use"):
        CheckpointFolder(Directory(written.path.parent.parent)).lock()
    lock.release()


def test_without_a_folder_there_is_no_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(Directory(tmp_path))
    assert (folder.indexes(), folder.find_newest(0, 0)) == ([], None)
    with pytest.raises(StorageError, match="no checkpoint"):
        folder.newest_manifest()
