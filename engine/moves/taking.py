"""The target's part in a move: what comes is checked against what is known already, and made entries of.

Every part may come again, from the same leader of the source or from the next: nothing is taken in twice.
"""

from typing import Final

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.state import FATE_OPEN
from bezant.engine.moves.copies import WITH_FATE, without_copies
from bezant.engine.moves.fates import fates_of
from bezant.engine.moves.stepping import take_step
from bezant.engine.replica import Replica
from bezant.engine.transactions.legs import OPENED, build_transit_open, is_transit_open, transit_id
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import RemoteProtocolError, StorageError, UsageError
from bezant.protocol.kinds import COPY_OF, AccountFlag, CommandKind
from bezant.protocol.moves import MoveCurrency, MoveStep, TakeSlots, decode_slots
from bezant.protocol.records import COMMAND, ENTRIES_MOVES, Records, id_words

ROOM_SPARE: Final = 1024
"""Accounts and open holds that must find room besides those that move: what clients add meanwhile."""
_COMMITTED: Final = int(ResultCode.COMMITTED)
_MOVED: Final = int(AccountFlag.MOVED)
_MAKING: Final = (CommandKind.HOLD, CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART)
_WITH_FATE: Final = [int(kind) for kind in WITH_FATE]


def take_part(replica: Replica, part: TakeSlots, records: Records) -> bool:
    """Take a part of a move in; whether the slots are this shard's. What was appended must be committed before that is
    told.

    Raises `UsageError` for what cannot come, `RemoteProtocolError` for what makes no sense, `StorageError` for what
    finds no room now.
    """
    ledger = replica.ledger
    if part.move in ledger.moves.taken:
        return True
    if part.part == "prepare":
        _prepare(replica, part)
    elif part.part == "taken":
        take_step(replica, MoveStep(part.move, "taken", part.source, part.slots))
        return True
    else:
        replica.check_ready(ENTRIES_MOVES)
        found = _UNKNOWN_OF[part.part](ledger, records)
        if len(found):
            # Accounts are dated after they went out of the source's books, which they say.
            floor_ns = int(found["client_timestamp_ns"].max()) if part.part == "accounts" else 0
            replica.execute_moves(found, floor_ns)
    return False


def _prepare(replica: Replica, part: TakeSlots) -> None:
    """See that what is to come can come, as far as that can be seen now: currencies, transit accounts, room."""
    ledger = replica.ledger
    replica.check_ready(ENTRIES_MOVES)
    outgoing = ledger.moves.outgoing
    if outgoing is not None and outgoing.peer == part.source:
        raise UsageError(f"slots move from shard {replica.shard} to shard {part.source} now: one way at a time")
    if np.any(ledger.moves.outgoing_slots & decode_slots(part.slots)):
        # It may have the slot map replaced once more, and would say then that they are where it has brought them.
        raise UsageError("the move that has taken these slots away from here has not ended: try again")
    arrays = ledger.arrays
    for what, count, room in (
        ("accounts", part.accounts, len(arrays.rows) - ledger.account_count),
        ("open holds", part.holds, len(arrays.holds.rows) - ledger.hold_count),
    ):
        if count + min(ROOM_SPARE, count) > room:
            raise UsageError(f"{count} {what} would move, and shard {replica.shard} has room for {room} more")
    for currency in part.currencies:
        replica.register_currency(currency.code, currency.decimals)
        _open_transit(replica, part.source, currency)


def _open_transit(replica: Replica, source: int, currency: MoveCurrency) -> None:
    """Open the transit account that balances come through, if it is not open."""
    if not is_transit_open(replica.ledger, source, currency.code):
        opening = build_transit_open(replica.shard, source, currency.code, f"own:{replica.ledger.next_sequence}")
        code = int(replica.execute(opening).results["code"][0])
        if code not in OPENED:
            raise StorageError(f"the transit account to shard {source} cannot be opened now: code {code}")
    ids = np.array([id_words(transit_id(replica.shard, source, currency.code))], np.int64)
    balance = int(replica.ledger.lookup_accounts(ids)["balance"][0])
    if abs(balance - currency.total) > 2**62:
        raise UsageError(f"the balances in {currency.code} that would move are too large for the transit account")


def _unknown_copies(ledger: Ledger, records: Records) -> Records:
    """The copies whose ids are not known yet, and those that tell what became of a hold whose id is."""
    if np.any(records["kind"] <= COPY_OF):
        raise RemoteProtocolError("a copy has the kind of a copy")
    events = without_copies(records)
    keys = np.zeros(len(records), COMMAND)
    for name in ("id_head", "id_tail", "debit_head", "debit_tail", "kind"):
        keys[name] = events[name]
    sequences, _ = ledger.find_events(keys)
    tells_fate = np.isin(events["kind"], _WITH_FATE) & (events["result"] == _COMMITTED)
    known = sequences > 0
    wanted = ~known | (tells_fate & (records["event_reserved"] != FATE_OPEN))
    copies = records.copy()
    copies["debit_previous"] = sequences
    found: Records = copies[wanted]
    return found


def _unknown_accounts(ledger: Ledger, records: Records) -> Records:
    """The accounts, two records each, that are not here: unknown, or moved away from here earlier."""
    _check_kinds(records[0::2], CommandKind.MOVE_OPEN)
    _check_kinds(records[1::2], CommandKind.MOVE_IN)
    accounts = ledger.lookup_accounts(np.stack([records["debit_head"][0::2], records["debit_tail"][0::2]], axis=1))
    wanted = (accounts["found"] == 0) | (accounts["flags"] & _MOVED != 0)
    found: Records = records[np.repeat(wanted, 2)]
    return found


def _unknown_holds(ledger: Ledger, records: Records) -> Records:
    """The holds that are not open here and never ended, with the sequence that their ids are known by."""
    _check_kinds(records, CommandKind.MOVE_HOLD_IN)
    keys = np.zeros(len(records), COMMAND)
    for name in ("id_head", "id_tail", "debit_head", "debit_tail"):
        keys[name] = records[name]
    keys["kind"] = int(CommandKind.HOLD)
    sequences, events = ledger.find_events(keys)
    if not sequences.all():
        raise RemoteProtocolError("a hold comes before the copy of the event that made it")
    wanted = ~np.isin(sequences, ledger.open_hold_rows()["sequence"])
    wanted &= fates_of(ledger, events, sequences) == FATE_OPEN
    holds = records.copy()
    holds["reference_head"] = sequences
    found: Records = holds[wanted]
    return found


def _check_kinds(records: Records, kind: CommandKind) -> None:
    if np.any(records["kind"] != int(kind)):
        raise RemoteProtocolError(f"this part of a move has {kind.name} alone in its place")


_UNKNOWN_OF: Final = {"copies": _unknown_copies, "accounts": _unknown_accounts, "holds": _unknown_holds}
