"""A node of a shard: drives, besides its member, a coordinator and the lane of legs, as the reactor drives them."""

from asyncio import events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bezant.engine.log.group import Group
from bezant.engine.node_file import NodeFile
from bezant.engine.replica import Replica
from bezant.engine.transactions.times import check_floor
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.deferring import Deferral
from bezant.net.server.frame_kernels import FRAME
from bezant.net.server.legs import LegsLane
from bezant.net.server.moved_legs import without_legs_elsewhere
from bezant.net.server.moving import Moving
from bezant.net.server.moving_out import Around
from bezant.net.server.placing import Placing
from bezant.net.server.requests import AnsweredElsewhere, legs_of, tries_of
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import COMMAND, RESULT, Records, Words

from ..frames import Frame, Outcome
from ..node import EXECUTE_EARLY_FRAMES_MIN, Batch, Node
from ..schedule import Violation
from .clients import map_of
from .links import LegsAnswer, Links, Question
from .loop import NodeLoop
from .maps import TOLD_US_MAX

if TYPE_CHECKING:
    from .group import ShardGroup
    from .payers import Payer

BATCHES_MAX = 6
"""As in the reactor: the one that collects, and those that are executed and wait."""
DEFERS = 0.75
"""How often tries are small, and disks quick, enough for these not to be written at once."""
_NO_PRESET = np.zeros(0, np.int64)
_NO_RESULTS = np.zeros(0, RESULT)
COMMAND_WORDS = COMMAND.itemsize // 8


CODES = {
    Outcome.NOT_LEADER: FrameError.NOT_LEADER,
    Outcome.UNKNOWN: FrameError.OUTCOME_UNKNOWN,
    Outcome.REFUSED: FrameError.REQUEST_REFUSED,
}
OUTCOMES = {code: outcome for outcome, code in CODES.items()}


