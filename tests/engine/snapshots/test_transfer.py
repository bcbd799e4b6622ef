"""Claim: a member begins with the state of its group and ends with its whole history, whatever comes between."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typing_extensions import Buffer

from bezant.engine.diagnosis import FindingKind, Verdict
from bezant.engine.doctor import examine
from bezant.engine.going_alone import go_on_alone
from bezant.engine.log.storage import Directory
from bezant.engine.repair import repair_from_group
from bezant.engine.replica import ReplicaSettings
from bezant.engine.snapshots import installing
from bezant.engine.snapshots.installing import BEFORE_PREFIX, FOLDER_NAME
from bezant.engine.snapshots.receiving import CORRUPT_PARTS_MAX
from bezant.engine.verify import verify
from bezant.protocol.errors import HistoryIncomplete
from bezant.protocol.raft_messages import Append
from bezant.protocol.transfer_messages import (
    UNWANTED,
    EntriesReply,
    EntriesRequest,
    PartReply,
    PeerMessage,
    SnapshotOffer,
    SnapshotReply,
)

from ...simulator.disk import AtOnce
from ..conftest import Clock
from .group import VICTIM, TransferGroup, behind

LOG_ID = [0]
"""That of the group, for whoever switches the comparison off."""


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
def group(
    tmp_path: Path, small: ReplicaSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TransferGroup]:
    monkeypatch.setattr(Directory, "helper", lambda self, name: AtOnce())
    settings = msgspec.structs.replace(small, snapshot_behind_bytes=100_000)
    made = TransferGroup(tmp_path, settings, clock)
    behind(made)
    yield made
    made.close()


def back(group: TransferGroup) -> None:
    """The victim is there again, and is sent the state."""
    group.open(VICTIM)
    group.greet(VICTIM)
    group.leader.begin_snapshot(VICTIM, group.leader.replica.checkpoint_index)


def corrupted(payload: Buffer) -> bytes:
    data = bytearray(payload)
    data[len(data) // 2] ^= 1
    return bytes(data)


def test_a_member_that_was_away_counts_before_it_has_the_history(group: TransferGroup) -> None:
    stopped: list[PeerMessage] = []

    def hold_back(message: PeerMessage, payload: Buffer) -> Buffer | None:
        if isinstance(message, EntriesReply) and group.reopened:
            stopped.append(message)
            return None
        return payload

    group.spoil = hold_back  # type: ignore[method-assign]
    back(group)
    group.run_until(lambda: group.reopened)
    group.run(20)
    member = group.members[VICTIM]
    assert member.replica.applied_index == group.leader.replica.log.last_index
    assert not member.replica.log.is_complete
    status = next(item for item in group.leader.core.status().members if item.node_id == VICTIM)
    assert status.match_index == group.leader.replica.log.last_index
    assert status.first_index == member.replica.log.first_index > 1
    group.cut_off = {2}
    group.execute(_more())
    group.run(6)
    assert group.leader.committed_index == group.leader.replica.log.last_index  # by the two of them
    with pytest.raises(HistoryIncomplete, match="are not here yet"):
        member.replica.log.read_events(np.array([700], np.int64))
    assert stopped


def _more() -> Any:
    from ..commands import transfers

    return transfers("ann", "bob", 3)


def slow_to_append(group: TransferGroup) -> None:
    """The victim comes back and gets few entries before the leader has looked at what it lacks."""

    def spoil(message: PeerMessage, payload: Buffer) -> Buffer | None:
        is_late = isinstance(message, Append) and message.receiver == VICTIM and message.last_index > 6
        return None if is_late and not group.reopened else payload

    group.spoil = spoil  # type: ignore[method-assign]
    group.open(VICTIM)
    group.greet(VICTIM)


def test_the_leader_decides_by_what_a_member_lacks(group: TransferGroup) -> None:
    slow_to_append(group)
    group.run_until(lambda: group.reopened and group.is_level(VICTIM))
    group.check_same(VICTIM)


def test_what_it_had_is_kept_and_the_rest_comes(group: TransferGroup) -> None:
    back(group)
    group.run_until(lambda: group.reopened and group.is_level(VICTIM))
    group.check_same(VICTIM)
    assert group.counts[VICTIM]["states installed"] == 1
    assert group.counts[VICTIM]["segments kept"] >= 1
    assert group.counts[VICTIM]["segments filled in"] >= 1
    assert group.counts[1]["states sent"] == 1
    shard = group.shard_folder(VICTIM)
    assert not list(shard.glob(f"{BEFORE_PREFIX}*"))
    assert not list((shard / FOLDER_NAME).iterdir())
    digest, last = group.leader.replica.ledger.digest(), group.leader.replica.log.last_index
    group.close(VICTIM)
    report = verify(group.folder(VICTIM))
    assert (report.state_digest, report.entries) == (digest, last)
    assert report.checkpoints == 1
    group.open(VICTIM)


def test_a_wiped_member_votes_again_when_it_has_the_state(group: TransferGroup) -> None:
    shutil.rmtree(group.folder(VICTIM))
    slow_to_append(group)
    assert group.members[VICTIM].core.is_barred
    group.run_until(lambda: group.reopened and group.is_level(VICTIM))
    group.check_same(VICTIM)
    group.run_until(lambda: not group.members[VICTIM].core.is_barred)


def test_a_damaged_part_is_refused_and_asked_for_again(group: TransferGroup) -> None:
    spoiled: list[PeerMessage] = []

    def spoil(message: PeerMessage, payload: Buffer) -> Buffer:
        if isinstance(message, PartReply) and len(spoiled) < 3:
            spoiled.append(message)
            return corrupted(payload)
        return payload

    group.spoil = spoil  # type: ignore[method-assign]
    back(group)
    group.run_until(lambda: group.reopened and group.is_level(VICTIM))
    assert group.counts[VICTIM]["corrupt parts"] == len(spoiled) == 3
    assert group.counts[VICTIM]["states failed"] == 0
    group.check_same(VICTIM)


def test_parts_that_are_always_damaged_are_given_up_and_told(group: TransferGroup) -> None:
    def spoil(message: PeerMessage, payload: Buffer) -> Buffer:
        return corrupted(payload) if isinstance(message, PartReply) else payload

    group.spoil = spoil  # type: ignore[method-assign]
    before = group.shard_folder(VICTIM)
    names = {path.name for path in before.iterdir() if path.is_file()}
    back(group)
    group.run_until(lambda: group.counts[1]["states not sent"])
    assert group.counts[VICTIM]["states failed"] == 1
    assert any(f"{CORRUPT_PARTS_MAX + 1} parts of the state came damaged" in told for told in group.warnings)
    assert group.reopened == 0
    assert names <= {path.name for path in before.iterdir()}
    group.run_until(lambda: group.is_level(VICTIM))  # by the log: the next attempt with the state comes later
    group.check_same(VICTIM)


@pytest.mark.parametrize("how", ["rotten", "short"])
def test_a_file_that_is_damaged_at_the_leader_does_not_get_through(group: TransferGroup, how: str) -> None:
    (run,) = (group.shard_folder(1) / "checkpoints").glob("ids-*")
    data = run.read_bytes()
    run.write_bytes(corrupted(data) if how == "rotten" else data[:-4096])
    back(group)
    group.run_until(lambda: group.counts[VICTIM]["states failed"])
    assert group.reopened == 0
    group.run_until(lambda: group.is_level(VICTIM))
    group.check_same(VICTIM)


def test_entries_of_another_history_do_not_get_through(group: TransferGroup) -> None:
    def spoil(message: PeerMessage, payload: Buffer) -> Buffer:
        is_backfill = isinstance(message, EntriesReply) and message.sender == 1 and group.reopened
        return corrupted(payload) if is_backfill else payload

    group.spoil = spoil  # type: ignore[method-assign]
    back(group)
    group.run_until(lambda: group.reopened and group.is_level(VICTIM))  # from the other follower
    assert any("is not complete yet" in told for told in group.warnings)
    group.check_same(VICTIM)


def test_a_state_of_another_group_is_refused(group: TransferGroup) -> None:
    back(group)
    group.moving[VICTIM]._facts.log_id += 2
    group.run_until(lambda: group.counts[VICTIM]["states failed"])
    assert any("one of another group's log" in told for told in group.warnings)
    assert group.reopened == 0
    group.moving[VICTIM]._facts.log_id -= 2


def test_a_state_is_of_no_use_to_who_has_more(group: TransferGroup) -> None:
    leader, index = group.leader, group.leader.replica.checkpoint_index
    term = leader.replica.log.term_at(index) or 0
    said: list[PeerMessage] = []
    group.spoil = lambda message, payload: (said.append(message), payload)[1]  # type: ignore[method-assign]
    leader.send(SnapshotOffer(1, 2, leader.term, 7, index, term, 4096), ())
    group.settle()
    replies = [message for message in said if isinstance(message, SnapshotReply)]
    assert [reply.state for reply in replies] == [UNWANTED]


def test_a_newer_checkpoint_takes_nothing_away(group: TransferGroup) -> None:
    parts: list[PeerMessage] = []

    def spoil(message: PeerMessage, payload: Buffer) -> Buffer:
        if isinstance(message, PartReply):
            parts.append(message)
            if len(parts) == 1:
                for _ in range(3):
                    group.leader.execute(_more(), np.zeros(0, np.int64))
                    group.write(group.leader)
                    group.leader.committed_index = group.leader.replica.log.commit_index = (
                        group.leader.replica.log.last_index
                    )
                    group.make_checkpoint(1)
        return payload

    names = {path.name for path in (group.shard_folder(1) / "checkpoints").iterdir()}
    group.spoil = spoil  # type: ignore[method-assign]
    back(group)
    group.run_until(lambda: group.reopened and group.is_level(VICTIM))
    left = {path.name for path in (group.shard_folder(1) / "checkpoints").iterdir()}
    assert not {name for name in names if name.startswith("checkpoint-")} <= left
    assert group.counts[1]["states sent"] == 1
    group.check_same(VICTIM)


def test_another_leader_goes_on_where_the_first_was_lost(group: TransferGroup) -> None:
    parts: list[PeerMessage] = []

    def spoil(message: PeerMessage, payload: Buffer) -> Buffer | None:
        if isinstance(message, PartReply | EntriesReply) and message.sender == 1:
            parts.append(message)
            return payload if len(parts) < 2 else None
        return payload

    group.spoil = spoil  # type: ignore[method-assign]
    back(group)
    group.run_until(lambda: len(parts) >= 2)
    group.cut_off = {1}
    group.run_until(lambda: group.members[2].is_leader)
    group.run_until(lambda: group.is_level(VICTIM))
    group.check_same(VICTIM)
    group.cut_off = set()


def test_a_member_without_history_does_not_stand_while_others_may(group: TransferGroup) -> None:
    group.spoil = (  # type: ignore[method-assign]
        lambda message, payload: None if isinstance(message, EntriesRequest) and group.reopened else payload
    )
    back(group)
    group.run_until(lambda: group.reopened)
    group.run(30)
    leading = group.leader.core._leader()
    assert leading.best_successor() == 2
    assert [leading._may_lead(leading._progress[node]) for node in (2, VICTIM)] == [True, False]
    group.cut_off = {1, 2}
    for _ in range(150):
        group.members[VICTIM].tick()
    assert group.members[VICTIM].role.name == "FOLLOWER"
    for _ in range(400):
        group.members[VICTIM].tick()
    assert group.members[VICTIM].role.name == "PRE_CANDIDATE"  # nobody else does
    group.cut_off = set()


def test_an_interrupted_install_is_finished_at_the_next_start(
    group: TransferGroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the step at which the process ends, over and over again."""
    spared = tmp_path / "spared"
    monkeypatch.setattr(installing, "_install", lambda *arguments: (_ for _ in ()).throw(Crash))
    back(group)
    with pytest.raises(Crash):
        group.run_until(lambda: group.reopened > 1)
    monkeypatch.undo()
    monkeypatch.setattr(Directory, "helper", lambda self, name: AtOnce())
    shutil.copytree(group.folder(VICTIM), spared)
    state = group.leader.replica.checkpoint_index
    steps_max = 0
    for steps in range(1, 100):
        shutil.rmtree(group.folder(VICTIM))
        shutil.copytree(spared, group.folder(VICTIM))
        with monkeypatch.context() as patch:
            left = [steps]
            for name in ("move", "remove", "create_file", "write_file"):
                patch.setattr(Directory, name, _counted(getattr(Directory, name), left))
            try:
                installing.finish_install(group.folder(VICTIM), Directory(group.shard_folder(VICTIM)), 0)
            except Crash:
                pass
            else:
                steps_max = steps
                break
        member = group.open(VICTIM)
        assert (member.replica.start_index, member.replica.log.last_index) == (state, state)
        assert not member.replica.log.is_complete
        group.close(VICTIM)
    assert steps_max > 10
    back(group)
    group.run_until(lambda: group.is_level(VICTIM))
    group.check_same(VICTIM)


