"""One seed: nodes, network, clients and faults under one schedule, watched all the time; then everything is healed and
must work again."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from bezant.engine import replica as replica_module
from bezant.engine.checkpoints.checkpointer import LedgerSettings
from bezant.engine.ledger import ledger as ledger_module
from bezant.engine.log.log import SEGMENT_SIZE_MIN
from bezant.engine.node_file import log_id_of, new_group_node
from bezant.engine.raft.interface import CoreSettings
from bezant.engine.raft.membership import node_ids
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings
from bezant.engine.snapshots.backfill import is_incomplete
from bezant.protocol.transfer_messages import PeerMessage

from .audit import Audit
from .checks import Checks
from .clients import Client, Operation
from .faults import DOWN_US_MAX, Faults
from .frames import Answer, Frame, Outcome
from .network import FINE, Network, Weather
from .node import Node
from .profiles import PROFILES, Profile
from .schedule import Schedule, Violation

CLUSTER_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PLACEMENT = "metadata:1"
TROUBLE_US_MIN, TROUBLE_US_MAX = 1_500_000, 4_500_000
HEALING_US_MAX = 20_000_000
HEALING_STEP_US = 50_000
CONNECT_US = 50_000
CLIENTS = 3
CLIENT_DELAY_US_MAX = 5_000
ACCOUNTS_MAX, HOLDS_MAX = 64, 40
NEVER = 1 << 40
ID_SLOTS = 1 << 13
EVENTS_AHEAD_MAX = 1 << 9
BATCH_COMMANDS_MAX = 1 << 9
"""Instead of what room is made for otherwise: more events in an entry than a seed has."""


class SmallSettings(ReplicaSettings, frozen=True):
    """Sizes of a simulated replica. Its tables of ids are small: starts and checkpoints fill them with zeros."""

    @property
    def ledger_settings(self) -> LedgerSettings:
        """Room for `EVENTS_AHEAD_MAX`, as it is here, and a batch."""
        return LedgerSettings(self.accounts_max, self.holds_max, ID_SLOTS)


@dataclass
class Report:
    """What came of a seed."""

    seed: int
    profile: str
    trace_hash: str
    counts: Counter[str]
    entries: int
    virtual_us: int


@contextmanager
def drawn_salts(schedule: Schedule) -> Iterator[None]:
    """Have new ledgers hash with numbers of the seed: names of checkpoints depend on them, and so does the trace."""
    chance = schedule.chance("salts")
    with mock.patch.object(ledger_module, "new_salts", lambda: (chance.getrandbits(63), chance.getrandbits(63))):
        yield


@contextmanager
def small_start() -> Iterator[None]:
    """Have a replica ask for less room for ids, so that the tables can be small."""
    # None is kept besides a batch: a table of this size would never have it, and a checkpoint be due at each look.
    room = {"EVENTS_AHEAD_MAX": EVENTS_AHEAD_MAX, "BATCH_COMMANDS_MAX": BATCH_COMMANDS_MAX, "ENTRIES_BESIDE_MAX": 0}
    with mock.patch.multiple(replica_module, **room):
        yield


class Simulation:
    """See the module."""

    node_class: type[Node] = Node
    shard = 0

    def __init__(
        self,
        seed: int,
        profile: str = "stormy",
        *,
        without: frozenset[str] = frozenset(),
        trouble_us: int | None = None,
    ) -> None:
        """`without`: kinds of trouble to leave out; `trouble_us`: how long to let it last, if not as drawn."""
        self.seed = seed
        self.profile = profile
        self.schedule = Schedule(seed)
        self.counts: Counter[str] = Counter()
        self._begin(PROFILES[profile], without)
        chance = self.schedule.chance("group")
        self.trouble_us = trouble_us or chance.randrange(TROUBLE_US_MIN, TROUBLE_US_MAX)

    def _begin(self, drawn: Profile, without: frozenset[str]) -> None:
        """Draw the group, and have everything begin."""
        chance = self.schedule.chance("group")
        size = chance.choice(drawn.groups)
        self.sync_us_max = chance.choice(drawn.sync_us_max)
        heartbeat, election_min, election_max = chance.choice([(2, 10, 20), (3, 15, 30), (5, 30, 60)])
        self.core_settings = CoreSettings(
            heartbeat_ticks=heartbeat,
            election_ticks_min=election_min,
            election_ticks_max=election_max,
            messages_in_flight_max=chance.choice([2, 8]),
            append_bytes_max=chance.choice([600, 4_000, 4 << 20]),
            bytes_in_flight_max=chance.choice([4_000, 16 << 20]),
            pre_vote=chance.random() < 0.85,
            check_quorum=chance.random() < 0.85,
        )
        self.replica_settings = SmallSettings(
            segment_size=SEGMENT_SIZE_MIN,
            free_space_floor=0,
            accounts_max=ACCOUNTS_MAX,
            holds_max=HOLDS_MAX,
            ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
            checkpoint_entries=chance.choice([NEVER, NEVER, 8]),
            snapshot_behind_bytes=self.schedule.chance("snapshots").choice([0, 4_000, NEVER]),
        )
        self.checks = self._make_checks()
        weather = Weather(chance.choice(drawn.loss), chance.choice(drawn.repeat), chance.choice(drawn.delay_us_max))
        weather = weather._replace(**{kind: 0.0 for kind in ("loss", "repeat") if kind in without})
        self.network = Network(self.schedule, self.counts, weather, self._deliver)
        addresses = {number: (f"node{number}:1", f"node{number}:2") for number in range(1, size + 1)}
        placement = [PLACEMENT] if self.shard else []
        files = {
            number: new_group_node(CLUSTER_ID, number, addresses, shard=self.shard, placement=placement)
            for number in addresses
        }
        self.log_id = log_id_of(files[1], self.shard)
        self.nodes = {number: self.node_class(self, file) for number, file in files.items()}
        self.clients: Sequence[Client] = [self._make_client(number) for number in range(CLIENTS)]
        self.faults = Faults(self, {kind: rate for kind, rate in drawn.rates.items() if kind not in without})
        self._connected: set[tuple[int, int]] = set()
        self.schedule.after(0, self._connect)
        for node in self.nodes.values():
            self.schedule.after(0, node.start)

    def _make_checks(self) -> Checks:
        return Checks(self.schedule, self.counts)

    def _make_client(self, number: int) -> Client:
        return Client(
            number,
            self.schedule,
            counts=self.counts,
            nodes=list(self.nodes),
            deliver=self._send_frame,
            commits_known=lambda: self.checks.commit_index,
        )

    # ---- running ----

    def run(self) -> Report:
        """All of it. Raises `Violation`, or what a node has raised."""
        with drawn_salts(self.schedule), small_start():
            self.schedule.run_until(self.trouble_us)
            self._end_trouble()
            self._wait_until_well()
            self._finish()
        for name, value in sorted(self.counts.items()):
            self.schedule.note(name, value)
        return Report(
            self.seed,
            self.profile,
            self.schedule.trace_hash,
            self.counts,
            self.checks.commit_index,
            self.schedule.now_us,
        )

    def _end_trouble(self) -> None:
        """End all faults."""
        self.faults.is_over = True
        begins_anew = self.schedule.chance("healing").random() < 0.5
        self.network.heal()
        for node in self.nodes.values():
            node.sync_us_max = min(node.sync_us_max, FINE.delay_us_max)
            node.paused_until_us = 0
            node.disk.fails_next_sync = False
            if (node.is_stopping or begins_anew) and node.is_up:
                node.stop("kill")
            self.faults.before_start(node)
            node.start()
        for client in self.clients:
            client.fall_silent()

    def _wait_until_well(self) -> None:
        """There must be progress within HEALING_US_MAX, and all members must agree."""
        # First what needs no command: a leader that knows what is committed.
        self._wait_for(self.clients[0].look_up_one())
        self._wait_for(self.clients[0].transfer_one())

    def _wait_for(self, operation: Operation) -> None:
        until_us = self.schedule.now_us + HEALING_US_MAX
        while self.schedule.now_us < until_us:
            self.schedule.run_until(self.schedule.now_us + HEALING_STEP_US)
            if operation.told and self._is_level():
                return
        states = {number: node.member and node.member.core.status() for number, node in self.nodes.items()}
        raise Violation(f"no progress {HEALING_US_MAX} us after all was well again: {states}")

    def _is_level(self) -> bool:
        """Whether all members have, durably and in their ledgers, all that is committed, and would vote."""
        index = self.checks.commit_index
        leaders = [node for node in self.nodes.values() if node.member and node.member.is_leader]
        if not leaders:
            return False
        leader = max(leaders, key=lambda node: node.member.term if node.member else 0)
        return all(self._has_all(self.nodes[number], index) for number in node_ids(leader.configuration))

    def _members(self) -> list[int]:
        """Those that belong to the group at the end."""
        leaders = [node for node in self.nodes.values() if node.member and node.member.is_leader]
        leader = max(leaders, key=lambda node: node.member.term if node.member else 0)
        return sorted(node_ids(leader.configuration))

    def _has_all(self, node: Node, index: int) -> bool:
        member = node.member
        if member is None or node.hard_state.barred or is_incomplete(member.replica.log):
            return False
        return member.committed_index == member.replica.applied_index == member.replica.durable_index == index

    def _finish(self) -> None:
        for node in self.nodes.values():
            if node.member is not None:
                node.member.replica.ledger.check_invariants()
                self.checks.compare_ledger(node)
        for number in self._members():
            self.checks.check_history(self.nodes[number])
            self.checks.check_metadata(self.nodes[number])
        operations: list[Operation] = [operation for client in self.clients for operation in client.history]
        self.schedule.note("state", self._make_audit().run(operations))

    def _make_audit(self) -> Audit:
        return Audit(self.checks.history, self.counts, (ACCOUNTS_MAX, HOLDS_MAX))

    # ---- what connects them ----

    def _deliver(self, receiver: int, message: PeerMessage, payload: memoryview) -> None:
        if self.nodes[receiver].knows(self.nodes[message.sender]):
            self.nodes[receiver].on_message(message, payload)

    def _client_delay_us(self) -> int | None:
        """None: the message is lost."""
        chance = self.schedule.chance("clients' network")
        if chance.random() < self.network.weather.loss:
            return None
        return chance.randrange(100, CLIENT_DELAY_US_MAX)

    def _send_frame(self, node: int, frame: Frame) -> None:
        delay_us = self._client_delay_us()
        if delay_us is not None:
            self.schedule.after(delay_us, self.nodes[node].on_frame, frame)

    def answer(self, node: Node, frame: Frame, answer: Answer) -> None:
        """A node answers a client."""
        self.schedule.note("answers", node.node_id, frame.client, frame.operation, answer.outcome.name, answer.index)
        if answer.outcome is Outcome.DONE:
            committed = node.member.committed_index if node.member else 0
            if answer.index > max(committed, self.checks.commit_index):
                raise Violation(f"node {node.node_id} answers entry {answer.index}, and {committed} are committed")
        delay_us = self._client_delay_us()
        if delay_us is not None:
            self.schedule.after(delay_us, self._tell_client, node.node_id, frame, answer)

    def _tell_client(self, node_id: int, frame: Frame, answer: Answer) -> None:
        self.clients[frame.client].on_answer(node_id, frame, answer)

    def _connect(self) -> None:
        """Nodes connect that are not, and tell each other whether their disks are blank."""
        self.schedule.after(CONNECT_US, self._connect)
        for pair in itertools.combinations(self.nodes, 2):
            first, second = (self.nodes[number] for number in pair)
            if pair in self._connected or not self.network.is_fine((first.node_id, second.node_id)):
                continue
            if not first.is_reachable or not second.is_reachable or not first.knows(second) or not second.knows(first):
                continue
            self._connected.add(pair)
            told = [(node, node.is_blank, node.term) for node in (first, second)]
            for other, (node, is_blank, term) in zip((second, first), told, strict=True):
                if is_blank:
                    other.on_blank(node.node_id, term)

    def disconnect(self, first: int, second: int) -> None:
        """A connection has broken: what is on its way is lost."""
        self._connected.discard((min(first, second), max(first, second)))
        for link in ((first, second), (second, first)):
            self.network.reset(link)

    def on_stopped(self, node: Node) -> None:
        """A node has stopped: its connections break, and it starts again in a while."""
        for other in self.nodes.values():
            if other is not node:
                self.disconnect(node.node_id, other.node_id)
                delay_us = self.schedule.chance("breaking").randrange(20_000)
                self.schedule.after(delay_us, self._break, other, node.node_id)
        delay_us = self.schedule.chance("down").randrange(DOWN_US_MAX)
        self.schedule.after(delay_us, self._start, node)

    def _break(self, node: Node, other: int) -> None:
        node.on_link_down(other, is_reset=True)

    def _start(self, node: Node) -> None:
        """Start a node again, perhaps with something done to its disk first."""
        if not node.is_up:
            self.faults.before_start(node)
            node.start()
