"""What became of a transaction, leg by leg, out of the histories of all shards that took part. Nothing is guessed.

Every event of a transaction has an id that follows from that of the transaction, or names such an id as the try that it
ends ("Ids of legs", ``protocol/SHARDS.md``). So all of them are found by ids alone, some hundred at a time:

    id -> TRY_DEBIT, its end --> PLANs, TRY_PARTs, their ends --> TRY_CREDITs, their ends --> what was given back
       -> TRANSFER -----------> the rest of the chain

A leg has two sides, that of the account that pays and that of the one that receives. All is as of one moment, so what a
trace says was so at that moment in all shards; and it is over when nothing is held or under way in any.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, unique
from typing import Final

import msgspec

from bezant.net.client.results import Event
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import LEG_SHIFT, TRANSACTION_LEGS_MAX, CommandKind
from bezant.protocol.records import split_position
from bezant.protocol.transactions import Leg, TransactionMode, derived_id, leg_ids

Find = Callable[[Sequence[bytes]], Awaitable[Sequence[Event]]]
"""The events that have one of some ids, and the committed CONFIRMs and CANCELs that refer to one, as of one moment."""

TRACES_MAX: Final = 16
"""Transactions that are traced of one id: any number of accounts may have used it, and each trace takes questions."""
EVENTS_MAX: Final = 1 << 14
"""Events that are looked at for one question: several of each side of a transaction of as many legs as there can be."""

_LOW: Final = (1 << LEG_SHIFT) - 1
_MOVES: Final = (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE)
_TRIES: Final = (CommandKind.TRY_DEBIT, CommandKind.TRY_PART, CommandKind.TRY_CREDIT)
_ENDS: Final = (CommandKind.CONFIRM, CommandKind.CANCEL)
_OF_OTHERS: Final = (ResultCode.CHAIN_MEMBER_REFUSED, ResultCode.CHAIN_MEMBER_NOT_EXECUTED)


@unique
class TraceKind(Enum):
    """How it was kept whole. DIRECT: by one entry of one shard, so it never was in between."""

    DIRECT = "direct"
    TCC = "tcc"
    SAGA = "saga"


@unique
class Phase(Enum):
    """How far it is. REFUSED: by the shard of the account that pays first, before anything was tried elsewhere."""

    TRYING = "trying"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    CANCELLING = "cancelling"
    COMPENSATING = "compensating"
    CANCELLED = "cancelled"
    REFUSED = "refused"


@unique
class SideState(Enum):
    """How far one side of a leg is. TRIED: held, or reserved to be received; GIVEN_BACK: done, and undone again."""

    WAITING = "waiting"
    TRIED = "tried"
    DONE = "done"
    CANCELLED = "cancelled"
    GIVEN_BACK = "given_back"
    REFUSED = "refused"


_OPEN: Final = (SideState.TRIED, SideState.DONE)


class Side(msgspec.Struct):
    """One account of a leg, by its id: ``events`` are what was done to it, in order; ``shard`` is None if unknown."""

    account: bytes
    shard: int | None
    state: SideState
    events: list[Event]


class TracedLeg(msgspec.Struct):
    """One transfer of a transaction: its number, from 0, and ``amount`` in minor units. A side is None if not told."""

    number: int
    amount: int
    debit: Side | None
    credit: Side | None

    @property
    def sides(self) -> list[Side]:
        """Those that are told."""
        return [side for side in (self.debit, self.credit) if side is not None]


class Trace(msgspec.Struct):
    """What became of a transaction that ``debit`` began. ``code``: None while that is not decided; why not, else
    COMMITTED; ``leg`` is the number of the leg that it is about. ``was_tried``: False if it was refused before that."""

    id: bytes
    debit: bytes
    kind: TraceKind
    was_tried: bool
    code: ResultCode | None
    leg: int | None
    legs: list[TracedLeg]

    @property
    def phase(self) -> Phase:
        """How far the whole is, as far as it is told."""
        if not self.was_tried:
            return Phase.CONFIRMED if self.code is ResultCode.COMMITTED else Phase.REFUSED
        return self._phase({side.state for leg in self.legs for side in leg.sides})

    def phase_of(self, leg: TracedLeg) -> Phase:
        """How far one leg is; one that was refused refuses the whole."""
        states = {side.state for side in leg.sides}
        if self.leg == leg.number or SideState.REFUSED in states:
            return Phase.REFUSED
        return Phase.CONFIRMED if self.code is None and states == {SideState.DONE} else self._phase(states)

    def _phase(self, states: set[SideState]) -> Phase:
        if self.code is None:
            return Phase.TRYING
        if self.code is ResultCode.COMMITTED:
            return Phase.CONFIRMED if states <= {SideState.DONE} else Phase.CONFIRMING
        if states.isdisjoint(_OPEN):
            return Phase.CANCELLED
        return Phase.COMPENSATING if SideState.DONE in states else Phase.CANCELLING


class _Events:
    """Events that were found, by what they are looked up by."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._positions: set[int] = set()
        self._by_id: defaultdict[bytes, list[Event]] = defaultdict(list)
        self._ends: defaultdict[bytes, list[Event]] = defaultdict(list)

    async def ask(self, ids: Sequence[bytes]) -> None:
        """Find what there is of some ids."""
        if not ids:
            return
        for event in await self._find(ids):
            if event.position in self._positions:
                continue
            self._positions.add(event.position)
            self._by_id[event.id].append(event)
            if event.kind in _ENDS and event.committed:
                self._ends[event.reference].append(event)

    def of(self, identifier: bytes, *kinds: CommandKind) -> list[Event]:
        """Those with an id."""
        return [event for event in self._by_id.get(identifier, ()) if event.kind in kinds]

    def story(self, identifier: bytes, account: bytes) -> list[Event]:
        """A try of an account, and what ended it."""
        found = [*self.of(identifier, *_TRIES), *self._ends.get(identifier, ())]
        return sorted(
            (event for event in found if account in (event.debit, event.credit)), key=lambda event: event.timestamp_ns
        )


