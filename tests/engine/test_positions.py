"""Claim: positions under names are a part of the state: of all members, of checkpoints, and they never go back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bezant.engine.diagnosis import Verdict
from bezant.engine.doctor import examine
from bezant.engine.keeping_positions import keep_positions
from bezant.engine.replica import Replica, ReplicaSettings, open_replica
from bezant.engine.verify import verify
from bezant.protocol.errors import UsageError
from bezant.protocol.messages import ControlEntry, decode_control_entry, encode_message
from bezant.protocol.records import position_of

from .commands import opening_world, transfers
from .conftest import Clock
from .group import MemberGroup


@pytest.fixture
def replica(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Iterator[Replica]:
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    replica.execute(opening_world("ann", "bob"))
    replica.write_group()
    yield replica
    replica.close()


def at(sequence: int) -> int:
    return position_of(0, sequence)


def test_they_are_kept_and_never_go_back(replica: Replica, tmp_path: Path, small: ReplicaSettings) -> None:
    keep_positions(replica, {"mail": at(2), "post": 0})
    last = replica.log.last_index
    assert keep_positions(replica, {"mail": at(1), "post": 0}) == last
    assert replica.log.last_index == last
    keep_positions(replica, {"mail": at(1), "post": at(3)})
    assert replica.ledger.positions == {"mail": at(2), "post": at(3)}
    replica.write_group()
    digest = replica.ledger.digest()
    replica.close()
    assert verify(tmp_path).state_digest == digest
    assert examine(tmp_path, free_space_floor=0).verdict is Verdict.HEALTHY
    again = open_replica(tmp_path, settings=small)
    assert again.ledger.positions == {"mail": at(2), "post": at(3)}
    image = again.ledger.image()
    assert dict(image.positions) == again.ledger.positions
    again.close()


@pytest.mark.parametrize(
    ("positions", "why"),
    [
        ({"mail": at(4)}, "none of this log"),
        ({"mail": position_of(1, 1)}, "none of this log"),
        ({"two words": at(1)}, "no subscription has the name"),
        ({"": at(1)}, "no subscription has the name"),
        ({f"n{number}": 0 for number in range(10_001)}, "10000 names at most"),
    ],
)
def test_what_cannot_be_kept_is_refused(replica: Replica, positions: dict[str, int], why: str) -> None:
    last = replica.log.last_index
    with pytest.raises(UsageError, match=why):
        keep_positions(replica, positions)
    assert (replica.log.last_index, replica.ledger.positions) == (last, {})


def test_a_name_too_many_holds_up_no_other(replica: Replica) -> None:
    for first in range(0, 10_000, 1_000):
        keep_positions(replica, {f"n{number}": 0 for number in range(first, first + 1_000)})
    last = keep_positions(replica, {"mail": at(2), "n0": at(1), "n1": at(3)})
    assert last == replica.log.last_index
    assert (replica.ledger.positions["n0"], replica.ledger.positions["n1"]) == (at(1), at(3))
    assert len(replica.ledger.positions) == 10_000
    with pytest.raises(UsageError, match="10000 names at most"):
        keep_positions(replica, {"mail": at(2), "n0": at(1)})


def test_members_of_an_earlier_version_are_waited_for(replica: Replica) -> None:
    replica.find_unready = lambda version: "node 2 does not know this" if version > 1 else ""
    with pytest.raises(UsageError, match="node 2"):
        keep_positions(replica, {"mail": at(1)})


def test_an_entry_without_any_is_one_that_earlier_versions_know() -> None:
    assert b"positions" not in encode_message(ControlEntry())
    assert decode_control_entry(encode_message(ControlEntry(positions={"mail": 7}))).positions == {"mail": 7}


def test_all_members_know_them(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    group = MemberGroup(tmp_path, small, clock)
    group.elect(1)
    group.execute(opening_world("ann", "bob"))
    group.execute(transfers("world", "ann", 3))
    keep_positions(group.leader.replica, {"mail": at(5)})
    group.leader.note_appended()
    group.run(10)
    assert [member.replica.ledger.positions for member in group.members.values()] == [{"mail": at(5)}] * 3
    group.close()
