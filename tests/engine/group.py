"""A group of members in one process: messages are carried by hand, and nothing happens by itself."""

import random
import shutil
from collections import deque
from pathlib import Path

import numpy as np

from bezant.engine.member import Member, StateAbandoned
from bezant.engine.node_file import NodeFile, new_cluster_id, new_group_node
from bezant.engine.opening import open_member
from bezant.engine.raft.interface import CoreSettings
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.protocol.raft_messages import RaftMessage
from bezant.protocol.records import Records

from .conftest import Clock

NO_PRESET = np.zeros(0, np.int64)
STEPS_MAX = 2_000
TICKS_MAX = 500
ELECTION_TICKS_MIN = CoreSettings().election_ticks_min


class MemberGroup:
    """Members by node id, and the messages that are on their way."""

    def __init__(self, folder: Path, settings: ReplicaSettings, clock: Clock, count: int = 3) -> None:
        cluster_id = new_cluster_id()
        addresses = {node: (f"127.0.0.1:{node}001", f"127.0.0.1:{node}002") for node in range(1, count + 1)}
        self.nodes: dict[int, NodeFile] = {node: new_group_node(cluster_id, node, addresses) for node in addresses}
        self.on_the_way: deque[tuple[RaftMessage, bytes]] = deque()
        self.cut_off: set[int] = set()
        self.deaf: set[int] = set()
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._opened = 0
        self.members: dict[int, Member] = {}
        for node in self.nodes:
            self.open(node)
            self.greet(node)

    def open(self, node: int, *, log_id: int = 0) -> Member:
        """Start a node, or start it again."""
        self._opened += 1
        member = open_member(
            self._folder / f"node-{node}",
            self.nodes[node],
            log_id=log_id,
            settings=self._settings,
            core_settings=CoreSettings(),
            clock_ns=self._clock,
            chance=random.Random(self._opened),
        )
        member.send = lambda message, buffers: self.on_the_way.append((message, b"".join(buffers)))
        self.members[node] = member
        return member

    def greet(self, node: int) -> None:
        """Have a node and the others connect: each tells whether its disk is blank."""
        member = self.members[node]
        terms = {other: met.core.term for other, met in self.members.items() if met.is_blank}
        for other, met in self.members.items():
            if other != node and other in terms:
                member.note_blank(other, terms[other])
            if other != node and node in terms:
                met.note_blank(node, terms[node])

    def wipe(self, node: int) -> None:
        """Lose the disk of a node that is not running."""
        shutil.rmtree(self._folder / f"node-{node}")

    def close(self, *nodes: int) -> None:
        """Stop nodes, all of them by default; their last writes are durable, their state is not kept."""
        for node in nodes or tuple(self.members):
            self.members.pop(node).close()

    def write(self, member: Member) -> None:
        """Have what a member has appended written and synced."""
        group = member.begin_group()
        if group is not None:
            group.write_and_sync()
            member.finish_group(group)
            member.replica.tidy()

    def folder(self, node: int) -> Path:
        """The data folder of a node."""
        return self._folder / f"node-{node}"

    def shard_folder(self, node: int) -> Path:
        """Where the log of a node lies."""
        return shard_directory(self._folder / f"node-{node}", 0).path

    def deliver(self, *, writes: bool = True) -> bool:
        """Carry the oldest message to its receiver, which writes what it has appended; False if there is none."""
        if not self.on_the_way:
            return False
        message, payload = self.on_the_way.popleft()
        receiver = self.members.get(message.receiver)
        if receiver is None or {message.sender, message.receiver} & self.cut_off or message.receiver in self.deaf:
            return True
        try:
            receiver.receive(message, memoryview(payload))
        except StateAbandoned:
            self.close(message.receiver)
            self.open(message.receiver)
            return True
        if writes:
            self.write(receiver)
        return True

    def settle(self) -> None:
        """Carry all messages, and have everything done that is due, until nothing is left to do."""
        for _ in range(STEPS_MAX):
            busy = self.deliver()
            for member in list(self.members.values()):
                self.write(member)
                busy |= member.work()
            if not busy and not self.on_the_way:
                return
        raise AssertionError("the group does not come to rest")

    def elect(self, node: int) -> Member:
        """Let time pass for this node alone until it leads."""
        member = self.members[node]
        for _ in range(TICKS_MAX):
            member.tick()
            self.settle()
            if member.is_leader:
                return member
            if not self.cut_off:
                # Whoever has heard from a leader lately does not vote; so time passes for the others as well.
                for other in self.members.values():
                    if other is not member and other.core._election_ticks < ELECTION_TICKS_MIN:
                        other.tick()
                self.settle()
        raise AssertionError(f"node {node} is not elected")

    @property
    def leader(self) -> Member:
        """The member that leads, in the latest term."""
        return max((member for member in self.members.values() if member.is_leader), key=lambda member: member.term)

    def run(self, ticks: int) -> None:
        """Let time pass."""
        for _ in range(ticks):
            for member in list(self.members.values()):
                member.tick()
            self.settle()

    def execute(self, commands: Records) -> int:
        """Execute at the leader; returns the index that must be committed."""
        return self.leader.execute(commands, NO_PRESET).index
