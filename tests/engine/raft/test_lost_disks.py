"""Claim: a disk that lost what it had acknowledged, or is blank, decides nothing until it has all of that again."""

import itertools

from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.membership import NOBODY
from bezant.engine.raft.roles import Role
from bezant.protocol.raft_messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

from .groups import Group
from .peers import Entry, Letter, Peer, configuration, memory_log

THREE = configuration([1, 2, 3])


def lose(group: Group, node: int, durable_index: int) -> Peer:
    """A node crashes, and its recovery cuts what it had acknowledged behind `durable_index`."""
    group.crash(node)
    peer = group[node]
    peer.durable_index = durable_index
    peer.commit_hint = min(peer.core.commit_index, durable_index)
    peer.hard_state = HardState(peer.hard_state.term, peer.hard_state.voted_for, True)
    return group.restart(node)


def is_barred(peer: Peer) -> bool:
    return peer.core.status().barred


def test_a_member_that_lost_a_committed_entry_helps_to_elect_nobody_who_lacks_it() -> None:
    """The entry is on nodes 1 and 2 and committed; node 2 loses it, and node 3 never had it."""
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    group.isolate(3)
    index = leader.propose()
    group.tick(2)
    assert leader.core.commit_index == index
    lose(group, 2, index - 1)
    group.heal()
    group.stopped.add(1)
    group.tick(300)
    assert group.leaders() == []
    group.stopped.discard(1)
    group.tick(300)
    assert len(group.leaders()) == 1
    assert all(peer.log.entry(index) == leader.log.entry(index) for peer in group.peers.values())
    assert not is_barred(group[2])
    assert group[2].hard_state.barred is False


def test_the_leader_counts_again_from_nothing_and_sends_all_that_was_lost() -> None:
    group = Group()
    leader = group.elect(1)
    leader.propose(50)
    group.tick(2)
    lose(group, 2, 10)
    leader.propose(5)
    group.tick(12)
    assert group[2].log.entries == leader.log.entries
    assert not is_barred(group[2])


def test_a_barred_member_neither_votes_nor_campaigns() -> None:
    peer = Peer(2, THREE, log=memory_log([1, 1]), hard_state=HardState(3, 0, True))
    for is_pre, is_transfer in itertools.product((True, False), (True, False)):
        peer.receive(Letter(VoteRequest(1, 2, 9, 100, 8, is_pre, is_transfer)))
    assert [message.message.granted for message in peer.outbox if isinstance(message.message, VoteReply)] == [False] * 4
    peer.outbox.clear()
    peer.tick(300)
    peer.core.campaign()
    peer.receive(Letter(TimeoutNow(1, 2, 9)))
    assert peer.core.role is Role.FOLLOWER
    assert peer.outbox == []


def test_a_blank_disk_neither_votes_nor_campaigns() -> None:
    peer = Peer(2, NOBODY, hard_state=HardState(barred=True))
    peer.receive(Letter(VoteRequest(1, 2, 9, 100, 8, False, False)))
    assert [letter.message for letter in peer.outbox] == [VoteReply(2, 1, 9, False, False)]


def test_what_was_told_before_the_leader_knew_of_the_loss_does_not_do() -> None:
    """The leader may yet commit an entry by the acknowledgement that the member gave before it lost the entry."""
    group = Group()
    leader = group.elect(1)
    leader.propose()
    group.tick(2)
    committed = leader.core.commit_index
    group.isolate(3)
    leader.syncs_itself = False
    index = leader.propose()
    group.deliver()
    assert leader.core.commit_index == committed == index - 1
    peer = lose(group, 2, committed)
    assert peer.core.commit_index == committed
    leader.tick(5)
    group.hand(group.take(Heartbeat, 2))
    assert is_barred(peer)
    leader.sync()
    assert leader.core.commit_index == index
    group.heal()
    group.tick(12)
    assert peer.log.entry(index) == leader.log.entry(index)
    assert not is_barred(peer)


