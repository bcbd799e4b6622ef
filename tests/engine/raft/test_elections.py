"""Claim: a term has one leader, it is one that has all that is committed, and nobody is deposed without need."""

import pytest

from bezant.engine.raft.interface import CoreSettings
from bezant.engine.raft.roles import Role
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.raft_messages import (
    Append,
    AppendReply,
    Heartbeat,
    RaftMessage,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

from .groups import Group
from .peers import Letter, Peer, configuration, memory_log

LONG_TICKS = 200


def is_granted(log_terms: list[int], last_term: int, last_index: int) -> bool:
    """Whether a member with such a log votes for a candidate with such a log."""
    peer = Peer(2, configuration([1, 2, 3]), log=memory_log(log_terms))
    peer.receive(Letter(VoteRequest(1, 2, 9, last_index, last_term, False, False)))
    (letter,) = peer.outbox
    assert isinstance(letter.message, VoteReply)
    return letter.message.granted


def test_logs_are_compared_by_their_last_term_and_only_then_by_their_length() -> None:
    assert not is_granted([1, 2, 2], last_term=1, last_index=100)
    assert is_granted([1, 1, 1, 1], last_term=2, last_index=1)
    assert is_granted([1, 2, 2], last_term=2, last_index=3)
    assert not is_granted([1, 2, 2], last_term=2, last_index=2)


def test_an_answer_to_an_earlier_term_does_not_count() -> None:
    group = Group(settings=CoreSettings(pre_vote=False))
    group[1].core.campaign()
    group.hand(group.take(VoteRequest, 2))
    late = group.take(VoteReply, 1)
    assert [letter.message for letter in late] == [VoteReply(2, 1, 1, False, True)]
    group.take(VoteRequest)
    group[1].core.campaign()
    group.hand(late)
    assert group[1].core.term == 2
    assert group[1].core.role is Role.CANDIDATE


def test_an_acknowledgement_of_an_earlier_term_does_not_count() -> None:
    """A member may acknowledge in one term what it is told to cut in the next."""
    group = Group()
    group.elect(1)
    group.elect(2)
    leader = group.elect(1)
    group.tick(2)
    committed = leader.core.commit_index
    index = leader.propose(5)
    for letter in group.take(Append):
        message = letter.message
        assert isinstance(message, Append)
        stale = AppendReply(message.receiver, 1, message.term - 1, False, index, 0, 0, message.session)
        leader.receive(Letter(stale))
    assert leader.core.commit_index == committed


def test_a_leader_that_hears_of_a_later_term_leads_no_more() -> None:
    group = Group()
    leader = group.elect(1)
    leader.receive(Letter(AppendReply(2, 1, 9, True, 0, 0, 0, 0)))
    assert leader.core.role is Role.FOLLOWER
    assert leader.hard_state.term == 9
    with pytest.raises(LedgerError):
        leader.core.appended(leader.log.last_index + 1)


def test_a_longer_log_of_a_lower_term_and_a_shorter_one_of_a_higher_term_elect_a_leader() -> None:
    """Neither may win as it stands: the one has the lower term, the other the shorter log."""
    group = Group(logs={1: [1, 1, 3, 3], 2: [1, 1]}, terms={1: 3, 2: 7})
    group.stopped.add(3)
    group.tick(LONG_TICKS)
    assert group.leaders() == [1]


def test_a_pre_vote_changes_no_term() -> None:
    group = Group()
    group.isolate(1)
    group.stopped |= {2, 3}
    group.tick(500)
    assert group[1].core.role is Role.PRE_CANDIDATE
    assert group[1].hard_states == []


@pytest.mark.parametrize("pre_vote", [True, False])
@pytest.mark.parametrize("check_quorum", [True, False])
def test_a_member_that_was_cut_off_comes_back(pre_vote: bool, check_quorum: bool) -> None:
    group = Group(settings=CoreSettings(pre_vote=pre_vote, check_quorum=check_quorum))
    group.elect(1)
    group.isolate(3)
    group.tick(LONG_TICKS)
    group[group.leaders()[0]].propose(5)
    group.tick(10)
    group.heal()
    group.tick(LONG_TICKS)
    (node,) = group.leaders()
    index = group[node].propose()
    group.tick(10)
    assert group.commits() == [index] * 3


def test_a_member_that_comes_back_deposes_nobody() -> None:
    group = Group()
    leader = group.elect(1)
    term = leader.core.term
    group.isolate(3)
    group.tick(LONG_TICKS)
    group.heal()
    group.tick(LONG_TICKS)
    assert group.leaders() == [1]
    assert [peer.core.term for peer in group.peers.values()] == [term] * 3


def test_a_member_that_cannot_hear_the_leader_deposes_nobody_who_can() -> None:
    group = Group()
    leader = group.elect(1)
    term = leader.core.term
    group.cut = {(1, 3), (3, 1)}
    group.tick(2 * LONG_TICKS)
    assert group.leaders() == [1]
    assert leader.core.term == term


def test_a_leader_that_hears_nobody_steps_down_and_another_takes_over() -> None:
    """It is still heard, so the others wait for it as long as it believes in itself."""
    group = Group()
    group.elect(1)
    group.cut = {(2, 1), (3, 1)}
    group.tick(LONG_TICKS)
    (node,) = group.leaders()
    assert node in {2, 3}
    group[node].propose()
    group.tick(6)
    assert group[node].core.commit_index == group[node].log.last_index


def test_a_leader_that_restarts_is_a_follower() -> None:
    group = Group()
    leader = group.elect(1)
    term = leader.core.term
    group.crash(1)
    group.restart(1)
    assert group[1].core.role is Role.FOLLOWER
    assert group[1].core.term == term
    group.tick(LONG_TICKS)
    assert len(group.leaders()) == 1


def test_a_hint_that_the_leader_is_gone_saves_most_of_the_wait() -> None:
    group = Group()
    group.elect(1)
    group.tick(10)
    group.crash(1)
    for node in (2, 3):
        group[node].core.leader_lost()
    group.tick(12)
    assert len(group.leaders()) == 1


def test_a_hint_that_is_wrong_deposes_nobody() -> None:
    group = Group()
    leader = group.elect(1)
    term = leader.core.term
    group[3].core.leader_lost()
    group[3].core.campaign()
    group.tick(LONG_TICKS)
    assert group.leaders() == [1]
    assert leader.core.term == term


def is_timeout_now(message: RaftMessage) -> bool:
    return isinstance(message, TimeoutNow)


def test_a_transfer_that_leads_to_nothing_is_given_up_after_one_elections_time() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    leader.core.transfer_leadership(2)
    group.tick(29, lose=is_timeout_now)
    assert leader.core.transfer_to == 2
    group.tick(1, lose=is_timeout_now)
    assert leader.core.transfer_to == 0
    index = leader.propose()
    group.tick(2)
    assert group.leaders() == [1]
    assert leader.core.commit_index == index


def test_a_transfer_that_is_cut_off_by_a_step_down_leaves_nothing_behind() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    leader.core.transfer_leadership(2)
    leader.receive(Letter(AppendReply(3, 1, 9, True, 0, 0, 0, 0)))
    group.collect()
    group.wire.clear()
    assert leader.core.transfer_to == 0
    group.elect(1)
    assert leader.core.transfer_to == 0
    group.tick(LONG_TICKS)
    assert group.leaders() == [1]


def test_a_transfer_waits_until_the_other_has_the_whole_log() -> None:
    group = Group()
    leader = group.elect(1)
    group.tick(2)
    leader.propose(10)
    held = group.take(Append)
    assert leader.core.transfer_leadership(2) == 2
    assert group.take(TimeoutNow) == []
    group.hand(held)
    group.tick(2)
    assert group.leaders() == [2]
    assert group[2].log.last_index >= 11


def test_a_transfer_needs_no_election_to_time_out() -> None:
    group = Group()
    group.elect(1).core.transfer_leadership()
    group.tick(2)
    assert group.leaders() in ([2], [3])


def test_leadership_goes_to_voters_only() -> None:
    group = Group()
    leader = group.elect(1)
    with pytest.raises(UsageError):
        leader.core.transfer_leadership(4)
    group = Group(1)
    group[1].core.campaign()
    group[1].settle()
    with pytest.raises(UsageError):
        group[1].core.transfer_leadership()


def test_timeouts_are_drawn_within_the_bounds() -> None:
    counts = set()
    for seed in range(40):
        peer = Peer(1, configuration([1, 2, 3]), seed=seed)
        ticks = 0
        while peer.core.role is Role.FOLLOWER:
            peer.tick()
            ticks += 1
        counts.add(ticks)
    assert min(counts) >= 30
    assert max(counts) <= 60
    assert len(counts) > 10


def test_an_even_group_needs_more_than_half() -> None:
    group = Group(4)
    group.stopped |= {3, 4}
    group.tick(LONG_TICKS)
    assert group.leaders() == []
    group.stopped.discard(3)
    group.tick(LONG_TICKS)
    assert len(group.leaders()) == 1


def test_heartbeats_keep_followers_quiet() -> None:
    group = Group()
    group.elect(1)
    group[2].tick(29)
    group[2].receive(Letter(Heartbeat(1, 2, group[1].core.term, 0, 0, 2)))
    group[2].tick(29)
    assert group[2].core.role is Role.FOLLOWER
