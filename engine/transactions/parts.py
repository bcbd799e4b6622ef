"""Transactions of several legs: what is written down of one, and the commands that its shards execute.

A transaction is events in the log of the shard that coordinates it, that of its first leg's debit account: a PLAN for
each further leg, and behind them the TRY_DEBIT of the first one. That has the id of the transaction, which is so used
up for ever, and in `timeout_ms` the mode and the number of legs. A PLAN has an id derived from that of the transaction,
and all that was asked of its leg. So whoever takes the lead finds everything by its ids.

A leg consists of two *halves*, each between a wallet and a transit account of the wallet's shard, also if both wallets
lie in one shard: then the transit account is the one of that shard to itself. The first leg's debit half is the
TRY_DEBIT that begins it all, and the end of that is the decision. Ids of what follows are derived from those of the
legs as those of a transfer between shards are from its own.
"""

from typing import Final, NamedTuple

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.moves.copies import COPY_MARK
from bezant.engine.transactions.ids import derived_ids, joined, words_of
from bezant.engine.transactions.legs import (
    DECISIONS,
    build_decisions,
    build_second_legs,
    build_try_credits,
    find_decision_events,
    transit_id,
)
from bezant.protocol.errors import LedgerError
from bezant.protocol.kinds import LEG_SHIFT, CommandField, CommandFlag, CommandKind
from bezant.protocol.names import TRANSIT_NAME_PREFIX, currency_code
from bezant.protocol.records import COMMAND, Records, Words, id_bytes, id_words
from bezant.protocol.transactions import Leg, TransactionMode, leg_ids

_LOW: Final = (1 << LEG_SHIFT) - 1
_COPIED: Final = ("credit_head", "credit_tail", "amount", "user_data_head", "user_data_tail", "code")
_COMPARED: Final = {
    "debit_head": CommandField.DEBIT,
    "debit_tail": CommandField.DEBIT,
    "credit_head": CommandField.CREDIT,
    "credit_tail": CommandField.CREDIT,
    "amount": CommandField.AMOUNT,
    "user_data_head": CommandField.USER_DATA,
    "user_data_tail": CommandField.USER_DATA,
    "code": CommandField.CODE,
}


class Legs(NamedTuple):
    """The legs of one transaction, in order.

    `tries`: COMMAND records, the first a TRY_DEBIT and the rest TRY_PARTs, with their ids and the transit accounts of
    their debit halves; `currencies`: of each, as a word; the shards of the halves.
    """

    mode: TransactionMode
    tries: Records
    currencies: Words
    debit_shards: Words
    credit_shards: Words

    @property
    def id(self) -> bytes:
        """The id of the transaction."""
        return id_bytes(int(self.tries["id_head"][0]), int(self.tries["id_tail"][0]))

    @property
    def key(self) -> tuple[bytes, bytes]:
        """What it uses up for ever: the id, and the account whose slot that is in."""
        return self.id, id_bytes(int(self.tries["debit_head"][0]), int(self.tries["debit_tail"][0]))


class Halves(NamedTuple):
    """What is to be tried: the debit halves of all legs but the first, then the credit halves of all, each in order.

    `tries`: COMMAND records; `shards`: where; `peers`: the shard of each one's other half; `legs`: its leg's number.
    """

    tries: Records
    shards: Words
    peers: Words
    currencies: Words
    legs: Words

    def pick(self, numbers: Words) -> "Halves":
        """Some of them."""
        return Halves(
            self.tries[numbers],
            self.shards[numbers],
            self.peers[numbers],
            self.currencies[numbers],
            self.legs[numbers],
        )


def make_legs(
    identifier: bytes, mode: TransactionMode, asked: Records, owners: Words, slots: tuple[Words, Words]
) -> Legs:
    """The legs of a transaction that a client asks for (COMMAND records of TRANSFERs, with their currencies).

    `owners`: the shard of each slot; `slots`: those of the debit and of the credit accounts.
    """
    tries = asked.copy()
    debit = id_bytes(int(asked["debit_head"][0]), int(asked["debit_tail"][0]))
    _write(tries, "id", _leg_words(identifier, debit, len(asked)))
    tries["currency"] = 0
    return _finished(mode, tries, asked["currency"].copy(), owners[slots[0]], owners[slots[1]])


def _finished(mode: TransactionMode, tries: Records, currencies: Words, debits: Words, credits_: Words) -> Legs:
    tries["kind"] = int(CommandKind.TRY_PART)
    tries["kind"][0] = int(CommandKind.TRY_DEBIT)
    tries["timeout_ms"] = 0
    tries["timeout_ms"][0] = int(mode) << LEG_SHIFT | len(tries)
    _write(tries, "reference", _transits(debits, credits_, currencies))
    return Legs(mode, tries, currencies, debits, credits_)


