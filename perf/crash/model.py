"""What a history must add up to: a running model that is fed every event in order and shares nothing with the engine.

It holds balances, held sums, limits and holds in dictionaries. An event that committed has its effect on them, one that
was refused has none, and both must show the balances that the model then has. Sequences must be without a gap: one
that no command has is the expiry of a hold, and must be that of the hold which is due first.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from bezant.perf.crash.faults import FaultKind, Faults
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import AccountFlag, CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, RESULT, Records

NO_COMMANDS: Final[Records] = np.zeros(0, COMMAND)
NO_RESULTS: Final[Records] = np.zeros(0, RESULT)

Key = tuple[int, int]
"""An id as its two words."""

_NS_PER_MS: Final = 1_000_000
_SHOWS_CREDIT: Final = frozenset(
    {CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE, CommandKind.HOLD, CommandKind.CAPTURE}
)
_MOVES: Final = frozenset({CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE})


class _Fields:
    """Positions of fields in the tuples that rows become."""

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self._of = {name: number for number, name in enumerate(names or ())}

    def __getitem__(self, name: str) -> int:
        return self._of[name]


_C: Final = _Fields(COMMAND.names)
_R: Final = _Fields(RESULT.names)


@dataclass(slots=True)
class Account:
    """An account as the model has it."""

    limit: int
    balance: int = 0
    held: int = 0
    flags: int = 0

    def can_spare(self, amount: int) -> bool:
        """Whether the limit lets so much leave, or be held."""
        return self.limit == LIMIT_UNLIMITED or self.balance - self.held - amount >= -self.limit


@dataclass(slots=True)
class Hold:
    """A hold as the model has it; open while something remains."""

    debit: Key
    credit: Key
    remaining: int
    deadline_ns: int


class _Event(NamedTuple):
    """One event as integers."""

    row: int
    sequence: int
    identifier: Key
    kind: int
    flags: int
    debit: Key
    credit: Key
    reference: Key
    amount: int
    timeout_ms: int
    code: int
    timestamp_ns: int
    effective: int
    shown: tuple[int, int, int, int]


class Model:
    """See the module. Faults go to the list given; after one the model goes on as well as it can."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.accounts: dict[Key, Account] = {}
        self.holds: dict[Key, Hold] = {}
        self.sequence = 0
        self.rows_taken = 0
        self.expired = 0
        self._timestamp_ns = 0
        self._due: list[tuple[int, int, Key]] = []
        self._chain: list[_Event] = []

    def advance(self, rows: list[int], commands: Records, results: Records, sequence: int, now_ns: int) -> None:
        """Take the history up to `sequence`: the events of these rows, in order of their positions, and expiries.

        `now_ns` is a time at which no later event has happened yet.
        """
        self.rows_taken += len(rows)
        for event in _events(rows, commands, results):
            if event.sequence <= self.sequence:
                text = f"two commands have the position {event.sequence}"
                self._faults.add(FaultKind.REPEATED, text)
                continue
            self._expire(event.sequence - 1, event.timestamp_ns)
            self.sequence = event.sequence
            if event.timestamp_ns <= self._timestamp_ns:
                self._fault(event, f"its time {event.timestamp_ns} is not after {self._timestamp_ns}")
            self._timestamp_ns = event.timestamp_ns
            is_alone = not self._note_chain(event)
            if event.code == ResultCode.COMMITTED:
                self._apply(event)
            else:
                self._check_refusal(event, is_alone=is_alone)
            self._check_shown(event)
        self._expire(sequence, now_ns)
        if self.sequence > sequence:
            text = f"answers speak of position {self.sequence}, and the node's history ends at {sequence}"
            self._faults.add(FaultKind.MISSING, text, self.sequence - sequence)

    def _expire(self, last: int, now_ns: int) -> None:
        """Every sequence up to `last` that has no command must be the expiry of the hold that is due next."""
        while self.sequence < last:
            hold = self._pop_due(now_ns)
            if hold is None:
                text = f"positions {self.sequence + 1} to {last} are events that nobody asked for"
                self._faults.add(FaultKind.REPEATED, text, last - self.sequence)
                self.sequence = last
                return
            self.sequence += 1
            self.expired += 1
            self.accounts[hold.debit].held -= hold.remaining
            hold.remaining = 0

    def _pop_due(self, now_ns: int) -> Hold | None:
        while self._due and self._due[0][0] <= now_ns:
            hold = self.holds[heapq.heappop(self._due)[2]]
            if hold.remaining:
                return hold
        return None

    # ---- chains ----

    def _note_chain(self, event: _Event) -> bool:
        """Whether an event is of a chain; its members follow one another, and all are committed or none is."""
        chain = self._chain
        if chain and (event.row, event.sequence) != (chain[-1].row + 1, chain[-1].sequence + 1):
            self._faults.add(FaultKind.IN_PART, f"the chain at position {chain[0].sequence} is not whole")
            chain.clear()
        is_linked = bool(event.flags & CommandFlag.LINKED)
        if not chain and not is_linked:
            return False
        chain.append(event)
        if is_linked:
            return True
        committed = sum(member.code == ResultCode.COMMITTED for member in chain)
        if committed not in (0, len(chain)):
            text = f"of the chain at position {chain[0].sequence} {committed} of {len(chain)} members are committed"
            self._faults.add(FaultKind.IN_PART, text)
        chain.clear()
        return True

    # ---- effects ----

    def _apply(self, event: _Event) -> None:
        if event.kind == CommandKind.OPEN:
            if event.debit in self.accounts:
                self._fault(event, "it opened an account that was open")
            self.accounts[event.debit] = Account(limit=event.amount)
            return
        account = self.accounts.get(event.debit)
        if account is None:
            self._fault(event, "it was committed on an account that is not open")
            return
        if event.kind in _MOVES:
            self._move(event, account)
        elif event.kind == CommandKind.HOLD:
            self._hold(event, account)
        elif event.kind in (CommandKind.CAPTURE, CommandKind.RELEASE):
            self._settle(event, account)
        elif event.kind == CommandKind.SET_LIMIT:
            account.limit = event.amount
        elif event.kind == CommandKind.FREEZE:
            account.flags |= AccountFlag.FROZEN
        elif event.kind == CommandKind.UNFREEZE:
            account.flags &= ~AccountFlag.FROZEN
        else:
            self._fault(event, f"kind {event.kind} was committed")

    def _move(self, event: _Event, account: Account) -> None:
        other = self.accounts.get(event.credit)
        if other is None:
            self._fault(event, "it moved money to an account that is not open")
            return
        is_exact = event.effective == event.amount
        if not (is_exact or (event.kind == CommandKind.TRANSFER_AVAILABLE and 0 < event.effective < event.amount)):
            self._fault(event, f"{event.amount} were asked and {event.effective} moved")
        self._check_may(event, account, other)
        account.balance -= event.effective
        other.balance += event.effective

    def _hold(self, event: _Event, account: Account) -> None:
        self._check_may(event, account, self.accounts.get(event.credit))
        account.held += event.effective
        deadline_ns = event.timestamp_ns + event.timeout_ms * _NS_PER_MS if event.timeout_ms else 0
        self.holds[event.identifier] = Hold(event.debit, event.credit, event.effective, deadline_ns)
        if deadline_ns:
            heapq.heappush(self._due, (deadline_ns, event.sequence, event.identifier))

    def _settle(self, event: _Event, account: Account) -> None:
        hold = self.holds.get(event.reference)
        if hold is None or not 0 < event.effective <= hold.remaining or hold.debit != event.debit:
            self._fault(event, f"it took {event.effective} off a hold that does not have it")
            return
        hold.remaining -= event.effective
        account.held -= event.effective
        if event.kind == CommandKind.CAPTURE:
            account.balance -= event.effective
            self.accounts[hold.credit].balance += event.effective
            if not event.flags & CommandFlag.KEEP_OPEN:
                account.held -= hold.remaining
                hold.remaining = 0

    def _check_may(self, event: _Event, account: Account, other: Account | None) -> None:
        """Money may leave the one account for the other."""
        if not account.can_spare(event.effective):
            self._fault(event, "it was committed beyond the limit")
        if other is None or (account.flags | other.flags) & AccountFlag.FROZEN:
            self._fault(event, "it was committed on an account that is frozen or not open")

    def _check_refusal(self, event: _Event, *, is_alone: bool) -> None:
        """Where the reason can be told without the engine's rules, it must be there; within a chain it cannot."""
        debit = self.accounts.get(event.debit)
        if event.code == ResultCode.INSUFFICIENT_FUNDS and is_alone:
            if debit is None or debit.can_spare(event.amount):
                self._fault(event, "it was refused for funds that are there")
        elif event.code == ResultCode.DEBIT_ACCOUNT_UNKNOWN and debit is not None:
            self._fault(event, "it was refused for an account that is there")
        if event.effective:
            self._fault(event, f"it was refused and moved {event.effective}")

    # ---- what events show ----

    def _check_shown(self, event: _Event) -> None:
        debit = self.accounts.get(event.debit)
        credit = self.accounts.get(event.credit) if event.kind in _SHOWS_CREDIT else None
        expected = (
            debit.balance if debit else 0,
            debit.held if debit else 0,
            credit.balance if credit else 0,
            credit.held if credit else 0,
        )
        if event.shown != expected:
            self._fault(event, f"it shows the balances {event.shown}, and the history before it gives {expected}")

    def _fault(self, event: _Event, what: str) -> None:
        code = ResultCode(event.code).name
        text = f"position {event.sequence}, {CommandKind(event.kind).name} {code}: {what}"
        self._faults.add(FaultKind.CHANGED, text)

    def check_accounts(self, records: Records) -> None:
        """Hold all accounts that a node lists against the model's."""
        listed = {
            (int(record["id_head"]), int(record["id_tail"])): (
                int(record["balance"]),
                int(record["held"]),
                int(record["limit"]),
                int(record["flags"]) & AccountFlag.FROZEN,
            )
            for record in records
        }
        expected = {
            key: (account.balance, account.held, account.limit, account.flags) for key, account in self.accounts.items()
        }
        for key in listed.keys() | expected.keys():
            if listed.get(key) != expected.get(key):
                text = f"account {key}: (balance, held, limit, flags) are {listed.get(key)}, not {expected.get(key)}"
                self._faults.add(FaultKind.CHANGED, text)
        total = sum(balance for balance, *_ in listed.values())
        if total:
            self._faults.add(FaultKind.CHANGED, f"the balances of all accounts sum to {total}")


def _events(rows: list[int], commands: Records, results: Records) -> Iterator[_Event]:
    for row, command, result in zip(rows, commands.tolist(), results.tolist(), strict=True):
        yield _event(row, command, result)


def _event(row: int, command: tuple[Any, ...], result: tuple[Any, ...]) -> _Event:
    # Shard 0 alone: a position is the sequence.
    return _Event(
        row=row,
        sequence=result[_R["position"]],
        identifier=(command[_C["id_head"]], command[_C["id_tail"]]),
        kind=command[_C["kind"]],
        flags=command[_C["flags"]],
        debit=(command[_C["debit_head"]], command[_C["debit_tail"]]),
        credit=(command[_C["credit_head"]], command[_C["credit_tail"]]),
        reference=(command[_C["reference_head"]], command[_C["reference_tail"]]),
        amount=command[_C["amount"]],
        timeout_ms=command[_C["timeout_ms"]],
        code=result[_R["code"]],
        timestamp_ns=result[_R["timestamp_ns"]],
        effective=result[_R["effective_amount"]],
        shown=(
            result[_R["debit_balance"]],
            result[_R["debit_held"]],
            result[_R["credit_balance"]],
            result[_R["credit_held"]],
        ),
    )
