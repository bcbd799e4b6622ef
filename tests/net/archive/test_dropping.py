"""Claim: a segment that an archive has may leave the disk, and everything is answered as before: the history is the
same to whoever reads it, and what the archive cannot give is an error that names it, never another answer."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bezant.engine.archive.dropping import remove_archived
from bezant.engine.doctor import examine
from bezant.engine.following import open_follower
from bezant.engine.log.archive_cache import CACHE_NAME
from bezant.engine.log.archived import ARCHIVED_NAME, read_archived
from bezant.engine.log.segment import segment_name, segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import Replica, open_replica, shard_directory
from bezant.engine.tables.history import HistoryTables
from bezant.engine.verify import verify
from bezant.net.archive.segments import drop_segments, fetch_segments, push_segments
from bezant.net.archive.store import LocalStore, open_store
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ArchiveUnavailable, CorruptLog, StorageError, UsageError
from bezant.protocol.metadata import SALT_SIZE, SetMetadata, SubjectKind
from bezant.protocol.names import account_id
from bezant.protocol.records import Records

from ...engine.commands import opening_world, transfers
from .conftest import SETTINGS, Folder, close_cleanly, make_checkpoint, write_history

DEADLINE_S = 30.0


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "kept")


def shard(folder: Folder) -> Directory:
    return shard_directory(folder.path, 0)


async def drop(folder: Folder, store: LocalStore, **settings: Any) -> list[int]:
    await push_segments(folder.path, store)
    return (await drop_segments(folder.path, store, keep=2, **settings)).dropped


def all_events(folder: Folder) -> bytes:
    follower = open_follower(shard(folder))
    assert follower is not None
    try:
        follower.begin()
        while follower.take():
            pass
        return follower.read_events(np.arange(1, follower.last_sequence + 1)).tobytes()
    finally:
        follower.close()


def cached(folder: Folder) -> list[Path]:
    return sorted((shard(folder).path / CACHE_NAME).glob("segment-*"))


async def test_who_reads_the_history_finds_the_same(folder: Folder, store: LocalStore) -> None:
    before, known = all_events(folder), verify(folder.path)
    dropped = await drop(folder, store)
    assert dropped == list(range(1, len(dropped) + 1))
    assert len(dropped) >= 2
    assert segment_numbers(shard(folder))[0] == len(dropped) + 1
    assert all_events(folder) == before
    assert len(cached(folder)) == len(dropped)
    shutil.rmtree(shard(folder).path / CACHE_NAME)
    assert verify(folder.path)._replace(seconds=0) == known._replace(seconds=0)
    tables = HistoryTables(folder.path)
    assert b"".join(batch.events.tobytes() for _, batch in tables.batches()) == before
    assert tables.state().replay.sequence == known.events


async def test_a_node_starts_without_the_archive_and_goes_on(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    dropped = await drop(folder, store)
    (tmp_path / "kept").rename(tmp_path / "away")
    replica = open_replica(folder.path, settings=SETTINGS)
    assert replica.ledger.digest() == folder.state_digest
    assert replica.log.is_complete
    assert (replica.log.history_index, replica.log.first_index > 1) == (1, True)
    assert replica.log.archived_sequence > 0
    replica.execute(transfers("world", "ann", 3, 7))
    close_cleanly(replica)
    (tmp_path / "away").rename(tmp_path / "kept")
    assert verify(folder.path).chain_hash == replica.log.chain_hash.hex()
    assert (await drop_segments(folder.path, store, keep=2)).dropped == []
    assert segment_numbers(shard(folder))[0] == len(dropped) + 1


def repeat(replica: Replica, event: Records) -> Records:
    """The results of the command of an old event, sent again, and of a new one beside it."""
    commands = np.concatenate([transfers("world", "ann", 1, 7), transfers("world", "bob", 1, 7)])
    for name in commands.dtype.names or ():
        if name in (event.dtype.names or ()):
            commands[0][name] = event[0][name]
    return replica.execute(commands).results


def until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


async def test_an_old_id_is_answered_when_its_event_has_come_and_nobody_waits(
    folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = np.frombuffer(all_events(folder), np.uint8)
    follower = open_follower(shard(folder))
    assert follower is not None
    follower.begin()
    while follower.take():
        pass
    old = follower.read_events(np.array([50]))
    follower.close()
    await drop(folder, store)
    may_go, copy = threading.Event(), shutil.copyfile

    def slowly(*arguments: Any) -> Any:
        assert may_go.wait(DEADLINE_S)
        return copy(*arguments)

    monkeypatch.setattr(shutil, "copyfile", slowly)
    replica = open_replica(folder.path, settings=SETTINGS)
    try:
        first = repeat(replica, old)
        assert first["code"].tolist() == [ResultCode.OVERLOADED, ResultCode.COMMITTED]
        assert repeat(replica, old)["code"].tolist()[0] == ResultCode.OVERLOADED
        may_go.set()
        until(lambda: len(cached(folder)) == 1)
        answers: list[Records] = []
        until(lambda: answers.append(repeat(replica, old)) or answers[-1]["code"][0] != ResultCode.OVERLOADED)
        assert answers[-1]["code"].tolist() == [ResultCode.COMMITTED, ResultCode.COMMITTED]
        assert int(answers[-1]["position"][0]) == 50
        replica.write_group()
        replica.ledger.check_invariants()
    finally:
        may_go.set()
        close_cleanly(replica)


@pytest.mark.parametrize("how", ["gone", "damaged", "longer", "shorter"])
async def test_what_the_archive_cannot_give_is_an_error_that_names_it(
    folder: Folder, store: LocalStore, tmp_path: Path, how: str
) -> None:
    await drop(folder, store)
    mark = read_archived(shard(folder), 0)
    assert mark is not None
    path = tmp_path / "kept" / mark.segments[1].path
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "damaged":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data + b"1" if how == "longer" else data[:-1])
    for read in (lambda: all_events(folder), lambda: verify(folder.path)):
        with pytest.raises(
            ArchiveUnavailable, match=rf"segment 2 in the archive {tmp_path}/kept, with the entries \d+"
        ):
            read()
    assert [file.name for file in cached(folder)] == [mark.segments[0].cached_name]


async def test_a_file_of_the_cache_that_changes_is_fetched_again(folder: Folder, store: LocalStore) -> None:
    before = all_events(folder)
    await drop(folder, store)
    assert all_events(folder) == before
    for file in cached(folder):
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
    assert all_events(folder) == before


async def test_the_cache_is_bounded(folder: Folder, store: LocalStore) -> None:
    before = all_events(folder)
    dropped = await drop(folder, store, cache_bytes_max=2 * SETTINGS.segment_size)
    assert len(dropped) > 2
    assert all_events(folder) == before
    assert len(cached(folder)) <= 2


async def test_only_what_the_archive_has_goes(folder: Folder, store: LocalStore) -> None:
    assert (await drop_segments(folder.path, store, keep=2)).not_kept[:2] == [1, 2]
    await push_segments(folder.path, store)
    path = store_path(store) / "files"
    sizes = {file: file.stat().st_size for file in path.iterdir()}
    for file in sizes:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    with pytest.raises(CorruptLog, match="is not what is read back"):
        await drop_segments(folder.path, store, keep=2)
    assert segment_numbers(shard(folder))[0] == 1
    assert read_archived(shard(folder), 0) is None


def store_path(store: LocalStore) -> Path:
    return Path(store.address)


async def test_nothing_goes_without_a_checkpoint_or_before_the_history_is_whole(
    folder: Folder, store: LocalStore
) -> None:
    await push_segments(folder.path, store)
    (shard(folder).path / "incomplete").write_bytes(b"")
    with pytest.raises(UsageError, match="lacks the beginning"):
        await drop_segments(folder.path, store, keep=2)
    (shard(folder).path / "incomplete").unlink()
    shutil.rmtree(shard(folder).path / "checkpoints")
    assert await drop_segments(folder.path, store, keep=2) == ([], 0, [], [])


async def test_a_start_without_checkpoints_reads_the_archive(folder: Folder, store: LocalStore) -> None:
    await drop(folder, store)
    shutil.rmtree(shard(folder).path / "checkpoints")
    replica = open_replica(folder.path, settings=SETTINGS)
    assert replica.ledger.digest() == folder.state_digest
    replica.close()


@pytest.mark.parametrize("steps", range(6))
async def test_a_crash_at_any_step_leaves_the_whole_history(
    folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """A step is the mark, or the removal of a file; what was begun is finished by whoever opens the folder next."""
    await push_segments(folder.path, store)
    known, left = verify(folder.path).state_digest, [steps]

    def crashing(action: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **settings: Any) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return action(*arguments, **settings)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "remove", crashing(Directory.remove))
        patched.setattr(Directory, "write_file", crashing(Directory.write_file))
        try:
            done = await drop_segments(folder.path, store, keep=2)
            assert left[0] >= 0
            assert done.dropped
        except KeyboardInterrupt:
            pass
    assert verify(folder.path).state_digest == known
    replica = open_replica(folder.path, settings=SETTINGS)
    assert replica.ledger.digest() == folder.state_digest
    replica.close()
    remove_archived(shard(folder), 0)
    mark = read_archived(shard(folder), 0)
    assert (mark is None) == (steps == 0)
    assert segment_numbers(shard(folder))[0] == (1 if mark is None else len(mark.segments) + 1)
    assert verify(folder.path).state_digest == known


async def test_fetch_brings_back_what_was_dropped(folder: Folder, store: LocalStore) -> None:
    files = {number: (shard(folder).path / segment_name(number)).read_bytes() for number in (1, 2)}
    dropped = await drop(folder, store)
    assert await fetch_segments(folder.path, store, free_space_floor=0) == (dropped[::-1], [])
    assert read_archived(shard(folder), 0) is None
    assert {number: (shard(folder).path / segment_name(number)).read_bytes() for number in files} == files
    assert await drop(folder, store) == dropped


async def test_a_mark_that_is_damaged_is_refused(folder: Folder, store: LocalStore) -> None:
    await drop(folder, store)
    path = shard(folder).path / ARCHIVED_NAME
    data = path.read_bytes()
    for place in (0, 9, 20, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="which segments are in an archive"):
            verify(folder.path)


async def test_the_doctor_says_where_it_is(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    await drop(folder, store)
    found = json.dumps([str(finding) for finding in examine(folder.path).findings])
    assert f"which the archive {tmp_path}/kept has" in found
    assert "DAMAGE" not in found


async def test_an_object_store_serves_as_well(
    folder: Folder, s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).makedirs("dropped", exist_ok=True)
    before = all_events(folder)
    store = open_store("s3://dropped/kept")
    await push_segments(folder.path, store)
    dropped = (await drop_segments(folder.path, store, keep=3)).dropped
    assert dropped
    assert all_events(folder) == before
    shutil.rmtree(shard(folder).path / CACHE_NAME)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ArchiveUnavailable, match=r"segment 1 in the archive s3://dropped/kept, with the entries"):
        all_events(folder)


async def test_what_was_erased_since_it_was_pushed_does_not_come_back(tmp_path: Path, store: LocalStore) -> None:
    account, salt = account_id("ann", "EUR"), bytes(SALT_SIZE)
    replica = open_replica(tmp_path / "data", settings=SETTINGS)
    replica.execute(opening_world("ann", "bob"))
    set_metadata(replica, SetMetadata(SubjectKind.ACCOUNT, account, b'{"email":"ann@example.org"}'), salt)
    close_cleanly(replica)
    write_history(tmp_path / "data", 6, first=False)
    await push_segments(tmp_path / "data", store)
    replica = open_replica(tmp_path / "data", settings=SETTINGS)
    set_metadata(replica, SetMetadata(SubjectKind.ACCOUNT, account), salt)
    replica.write_group()
    replica.settle_erasing(replica.durable_index)
    close_cleanly(replica)
    make_checkpoint(write_history(tmp_path / "data", 6, first=False))
    folder = write_history(tmp_path / "data", 5, first=False)
    assert (await drop(folder, store))[0] == 1
    mark = read_archived(shard(folder), 0)
    assert mark is not None
    named = [tmp_path / "kept" / segment.path for segment in mark.segments]
    assert not [path for path in (*named, *cached(folder)) if b"ann@example.org" in path.read_bytes()]
    assert [path for path in (tmp_path / "kept" / "files").iterdir() if b"ann@example.org" in path.read_bytes()]
    assert verify(folder.path).state_digest == folder.state_digest


async def test_metadata_of_a_segment_that_has_left_is_superseded_all_the_same(
    tmp_path: Path, store: LocalStore
) -> None:
    """What the archive has of it is as it was made; on this disk nothing is left, and nothing fails."""
    account, salt = account_id("ann", "EUR"), bytes(SALT_SIZE)
    replica = open_replica(tmp_path / "data", settings=SETTINGS)
    replica.execute(opening_world("ann", "bob"))
    set_metadata(replica, SetMetadata(SubjectKind.ACCOUNT, account, b'{"email":"ann@example.org"}'), salt)
    close_cleanly(replica)
    folder = write_history(tmp_path / "data", 12, first=False)
    make_checkpoint(folder)
    folder = write_history(tmp_path / "data", 5, first=False)
    assert (await drop(folder, store))[0] == 1
    replica = open_replica(folder.path, settings=SETTINGS)
    set_metadata(replica, SetMetadata(SubjectKind.ACCOUNT, account), salt)
    replica.write_group()
    replica.settle_erasing(replica.durable_index)
    chain_hash = replica.log.chain_hash.hex()
    close_cleanly(replica)
    assert not [path for path in shard(folder).path.rglob("segment-*") if b"ann@example.org" in path.read_bytes()]
    assert verify(folder.path).chain_hash == chain_hash
