"""The source's part in a move: what the target is to have, read from the log and the ledger, and what goes out of both.

Copies are read from the log from its beginning, a little at a time, while the shard serves. An event that made a hold
or a try is copied only when that has ended, for its fate belongs to the copy: those that are open are put off until
the slots are sealed, and then copied as they are.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.checks import HOLD
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.state import FATE_OPEN
from bezant.engine.moves.copies import MOVING_KINDS, WITH_FATE, as_copies, is_copy, without_copies
from bezant.engine.moves.fates import fates_of
from bezant.engine.replica import Replica
from bezant.engine.skimming import split_span
from bezant.engine.transactions.legs import transit_id
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.kinds import AccountFlag, CommandKind, EntryKind
from bezant.protocol.moves import PART_RECORDS_MAX, MoveCurrency, MoveStep, decode_slots
from bezant.protocol.names import currency_code
from bezant.protocol.placement import slots_of_words
from bezant.protocol.records import ENTRY_INDEX_FIRST, EVENT, Records, Words, id_words, position_of, split_position

SPAN_BYTES: Final = 1 << 20
"""Bytes of the log that one step reads: some 5,000 events, a millisecond or two."""
OUT_RECORDS_MAX: Final = 4096
"""Accounts and holds that go out of the books in one entry."""

_COMMITTED: Final = int(ResultCode.COMMITTED)
_MAKING: Final = (CommandKind.HOLD, CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART)
_WITH_FATE: Final = [int(kind) for kind in WITH_FATE]
_MOVING: Final = [int(kind) for kind in MOVING_KINDS]
_AMOUNT_MAX: Final = 2**63 - 1

Mask = npt.NDArray[np.bool_]


class Outline(NamedTuple):
    """How much moves: accounts, open holds, and the sums of the balances."""

    accounts: int
    holds: int
    currencies: list[MoveCurrency]


def check_history(replica: Replica) -> None:
    """Raise `UsageError` where a part of the history is not on this disk."""
    if replica.log.first_index != ENTRY_INDEX_FIRST:
        raise UsageError(
            "a part of this shard's log has left for an archive or is not here yet: slots move when all of it is on the"
            " leader's disk"
        )


class CopyReader:
    """Reads what is to be copied, from the first entry of the log on."""

    def __init__(self, replica: Replica, step: MoveStep) -> None:
        self._replica = replica
        self._slots = decode_slots(step.slots)
        self._peer = step.peer
        self._deferred: list[Words] = []
        self.next_index = ENTRY_INDEX_FIRST

    def read(self, until_index: int) -> Records:
        """Copies out of a part of the log that begins with `next_index`, and ends with `until_index` at the latest.

        Raises `StorageError` for what cannot be read now: then it is to be called again.
        """
        log = self._replica.log
        end_index = min(log.end_of_span(self.next_index, SPAN_BYTES), until_index)
        found, sequences = [np.zeros(0, EVENT)], [np.zeros(0, np.int64)]
        for entry in split_span(log.read_encoded(self.next_index, end_index)):
            if entry.header.kind != EntryKind.EVENTS:
                continue
            events = np.frombuffer(entry.body, EVENT)
            rows = np.flatnonzero(self._belongs(events))
            found.append(events[rows])
            sequences.append(entry.header.first_sequence + rows)
        copies = self._copies(np.concatenate(found), np.concatenate(sequences), open_too=False)
        self.next_index = end_index + 1
        return copies

    def read_deferred(self) -> Records:
        """Copies of up to PART_RECORDS_MAX of those that were put off, as they are now; empty if there are no more."""
        if not self._deferred:
            return np.zeros(0, EVENT)
        deferred = np.concatenate(self._deferred)
        part, rest = np.sort(deferred[:PART_RECORDS_MAX]), deferred[PART_RECORDS_MAX:]
        copies = self._copies(self._replica.log.read_events(part), part, open_too=True)
        self._deferred = [rest] if len(rest) else []
        return copies

    def _belongs(self, events: Records) -> Mask:
        """Which events used up an id in one of the slots."""
        is_here = self._slots[slots_of_words(events["debit_head"])]
        has_id = (events["id_head"] != 0) | (events["id_tail"] != 0)
        return np.asarray(is_here & has_id & ~np.isin(events["kind"], _MOVING), np.bool_)

    def _copies(self, stored: Records, sequences: Words, *, open_too: bool) -> Records:
        events = without_copies(stored)
        fates = np.zeros(len(events), np.int64)
        has_fate = np.isin(events["kind"], _WITH_FATE) & (events["result"] == _COMMITTED)
        rows = np.flatnonzero(has_fate)
        keep = np.ones(len(events), np.bool_)
        if len(rows):
            fates[rows] = fates_of(self._replica.ledger, events[rows], sequences[rows])
            if not open_too:
                put_off = rows[fates[rows] == FATE_OPEN]
                keep[put_off] = False
                if len(put_off):
                    self._deferred.append(sequences[put_off])
        positions = position_of(self._replica.shard, 0) + sequences
        copied = is_copy(stored)
        positions[copied] = stored["credit_previous"][copied]
        if copied.any():
            # What the target has seen itself it knows, but for what has become of holds since.
            came = np.array([split_position(position)[0] == self._peer for position in positions.tolist()], np.bool_)
            keep &= ~came | has_fate
        copies = as_copies(events, positions, fates)
        return copies[keep]


def accounts_in(ledger: Ledger, slots: Mask) -> npt.NDArray[np.int64]:
    """The numbers of the accounts in these slots that have not moved, and are no transit accounts."""
    rows = ledger.arrays.rows[: ledger.account_count]
    stays = (rows["flags"] & int(AccountFlag.MOVED | AccountFlag.TRANSIT)) != 0
    return np.flatnonzero(slots[slots_of_words(rows["id_head"])] & ~stays)


def outline(ledger: Ledger, slots: Mask) -> Outline:
    """How much would move now. Raises `UsageError` for sums that a transit account has no room for."""
    numbers = accounts_in(ledger, slots)
    rows = ledger.arrays.rows[numbers]
    currencies = []
    for number, (code, decimals) in enumerate(ledger.currencies.items()):
        balances = rows["balance"][rows["currency_number"] == number].tolist()
        if sum(abs(balance) for balance in balances) > _AMOUNT_MAX // 2:
            raise UsageError(f"the balances in {code} are too large to move together: move fewer slots at a time")
        if balances:
            currencies.append(MoveCurrency(code, decimals, sum(balances)))
    holds = ledger.open_hold_rows()
    return Outline(len(numbers), int(np.count_nonzero(np.isin(holds["debit_row"], numbers))), currencies)


def find_hindrance(replica: Replica, slots: Mask) -> str:
    """Why the slots cannot be sealed now, in words; "" if they can."""
    ledger = replica.ledger
    holds = ledger.open_hold_rows()
    inside = np.zeros(max(ledger.account_count, 1), np.bool_)
    inside[accounts_in(ledger, slots)] = True
    pays, receives = inside[holds["debit_row"]], inside[holds["credit_row"]]
    is_hold = holds["kind"] == HOLD
    tries = int(np.count_nonzero(~is_hold & (pays | receives)))
    if tries:
        return f"{tries} transfers with other shards are not decided"
    across = int(np.count_nonzero(is_hold & (pays != receives)))
    if across:
        return f"{across} open holds are for accounts that would lie in another shard than the one that pays"
    unsettled = np.sort(ledger.unsettled()["try_sequence"])
    if len(unsettled):
        debits = replica.log.read_events(unsettled)["debit_head"]
        count = int(np.count_nonzero(slots[slots_of_words(debits)]))
        if count:
            return f"{count} transfers to other shards are decided, and those do not know it"
    return ""


def hold_outs(ledger: Ledger, slots: Mask) -> Records:
    """Events (up to OUT_RECORDS_MAX) with which open holds go out of the books of a shard whose slots are sealed."""
    holds = ledger.open_hold_rows()
    holds = holds[(holds["kind"] == HOLD) & np.isin(holds["debit_row"], accounts_in(ledger, slots))][:OUT_RECORDS_MAX]
    rows = ledger.arrays.rows
    events = np.zeros(len(holds), EVENT)
    events["kind"] = int(CommandKind.MOVE_HOLD_OUT)
    for word in ("head", "tail"):
        events[f"debit_{word}"] = rows[f"id_{word}"][holds["debit_row"]]
        events[f"credit_{word}"] = rows[f"id_{word}"][holds["credit_row"]]
        events[f"reference_{word}"] = holds[f"id_{word}"]
    events["amount"] = holds["remaining"]
    events["client_timestamp_ns"] = holds["deadline_ns"]
    return events


def account_outs(ledger: Ledger, slots: Mask, peer: int) -> Records:
    """Events (up to OUT_RECORDS_MAX) with which accounts go out of the books, when nothing is held on them any more."""
    numbers = accounts_in(ledger, slots)[:OUT_RECORDS_MAX]
    rows = ledger.arrays.rows[numbers]
    events = np.zeros(len(numbers), EVENT)
    events["kind"] = int(CommandKind.MOVE_OUT)
    events["debit_head"], events["debit_tail"] = rows["id_head"], rows["id_tail"]
    events["credit_head"], events["credit_tail"] = _transits(ledger, rows["currency_number"], ledger.shard, peer)
    events["amount"] = rows["balance"]
    events["code"] = rows["flags"]
    return events


def went_out(replica: Replica, step: MoveStep, first_index: int, last_index: int) -> tuple[Records, Records]:
    """What has gone out of the books in these entries, as events for the target: of accounts, two each, and of holds.

    The former without the name of the target's transit account in its own numbers: that is the same everywhere.
    """
    slots = decode_slots(step.slots)
    outs = [np.zeros(0, EVENT)]
    index = first_index
    while index <= last_index:
        end_index = min(replica.log.end_of_span(index, SPAN_BYTES), last_index)
        for entry in split_span(replica.log.read_encoded(index, end_index)):
            if entry.header.kind == EntryKind.EVENTS:
                events = np.frombuffer(entry.body, EVENT)
                is_out = np.isin(events["kind"], [int(CommandKind.MOVE_OUT), int(CommandKind.MOVE_HOLD_OUT)])
                outs.append(events[is_out & slots[slots_of_words(events["debit_head"])]])
        index = end_index + 1
    found = np.concatenate(outs)
    is_account = found["kind"] == int(CommandKind.MOVE_OUT)
    return _account_ins(replica.ledger, found[is_account], step.peer), _hold_ins(found[~is_account])


def _account_ins(ledger: Ledger, outs: Records, peer: int) -> Records:
    """A MOVE_OPEN and a MOVE_IN of each account that has gone out."""
    accounts = ledger.lookup_accounts(np.stack([outs["debit_head"], outs["debit_tail"]], axis=1))
    if not accounts["found"].all():
        raise LedgerError("an account has gone out of the books, and is not known")
    events = np.zeros(2 * len(outs), EVENT)
    opens, ins = events[0::2], events[1::2]
    opens["kind"], ins["kind"] = int(CommandKind.MOVE_OPEN), int(CommandKind.MOVE_IN)
    opens["debit_head"], opens["debit_tail"] = outs["debit_head"], outs["debit_tail"]
    names = np.ascontiguousarray(accounts["name"]).view(np.int64).reshape(len(outs), 6)
    for place, field in enumerate(("credit", "reference", "user_data")):
        opens[f"{field}_head"], opens[f"{field}_tail"] = names[:, 2 * place], names[:, 2 * place + 1]
    opens["amount"], opens["currency"], opens["code"] = accounts["limit"], accounts["currency"], outs["code"]
    ins["credit_head"], ins["credit_tail"] = outs["debit_head"], outs["debit_tail"]
    for word in np.unique(accounts["currency"]).tolist():
        of_currency = accounts["currency"] == word
        head, tail = id_words(transit_id(peer, ledger.shard, currency_code(word)))
        ins["debit_head"][of_currency], ins["debit_tail"][of_currency] = head, tail
    ins["amount"] = outs["amount"]
    opens["client_timestamp_ns"] = ins["client_timestamp_ns"] = outs["timestamp_ns"]
    return events


def _hold_ins(outs: Records) -> Records:
    """A MOVE_HOLD_IN of each hold that has gone out, but for the sequence under which the target knows its id."""
    events = np.zeros(len(outs), EVENT)
    events["kind"] = int(CommandKind.MOVE_HOLD_IN)
    for word in ("head", "tail"):
        events[f"id_{word}"] = outs[f"reference_{word}"]
        events[f"debit_{word}"], events[f"credit_{word}"] = outs[f"debit_{word}"], outs[f"credit_{word}"]
    events["amount"], events["client_timestamp_ns"] = outs["amount"], outs["client_timestamp_ns"]
    return events


def _transits(ledger: Ledger, currency_numbers: Words, own_shard: int, peer: int) -> tuple[Words, Words]:
    """The ids (heads, tails) of a shard's transit accounts to another one, in currencies given by their numbers."""
    ids = np.zeros((len(ledger.currencies), 2), np.int64)
    for number, code in enumerate(ledger.currencies):
        ids[number] = id_words(transit_id(own_shard, peer, code))
    return ids[currency_numbers, 0], ids[currency_numbers, 1]
