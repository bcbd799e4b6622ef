"""Transactions of several legs (TC/C and Saga), over all shards: what is committed of each half, and may follow what.

It knows which ids belong to a transaction that was asked for, and nothing of ledgers or coordinators.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from bezant.engine.transactions.ids import derived_ids
from bezant.engine.transactions.parts import Legs
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, Records
from bezant.protocol.transactions import Leg, TransactionMode

from ..schedule import Violation
from .movements import slot_of_word

COMMITTED = int(ResultCode.COMMITTED)
CAPTURED = int(ResultCode.HOLD_CAPTURED)
RELEASED = int(ResultCode.HOLD_RELEASED)
ENDS = (CommandKind.CONFIRM, CommandKind.CANCEL)
Id = tuple[int, int]


class Half:
    """One half of a leg. `keys`: COMMAND[1], from which the ids of the tries that give it back follow."""

    def __init__(self, of: "Parts", number: int) -> None:
        self.of = of
        self.number = number
        self.keys: Records = np.zeros(1, COMMAND)
        self.code = -1
        self.end: CommandKind | None = None
        self.wallet: Id = 0, 0
        """Whose money it is about; the other account is a transit account."""
        self.shard = -1
        """Where it ended."""
        self.tried_in = -1
        self.time_ns = 0
        """Of the latest that was done to it."""
        self.back_code = -1
        """Of the latest try to give it back."""
        self.is_given_back = False

    @property
    def is_done(self) -> bool:
        """Whether its money has moved, and stays where it went."""
        return self.end is CommandKind.CONFIRM and not self.is_given_back

    @property
    def is_open(self) -> bool:
        """Whether something of it is reserved."""
        return (self.code == COMMITTED and self.end is None) or (self.back_code == COMMITTED and not self.is_given_back)


class Decision(NamedTuple):
    """What was decided, where, and its event."""

    shard: int
    sequence: int
    event: Any

    @property
    def is_confirm(self) -> bool:
        return int(self.event["kind"]) == CommandKind.CONFIRM


class Parts:
    """The halves of one transaction; the first is its TRY_DEBIT, whose end is the decision."""

    def __init__(self, identifier: bytes, mode: TransactionMode, count: int) -> None:
        self.id = identifier
        self.mode = mode
        self.shard = -1
        self.halves = [Half(self, number) for number in range(2 * count)]
        self.decision: Decision | None = None

    def __str__(self) -> str:
        halves = ", ".join(
            f"{half.code}/{half.end and half.end.name}{'/back' if half.is_given_back else ''}" for half in self.halves
        )
        return f"transaction {self.id.hex()} ({self.mode.name}; halves {halves})"

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to be done, whatever was decided."""
        confirmed = self.decision is not None and self.decision.is_confirm
        return not any(half.is_open or half.is_done is not confirmed for half in self.halves)

    def check_told(self, code: int, *, is_over: bool) -> None:
        """Raise `Violation` unless that is what was decided; `is_over`: and all of it done, or taken back."""
        confirmed = self.decision is not None and self.decision.is_confirm
        if (code == COMMITTED) != confirmed:
            raise Violation(f"told {code} of {self}")
        if is_over:
            self.check_over()

    def check_over(self) -> None:
        """Raise `Violation` unless all of it is done, or taken back."""
        if not self.is_over:
            raise Violation(f"this should be over: {self}")


