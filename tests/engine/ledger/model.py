"""A slow and obvious model of the ledger, to hold the compiled kernel against.

Written from the rules alone, in dictionaries and integers without bounds, one command after the other: nothing in it
is shared with the kernel, so that the two are wrong together only if the rules are. It has the public interface of
`Ledger`, so that a test can drive either. This file has entries, commands and chains; ``model_malformed.py`` has the
first step, ``model_rules.py`` the last one, and ``model_records.py`` the words and the edge to NumPy's records.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from bezant.engine.ledger.state import UNSETTLED
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX, AccountFlag, CommandField, CommandKind, ResultFlag
from bezant.protocol.names import currency_code
from bezant.protocol.records import Records, Words, id_bytes, position_of

from .model_malformed import currency_of, first_difference, malformed
from .model_records import (
    INTEGER_MAX,
    Command,
    Event,
    Hold,
    Key,
    Outcome,
    decode_commands,
    encode_accounts,
    encode_events,
    encode_results,
)
from .model_rules import (
    KINDS_THAT_TOUCH_CREDIT,
    KINDS_WITH_CREDIT,
    TRIES,
    State,
    change,
    close_hold,
    code_of,
    is_transit,
    lacks_transit,
    try_key,
)

EXPIRES_PER_ENTRY_MAX = 1_024


class ModelExecution(NamedTuple):
    """Same fields as the Ledger's `Execution`."""

    events: Records
    results: Records


