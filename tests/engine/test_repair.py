"""Claim: a member with a damaged log gives nothing away that others rely on: it refuses to start, or does not vote."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bezant.engine.diagnosis import FindingKind, Severity
from bezant.engine.doctor import examine
from bezant.engine.log.control import CONTROL_NAME
from bezant.engine.log.segment import segment_name
from bezant.engine.log.vote import VOTE_NAME
from bezant.engine.member import Member
from bezant.engine.node_file import new_cluster_id, new_group_node
from bezant.engine.repair import repair_from_group
from bezant.engine.replica import ReplicaSettings
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.records import SEGMENT_HEADER_SIZE

from .commands import opening_world, transfers
from .conftest import Clock
from .group import MemberGroup

VICTIM = 3
ROUNDS = 8
BATCH = 300
"""Transfers of a round: 57,600 bytes, so that the log has several segments."""


@pytest.fixture
def led(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Iterator[MemberGroup]:
    """A group that node 1 leads; the log of the victim, which is stopped, has several segments."""
    settings = msgspec.structs.replace(small, segment_size=256 << 10, holds_max=100)
    group = MemberGroup(tmp_path, settings, clock)
    group.elect(1)
    group.execute(opening_world("ann", "bob"))
    for _ in range(ROUNDS):
        group.execute(transfers("ann", "bob", BATCH))
        group.run(6)
    group.close(VICTIM)
    yield group
    group.close()


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def middle_of_the_first_segment(folder: Path) -> None:
    flip(folder / segment_name(1), 120_000)


def the_first_entry(folder: Path) -> None:
    flip(folder / segment_name(1), SEGMENT_HEADER_SIZE + 60)


def the_first_entry_of_a_later_segment(folder: Path) -> None:
    flip(folder / segment_name(2), SEGMENT_HEADER_SIZE + 60)


def a_segment_header(folder: Path) -> None:
    flip(folder / segment_name(2), 20)


def the_first_segment_header(folder: Path) -> None:
    flip(folder / segment_name(1), 20)


def a_segment_is_gone(folder: Path) -> None:
    (folder / segment_name(1)).unlink()


def the_control_file_is_gone(folder: Path) -> None:
    (folder / CONTROL_NAME).unlink()


def all_of_the_log_is_gone(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != VOTE_NAME and path.is_file():
            path.unlink()


DAMAGES = [
    middle_of_the_first_segment,
    the_first_entry,
    the_first_entry_of_a_later_segment,
    a_segment_header,
    the_first_segment_header,
    a_segment_is_gone,
    the_control_file_is_gone,
    all_of_the_log_is_gone,
]


def repair(group: MemberGroup) -> None:
    assert repair_from_group(group.folder(VICTIM), group.nodes[VICTIM]) is not None


def are_alike(group: MemberGroup, member: Member) -> bool:
    leader = group.leader.replica
    replica = member.replica
    return (replica.log.chain_hash, replica.ledger.digest()) == (leader.log.chain_hash, leader.ledger.digest())


@pytest.mark.parametrize("damage", DAMAGES)
def test_rot_is_refused_and_repaired_from_the_group(led: MemberGroup, damage: Callable[[Path], None]) -> None:
    damage(led.shard_folder(VICTIM))
    with pytest.raises(CorruptLog):
        led.open(VICTIM)
    repair(led)
    member = led.open(VICTIM)
    led.greet(VICTIM)
    assert member.core.is_barred
    led.run(30)
    assert are_alike(led, member)
    assert not member.core.is_barred
    assert repair_from_group_again(led) is None


def repair_from_group_again(group: MemberGroup) -> object:
    group.close(VICTIM)
    return repair_from_group(group.folder(VICTIM), group.nodes[VICTIM])


def test_what_is_cut_off_is_set_aside(led: MemberGroup) -> None:
    folder = led.shard_folder(VICTIM)
    before = {path.name: path.read_bytes() for path in folder.glob("segment-*")}
    middle_of_the_first_segment(folder)
    report = repair_from_group(led.folder(VICTIM), led.nodes[VICTIM])
    assert report is not None
    assert "damage to durable data" in report.damage
    assert 1 < report.last_index < 8
    renamed = {name: before[name.removeprefix("rot-")] for name in report.set_aside if name.startswith("rot-segment-")}
    assert len(renamed) == len(before) - 1
    assert all((folder / name).read_bytes() == content for name, content in renamed.items())
    (tail,) = set(report.set_aside) - set(renamed)
    offset = int(tail.split("-")[2])
    original = before[segment_name(1)][offset:].rstrip(b"\0")
    kept = (folder / tail).read_bytes()
    assert len(kept) == len(original)
    assert sum(one != other for one, other in zip(kept, original, strict=True)) == 1


def test_the_doctor_knows_what_was_set_aside_and_names_the_repair(led: MemberGroup) -> None:
    middle_of_the_first_segment(led.shard_folder(VICTIM))
    damage = next(finding for finding in examine(led.folder(VICTIM)).findings if finding.severity is Severity.DAMAGE)
    assert "bezant serve --repair-from-group" in damage.next_step
    repair(led)
    led.open(VICTIM)
    led.run(30)
    led.close(VICTIM)
    found = examine(led.folder(VICTIM)).findings
    assert [finding.kind for finding in found if finding.severity is Severity.DAMAGE] == []
    assert any(finding.kind is FindingKind.SET_ASIDE and "damaged log" in finding.found for finding in found)


def test_a_member_that_gave_something_up_does_not_vote_for_who_has_not_got_it(led: MemberGroup) -> None:
    """The entries at the end are committed by nodes 1 and 3; without the bar 2 and 3 could go on without them."""
    led.close(2)
    member = led.open(VICTIM)
    led.execute(transfers("ann", "bob", BATCH))
    led.run(10)
    committed = led.leader.committed_index
    assert member.replica.log.last_index == committed
    led.close(VICTIM)
    middle_of_the_first_segment(led.shard_folder(VICTIM))
    repair(led)
    led.close(1)
    led.open(2)
    barred = led.open(VICTIM)
    led.run(200)
    assert not any(member.is_leader for member in led.members.values())
    led.open(1)
    led.elect(1)
    led.run(30)
    assert led.leader.committed_index > committed
    assert not barred.core.is_barred and are_alike(led, barred)


def test_a_torn_tail_loses_nothing_and_bars_nobody(led: MemberGroup) -> None:
    folder = led.shard_folder(VICTIM)
    ends = {path: len(path.read_bytes().rstrip(b"\0")) for path in folder.glob("segment-??????????")}
    last = max(path for path, end in ends.items() if end > SEGMENT_HEADER_SIZE)
    with last.open("r+b") as file:
        file.seek(ends[last] + 512)  # the last entry may itself end with zeros
        file.write(b"half of an entry")
    member = led.open(VICTIM)
    assert member.replica.log.recovery.torn_bytes
    assert not member.core.is_barred
    led.run(10)
    assert are_alike(led, member)


def test_a_repair_that_was_interrupted_can_be_made_again(led: MemberGroup, monkeypatch) -> None:
    folder = led.shard_folder(VICTIM)
    middle_of_the_first_segment(folder)
    with monkeypatch.context() as patched:
        patched.setattr("bezant.engine.log.repairing._leave_intent", _fail)
        with pytest.raises(RuntimeError):
            repair(led)
    with pytest.raises(CorruptLog):
        led.open(VICTIM)
    repair(led)
    member = led.open(VICTIM)
    assert member.core.is_barred
    led.run(30)
    assert are_alike(led, member)


def _fail(*_: object) -> None:
    raise RuntimeError("the power is gone")


def test_who_is_alone_has_nobody_to_repair_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alone"):
        repair_from_group(tmp_path, None)
    with pytest.raises(UsageError, match="alone"):
        repair_from_group(tmp_path, new_group_node(new_cluster_id(), 1, {1: ("h:1", "h:2")}))


def test_a_lost_vote_is_not_repaired(led: MemberGroup) -> None:
    folder = led.shard_folder(VICTIM)
    middle_of_the_first_segment(folder)
    (folder / VOTE_NAME).unlink()
    with pytest.raises(CorruptLog, match="init --join"):
        repair(led)
