"""Claim: logs become the same, whatever arrives in whatever order, and only what a quorum has for good is committed."""

import pytest

from bezant.engine.raft.interface import CoreSettings
from bezant.engine.raft.roles import Role
from bezant.protocol.errors import LedgerError, RemoteProtocolError
from bezant.protocol.peer_frames import PEER_MESSAGE_SIZE_MAX
from bezant.protocol.raft_messages import (
    TERM_RUNS_MAX,
    Append,
    AppendReply,
    Heartbeat,
    RaftMessage,
    TermRun,
    encode_raft_message,
)

from .groups import Group
from .peers import Entry, Letter, MemoryLog, Peer, configuration, memory_log


def follower(terms: list[int], log: MemoryLog | None = None) -> Peer:
    """Node 2 of three, with a log of entries of these terms."""
    return Peer(2, configuration([1, 2, 3]), log=log or memory_log(terms))


def append(prev: tuple[int, int], terms: list[int], *, term: int, commit: int = 0) -> Letter:
    """From node 1, with entries as in `memory_log`."""
    index = prev[0]
    entries = tuple(Entry(item, -(1_000 * (index + number) + item)) for number, item in enumerate(terms, 1))
    runs = tuple(
        TermRun(index + number, item)
        for number, item in enumerate(terms, 1)
        if number == 1 or terms[number - 2] != item
    )
    return Letter(Append(1, 2, term, *prev, runs, index + len(terms), commit, 1), entries)


def replies(peer: Peer) -> list[AppendReply]:
    found = [letter.message for letter in peer.outbox if isinstance(letter.message, AppendReply)]
    peer.outbox.clear()
    return found


def test_three_members_elect_replicate_and_commit() -> None:
    group = Group()
    group.tick(70)
    leader = group[group.leaders()[0]]
    assert leader.propose(10) == 11
    group.tick(2)
    assert group.commits() == [11, 11, 11]
    assert group[1].log.entries == group[2].log.entries == group[3].log.entries


def test_entries_from_before_the_first_election_are_entries_like_others() -> None:
    group = Group(logs={1: [0, 0], 2: [0], 3: []})
    leader = group.elect(1)
    group.tick(12)
    assert [peer.terms() for peer in group.peers.values()] == [[0, 0, 1]] * 3
    assert group.commits() == [leader.log.last_index] * 3


def test_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """The paper, figure 8: (2, term 2) is on four of five, and could still be replaced by node 5's (2, term 3)."""
    logs = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
    group = Group(5, logs=logs, terms=dict.fromkeys(logs, 3), settings=CoreSettings(append_bytes_max=1))
    group.isolate(5)

    def is_of_the_new_term(message: RaftMessage) -> bool:
        return isinstance(message, Append) and any(run.term == 4 for run in message.runs)

    group[1].core.campaign()
    group.deliver(lose=is_of_the_new_term)
    group.tick(20, lose=is_of_the_new_term)
    assert [group[node].terms()[1:] for node in (1, 2, 3, 4)] == [[2, 4], [2], [2], [2]]
    assert group[1].is_leader
    assert group[1].core.commit_index == 0
    group.tick(20)
    assert group[1].core.commit_index == 3


def test_a_resent_prefix_does_not_cut_what_matches_behind_it() -> None:
    peer = follower([1, 1, 1, 1, 1])
    peer.receive(append((0, 0), [1, 1], term=1))
    assert peer.terms() == [1, 1, 1, 1, 1]
    assert [reply.match_index for reply in replies(peer)] == [2]


def test_an_early_append_does_not_take_back_what_is_committed() -> None:
    peer = follower([1])
    peer.receive(append((1, 1), [1, 1, 1, 1], term=1, commit=5))
    assert peer.core.commit_index == 5
    peer.receive(append((0, 0), [1, 1], term=1, commit=1))
    assert peer.core.commit_index == 5
    assert peer.terms() == [1, 1, 1, 1, 1]