class Model:
    """The ledger, slowly. Same interface as `Ledger`."""

    def __init__(self, *, shard: int = 0, accounts_max: int = 1 << 22, holds_max: int = 1 << 22) -> None:
        self.shard = shard
        self.accounts_max = accounts_max
        self.holds_max = holds_max
        self.state = State()
        self.first_uses: dict[Key, int] = {}  # index in events
        self.events: list[Event] = []
        self.last_timestamp_ns = 0
        self.entry_timestamp_ns = 0
        self.events_before_entry = 0
        self.rules_version = 1

    def switch_rules(self, version: int) -> None:
        self.rules_version = version

    def open_tries(self) -> Words:
        tries = [hold.sequence for hold in self.state.open_holds if hold.kind == CommandKind.TRY_DEBIT]
        return np.array(tries, np.int64)

    def unsettled(self) -> Records:
        return np.array(self.state.unsettled, UNSETTLED)

    def settle(self, try_sequences: Words) -> None:
        settled = set(try_sequences.tolist())
        self.state.unsettled = [one for one in self.state.unsettled if one[0] not in settled]

    @property
    def next_sequence(self) -> int:
        return len(self.events) + 1

    @property
    def account_count(self) -> int:
        return len(self.state.accounts)

    @property
    def hold_count(self) -> int:
        return len(self.state.open_holds)

    @property
    def holds_with_deadline(self) -> int:
        return sum(hold.deadline_ns != 0 for hold in self.state.open_holds)

    @property
    def next_deadline_ns(self) -> int:
        return min((hold.deadline_ns for hold in self.state.open_holds if hold.deadline_ns), default=0)

    def register_currency(self, code: str, decimals: int) -> None:
        currency = int.from_bytes(code.encode("ascii"), "little")
        if currency_of(currency) != code or not 0 <= decimals <= 18:
            raise UsageError(f"{code!r} with {decimals} decimals is no currency")
        if self.state.decimals.setdefault(currency, decimals) != decimals:
            raise UsageError(f"{code} is registered with other decimals")

    # --- An entry

    def execute(self, commands: Records, entry_timestamp_ns: int, preset: Words | None = None) -> ModelExecution:
        if entry_timestamp_ns <= self.last_timestamp_ns:
            raise LedgerError("the entry is not after the last event")
        self.entry_timestamp_ns = entry_timestamp_ns
        self.events_before_entry = len(self.events)
        self.expire()
        presets = [Code.COMMITTED] * len(commands) if preset is None else [Code(code) for code in preset.tolist()]
        outcomes: list[Outcome] = []
        for chain in chains_of(decode_commands(commands), presets):
            outcomes += self.execute_chain(*chain) if chain.commands[0].is_linked else [self.execute_alone(*chain)]
        return ModelExecution(encode_events(self.events[self.events_before_entry :]), encode_results(outcomes))

    def expire(self) -> None:
        """Let the holds expire that are due, up to the bound."""
        due = [hold for hold in self.state.open_holds if hold.is_due(self.entry_timestamp_ns)]
        due.sort(key=lambda hold: (hold.deadline_ns, hold.sequence))
        for hold in due[:EXPIRES_PER_ENTRY_MAX]:
            remaining = close_hold(self.state, hold, Code.HOLD_EXPIRED)
            command = Command(
                kind=CommandKind.EXPIRE, debit=hold.debit, credit=hold.credit, reference=hold.id, amount=remaining
            )
            self.add_event(command, Code.COMMITTED, remaining)

    # --- One command

    def execute_alone(self, commands: Sequence[Command], presets: Sequence[Code]) -> Outcome:
        (command,), (preset,) = commands, presets
        if preset:
            return Outcome(preset)
        fault = malformed(command, self.rules_version)
        if fault is not None:
            return fault
        if command.key in self.first_uses:
            return self.compare_with_first(command)
        code = next(self.codes_before_execution([command])) or self.code_before_leg(command)
        return Outcome(code) if code else undecided(command, self.decide(command))

    def code_before_leg(self, command: Command) -> Code:
        """What keeps a leg from being executed now."""
        if command.kind < CommandKind.TRY_DEBIT:
            return Code.COMMITTED
        if command.kind > CommandKind.TRY_DEBIT and command.client_timestamp_ns >= self.entry_timestamp_ns:
            return Code.IMPORTED_TIMESTAMP_IN_FUTURE
        if lacks_transit(self.state, command):
            return Code.TRANSIT_UNKNOWN
        is_full = self.hold_count >= self.holds_max
        if command.kind == CommandKind.TRY_DEBIT:
            is_full |= len(self.open_tries()) + len(self.state.unsettled) >= self.holds_max
        return Code.HOLDS_FULL if is_full and command.kind in TRIES else Code.COMMITTED

    def compare_with_first(self, command: Command) -> Outcome:
        """The outcome of a command whose id is in use."""
        first = self.events[self.first_uses[command.key]]
        if command.key in self.state.given_up:
            return replace(first.outcome, code=Code.ID_FORBIDDEN, flags=ResultFlag.REPEATED)
        field = first_difference(first.command, command)
        if field != CommandField.NONE:
            return Outcome(Code.ID_CONFLICT, detail=field, position=first.outcome.position)
        outcome = replace(first.outcome, flags=ResultFlag.REPEATED)
        made = self.state.holds.get(command.key)
        if (
            command.kind in (CommandKind.TRY_CREDIT, CommandKind.TRY_PART)
            and made is not None
            and made.fate == Code.HOLD_RELEASED
        ):
            return replace(outcome, code=Code.ID_FORBIDDEN)
        return undecided(first.command, outcome)

    def codes_before_execution(self, commands: Sequence[Command]) -> Iterator[Code]:
        """Steps 3 and 4 of each command, as if those before it had been executed."""
        last_timestamp_ns = self.last_timestamp_ns
        account_count = self.account_count
        hold_count = self.hold_count if any(command.kind == CommandKind.HOLD for command in commands) else 0
        for command in commands:
            timestamp_ns = max(last_timestamp_ns, self.entry_timestamp_ns)
            if command.is_imported:
                timestamp_ns = command.client_timestamp_ns
                if timestamp_ns >= self.entry_timestamp_ns:
                    yield Code.IMPORTED_TIMESTAMP_IN_FUTURE
                if timestamp_ns <= last_timestamp_ns:
                    yield Code.IMPORTED_TIMESTAMP_NOT_RISING
            last_timestamp_ns = timestamp_ns
            if command.kind == CommandKind.OPEN and command.debit not in self.state.accounts:
                if account_count >= self.accounts_max:
                    yield Code.ACCOUNTS_FULL
                account_count += 1
            if command.kind == CommandKind.HOLD:
                if hold_count >= self.holds_max:
                    yield Code.HOLDS_FULL
                hold_count += 1
            yield Code.COMMITTED

    def decide(self, command: Command) -> Outcome:
        """Execute a command that leaves an event, and change the accounts if it commits."""
        timestamp_ns = self.timestamp_of(command)
        code = code_of(self.state, command, self.entry_timestamp_ns)
        effective_amount = 0
        if code == Code.COMMITTED:
            position = position_of(self.shard, self.next_sequence)
            effective_amount = change(
                self.state, command, position=position, sequence=self.next_sequence, timestamp_ns=timestamp_ns
            )
        return self.add_event(command, code, effective_amount)

    def timestamp_of(self, command: Command) -> int:
        if command.is_imported:
            return command.client_timestamp_ns
        return self.entry_timestamp_ns + len(self.events) - self.events_before_entry

    def add_event(self, command: Command, code: Code, effective_amount: int) -> Outcome:
        """Record what came of a command, on the chains of its accounts if it committed."""
        position = position_of(self.shard, self.next_sequence)
        debit_previous = credit_previous = 0
        touches_none = command.kind in (CommandKind.CANCEL, CommandKind.PLAN) and not effective_amount
        if code == Code.COMMITTED and not touches_none:
            debit_previous = self.touch(command.debit, position)
            ends_credit = command.kind == CommandKind.CANCEL and is_transit(self.state, command.debit)
            if command.kind in KINDS_THAT_TOUCH_CREDIT or ends_credit:
                credit_previous = self.touch(command.credit, position)
        debit = self.state.accounts.get(command.debit)
        credit = self.state.accounts.get(command.credit) if command.kind in KINDS_WITH_CREDIT else None
        outcome = Outcome(
            code=code,
            position=position,
            timestamp_ns=self.timestamp_of(command),
            effective_amount=effective_amount,
            debit_balance=debit.balance if debit else 0,
            debit_held=debit.held if debit else 0,
            credit_balance=credit.balance if credit else 0,
            credit_held=credit.held if credit else 0,
        )
        if command.kind != CommandKind.EXPIRE:
            self.first_uses[command.key] = len(self.events)
            self.state.uses[command.key] = command.kind, code
        if command.kind == CommandKind.CANCEL:
            named = try_key(self.state, command)
            if named in self.state.given_up and named not in self.first_uses:
                self.first_uses[named] = len(self.events)
        self.events.append(Event(command, outcome, debit_previous, credit_previous))
        self.last_timestamp_ns = outcome.timestamp_ns
        return outcome

    def touch(self, identifier: bytes, position: int) -> int:
        """Put an event on an account's chain; returns the position of the event before it there."""
        account = self.state.accounts[identifier]
        previous = account.last_position
        account.last_position = position
        account.event_count += 1
        return previous

    # --- A chain

    def execute_chain(self, commands: Sequence[Command], presets: Sequence[Code]) -> list[Outcome]:
        """Execute commands of which all but the last are linked to the next one."""
        refused = self.refuse_chain(commands, presets)
        if refused:
            return refused
        if any(command.key in self.first_uses for command in commands):
            return self.repeat_chain(commands)
        for number, code in enumerate(self.codes_before_execution(commands)):
            if code:
                return all_but(len(commands), number, Outcome(code), Code.CHAIN_MEMBER_NOT_EXECUTED)
        return self.stand_or_fall(commands)

    def refuse_chain(self, commands: Sequence[Command], presets: Sequence[Code]) -> list[Outcome]:
        """The outcomes of a chain that nothing in the ledger could make valid, or none."""
        count = len(commands)
        is_too_long = count > CHAIN_COMMANDS_MAX
        preset = next(filter(None, presets), Code.CHAIN_TOO_LONG if is_too_long else Code.COMMITTED)
        code_of_all = Code.CHAIN_UNTERMINATED if commands[-1].is_linked else preset
        if code_of_all:
            return [Outcome(code_of_all)] * count
        keys: set[Key] = set()
        for number, command in enumerate(commands):
            fault = malformed(command, self.rules_version)
            if fault is None and command.kind >= CommandKind.TRY_DEBIT:
                fault = Outcome(Code.KIND_UNKNOWN)
            if fault is not None:
                return all_but(count, number, fault, Code.CHAIN_MEMBER_NOT_EXECUTED)
            if command.key in keys:
                return [Outcome(Code.CHAIN_REPEATED_IN_PART)] * count
            keys.add(command.key)
        return []

    def repeat_chain(self, commands: Sequence[Command]) -> list[Outcome]:
        """Answer a chain of which ids are in use."""
        count = len(commands)
        if not all(command.key in self.first_uses for command in commands):
            return [Outcome(Code.CHAIN_REPEATED_IN_PART)] * count
        outcomes = [self.compare_with_first(command) for command in commands]
        for number, outcome in enumerate(outcomes):
            if outcome.code == Code.ID_CONFLICT:
                return all_but(count, number, replace(outcome, position=0), Code.CHAIN_REPEATED_IN_PART)
        return outcomes

    def stand_or_fall(self, commands: Sequence[Command]) -> list[Outcome]:
        """Execute every command of a chain; if one is refused, take all of them back."""
        before, events_before = self.state.copy(), len(self.events)
        outcomes: list[Outcome] = []
        while len(outcomes) < len(commands) and all(outcome.code == Code.COMMITTED for outcome in outcomes):
            outcomes.append(self.decide(commands[len(outcomes)]))
        if outcomes[-1].code == Code.COMMITTED:
            return outcomes
        self.state = before
        del self.events[events_before:]
        codes = [Code.CHAIN_MEMBER_REFUSED] * len(commands)
        codes[len(outcomes) - 1] = outcomes[-1].code
        return [self.add_event(command, code, 0) for command, code in zip(commands, codes, strict=True)]

    # --- Look-ups

    def lookup_accounts(self, ids: Words) -> Records:
        found = [self.state.accounts.get(id_bytes(*words)) for words in ids.tolist()]
        return encode_accounts(found, self.state.decimals)

    def find_events(self, keys: Records) -> tuple[Words, Records]:
        """Sequences (0: none) and events (zeros) of the commands that used these ids."""
        numbers = [self.first_uses.get(command.key, -1) for command in decode_commands(keys)]
        events = encode_events([self.events[number] if number >= 0 else NO_EVENT for number in numbers])
        return np.array(numbers, np.int64) + 1, events

    def list_accounts(self, cursor: int, count: int) -> Records:
        return encode_accounts(list(self.state.accounts.values())[cursor : cursor + count], self.state.decimals)

    def check_invariants(self) -> None:
        """The invariants that the rules are meant to keep. Raises `LedgerError`."""
        for currency in self.state.decimals:
            total = sum(account.balance for account in self.state.accounts.values() if account.currency == currency)
            if total != 0:
                raise LedgerError(f"the balances in {currency_code(currency)} sum to {total}")
        for account in self.state.accounts.values():
            held = sum(hold.remaining for hold in self.state.open_holds if hold.debit == account.id)
            tries = [hold for hold in self.state.open_holds if hold.kind != CommandKind.HOLD]
            if account.incoming != sum(hold.remaining for hold in tries if hold.credit == account.id):
                raise LedgerError(f"{account.name} has {account.incoming} incoming, its tries say otherwise")
            if account.balance + account.incoming > INTEGER_MAX:
                raise LedgerError(f"there is no room for what is to come in to {account.name}")
            if account.held != held:
                raise LedgerError(f"{account.name} has {account.held} held, its holds {held}")
            if not -INTEGER_MAX <= account.balance - account.held <= account.balance <= INTEGER_MAX:
                raise LedgerError(f"the balance of {account.name} does not fit in 64 bits: {account}")
            is_empty = (account.balance, account.held, account.incoming) == (0, 0, 0)
            if account.flags & AccountFlag.CLOSED and not is_empty:
                raise LedgerError(f"{account.name} is closed and not empty: {account}")
        if any(hold.is_open != (hold.remaining > 0) for hold in self.state.holds.values()):
            raise LedgerError("a hold is open with nothing left, or closed with something")

    def open_holds(self) -> list[Hold]:
        """The open holds in order of their sequence."""
        return self.state.open_holds