class AllParts:
    """Those of all transactions that anybody has asked for."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self.by_place: dict[tuple[int, int], Parts] = {}
        """By shard and sequence of the TRY_DEBIT."""
        self.on_halfway: Callable[[int], None] | None = None
        """Told the shard that coordinates a saga when that has done some of its halves, in two runs at least."""
        self._tries: dict[Id, Half] = {}
        self._given_back: dict[Id, Half] = {}

    def register(self, legs: Legs) -> Parts:
        """A client is about to ask for these legs."""
        parts = Parts(legs.id, legs.mode, len(legs.tries))
        credits_ = [(head, tail) for head, tail in derived_ids(legs.tries, Leg.TRY_CREDIT).tolist()]
        for half, try_id in zip(parts.halves, [*_ids(legs.tries), *credits_], strict=True):
            self._tries[try_id] = half
        return parts

    def has(self, kind: int, event: Any) -> bool:
        """Whether an event is of a transaction of several legs. Raises `Violation` if it is of none that there is."""
        if kind in ENDS:
            return _reference(event) in self._tries or _reference(event) in self._given_back
        if kind == CommandKind.TRY_DEBIT:
            is_part = int(event["timeout_ms"]) != 0
        else:
            is_part = kind == CommandKind.TRY_PART or (
                kind == CommandKind.TRY_CREDIT and int(event["flags"]) & CommandFlag.PART != 0
            )
        if is_part and _id(event) not in self._tries and _id(event) not in self._given_back:
            raise Violation(f"a part of no transaction that was asked for is committed: {event}")
        return is_part

    def take(self, shard: int, sequence: int, kind: int, event: Any) -> None:
        """The next committed event of a part."""
        if kind in ENDS:
            half = self._tries.get(_reference(event))
            if half is None:
                self._take_end_of_back(self._given_back[_reference(event)], kind, event)
            else:
                self._take_end(shard, sequence, half, CommandKind(kind), event)
            return
        half = self._tries.get(_id(event))
        if half is None:
            self._take_back(self._given_back[_id(event)], event)
            return
        if kind == CommandKind.TRY_DEBIT:
            self.by_place[shard, sequence] = half.of
            half.of.shard = shard
        half.tried_in = shard
        self._take_try(half, event)

    def _take_try(self, half: Half, event: Any) -> None:
        parts, first = half.of, half.of.halves[0]
        if half is not first and first.code != COMMITTED:
            raise Violation(f"half {half.number} is tried before all is written down: {parts}")
        if half.end is not None and int(event["result"]) == COMMITTED:
            raise Violation(f"half {half.number} is tried after its end: {parts}")
        half.code, half.time_ns = int(event["result"]), int(event["timestamp_ns"])
        for name in ("debit_head", "debit_tail"):
            half.keys[name] = event[name]
        half.keys["id_head"], half.keys["id_tail"] = event["id_head"], event["id_tail"]
        side = "credit" if int(event["kind"]) == CommandKind.TRY_CREDIT else "debit"
        half.wallet = int(event[f"{side}_head"]), int(event[f"{side}_tail"])

    def _take_end(self, shard: int, sequence: int, half: Half, kind: CommandKind, event: Any) -> None:
        parts, code = half.of, int(event["result"])
        what = f"{kind.name} ({code}) of half {half.number} at {sequence} in shard {shard} of {parts}"
        decision = parts.decision
        if half is parts.halves[0]:
            if decision is not None or code != COMMITTED:
                raise Violation(f"decided twice: {what}")
            decision = parts.decision = Decision(shard, sequence, event)
            self._check_decision(parts, what)
        elif decision is None or decision.is_confirm != (kind is CommandKind.CONFIRM):
            if parts.mode is TransactionMode.TCC or kind is CommandKind.CANCEL:
                raise Violation(f"not what was decided: {what}")
        elif int(event["timestamp_ns"]) <= int(decision.event["timestamp_ns"]):
            raise Violation(f"dated before the decision: {what}")
        is_forbidden = half.end is kind is CommandKind.CANCEL and int(event["effective_amount"]) == 0
        if code == COMMITTED and is_forbidden and half is not parts.halves[0]:
            self._counts["halves: CANCEL of what was forbidden"] += 1
        elif code == COMMITTED:
            if half.end is not None or (kind is CommandKind.CONFIRM and half.code != COMMITTED):
                raise Violation(f"ended otherwise, or never tried: {what}")
            half.end, half.time_ns = kind, max(half.time_ns, int(event["timestamp_ns"]))
            self._counts[f"halves: {kind.name}"] += 1
            half.shard = shard
            if kind is CommandKind.CONFIRM and parts.mode is TransactionMode.SAGA:
                self._may_be_given_back(half)
                if self.on_halfway is not None and decision is None and len({one.shard for one in parts.halves}) > 2:
                    self.on_halfway(parts.shard)
        elif parts.mode is TransactionMode.TCC or (code, half.end) not in {
            (CAPTURED, CommandKind.CONFIRM),
            (RELEASED, CommandKind.CANCEL),
        }:
            raise Violation(f"refused: {what}")

    def _check_decision(self, parts: Parts, what: str) -> None:
        decision = parts.decision
        if decision is None or not decision.is_confirm:
            return
        needed = CommandKind.CONFIRM if parts.mode is TransactionMode.SAGA else None
        for half in parts.halves[1:]:
            if half.code != COMMITTED or half.end is not needed:
                raise Violation(f"decided before all halves stand: {what}")
            if half.time_ns >= int(decision.event["timestamp_ns"]):
                raise Violation(f"dated before what it rests on: {what}")

    def _may_be_given_back(self, half: Half) -> None:
        ((head, tail),) = derived_ids(half.keys, Leg.GIVE_BACK).tolist()
        half.keys["id_head"], half.keys["id_tail"] = head, tail
        self._given_back[head, tail] = half

    def _take_back(self, half: Half, event: Any) -> None:
        parts, code = half.of, int(event["result"])
        if parts.decision is None or parts.decision.is_confirm or half.end is not CommandKind.CONFIRM:
            raise Violation(f"half {half.number} is given back, and nothing calls for that: {parts}")
        if half.back_code == COMMITTED or _id(event) != (int(half.keys["id_head"][0]), int(half.keys["id_tail"][0])):
            raise Violation(f"half {half.number} is given back once more: {parts}")
        half.back_code = code
        self._counts["tries to give back"] += 1
        if code != COMMITTED:
            self._counts["refusals to give back"] += 1
            self._may_be_given_back(half)

    def _take_end_of_back(self, half: Half, kind: int, event: Any) -> None:
        wrong = kind != CommandKind.CONFIRM or int(event["result"]) != COMMITTED or half.back_code != COMMITTED
        if wrong or half.is_given_back:
            raise Violation(f"a kind {kind} ends what gives half {half.number} back: {half.of}")
        half.is_given_back = True
        self._counts["halves given back"] += 1

    @property
    def confirmed_in_vain(self) -> list[tuple[int, int]]:
        """Slots of wallets whose halves are to be given back, and the shards where they were done."""
        return sorted(
            {
                (slot_of_word(half.wallet[0]), half.shard)
                for parts in self.by_place.values()
                if parts.decision is not None and not parts.decision.is_confirm
                for half in parts.halves
                if half.is_done
            }
        )

    def is_known_to(self, shard: int, event: Any) -> bool:
        """Whether a shard knows, wherever the slot is, what a CONFIRM or CANCEL is about: it has tried or ended that
        half, or carries the transaction on."""
        half = self._tries.get(_reference(event))
        return half is not None and shard in (half.shard, half.tried_in, half.of.shard)

    def check_settled(self, shard: int, sequence: int) -> bool:
        """Whether a settled transaction is one of several legs. Raises `Violation` if it is not over."""
        parts = self.by_place.get((shard, sequence))
        if parts is not None and not parts.is_over:
            raise Violation(f"shard {shard} settles at {sequence} what is not over: {parts}")
        return parts is not None


def _ids(records: Records) -> Iterable[Id]:
    return [(int(record["id_head"]), int(record["id_tail"])) for record in records]


def _id(event: Any) -> Id:
    return int(event["id_head"]), int(event["id_tail"])


def _reference(event: Any) -> Id:
    return int(event["reference_head"]), int(event["reference_tail"])
