"""Claim: a state takes the place of entries only where these are missing, and nothing older takes the place of it."""

import pytest

from bezant.engine.raft.interface import CoreSettings
from bezant.protocol.errors import LedgerError
from bezant.protocol.raft_messages import Append, AppendReply, Heartbeat, TermRun

from .groups import Group
from .peers import Entry, Letter, Peer, configuration, memory_log

THREE = configuration([1, 2, 3])


def behind_an_archive() -> Group:
    """Node 1 leads and can send nothing before entry 8; node 3 has one entry."""
    group = Group(logs={1: [1] * 10, 2: [1] * 10, 3: [1]})
    group[1].log.archived_index = 7
    group.elect(1)
    group.tick(12)
    return group


def test_a_member_that_needs_what_cannot_be_sent_gets_a_state_then_entries() -> None:
    group = behind_an_archive()
    leader = group[1]
    assert leader.snapshots_wanted == [3]
    leader.propose(3)
    group.tick(60)
    assert leader.snapshots_wanted == [3]
    index = leader.core.commit_index
    assert group[3].install(index, leader.core.term, THREE)
    leader.core.snapshot_done(3, index)
    leader.propose()
    group.tick(3)
    assert group.commits() == [leader.log.last_index] * 3


def test_a_state_that_did_not_arrive_is_asked_for_again_and_not_without_pause() -> None:
    group = behind_an_archive()
    leader = group[1]
    for count in range(2, 6):
        leader.core.snapshot_done(3, None)
        group.deliver()
        assert len(leader.snapshots_wanted) == count - 1
        group.tick(6)
        assert len(leader.snapshots_wanted) == count


def test_the_driver_may_prefer_a_state_to_many_entries() -> None:
    group = Group()
    leader = group.elect(1)
    leader.core.begin_snapshot(3)
    leader.propose(5)
    assert leader.snapshots_wanted == [3]
    assert group.take(Append, 3) == []


def test_a_state_discards_a_suffix_that_contradicts_it() -> None:
    peer = Peer(3, THREE, log=memory_log([1, 1, 2, 2, 2]))
    assert peer.core.wants_snapshot(4, 3)
    with pytest.raises(LedgerError, match="the log ends otherwise"):
        peer.core.installed(4, 3, THREE)
    assert peer.install(4, 3, THREE)
    assert peer.log.last_index == peer.core.commit_index == 4
    peer.receive(Letter(Append(1, 3, 3, 4, 3, (TermRun(5, 3),), 5, 5, 1), (Entry(3, 9),)))
    assert [letter.message for letter in peer.outbox] == [AppendReply(3, 1, 3, False, 5, 0, 0, 1)]
    assert peer.core.commit_index == 5


def test_a_state_that_was_installed_is_acknowledged() -> None:
    peer = Peer(3, THREE)
    peer.receive(Letter(Heartbeat(1, 3, 4, 0, 0, 1)))
    peer.outbox.clear()
    peer.install(10, 3, THREE)
    assert [letter.message for letter in peer.outbox] == [AppendReply(3, 1, 4, False, 10, 0, 0, 1)]


def test_a_state_that_is_older_than_what_is_committed_is_not_wanted() -> None:
    peer = Peer(3, THREE)
    assert peer.install(10, 2, THREE)
    assert not peer.install(10, 2, THREE)
    assert not peer.install(7, 1, THREE)
    assert peer.log.last_index == 10


def test_a_state_whose_entries_are_all_here_only_commits_them() -> None:
    peer = Peer(3, THREE, log=memory_log([1] * 10))
    assert not peer.install(7, 1, THREE)
    assert peer.core.commit_index == 7
    assert peer.log.last_index == 10


def test_entries_that_were_sent_before_the_state_take_nothing_back() -> None:
    peer = Peer(3, THREE)
    peer.install(10, 2, THREE)
    peer.receive(Letter(Append(1, 3, 2, 3, 1, (TermRun(4, 1),), 6, 6, 1), (Entry(1), Entry(1), Entry(1))))
    assert peer.log.last_index == peer.core.commit_index == 10


def test_a_state_resets_a_configuration_that_was_never_committed() -> None:
    """Even one at a higher index: that entry is gone."""
    peer = Peer(3, THREE)
    entries = (*[Entry(1, number) for number in range(11)], Entry(1, 0, configuration([3, 4, 5])))
    peer.receive(Letter(Append(1, 3, 1, 0, 0, (TermRun(1, 1),), 12, 0, 1), entries))
    assert peer.core.configuration == configuration([3, 4, 5])
    peer.install(10, 2, THREE)
    assert peer.core.configuration == THREE


def test_a_sync_that_began_before_the_state_does_not_count() -> None:
    peer = Peer(3, THREE, syncs_itself=False)
    peer.receive(Letter(Append(1, 3, 1, 0, 0, (TermRun(1, 1),), 12, 0, 1), tuple(Entry(1) for _ in range(12))))
    late = peer.begin_sync()
    peer.install(10, 2, THREE)
    peer.end_sync(late)
    assert peer.core.status().durable_index == 10


def test_a_leader_takes_no_state() -> None:
    group = Group(settings=CoreSettings())
    leader = group.elect(1)
    assert not leader.core.wants_snapshot(100, 9)
    with pytest.raises(LedgerError):
        leader.core.installed(100, 9, THREE)
