"""Members of a group, real in all but the network: what is committed, applied, cut and begun anew."""

import random
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.member import Member
from bezant.engine.opening import open_member
from bezant.engine.raft.interface import NotLeader
from bezant.engine.raft.membership import MembershipChange
from bezant.engine.raft.roles import Role
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.raft_messages import Append, TermRun
from bezant.protocol.records import ENTRY_HEADER_SIZE, EVENT_SIZE, SEGMENT_HEADER_SIZE

from .commands import opening_world, transfers
from .conftest import Clock
from .group import NO_PRESET, MemberGroup


def digests(group: MemberGroup) -> set[str]:
    return {member.replica.ledger.digest() for member in group.members.values()}


def positions(group: MemberGroup) -> set[tuple[int, int, bytes]]:
    """Where each stands: the end of its log, how far it has applied it, and the hash over all of it."""
    return {
        (member.replica.log.last_index, member.replica.applied_index, member.replica.log.chain_hash)
        for member in group.members.values()
    }


# ---- a group of one ----


def test_a_folder_by_itself_leads_from_the_start_and_commits_what_is_durable(
    tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    member = open_member(tmp_path, settings=small, clock_ns=clock, chance=random.Random(1))
    assert member.is_leader and member.is_alone
    assert member.committed_index == 1
    index = member.execute(opening_world("ann"), NO_PRESET).index
    assert member.committed_index == 1 < index
    group = member.begin_group()
    assert group is not None
    group.write_and_sync()
    assert member.committed_index == 1
    member.finish_group(group)
    assert member.committed_index == index
    member.close()


def test_a_group_of_one_appends_nothing_at_a_start(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    for _ in range(3):
        member = open_member(tmp_path, settings=small, clock_ns=clock, chance=random.Random(1))
        assert member.replica.log.last_index == 1
        member.close()


# ---- three members ----


def test_all_first_members_begin_with_the_same_entry(group: MemberGroup) -> None:
    assert len(positions(group)) == 1
    assert len({member.replica.log.log_id for member in group.members.values()}) == 1
    assert not any(member.is_leader for member in group.members.values())


def test_nobody_executes_who_does_not_lead(group: MemberGroup) -> None:
    with pytest.raises(NotLeader):
        group.members[2].execute(opening_world("ann"), NO_PRESET)
    assert group.members[2].replica.log.last_index == 1


def test_what_is_committed_is_applied_everywhere_and_the_logs_are_the_same(led: MemberGroup) -> None:
    index = led.execute(transfers("world", "ann", 20, 5))
    led.run(2)
    assert len(digests(led)) == 1
    assert len(positions(led)) == 1
    assert led.leader.committed_index == index


def test_a_result_is_committed_only_when_a_majority_has_it_on_disk(led: MemberGroup) -> None:
    leader = led.leader
    led.cut_off = {2, 3}
    index = led.execute(transfers("world", "ann", 3))
    led.settle()
    assert leader.replica.durable_index == index
    assert leader.committed_index < index
    led.cut_off = {3}
    led.run(10)
    assert leader.committed_index == index


def test_followers_may_commit_what_the_leader_has_not_written_yet(led: MemberGroup) -> None:
    """The leader's own disk is one of three."""
    leader = led.leader
    index = led.execute(transfers("world", "ann", 3))
    while led.deliver(writes=led.members[1] is not leader):
        pass
    for follower in (led.members[2], led.members[3]):
        led.write(follower)
    while led.deliver(writes=False):
        pass
    assert leader.committed_index == index > leader.replica.durable_index


def test_a_follower_applies_nothing_that_it_does_not_know_to_be_committed(led: MemberGroup) -> None:
    led.cut_off = {3}
    index = led.execute(transfers("world", "ann", 3))
    while led.deliver():
        pass
    follower = led.members[2]
    while follower.work():
        pass
    assert follower.replica.log.last_index == index
    assert follower.replica.applied_index < index


def test_leadership_moves_and_ids_stay_used(led: MemberGroup) -> None:
    commands = transfers("world", "ann", 5, 7)
    led.execute(commands)
    led.run(2)
    assert led.leader.transfer_leadership(2) == 2
    led.run(3)
    assert led.leader is led.members[2]
    again = led.leader.execute(commands, NO_PRESET)
    assert again.event_count == 0
    assert set(again.results["flags"].tolist()) == {int(ResultFlag.REPEATED)}
    led.run(2)
    assert len(digests(led)) == 1


def test_a_new_leader_first_applies_all_of_its_log(led: MemberGroup) -> None:
    """What its predecessor has left on a majority is committed with the first entry of the new term."""
    led.cut_off = {3}
    index = led.execute(transfers("world", "bob", 4, 9))
    led.deliver(), led.deliver()
    led.on_the_way.clear()
    led.close(1)
    led.cut_off = set()
    leader = led.elect(2)
    assert leader.replica.log.last_index == index + 1
    led.run(5)
    assert leader.committed_index == index + 1
    assert len(digests(led)) == 1


def test_a_leader_that_executed_what_never_was_committed_begins_anew(led: MemberGroup) -> None:
    led.cut_off = {1}
    lost = led.execute(transfers("world", "ann", 6))
    led.settle()
    old = led.members[1]
    assert old.replica.applied_index == lost
    led.members[2].core.leader_lost()
    led.members[3].core.leader_lost()
    for _ in range(200):
        led.members[2].tick()
        led.members[3].tick()
        led.settle()
    leader = led.members[2] if led.members[2].is_leader else led.members[3]
    assert leader.is_leader
    leader.execute(transfers("world", "bob", 2, 3), NO_PRESET)
    led.settle()
    led.cut_off = set()
    led.run(100)
    assert led.members[1] is not old
    assert len(positions(led)) == 1
    assert len(digests(led)) == 1


# ---- starts ----


def test_a_member_that_starts_again_follows_and_catches_up(led: MemberGroup) -> None:
    led.close(3)
    led.execute(transfers("world", "ann", 50))
    led.run(2)
    member = led.open(3)
    assert not member.is_leader
    led.run(100)
    assert len(positions(led)) == 1
    assert len(digests(led)) == 1


def test_all_members_start_again_and_nothing_is_lost(led: MemberGroup) -> None:
    led.execute(transfers("world", "ann", 50))
    led.run(3)
    [digest] = digests(led)
    led.close()
    for node in led.nodes:
        led.open(node)
    led.run(200)
    assert digests(led) == {digest}
    assert len(positions(led)) == 1


def test_what_is_not_known_to_be_committed_is_not_executed_at_a_start(led: MemberGroup) -> None:
    led.cut_off = {2, 3}
    committed = led.leader.committed_index
    index = led.execute(transfers("world", "ann", 5))
    led.settle()
    led.close(1)
    member = led.open(1)
    assert member.replica.log.last_index == index
    assert member.replica.applied_index <= committed


def test_a_member_without_its_vote_does_not_start(led: MemberGroup) -> None:
    led.close(2)
    (led.shard_folder(2) / "vote").unlink()
    with pytest.raises(CorruptLog, match="whom this node voted for is lost"):
        led.open(2)


def test_a_log_of_another_group_is_refused(
    led: MemberGroup, tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    other = MemberGroup(tmp_path / "other", small, clock)
    other.close()
    led.close(2)
    mine, source = led.shard_folder(2), shard_directory(tmp_path / "other" / "node-2", 0).path
    for path in [path for path in mine.iterdir() if path.is_file()]:
        path.unlink()
    for path in [path for path in source.iterdir() if path.is_file()]:
        (mine / path.name).write_bytes(path.read_bytes())
    with pytest.raises(StorageError, match="another group"):
        led.open(2)


# ---- bad messages ----


@pytest.mark.parametrize("damage", ["a body's byte", "a header's byte", "cut short", "an entry too many", "other term"])
def test_damaged_entries_change_nothing(led: MemberGroup, damage: str) -> None:
    led.execute(transfers("world", "ann", 2))
    message, payload = next(item for item in led.on_the_way if item[0].receiver == 2)
    assert isinstance(message, Append)
    data = bytearray(payload)
    if damage == "a body's byte":
        data[-5] ^= 1
    elif damage == "a header's byte":
        data[60] ^= 1
    elif damage == "cut short":
        data = data[:-8]
    elif damage == "an entry too many":
        data += payload
    else:
        runs = (TermRun(message.prev_index + 1, message.term - 1),)
        message = Append(
            1, 2, message.term, message.prev_index, 1, runs, message.last_index, message.commit_index, message.session
        )
    follower = led.members[2]
    before = follower.replica.log.last_index
    with pytest.raises(RemoteProtocolError):
        follower.receive(message, memoryview(bytes(data)))
    assert follower.replica.log.last_index == before
    led.run(20)
    assert len(positions(led)) == 1


def test_a_payload_beside_a_message_without_entries_is_refused(led: MemberGroup) -> None:
    led.members[1].tick()
    for _ in range(5):
        led.members[1].tick()
    message, _ = led.on_the_way[0]
    with pytest.raises(RemoteProtocolError, match="has no entries"):
        led.members[message.receiver].receive(message, memoryview(b"x"))


# ---- configurations ----


def test_a_voter_is_removed_and_the_log_says_so(led: MemberGroup) -> None:
    leader = led.leader
    index = leader.change_membership(MembershipChange(remove=[3]))
    led.run(5)
    assert leader.committed_index >= index
    assert leader.configuration.voters == [1, 2]
    led.close(1, 2)
    assert led.open(1).configuration.voters == [1, 2]


def test_a_command_is_refused_alike_everywhere(led: MemberGroup) -> None:
    executed = led.leader.execute(transfers("ann", "bob", 1, 10_000), NO_PRESET)
    assert executed.results["code"].tolist() == [int(ResultCode.INSUFFICIENT_FUNDS)]
    led.run(2)
    assert len(digests(led)) == 1


def test_a_leader_whose_disk_hangs_hands_over_at_once_and_leads_again_only_with_a_good_one(led: MemberGroup) -> None:
    leader = led.leader
    leader.note_disk(hangs=True)
    assert not leader.is_leader
    led.run(2)
    assert led.leader is not leader
    led.cut_off = {led.leader.identity.node_id}
    for _ in range(200):
        leader.tick()
    assert leader.role is Role.FOLLOWER
    leader.note_disk(hangs=False)
    for _ in range(100):
        leader.tick()
    assert leader.role is not Role.FOLLOWER


def test_a_group_of_one_leads_on_whatever_its_disk_does(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    member = open_member(tmp_path, settings=small, clock_ns=clock, chance=random.Random(1))
    member.note_disk(hangs=True)
    assert member.is_leader
    member.close()


def test_reads_are_confirmed_by_a_majority(led: MemberGroup) -> None:
    leader: Member = led.leader
    led.cut_off = {2, 3}
    ticket = leader.request_read()
    led.settle()
    assert leader.reads_confirmed == []
    led.cut_off = set()
    led.run(10)
    assert [confirmed for confirmed, _ in leader.reads_confirmed] == [ticket]


def test_a_leader_that_is_cut_off_loses_its_reads(led: MemberGroup) -> None:
    leader = led.leader
    led.cut_off = {1}
    ticket = leader.request_read()
    for _ in range(100):
        leader.tick()
    assert not leader.is_leader
    assert leader.reads_lost == [ticket]
    assert np.all(leader.committed_index <= leader.replica.log.last_index)


def test_entries_sent_at_once_find_room_in_one_segment(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    """A follower takes the entries of a message all or not at all: one that never can would stay behind for ever."""
    member = open_member(tmp_path, settings=small, clock_ns=clock, chance=random.Random(1))
    append_bytes_max = member.core._state.settings.append_bytes_max
    assert member.replica.log.has_room(append_bytes_max)
    assert append_bytes_max >= small.segment_size // 2
    member.close()


def test_an_entry_that_fills_a_segment_is_replicated(led: MemberGroup, small: ReplicaSettings) -> None:
    """Seed 20445 of the simulator with shards: followers had no room for the last of its bytes, ever."""
    count = (small.segment_size - SEGMENT_HEADER_SIZE - ENTRY_HEADER_SIZE) // EVENT_SIZE
    index = led.execute(transfers("world", "ann", count))
    led.run(2)
    assert led.leader.committed_index == index
    assert len(positions(led)) == 1


def test_a_member_that_hears_nothing_and_is_heard_disrupts_nobody(led: MemberGroup) -> None:
    """It asks for votes again and again; those who hear their leader do not listen."""
    term = led.leader.term
    led.deaf = {3}
    for _ in range(200):
        led.run(1)
        assert led.members[1].is_leader
    led.execute(transfers("ann", "bob", 1))
    led.run(10)
    assert led.leader.committed_index == led.leader.replica.log.last_index
    led.deaf = set()
    led.run(20)
    assert (led.leader.identity.node_id, led.leader.term) == (1, term)
    assert len(positions(led)) == 1
