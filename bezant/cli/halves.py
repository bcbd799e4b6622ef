"""Makes one payment of the halves that the books have of a transfer between shards, or of a leg of a transaction.

The shard of the account that pays has a TRY_DEBIT (or TRY_PART) with the payment's own id, and its CONFIRM or CANCEL;
that of the account that receives a TRY_CREDIT with an id that is derived from that of the other half, and the end of
that. Both lie in one log, or one is in the books of another shard. What a saga did and took back is no payment.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bezant.cli.reconciling import Booked, Statement
from bezant.engine.transactions.ids import derived_ids
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import LedgerError
from bezant.protocol.kinds import LEG_SHIFT, CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, id_bytes, id_words
from bezant.protocol.transactions import Leg

if TYPE_CHECKING:
    import bezant

MOVING: Final = (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE, CommandKind.CAPTURE)
"""Kinds that move money by themselves."""
TRIES: Final = (CommandKind.TRY_DEBIT, CommandKind.TRY_PART, CommandKind.TRY_CREDIT)
ENDS: Final = (CommandKind.CONFIRM, CommandKind.CANCEL)
PAYMENT_KINDS: Final = (*MOVING, *TRIES, *ENDS)
GIVE_BACKS_UNKNOWN_MAX: Final = 64
"""Tries to give a half back, one after another, whose events were not seen: refused ones are in no statement."""
_REASON: Final = (1 << LEG_SHIFT) - 1
_UNDECIDED: Final = "not decided yet"
_TAKEN_BACK: Final = "taken back"

Key = tuple[bytes, bytes]
"""An id, and the account that pays: what names a command in one shard."""


class _Half(NamedTuple):
    """A try, and what ended it."""

    tried: "bezant.Event"
    end: "bezant.Event | None"
    undone: str
    """Why it moved nothing, in words."""


class Payments:
    """Takes events in any order, each perhaps more than once, and makes payments of them."""

    def __init__(self, statement: Statement) -> None:
        """Keeps what `statement` asks about: its rows, and its subjects."""
        self._statement = statement
        rows = ((identifier, statement.rows[statement.by_id[identifier]]) for identifier in sorted(statement.own_ids))
        keys = [(identifier, account_id(row.debit, row.currency)) for identifier, row in rows]
        self._credits_of_rows: dict[bytes, Key] = dict(zip(derive(keys, Leg.TRY_CREDIT), keys, strict=True))
        self.ids = frozenset(statement.by_id) | self._credits_of_rows.keys()
        """Ids that payments of rows may have, and their halves that receive."""
        self._plain: dict[int, Booked] = {}
        self._tries: dict[Key, bezant.Event] = {}
        self._ends: dict[Key, bezant.Event] = {}

    def wants(self, event: "bezant.Event") -> bool:
        """Whether an event is one to be added. Of halves more than needed: those of all accounts in the statement."""
        if event.kind in MOVING:
            return event.id in self._statement.by_id or not self._statement.subjects.keys().isdisjoint(_sides(event))
        return event.kind in PAYMENT_KINDS and (
            event.id in self.ids
            or event.reference in self.ids
            or not self._statement.names.keys().isdisjoint(_sides(event))
        )

    def add(self, event: "bezant.Event") -> None:
        """Take an event. Those of other kinds are passed over."""
        if event.kind in MOVING:
            self._plain[event.position] = _plain(event)
        elif event.kind in TRIES:
            self._tries[event.id, event.debit] = event
        elif event.kind in ENDS and event.committed:
            self._ends[event.reference, event.debit] = event

    @property
    def tries_missing(self) -> list[bytes]:
        """Ids of tries that were confirmed, and have not been added."""
        return [key[0] for key, end in self._ends.items() if end.kind is CommandKind.CONFIRM and key not in self._tries]

    def parts_confirmed(self, identifier: bytes) -> list[Key]:
        """The halves with this id that a transaction may have taken back."""
        return [
            key
            for key, tried in self._tries.items()
            if key[0] == identifier and tried.kind is CommandKind.TRY_PART and _is_confirmed(self._ends.get(key))
        ]

    def booked(self) -> list[Booked]:
        """The payments that have an id of a row, or are to or from a subject. Raises `LedgerError`."""
        if missing := self.tries_missing:
            raise LedgerError(f"try {missing[0].hex()} was confirmed, and is not in the history")
        halves = self._halves()
        payers = [key for key, half in halves.items() if half.tried.kind is not CommandKind.TRY_CREDIT]
        names = self._credits_of_rows | dict(zip(derive(payers, Leg.TRY_CREDIT), payers, strict=True))
        debits, credits_ = dict.fromkeys(payers), {}
        for key, half in halves.items():
            if half.tried.kind is CommandKind.TRY_CREDIT:
                credits_[names.get(key[0], (key[0], half.tried.reference))] = half
        made = [
            _payment(key[0], halves[key] if key in debits else None, credits_.get(key)) for key in debits | credits_
        ]
        subjects = self._statement.subjects.keys()
        return [
            payment
            for payment in (*self._plain.values(), *made)
            if payment.id in self._statement.by_id or not subjects.isdisjoint((payment.debit, payment.credit))
        ]

    def _halves(self) -> dict[Key, _Half]:
        """All tries with their ends; those that a transaction gave back as such, and what gave them back left out."""
        taken_back, giving = self._given_back()
        return {
            key: _Half(tried, self._ends.get(key), _TAKEN_BACK if key in taken_back else self._undone(key, tried))
            for key, tried in self._tries.items()
            if key not in giving
        }

    def _undone(self, key: Key, tried: "bezant.Event") -> str:
        end = self._ends.get(key)
        if not tried.committed:
            return f"refused: {tried.result.name}"
        if end is None:
            return _UNDECIDED
        return "" if end.kind is CommandKind.CONFIRM else f"refused: {_name(end.hold_timeout_ms & _REASON)}"

    def _given_back(self) -> tuple[set[Key], set[Key]]:
        """The halves that were given back, and the tries that did it or were to.

        The id of each such try follows from the one before, and that of the first one from the half.
        """
        known: dict[bytes, list[Key]] = {}
        for key in self._tries:
            known.setdefault(key[0], []).append(key)
        taken_back: set[Key] = set()
        giving: set[Key] = set()
        # Each half with the id of the last try for it, and when such a try was last among those that are known.
        left = [
            (key, key[0], 0)
            for key, tried in self._tries.items()
            if tried.kind is not CommandKind.TRY_DEBIT and _is_confirmed(self._ends.get(key))
        ]
        number = 0
        while left:
            number += 1
            ids = derive([(identifier, key[1]) for key, identifier, _ in left], Leg.GIVE_BACK)
            following = []
            for (key, _, seen), identifier in zip(left, ids, strict=True):
                tries = known.get(identifier, [])
                giving.update(tries)
                if any(_is_confirmed(self._ends.get(one)) for one in tries):
                    taken_back.add(key)
                elif tries or number - seen < GIVE_BACKS_UNKNOWN_MAX:
                    following.append((key, identifier, number if tries else seen))
            left = following
        return taken_back, giving


def derive(keys: Sequence[Key], leg: Leg) -> list[bytes]:
    """The ids of a leg of each of these tries."""
    tries = np.zeros(len(keys), COMMAND)
    for field, place in (("id", 0), ("debit", 1)):
        words = np.array([id_words(key[place]) for key in keys], np.int64).reshape(-1, 2)
        tries[f"{field}_head"], tries[f"{field}_tail"] = words[:, 0], words[:, 1]
    return [id_bytes(head, tail) for head, tail in derived_ids(tries, leg).tolist()]


def accounts_unnamed(booked: Iterable[Booked], names: Mapping[bytes, str]) -> list[bytes]:
    """The accounts of payments that have no name here."""
    return sorted({account for payment in booked for account in (payment.debit, payment.credit)} - names.keys())


def _sides(event: "bezant.Event") -> tuple[bytes, bytes]:
    return event.debit, event.credit


def _is_confirmed(end: "bezant.Event | None") -> bool:
    return end is not None and end.kind is CommandKind.CONFIRM


def _name(code: int) -> str:
    return ResultCode(code).name if code in ResultCode.__members__.values() else str(code)


def _plain(event: "bezant.Event") -> Booked:
    return Booked(
        event.id,
        event.position,
        event.timestamp_ns,
        event.debit,
        event.credit,
        event.effective_amount if event.committed else event.amount,
        event.debit_balance,
        event.credit_balance,
        "" if event.committed else f"refused: {event.result.name}",
    )


def _payment(identifier: bytes, debit: _Half | None, credit: _Half | None) -> Booked:
    """One payment of its halves, of which the books here have at least one."""
    half = debit or credit
    if half is None:
        raise LedgerError(f"there is nothing of payment {identifier.hex()}")
    undone = half.undone
    if debit is not None and credit is not None and credit.undone != _UNDECIDED:
        undone = debit.undone or credit.undone
    left = debit.end if debit is not None and _is_confirmed(debit.end) else None
    arrived = credit.end if credit is not None and _is_confirmed(credit.end) else None
    told = left or arrived or half.tried
    return Booked(
        identifier,
        told.position,
        told.timestamp_ns,
        half.tried.debit if debit is not None else half.tried.reference,
        half.tried.credit,
        half.tried.amount,
        left.debit_balance if left is not None else None,
        arrived.credit_balance if arrived is not None else None,
        undone,
        arrived.timestamp_ns if arrived is not None else told.timestamp_ns,
    )