def build_plans(legs: Legs) -> Records:
    """What is to be executed before the TRY_DEBIT, in the same entry: the PLANs of all legs but the first."""
    further = legs.tries[1:]
    plans = np.zeros(len(further), COMMAND)
    plans["kind"] = int(CommandKind.PLAN)
    for word in ("head", "tail"):
        plans[f"id_{word}"] = further[f"id_{word}"]
        plans[f"debit_{word}"] = legs.tries[f"debit_{word}"][0]
        plans[f"reference_{word}"] = further[f"debit_{word}"]
    for name in _COPIED:
        plans[name] = further[name]
    plans["currency"] = legs.currencies[1:]
    _write(plans, "id", derived_ids(plans, Leg.PLAN))
    plans["timeout_ms"] = legs.credit_shards[1:] << LEG_SHIFT | legs.debit_shards[1:]
    return plans


def read_legs(ledger: Ledger, begun: Records) -> Legs:
    """The legs of a transaction out of the history: `begun` is the event of its TRY_DEBIT (EVENT[1]).

    Raises `LedgerError` if they are not there.
    """
    mode, count = TransactionMode(int(begun["timeout_ms"][0]) >> LEG_SHIFT), int(begun["timeout_ms"][0]) & _LOW
    identifier = id_bytes(int(begun["id_head"][0]), int(begun["id_tail"][0]))
    debit = id_bytes(int(begun["debit_head"][0]), int(begun["debit_tail"][0]))
    ids = _leg_words(identifier, debit, count)
    keys = np.zeros(count - 1, COMMAND)
    _write(keys, "id", ids[1:])
    _write(keys, "debit", words_of(begun, "debit"))
    _write(keys, "id", derived_ids(keys, Leg.PLAN))
    keys["kind"] = int(CommandKind.PLAN)
    sequences, plans = ledger.find_events(keys)
    if not sequences.all():
        raise LedgerError(
            f"of transaction {identifier.hex()} the plan of leg {1 + int(np.argmin(sequences))} is missing"
        )
    tries = np.zeros(count, COMMAND)
    _write(tries, "id", ids)
    for name in _COPIED:
        tries[name][0] = begun[name][0]
        tries[name][1:] = plans[name]
    for word in ("head", "tail"):
        tries[f"debit_{word}"][0] = begun[f"debit_{word}"][0]
        tries[f"debit_{word}"][1:] = plans[f"reference_{word}"]
    peer, currency = _peer(ledger, begun), int(ledger.lookup_accounts(words_of(begun, "debit"))["currency"][0])
    debits = np.concatenate([[ledger.shard], plans["timeout_ms"] & _LOW])
    credits_ = np.concatenate([[peer], plans["timeout_ms"] >> LEG_SHIFT])
    return _finished(mode, tries, np.concatenate([[currency], plans["currency"]]), debits, credits_)


def _peer(ledger: Ledger, begun: Records) -> int:
    """The shard of the first leg's credit account: the one that the try's transit account stands for.

    Of a transaction that has ended, and come here with its slot since, nobody asks: it is this one then.
    """
    name = bytes(ledger.lookup_accounts(words_of(begun, "reference"))["name"][0]).decode("ascii")
    if not name and begun["event_reserved"][0] == COPY_MARK:
        return ledger.shard
    if not name.startswith(TRANSIT_NAME_PREFIX):
        raise LedgerError(f"a try goes through an account named {name!r}, which is no transit account")
    return int(name.rpartition(":")[2])


def find_decision(ledger: Ledger, begun: Records) -> Records | None:
    """The event (EVENT[1]) that decided a transaction, if any has; `begun` as in `read_legs`."""
    for kind, leg, other in DECISIONS:
        sequences, events = find_decision_events(ledger, begun, kind, derived_ids(begun, leg, salt=other))
        if sequences[0]:
            return events
    return None


def reason_of(decision: Records) -> tuple[int, int]:
    """(code, leg) of a decision (EVENT[1]): code 0 says that all is confirmed."""
    if int(decision["kind"][0]) == int(CommandKind.CONFIRM):
        return 0, 0
    return int(decision["timeout_ms"][0]) & _LOW, int(decision["timeout_ms"][0]) >> LEG_SHIFT


def first_other_leg(legs: Legs, others: Legs) -> tuple[int, int]:
    """(leg, `CommandField`) of the first difference in what is asked for; leg -1: none. They have equally many."""
    for number in range(len(legs.tries)):
        for name, field in _COMPARED.items():
            if legs.tries[name][number] != others.tries[name][number]:
                return number, int(field)
        if legs.currencies[number] != others.currencies[number]:
            return number, int(CommandField.CURRENCY)
    return -1, 0


def make_halves(legs: Legs) -> Halves:
    """All halves but the first, which the decision ends."""
    count = len(legs.tries)
    far = _transits(legs.credit_shards, legs.debit_shards, legs.currencies)
    credits_ = build_try_credits(legs.tries, far, times=np.zeros(len(legs.tries), np.int64))
    credits_["flags"] = int(CommandFlag.PART)
    return Halves(
        joined([legs.tries[1:], credits_]),
        np.concatenate([legs.debit_shards[1:], legs.credit_shards]),
        np.concatenate([legs.credit_shards[1:], legs.debit_shards]),
        np.concatenate([legs.currencies[1:], legs.currencies]),
        np.concatenate([np.arange(1, count), np.arange(count)]),
    )


