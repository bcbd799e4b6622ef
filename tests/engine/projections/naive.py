"""The answers of the projections as anybody would compute them: by going through the whole history for each.

It knows the rules only as far as an event says what came of them.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from bezant.engine.projections.answers import Totals
from bezant.protocol.kinds import AccountFlag, CommandFlag, CommandKind
from bezant.protocol.names import currency_word
from bezant.protocol.records import ACCOUNT, EVENT, Records, Words, position_of

MOVES = (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE, CommandKind.CAPTURE, CommandKind.CONFIRM)
MAKING = (CommandKind.HOLD, CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART)
ENDING = (CommandKind.CAPTURE, CommandKind.RELEASE, CommandKind.EXPIRE, CommandKind.CONFIRM, CommandKind.CANCEL)
Id = tuple[int, int]


@dataclass
class Account:
    identifier: Id
    name: bytes
    currency: str
    opened: int
    limit: int
    balance: int = 0
    held: int = 0
    flags: int = 0
    touched: list[int] = field(default_factory=list)


@dataclass
class State:
    """The state behind one event."""

    sequence: int = 0
    timestamp_ns: int = 0
    accounts: dict[Id, Account] = field(default_factory=dict)
    holds: dict[tuple[Id, Id], tuple[int, int]] = field(default_factory=dict)  # (hold, payer) -> (sequence, remaining)
    moved: dict[str, list[int]] = field(default_factory=dict)


def side(event: np.void, which: str) -> Id:
    return int(event[f"{which}_head"]), int(event[f"{which}_tail"])


def step(state: State, event: np.void) -> None:
    """Take one event in."""
    state.sequence += 1
    state.timestamp_ns = int(event["timestamp_ns"])
    if event["result"] != 0:
        return
    kind, debit, amount = CommandKind(int(event["kind"])), side(event, "debit"), int(event["effective_amount"])
    if kind in (CommandKind.CANCEL, CommandKind.PLAN) and amount == 0:
        return
    if kind == CommandKind.OPEN:
        raw = event.tobytes()
        currency = raw[96:104].rstrip(b"\0").decode()
        flags = int(AccountFlag.TRANSIT) if event["flags"] & CommandFlag.TRANSIT else 0
        state.accounts[debit] = Account(debit, raw[32:80].rstrip(b"\0"), currency, state.sequence, amount, flags=flags)
    account = state.accounts[debit]
    account.balance, account.held = int(event["debit_balance"]), int(event["debit_held"])
    account.touched.append(state.sequence)
    is_transit = account.flags & AccountFlag.TRANSIT
    if kind in MOVES or (is_transit and kind in (CommandKind.TRY_CREDIT, CommandKind.CANCEL)):
        other = state.accounts[side(event, "credit")]
        other.balance, other.held = int(event["credit_balance"]), int(event["credit_held"])
        other.touched.append(state.sequence)
    if kind in MOVES:
        state.moved.setdefault(account.currency, []).append(amount)
    if kind == CommandKind.SET_LIMIT:
        account.limit = amount
    if kind == CommandKind.FREEZE:
        account.flags |= AccountFlag.FROZEN
    if kind == CommandKind.UNFREEZE:
        account.flags &= ~AccountFlag.FROZEN
    if kind == CommandKind.CLOSE:
        account.flags |= AccountFlag.CLOSED
    if kind in (*MAKING, *ENDING):
        change_hold(state, event, kind, debit)


def change_hold(state: State, event: np.void, kind: CommandKind, debit: Id) -> None:
    if kind in MAKING:
        state.holds[side(event, "id"), debit] = state.sequence, int(event["amount"])
        return
    key = side(event, "reference"), debit
    sequence, remaining = state.holds.pop(key)
    if kind == CommandKind.CAPTURE and event["flags"] & CommandFlag.KEEP_OPEN:
        remaining -= int(event["effective_amount"])
        if remaining:
            state.holds[key] = sequence, remaining


def states_of(events: Records, every: int = 1) -> dict[int, State]:
    """The state before the first event and behind each `every`-th, behind half of them, and behind the last; by the
    number of events before it, rising."""
    wanted = {*range(0, len(events) + 1, every), (len(events) + 1) // 2, len(events)}
    state, found = State(), {0: State()}
    for event in events:
        step(state, event)
        if state.sequence in wanted:
            found[state.sequence] = copy_of(state)
    return found


def copy_of(state: State) -> State:
    accounts = {key: replace(one, touched=[*one.touched]) for key, one in state.accounts.items()}
    moved = {currency: [*amounts] for currency, amounts in state.moved.items()}
    return State(state.sequence, state.timestamp_ns, accounts, dict(state.holds), moved)


def accounts_in(state: State, ids: Words, decimals: dict[str, int], shard: int) -> Records:
    """ACCOUNT records as the projections give them."""
    records = np.zeros(len(ids), ACCOUNT)
    for record, identifier in zip(records, ids.tolist(), strict=True):
        account = state.accounts.get(tuple(identifier))
        if account is None:
            continue
        record["id_head"], record["id_tail"] = account.identifier
        record["balance"], record["held"], record["limit"] = account.balance, account.held, account.limit
        record["currency"], record["decimals"] = currency_word(account.currency), decimals[account.currency]
        record["last_position"] = position_of(shard, account.touched[-1])
        record["opened_position"] = position_of(shard, account.opened)
        record["event_count"], record["flags"], record["found"] = len(account.touched), int(account.flags), 1
        record["name"] = account.name
    return records


def totals_in(state: State, decimals: dict[str, int]) -> list[Totals]:
    """The sums of each currency in use."""
    found = []
    for currency, places in decimals.items():
        own = [account for account in state.accounts.values() if account.currency == currency]
        if own:
            moved = state.moved.get(currency, [])
            assert sum(account.balance for account in own) == 0
            found.append(
                Totals(
                    currency,
                    places,
                    len(own),
                    sum(bool(account.flags & AccountFlag.CLOSED) for account in own),
                    len(moved),
                    sum(moved),
                    sum(max(account.balance, 0) for account in own),
                    sum(account.held for account in own),
                )
            )
    return found


def lines_of(events: Records, sequences: list[int]) -> Records:
    return events[np.array(sequences, np.int64) - 1] if sequences else np.zeros(0, EVENT)
