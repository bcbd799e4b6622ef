"""Claim: a disk that may have been wiped neither votes nor counts before it is known that nothing is missing on it."""

import random
from pathlib import Path

import pytest

from bezant.engine.log.segment import segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.member import Member
from bezant.engine.node_file import joining_node, new_cluster_id, new_group_node
from bezant.engine.opening import must_ask_for_group, open_member
from bezant.engine.raft.membership import MembershipChange
from bezant.engine.replica import ReplicaSettings
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.raft_messages import Heartbeat

from .commands import opening_world, transfers
from .conftest import Clock
from .group import MemberGroup

ALL_TICKS = 200


def join(group: MemberGroup, node: int) -> Member:
    """Let the blank disk of a new node in, as a learner."""
    file = group.nodes[node] = joining_node(node, ["h:1"], peer_address=f"h:{node}01", client_address=f"h:{node}02")
    group.leader.change_membership(MembershipChange(add=[file.member]))
    return group.open(node, log_id=group.leader.replica.log.log_id)


# ---- first members ----


def test_first_members_vote_once_all_have_said_that_they_are_blank(group: MemberGroup) -> None:
    assert not any(member.core.is_barred for member in group.members.values())


def test_a_group_of_one_needs_nobody(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    node = new_group_node(new_cluster_id(), 1, {1: ("h:1", "h:2")})
    member = open_member(tmp_path, node, settings=small, clock_ns=clock, chance=random.Random(1))
    assert member.is_leader
    member.close()


def test_a_node_of_which_nothing_was_heard_keeps_the_others_from_voting(
    tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    """It may be the one that holds what the two others have lost."""
    group = MemberGroup(tmp_path, small, clock)
    group.close()
    group.wipe(1)
    group.wipe(2)
    for node in (1, 2):
        group.open(node)
        group.greet(node)
    group.run(ALL_TICKS)
    assert [member.core.is_barred for member in group.members.values()] == [True, True]
    assert {member.term for member in group.members.values()} == {1}
    group.close()


def test_a_bar_that_was_lifted_stays_so_over_a_start(group: MemberGroup) -> None:
    group.close(2)
    assert not group.open(2).core.is_barred


def test_a_first_member_that_was_wiped_votes_when_it_has_caught_up(led: MemberGroup) -> None:
    """It is initialised just as before, and has the same incarnation: only its disk tells that it forgot."""
    led.close(3)
    led.wipe(3)
    wiped = led.open(3)
    led.greet(3)
    led.cut_off = {1}
    led.run(ALL_TICKS)
    assert wiped.core.is_barred
    assert not any(led.members[node].is_leader for node in (2, 3))
    led.cut_off = set()
    led.elect(1)
    led.run(20)
    assert not wiped.core.is_barred
    assert wiped.replica.log.last_index == led.leader.replica.log.last_index


def test_who_has_entries_is_not_blank(led: MemberGroup) -> None:
    assert not any(member.is_blank for member in led.members.values())


def test_a_group_begins_although_its_first_election_was_lost(
    tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    """Node 1 has heard of both others, voted for itself, and stopped before they have heard of all."""
    group = MemberGroup(tmp_path, small, clock)
    group.close()
    first, second = group.open(1), group.open(2)
    first.note_blank(2, second.core.term)
    first.note_blank(3, 1)
    first.core.campaign()
    first.tick()
    group.close(1, 2)
    for node in group.nodes:
        group.open(node)
        group.greet(node)
    group.on_the_way.clear()
    group.elect(2)
    group.execute(opening_world("ann", "bob"))
    assert not any(member.core.is_barred for member in group.members.values())
    group.close()


def test_a_vote_that_was_forgotten_is_not_given_again(group: MemberGroup) -> None:
    """Node 3 votes for node 1, and forgets it: node 2 must not win with its vote in the same term."""
    group.cut_off = {2}
    group.members[1].core.campaign()
    group.run(2)
    term = group.members[1].core.term
    assert group.members[3].core.term == term
    group.close(3)
    group.wipe(3)
    wiped = group.open(3)
    for node in (1, 2):
        wiped.note_blank(node, group.members[node].core.term)
    assert not wiped.core.is_barred
    assert wiped.core.term > term


def test_no_vote_is_given_in_a_term_that_was_heard_of_while_it_was_barred(
    tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    """Whoever led in it may have been elected with the vote that this disk forgot, and be blank again as well."""
    group = MemberGroup(tmp_path, small, clock)
    group.close()
    group.wipe(3)
    wiped = group.open(3)
    wiped.receive(Heartbeat(2, 3, 9, 1, 0, 1), memoryview(b""))
    assert (wiped.core.term, wiped.core.is_barred) == (9, True)
    for node in (1, 2):
        wiped.note_blank(node, 2)
    assert not wiped.core.is_barred
    assert wiped.core.term > 9
    group.close()


# ---- joining ----


def test_a_blank_disk_joins_and_gets_all_of_the_log(led: MemberGroup) -> None:
    led.execute(transfers("ann", "bob", 20))
    joined = join(led, 4)
    assert joined.core.is_barred and joined.replica.log.last_index == 0
    led.run(20)
    assert joined.replica.log.chain_hash == led.leader.replica.log.chain_hash
    assert joined.replica.ledger.digest() == led.leader.replica.ledger.digest()
    assert not joined.core.is_barred
    led.leader.change_membership(MembershipChange(promote=[4]))
    led.run(20)
    assert joined.configuration.voters == [1, 2, 3, 4]


def test_a_learner_that_starts_again_before_it_has_anything_goes_on(led: MemberGroup) -> None:
    join(led, 4)
    led.close(4)
    joined = led.open(4)
    assert joined.replica.log.last_index == 0 and not joined.is_alone and joined.core.is_barred
    led.run(20)
    assert joined.replica.log.chain_hash == led.leader.replica.log.chain_hash


def test_a_blank_disk_by_itself_never_leads(led: MemberGroup) -> None:
    joined = join(led, 4)
    led.on_the_way.clear()
    led.cut_off = {4}
    led.run(ALL_TICKS)
    assert (joined.term, joined.replica.log.last_index) == (0, 0)


def test_a_blank_disk_that_knows_no_log_begins_none(tmp_path: Path, small: ReplicaSettings) -> None:
    node = joining_node(4, ["h:1"], peer_address="h:2", client_address="h:3")
    assert must_ask_for_group(tmp_path, node)
    with pytest.raises(UsageError, match="not told which log"):
        open_member(tmp_path, node, settings=small)
    assert not segment_numbers(Directory(tmp_path / "shard-0000"))


def test_a_new_disk_of_a_voter_is_let_in_once_the_old_one_is_out(led: MemberGroup) -> None:
    led.close(3)
    led.wipe(3)
    led.leader.change_membership(MembershipChange(remove=[3]))
    led.run(5)
    joined = join(led, 3)
    led.run(20)
    led.leader.change_membership(MembershipChange(promote=[3]))
    led.run(5)
    assert joined.configuration.voters == [1, 2, 3]
    assert joined.replica.ledger.digest() == led.leader.replica.ledger.digest()


# ---- what is gone ----


def test_a_log_that_is_gone_beside_its_vote_is_not_begun_anew(led: MemberGroup) -> None:
    led.close(3)
    for path in led.shard_folder(3).iterdir():
        if path.name != "vote" and path.is_file():
            path.unlink()
    with pytest.raises(CorruptLog, match="there is a vote, and no log any more"):
        led.open(3)