def test_a_follower_commits_only_what_the_leader_has_shown_it_to_have() -> None:
    """Entries 3 to 5 are of a leader that failed; those of the same indexes that are committed are others."""
    peer = follower([1, 1, 1, 1, 1])
    peer.receive(append((1, 1), [1], term=2, commit=5))
    assert peer.core.commit_index == 2


def test_a_heartbeat_that_overtakes_a_repair_commits_nothing_wrong() -> None:
    peer = follower([1, 1, 1])
    peer.receive(Letter(Heartbeat(1, 2, 2, 3, 0, 1)))
    assert peer.core.commit_index == 0
    peer.receive(append((1, 1), [2, 2], term=2))
    peer.receive(Letter(Heartbeat(1, 2, 2, 3, 0, 1)))
    assert peer.core.commit_index == 3
    assert peer.terms() == [1, 2, 2]


def test_an_append_that_begins_before_the_snapshot_is_no_conflict() -> None:
    peer = follower([], MemoryLog(offset=10, offset_term=1))
    peer.receive(append((5, 1), [1] * 7, term=1))
    assert [(reply.rejected, reply.match_index) for reply in replies(peer)] == [(False, 12)]
    assert peer.log.last_index == 12


def test_a_conflict_with_what_is_committed_stops_the_member() -> None:
    peer = follower([1])
    peer.receive(append((1, 1), [1, 1], term=1, commit=3))
    with pytest.raises(LedgerError, match="has lost what it had"):
        peer.receive(append((1, 1), [2], term=2))
    with pytest.raises(LedgerError, match="has lost what it had"):
        peer.receive(append((1, 1), [2, 2, 2, 2], term=2))
    assert peer.terms() == [1, 1, 1]


@pytest.mark.parametrize(
    ("leader_terms", "follower_terms"),
    [
        ([1] * 10 + [3] * 300, [1] * 10 + [2] * 300),
        ([1] * 10 + [4] * 5, [1] * 10 + [2] * 300),
        ([1] * 10 + [2] * 200 + [5] * 200, [1] * 10 + [3] * 100 + [4] * 500),
        ([5] * 400, []),
    ],
)
def test_hundreds_of_divergent_entries_are_repaired_in_a_few_steps(
    leader_terms: list[int], follower_terms: list[int]
) -> None:
    group = Group(logs={1: leader_terms, 2: follower_terms, 3: leader_terms}, terms={1: 5, 2: 5, 3: 5})
    sent = 0

    def count(message: RaftMessage) -> bool:
        nonlocal sent
        sent += isinstance(message, Append) and message.receiver == 2
        return False

    group[1].core.campaign()
    group.deliver(lose=count)
    assert group[2].log.entries == group[1].log.entries
    assert sent <= 8


def test_entries_of_more_terms_than_a_message_has_room_for_are_sent_in_parts() -> None:
    """After thousands of elections in which nothing else happened."""
    terms = list(range(1, 3 * TERM_RUNS_MAX))
    group = Group(logs={1: terms, 2: [1], 3: terms}, terms=dict.fromkeys((1, 2, 3), terms[-1]))
    sizes = []

    def measure(message: RaftMessage) -> bool:
        sizes.append(len(encode_raft_message(message)))
        return False

    group[1].core.campaign()
    group.deliver(lose=measure)
    group.tick(12, lose=measure)
    assert group[2].log.entries == group[1].log.entries
    assert max(sizes) <= PEER_MESSAGE_SIZE_MAX


def test_what_is_older_or_repeated_changes_nothing() -> None:
    group = Group()
    leader = group.elect(1)
    seen: list[Letter] = []
    for _ in range(5):
        leader.propose(2)
        group.collect()
        seen += group.wire
        group.deliver()
        group.tick()
        seen += group.wire
    for node in (1, 2):
        # First to those who are in that term still, then a week later.
        group.elect(node).propose(3)
        group.tick(2)
        logs = [list(peer.log.entries) for peer in group.peers.values()]
        commits = group.commits()
        for letter in [*seen, *reversed(seen)]:
            group[letter.message.receiver].receive(letter)
        group.deliver()
        assert [peer.log.entries for peer in group.peers.values()] == logs
        assert group.commits() == commits
        assert group.leaders() == [node]


