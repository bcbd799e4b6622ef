"""A group whose members send each other states and histories; helpers of files do at once what they are given."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from typing_extensions import Buffer

from bezant.engine.log.storage import Directory
from bezant.engine.member import Member, StateAbandoned
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.engine.snapshots.transfer import StateTransfer
from bezant.protocol.transfer_messages import PeerMessage, TransferMessage

from ...simulator.checkpoints import InlineCheckpoints
from ..commands import opening_world, transfers
from ..conftest import Clock
from ..group import MemberGroup

VICTIM = 3
BATCH = 300
"""Transfers of a round: 57,600 bytes, and so a segment each."""
ROUNDS = 8
TICKS_MAX = 3_000


class TransferGroup(MemberGroup):
    """See the module. What is on the way may be changed or taken away by `spoil`, which returns the bytes or None."""

    def __init__(self, folder: Path, settings: ReplicaSettings, clock: Clock) -> None:
        self.moving: dict[int, StateTransfer] = {}
        self.counts: dict[int, Counter[str]] = {}
        self.warnings: list[str] = []
        self.reopened = 0
        super().__init__(folder, settings, clock)

    def open(self, node: int, *, log_id: int = 0) -> Member:
        member = super().open(node, log_id=log_id)
        transfer = StateTransfer(member, self.warnings.append)
        transfer.counts = self.counts.setdefault(node, Counter())
        self.moving[node] = transfer
        return member

    def close(self, *nodes: int) -> None:
        for node in nodes or tuple(self.members):
            self.moving.pop(node).close()
        super().close(*nodes)

    def spoil(self, message: PeerMessage, payload: Buffer) -> Buffer | None:
        return payload

    def deliver(self, *, writes: bool = True) -> bool:
        if self.on_the_way:
            message, payload = self.on_the_way[0]
            spoiled = self.spoil(message, payload)
            if spoiled is None or isinstance(message, TransferMessage):
                self.on_the_way.popleft()
                if spoiled is not None:
                    self._give(message, spoiled)
                return True
        return super().deliver(writes=writes)

    def _give(self, message: Any, payload: Buffer) -> None:
        if message.receiver in self.members and not {message.sender, message.receiver} & self.cut_off:
            self._guard(
                message.receiver, lambda: self.moving[message.receiver].on_message(message, memoryview(payload))
            )

    def _guard(self, node: int, step: Any) -> None:
        try:
            step()
        except StateAbandoned:
            self.reopened += 1
            self.close(node)
            self.open(node)
            self.greet(node)

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            for node in list(self.members):
                self.members[node].tick()
                self._guard(node, self.moving[node].on_tick)
            self.settle()

    def run_until(self, is_so: Any) -> None:
        for _ in range(TICKS_MAX):
            if is_so():
                return
            self.run(1)
        raise AssertionError(f"not within {TICKS_MAX} ticks; {self.counts}, {self.warnings}")

    def make_checkpoint(self, node: int) -> None:
        """As the child process of a node does."""
        replica = self.members[node].replica
        replica.freeze()
        disk: Any = SimpleNamespace(root=Directory(self.folder(node)))
        InlineCheckpoints(disk, replica, Counter()).make_if_due()
        assert replica.checkpoint_index == replica.applied_index

    def load(self, rounds: int) -> None:
        for _ in range(rounds):
            self.execute(transfers("ann", "bob", BATCH))
            self.run(6)

    def is_level(self, node: int) -> bool:
        """Whether a node has all there is, and its whole history."""
        member, leader = self.members[node], self.leader.replica
        log = member.replica.log
        return (
            log.is_complete
            and not (shard_directory(self.folder(node), 0).path / "incomplete").exists()
            and member.replica.applied_index == log.durable_index == leader.log.last_index
        )

    def check_same(self, node: int) -> None:
        """A node has the leader's history, to the byte, and its state."""
        log, other = self.members[node].replica.log, self.leader.replica.log
        assert log.chain_hash == other.chain_hash
        assert _unstamped(log) == _unstamped(other)
        assert self.members[node].replica.ledger.digest() == self.leader.replica.ledger.digest()
        sequences = np.arange(1, log.durable_sequence + 1, 97)
        assert log.read_events(sequences).tobytes() == other.read_events(sequences).tobytes()


def _unstamped(log: Any) -> list[bytes]:
    """All entries but for what each replica stamps itself."""
    found = []
    for index in range(1, log.last_index + 1):
        found.append(b"".join(bytes(piece) for piece in log.read_encoded(index, index))[16:])
    return found


def behind(group: TransferGroup) -> None:
    """Node 1 leads and has a checkpoint; the victim is stopped, and has the first of many rounds."""
    group.elect(1)
    group.execute(opening_world("ann", "bob"))
    group.run(6)
    group.load(2)
    group.close(VICTIM)
    group.load(ROUNDS)
    group.make_checkpoint(1)
    group.load(1)
