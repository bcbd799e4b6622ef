"""What is committed in all shards together: each transfer between two of them as a whole, and every account's money.

It knows nothing of ledgers: it adds up events, as they are committed, and says at once what cannot be.
"""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bezant.engine.log.entry import Entry
from bezant.engine.transactions.ids import derived_ids
from bezant.engine.transactions.legs import transit_id
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import COPY_OF, CommandKind, EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import EVENT, LIMIT_UNLIMITED, id_words
from bezant.protocol.transactions import Leg

from ..clients import CURRENCIES
from ..frames import rows_of
from ..schedule import Violation
from .movements import Movements
from .parts import ENDS, AllParts

COMMITTED = int(ResultCode.COMMITTED)
CAPTURED = int(ResultCode.HOLD_CAPTURED)
LEGS_OF_TRY = (Leg.TRY_CREDIT, Leg.CONFIRM_DEBIT, Leg.CONFIRM_CREDIT, Leg.CANCEL_DEBIT, Leg.CANCEL_CREDIT)
CONTRARY = (
    (Leg.CONFIRM_DEBIT, Leg.CANCEL_DEBIT),
    (Leg.CONFIRM_CREDIT, Leg.CANCEL_CREDIT),
    (Leg.CONFIRM_DEBIT, Leg.CANCEL_ORPHAN),
)
Id = tuple[int, int]
_NOT_EXECUTED = range(100, 200)
_MOVING = frozenset(
    {
        CommandKind.TRANSFER,
        CommandKind.CAPTURE,
        CommandKind.CONFIRM,
        CommandKind.TRANSFER_AVAILABLE,
        CommandKind.MOVE_IN,
        CommandKind.MOVE_OUT,
    }
)
_PLAN, _TRY_DEBIT = int(CommandKind.PLAN), int(CommandKind.TRY_DEBIT)
_LEGS = frozenset({CommandKind.TRY_CREDIT, CommandKind.CONFIRM, CommandKind.CANCEL})
_SETTING_LIMIT = frozenset({CommandKind.OPEN, CommandKind.SET_LIMIT, CommandKind.MOVE_OPEN})
_TRIES = frozenset({CommandKind.TRY_DEBIT, CommandKind.TRY_PART})
_TAKING = _TRIES | {CommandKind.TRANSFER, CommandKind.HOLD}


@dataclass
class Account:
    """What its events have added up to."""

    balance: int = 0
    held: int = 0
    incoming: int = 0
    limit: int = 0


@dataclass(eq=False)
class Transfer:
    """One transfer between shards. `results`: of each leg that is committed, by leg; `events`: its shard, and where.

    The other shard may commit its try before the transfer's own shard does, or though that never does.
    """

    shard: int = -1
    sequence: int = 0
    code: int = -1
    results: dict[Leg, int] = field(default_factory=dict)
    events: dict[Leg, tuple[int, int, Any]] = field(default_factory=dict)
    is_settled: bool = False

    def has(self, leg: Leg) -> bool:
        """Whether a leg has been done."""
        return self.results.get(leg) == COMMITTED

    def __str__(self) -> str:
        legs = ", ".join(f"{leg.name} {code}" for leg, code in self.results.items())
        return f"the transfer of shard {self.shard} at {self.sequence} (try {self.code}; {legs})"


def _derived(events: Any, leg: Leg) -> Id:
    ((head, tail),) = derived_ids(events, leg).tolist()
    return head, tail


