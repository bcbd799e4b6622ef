"""Claim: a node gives receipts that a client can check alone, for refusals too, and tells nothing of other events."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.following import Follower, open_follower
from bezant.engine.log.storage import Directory
from bezant.engine.proofs.hashing import salt_of
from bezant.engine.proofs.issuing import Issuer, TreeFolder
from bezant.engine.proofs.keys import KEY_NAME, open_key
from bezant.engine.proofs.leaves import secret_of
from bezant.engine.proofs.store import TREE_NAME
from bezant.engine.replica import Replica, ReplicaSettings, open_replica, shard_directory
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, StorageError, UsageError
from bezant.protocol.receipts import check_extends, check_head, check_receipt, hash_leaf
from bezant.protocol.records import EVENT, Records, Words, position_of

from ..commands import join, opening_world, transfer, transfers
from ..conftest import Clock

SETTINGS_EVENTS = 900


@pytest.fixture
def replica(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Iterator[Replica]:
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    replica.execute(opening_world("ann", "bob"))
    replica.execute(join(transfers("world", "ann", 5), transfer("bob", "ann", 9)))
    replica.write_group()
    yield replica
    replica.close()


def follow(replica: Replica, path: Path) -> Follower:
    replica.log.commit_index = replica.log.durable_index
    replica.execute(transfers("world", "ann", 1))
    replica.write_group()  # its watermark says that all before is committed
    follower = open_follower(shard_directory(path, 0))
    assert follower is not None
    follower.begin(None)
    return follower


def issuer_of(follower: Follower, path: Path, clock: Clock) -> Issuer:
    return Issuer(follower.log.read_events, lambda: open_key(path), shard=0, log_id=follower.log_id, clock_ns=clock)


def take_all(issuer: Issuer, follower: Follower) -> None:
    while entries := follower.take():
        issuer.take_in(entries)


def test_receipts_of_all_events_hold_refusals_included(replica: Replica, tmp_path: Path, clock: Clock) -> None:
    follower = follow(replica, tmp_path)
    issuer = issuer_of(follower, tmp_path, clock)
    take_all(issuer, follower)
    assert issuer.size == follower.last_sequence >= 9
    results = []
    for sequence in range(1, issuer.size + 1):
        found = check_receipt(
            issuer.receipt(position_of(0, sequence)), key=issuer.public_key, log_id=follower.public_id
        )
        event = np.frombuffer(found.event, EVENT)[0]
        results.append(int(event["result"]))
        assert found.event == follower.log.read_events(np.array([sequence])).tobytes()
        assert found.head == issuer.head()
    assert results.count(int(ResultCode.INSUFFICIENT_FUNDS)) == 1
    follower.close()


def test_a_receipt_over_many_blocks_extends_an_earlier_one(replica: Replica, tmp_path: Path, clock: Clock) -> None:
    follower = follow(replica, tmp_path)
    issuer = issuer_of(follower, tmp_path, clock)
    take_all(issuer, follower)
    earlier, old_head = issuer.receipt(position_of(0, 4)), issuer.head()
    for _ in range(6):
        replica.execute(transfers("world", "ann", 150))
        replica.write_group()
    late = follow(replica, tmp_path)
    take_all(issuer_again := issuer_of(late, tmp_path, clock), late)
    assert issuer_again.size >= SETTINGS_EVENTS
    later = issuer_again.receipt(position_of(0, 700), old_head.size)
    check_receipt(later, extends=earlier)
    head = issuer_again.head()
    check_head(head, issuer.public_key)
    path = tuple(issuer_again.consistency(old_head.size, head.size))
    check_extends(old_head.size, old_head.root, head.size, head.root, path)
    follower.close()
    late.close()


def test_nobody_waits_for_what_a_proof_has_fetched(replica: Replica, tmp_path: Path, clock: Clock) -> None:
    """What is in an archive may take minutes to come: the tree grows meanwhile, and heads are given."""
    for _ in range(4):
        replica.execute(transfers("world", "ann", 150))
        replica.write_group()
    follower = follow(replica, tmp_path)
    here: set[int] = set()
    asked_in_vain: list[int] = []

    def read_events(sequences: Words) -> Records:
        if issuer._lock.locked():
            asked_in_vain.extend(set(sequences.tolist()) - here)
        here.update(sequences.tolist())
        return follower.log.read_events(sequences)

    issuer = Issuer(read_events, lambda: open_key(tmp_path), shard=0, log_id=follower.log_id, clock_ns=clock)
    take_all(issuer, follower)
    for sequence, extends_size in ((3, 0), (300, 100), (issuer.size, issuer.size)):
        here.clear()
        check_receipt(issuer.receipt(position_of(0, sequence), extends_size))
        assert here
    here.clear()
    issuer.consistency(100, 400)
    assert here
    assert asked_in_vain == []
    follower.close()


def test_receipts_tell_nothing_of_other_events(replica: Replica, tmp_path: Path, clock: Clock) -> None:
    """The hash beside a leaf is not that of the event beside it, unless one knows its salt, nor is the log's number
    in a receipt, from which that could be computed."""
    follower = follow(replica, tmp_path)
    issuer = issuer_of(follower, tmp_path, clock)
    take_all(issuer, follower)
    found = check_receipt(issuer.receipt(position_of(0, 5)))
    beside = follower.log.read_events(np.array([6], np.int64)).tobytes()
    assert found.path[0] == hash_leaf(salt_of(secret_of(follower.log_id), 6), beside, 6)
    for guessed in (bytes(16), found.salt):
        assert found.path[0] != hash_leaf(guessed, beside, 6)
    assert follower.log_id.to_bytes(8, "little", signed=True) not in issuer.receipt(position_of(0, 5))
    follower.close()


def test_positions_that_are_not_there_are_refused_in_words(replica: Replica, tmp_path: Path, clock: Clock) -> None:
    follower = follow(replica, tmp_path)
    issuer = issuer_of(follower, tmp_path, clock)
    take_all(issuer, follower)
    for position in (0, -1, issuer.size + 1, position_of(1, 1)):
        with pytest.raises(UsageError, match=f"position {position} is none of this log"):
            issuer.receipt(position)
    for size in (-1, issuer.size + 1):
        with pytest.raises(UsageError, match="is not the beginning of one"):
            issuer.receipt(position_of(0, 1), size)
    with pytest.raises(UsageError):
        issuer.consistency(0, 1)
    follower.close()


def test_a_tree_goes_on_where_it_was_saved_and_is_made_again_when_it_is_gone(
    replica: Replica, tmp_path: Path, clock: Clock
) -> None:
    replica.execute(transfers("world", "ann", 290))
    replica.write_group()
    follower = follow(replica, tmp_path)
    notices: list[str] = []
    directory = Directory(tmp_path / "proofs")
    folder = TreeFolder(directory, 0, follower.log_id, notices.append)
    assert folder.loaded is None
    issuer = issuer_of(follower, tmp_path, clock)
    take_all(issuer, follower)
    point = follower.log.resume_point()
    assert not folder.is_due(issuer)
    assert folder.is_due(issuer, 1)
    folder.save(issuer, None)
    assert folder.is_due(issuer, 1)
    folder.save(issuer, point)
    assert not folder.is_due(issuer, 1)
    follower.close()

    replica.execute(transfers("world", "ann", 280))
    replica.write_group()
    late = follow(replica, tmp_path)
    stored = TreeFolder(directory, 0, late.log_id, notices.append).loaded
    assert stored is not None
    assert stored.size == issuer.size
    going_on = Issuer(
        late.log.read_events, lambda: open_key(tmp_path), shard=0, log_id=late.log_id, stored=stored, clock_ns=clock
    )
    take_all(going_on, late)  # from the beginning: what is known is passed over
    anew = issuer_of(late, tmp_path, clock)
    late.close()
    late = follow(replica, tmp_path)
    take_all(anew, late)
    assert anew.size >= going_on.size > issuer.size
    check_receipt(anew.receipt(position_of(0, 3), going_on.size), extends=going_on.receipt(position_of(0, 9)))
    assert notices == []

    (directory.path / TREE_NAME).write_bytes(b"something else")
    assert TreeFolder(directory, 0, late.log_id, notices.append).loaded is None
    assert "is made again from the log" in notices[0]
    late.close()


def test_a_gap_in_what_is_taken_in_is_found(replica: Replica, tmp_path: Path, clock: Clock) -> None:
    follower = follow(replica, tmp_path)
    issuer = issuer_of(follower, tmp_path, clock)
    entries = [entry for entry in follower.take() if entry.header.count]
    with pytest.raises(CorruptLog, match="begins with event"):
        issuer.take_in(entries[1:])
    assert issuer.size == 0
    follower.close()


# ---- keys ----


def test_the_key_stays_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = open_key(tmp_path)
    assert open_key(tmp_path).public == made.public
    assert (tmp_path / KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]
    assert open_key(_folder(tmp_path / "other")).public != made.public


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_what_is_no_key_or_can_be_read_by_others_is_refused(tmp_path: Path) -> None:
    open_key(tmp_path)
    path = tmp_path / KEY_NAME
    path.chmod(0o644)
    with pytest.raises(StorageError, match="can be read by others"):
        open_key(tmp_path)
    path.chmod(0o600)
    data = path.read_bytes()
    for wrong in (b"", data[:-1], data + b"x", b"x" + data[1:]):
        path.write_bytes(wrong)
        with pytest.raises(StorageError, match="is not the key of receipts"):
            open_key(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="cannot be read"):
        open_key(tmp_path)
    with pytest.raises(StorageError, match="cannot be made"):
        open_key(tmp_path / "missing")
