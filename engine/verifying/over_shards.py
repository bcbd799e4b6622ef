"""Proof over the logs of several shards: no money was lost or made between them.

What each log says by itself is verified before (`engine/verify.py`). Here the halves of each transfer between shards
are put side by side, which one log alone cannot show; the id of the half that comes in is derived from the one that
leaves (`engine/transactions/ids.py`):

| where it leaves | where it comes in | that is |
| --- | --- | --- |
| confirmed | confirmed, later | done |
| confirmed, not settled | tried | in flight |
| cancelled, not settled | anything but confirmed | to be told there, or told and not noted yet |
| cancelled, settled | refused, cancelled, or nothing | done |
| tried | anything but confirmed | not decided yet |
| nothing | cancelled, refused or tried | left by a coordinator that was lost, and taken back or about to be |

Everything else is a fault. And all that the transit accounts of all shards have together must be what the halves add
up to: of transfers what is in flight; of transactions of several legs, and of slots that move, nothing once they have
ended.

Memory: some kilobyte for each transfer between shards.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bezant.engine.log.log import Log, open_log
from bezant.engine.replica import shard_directory
from bezant.engine.transactions.ids import derived_ids
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.kinds import CommandFlag, CommandKind, EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.names import currency_code
from bezant.protocol.records import EVENT, Records, id_bytes
from bezant.protocol.transactions import Leg

FAULTS_TOLD_MAX: Final = 5
"""Faults that are told one by one."""

_Key = tuple[int, int]
_AGREE: Final = {
    ("", False): {"unknown", "refused", "cancelled", "open"},
    ("confirmed", False): {"confirmed", "open"},
    ("confirmed", True): {"confirmed"},
    ("cancelled", False): {"unknown", "refused", "cancelled", "open"},
    ("cancelled", True): {"unknown", "refused", "cancelled"},
}
"""What may have become of the half that comes in, by the end of the one that leaves, and whether that is settled."""
_COMMITTED: Final = int(ResultCode.COMMITTED)
_K: Final = CommandKind
_DEBIT_TRIES: Final = (int(_K.TRY_DEBIT), int(_K.TRY_PART))
_LEGS: Final = (int(_K.TRY_DEBIT), int(_K.TRY_CREDIT), int(_K.CONFIRM), int(_K.CANCEL), int(_K.TRY_PART))
_MOVES: Final = (int(_K.MOVE_IN), int(_K.MOVE_OUT))
_PART: Final = int(CommandFlag.PART)
_SETTLED: Final = int(CommandFlag.SETTLED)
_TRANSIT: Final = int(CommandFlag.TRANSIT)


class Transit(NamedTuple):
    """A transit account: of which shard to which, and in which currency."""

    own: int
    peer: int
    currency: str


class Half(NamedTuple):
    """A try in one log; ``end`` is "" while it is open, else "confirmed", "cancelled", or "refused" at once.

    ``is_part``: of a transaction of several legs; ``decides``: it leaves, and its end is what decides.
    """

    shard: int
    sequence: int
    amount: int
    transit: Transit
    is_part: bool
    decides: bool
    end: str = ""
    ended_ns: int = 0
    is_settled: bool = False


class InFlight(NamedTuple):
    """Of one currency, in minor units: what all transit accounts have together, and how many transfers that is."""

    currency: str
    amount: int
    transfers: int


class ShardsReport(NamedTuple):
    """What was proven."""

    shards: tuple[int, ...]
    transfers: int
    """Between shards, and those that are confirmed, cancelled or open where they leave."""
    confirmed: int
    cancelled: int
    open: int
    orphans: int
    """Halves that come in, of transfers that left nowhere; none is confirmed."""
    parts: int
    """Halves of transactions of several legs."""
    in_flight: tuple[InFlight, ...]


class ShardLog:
    """What one log says of transfers between shards."""

    def __init__(self, shard: int, log: Log) -> None:
        """Read it. Raises `CorruptLog`."""
        self.shard = shard
        self.transits: dict[_Key, Transit] = {}
        self.debits: dict[_Key, Half] = {}
        """By the ids of the halves that come in elsewhere."""
        self.credits: dict[_Key, Half] = {}
        """By their own ids."""
        self.balances: dict[_Key, int] = {}
        """Of transit accounts, after the last event that moved money through them."""
        self.moved: dict[str, int] = defaultdict(int)
        """What slots have taken out of this shard, less what they brought, by currency."""
        self.moves_sealed: set[bytes] = set()
        self.moves_taken: set[bytes] = set()
        self._keys: dict[tuple[_Key, bool], _Key] = {}
        self._settled: set[int] = set()
        for entry in log.open():
            if entry.header.kind == EntryKind.CONTROL:
                self._note_control(entry.body)
            elif entry.header.kind == EntryKind.EVENTS:
                self._note_events(np.frombuffer(entry.body, EVENT), entry.header.first_sequence)
        for key, half in self.debits.items():
            if half.sequence in self._settled:
                self.debits[key] = half._replace(is_settled=True)

    def _note_control(self, body: Any) -> None:
        control = decode_control_entry(body)
        self._settled.update(np.frombuffer(control.settled, np.int64).tolist())
        if control.move is not None:
            if control.move.phase == "sealed":
                self.moves_sealed.add(control.move.move)
            elif control.move.phase == "taken":
                self.moves_taken.add(control.move.move)

    def _note_events(self, events: Records, first_sequence: int) -> None:
        kinds = events["kind"]
        opens = (kinds == int(_K.OPEN)) & (events["flags"] & _TRANSIT != 0) & (events["result"] == _COMMITTED)
        for event in events[opens]:
            self._note_transit(event)
        numbers = np.flatnonzero(np.isin(kinds, _LEGS + _MOVES))
        if not len(numbers):
            return
        legs = events[numbers]
        far_ids = derived_ids(legs, Leg.TRY_CREDIT).tolist()
        for event, number, far_id in zip(legs, numbers.tolist(), far_ids, strict=True):
            kind = int(event["kind"])
            if kind in _MOVES:
                self._note_move(event, kind)
            elif kind in _DEBIT_TRIES or kind == int(_K.TRY_CREDIT):
                self._note_try(event, kind, first_sequence + number, tuple(far_id))
            elif event["result"] == _COMMITTED:
                self._note_end(event, kind)

    def _note_transit(self, event: Any) -> None:
        name = b"".join(id_bytes(*_key(event, field)) for field in ("credit", "reference", "user_data"))
        _, own, peer = name.rstrip(b"\0").decode("ascii").split(":")
        self.transits[_key(event, "debit")] = Transit(int(own), int(peer), currency_code(int(event["currency"])))

    def _transit(self, key: _Key, sequence: int) -> Transit:
        found = self.transits.get(key)
        if found is None:
            raise CorruptLog(f"shard {self.shard}: event {sequence} goes through an account that is no transit account")
        return found

    def _note_try(self, event: Any, kind: int, sequence: int, far_id: _Key) -> None:
        leaves = kind in _DEBIT_TRIES
        is_refused = event["result"] != _COMMITTED
        if is_refused and leaves:
            return  # It never left.
        transit_key = _key(event, "reference" if leaves else "debit")
        # A transaction says in its first try how many legs it has.
        is_part = bool(event["flags"] & _PART) or kind == int(_K.TRY_PART) or (leaves and event["timeout_ms"] != 0)
        transit = self._transit(transit_key, sequence)
        end = "refused" if is_refused else ""
        half = Half(self.shard, sequence, int(event["amount"]), transit, is_part, kind == int(_K.TRY_DEBIT), end)
        key = far_id if leaves else _key(event, "id")
        (self.debits if leaves else self.credits)[key] = half
        self._keys[_key(event, "id"), leaves] = key

    def _note_end(self, event: Any, kind: int) -> None:
        is_confirm = kind == int(_K.CONFIRM)
        leaves = _key(event, "debit") not in self.transits
        if is_confirm:
            side = "credit" if leaves else "debit"
            self.balances[_key(event, side)] = int(event[f"{side}_balance"])
        key = self._keys.get((_key(event, "reference"), leaves))
        halves = self.debits if leaves else self.credits
        half = halves.get(key) if key is not None else None
        if key is None or half is None or half.end:
            return  # A CANCEL that found nothing to take back.
        halves[key] = half._replace(
            end="confirmed" if is_confirm else "cancelled",
            ended_ns=int(event["timestamp_ns"]),
            is_settled=bool(event["flags"] & _SETTLED),
        )

    def _note_move(self, event: Any, kind: int) -> None:
        side, sign = ("debit", -1) if kind == int(_K.MOVE_IN) else ("credit", 1)
        key = _key(event, side)
        self.balances[key] = int(event[f"{side}_balance"])
        self.moved[self._transit(key, 0).currency] += sign * int(event["amount"])


def verify_over_shards(folders: Mapping[int, Path]) -> ShardsReport:
    """Prove what lies between shards, by the logs in these data folders, one of each shard, which nobody writes.

    Raises `CorruptLog` with what is wrong, `UsageError` if a shard is missing.
    """
    logs: dict[int, ShardLog] = {}
    for shard, folder in folders.items():
        log = open_log(shard_directory(folder, shard), shard=shard, writable=False)
        try:
            logs[shard] = ShardLog(shard, log)
        finally:
            log.close()
    missing = {transit.peer for log in logs.values() for transit in log.transits.values()} - logs.keys()
    if missing:
        raise UsageError(
            f"money has gone to or come from shard {min(missing)}, and its log is in none of these folders: give all"
        )
    return _conclude(list(logs.values()))


def _conclude(logs: Sequence[ShardLog]) -> ShardsReport:
    debits = {key: half for log in logs for key, half in log.debits.items()}
    arrived = _arrivals(logs)
    plain = {key: half for key, half in debits.items() if not half.is_part}
    faults = list(_find_faults(plain, arrived, debits.keys()))
    in_flight, wrong = _add_up(logs, debits, arrived)
    faults += wrong
    if faults:
        more = f"; and {len(faults) - FAULTS_TOLD_MAX} more" if len(faults) > FAULTS_TOLD_MAX else ""
        raise CorruptLog("the books of the shards do not agree: " + "; ".join(faults[:FAULTS_TOLD_MAX]) + more)
    ends = [half.end for half in plain.values()]
    return ShardsReport(
        tuple(sorted(log.shard for log in logs)),
        len(plain),
        ends.count("confirmed"),
        ends.count("cancelled"),
        ends.count(""),
        sum(not half.is_part and key not in debits for key, half in arrived.items()),
        sum(half.is_part for half in debits.values()) + sum(half.is_part for half in arrived.values()),
        in_flight,
    )


def _arrivals(logs: Sequence[ShardLog]) -> dict[_Key, Half]:
    """All halves that come in, by their ids; of one that was tried in two shards, as slots moved, the one confirmed."""
    found: dict[_Key, Half] = {}
    for log in logs:
        for key, half in log.credits.items():
            if key not in found or found[key].end != "confirmed":
                found[key] = half
    return found


def _find_faults(debits: dict[_Key, Half], arrived: dict[_Key, Half], known: Set[_Key]) -> Iterator[str]:
    for key, left in debits.items():
        fault = _fault_of(left, arrived.get(key))
        if fault:
            yield f"{_named(left)} {fault}"
    for key, half in arrived.items():
        if key not in known and half.end == "confirmed" and not half.is_part:
            yield (
                f"shard {half.shard} has confirmed that {_amount(half)} came in from shard {half.transit.peer} (event "
                f"{half.sequence}), which knows nothing of it"
            )


def _fault_of(left: Half, came: Half | None) -> str:
    """What is wrong with the two halves of a transfer, in words; "" if nothing is."""
    where = f"shard {left.transit.peer if came is None else came.shard}"
    end = "unknown" if came is None else came.end or "open"
    settled = " and settled" if left.is_settled else ""
    if came is not None and (came.amount, came.transit.currency) != (left.amount, left.transit.currency):
        return f"is {_amount(came)} in {where}"
    if end not in _AGREE[left.end, left.is_settled]:
        return f"is {left.end or 'not decided'}{settled}, and {end} in {where}"
    if came is not None and end == "confirmed" and came.ended_ns <= left.ended_ns:
        return f"was confirmed in {where} before"
    return ""


def _add_up(
    logs: Sequence[ShardLog], debits: dict[_Key, Half], arrived: dict[_Key, Half]
) -> tuple[tuple[InFlight, ...], list[str]]:
    """What is in flight by currency, and what the transit accounts have that nothing accounts for."""
    balances: dict[str, int] = defaultdict(int)
    for log in logs:
        for key, balance in log.balances.items():
            balances[log.transits[key].currency] += balance
    transfers: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    for key, half in debits.items():
        came = arrived.get(key)
        if not half.is_part and half.end == "confirmed" and (came is None or came.end != "confirmed"):
            transfers[half.transit.currency] += half.amount
            counts[half.transit.currency] += 1
    parts = _parts(debits.values(), arrived.values())
    moved: dict[str, int] = defaultdict(int)
    for log in logs:
        for currency, amount in log.moved.items():
            moved[currency] += amount
    is_moving = bool(_union(log.moves_sealed for log in logs) - _union(log.moves_taken for log in logs))
    are_transacting = any(half.is_part and half.decides and not half.is_settled for half in debits.values())
    faults = []
    for currency in sorted(balances.keys() | parts.keys() | moved.keys() | transfers.keys()):
        expected = transfers[currency] + parts[currency] + moved[currency]
        if balances[currency] != expected:
            faults.append(
                f"the transit accounts have {balances[currency]} {currency} (minor units) together, and the transfers "
                f"between shards add up to {expected}"
            )
        if parts[currency] and not are_transacting:
            faults.append(f"transactions that have ended left {parts[currency]} {currency} (minor units) in transit")
        if moved[currency] and not is_moving:
            faults.append(f"slots that have moved left {moved[currency]} {currency} (minor units) in transit")
    told = [InFlight(currency, amount, counts[currency]) for currency, amount in sorted(balances.items())]
    return tuple(told), faults


def _parts(left: Iterable[Half], came: Iterable[Half]) -> dict[str, int]:
    """What halves of transactions have put into transit less what they took out, by currency."""
    parts: dict[str, int] = defaultdict(int)
    for sign, halves in ((1, left), (-1, came)):
        for half in halves:
            if half.is_part and half.end == "confirmed":
                parts[half.transit.currency] += sign * half.amount
    return parts


def _union(sets: Iterable[set[bytes]]) -> set[bytes]:
    return set().union(*sets)


def _key(event: Any, field: str) -> _Key:
    return int(event[f"{field}_head"]), int(event[f"{field}_tail"])


def _amount(half: Half) -> str:
    return f"{half.amount} {half.transit.currency} (minor units)"


def _named(half: Half) -> str:
    return f"the transfer of {_amount(half)} from shard {half.shard} to {half.transit.peer} (event {half.sequence})"