class Books:
    """See the module."""

    def __init__(self, counts: Counter[str], owners: dict[int, int], shards: int) -> None:
        """`owners`: of the slots that move, at the beginning."""
        self._counts = counts
        places = itertools.product(range(shards), range(shards), CURRENCIES)
        self._peers = {id_words(transit_id(own, peer, currency)): peer for own, peer, currency in places}
        """The shard that each transit account leads to."""
        self.movements = Movements(owners, counts)
        self.transfers: dict[tuple[int, int], Transfer] = {}
        """By shard and sequence of the TRY_DEBIT."""
        self.tries: list[Transfer] = []
        """Those that another shard has tried."""
        self.parts = AllParts(counts)
        """Of transactions of several legs."""
        self._by_leg: dict[tuple[int, Id], tuple[Transfer, Leg]] = {}
        """By the shard that pays, and the id of the leg. A try that is lost with its leader may be asked for again of
        the shard that its slot has moved to: that is another transfer, although its legs have the same ids."""
        self._accounts: dict[int, defaultdict[Id, Account]] = defaultdict(lambda: defaultdict(Account))

    # ---- what is committed ----

    def take(self, shard: int, entry: Entry) -> None:
        """The next committed entry of a shard."""
        if entry.header.kind == EntryKind.CONTROL:
            control = decode_control_entry(entry.body)
            if control.move is not None:
                self.movements.take_step(shard, control.move)
            settled = np.frombuffer(control.settled, np.int64)
            for sequence in settled.tolist():
                self._take_settled(shard, sequence)
        if entry.header.kind != EntryKind.EVENTS:
            return
        events = np.frombuffer(bytes(entry.body), EVENT)
        for place, event in enumerate(rows_of(events)):
            kind = event["kind"]
            if kind == _PLAN or kind > COPY_OF:
                self._counts["events copied"] += kind > COPY_OF
                continue
            is_part = self.parts.has(kind, event)
            ends_its_own = is_part and kind in ENDS and self.parts.is_known_to(shard, event)
            self.movements.take(shard, kind, event, ends_its_own=ends_its_own)
            if is_part:
                self.parts.take(shard, entry.header.first_sequence + place, kind, event)
            elif kind == _TRY_DEBIT:
                self._begin(shard, entry.header.first_sequence + place, events[place : place + 1])
            elif kind in _LEGS:
                self._take_leg(shard, entry, entry.header.first_sequence + place, events[place : place + 1])
            if event["result"] == COMMITTED:
                self._add_up(shard, kind, event)

    def _begin(self, shard: int, sequence: int, events: Any) -> None:
        code = int(events[0]["result"])
        if code != COMMITTED:
            self._counts["tries refused at home"] += 1
            self.transfers[shard, sequence] = Transfer(shard, sequence, code)
            return
        transfer, _ = self._by_leg.get((shard, _derived(events, Leg.TRY_CREDIT)), (Transfer(), None))
        if transfer.shard >= 0:
            raise Violation(f"shard {shard} commits at {sequence} a try of an id that is used: {transfer}")
        self._counts["tries that came before their transfer"] += Leg.TRY_CREDIT in transfer.results
        transfer.shard, transfer.sequence, transfer.code = shard, sequence, code
        self.transfers[shard, sequence] = transfer
        for leg in LEGS_OF_TRY:
            self._by_leg[shard, _derived(events, leg)] = (transfer, leg)

    def _take_leg(self, shard: int, entry: Entry, sequence: int, events: Any) -> None:
        event = events[0]
        pays = self._peers.get((int(event["debit_head"]), int(event["debit_tail"])), shard)
        leg_id = pays, (int(event["id_head"]), int(event["id_tail"]))
        kind, code = CommandKind(int(event["kind"])), int(event["result"])
        if kind is CommandKind.TRY_CREDIT:
            transfer, _ = self._by_leg.setdefault(leg_id, (Transfer(), Leg.TRY_CREDIT))
            self._by_leg[pays, _derived(events, Leg.CANCEL_ORPHAN)] = (transfer, Leg.CANCEL_ORPHAN)
            self.tries.append(transfer)
        found = self._by_leg.get(leg_id)
        if found is None:
            raise Violation(f"shard {shard} commits a {kind.name} at {sequence} that belongs to no committed try")
        transfer, leg = found
        if leg in transfer.results and not self._may_try_again(transfer, leg, shard):
            raise Violation(f"shard {shard} commits {leg.name} at {sequence} once more: {transfer}")
        is_own = leg in {Leg.CONFIRM_DEBIT, Leg.CANCEL_DEBIT}
        # What is paid into a slot may have come to the shard that pays.
        if shard != transfer.shard if is_own else shard == transfer.shard and not self.movements.owners:
            raise Violation(f"shard {shard} commits {leg.name} of {transfer}")
        if leg is Leg.TRY_CREDIT and transfer.has(Leg.CANCEL_CREDIT) and code == COMMITTED:
            raise Violation(f"a try stands after its cancel: {transfer}")
        if leg is Leg.CANCEL_CREDIT:
            self._counts["cancels before their try"] += Leg.TRY_CREDIT not in transfer.results
        transfer.results[leg] = code
        transfer.events[leg] = (shard, sequence, event)
        self._check(transfer, leg, code, event)
        self._counts[f"legs: {leg.name}"] += 1

    def _may_try_again(self, transfer: Transfer, leg: Leg, shard: int) -> bool:
        """A try was refused, its answer was lost, and its slot has moved: the other shard tries what nothing is
        reserved for. What is decided is what the answer that arrives says."""
        if leg is not Leg.TRY_CREDIT or transfer.has(leg) or not self.movements.owners:
            return False
        self._counts["tries asked again where their slot went"] += 1
        return transfer.events[leg][0] != shard

    def _check(self, transfer: Transfer, leg: Leg, code: int, event: Any) -> None:
        """All or nothing, in this order: tried there, decided here, done there."""
        if leg is Leg.CANCEL_ORPHAN and code == CAPTURED and transfer.has(Leg.CONFIRM_CREDIT):
            return  # It was asked for when it was open, and its shard has settled it since.
        if leg is not Leg.TRY_CREDIT and code != COMMITTED:
            raise Violation(f"{leg.name} is refused: {transfer}")
        needed = {
            Leg.CONFIRM_DEBIT: Leg.TRY_CREDIT,
            Leg.CONFIRM_CREDIT: Leg.CONFIRM_DEBIT,
            Leg.CANCEL_CREDIT: Leg.CANCEL_DEBIT,
        }.get(leg)
        if needed is not None and not transfer.has(needed):
            raise Violation(f"{leg.name} is committed without {needed.name}: {transfer}")
        cause = transfer.events.get(needed) if needed is not None else None
        if cause is not None and int(cause[2]["timestamp_ns"]) >= int(event["timestamp_ns"]):
            raise Violation(f"{leg.name} is dated before {needed.name}: {transfer}")
        for confirm, cancel in CONTRARY:
            if transfer.has(confirm) and transfer.has(cancel):
                raise Violation(f"confirmed and cancelled: {transfer}")
        if leg is Leg.CANCEL_DEBIT:
            reason = int(event["timeout_ms"])
            self._counts["tries given up" if reason in _NOT_EXECUTED else "tries refused there"] += 1

    def _take_settled(self, shard: int, sequence: int) -> None:
        if self.parts.check_settled(shard, sequence):
            return
        transfer = self.transfers.get((shard, sequence))
        if transfer is None:
            raise Violation(f"shard {shard} settles {sequence}, and that is no try")
        if not (transfer.has(Leg.CONFIRM_CREDIT) or transfer.has(Leg.CANCEL_CREDIT)):
            raise Violation(f"settled before the other shard has done what was decided: {transfer}")
        transfer.is_settled = True
        self._counts["transfers settled"] += 1

    # ---- money ----

    def _add_up(self, shard: int, kind: int, event: Any) -> None:
        accounts = self._accounts[shard]
        debit = accounts[event["debit_head"], event["debit_tail"]]
        credit_id = (event["credit_head"], event["credit_tail"])
        amount = event["effective_amount"]
        if kind in _SETTING_LIMIT:
            debit.limit = event["amount"]
            return
        if kind in _LEGS:
            self._add_up_leg(accounts, kind, event, debit, accounts[credit_id])
        elif kind in _TRIES:
            debit.held += amount
            transit = accounts[event["reference_head"], event["reference_tail"]]
            transit.incoming += amount
        elif kind in _MOVING:
            debit.balance -= amount
            accounts[credit_id].balance += amount
            debit.held = event["debit_held"]
        else:
            debit.held = event["debit_held"]
        self._check_account(shard, kind, event, debit)

    def _add_up_leg(
        self, accounts: defaultdict[Id, Account], kind: int, event: Any, debit: Account, credit: Account
    ) -> None:
        if kind == CommandKind.TRY_CREDIT:
            amount = int(event["effective_amount"])
            debit.held += amount
            credit.incoming += amount
            return
        amount = int(event["effective_amount"])
        debit.held -= amount
        credit.incoming -= amount
        if kind == CommandKind.CONFIRM:
            debit.balance -= amount
            credit.balance += amount

    def _check_account(self, shard: int, kind: int, event: Any, debit: Account) -> None:
        if (debit.balance, debit.held) != (event["debit_balance"], event["debit_held"]):
            raise Violation(f"shard {shard}: an event of kind {kind} says {event}, and events add up to {debit}")
        if kind in _TAKING and debit.limit != LIMIT_UNLIMITED and debit.balance - debit.held < -debit.limit:
            raise Violation(f"shard {shard}: an event of kind {kind} leaves an account below its limit: {debit}")
        if debit.incoming < 0 or debit.held < 0:
            raise Violation(f"shard {shard}: an account has less than nothing reserved: {debit}")

    # ---- what happens to nodes ----

    def note_stop(self, shard: int) -> None:
        """A node of a shard has stopped: was something under way?"""
        for transfer in self.transfers.values():
            if transfer.code != COMMITTED:
                continue
            is_decided = transfer.has(Leg.CONFIRM_DEBIT) or transfer.has(Leg.CANCEL_DEBIT)
            if transfer.shard == shard:
                waits = transfer.has(Leg.CONFIRM_DEBIT) and Leg.CONFIRM_CREDIT not in transfer.results
                self._counts["coordinators stopped after a decision"] += waits
                self._counts["coordinators stopped after a try"] += not is_decided
            elif transfer.has(Leg.TRY_CREDIT) and not is_decided:
                self._counts["participants stopped after a try"] += 1

    # ---- the end ----

    def check_end(self) -> None:
        """All transfers have ended, on both sides alike, and no money is between shards or gone."""
        self.movements.check_end()
        for transfer in self.tries:
            ends = (Leg.CONFIRM_CREDIT, Leg.CANCEL_CREDIT, Leg.CANCEL_ORPHAN)
            if transfer.has(Leg.TRY_CREDIT) and not any(transfer.has(leg) for leg in ends):
                raise Violation(f"tried for ever: {transfer}")
        for transfer in self.transfers.values():
            self._check_ended(transfer)
        totals: Counter[str] = Counter()
        for shard, accounts in sorted(self._accounts.items()):
            totals[f"balance of shard {shard}"] = sum(account.balance for account in accounts.values())
            totals[f"incoming in shard {shard}"] = sum(account.incoming for account in accounts.values())
        shards = sorted(self._accounts)
        for own, peer, currency in itertools.product(shards, shards, CURRENCIES):
            # What is paid into a slot that has moved goes out through the account to one shard, and comes in through
            # that of another one.
            name = f"between {min(own, peer)} and {max(own, peer)}" if not self.movements.owners else "between shards"
            totals[f"{currency} {name}"] += self._accounts[own][id_words(transit_id(own, peer, currency))].balance
        wrong = {name: total for name, total in totals.items() if total}
        if wrong:
            raise Violation(f"what should add up to nothing does not: {wrong}")

    def _check_ended(self, transfer: Transfer) -> None:
        if transfer.code != COMMITTED:
            return
        confirmed, cancelled = transfer.has(Leg.CONFIRM_DEBIT), transfer.has(Leg.CANCEL_DEBIT)
        if confirmed == cancelled:
            raise Violation(f"not decided, or twice: {transfer}")
        if confirmed != transfer.has(Leg.CONFIRM_CREDIT):
            raise Violation(f"done in one shard alone: {transfer}")
        self._counts["transfers confirmed" if confirmed else "transfers cancelled"] += 1
