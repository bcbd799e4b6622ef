"""Claim: metadata is set, superseded and erased; what is erased is on no disk, while the history stays as it was."""

from pathlib import Path

import numpy as np
import pytest

from bezant.engine.checkpoints.checkpointer import Checkpointer, restore_ledger
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.log.entry import body_is_whole, entry_hash
from bezant.engine.log.log import open_log
from bezant.engine.metadata import erasing
from bezant.engine.metadata.kept import leave_out
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import Replica, ReplicaSettings, open_replica, shard_directory
from bezant.engine.skimming import split_span
from bezant.engine.verify import verify
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, UsageError
from bezant.protocol.metadata import (
    METADATA_SIZE_MAX,
    SALT_SIZE,
    SetMetadata,
    SubjectKind,
    blob_content,
    subject_of_position,
)
from bezant.protocol.names import account_id
from bezant.protocol.records import position_of

from ..commands import opening_world, transfers
from ..conftest import Clock
from ..group import MemberGroup

SALT = bytes(range(SALT_SIZE))
ANN = SetMetadata(SubjectKind.ACCOUNT, account_id("ann", "EUR"), b'{"email":"ann@example.org"}')
ANN_AGAIN = SetMetadata(SubjectKind.ACCOUNT, account_id("ann", "EUR"), b'{"email":"ann@example.com"}')
ANN_ERASED = SetMetadata(SubjectKind.ACCOUNT, account_id("ann", "EUR"))
FIRST_EVENT = SetMetadata(SubjectKind.EVENT, subject_of_position(position_of(0, 1)), b'{"note":"opened by hand"}')
MARKS = (b"ann@example.org", b"ann@example.com", b"opened by hand")


def opened(folder: Path, settings: ReplicaSettings, clock: Clock) -> Replica:
    return open_replica(folder, settings=settings, clock_ns=clock)


