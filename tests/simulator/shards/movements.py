"""What is committed of slots that move: each is served by one shard or by none, and nothing comes that did not go."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind
from bezant.protocol.moves import MoveStep, decode_slots

from ..schedule import Violation

Id = tuple[int, int]
_COMMITTED = int(ResultCode.COMMITTED)
_BOTH_HERE = frozenset(
    {
        CommandKind.TRANSFER,
        CommandKind.HOLD,
        CommandKind.CAPTURE,
        CommandKind.TRY_CREDIT,
        CommandKind.CONFIRM,
        CommandKind.CANCEL,
    }
)
"""Kinds whose events, if they did anything, did it to two accounts of the shard."""


def slot_of_word(head: int) -> int:
    """The slot of an account, by the first word of its id."""
    return (head & 0xFF) << 4 | (head >> 8 & 0xFF) >> 4


class Movements:
    """See the module. `owners`: which shard serves each of the slots that ever move; none between seal and end."""

    def __init__(self, owners: dict[int, int], counts: Counter[str]) -> None:
        self.owners: dict[int, int | None] = {**owners}
        self.on_step: Callable[[int, int], None] | None = None
        """Told of the next step, by the shard that has committed it and the other one."""
        self._counts = counts
        self._sealed: dict[bytes, tuple[int, MoveStep]] = {}
        self._begun: set[bytes] = set()
        self._limits: dict[tuple[int, Id], int] = {}
        self._gone: dict[Id, tuple[int, int, int]] = {}
        """Accounts on their way: balance, flags and limit."""
        self._opened: dict[tuple[int, Id], int] = {}
        self._holds_gone: dict[tuple[Id, Id], tuple[int, int]] = {}
        """Holds on their way, by account and id: what is left of them, and until when."""

    def take_step(self, shard: int, step: MoveStep) -> None:
        """A step has been committed."""
        self._counts[f"moves: {step.phase}"] += 1
        if self.on_step is not None:
            self.on_step(shard, step.peer)
        slots = np.flatnonzero(decode_slots(step.slots)).tolist()
        if step.phase == "begun":
            self._begun.add(step.move)
        elif step.phase == "sealed":
            if step.move not in self._begun or any(self.owners[slot] != shard for slot in slots):
                raise Violation(f"shard {shard} seals slots {slots}: {self.owners}")
            self._sealed[step.move] = shard, step
            self.owners |= dict.fromkeys(slots)
        elif step.phase == "taken":
            source, sealed = self._sealed.pop(step.move, (-1, step))
            if (source, sealed.peer, sealed.slots) != (step.peer, shard, step.slots):
                raise Violation(f"shard {shard} takes slots {slots} of shard {step.peer} that are not sealed for it")
            left = [
                key for key in [*self._gone, *(key for key, _ in self._holds_gone)] if slot_of_word(key[0]) in slots
            ]
            if left:
                raise Violation(f"shard {shard} takes slots {slots}, and has not got all of them: {left}")
            self.owners |= dict.fromkeys(slots, shard)
        elif step.phase == "ended" and step.move in self._sealed:
            raise Violation(f"a move of slots {slots} has ended in shard {shard}, and nobody has them")

    def take(self, shard: int, kind: int, event: Any) -> None:
        """An event has been committed: of a move, or one of a slot that its shard must have."""
        if not self.owners:
            return
        debit = int(event["debit_head"]), int(event["debit_tail"])
        credit = int(event["credit_head"]), int(event["credit_tail"])
        amount, time_ns = int(event["amount"]), int(event["client_timestamp_ns"])
        if kind in {CommandKind.OPEN, CommandKind.SET_LIMIT} and int(event["result"]) == _COMMITTED:
            self._limits[shard, debit] = amount
        if kind == CommandKind.MOVE_OUT:
            self._check_sealed(shard, debit)
            self._gone[debit] = amount, int(event["code"]), self._limits[shard, debit]
        elif kind == CommandKind.MOVE_OPEN:
            if self._gone.get(debit, ())[1:] != (int(event["code"]), amount):
                raise Violation(f"shard {shard} opens an account that did not go, or with other limits: {event}")
            self._limits[shard, debit] = self._opened[shard, debit] = amount
        elif kind == CommandKind.MOVE_IN:
            if self._gone.pop(credit, ())[:1] != (amount,) or self._opened.pop((shard, credit), None) is None:
                raise Violation(f"shard {shard} gets a balance that did not go: {event}")
            self._counts["accounts moved"] += 1
        elif kind == CommandKind.MOVE_HOLD_OUT:
            self._check_sealed(shard, debit)
            self._holds_gone[debit, (int(event["reference_head"]), int(event["reference_tail"]))] = amount, time_ns
        elif kind == CommandKind.MOVE_HOLD_IN:
            known = self._holds_gone.pop((debit, (int(event["id_head"]), int(event["id_tail"]))), None)
            if known != (amount, time_ns):
                raise Violation(f"shard {shard} gets a hold that did not go ({known}): {event}")
            self._counts["holds moved"] += 1
        else:
            self._check_served(shard, kind, event, debit, credit)

    def _check_sealed(self, shard: int, account: Id) -> None:
        slot = slot_of_word(account[0])
        if not any(source == shard and decode_slots(step.slots)[slot] for source, step in self._sealed.values()):
            raise Violation(f"shard {shard} gives away slot {slot}, which it has not sealed")

    def _check_served(self, shard: int, kind: int, event: Any, debit: Id, credit: Id) -> None:
        does = int(event["result"]) == _COMMITTED and int(event["effective_amount"]) != 0
        accounts = [debit, credit] if kind in _BOTH_HERE and does else [debit]
        for slot in (slot_of_word(head) for head, _ in accounts):
            if self.owners.get(slot, shard) != shard:
                raise Violation(f"shard {shard} commits a kind {kind} of slot {slot}, and {self.owners[slot]} has it")

    def check_end(self) -> None:
        """All slots are served, and nothing is on its way."""
        if None in self.owners.values() or self._gone or self._holds_gone or self._sealed:
            raise Violation(f"slots have not come: {self.owners}, {self._gone}, {self._holds_gone}")