def _counted(whole: Any, left: list[int]) -> Any:
    def step(self: Any, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            raise Crash
        return whole(self, *arguments)

    return step


def without_history(group: TransferGroup) -> None:
    """The victim has the state, nothing before it comes, and it is stopped."""
    group.spoil = (  # type: ignore[method-assign]
        lambda message, payload: None if isinstance(message, EntriesRequest) and group.reopened else payload
    )
    back(group)
    group.run_until(lambda: group.reopened)
    group.run(20)
    group.close(VICTIM)
    group.spoil = lambda message, payload: payload  # type: ignore[method-assign]


def test_tools_say_that_the_history_is_incomplete(group: TransferGroup) -> None:
    without_history(group)
    diagnosis = examine(group.folder(VICTIM))
    assert diagnosis.verdict is Verdict.HEALTHY
    assert FindingKind.HISTORY_INCOMPLETE in {finding.kind for finding in diagnosis.findings}
    with pytest.raises(HistoryIncomplete, match="have not come from the group yet"):
        verify(group.folder(VICTIM))
    with pytest.raises(HistoryIncomplete, match="nobody would be left"):
        go_on_alone(group.folder(VICTIM), group.nodes[VICTIM], group._settings)
    assert repair_from_group(group.folder(VICTIM), group.nodes[VICTIM]) is None
    group.open(VICTIM)
    group.greet(VICTIM)
    group.run_until(lambda: group.is_level(VICTIM))
    assert examine(group.folder(VICTIM)).verdict is Verdict.IN_USE
    group.check_same(VICTIM)


@pytest.mark.parametrize("lost", ["checkpoints", "rot"])
def test_an_incomplete_log_that_is_damaged_begins_anew(group: TransferGroup, lost: str) -> None:
    without_history(group)
    shard = group.shard_folder(VICTIM)
    if lost == "rot":
        segment = min(shard.glob("segment-*"))
        data = bytearray(segment.read_bytes())
        data[6_000] ^= 1
        segment.write_bytes(bytes(data))
    else:
        for path in (shard / "checkpoints").glob("checkpoint-*"):
            path.unlink()
        with pytest.raises(HistoryIncomplete, match="repair-from-group"):
            group.open(VICTIM)
    report = repair_from_group(group.folder(VICTIM), group.nodes[VICTIM])
    assert report is not None
    assert report.last_index == 0
    slow_to_append(group)
    assert group.members[VICTIM].core.is_barred
    group.run_until(lambda: group.is_level(VICTIM))
    group.check_same(VICTIM)
