"""Claim: when a majority is gone for ever one node can go on with what it has; it is recorded, and no other returns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bezant.engine.going_alone import go_on_alone
from bezant.engine.log.log import open_log
from bezant.engine.log.storage import Directory
from bezant.engine.node_file import joining_node
from bezant.engine.raft.membership import MembershipChange
from bezant.engine.replica import ReplicaSettings
from bezant.protocol.errors import DataFolderInUse, LedgerError, UsageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import decode_control_entry

from .commands import opening_world, transfers
from .conftest import Clock
from .group import MemberGroup


@pytest.fixture
def left(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Iterator[MemberGroup]:
    """A group of which node 1 alone is left, and stopped. The last entry in its log was never committed."""
    group = MemberGroup(tmp_path, small, clock)
    group.elect(1)
    group.execute(opening_world("ann", "bob"))
    group.run(10)
    group.close(2, 3)
    group.execute(transfers("ann", "bob", 20))
    group.settle()
    group.close(1)
    yield group
    group.close()


def recover(group: MemberGroup, small: ReplicaSettings):
    return go_on_alone(group.folder(1), group.nodes[1], small)


def test_it_leads_at_once_and_has_all_that_was_in_its_log(left: MemberGroup, small: ReplicaSettings) -> None:
    gone = recover(left, small)
    assert (gone.members_before, gone.voters_before) == ([1, 2, 3], [1, 2, 3])
    assert gone.committed_index == gone.last_index - 1
    member = left.open(1)
    assert member.is_leader and member.is_alone
    assert member.term > gone.term
    assert member.replica.applied_index == member.replica.log.last_index == gone.last_index + 2
    assert member.replica.ledger.next_sequence == 24
    left.execute(transfers("ann", "bob", 1))
    left.settle()
    assert member.committed_index == member.replica.log.last_index


def test_the_log_says_for_ever_what_was_done(left: MemberGroup, small: ReplicaSettings) -> None:
    gone = recover(left, small)
    log = open_log(Directory(left.shard_folder(1)), writable=False)
    *_, configuration, note = log.open()
    assert configuration.header.kind == EntryKind.CONFIGURATION
    assert decode_control_entry(note.body).created_by == gone.note
    log.close()
    assert "accepting that acknowledged transfers may be lost" in gone.note
    assert f"up to {gone.committed_index} were known to be committed" in gone.note


def test_new_nodes_join_it(left: MemberGroup, small: ReplicaSettings) -> None:
    recover(left, small)
    left.open(1)
    left.wipe(2)
    file = left.nodes[2] = joining_node(2, ["h:1"], peer_address="h:201", client_address="h:202")
    left.leader.change_membership(MembershipChange(add=[file.member]))
    joined = left.open(2, log_id=left.leader.replica.log.log_id)
    left.run(20)
    left.leader.change_membership(MembershipChange(promote=[2]))
    left.run(20)
    assert joined.configuration.voters == [1, 2]
    assert joined.replica.ledger.digest() == left.leader.replica.ledger.digest()


def test_a_disk_with_the_other_history_is_not_let_back_in(left: MemberGroup, small: ReplicaSettings) -> None:
    """Nodes 2 and 3 had gone on without node 1, and somebody lets node 2 in again on its old disk."""
    left.open(2)
    left.open(3)
    left.elect(2)
    for _ in range(5):
        left.execute(transfers("ann", "bob", 5))
    left.run(10)
    left.close()
    recover(left, small)
    left.open(1)
    left.open(2)
    left.on_the_way.clear()
    with pytest.raises(LedgerError, match="a member has lost what it had acknowledged"):
        left.leader.change_membership(MembershipChange(add=[left.nodes[2].member]))
        left.run(20)
    left.on_the_way.clear()


def test_it_is_not_done_twice(left: MemberGroup, small: ReplicaSettings) -> None:
    recover(left, small)
    with pytest.raises(UsageError, match="alone already"):
        recover(left, small)


def test_a_node_that_runs_is_not_touched(left: MemberGroup, small: ReplicaSettings) -> None:
    left.open(1)
    with pytest.raises(DataFolderInUse):
        recover(left, small)


def test_a_barred_disk_may_go_on_too(left: MemberGroup, small: ReplicaSettings) -> None:
    """There is nobody left whose word it could wait for."""
    left.wipe(2)
    left.open(2)
    left.close(2)
    assert go_on_alone(left.folder(2), left.nodes[2], small).last_index == 1
    assert left.open(2).is_leader
