"""A seeded network of members under every fault that Raft must survive, with checks after each step.

One `random.Random` draws the faults of a seed and when they happen, so a seed replays. Time is in ticks.
"""

import heapq
import random
from collections import Counter

from bezant.engine.raft.core import Core, NotLeader
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import CoreSettings
from bezant.engine.raft.membership import NOBODY, MembershipChange, is_joint, node_ids
from bezant.engine.raft.quorum import is_quorum
from bezant.protocol.errors import UsageError
from bezant.protocol.messages import Configuration

from .checks import Checks, Violation
from .peers import Letter, MemoryLog, Peer, configuration, member

NODES_MAX = 5
RECOVERY_TICKS_MAX = 2_000
TROUBLES = ("crash", "crash of most", "partition", "pause", "healing", "hint", "wipe", "operator", "operator")


class Simulation:
    """One seed."""

    def __init__(self, seed: int, core_type: type[Core] = Core, ticks: int = 300) -> None:
        self.random = random.Random(seed)
        chance = self.random
        self.checks = Checks()
        self.counts: Counter[str] = Counter()
        self.ticks = ticks
        self.now = 0
        self.core_type = core_type
        self.seed = seed
        self.loss = chance.choice([0, 0, 0.05, 0.3])
        self.repeat = chance.choice([0, 0, 0.1, 0.5])
        self.delay_ticks = chance.choice([1, 3, 10, 25])
        self.sync_ticks = chance.choice([0, 1, 5, 20])
        self.trouble = chance.choice([0.01, 0.03, 0.08])
        self.settings = CoreSettings(
            heartbeat_ticks=3,
            election_ticks_min=12,
            election_ticks_max=24,
            messages_in_flight_max=chance.choice([2, 8]),
            append_bytes_max=chance.choice([100, 300, 10_000]),
            bytes_in_flight_max=chance.choice([500, 10_000]),
            reads_waiting_max=4,
            pre_vote=chance.random() < 0.85,
            check_quorum=chance.random() < 0.85,
        )
        self.wire: list[tuple[int, int, Letter]] = []
        self.syncs: list[tuple[int, int, Peer, Core, tuple[int, int, int]]] = []
        self.snapshots: list[tuple[int, int, int, int, int, int, Configuration]] = []
        self.sequence = 0
        self.cut: set[tuple[int, int]] = set()
        self.down: dict[int, int] = {}
        self.paused: dict[int, int] = {}
        self.incarnations: Counter[int] = Counter()
        self.reads: dict[tuple[int, int], int] = {}
        self.forgetful = 0  # the one node that has lost part of its log, until it has caught up
        self.peers: dict[int, Peer] = {}
        first = chance.choice([1, 3, 3, 3, 4, 5])
        self.configuration = configuration(list(range(1, first + 1)))
        for node in range(1, NODES_MAX + 1):
            if node <= first:
                self._begin(node, self.configuration, HardState())
            else:
                self._begin(node, NOBODY, HardState(barred=True))

    def _begin(self, node: int, base: Configuration, hard_state: HardState) -> None:
        self.incarnations[node] += 1
        self.checks.forget(node)
        self.peers[node] = Peer(
            node,
            base,
            settings=self.settings,
            seed=self.seed + 100 * self.incarnations[node],
            log=MemoryLog(),
            hard_state=hard_state,
            core_type=self.core_type,
            syncs_itself=self.sync_ticks == 0,
        )

    # Running.

    def run(self) -> Counter[str]:
        """All of it; returns how often what happened."""
        for _ in range(self.ticks):
            self.step(faults=True)
        self.heal()
        return self.counts

    def heal(self) -> None:
        """End all faults; then the group must work again, and all of its members agree."""
        self.loss = self.repeat = 0
        self.delay_ticks = 1
        self.cut.clear()
        self.paused.clear()
        for node in list(self.down):
            self._restart(node)
        target, proposer = 0, 0
        for _ in range(RECOVERY_TICKS_MAX):
            self.step(faults=False)
            leader = self.leader()
            if leader is None or leader.node_id != proposer:
                target = 0
            if leader is not None and not target and not leader.core.transfer_to:
                target, proposer = leader.propose(1), leader.node_id
                self.look(leader)
            if target and self._is_recovered(target):
                return
        states = {node: (peer.core.status(), peer.terms()) for node, peer in self.peers.items()}
        raise Violation(f"no progress {RECOVERY_TICKS_MAX} ticks after all was well again: {states}")

    def _is_recovered(self, target: int) -> bool:
        leader = self.leader()
        if leader is None or is_joint(leader.core.configuration):
            return False
        members = [self.peers[node] for node in node_ids(leader.core.configuration)]
        return all(
            peer.core.commit_index >= target and peer.durable_index >= target and not peer.core.status().barred
            for peer in members
        )

    def leader(self) -> Peer | None:
        """The leader of the latest term among those that run."""
        leaders = [peer for node, peer in self.peers.items() if peer.is_leader and node not in self.down]
        return max(leaders, key=lambda peer: peer.core.term, default=None)

    def step(self, *, faults: bool) -> None:
        """One tick."""
        self.now += 1
        chance = self.random
        if faults:
            self._trouble()
            self._load()
        for node, peer in self.peers.items():
            if self.paused.get(node, 0) > self.now:
                continue
            if node not in self.down and (not faults or chance.random() < 0.95):
                peer.tick()
                self.look(peer)
        self._end_syncs()
        self._end_snapshots()
        while self.wire and self.wire[0][0] <= self.now:
            _, _, letter = heapq.heappop(self.wire)
            message = letter.message
            if message.receiver in self.down or (message.sender, message.receiver) in self.cut:
                continue
            if (until := self.paused.get(message.receiver, 0)) > self.now:
                self.sequence += 1
                heapq.heappush(self.wire, (until + self.random.randrange(10), self.sequence, letter))
                continue
            peer = self.peers[message.receiver]
            peer.receive(letter)
            self.look(peer)

    def look(self, peer: Peer) -> None:
        """Check a member, then send what it wants to send."""
        node = peer.node_id
        self.checks.look(peer, self.incarnations[node])
        self._check_reads(peer)
        if self.forgetful == node and not peer.core.status().barred:
            self.forgetful = 0
            self.counts["caught up after a loss"] += 1
        for letter in peer.outbox:
            if letter.message.receiver not in self.peers or self.random.random() < self.loss:
                continue
            for _ in range(2 if self.random.random() < self.repeat else 1):
                self.sequence += 1
                due = self.now + self.random.randrange(self.delay_ticks)
                late = self.random.random() < 0.005
                heapq.heappush(self.wire, (due + late * 200, self.sequence, letter))
        peer.outbox.clear()
        for receiver in peer.snapshots_wanted:
            self._send_snapshot(peer, receiver)
        peer.snapshots_wanted.clear()
        if not peer.syncs_itself and peer.durable_index < peer.log.last_index:
            due = self.now + self.random.randrange(self.sync_ticks + 1)
            self.syncs.append((due, self.incarnations[node], peer, peer.core, peer.begin_sync()))

    def _check_reads(self, peer: Peer) -> None:
        node = peer.node_id
        for ticket, index in peer.reads.items():
            if index < self.reads.pop((node, ticket)):
                raise Violation(f"node {node} answers a read at {index}, before what had been acknowledged")
            self.counts["reads answered"] += 1
        peer.reads.clear()
        for ticket in peer.reads_lost:
            del self.reads[node, ticket]
        peer.reads_lost.clear()

    def _end_syncs(self) -> None:
        running = {node for node in self.peers if self.paused.get(node, 0) <= self.now}
        due = [sync for sync in self.syncs if sync[0] <= self.now and sync[2].node_id in running]
        self.syncs = [sync for sync in self.syncs if sync[0] > self.now or sync[2].node_id not in running]
        self.random.shuffle(due)
        for _, _, peer, core, begun in due:
            if peer.core is core and self.peers[peer.node_id] is peer and peer.node_id not in self.down:
                peer.end_sync(begun)
                peer.settle()
                if self.random.random() < 0.3:
                    peer.commit_hint = max(peer.commit_hint, min(peer.core.commit_index, peer.durable_index))
                self.look(peer)

    # Snapshots: the state itself is nothing here but an index; it takes time and may get lost.

    def _send_snapshot(self, peer: Peer, receiver: int) -> None:
        index = peer.core.commit_index
        term = peer.log.term_at(index) or 0
        found = [item for at, item in peer.log.configurations(peer.base) if at <= index]
        due = self.now + self.random.randrange(20)
        self.snapshots.append((due, peer.node_id, receiver, peer.core.term, index, term, found[-1]))

    def _end_snapshots(self) -> None:
        waiting = self.snapshots
        self.snapshots = []
        for snapshot in waiting:
            due, sender, receiver, leader_term, index, term, base = snapshot
            if due > self.now:
                self.snapshots.append(snapshot)
                continue
            leader, peer = self.peers[sender], self.peers[receiver]
            lost = receiver in self.down or (sender, receiver) in self.cut or self.random.random() < self.loss
            if not lost and leader_term >= peer.core.term and peer.install(index, term, base):
                self.counts["snapshots installed"] += 1
                if (known := self.checks.committed.get(index)) is not None and known.term != term:
                    raise Violation(f"a snapshot through {index} of term {term} is not what was committed: {known}")
                self.look(peer)
            if sender not in self.down and leader.core.term == leader_term:
                leader.core.snapshot_done(receiver, None if lost else index)
                leader.settle()
                self.look(leader)

    # What clients and operators do.

    def _load(self) -> None:
        chance = self.random
        for node, peer in self.peers.items():
            if not peer.is_leader or node in self.down or self.paused.get(node, 0) > self.now:
                continue
            if chance.random() < 0.3 and not peer.core.transfer_to:
                peer.propose(chance.randrange(1, 6))
                self.counts["proposals"] += 1
            if peer.is_leader and chance.random() < 0.6:
                ticket = peer.core.request_read()
                self.reads[peer.node_id, ticket] = self.checks.commit_index
                peer.settle()
            self.look(peer)

    def _operate(self, peer: Peer) -> None:
        """One change of members, or a transfer, or less of the log to send."""
        chance = self.random
        kind = chance.randrange(4)
        core = peer.core
        try:
            if kind == 0:
                core.transfer_leadership(chance.choice([0, *core.configuration.voters]))
                self.counts["transfers"] += 1
            elif kind == 1:
                # Only what is committed is archived, and known to be so after a restart.
                known = min(core.commit_index, peer.durable_index)
                index = chance.choice([known, chance.randrange(known + 1)])
                peer.log.archived_index = max(peer.log.archived_index, index)
                peer.commit_hint = max(peer.commit_hint, index)
            elif not self.forgetful:
                # A disk that fails within an election's time of a change could be one too many, and not yet known.
                change = core.change_membership(self._some_change(core.configuration))
                self.counts["joint changes" if is_joint(change) else "simple changes"] += 1
                peer.change(change)
        except (UsageError, NotLeader):
            self.counts["refused"] += 1
        peer.settle()
        self.look(peer)

    def _some_change(self, now: Configuration) -> MembershipChange:
        chance = self.random
        picked = chance.sample(range(1, NODES_MAX + 1), chance.randrange(1, 4))
        add = [node for node in picked if node not in node_ids(now)]
        promote = [node for node in picked if node in now.learners and chance.random() < 0.7]
        rest = [node for node in picked if node not in add and node not in promote]
        demote = [node for node in rest if node in now.voters and chance.random() < 0.4]
        remove = [node for node in rest if node not in demote]
        return MembershipChange([member(node) for node in add], promote, demote, remove)

    # What goes wrong.

    def _trouble(self) -> None:
        chance = self.random
        for node in [node for node, until in self.down.items() if until <= self.now]:
            self._restart(node)
        if chance.random() >= self.trouble:
            return
        running = [node for node in self.peers if node not in self.down]
        kind = chance.choice(TROUBLES)
        if kind == "crash" and running:
            self._crash(chance.choice(running))
        elif kind == "crash of most":
            for node in running:
                if chance.random() < 0.7:
                    self._crash(node)
        elif kind == "partition":
            self._partition()
        elif kind == "pause" and running:
            leader = self.leader()
            node = leader.node_id if leader is not None and chance.random() < 0.5 else chance.choice(running)
            self.paused[node] = self.now + chance.randrange(100)
            self.counts["pauses"] += 1
        elif kind == "healing":
            self.cut.clear()
        elif kind == "hint" and running:
            self._hint(self.peers[chance.choice(running)])
        elif kind == "wipe":
            self._wipe_a_stranger()
        elif kind == "operator" and (leader := self.leader()):
            self._operate(leader)

    def _partition(self) -> None:
        """Some cannot send to the others; mostly nor the others to them."""
        self.counts["partitions"] += 1
        side = set(self.random.sample(range(1, NODES_MAX + 1), self.random.randrange(1, NODES_MAX)))
        self.cut = {(a, b) for a in side for b in self.peers if b not in side}
        if self.random.random() < 0.7:
            self.cut |= {(b, a) for a, b in self.cut}

    def _hint(self, peer: Peer) -> None:
        """What a driver makes of broken connections and of a disk that hangs."""
        peer.core.leader_lost()
        if peer.is_leader and self.random.random() < 0.3:
            peer.core.step_down()
        for other in self.peers:
            peer.core.unreachable(other)
        peer.settle()
        self.look(peer)

    def _crash(self, node: int) -> None:
        self.counts["crashes"] += 1
        peer = self.peers[node]
        self.down[node] = self.now + self.random.randrange(60)
        for key in [key for key in self.reads if key[0] == node]:
            del self.reads[key]
        if self.random.random() < 0.25 and self._may_forget(peer):
            # The disk lost entries that it had acknowledged, and its recovery noticed.
            self.forgetful = node
            peer.durable_index = self.random.randrange(peer.log.archived_index, peer.durable_index + 1)
            peer.commit_hint = min(peer.commit_hint, peer.durable_index)
            peer.hard_state = HardState(peer.hard_state.term, peer.hard_state.voted_for, True)
            self.counts["losses"] += 1

    def _may_forget(self, peer: Peer) -> bool:
        """Never the last good copy: one disk at a time, and none without which nobody can be elected."""
        voting = {node for node, other in self.peers.items() if not other.hard_state.barred}
        return not self.forgetful and all(
            is_quorum(other.core.configuration, voting - {peer.node_id})
            for other in self.peers.values()
            if other.core.configuration is not NOBODY
        )

    def _restart(self, node: int) -> None:
        del self.down[node]
        peer = self.peers[node]
        peer.start()
        peer.settle()
        self.checks.restarted(peer)
        self.look(peer)

    def _wipe_a_stranger(self) -> None:
        """A node that has left, as far as anyone knows, comes back with an empty disk and the same id."""
        for node in self.peers:
            leader = self.leader()
            if leader is None or node in self.down or node == self.forgetful:
                continue
            left_everywhere = all(
                node not in node_ids(peer.core.configuration) for other, peer in self.peers.items() if other != node
            )
            left_everywhere = left_everywhere and node not in node_ids(leader.core.configuration)
            if left_everywhere and leader.node_id != node and leader.core.status().configuration_committed:
                self.counts["wiped"] += 1
                self._begin(node, NOBODY, HardState(barred=True))
                return