def build_decision(legs: Legs, code: int, leg: int, *, is_settled: bool, salt: int = 0) -> Records:
    """The end of the first leg's try (COMMAND[1]): a CONFIRM, or a CANCEL with the code and number of a leg.

    `is_settled`: nothing is left to be told to anybody. `salt`: OTHER_IDS if its first id is taken.
    """
    decision = build_decisions(legs.tries[:1], np.array([code]), salt=salt)
    if code:
        decision["timeout_ms"] = leg << LEG_SHIFT | code
        decision["flags"] = int(CommandFlag.SETTLED) if is_settled else 0
    return decision


def build_ends(legs: Legs, code: int, *, change: int = 0) -> Records:
    """The CONFIRMs (code 0) or CANCELs of all halves, in the order of `make_halves`.

    `change`: OTHER_IDS where their first ids are taken.
    """
    far = _transits(legs.credit_shards, legs.debit_shards, legs.currencies)
    ends = build_decisions(legs.tries, np.full(len(legs.tries), code), salt=change)
    ends["flags"] = int(CommandFlag.PART)
    credit_ends = build_second_legs(legs.tries, ends, far, times=np.zeros(len(ends), np.int64), change=change)
    return joined([ends[1:], credit_ends])


def build_forbids(tries: Records, cancels: Records) -> Records:
    """CANCELs (COMMAND records) of tries that have not come to a shard which their slots have left, and may come yet.

    SETTLED has the shard execute them wherever the slots are. They have ids of their own: the `cancels` that they stand
    in for may be executed, too, when the slots are back.
    """
    forbids = cancels.copy()
    _write(forbids, "id", derived_ids(tries, Leg.CANCEL_ORPHAN))
    forbids["flags"] |= int(CommandFlag.SETTLED)
    return forbids


def build_given_back(halves: Halves, ids: Words, *, change: int = 0) -> tuple[Records, Records]:
    """(tries, CONFIRMs) by which halves that were confirmed are taken back: the same the other way.

    `ids`: of the tries, int64 of shape (count, 2): see `next_ids`. `change`: OTHER_IDS where the first ids of the
    CONFIRMs are taken.
    """
    tries = halves.tries.copy()
    is_debit = tries["kind"] == int(CommandKind.TRY_PART)
    tries["kind"] = np.where(is_debit, int(CommandKind.TRY_CREDIT), int(CommandKind.TRY_PART))
    tries["flags"] = np.where(is_debit, int(CommandFlag.PART), 0)
    _write(tries, "id", ids)
    for word in ("head", "tail"):
        # A TRY_PART goes wallet, far wallet, transit; a TRY_CREDIT transit, wallet, far wallet.
        debit, credit, reference = (halves.tries[f"{name}_{word}"] for name in ("debit", "credit", "reference"))
        tries[f"debit_{word}"] = np.where(is_debit, reference, credit)
        tries[f"credit_{word}"] = np.where(is_debit, debit, reference)
        tries[f"reference_{word}"] = np.where(is_debit, credit, debit)
    confirms = np.zeros(len(tries), COMMAND)
    confirms["kind"] = int(CommandKind.CONFIRM)
    confirms["flags"] = np.where(is_debit, 0, int(CommandFlag.PART))
    _write(confirms, "id", derived_ids(tries, Leg.CONFIRM_CREDIT, salt=change))
    _write(confirms, "reference", ids)
    for word in ("head", "tail"):
        confirms[f"debit_{word}"] = tries[f"debit_{word}"]
        confirms[f"credit_{word}"] = np.where(is_debit, tries[f"credit_{word}"], tries[f"reference_{word}"])
    for name in ("user_data_head", "user_data_tail", "code"):
        confirms[name] = tries[name]
    return tries, confirms


def next_ids(halves: Halves, ids: Words) -> Words:
    """The ids of the next tries to give halves back, after those with these ids (at first: the halves' own) failed.

    One follows from the other, so that nobody tries twice at a time, whoever leads.
    """
    keys = halves.tries.copy()
    _write(keys, "id", ids)
    return derived_ids(keys, Leg.GIVE_BACK)


def _transits(own: Words, peers: Words, currencies: Words) -> Words:
    """Ids (int64 of shape (count, 2)) of the transit accounts of shards to others."""
    made: dict[tuple[int, int, int], tuple[int, int]] = {}
    keys = list(zip(own.tolist(), peers.tolist(), currencies.tolist(), strict=True))
    for key in keys:
        if key not in made:
            made[key] = id_words(transit_id(key[0], key[1], currency_code(key[2])))
    return np.array([made[key] for key in keys], np.int64)


def _leg_words(identifier: bytes, debit: bytes, count: int) -> Words:
    """The ids of the legs, int64 of shape (count, 2)."""
    return np.array([id_words(one) for one in leg_ids(identifier, debit, count)], np.int64)


def _write(records: Records, field: str, ids: Words) -> None:
    records[f"{field}_head"] = ids[..., 0]
    records[f"{field}_tail"] = ids[..., 1]
