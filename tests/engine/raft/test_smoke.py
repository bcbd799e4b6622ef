"""Claim: a leader is elected, and what it appends is committed by all."""

from .groups import Group


def test_three_members_elect_replicate_and_commit() -> None:
    group = Group()
    group.tick(70)
    leader = next(peer for peer in group.peers.values() if peer.is_leader)
    index = leader.propose(10)
    group.tick(2)
    assert index == 11
    assert [peer.core.commit_index for peer in group.peers.values()] == [11] * 3
    assert group[1].log.entries == group[2].log.entries == group[3].log.entries


def test_a_group_of_one_leads_at_once() -> None:
    group = Group(1)
    group[1].core.campaign()
    group[1].settle()
    group[1].propose(5)
    assert group[1].core.commit_index == 6