@pytest.fixture
def replica(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Replica:
    """A ledger with two accounts and some transfers."""
    replica = opened(tmp_path, small, clock)
    replica.execute(opening_world("ann", "bob"))
    replica.execute(transfers("world", "ann", 5))
    replica.write_group()
    return replica


def settled(replica: Replica, asked: SetMetadata) -> int:
    """Set, write, and have erased what is superseded: as a node alone does."""
    version = set_metadata(replica, asked, SALT)
    replica.write_group()
    replica.settle_erasing(replica.durable_index)
    return version


def content(replica: Replica, asked: SetMetadata) -> bytes | None:
    index = replica.ledger.metadata.index_of(asked.subject_kind, asked.subject)
    return blob_content(bytes(replica.log.read_entry(index).body)) if index else None


def marks_in(folder: Path) -> set[bytes]:
    """Which contents, or their salt, are anywhere in the files of a folder."""
    data = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return {mark for mark in (*MARKS, SALT) if mark in data}


def test_what_is_set_is_there_and_what_is_superseded_or_erased_is_gone_from_the_disk(
    replica: Replica, tmp_path: Path
) -> None:
    first = settled(replica, ANN)
    settled(replica, FIRST_EVENT)
    assert content(replica, ANN) == ANN.content
    assert content(replica, FIRST_EVENT) == FIRST_EVENT.content
    assert marks_in(tmp_path) == {b"ann@example.org", b"opened by hand", SALT}
    assert settled(replica, ANN_AGAIN) > first
    assert content(replica, ANN) == ANN_AGAIN.content
    assert marks_in(tmp_path) == {b"ann@example.com", b"opened by hand", SALT}
    settled(replica, ANN_ERASED)
    settled(replica, FIRST_EVENT.__class__(FIRST_EVENT.subject_kind, FIRST_EVENT.subject))
    assert content(replica, ANN) is None
    assert len(replica.ledger.metadata) == 0
    assert marks_in(tmp_path) == set()


def test_the_history_stays_as_it_was(replica: Replica, tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    settled(replica, ANN)
    settled(replica, FIRST_EVENT)
    before = replica.log.chain_hash
    index = replica.log.last_index
    settled(replica, ANN_ERASED)
    replica.execute(transfers("ann", "bob", 3))
    replica.write_group()
    digest, last = replica.ledger.digest(), replica.log.chain_hash
    replica.close()
    report = verify(tmp_path)
    assert (report.state_digest, report.chain_hash) == (digest, last.hex())
    again = opened(tmp_path, small, clock)
    assert again.ledger.digest() == digest
    assert again.log.read_entry(index + 1).header.previous_hash == before
    again.close()


def test_the_same_again_changes_nothing(replica: Replica) -> None:
    version = settled(replica, ANN)
    last = replica.log.last_index
    assert settled(replica, ANN) == version
    assert settled(replica, ANN_AGAIN) == last + 1
    settled(replica, ANN_ERASED)
    last = replica.log.last_index
    assert settled(replica, ANN_ERASED) == 0
    assert replica.log.last_index == last


@pytest.mark.parametrize(
    ("content_bytes", "why"),
    [
        (b"[1]", "no other JSON"),
        (b"{", "JSON object in UTF-8"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", ""),
        (b'{"a":"' + b"x" * METADATA_SIZE_MAX + b'"}', "1 to 1024"),
    ],
)
def test_what_is_no_small_json_object_is_refused(replica: Replica, content_bytes: bytes, why: str) -> None:
    last = replica.log.last_index
    asked = SetMetadata(SubjectKind.ACCOUNT, ANN.subject, content_bytes)
    if why:
        with pytest.raises(UsageError, match=why):
            set_metadata(replica, asked, SALT)
        assert replica.log.last_index == last
    else:
        assert settled(replica, asked) == last + 1


@pytest.mark.parametrize(
    "asked",
    [
        SetMetadata(SubjectKind.ACCOUNT, account_id("nobody", "EUR"), b"{}"),
        SetMetadata(SubjectKind.EVENT, subject_of_position(position_of(0, 9)), b"{}"),
        SetMetadata(SubjectKind.EVENT, subject_of_position(0), b"{}"),
        SetMetadata(SubjectKind.EVENT, subject_of_position(position_of(1, 1)), b"{}"),
        SetMetadata(SubjectKind.EVENT, subject_of_position(-1), b"{}"),
        SetMetadata(SubjectKind.ACCOUNT, ANN.subject, b"{}", log_id="0123456789abcdef"),
    ],
)
def test_what_is_not_there_has_no_metadata(replica: Replica, asked: SetMetadata) -> None:
    with pytest.raises(UsageError):
        set_metadata(replica, asked, SALT)


@pytest.mark.parametrize(
    "asked",
    [
        SetMetadata(3, ANN.subject, b"{}"),
        SetMetadata(SubjectKind.ACCOUNT, b"short", b"{}"),
        SetMetadata(SubjectKind.EVENT, bytes(15) + b"\1", b"{}"),
    ],
)
def test_what_is_no_subject_is_malformed(replica: Replica, asked: SetMetadata) -> None:
    with pytest.raises(RemoteProtocolError):
        set_metadata(replica, asked, SALT)


def test_a_group_that_may_not_set_any_says_why(replica: Replica) -> None:
    replica.find_unready = lambda version: f"node 3 knows no entries of version {version}"
    with pytest.raises(UsageError, match="node 3 knows no entries of version 1"):
        set_metadata(replica, ANN, SALT)


# ---- crashes


def test_what_a_crash_left_to_be_erased_is_erased_at_the_next_start(
    replica: Replica, tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    set_metadata(replica, ANN, SALT)
    replica.write_group()
    set_metadata(replica, ANN_ERASED, SALT)
    replica.write_group()
    replica.log.close()
    replica._lock.release()
    assert marks_in(tmp_path) == {b"ann@example.org", SALT}
    opened(tmp_path, small, clock).close()
    assert marks_in(tmp_path) == set()


def test_a_crash_between_state_and_content_leaves_a_log_that_opens(
    replica: Replica, tmp_path: Path, small: ReplicaSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing._Place, "size_bytes", 1)  # only the state
    settled(replica, ANN)
    settled(replica, ANN_ERASED)
    monkeypatch.undo()
    assert marks_in(tmp_path) == {b"ann@example.org", SALT}
    replica.log.close()
    replica._lock.release()
    verify(tmp_path)
    opened(tmp_path, small, clock).close()
    assert marks_in(tmp_path) == set()
    verify(tmp_path)


def flip(folder: Path, mark: bytes, *, by: int, value: int) -> None:
    """Change a byte that lies so far from a mark in the first segment."""
    path = shard_directory(folder, 0).path / "segment-0000000001"
    data = bytearray(path.read_bytes())
    data[data.index(mark) + by] = value
    path.write_bytes(data)


def test_a_changed_byte_of_the_content_is_damage(replica: Replica, tmp_path: Path) -> None:
    settled(replica, ANN)
    replica.execute(transfers("world", "ann", 2))
    replica.write_group()
    replica.close()
    flip(tmp_path, b"ann@example.org", by=0, value=ord("x"))
    with pytest.raises(CorruptLog, match="body fails its checksum"):
        verify(tmp_path)


def test_content_that_is_erased_and_should_not_be_is_damage(replica: Replica, tmp_path: Path) -> None:
    settled(replica, ANN)
    replica.execute(transfers("world", "ann", 2))
    replica.write_group()
    replica.close()
    flip(tmp_path, SALT, by=-1, value=0xFF)
    with pytest.raises(CorruptLog, match="no entry behind it says"):
        verify(tmp_path)


# ---- checkpoints


def test_a_checkpoint_has_what_has_metadata(
    replica: Replica, tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    settled(replica, ANN)
    settled(replica, FIRST_EVENT)
    digest = replica.ledger.digest()
    replica.close()
    directory = shard_directory(tmp_path, 0)
    folder = CheckpointFolder(directory)
    log = open_log(directory, writable=False)
    restored = restore_ledger(folder, small.ledger_settings, log.read_events, shard=0, filter_bytes_max=0)
    checkpointer = Checkpointer(restored, log, folder, shard=0, filter_bytes_max=0, free_space_floor=0)
    for entry in log.open():
        checkpointer.take_in(entry)
    manifest = checkpointer.write()
    log.close()
    assert [section.name for section in manifest.sections][-1] == "metadata"
    again = opened(tmp_path, small, clock)
    assert again.start_index == manifest.point.index
    assert again.ledger.digest() == digest
    settled(again, ANN_ERASED)
    assert content(again, FIRST_EVENT) == FIRST_EVENT.content
    again.close()
    assert marks_in(tmp_path) == {b"opened by hand", SALT}
    assert verify(tmp_path).checkpoints == 1


# ---- groups


@pytest.fixture
def group(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> MemberGroup:
    members = MemberGroup(tmp_path, small, clock)
    members.elect(1)
    members.execute(opening_world("ann", "bob"))
    members.run(10)
    return members


def set_in(group: MemberGroup, asked: SetMetadata) -> None:
    leader = group.leader
    set_metadata(leader.replica, asked, SALT)
    leader.note_appended()


def finish_erasing(group: MemberGroup) -> None:
    for member in group.members.values():
        member.replica.erasing.finish()


def test_all_members_have_it_and_all_erase_it(group: MemberGroup, tmp_path: Path) -> None:
    set_in(group, ANN)
    group.run(10)
    assert [content(member.replica, ANN) for member in group.members.values()] == [ANN.content] * 3
    assert all(marks_in(group.folder(node)) == {b"ann@example.org", SALT} for node in group.nodes)
    set_in(group, ANN_ERASED)
    group.run(10)
    finish_erasing(group)
    assert marks_in(tmp_path) == set()
    assert len({member.replica.ledger.digest() for member in group.members.values()}) == 1
    group.close()


def test_a_follower_that_is_behind_gets_what_is_left(group: MemberGroup, tmp_path: Path) -> None:
    group.cut_off = {3}
    set_in(group, ANN)
    group.run(10)
    set_in(group, ANN_AGAIN)
    group.run(10)
    finish_erasing(group)
    group.cut_off = set()
    group.run(50)
    third = group.members[3].replica
    assert content(third, ANN) == ANN_AGAIN.content
    assert marks_in(group.folder(3)) == {b"ann@example.com", SALT}
    assert third.log.chain_hash == group.leader.replica.log.chain_hash
    group.close()


def test_nothing_is_erased_before_it_is_committed(group: MemberGroup) -> None:
    set_in(group, ANN)
    group.run(10)
    leader = group.leader
    group.cut_off = {1}
    set_metadata(leader.replica, ANN_ERASED, SALT)
    leader.note_appended()
    group.write(leader)
    group.settle()
    leader.replica.erasing.finish()
    assert marks_in(group.folder(1)) == {b"ann@example.org", SALT}
    group.close()


def test_voters_must_know_what_is_appended(group: MemberGroup) -> None:
    leader = group.leader
    assert leader.find_unready(1, {2: 1, 3: 2}) == ""
    assert "node 2 is of a version" in leader.find_unready(2, {2: 1, 3: 2})
    assert "node 2 has not said" in leader.find_unready(1, {3: 1})
    assert "node 3 is of a version" in leader.find_unready(1, {2: 1, 3: 0})
    group.close()


# ---- copies


def test_what_is_copied_leaves_out_what_is_not_wanted_and_is_whole(replica: Replica) -> None:
    settled(replica, ANN)
    kept = set_metadata(replica, FIRST_EVENT, SALT)
    first = replica.log.last_index - 1
    entries = memoryview(b"".join(replica.log.read_encoded(first, kept)))
    copied = leave_out(entries, split_span([entries]), lambda blob, index: index == kept)
    assert len(copied) == len(entries)
    erased, whole = split_span([copied])
    assert all(body_is_whole(entry.header, memoryview(entry.body)) for entry in (erased, whole))
    assert blob_content(bytes(erased.body)) is None
    assert blob_content(bytes(whole.body)) == FIRST_EVENT.content
    assert b"ann@example.org" not in bytes(copied)
    assert entry_hash(erased.encoded, erased.body) == whole.header.previous_hash
    assert leave_out(entries, split_span([entries]), lambda blob, index: True) is entries


def test_subjects_are_16_bytes_of_account_or_position() -> None:
    assert len(ANN.subject) == len(FIRST_EVENT.subject) == 16
    assert np.frombuffer(FIRST_EVENT.subject, np.int64).tolist() == [position_of(0, 1), 0]
