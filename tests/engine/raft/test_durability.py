"""Claim: nothing leaves a member that a crash would take back at that moment, and only what is on disk counts."""

from bezant.engine.raft.interface import CoreSettings
from bezant.protocol.raft_messages import Append, AppendReply, TermRun, VoteReply, VoteRequest

from .groups import Group
from .peers import Entry, Letter, Peer, configuration

NO_PRE_VOTE = CoreSettings(pre_vote=False)


def test_a_crash_between_a_vote_and_its_answer_gives_no_second_vote() -> None:
    group = Group(settings=NO_PRE_VOTE)
    group[1].core.campaign()
    group.hand(group.take(VoteRequest, 2))
    group.crash(2)
    group.restart(2)
    group[3].core.campaign()
    group.hand(group.take(VoteRequest, 2))
    replies = [letter.message for letter in group.take(VoteReply, 3)]
    assert replies == [VoteReply(2, 3, 1, False, False)]
    assert group[2].hard_state.voted_for == 1


def test_a_term_and_its_vote_become_durable_as_one_record() -> None:
    group = Group(settings=NO_PRE_VOTE)
    group[1].core.campaign()
    group.hand(group.take(VoteRequest, 2))
    assert [(state.term, state.voted_for) for state in group[2].hard_states if state.voted_for] == [(1, 1)]


def test_a_follower_does_not_acknowledge_what_it_has_not_synced() -> None:
    group = Group()
    leader = group.elect(1)
    group.isolate(3)
    group[2].syncs_itself = False
    index = leader.propose()
    group.tick(3)
    assert group[2].log.last_index == index
    assert leader.core.commit_index == index - 1
    group[2].sync()
    group.deliver()
    assert leader.core.commit_index == index


def test_a_leader_counts_itself_only_through_what_it_has_synced_its_first_entry_included() -> None:
    group = Group()
    group.isolate(3)
    group[1].syncs_itself = False
    leader = group.elect(1)
    group.tick(3)
    assert group[2].durable_index == 1
    assert leader.core.commit_index == 0
    leader.sync()
    assert leader.core.commit_index == 1


def test_a_group_of_one_commits_when_its_disk_has_it() -> None:
    group = Group(1)
    group[1].core.campaign()
    group[1].settle()
    group[1].syncs_itself = False
    index = group[1].propose()
    assert group[1].core.commit_index == index - 1
    group[1].sync()
    assert group[1].core.commit_index == index


def test_a_sync_that_ends_late_does_not_count_for_what_was_cut_and_written_again() -> None:
    """The entry is the same, of the same index and term; but the sync was of the bytes before the cut."""
    peer = Peer(2, configuration([1, 2, 3, 4, 5]), syncs_itself=False)
    first, second = Entry(1, 1), Entry(1, 2)
    peer.receive(Letter(Append(1, 2, 1, 0, 0, (TermRun(1, 1),), 2, 0, 1), (first, second)))
    late = peer.begin_sync()
    peer.receive(Letter(Append(3, 2, 2, 1, 1, (TermRun(2, 2),), 2, 0, 1), (Entry(2, 3),)))
    runs = (TermRun(2, 1), TermRun(3, 3))
    peer.receive(Letter(Append(1, 2, 3, 1, 1, runs, 3, 0, 1), (second, Entry(3, 4))))
    peer.outbox.clear()
    peer.end_sync(late)
    peer.settle()
    assert peer.outbox == []
    peer.sync()
    peer.settle()
    assert [letter.message for letter in peer.outbox] == [AppendReply(2, 1, 3, False, 3, 0, 0, 1)]


def test_a_sync_of_what_another_term_has_replaced_does_not_count() -> None:
    peer = Peer(2, configuration([1, 2, 3]), syncs_itself=False)
    peer.receive(Letter(Append(1, 2, 1, 0, 0, (TermRun(1, 1),), 1, 0, 1), (Entry(1, 1),)))
    late = peer.begin_sync()
    peer.receive(Letter(Append(3, 2, 2, 0, 0, (TermRun(1, 2),), 1, 0, 1), (Entry(2, 2),)))
    peer.end_sync(late)
    peer.settle()
    assert [letter for letter in peer.outbox if isinstance(letter.message, AppendReply)] == []


def test_a_rejection_leaves_with_the_term_that_it_rests_on() -> None:
    peer = Peer(2, configuration([1, 2, 3]))
    peer.core.step(Append(1, 2, 5, 9, 4, (), 9, 0, 1))
    output = peer.core.take_output()
    assert [message for message in output.messages if isinstance(message, AppendReply) and message.rejected]
    assert output.hard_state is not None
    assert output.hard_state.term == 5


def test_all_that_is_not_synced_may_be_lost_on_every_member_at_once() -> None:
    group = Group()
    leader = group.elect(1)
    for peer in group.peers.values():
        peer.syncs_itself = False
    leader.propose(3)
    group.deliver()
    committed = leader.log.entries[: leader.core.commit_index]
    for node in group.peers:
        group.crash(node)
    for node, peer in group.peers.items():
        peer.syncs_itself = True
        group.restart(node)
    group.tick(150)
    for peer in group.peers.values():
        assert peer.log.entries[: len(committed)] == committed
    assert len(group.leaders()) == 1
