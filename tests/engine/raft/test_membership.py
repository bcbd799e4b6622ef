"""Claim: members come and go while the group works, and never can two majorities that do not overlap decide."""

import pytest

from bezant.engine.raft.interface import NotLeader, NotYet
from bezant.engine.raft.membership import NOBODY, MembershipChange, changed, is_joint, left
from bezant.engine.raft.quorum import can_be_quorum, is_quorum, quorum_value
from bezant.engine.raft.roles import Role
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.messages import Configuration, Member
from bezant.protocol.raft_messages import (
    Append,
    AppendReply,
    HeartbeatReply,
    RaftMessage,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

from .groups import Group
from .peers import Entry, Letter, Peer, configuration, member, memory_log

JOINT = configuration([1, 2, 3], [3, 4, 5])


def with_learners(*nodes: int) -> Group:
    """Voters 1 to 3, led by 1, and learners that have caught up."""
    group = Group()
    group.elect(1)
    group.tick(6)
    if nodes:
        for node in nodes:
            group.add(node)
        change(group, MembershipChange(add=[member(node) for node in nodes]))
        group.tick(20)
    return group


def change(group: Group, what: MembershipChange) -> Peer:
    """The leader appends a change."""
    leader = group[group.leaders()[0]]
    leader.change(leader.core.change_membership(what))
    return leader


@pytest.mark.parametrize(
    ("nodes", "is_enough"),
    [
        ({1, 2, 4, 5}, True),
        ({2, 3, 4}, True),
        ({1, 2, 4}, False),
        ({1, 2}, False),
        ({3, 4, 5}, False),
        ({1, 2, 3}, False),
        ({6, 7, 8, 9, 10}, False),
    ],
)
def test_each_half_of_a_joint_configuration_must_agree(nodes: set[int], is_enough: bool) -> None:
    assert is_quorum(JOINT, nodes) is is_enough
    assert (quorum_value(JOINT, dict.fromkeys(nodes, 7)) == 7) is is_enough
    assert can_be_quorum(JOINT, {1, 2, 3, 4, 5} - nodes) is is_enough


def test_nobody_is_no_quorum() -> None:
    assert not is_quorum(NOBODY, {1, 2, 3})
    assert quorum_value(NOBODY, {1: 9}) == 0


@pytest.mark.parametrize(
    ("voters", "value"), [([1], 9), ([1, 2], 7), ([1, 2, 3], 7), ([1, 2, 3, 4], 5), ([2, 3, 4], 5)]
)
def test_what_a_majority_has_reached(voters: list[int], value: int) -> None:
    assert quorum_value(configuration(voters), {1: 9, 2: 7, 3: 5, 4: 3}) == value


def test_one_voter_more_or_less_is_one_entry_and_more_is_a_joint_configuration() -> None:
    now = configuration([1, 2, 3], learners=[4, 5])
    assert changed(now, MembershipChange(promote=[4])) == configuration([1, 2, 3, 4], learners=[5])
    assert changed(now, MembershipChange(demote=[3])) == configuration([1, 2], learners=[4, 5, 3])
    joint = changed(now, MembershipChange(promote=[4], demote=[3], remove=[2, 5]))
    assert joint == configuration([1, 4], [1, 2, 3], [], [3])
    assert left(joint) == configuration([1, 4], learners=[3])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (MembershipChange(), "nothing"),
        (MembershipChange(promote=[3]), "not a learner"),
        (MembershipChange(promote=[9]), "not a learner"),
        (MembershipChange(demote=[4]), "not a voter"),
        (MembershipChange(remove=[9]), "not in the group"),
        (MembershipChange(remove=[1, 2, 3]), "needs a voter"),
        (MembershipChange(promote=[4], remove=[4]), "twice"),
        (MembershipChange(add=[member(4), member(4)]), "twice"),
        (MembershipChange(add=[member(3)], remove=[3]), "twice"),
        (MembershipChange(add=[Member(3, 2, "", "")]), "another disk"),
        (MembershipChange(add=[Member(7, 1, "a:1", "a:1")]), "address"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(what: MembershipChange, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        changed(configuration([1, 2, 3], learners=[4]), what)


def test_addresses_may_change() -> None:
    moved = Member(3, 1, "b:1", "b:2")
    found = changed(configuration([1, 2, 3]), MembershipChange(add=[moved]))
    assert found.members[2] == moved
    assert found.voters == [1, 2, 3]


def test_no_change_before_the_leader_has_committed_in_its_term() -> None:
    """Two changes by two leaders, the first of them not yet known to be cut, may else have majorities side by side."""
    group = Group()
    leader = group.elect(1)
    group.crash(1)
    for node in (2, 3):
        group[node].core.leader_lost()
    group[2].core.campaign()
    group.deliver(lose=lambda message: isinstance(message, Append))
    leader = group[2]
    assert leader.is_leader
    group.tick(6, lose=lambda message: isinstance(message, Append))
    with pytest.raises(UsageError, match="not committed an entry in its term"):
        leader.core.change_membership(MembershipChange(remove=[1]))
    group.tick(20)
    assert leader.core.change_membership(MembershipChange(remove=[1])).voters == [2, 3]


def test_one_change_at_a_time() -> None:
    group = with_learners(4)
    group.isolate(1)
    leader = change(group, MembershipChange(promote=[4]))
    with pytest.raises(UsageError, match="under way"):
        leader.core.change_membership(MembershipChange(remove=[3]))
    with pytest.raises(LedgerError, match="not committed"):
        leader.change(configuration([1, 2, 4]))


def test_only_the_leader_changes_members() -> None:
    group = with_learners(4)
    with pytest.raises(NotLeader):
        group[2].core.change_membership(MembershipChange(promote=[4]))


def test_a_learner_gets_everything_and_counts_for_nothing() -> None:
    group = with_learners(4)
    leader = group[1]
    assert group[4].log.entries == leader.log.entries
    group.isolate(1, 4)
    committed = leader.core.commit_index
    leader.propose()
    group.tick(10)
    assert group[4].log.last_index == leader.log.last_index
    assert leader.core.commit_index == committed


def test_a_learner_that_lacks_much_is_not_promoted() -> None:
    group = with_learners()
    group.add(4)
    group.isolate(4)
    change(group, MembershipChange(add=[member(4)]))
    group.tick(2)
    with pytest.raises(UsageError, match="caught up"):
        group[1].core.change_membership(MembershipChange(promote=[4]))
    # What is no learner never catches up: that is said at once, and is nothing to wait for.
    with pytest.raises(UsageError, match="not a learner") as refused:
        group[1].core.change_membership(MembershipChange(promote=[9]))
    assert not isinstance(refused.value, NotYet)
    group.heal()
    group.tick(20)
    assert group[1].core.change_membership(MembershipChange(promote=[4])).voters == [1, 2, 3, 4]


def test_a_change_that_would_leave_too_few_to_elect_is_refused() -> None:
    group = with_learners()
    group.isolate(3)
    group.tick(40)
    with pytest.raises(UsageError, match="up and ready"):
        group[1].core.change_membership(MembershipChange(remove=[2]))
    assert group[1].core.change_membership(MembershipChange(remove=[3])).voters == [1, 2]


def test_a_joint_configuration_is_left_by_itself_once_both_halves_have_it() -> None:
    group = with_learners(4, 5)
    leader = change(group, MembershipChange(promote=[4, 5], remove=[2, 3]))
    index = leader.log.last_index
    group.isolate(1, 2, 3)
    group.tick(10)
    assert leader.core.commit_index < index
    assert is_joint(leader.core.configuration)
    group.heal()
    group.tick(20)
    assert leader.core.configuration == configuration([1, 4, 5])
    assert leader.core.status().configuration_committed
    index = leader.propose()
    group.tick(2)
    assert [group[node].core.commit_index for node in (1, 4, 5)] == [index] * 3


def test_a_new_leader_leaves_the_joint_configuration_that_another_began() -> None:
    group = with_learners(4, 5)
    change(group, MembershipChange(promote=[4, 5], remove=[3]))
    group.deliver(lose=lambda message: isinstance(message, AppendReply))
    group.crash(1)
    group.tick(200)
    (node,) = group.leaders()
    assert group[node].core.configuration == configuration([1, 2, 4, 5])


def test_a_joint_configuration_counts_from_the_start() -> None:
    log = [Entry(1, 0, configuration([1, 4, 5], [1, 2, 3]))]
    peer = Peer(1, configuration([1, 2, 3]))
    peer.log.entries = log
    peer.durable_index = 1
    peer.start()
    peer.core.campaign()
    peer.settle()
    assert {letter.message.receiver for letter in peer.outbox} == {2, 3, 4, 5}
    for voter in (2, 3):
        peer.receive(Letter(VoteReply(voter, 1, peer.core.term + 1, True, True)))
    assert peer.core.role is Role.PRE_CANDIDATE
    peer.receive(Letter(VoteReply(4, 1, peer.core.term + 1, True, True)))
    assert peer.core.role is Role.CANDIDATE


def test_a_configuration_that_is_cut_off_is_in_force_no_more() -> None:
    peer = Peer(2, configuration([1, 2, 3]))
    entry = Entry(1, 0, configuration([1, 2, 3, 4]))
    peer.receive(Letter(Append(1, 2, 1, 0, 0, (TermRun(1, 1),), 2, 1, 1), (Entry(1, 1), entry)))
    assert peer.core.configuration.voters == [1, 2, 3, 4]
    peer.receive(Letter(Append(3, 2, 2, 1, 1, (TermRun(2, 2),), 2, 1, 1), (Entry(2, 2),)))
    assert peer.core.configuration.voters == [1, 2, 3]


def test_a_voter_that_does_not_know_of_its_promotion_votes() -> None:
    peer = Peer(4, configuration([1, 2, 3], learners=[4]))
    peer.receive(Letter(VoteRequest(2, 4, 5, 9, 4, False, False)))
    assert [letter.message for letter in peer.outbox] == [VoteReply(4, 2, 5, False, True)]


@pytest.mark.parametrize("now", [configuration([1, 2, 3], learners=[4]), configuration([1, 2, 3]), NOBODY])
def test_who_does_not_vote_does_not_campaign(now: object) -> None:
    assert isinstance(now, type(configuration([1])))
    peer = Peer(4, now)
    peer.tick(500)
    peer.core.campaign()
    peer.receive(Letter(TimeoutNow(1, 4, 0)))
    assert peer.core.role is Role.FOLLOWER
    assert peer.outbox == []


def test_a_leader_that_removes_itself_leads_until_that_is_committed_and_then_hands_over() -> None:
    group = with_learners()
    leader = change(group, MembershipChange(remove=[1]))
    assert leader.is_leader
    group.tick(3)
    assert not leader.is_leader
    assert group.leaders() in ([2], [3])
    assert all(group[node].core.configuration == configuration([2, 3]) for node in (2, 3))
    group.tick(200)
    assert group[1].core.term <= max(group[2].core.term, group[3].core.term)


def test_a_member_that_does_not_know_of_its_removal_deposes_nobody() -> None:
    group = with_learners()
    group.isolate(3)
    leader = change(group, MembershipChange(remove=[3]))
    group.tick(5)
    assert leader.core.status().configuration_committed
    term = leader.core.term
    group.heal()
    group.tick(300)
    assert group.leaders() == [1]
    assert leader.core.term == term


def test_an_acknowledgement_from_before_a_removal_does_not_count_for_what_was_added_again() -> None:
    group = with_learners(4)
    leader = group[1]
    term = leader.core.term
    leader.propose(5)
    group.deliver(lose=is_reply_of_four)
    leader.propose()
    group.hand(group.take(Append, 4))
    (late,) = group.take(AppendReply, 1)
    group.tick(2)
    change(group, MembershipChange(remove=[4]))
    group.tick(2)
    group.add(4)
    group.isolate(4)
    change(group, MembershipChange(add=[member(4)]))
    group.tick(2)
    leader.receive(late)
    assert leader.core.term == term
    status = next(item for item in leader.core.status().members if item.node_id == 4)
    assert status.match_index == 0


def is_reply_of_four(message: RaftMessage) -> bool:
    return isinstance(message, AppendReply) and message.sender == 4


def test_a_leader_that_removes_itself_counts_only_the_others() -> None:
    """Of the two that remain both must have it; the leader's own disk is none of them."""
    group = with_learners()
    leader = change(group, MembershipChange(remove=[1]))
    index = leader.log.last_index
    group.deliver(lose=lambda message: isinstance(message, Append) and message.receiver == 3)
    assert leader.durable_index == group[2].durable_index == index
    assert leader.core.commit_index == index - 1


def start_alone(terms: list[int], now: Configuration) -> Peer:
    """Node 1 of this configuration begins to lead, and appends nothing by itself."""
    peer = Peer(1, now, log=memory_log(terms))
    peer.core.campaign()
    assert peer.core.take_output().became_leader
    return peer


def test_who_is_alone_needs_no_entry_of_its_own_to_commit_and_to_change() -> None:
    peer = start_alone([0, 1, 1], configuration([1]))
    assert peer.core.is_alone
    assert peer.core.commit_index == 3
    assert peer.core.change_membership(MembershipChange(add=[member(2)])).learners == [2]
    ticket = peer.core.request_read()
    assert peer.core.take_output().reads == [(ticket, 3)]


def test_a_sole_voter_with_learners_needs_one_for_them() -> None:
    """A learner that starts on a blank disk waits for a leader that has committed in its term."""
    peer = start_alone([0, 1, 1], configuration([1], learners=[2]))
    assert not peer.core.is_alone
    assert peer.core.commit_index == 0
    peer.propose()
    assert peer.core.commit_index == 4


def test_one_becomes_three() -> None:
    group = Group(1)
    group[1].core.campaign()
    group[1].settle()
    for node in (2, 3):
        group.add(node)
    change(group, MembershipChange(add=[member(2), member(3)]))
    group.tick(20)
    change(group, MembershipChange(promote=[2, 3]))
    group.tick(6)
    assert group[1].core.configuration == configuration([1, 2, 3])
    group.stopped.add(1)
    group.tick(150)
    assert len(group.leaders()) == 1


def test_a_read_does_not_wait_for_those_who_left() -> None:
    """Whoever was asked whether the leader still leads is no member any more when it could answer."""
    group = with_learners()
    change(group, MembershipChange(remove=[2, 3]))
    ticket = group[1].core.request_read()
    group.deliver(lose=lambda message: isinstance(message, HeartbeatReply))
    assert group[1].core.is_alone
    assert ticket in group[1].reads
