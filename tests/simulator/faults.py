"""What goes wrong, and when. Each kind has its own stream of chance, and so its own times, whatever the others do."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bezant.engine.log.control import ControlFile
from bezant.engine.log.log import SEGMENT_SIZE_MIN
from bezant.engine.log.segment import segment_name
from bezant.engine.raft.membership import MembershipChange, node_ids
from bezant.engine.raft.quorum import is_quorum
from bezant.protocol.messages import Configuration
from bezant.protocol.records import SEGMENT_HEADER_SIZE, VOTE_SLOT_SIZE

from .node import STEPS_TO_STOP_MAX, TICK_US, Node

if TYPE_CHECKING:
    from .simulation import Simulation

US_PER_S = 1_000_000
DOWN_US_MAX = 1_200_000
PAUSE_US_MAX = 1_500_000
CLOG_US_MAX = 800_000
AWAY_US_MIN, AWAY_US_MAX = 30_000, 200_000
"""That somebody else leads, until the one before is asked to again."""
CLOCK_NS_MAX = 3_600_000_000_000
SLOW_SYNC_US = 250_000
SLOW_DISK_US_MAX = 1_000_000
WIPED = 0.3
"""Of the starts, those with a blank disk, where that is allowed."""


class Faults:
    """Trouble for one simulation, until it ends."""

    def __init__(self, simulation: "Simulation", rates: dict[str, float]) -> None:
        self._simulation = simulation
        self._schedule = simulation.schedule
        self._counts = simulation.counts
        self.is_over = False
        self._rotten: dict[int, tuple[str, int, int]] = {}
        """Of each node, where its disk has rotted, and what was there."""
        self._lossy = 0
        """The one node whose disk has lost something that it may have acknowledged, until it has caught up."""
        self._wipes = "wipe" in rates
        self._kinds: dict[str, Callable[[], bool]] = {
            "power": lambda: self._stop("power"),
            "kill": lambda: self._stop("kill"),
            "stop at a write": self._stop_at_a_write,
            "power of all": self._stop_all,
            "pause": self._pause,
            "partition": lambda: self._partition(both_ways=True),
            "one way": lambda: self._partition(both_ways=False),
            "heal": self._heal,
            "clog": self._clog,
            "reset": self._reset,
            "clock": self._turn_clock,
            "slow disk": self._slow_disk,
            "failed sync": self._fail_sync,
            "rot": self._rot,
            "vote rot": self._rot_vote,
            "transfer": self._transfer,
            "there and back": self._transfer_and_back,
            "members": self._change_members,
        }
        for kind, rate in rates.items():
            if kind == "wipe":
                continue  # not by itself, but at a start
            chance = self._schedule.chance(kind)
            self._arm(kind, rate * chance.choice([0, 0.5, 1, 2]))

    def _arm(self, kind: str, rate: float) -> None:
        if rate:
            delay_us = int(self._schedule.chance(kind).expovariate(rate) * US_PER_S)
            self._schedule.after(delay_us, self._begin, kind, rate)

    def _begin(self, kind: str, rate: float) -> None:
        if self.is_over:
            return
        if self._kinds[kind]():
            self._counts[f"fault: {kind}"] += 1
        self._arm(kind, rate)

    def _some(self, kind: str, *, up: bool = True) -> Node | None:
        """One of the nodes that are up, or not."""
        nodes = [node for node in self._simulation.nodes.values() if node.is_up == up]
        return self._schedule.chance(kind).choice(nodes) if nodes else None

    def _leader(self) -> Node | None:
        leaders = [node for node in self._simulation.nodes.values() if node.member and node.member.is_leader]
        return max(leaders, key=lambda node: node.member.term if node.member else 0, default=None)

    # ---- nodes ----

    def _stop(self, kind: str) -> bool:
        chance = self._schedule.chance(kind)
        node = self._leader() if chance.random() < 0.5 else self._some(kind)
        if node is not None:
            node.stop(kind)
        return node is not None

    def _stop_at_a_write(self) -> bool:
        chance = self._schedule.chance("stop at a write")
        node = self._some("stop at a write")
        if node is not None:
            node.stop_within(chance.randrange(1, STEPS_TO_STOP_MAX), with_power=chance.random() < 0.7)
        return node is not None

    def _stop_all(self) -> bool:
        for node in self._simulation.nodes.values():
            if node.is_up:
                node.stop("power")
        return True

    def _pause(self) -> bool:
        chance = self._schedule.chance("pause")
        node = self._leader() if chance.random() < 0.5 else self._some("pause")
        if node is not None:
            node.paused_until_us = self._schedule.now_us + chance.randrange(PAUSE_US_MAX)
        return node is not None

    def _turn_clock(self) -> bool:
        chance = self._schedule.chance("clock")
        node = self._some("clock")
        if node is not None:
            node.clock_offset_ns = chance.randrange(-CLOCK_NS_MAX, CLOCK_NS_MAX)
            node.tick_us = chance.randrange(TICK_US * 9 // 10, TICK_US * 11 // 10)
        return node is not None

    # ---- network ----

    def _partition(self, *, both_ways: bool) -> bool:
        chance = self._schedule.chance("partition" if both_ways else "one way")
        nodes = list(self._simulation.nodes)
        if len(nodes) < 2:
            return False
        side = chance.sample(nodes, chance.randrange(1, len(nodes)))
        leader = self._leader()
        if leader is not None and chance.random() < 0.5:
            side = [leader.node_id]  # which goes on for a while, and then finds what it did undone
        cut = {(a, b) for a in side for b in nodes if b not in side}
        self._simulation.network.cut |= cut | ({(b, a) for a, b in cut} if both_ways else set())
        return True

    def _heal(self) -> bool:
        self._simulation.network.cut.clear()
        return True

    def _some_link(self, kind: str) -> tuple[int, int] | None:
        nodes = list(self._simulation.nodes)
        if len(nodes) < 2:
            return None
        first, second = self._schedule.chance(kind).sample(nodes, 2)
        return first, second

    def _clog(self) -> bool:
        link = self._some_link("clog")
        if link is not None:
            self._simulation.network.clog(link, self._schedule.chance("clog").randrange(CLOG_US_MAX))
        return link is not None

    def _reset(self) -> bool:
        link = self._some_link("reset")
        if link is not None:
            self._simulation.disconnect(*link)
            for sender, receiver in (link, link[::-1]):
                self._simulation.nodes[receiver].on_link_down(sender, is_reset=True)
        return link is not None

    # ---- disk ----

    def _slow_disk(self) -> bool:
        node = self._some("slow disk")
        if node is None:
            return False
        usual, node.sync_us_max = node.sync_us_max, SLOW_SYNC_US
        duration_us = self._schedule.chance("slow disk").randrange(SLOW_DISK_US_MAX)
        self._schedule.after(duration_us, setattr, node, "sync_us_max", min(usual, SLOW_SYNC_US - 1))
        return True

    def _fail_sync(self) -> bool:
        node = self._some("failed sync")
        if node is not None:
            node.disk.fails_next_sync = True
        return node is not None

    def _rot(self) -> bool:
        """Flip a bit of what is durable in the log of a node that is down."""
        chance = self._schedule.chance("rot")
        node = self._some("rot", up=False)
        if node is None or not self._may_lose(node):
            return False
        mark = ControlFile(node.directory, shard=node.file.shard, log_id=self._simulation.log_id, writable=False).read()
        number = chance.randrange(1, mark.durable_segment + 1) if mark.durable_segment else 0
        end = mark.durable_offset if number == mark.durable_segment else SEGMENT_SIZE_MIN
        if not number or mark.cutting or end == SEGMENT_HEADER_SIZE:
            return False
        name, offset = segment_name(number), chance.randrange(SEGMENT_HEADER_SIZE, end)
        # Nor has a member that began with the state of others all segments yet.
        if not any(node.directory.durable.get(name, b"")[offset:end]):
            return False  # Behind the last entry of a segment that is full: nobody would miss it.
        self._rotten[node.node_id] = (name, offset, node.disk.flip(node.folder, name, offset, chance.randrange(8)))
        self._lossy = node.node_id
        self._schedule.note("rots", node.node_id, name, offset)
        return True

    def is_rotten(self, node: Node) -> bool:
        """Whether what its disk says may be wrong."""
        return node.node_id in self._rotten

    def _may_lose(self, node: Node) -> bool:
        """Never the last good copy: one disk at a time, and none without which nobody can be elected."""
        if self._lossy and self._is_lossy_still():
            return False
        nodes = self._simulation.nodes
        states = self._simulation.checks.hard_states
        voting = {number for number in nodes if number in states and not states[number].barred} - {node.node_id}
        known = [other.last_configuration for other in nodes.values() if other.last_configuration is not None]
        return bool(known) and all(is_quorum(configuration, voting) for configuration in known if configuration.members)

    def _is_lossy_still(self) -> bool:
        """Whether the disk that lost something has not caught up."""
        node = self._simulation.nodes[self._lossy]
        if self._lossy in self._rotten or node.member is None or node.hard_state.barred:
            return True
        self._lossy = 0
        return False

    def before_start(self, node: Node) -> None:
        """What an operator does to the disk of a node that is down: brings a file back or gives the rest up, if it was
        found to be damaged; or puts a blank disk in."""
        if node.is_rot_known:
            node.is_rot_known = False
            damage = self._rotten.pop(node.node_id)
            if self._schedule.chance("repair").random() < 0.5:
                self._counts["files brought back"] += 1
                node.disk.restore(node.folder, *damage)
                self._lossy = 0
            else:
                node.repair()
        elif not self.is_over and self._wipes and self._schedule.chance("wipe").random() < WIPED and not node.is_up:
            self._maybe_wipe(node)

    def _maybe_wipe(self, node: Node) -> None:
        if not self._may_lose(node):
            return
        everybody = self._simulation.nodes.values()
        others = [other.last_configuration for other in everybody if other is not node]
        if all(known is not None and node.node_id not in node_ids(known) for known in others):
            # It has left, as far as anyone knows: another disk joins in its place.
            incarnation = self._schedule.chance("wipe").randrange(1, 1 << 60)
            address = self._simulation.nodes[1].file.client_address
            file = msgspec.structs.replace(
                node.file, incarnation=incarnation, cluster_id="", members=[], join=[address]
            )
            self._counts["other disks joined"] += 1
        else:
            file = node.file
            self._lossy = node.node_id
            self._counts["disks wiped"] += 1
        self._schedule.note("wiped", node.node_id, file.incarnation)
        self._simulation.checks.forget(node)
        node.wipe(file)

    def _rot_vote(self) -> bool:
        """One slot of two: nothing is lost, and it is written again at the start."""
        chance = self._schedule.chance("vote rot")
        node = self._some("vote rot", up=False)
        if node is None or "vote" not in node.directory.names():
            return False
        slots = node.directory.durable["vote"]
        if slots[:VOTE_SLOT_SIZE] != slots[VOTE_SLOT_SIZE:]:
            return False  # One of them was being written: the other is the last good copy.
        node.disk.flip(
            node.folder, "vote", chance.randrange(2) * VOTE_SLOT_SIZE + chance.randrange(64), chance.randrange(8)
        )
        return True

    # ---- operators ----

    def _transfer(self) -> bool:
        leader = self._leader()
        if leader is not None:
            chance = self._schedule.chance("transfer")
            leader.operate("leaderships handed over", chance.choice([0, *leader.configuration.voters]))
        return leader is not None

    def _transfer_and_back(self) -> bool:
        """A leader soon leads again: what it had under way must not go on beside what it finds then."""
        leader = self._leader()
        if leader is None or len(leader.configuration.voters) < 2:
            return False
        leader.operate("leaderships handed over", 0)
        delay_us = self._schedule.chance("there and back").randrange(AWAY_US_MIN, AWAY_US_MAX)
        self._schedule.after(delay_us, self._bring_back, leader.node_id)
        return True

    def _bring_back(self, node_id: int) -> None:
        leader = self._leader()
        if leader is not None and not self.is_over:
            leader.operate("leaderships handed over", node_id)

    def _change_members(self) -> bool:
        leader = self._leader()
        if leader is not None and not (self._lossy and self._is_lossy_still()):
            # A disk that fails within an election's time of a change could be one too many, and not yet known.
            leader.operate("changes of members", self._some_change(leader.configuration))
            return True
        return False

    def _some_change(self, now: Configuration) -> MembershipChange:
        chance, simulation = self._schedule.chance("members"), self._simulation
        nodes = list(simulation.nodes)
        picked = chance.sample(nodes, chance.randrange(1, len(nodes)))
        add = [simulation.nodes[node].file.member for node in picked if node not in node_ids(now)]
        promote = [node for node in picked if node in now.learners and chance.random() < 0.7]
        added = {member.node_id for member in add}
        rest = [node for node in picked if node not in added and node not in promote]
        demote = [node for node in rest if node in now.voters and chance.random() < 0.5]
        remove = [node for node in rest if node not in demote]
        return MembershipChange(add, promote, demote, remove)