class Chain(NamedTuple):
    """Commands of which all but the last are linked to the next one (if all are, it has no end); and their presets."""

    commands: list[Command]
    presets: list[Code]


def chains_of(commands: Sequence[Command], presets: Sequence[Code]) -> Iterator[Chain]:
    """Cut an entry into chains; a command that is linked to none is a chain of one.

    So is one that was marked as of an unterminated chain by whoever joined several frames to one entry.
    """
    chain = Chain([], [])
    for command, preset in zip(commands, presets, strict=True):
        is_first = not chain.commands
        if is_first and preset == Code.CHAIN_UNTERMINATED:
            yield Chain([command], [preset])
            continue
        chain.commands.append(command)
        chain.presets.append(preset)
        if not command.is_linked:
            yield chain
            chain = Chain([], [])
    if chain.commands:
        yield chain


def all_but(count: int, number: int, outcome: Outcome, code: Code) -> list[Outcome]:
    """The same code for a whole chain but one command."""
    outcomes = [Outcome(code)] * count
    outcomes[number] = outcome
    return outcomes


def undecided(command: Command, outcome: Outcome) -> Outcome:
    """The outcome of a command, as a result tells it: that of a TRY_DEBIT which stands is still to come."""
    is_open = command.kind == CommandKind.TRY_DEBIT and outcome.code == Code.COMMITTED
    return replace(outcome, code=Code.UNDECIDED) if is_open else outcome


NO_EVENT = Event(Command(), Outcome(Code.COMMITTED))
