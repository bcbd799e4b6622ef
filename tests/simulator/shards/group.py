"""One shard of several: a simulated group, its clients, its faults, and a part in what goes on between shards."""

from typing import TYPE_CHECKING, Any

from bezant.protocol.kinds import CommandKind

from ..audit import Audit
from ..checks import Checks
from ..clients import Client
from ..frames import Answer, Frame
from ..node import Node
from ..profiles import Profile
from ..schedule import Schedule
from ..simulation import ACCOUNTS_MAX, HOLDS_MAX, Simulation
from .audit import ShardAudit
from .clients import ShardClient, names_of
from .links import LegsAnswer, Question
from .node import ShardNode
from .payers import Payer
from .wanderers import FIRST_NUMBER, name_of_node

if TYPE_CHECKING:
    from .world import World


OPEN_KINDS = (CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART)


class ShardSchedule(Schedule):
    """The schedule of all shards, with streams of chance and a trace that say which one."""

    def __init__(self, whole: Schedule, shard: int) -> None:
        self._whole = whole
        self._shard = shard
        self._streams: dict[str, Any] = {}
        self._mark = f"[{shard}]"
        self.after = whole.after  # type: ignore[method-assign]

    @property
    def now_us(self) -> int:  # type: ignore[override]
        return self._whole.now_us

    def chance(self, kind: str) -> Any:
        stream = self._streams.get(kind)
        if stream is None:
            stream = self._streams[kind] = self._whole.chance(f"shard {self._shard}: {kind}")
        return stream

    def run_until(self, until_us: int) -> None:
        self._whole.run_until(until_us)

    def note(self, *words: object) -> None:
        self._whole.note(self._mark, *words)


class ShardChecks(Checks):
    """The checks of one group, whose committed history is looked at by those over all of them, too."""

    def __init__(self, schedule: Schedule, group: "ShardGroup") -> None:
        super().__init__(schedule, group.counts)
        self._of = group

    def check_committed(self, node: Any) -> None:
        before = len(self.history)
        super().check_committed(node)
        if len(self.history) == before:
            return
        for item in self.history[before:]:
            self._of.world.books.take(self._of.shard, item.entry)


class ShardGroup(Simulation):
    """See the module. `World` runs it."""

    node_class = ShardNode

    def __init__(self, world: "World", shard: int, drawn: Profile, without: frozenset[str]) -> None:
        self.world = world
        self.shard = shard
        self.seed, self.profile = world.seed, world.profile
        self.counts = world.counts
        self.schedule = ShardSchedule(world.schedule, shard)
        self._begin(drawn, without)
        self.payer = Payer(
            world, self.schedule, home=world.names[shard], client=self.clients[0], send=self.send_transact
        )

    def _make_checks(self) -> Checks:
        return ShardChecks(self.schedule, self)

    def _make_client(self, number: int) -> Client:
        shards = self.world.shards
        return ShardClient(
            number,
            self.schedule,
            counts=self.counts,
            nodes=list(self.nodes),
            deliver=self._send_frame,
            commits_known=lambda: self.checks.commit_index,
            names=names_of(shards, self.shard),
            far=[names_of(shards, other) for other in range(shards) if other != self.shard] + self.world.wandering,
        )

    def _make_audit(self) -> Audit:
        self.audit = ShardAudit(
            self.checks.history,
            self.counts,
            (ACCOUNTS_MAX, HOLDS_MAX),
            shard=self.shard,
            books=self.world.books,
        )
        self.audit.wanderers = self.world.wanderers
        return self.audit

    @property
    def shard_nodes(self) -> list[ShardNode]:
        return [self._node(node_id) for node_id in self.nodes]

    def shard_leader(self) -> ShardNode | None:
        """Who leads, as far as anybody can tell."""
        leader = self.faults._leader()
        return leader if isinstance(leader, ShardNode) else None

    def _tell_client(self, node_id: int, frame: Frame, answer: Answer) -> None:
        if frame.client < FIRST_NUMBER:
            super()._tell_client(node_id, frame, answer)
        else:
            wanderer = self.world.wanderers[frame.client - FIRST_NUMBER]
            wanderer.on_answer(name_of_node(self.shard, node_id), frame, answer)

    def relieve(self) -> None:
        """What stands in the way of giving money back is seen to."""
        client = self.clients[0]
        if isinstance(client, ShardClient):
            client.relieve()

    def send_transact(self, payer: Payer, number: int, body: bytes) -> None:
        """A client asks one of the nodes for a transaction of several legs."""
        node_id = self.schedule.chance("payer").choice(list(self.nodes))
        delay_us = self._client_delay_us()
        if delay_us is not None:
            self.schedule.after(delay_us, self._node(node_id).on_transact, payer, number, body)

    def answer_transact(self, payer: Payer, number: int, body: bytes) -> None:
        """A node answers."""
        delay_us = self._client_delay_us()
        if delay_us is not None:
            self.schedule.after(delay_us, payer.on_answer, number, body)

    def on_legs(self, node_id: int, question: Question) -> None:
        """A question has arrived at one of the nodes."""
        self._node(node_id).on_legs(question)

    def on_legs_answer(self, question: Question, answer: LegsAnswer) -> None:
        """An answer has arrived."""
        self._node(question.node_id).on_legs_answer(question, answer)

    def _node(self, node_id: int) -> ShardNode:
        node = self.nodes[node_id]
        if not isinstance(node, ShardNode):
            raise TypeError(f"node {node_id} is of no shard")
        return node

    def on_stopped(self, node: Node) -> None:
        self.world.books.note_stop(self.shard)
        super().on_stopped(node)

    def end(self) -> None:
        """The seed is over: no task of it is to be heard of again."""
        for node_id in self.nodes:
            self._node(node_id).end_loop()

    def is_settled(self) -> bool:
        """Whether no transfer to another shard is under way, as its leader has it."""
        leader = self.faults._leader()
        if leader is None or leader.member is None or not leader.member.is_leader:
            return False
        ledger = leader.member.replica.ledger
        open_count = sum(len(ledger.open_tries(kind)) for kind in OPEN_KINDS)
        return not open_count and not len(ledger.unsettled()) and ledger.moves.outgoing is None