async def trace_transactions(find: Find, identifier: bytes, payer: bytes | None = None) -> list[Trace]:
    """What became of each transaction, and each transfer, that has this id; there is one of each account that pays.

    `payer`: of that one alone. Raises `UsageError` for an id that too many accounts have used.
    """
    events = _Events(find)
    await events.ask([identifier])
    tries, moves = (
        [first for first in events.of(identifier, *kinds) if payer in (None, first.debit)]
        for kinds in ((CommandKind.TRY_DEBIT,), _MOVES)
    )
    if len(tries) + len(moves) > TRACES_MAX:
        raise UsageError(f"{len(tries) + len(moves)} accounts have used this id: name the one that pays")
    traces = [await _trace_try(events, first) for first in tries]
    return traces + [await _trace_chain(events, first) for first in moves]


async def _trace_chain(events: _Events, first: Event) -> Trace:
    """What one shard has done at once: a transfer, or several that are linked and have the ids of legs."""
    members = [(0, first)]
    if first.linked:
        ids = leg_ids(first.id, first.debit, TRANSACTION_LEGS_MAX)
        await events.ask(ids[1:])
        found = [(number, event) for number, one in enumerate(ids[1:], 1) for event in events.of(one, *_MOVES)]
        # A member of a chain stands right behind the one before it.
        members += [(number, event) for number, event in found if event.position == first.position + number]
    causes = ((number, event.result) for number, event in members if not event.committed)
    refused, code = next((cause for cause in causes if cause[1] not in _OF_OTHERS), (None, first.result))
    legs = []
    for number, event in members:
        state = SideState.DONE if event.committed else SideState.CANCELLED
        state = SideState.REFUSED if number == refused else state
        shard = split_position(event.position)[0]
        sides = [Side(account, shard, state, [event]) for account in (event.debit, event.credit)]
        legs.append(TracedLeg(number, event.amount, *sides))
    return Trace(first.id, first.debit, TraceKind.DIRECT, False, code, refused, legs)


async def _trace_try(events: _Events, first: Event) -> Trace:
    """A transfer between shards, or a transaction of several legs."""
    mode, count = first.hold_timeout_ms >> LEG_SHIFT, max(first.hold_timeout_ms & _LOW, 1)
    kind = TraceKind.SAGA if mode == TransactionMode.SAGA else TraceKind.TCC
    ids = leg_ids(first.id, first.debit, count)
    plan_ids = [derived_id(one, first.debit, Leg.PLAN) for one in ids[1:]]
    await events.ask([*ids[1:], *plan_ids])
    plans = [(number, plan) for number, one in enumerate(plan_ids, 1) for plan in events.of(one, CommandKind.PLAN)]
    told = [(0, first.debit, first), *((number, plan.reference, plan) for number, plan in plans)]
    credit_ids = {number: derived_id(ids[number], payer, Leg.TRY_CREDIT) for number, payer, _ in told}
    await events.ask([*credit_ids.values()])
    legs = []
    for number, payer, asked in told:
        planned = (asked.hold_timeout_ms & _LOW, asked.hold_timeout_ms >> LEG_SHIFT) if number else (None, None)
        debit = _side(payer, planned[0], events.story(ids[number], payer))
        credit = _side(asked.credit, planned[1], events.story(credit_ids[number], asked.credit))
        legs.append(TracedLeg(number, asked.amount, debit, credit))
    ends = [event for leg in legs for side in leg.sides for event in side.events if event.kind in _ENDS]
    # The end of the first try is the decision; of TC/C all others say the same, where that one is not told.
    end = next((event for event in ends if event.reference == first.id), None)
    if end is None and kind is TraceKind.TCC and ends:
        end = ends[0]
    code, refused = (None, None) if first.committed else (first.result, 0)
    if end is not None:
        is_cancel = end.kind is CommandKind.CANCEL
        code = ResultCode(end.hold_timeout_ms & _LOW) if is_cancel else ResultCode.COMMITTED
        refused = end.hold_timeout_ms >> LEG_SHIFT if is_cancel else None
        if is_cancel and kind is TraceKind.SAGA:
            await _find_given_back(events, [side for one in legs for side in one.sides])
    return Trace(first.id, first.debit, kind, first.committed, code, refused, legs)


def _side(account: bytes, planned: int | None, story: list[Event]) -> Side:
    state = SideState.WAITING
    if story:
        last = story[-1]
        state = SideState.TRIED if last.committed else SideState.REFUSED
        for event in story:
            if event.kind in _ENDS:
                state = SideState.DONE if event.kind is CommandKind.CONFIRM else SideState.CANCELLED
        planned = split_position(last.position)[0]
    return Side(account, planned, state, story)


async def _find_given_back(events: _Events, sides: list[Side]) -> None:
    """What was confirmed is given back by a try the other way; by the next one, if that is refused."""
    left = [(side, side.events[0].id) for side in sides if side.state is SideState.DONE]
    while left:
        # The id follows from the one before, and from the account that paid in the first try of all.
        following = [(side, derived_id(one, side.events[0].debit, Leg.GIVE_BACK)) for side, one in left]
        await events.ask([one for _, one in following])
        left = []
        for side, one in following:
            story = events.story(one, side.account)
            side.events += story
            if any(event.kind is CommandKind.CONFIRM for event in story):
                side.state = SideState.GIVEN_BACK
            elif story and not story[-1].committed:
                left.append((side, one))