class Elsewhere(AnsweredElsewhere):
    """This node does not lead, or leads no more, or will not do it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(CODES[outcome], outcome.name, "")
        self.outcome = outcome


class ShardBatch(Batch):
    """A batch as a coordinator sees it: results are told when all is decided. There are few, used again and again."""

    def __init__(self) -> None:
        self.begin([])

    def begin(self, frames: list[Frame]) -> None:
        """Forget what was in it."""
        super().__init__(frames)
        self.commands: Records = _NO_RESULTS
        self.results: Records = _NO_RESULTS
        self.undecided_count = 0

    @property
    def command_count(self) -> int:
        return len(self.commands)


class ShardNode(Node):
    """See the module."""

    def __init__(self, group: "ShardGroup", file: NodeFile) -> None:
        self._group_of = group
        self._map = map_of(group.world.shards)
        """The slot map that it goes by, also when it starts again."""
        self._loop: NodeLoop | None = None
        super().__init__(group, file)

    def _reset(self) -> None:
        super()._reset()
        self.end_loop()
        self._loop = NodeLoop(self._group_of.schedule, self._after)
        self._deferral = Deferral(self._loop, self._schedule_pump)
        self._lane: LegsLane | None = None
        self._coordinator: Coordinator | None = None
        self._placing: Placing | None = None
        self._slots: Moving | None = None
        self._links: Links | None = None
        self._frames = np.zeros(1, FRAME)
        self._spare = [ShardBatch() for _ in range(BATCHES_MAX)]

    def end_loop(self) -> None:
        """Nothing that runs on it goes on."""
        if self._loop is not None:
            self._loop.end()

    def _open(self) -> None:
        super()._open()
        member, group = self._live, self._group_of
        self._lane = LegsLane(member, lambda: self._placing)
        self._links = Links(self, group)
        self._placing = Placing(group.shard, self._map)
        self._coordinator = Coordinator(member, self._placing, self._links, self._lane, self._schedule_pump)
        around = Around(member, self._placing, self._links, group.world.maps.open, self._schedule_pump)
        self._slots = Moving(around)
        if group.world.has_moves:
            self.hear_of_map()

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        loop, world = self._loop, self._group_of.world
        outer = world.running_loop
        if outer is loop:
            super()._guard(action, *arguments)
            return
        world.running_loop = loop
        events._set_running_loop(loop)  # It asks the system for the process's number: not twice in a step.
        try:
            super()._guard(action, *arguments)
        finally:
            world.running_loop = outer
            events._set_running_loop(outer)

    @property
    def _legs(self) -> LegsLane:
        if self._lane is None:
            raise Violation(f"node {self.node_id} is driven and not up")
        return self._lane

    @property
    def coordinator(self) -> Coordinator:
        if self._coordinator is None:
            raise Violation(f"node {self.node_id} is driven and not up")
        return self._coordinator

    @property
    def _places(self) -> Placing:
        if self._placing is None:
            raise Violation(f"node {self.node_id} is driven and not up")
        return self._placing

    @property
    def _moves(self) -> Moving:
        if self._slots is None:
            raise Violation(f"node {self.node_id} is driven and not up")
        return self._slots

    # ---- slots that move ----

    def hear_of_map(self) -> None:
        """Go by the slot map in force, in a while."""
        self._after(self._schedule.chance("maps").randrange(TOLD_US_MAX), self._follow_map)

    def _follow_map(self) -> None:
        self._places.take(self._group_of.world.maps.slot_map)
        if self._places.slot_map is not None:
            self._map = self._places.slot_map

    def on_move(self, operation: Operation, body: bytes) -> None:
        """An operator asks for a move, and does not wait for the answer."""
        self._wake(self.boot, self._take_part, (operation, body, self._tell_operator))

    def move_status(self) -> object:
        """How far a move out of this shard is, in words."""
        return self._moves._out and self._moves._out.status()

    def _tell_operator(self, answer: bytes | Exception) -> None:
        self.counts["moves refused"] += not isinstance(answer, bytes)

    def _take_part(self, operation: Operation, body: bytes, respond: Callable[[bytes | Exception], None]) -> None:
        try:
            self._moves.ask(operation, body, respond)
        except (RemoteProtocolError, UsageError, AnsweredElsewhere) as error:
            respond(error)

    def _look_up(self, frame: Frame) -> bytes:
        """Nothing: the accounts are another shard's."""
        return b"" if self._places.is_elsewhere(frame.keys[:, 0]).any() else super()._look_up(frame)

    # ---- legs ----

    def on_legs(self, question: Question) -> None:
        """Another shard's coordinator asks."""
        self._wake(self.boot, self._take_legs, (question,))

    def _take_legs(self, question: Question) -> None:
        def respond(answer: Records | bytes | Exception) -> None:
            self._answer_legs(question, answer)

        if question.operation is Operation.TRIES:
            self._legs.ask(tries_of(self._live.replica, question.body), respond)
        elif question.operation is Operation.TAKE_SLOTS:
            self._take_part(question.operation, question.body, respond)
        else:
            commands = legs_of(question.body)
            try:
                check_floor(commands, self._live.replica.clock_ns)
            except UsageError:
                self.counts["legs of another time"] += 1
                respond(Elsewhere(Outcome.REFUSED))
                return
            if self._group_of.world.has_moves and self._live.is_leader:
                commands, respond = without_legs_elsewhere(self._places, self._live.replica.ledger, commands, respond)
                if not len(commands):
                    self.counts["legs of slots that have moved"] += 1
                    respond(np.zeros(0, RESULT))
                    return
            self._legs.add(commands, respond)
        self._schedule_pump()

    def _answer_legs(self, question: Question, answer: Records | bytes | Exception) -> None:
        if isinstance(answer, AnsweredElsewhere):
            told = LegsAnswer(OUTCOMES[answer.code], b"", self.node_id, self._live.leader_id)
        elif isinstance(answer, UsageError) and question.operation is Operation.TAKE_SLOTS:
            told = LegsAnswer(Outcome.REFUSED, str(answer).encode(), self.node_id, self.node_id)
        elif isinstance(answer, StorageError | UsageError):
            told = LegsAnswer(Outcome.UNKNOWN, b"", self.node_id, self.node_id)
        elif isinstance(answer, Exception):
            raise answer
        elif isinstance(answer, bytes):
            if question.operation is Operation.TRIES:
                self.counts["tries unknown to their shard"] += answer.count(0)
            told = LegsAnswer(Outcome.DONE, answer, self.node_id, self.node_id)
        else:
            repeated = int(np.count_nonzero(answer["flags"] & int(ResultFlag.REPEATED)))
            self.counts["legs executed before"] += repeated
            self.counts["tries that came after their cancel"] += int(
                np.count_nonzero(answer["code"] == int(ResultCode.ID_FORBIDDEN))
            )
            told = LegsAnswer(Outcome.DONE, answer.tobytes(), self.node_id, self.node_id)
        group = self._group_of
        self._schedule.note("answers legs", group.shard, self.node_id, question.number, told.outcome.name)
        link = (group.shard, question.group.shard)
        group.world.between.send(link, question.group.on_legs_answer, question, told)

    def on_legs_answer(self, question: Question, answer: LegsAnswer) -> None:
        """Another shard has answered one that had this node's number and life."""
        if self._links is not None:
            self._wake(question.boot, self._links.on_answer, (question.number, answer))

    def on_transact(self, payer: "Payer", number: int, body: bytes) -> None:
        """A client asks for a transaction of several legs."""
        self._wake(self.boot, self._take_transact, (payer, number, body))

    def _take_transact(self, payer: "Payer", number: int, body: bytes) -> None:
        def respond(answer: bytes | Exception) -> None:
            if isinstance(answer, bytes):
                self._schedule.note("transacted", self.node_id, number)
                self._group_of.answer_transact(payer, number, answer)
            else:
                self.counts["transactions answered elsewhere"] += 1

        try:
            self.coordinator.transactor.ask(body, 1, respond)
        except (UsageError, AnsweredElsewhere) as error:
            respond(error)

    # ---- the pipeline ----

    def _pump(self) -> None:
        if self._live.is_leader:
            self._legs.answer()
        super()._pump()

    def _departs(self) -> bool:
        return self.coordinator.take_departure()

    def _write_after_departure(self) -> None:
        is_awaited = self._legs.awaits_commit or not all(getattr(one, "undecided_count", 0) for one in self._executed)
        if self._group is None and not is_awaited and self._schedule.chance("defer").random() < DEFERS:
            self.counts["tries written with what came behind them, or late"] += 1
            self._deferral.begin()
        else:
            self._deferral.end()
            self._schedule_pump()

    @property
    def _is_deferred(self) -> bool:
        return self._deferral.is_on

    def _start_group(self) -> None:
        self._deferral.end()
        super()._start_group()

    @property
    def _has_executable(self) -> bool:
        return self._should_execute_legs() or self._should_execute()

    @property
    def _has_waiting(self) -> bool:
        return bool(self._collecting) or self._legs.command_count > 0

    def _should_execute(self) -> bool:
        return self._has_spare and super()._should_execute()

    @property
    def _has_spare(self) -> bool:
        return len(self._spare) > 1

    def _begin_batch(self, frames: list[Frame]) -> Batch:
        batch = self._spare.pop()
        batch.begin(frames)
        return batch

    def _release(self, batch: Batch) -> None:
        if not isinstance(batch, ShardBatch):
            raise Violation("a batch of another kind")
        batch.begin([])
        self._spare.append(batch)

    def _should_execute_legs(self) -> bool:
        count = self._legs.next_count
        if count == 0:
            return False
        if not self._live.is_leader:
            return True
        if self._live.is_handing_over:
            return False
        return self._group is None or count >= EXECUTE_EARLY_FRAMES_MIN

    def _execute_next(self) -> int:
        count = self._execute_legs() if self._should_execute_legs() else 0
        if count < EXECUTE_EARLY_FRAMES_MIN and self._should_execute():
            count += super()._execute_next()
        return count

    def _execute_legs(self) -> int:
        count = self._legs.next_count
        if not self._live.is_leader:
            self._legs.refuse(Elsewhere(Outcome.NOT_LEADER), Elsewhere(Outcome.UNKNOWN))
            return 0
        self._legs.execute()
        return count

    def _execute_commands(self, batch: Batch, commands: Records) -> None:
        if not isinstance(batch, ShardBatch):
            raise Violation("a batch of another kind")
        batch.commands = commands
        preset = self._preset(commands) if self._group_of.world.has_moves else _NO_PRESET
        preset = self.coordinator.prepare(batch, preset)  # type: ignore[arg-type]
        executed = self._live.execute(batch.commands, preset)
        batch.results = executed.results
        self.coordinator.on_executed(batch, executed.events)  # type: ignore[arg-type]

    def _preset(self, commands: Records) -> Words:
        """What is refused because of its slot."""
        count = len(commands)
        self._frames["command_count"] = count
        words = commands.view(np.int64).reshape(count, COMMAND_WORDS)
        return self._places.preset(self._frames, 1, words, count, _NO_PRESET)

    def _maybe_set_metadata(self, replica: Replica) -> None:
        """Seeds of one group do that."""

    def _bodies(self, batch: Batch) -> list[tuple[Frame, bytes]]:
        if not isinstance(batch, ShardBatch):
            raise Violation("a batch of another kind")
        told, start = list(batch.answers), 0
        for frame in batch.frames:
            if frame.is_write:
                told.append((frame, batch.results[start : start + len(frame.commands)].tobytes()))
                start += len(frame.commands)
        return told

    def _is_known(self, batch: Batch) -> bool:
        return super()._is_known(batch) and not getattr(batch, "undecided_count", 0)

    def _reply_to_coordinators(self) -> None:
        member, coordinator = self._live, self.coordinator
        if member.is_leader:
            self._legs.reply(member.committed_index, self._confirmed_ticket)
            found = coordinator._found
            coordinator.on_committed()
            self._moves.on_committed()
            if found is not None and coordinator._found is None:
                self.counts["tries found at a takeover"] += len(found.open_tries)
                self.counts["decisions found at a takeover"] += len(found.unsettled)
            return
        if not self._legs.is_empty:
            self._legs.refuse(Elsewhere(Outcome.NOT_LEADER), Elsewhere(Outcome.UNKNOWN))
        self.counts["leaders with transfers under way that lead no more"] += coordinator.under_way_count > 0
        coordinator.lose()
        self._moves.lose()

    def _after_reply(self) -> None:
        """Others go on sooner than the reactor does; here a pump that nobody has scheduled is to be missed."""

    def _finish_group(self, group: Group) -> None:
        super()._finish_group(group)
        if self._has_waiting or self._has_unwritten:
            self._schedule_pump()

    def _after_member(self) -> None:
        super()._after_member()
        self._reply()
        if self._has_waiting:
            self._schedule_pump()
