"""Claim: a replica that starts from a checkpoint is the one that replays all of its history, wherever an id lies."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pytest

from bezant.engine.checkpoints.folder import CHECKPOINTS_KEPT
from bezant.engine.replica import BATCH_COMMANDS_MAX, ReplicaSettings, open_replica
from bezant.engine.verify import verify
from bezant.net.server.checkpoint_child import CheckpointWorker, Order, Setup
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, LedgerError
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.records import Records

from ..commands import join, opening_world, transfer, transfers
from ..conftest import Clock

CHECKPOINT_IDS: Final = 60


@pytest.fixture
def settings(small: ReplicaSettings) -> ReplicaSettings:
    """A checkpoint after a few ids."""
    return msgspec.structs.replace(small, checkpoint_ids=CHECKPOINT_IDS)


class Node:
    """A replica and the one who makes its checkpoints, without processes between them."""

    def __init__(self, path: Path, settings: ReplicaSettings, clock: Clock) -> None:
        self.path = path
        self.settings = settings
        self.clock = clock
        self.checkpoints = 0
        self.replica = open_replica(path, settings=settings, clock_ns=clock)
        self.worker: CheckpointWorker | None = None

    def execute(self, commands: Records) -> Records:
        self.clock.now_ns += 1_000_000_000
        results = self.replica.execute(commands).results
        self.replica.write_group()
        if self.replica.checkpoint_is_due:
            self.replica.freeze()
        return results

    def start_worker(self) -> CheckpointWorker:
        if self.worker is None:
            setup = Setup(str(self.path), 0, self.settings, self.replica.ledger.salts)
            self.worker = CheckpointWorker(setup)
        return self.worker

    def make_checkpoint(self) -> None:
        index = self.replica.frozen_index
        report = self.start_worker().carry_out(Order(index))
        assert (report.index, report.error) == (index, "")
        found = self.replica.checkpoints.open_written(index, self.settings.filter_bytes_max, self.replica.id_runs)
        self.replica.adopt(*found)
        self.checkpoints += 1

    def stop_worker(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def stop(self) -> None:
        self.stop_worker()
        self.replica.close()

    def start_again(self) -> None:
        self.stop()
        self.replica = open_replica(self.path, settings=self.settings, clock_ns=self.clock)


@pytest.fixture
def node(tmp_path: Path, settings: ReplicaSettings, clock: Clock) -> Iterator[Node]:
    node = Node(tmp_path / "data", settings, clock)
    yield node
    node.stop()


def hold(name: str, credit: str, amount: int, timeout_ms: int = 0) -> Records:
    commands = transfer(name, credit, amount)
    commands["kind"] = int(CommandKind.HOLD)
    commands["timeout_ms"] = timeout_ms
    return commands


def capture(held: Records, amount: int = 0) -> Records:
    commands = transfer("ann", "bob", amount)
    for name in ("debit_head", "debit_tail", "credit_head", "credit_tail"):
        commands[name] = held[name]
    commands["kind"] = int(CommandKind.CAPTURE)
    commands["reference_head"], commands["reference_tail"] = held["id_head"], held["id_tail"]
    return commands


def some_commands(choice: random.Random, sent: list[Records], holds: list[Records]) -> Records:
    """A batch with new ids, old ids, ids of old with other contents, holds, and captures of holds of any age."""
    parts = [transfers("world", choice.choice(["ann", "bob"]), choice.randint(1, 20), 5)]
    for _ in range(choice.randint(0, 4)):
        again = choice.choice(sent).copy()
        if choice.random() < 0.3:
            again["amount"] += 1
        parts.append(again)
    for _ in range(choice.randint(0, 3)):
        holds.append(hold("ann", "bob", choice.randint(1, 5), choice.choice([0, 5_000, 60_000])))
        parts.append(holds[-1])
    for _ in range(choice.randint(0, 3)):
        if holds:
            parts.append(capture(choice.choice(holds), choice.choice([0, 1])))
    batch = join(*parts)
    sent.extend(batch[number : number + 1].copy() for number in range(len(batch)))
    return batch


@pytest.mark.parametrize("seed", range(12))
def test_checkpoints_change_nothing_that_can_be_seen(
    seed: int, tmp_path: Path, small: ReplicaSettings, node: Node, clock: Clock
) -> None:
    """The same commands, at the same times, to a replica that keeps all ids in memory."""
    choice = random.Random(seed)
    other_clock = Clock()
    other = open_replica(tmp_path / "other", settings=small, clock_ns=other_clock)
    sent, holds = [opening_world("ann", "bob")], []
    batch = join(opening_world("ann", "bob"), transfers("world", "ann", 3, 500))
    for _ in range(60):
        results = node.execute(batch)
        other_clock.now_ns = clock.now_ns
        expected = other.execute(batch).results
        other.write_group()
        assert results.tobytes() == expected.tobytes()
        step = choice.random()
        if node.replica.frozen_index and step < 0.5:
            node.make_checkpoint()
        elif step < 0.7:
            node.start_again()
        elif step < 0.75:
            node.stop_worker()
        if node.worker is not None:
            node.worker.merge_step()
        batch = some_commands(choice, sent, holds)
        assert node.replica.ledger.digest() == other.ledger.digest()
    assert node.checkpoints > 2
    other.close()
    node.stop()
    assert verify(tmp_path / "data").state_digest == verify(tmp_path / "other").state_digest


def fill(node: Node, checkpoints: int) -> list[Records]:
    """Transfers until there are so many checkpoints more; returns the batches."""
    if node.replica.ledger.account_count == 0:
        node.execute(opening_world("ann", "bob"))
    batches = []
    wanted = node.checkpoints + checkpoints
    while node.checkpoints < wanted:
        batches.append(transfers("world", "ann", 25, 5))
        node.execute(batches[-1])
        if node.replica.frozen_index:
            node.make_checkpoint()
    return batches


def send_again(node: Node, batches: list[Records]) -> None:
    """What was committed long ago is known, all of it."""
    for batch in batches:
        results = node.execute(batch)
        assert set(results["code"].tolist()) == {int(ResultCode.COMMITTED)}
        assert np.all(results["flags"] & int(ResultFlag.REPEATED))


def test_a_start_reads_the_tail_alone(node: Node) -> None:
    batches = fill(node, 3)
    node.execute(transfers("world", "bob", 2, 5))
    node.execute(transfers("world", "bob", 2, 5))
    digest = node.replica.ledger.digest()
    node.start_again()
    assert node.replica.log.recovery.entries == 2
    assert node.replica.ledger.digest() == digest
    send_again(node, batches)
    assert node.replica.ledger.digest() == digest


def test_old_checkpoints_and_runs_are_removed(node: Node) -> None:
    fill(node, 12)
    names = node.replica.checkpoints.directory.names()
    assert len([name for name in names if name.startswith("checkpoint-")]) == CHECKPOINTS_KEPT
    worker = node.start_worker()
    while worker.merge_step():
        pass
    fill(node, 3)
    names = node.replica.checkpoints.directory.names()
    listed = {run.info.number for run in node.replica.id_runs.runs}
    assert len(listed) < 6
    assert len([name for name in names if name.startswith("ids-")]) <= len(listed) + 6


@pytest.mark.parametrize("what", ["checkpoint", "ids"])
def test_a_damaged_checkpoint_is_passed_over_and_said(node: Node, what: str) -> None:
    """What is derived from the history may be lost: the one before it counts, or the history itself."""
    fill(node, 4)
    digest = node.replica.ledger.digest()
    node.stop()
    newest = [name for name in node.replica.checkpoints.directory.names() if name.startswith(f"{what}-")][-1]
    path = node.replica.checkpoints.directory.path / newest
    data = bytearray(path.read_bytes())
    data[-1 if what == "ids" else 5_000] ^= 1
    path.write_bytes(data)
    node.start_again()
    assert len(node.replica.checkpoints.damaged) == 1
    assert newest in node.replica.checkpoints.damaged[0]
    assert node.replica.ledger.digest() == digest
    assert node.replica.log.recovery.entries > 0


def test_without_any_checkpoint_the_history_is_replayed_and_leaves_some(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("CHUNK_ENTRIES_MAX", "CHUNKS_AHEAD_MAX"):
        monkeypatch.setattr(f"bezant.engine.ahead.{bound}", 1)  # or all of it would be read ahead
    batches = fill(node, 4)
    digest = node.replica.ledger.digest()
    entries = node.replica.log.last_index
    node.stop()
    for name in node.replica.checkpoints.directory.names():
        (node.replica.checkpoints.directory.path / name).unlink()
    node.start_again()
    assert node.replica.log.recovery.entries == entries
    assert node.replica.ledger.digest() == digest
    assert len(node.replica.checkpoints.indexes()) == CHECKPOINTS_KEPT
    send_again(node, batches)
    assert node.replica.ledger.digest() == digest


def test_a_checkpoint_that_was_written_but_not_told_is_taken_over(node: Node) -> None:
    node.execute(opening_world("ann", "bob"))
    node.execute(transfers("world", "ann", CHECKPOINT_IDS, 5))
    index = node.replica.frozen_index
    assert node.start_worker().carry_out(Order(index)).index == index
    node.stop_worker()
    before = node.replica.checkpoints.directory.names()
    node.make_checkpoint()
    assert node.replica.checkpoints.directory.names() == before


def test_a_log_that_is_shorter_than_its_checkpoint_is_refused(node: Node) -> None:
    """A checkpoint is made of durable entries: where the log has lost them it is damaged, and is not cut off there."""
    fill(node, 1)
    node.stop()
    folder = node.path / "shard-0000"
    point = node.replica.checkpoints.newest_manifest().point
    segment = folder / f"segment-{point.segment_number:010d}"
    data = bytearray(segment.read_bytes())
    data[point.entry_offset : point.end_offset] = bytes(point.end_offset - point.entry_offset)
    segment.write_bytes(data)
    with pytest.raises(CorruptLog, match="checkpoint"):
        open_replica(node.path, settings=node.settings)


def test_only_the_checkpoint_that_was_asked_for_is_adopted(node: Node) -> None:
    fill(node, 1)
    manifest = node.replica.checkpoints.newest_manifest()
    with pytest.raises(LedgerError, match="was asked for"):
        node.replica.adopt(manifest, node.replica.id_runs)


def test_a_full_memory_refuses_and_goes_on_after_the_checkpoint(
    tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    """Nobody makes checkpoints: what would not fit is refused unseen, and nothing is lost."""
    node = Node(tmp_path / "data", msgspec.structs.replace(small, segment_size=8 << 20, checkpoint_ids=1), clock)
    node.execute(opening_world("ann", "bob"))
    digest, refused = "", None
    while refused is None:
        digest = node.replica.ledger.digest()
        results = node.execute(transfers("world", "ann", 5_000, 5))
        if results["code"][0] == int(ResultCode.STORAGE_FULL):
            refused = results
    assert np.all(refused["code"] == int(ResultCode.STORAGE_FULL))
    assert node.replica.ledger.digest() == digest
    node.make_checkpoint()
    assert node.execute(transfer("world", "ann", 5))["code"][0] == int(ResultCode.COMMITTED)
    node.stop()


def test_a_memory_that_fills_before_the_next_table_is_zeroed_is_frozen_all_the_same(
    tmp_path: Path, small: ReplicaSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a slow checkpoint, during which the table went nearly full: nothing would ever be executed again."""
    monkeypatch.setattr("bezant.engine.ledger.generations.CLEAR_SLOTS_PER_BATCH", 1)
    monkeypatch.setattr("bezant.engine.ledger.generations.CLEAR_SLOTS_PER_KEY", 0)
    monkeypatch.setattr("bezant.engine.ledger.generations.CLEAR_SLOTS_AT_ONCE_MAX", 0)
    settings = msgspec.structs.replace(small, segment_size=8 << 20, checkpoint_ids=1_000)
    node = Node(tmp_path / "data", settings, clock)
    node.execute(opening_world("ann", "bob"))
    while not node.replica.frozen_index:
        assert node.execute(transfers("world", "ann", BATCH_COMMANDS_MAX, 1))["code"][0] == int(ResultCode.COMMITTED)
    assert node.replica.ledger.generations.key_count == 0
    node.make_checkpoint()
    assert node.execute(transfer("world", "ann", 5))["code"][0] == int(ResultCode.COMMITTED)
    node.stop()


def test_a_replica_knows_what_it_is_asked_to_be(small: ReplicaSettings) -> None:
    for change, words in (
        ({"ids_memory_bytes": 1 << 20}, "memory at least"),
        ({"checkpoint_ids": 0}, "at the earliest"),
        ({"checkpoint_entries": 0}, "at the earliest"),
        ({"segment_size": 128 << 10}, "1024 holds that may expire"),
    ):
        with pytest.raises(ValueError, match=words):
            ReplicaSettings(**change)
