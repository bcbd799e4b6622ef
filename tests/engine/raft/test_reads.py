"""Claim: a read sees everything acknowledged before it, and one that cannot be sure of that is not answered."""

import pytest

from bezant.engine.raft.interface import CoreSettings, NotLeader
from bezant.protocol.raft_messages import Append, Heartbeat, HeartbeatReply, RaftMessage

from .groups import Group


def is_append(message: RaftMessage) -> bool:
    return isinstance(message, Append)


def test_a_read_waits_until_the_leader_has_committed_in_its_term() -> None:
    """Before that the leader does not know what its predecessor committed."""
    group = Group()
    index = group.elect(1).propose(5)
    group.deliver()
    group.crash(1)
    for node in (2, 3):
        group[node].core.leader_lost()
    group[2].core.campaign()
    group.deliver(lose=is_append)
    assert group.leaders() == [2]
    assert group[2].core.commit_index < index
    ticket = group[2].core.request_read()
    group.tick(10, lose=is_append)
    assert group[2].reads == {}
    group.tick(20)
    assert group[2].reads[ticket] > index


def test_a_read_waits_until_a_quorum_knows_no_other_leader() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    group.isolate(1)
    ticket = leader.core.request_read()
    group.tick(20)
    assert leader.reads == {}
    group.tick(100)
    assert leader.reads_lost == [ticket]
    assert leader.reads == {}


def test_an_answer_to_an_earlier_question_confirms_no_later_read() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    first = leader.core.request_read()
    group.hand(group.take(Heartbeat, 2))
    early = group.take(HeartbeatReply, 1)
    leader.core.request_read()
    group.collect()
    group.hand(early)
    assert set(leader.reads) == {first}


def test_reads_that_come_together_share_one_question() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    tickets = [leader.core.request_read() for _ in range(20)]
    messages = group.collect()
    assert len(messages) == 2
    group.deliver()
    assert sorted(leader.reads) == tickets


def test_a_sole_voter_answers_at_once() -> None:
    group = Group(1)
    group[1].core.campaign()
    group[1].settle()
    ticket = group[1].core.request_read()
    group[1].settle()
    assert group[1].reads == {ticket: 1}


def test_only_the_leader_takes_reads() -> None:
    group = Group()
    group.elect(1)
    with pytest.raises(NotLeader):
        group[2].core.request_read()


def test_no_ticket_is_used_twice_and_too_many_reads_are_lost_at_once() -> None:
    group = Group(settings=CoreSettings(reads_waiting_max=2))
    leader = group.elect(1)
    group.isolate(1)
    tickets = [leader.core.request_read() for _ in range(3)]
    leader.settle()
    assert leader.reads_lost == tickets[2:]
    group.tick(100)
    assert sorted(leader.reads_lost) == tickets
    group.heal()
    group.tick(100)
    again = group.elect(1).core.request_read()
    assert again not in tickets


def test_a_leader_that_was_cut_off_knows_nothing_of_what_it_appended() -> None:
    """So its clients hear "unknown": what it appended last may be replaced, or may not."""
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    committed = leader.core.commit_index
    group.isolate(1)
    leader.propose(3)
    group.tick(200)
    assert leader.core.commit_index == committed
    assert not leader.is_leader
    (node,) = group.leaders()
    group[node].propose(2)
    group.tick(2)
    group.heal()
    group.tick(50)
    assert leader.log.entries == group[node].log.entries
    assert leader.core.commit_index == group[node].core.commit_index