def test_what_a_leader_tells_that_has_not_committed_in_its_term_does_not_do() -> None:
    """It may itself not know yet of what the member had helped to commit."""
    peer = Peer(2, THREE, log=memory_log([1]), hard_state=HardState(3, 0, True))
    peer.receive(Letter(Heartbeat(1, 2, 5, 1, 0, 1)))
    session = next(item.message.lost for item in peer.outbox if isinstance(item.message, AppendReply))
    entries = (Entry(1, 7), Entry(5, 8))
    peer.receive(Letter(Append(1, 2, 5, 1, 1, (TermRun(2, 1), TermRun(3, 5)), 3, 1, session), entries))
    assert is_barred(peer)
    peer.receive(Letter(Heartbeat(1, 2, 5, 2, 0, session)))
    assert is_barred(peer)
    peer.receive(Letter(Heartbeat(1, 2, 5, 3, 0, session)))
    assert not is_barred(peer)
    assert peer.hard_state == HardState(5, 0, False)


def test_a_barred_member_waits_until_what_it_was_told_is_on_its_disk() -> None:
    peer = Peer(2, THREE, hard_state=HardState(1, 0, True), syncs_itself=False)
    peer.receive(Letter(Heartbeat(1, 2, 1, 1, 0, 1)))
    session = next(item.message.lost for item in peer.outbox if isinstance(item.message, AppendReply))
    peer.receive(Letter(Append(1, 2, 1, 0, 0, (TermRun(1, 1),), 1, 1, session), (Entry(1, 1),)))
    assert is_barred(peer)
    peer.sync()
    peer.settle()
    assert not is_barred(peer)


def test_an_acknowledgement_from_before_the_loss_does_not_count_after_it() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    group.isolate(3)
    leader.propose(3)
    group.hand(group.take(Append, 2))
    late = group.take(AppendReply, 1)
    peer = lose(group, 2, 1)
    leader.tick(5)
    group.hand(group.take(Heartbeat, 2))
    group.hand(group.take(AppendReply, 1))
    group.heal()
    group.hand(group.take(Heartbeat, 3))
    group.hand(group.take(HeartbeatReply, 1))
    group.take(Append)
    committed = leader.core.commit_index
    group.hand(late)
    assert leader.core.commit_index == committed
    assert is_barred(peer)


def forgotten_election() -> tuple[Group, Peer, int]:
    """Node 1 led and has not noticed since that node 3 elected node 2, which has committed an entry with it. Node 3 has
    lost its disk and knows nothing of that; node 2 is away. Returns node 1, and the index of the entry."""
    group = Group()
    leader = group.elect(1)
    leader.propose()
    group.tick(2)
    group.isolate(1)
    later = group.elect(2)
    index = later.propose()
    group.tick(2)
    assert later.core.commit_index == group[3].core.commit_index == index
    assert leader.is_leader and leader.core.commit_index < index
    group.stopped.add(2)
    group.crash(3)
    wiped = group[3]
    wiped.log.truncate(0)
    wiped.durable_index = wiped.commit_hint = 0
    wiped.hard_state = HardState(barred=True)
    group.restart(3)
    group.heal()
    return group, leader, index


def test_a_leader_of_the_past_commits_nothing_with_a_disk_that_forgot_its_successor() -> None:
    group, leader, index = forgotten_election()
    leader.propose(3)
    group.tick(15)
    assert leader.core.commit_index < index
    assert is_barred(group[3])
    group.stopped.discard(2)
    group.tick(300)
    assert len(group.leaders()) == 1
    assert {peer.log.entry(index) for peer in group.peers.values()} == {group[2].log.entry(index)}
    assert not is_barred(group[3])


def test_a_leader_of_the_past_answers_no_read_with_a_disk_that_forgot_its_successor() -> None:
    group, leader, _ = forgotten_election()
    ticket = leader.core.request_read()
    group.tick(15, lose=lambda message: isinstance(message, AppendReply))
    assert ticket not in leader.reads
    group.tick(10)
    assert ticket not in leader.reads