def test_a_window_whose_messages_were_all_lost_is_found_out() -> None:
    group = Group(settings=CoreSettings(messages_in_flight_max=4))
    leader = group.elect(1)

    def are_entries_for_two(message: RaftMessage) -> bool:
        return isinstance(message, Append) and message.receiver == 2 and bool(message.runs)

    for _ in range(10):
        leader.propose()
        group.deliver(lose=are_entries_for_two)
    status = next(item for item in leader.core.status().members if item.node_id == 2)
    assert (status.state, status.in_flight) == ("replicate", 4)
    group.tick(12)
    assert group[2].log.entries == leader.log.entries


def test_each_entry_is_measured_once_for_all_level_followers_however_many_are_on_their_way() -> None:
    """Walking the whole window for each message would hold the leader up while a follower catches up."""
    group = Group()
    leader = group.elect(1)
    before = leader.log.measured_entries
    for _ in range(50):
        leader.propose()
    assert leader.log.measured_entries - before == 50


def test_what_is_lost_at_the_end_of_a_window_is_found_out() -> None:
    group = Group()
    leader = group.elect(1)
    leader.propose()
    group.deliver(lose=lambda message: isinstance(message, Append) and message.receiver == 2)
    group.tick(12)
    assert group[2].log.entries == leader.log.entries


def test_the_bytes_on_their_way_to_a_follower_have_a_bound() -> None:
    settings = CoreSettings(append_bytes_max=200, bytes_in_flight_max=500)
    group = Group(settings=settings)
    leader = group.elect(1)
    leader.propose(50)
    sent = [letter.message for letter in group.take(Append, 2)]
    assert [message.last_index for message in sent if isinstance(message, Append)] == [3, 5, 6]
    group.deliver()
    group.tick(12)
    assert group[2].log.entries == leader.log.entries


def test_a_leader_that_cannot_read_its_log_hands_over() -> None:
    group = Group()
    leader = group.elect(1)
    leader.propose(3)
    group.tick(2)
    leader.core.may_campaign = False
    leader.core.step_down()
    assert leader.core.role is Role.FOLLOWER
    group.tick(2)
    assert group.leaders() in ([2], [3])
    group.stopped = set(group.leaders())
    group.tick(200)
    assert leader.core.term == max(peer.core.term for peer in group.peers.values())
    assert 1 not in group.leaders()


def test_an_unreachable_follower_is_sent_nothing_until_it_answers() -> None:
    group = Group()
    leader = group.elect(1)
    leader.core.unreachable(2)
    leader.propose(100)
    assert group.take(Append, 2) == []
    group.deliver()
    group.tick(6)
    assert group[2].log.entries == leader.log.entries


def test_a_restarted_follower_of_an_idle_leader_learns_what_is_committed() -> None:
    group = Group()
    index = group.elect(1).propose(5)
    group.tick(6)
    group.crash(2)
    assert group.restart(2).core.commit_index == 0
    group.tick(12)
    assert group[2].core.commit_index == index


def test_entries_that_were_accepted_and_not_written_stop_the_member() -> None:
    peer = follower([])
    peer.core.step(append((0, 0), [1], term=1).message)
    with pytest.raises(LedgerError, match="not written"):
        peer.core.tick()


def test_a_message_for_another_node_is_the_senders_fault() -> None:
    with pytest.raises(RemoteProtocolError):
        follower([]).core.step(Heartbeat(1, 3, 1, 0, 0, 1))


def test_two_leaders_of_one_term_stop_the_member() -> None:
    peer = follower([])
    peer.receive(Letter(Heartbeat(1, 2, 1, 0, 0, 1)))
    with pytest.raises(LedgerError, match="both lead term 1"):
        peer.receive(Letter(Heartbeat(3, 2, 1, 0, 0, 1)))
