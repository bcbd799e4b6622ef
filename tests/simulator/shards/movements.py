"""What is committed of slots that move: each is served by one shard or by none, and nothing comes that did not go."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.moves import MoveStep, decode_slots

from ..schedule import Violation

Id = tuple[int, int]
_COMMITTED = int(ResultCode.COMMITTED)
_HOLD_UNKNOWN = int(ResultCode.HOLD_UNKNOWN)
_SETTLING = frozenset({CommandKind.CAPTURE, CommandKind.RELEASE, CommandKind.EXPIRE})
_SETTING_LIMIT = frozenset({CommandKind.OPEN, CommandKind.SET_LIMIT})
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


@dataclass
class Hold:
    """A hold in a slot that moves: what is left of it, and who has it (None: it is on its way, or has ended)."""

    shard: int | None
    remaining: int
    gone: tuple[int, int] | None = None
    """On its way: what is left of it, and until when."""


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
        self._holds: dict[tuple[Id, Id], Hold] = {}
        """All that there have been, by account and id."""

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
            left = [key for key in [*self._gone, *self._holds_gone] if slot_of_word(key[0]) in slots]
            if left:
                raise Violation(f"shard {shard} takes slots {slots}, and has not got all of them: {left}")
            self.owners |= dict.fromkeys(slots, shard)
        elif step.phase == "ended" and step.move in self._sealed:
            raise Violation(f"a move of slots {slots} has ended in shard {shard}, and nobody has them")

    @property
    def _holds_gone(self) -> list[Id]:
        """The accounts of holds on their way."""
        return [account for (account, _), hold in self._holds.items() if hold.gone is not None]

    def take(self, shard: int, kind: int, event: Any, *, ends_its_own: bool = False) -> None:
        """An event has been committed: of a move, or one of a slot that its shard must have. `ends_its_own`: unless it
        moves something, it may be committed wherever the slot is."""
        if not self.owners:
            return
        debit = int(event["debit_head"]), int(event["debit_tail"])
        credit = int(event["credit_head"]), int(event["credit_tail"])
        amount = int(event["amount"])
        if kind in _SETTING_LIMIT and event["result"] == _COMMITTED:
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
        elif kind in (CommandKind.MOVE_HOLD_OUT, CommandKind.MOVE_HOLD_IN):
            self._move_hold(shard, kind, event, debit)
        else:
            if not ends_its_own or _does(event):
                self._check_served(shard, kind, event, debit, credit)
            elif self.owners.get(slot_of_word(debit[0]), shard) != shard:
                self._counts["ends of nothing where their slot was"] += 1
            if slot_of_word(debit[0]) in self.owners:
                self._take_hold(shard, kind, event, debit)

    def _move_hold(self, shard: int, kind: int, event: Any, account: Id) -> None:
        what = int(event["amount"]), int(event["client_timestamp_ns"])
        if kind == CommandKind.MOVE_HOLD_OUT:
            self._check_sealed(shard, account)
            hold = self._end_hold(shard, event, account)
            if hold.remaining != what[0]:
                raise Violation(f"shard {shard} gives a hold away with {what[0]} left, not {hold.remaining}")
            hold.gone = what
            return
        known = self._holds.get((account, (int(event["id_head"]), int(event["id_tail"]))))
        if known is None or known.gone != what:
            raise Violation(f"shard {shard} gets a hold that did not go ({known}): {event}")
        known.shard, known.gone = shard, None
        self._counts["holds moved"] += 1

    def _take_hold(self, shard: int, kind: int, event: Any, account: Id) -> None:
        """Each hold ends once, where it is, and is known wherever its slot has come to."""
        code, amount = int(event["result"]), int(event["effective_amount"])
        if kind == CommandKind.HOLD and code == _COMMITTED:
            self._holds[account, (int(event["id_head"]), int(event["id_tail"]))] = Hold(shard, amount)
        elif kind not in _SETTLING:
            return
        elif code == _HOLD_UNKNOWN and (account, _reference_of(event)) in self._holds:
            raise Violation(f"shard {shard} does not know a hold of its slot: {event}")
        elif code == _COMMITTED:
            hold = self._end_hold(shard, event, account)
            if amount > hold.remaining or (kind != CommandKind.CAPTURE and amount != hold.remaining):
                raise Violation(f"shard {shard} ends a hold with {amount}, and {hold.remaining} are left: {event}")
            if kind == CommandKind.CAPTURE and int(event["flags"]) & CommandFlag.KEEP_OPEN:
                hold.remaining -= amount
                hold.shard = shard if hold.remaining else None

    def _end_hold(self, shard: int, event: Any, account: Id) -> Hold:
        """The hold that an event names, which this shard has no more."""
        hold = self._holds.get((account, _reference_of(event)))
        if hold is None or hold.shard != shard:
            raise Violation(f"shard {shard} has no such open hold ({hold}): {event}")
        hold.shard = None
        return hold

    def _check_sealed(self, shard: int, account: Id) -> None:
        slot = slot_of_word(account[0])
        if not any(source == shard and decode_slots(step.slots)[slot] for source, step in self._sealed.values()):
            raise Violation(f"shard {shard} gives away slot {slot}, which it has not sealed")

    def _check_served(self, shard: int, kind: int, event: Any, debit: Id, credit: Id) -> None:
        does = _does(event)
        if kind == CommandKind.CANCEL and int(event["flags"]) & CommandFlag.SETTLED and not does:
            self._counts["tries forbidden where their slot is or was"] += 1
            return  # It may be away, and the try come when it is back.
        accounts = [debit, credit] if kind in _BOTH_HERE and does else [debit]
        for slot in (slot_of_word(head) for head, _ in accounts):
            if kind == CommandKind.EXPIRE and self.owners.get(slot, shard) is None:
                # Nobody is asked for that: it falls due in the books where it is, here or there.
                self._counts["holds expired behind a seal"] += 1
            elif self.owners.get(slot, shard) != shard:
                raise Violation(f"shard {shard} commits a kind {kind} of slot {slot}, and {self.owners[slot]} has it")

    def check_end(self) -> None:
        """All slots are served, and nothing is on its way."""
        if None in self.owners.values() or self._gone or self._holds_gone or self._sealed:
            raise Violation(f"slots have not come: {self.owners}, {self._gone}, {self._holds_gone}")


def _does(event: Any) -> bool:
    """Whether an event has moved or reserved anything."""
    return int(event["result"]) == _COMMITTED and int(event["effective_amount"]) != 0


def _reference_of(event: Any) -> Id:
    """The id of the hold that an event names."""
    return int(event["reference_head"]), int(event["reference_tail"])
