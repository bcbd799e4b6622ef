"""Claim: a start tells what cannot be had before it does what takes long, and what it found afterwards."""

import logging
from pathlib import Path

import pytest

import bezant
from bezant.engine.log.storage import FolderLock
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings, open_replica
from bezant.net import embedded
from bezant.net.server import serve as serve_module
from bezant.net.server import starting
from bezant.protocol.errors import DataFolderInUse, StorageError

SETTINGS = ReplicaSettings(
    segment_size=1 << 20, free_space_floor=0, accounts_max=64, holds_max=64, ids_memory_bytes=IDS_MEMORY_BYTES_MIN
)


@pytest.fixture
def does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "warm_kernels", lambda: pytest.fail("compiled before it looked"))


@pytest.mark.usefixtures("does_not_compile")
@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/x", "/dev/null/books"])
def test_a_folder_that_cannot_be_had_is_told_first_and_by_its_path(path: str) -> None:
    with pytest.raises(StorageError, match=path):
        serve_module.serve(Path(path), "127.0.0.1:0", say=pytest.fail)


@pytest.mark.usefixtures("does_not_compile")
def test_a_folder_that_is_in_use_is_told_first(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(DataFolderInUse, match="in use"):
        serve_module.serve(tmp_path, "127.0.0.1:0", say=pytest.fail)
    lock.release()


@pytest.mark.usefixtures("does_not_compile")
def test_a_lock_that_is_none_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(StorageError, match=f"{tmp_path}/lock"):
        serve_module.serve(tmp_path, "127.0.0.1:0", say=pytest.fail)


def test_compiling_is_told_if_there_is_something_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(starting, "COMPILED", True)
    starting.prepare_start(tmp_path / "data")
    assert caplog.records == [], "they are compiled: this process has done it"
    monkeypatch.setattr(starting, "cache_directory", lambda: str(tmp_path / "cold"))
    starting.prepare_start(tmp_path / "data")
    (record,) = caplog.records
    assert "compiling the kernels, once" in record.getMessage()


async def test_every_damaged_checkpoint_is_told_with_what_was_used_instead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_replica(tmp_path, settings=SETTINGS).close()
    caplog.clear()
    folder = tmp_path / "shard-0000" / "checkpoints"
    for name in ("checkpoint-0000000001", "checkpoint-0000000007"):
        (folder / name).write_bytes(b"rubbish")
    channel = await embedded.open_channel(tmp_path, SETTINGS)
    await channel.close()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    for line, name in zip(told, ("0000000007", "0000000001"), strict=True):
        assert f"checkpoint-{name}" in line
        assert "the history is whole" in line
        assert "from the whole history" in line


async def test_a_torn_tail_is_told_by_an_engine_without_a_node_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_replica(tmp_path).close()
    path = tmp_path / "shard-0000" / "segment-0000000001"
    end = len(path.read_bytes().rstrip(b"\0")) + 100
    with path.open("r+b") as file:
        file.seek(end)
        file.write(b"torn")
    async with bezant.open(tmp_path):
        pass
    assert "never acknowledged" in caplog.text


def test_a_start_that_is_killed_early_does_not_look_like_a_lost_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever there is a lock there is a folder for the log."""

    class Killed(BaseException):
        pass

    def kill(folder: Path) -> None:
        raise Killed

    monkeypatch.setattr(starting, "FolderLock", kill)
    with pytest.raises(Killed):
        starting.prepare_start(tmp_path / "data")
    assert (tmp_path / "data" / "shard-0000").is_dir()
