"""Moves of slots at a shard's leader: what it is asked by administration, and what leaders of other shards bring it.

A move out of this shard is carried on by `moving_out.py`. What a move brings into this one is made entries of at once,
past clients' batches, and answered when it is committed: a batch that waits for the source, which is sealed, must not
keep the source waiting.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from bezant.engine.moves.leaving import check_history
from bezant.engine.moves.stepping import take_step
from bezant.engine.moves.taking import take_part
from bezant.net.server.failure import end_after_bug
from bezant.net.server.moving_out import Around, MoveOut
from bezant.net.server.requests import AnsweredElsewhere, WrongShard
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.moves import Moves, MoveSlots, MoveStatus, MoveStep, SlotsTaken, decode_part, decode_slots
from bezant.protocol.placement import METADATA_SHARD

MOVES_TOLD_MAX: Final = 16
"""Moves that have ended and are told of."""
ANSWERS_WAITING_MAX: Final = 64
"""Parts of moves, and questions, that wait to be committed."""
_OPERATIONS: Final = (Operation.MOVE_SLOTS, Operation.TAKE_SLOTS, Operation.MOVES)

Respond = Callable[[bytes | Exception], None]


class _Waiting(NamedTuple):
    """An answer that must not be told before the log is committed up to `index`."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    respond: Respond
    answer: bytes


class Moving:
    """See the module. All methods on the loop."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._member, self._placing, self._schedule = around.member, around.placing, around.schedule
        self._waiting: deque[_Waiting] = deque()
        self._out: MoveOut | None = None
        self._task: asyncio.Task[None] | None = None
        self._last: MoveStatus | None = None
        around.placing.follow_moves(around.member.replica.ledger.moves)

    @staticmethod
    def takes(operation: int) -> bool:
        """Whether an operation is one of moves."""
        return operation in _OPERATIONS

    # ---- what is asked ----

    def ask(self, operation: int, body: bytes, respond: Respond) -> None:
        """Answer an operation of moves, when what it rests on is committed. Raises `RemoteProtocolError`."""
        member = self._member
        if not member.is_leader or member.is_handing_over:
            why = "this node does not lead its group, and has not executed anything of this"
            respond(AnsweredElsewhere(FrameError.NOT_LEADER, why, member.leader_address))
            return
        if len(self._waiting) >= ANSWERS_WAITING_MAX:
            respond(StorageError("too many parts of moves wait to be committed: try again"))
            return
        try:
            answer = self._answer(operation, body)
        except CorruptLog:
            raise
        except (UsageError, StorageError) as error:
            respond(error)
            return
        self._waiting.append(_Waiting(member.replica.log.last_index, respond, answer))
        member.note_appended()
        self._schedule()

    def _answer(self, operation: int, body: bytes) -> bytes:
        if operation == Operation.TAKE_SLOTS:
            part, records = decode_part(body)
            if part.source == self._placing.shard:
                raise RemoteProtocolError("a shard takes no slots from itself")
            return encode_message(SlotsTaken(take_part(self._member.replica, part, records)))
        if operation == Operation.MOVE_SLOTS:
            self._begin(decode_message(body, MoveSlots))
        elif body:
            raise RemoteProtocolError("MOVES has no body")
        return encode_message(Moves(self._statuses()))

    def _begin(self, asked: MoveSlots) -> None:
        replica, placing = self._member.replica, self._placing
        moves = replica.ledger.moves
        is_known = moves.outgoing is not None and moves.outgoing.move == asked.move
        if is_known or asked.move in moves.ended or asked.move in moves.called_off:
            return
        slots = decode_slots(asked.slots)
        if (placing.owners[slots] != placing.shard).any():
            raise WrongShard(f"some of these slots are not shard {placing.shard}'s", placing.map_version)
        if not placing.addresses_of(asked.to) or asked.to == METADATA_SHARD:
            raise UsageError(f"the slot map names no shard {asked.to}: add it first")
        step = MoveStep(asked.move, "begun", asked.to, asked.slots)
        check_history(replica)
        take_step(replica, step)

    def _statuses(self) -> list[MoveStatus]:
        moves = self._member.replica.ledger.moves
        told = []
        if moves.outgoing is not None:
            told.append(self._status_of(moves.outgoing))
        for phase, ids in (("ended", moves.ended), ("called_off", moves.called_off)):
            for move in reversed(ids[-MOVES_TOLD_MAX:]):
                known = self._out.status() if self._out is not None else self._last
                if known is None or known.move != move.hex():
                    known = MoveStatus(move.hex(), -1, 0, phase)
                told.append(msgspec.structs.replace(known, phase=phase))
        return told

    def _status_of(self, step: MoveStep) -> MoveStatus:
        if self._out is not None and self._out.step.move == step.move:
            return self._out.status()
        phase = "sealed" if step.phase == "sealed" else "copying"
        return MoveStatus(step.move.hex(), step.peer, int(decode_slots(step.slots).sum()), phase)

    # ---- what the reactor tells ----

    def on_committed(self) -> None:
        """More of the log is committed, and this node leads: answer what waits for it, and carry on a move."""
        committed_index = self._member.committed_index
        while self._waiting and self._waiting[0].index <= committed_index:
            waiting = self._waiting.popleft()
            waiting.respond(waiting.answer)
        if self._out is not None:
            self._out.on_committed(committed_index)
        step = self._member.replica.ledger.moves.outgoing
        if step is not None and self._task is None:
            self._out = MoveOut(self._around, step)
            self._task = asyncio.get_running_loop().create_task(self._out.run(), name="bezant move")
            self._task.add_done_callback(self._on_done)

    def lose(self) -> None:
        """This node leads no more: whoever leads now carries on."""
        waiting, self._waiting = self._waiting, deque()
        why = "this node led its group until now, and does not know whether this will be committed"
        for waited in waiting:
            waited.respond(AnsweredElsewhere(FrameError.OUTCOME_UNKNOWN, why, self._member.leader_address))
        if self._task is not None:
            self._task.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._waiting

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._placing.drain(None)
        if self._out is not None:
            self._last, self._out = self._out.status(), None
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                end_after_bug(error)
            # A move that was asked for, and committed, just before this one was over waits for nothing else.
            self._schedule()
