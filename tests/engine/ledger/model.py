"""A slow and obvious model of the ledger, to hold the compiled kernel against.

Written from the rules alone, in dictionaries and integers without bounds, one command after the other: nothing in it
is shared with the kernel, so that the two are wrong together only if the rules are. It has the public interface of
`Ledger`, so that a test can drive either. NumPy appears only at the edge, where records are read and written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.kinds import CommandField, CommandFlag, CommandKind, ResultFlag
from bezant.protocol.names import account_id, currency_code, slot_of
from bezant.protocol.records import ACCOUNT, COMMAND, EVENT, RESULT, Records, Words, id_bytes, id_words, position_of

INTEGER_MAX: Final = 2**63 - 1
UNLIMITED: Final = INTEGER_MAX
NO_ID: Final = bytes(16)


@dataclass(frozen=True)
class Command:
    """One command, field by field, in the order of the record."""

    id: bytes = NO_ID
    debit: bytes = NO_ID
    credit: bytes = NO_ID
    reference: bytes = NO_ID
    user_data: bytes = NO_ID
    amount: int = 0
    client_timestamp_ns: int = 0
    currency: int = 0
    timeout_ms: int = 0
    code: int = 0
    flags: int = 0
    kind: int = 0
    reserved: int = 0

    @property
    def name(self) -> bytes:
        """The name that an OPEN carries: 48 bytes, zeros after the text."""
        return self.credit + self.reference + self.user_data


@dataclass(frozen=True)
class Outcome:
    """What came of one command, as a result reports it."""

    code: Code
    flags: int = 0
    detail: int = 0
    position: int = 0
    timestamp_ns: int = 0
    effective_amount: int = 0
    debit_balance: int = 0
    debit_held: int = 0
    credit_balance: int = 0
    credit_held: int = 0


@dataclass(frozen=True)
class Event:
    """A command with its outcome and the events before it on the chains of its two accounts."""

    command: Command
    outcome: Outcome
    debit_previous: int = 0
    credit_previous: int = 0


@dataclass
class Account:
    """The row of one account."""

    id: bytes
    name: str
    currency: int
    limit: int
    balance: int = 0
    held: int = 0
    incoming: int = 0
    flags: int = 0
    last_position: int = 0
    event_count: int = 0
    opened_position: int = 0


class ModelExecution(NamedTuple):
    """Same fields as the Ledger's `Execution`."""

    events: Records
    results: Records


# --- Step 1: what makes a command malformed


def name_of(command: Command) -> str | None:
    """The name in an OPEN, or None if it is not 1 to 48 printable ASCII characters followed by zeros alone."""
    text = command.name.rstrip(b"\0")
    if not text or any(byte < ord("!") or byte > ord("~") for byte in text):
        return None
    return text.decode("ascii")


def currency_of(word: int) -> str | None:
    """The currency in a word, or None if it is not 1 to 8 of A-Z and 0-9 followed by zeros alone."""
    text = (word % 2**64).to_bytes(8, "little").rstrip(b"\0")
    if not text or any(byte not in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" for byte in text):
        return None
    return text.decode("ascii")


def fields_of(command: Command) -> Iterator[tuple[CommandField, bytes | int]]:
    """The fields that a conflict can name, in the order in which it names them."""
    yield CommandField.KIND, command.kind
    yield CommandField.FLAGS, command.flags
    yield CommandField.DEBIT, command.debit
    yield CommandField.CREDIT, command.credit
    yield CommandField.AMOUNT, command.amount
    yield CommandField.REFERENCE, command.reference
    yield CommandField.USER_DATA, command.user_data
    yield CommandField.CODE, command.code
    yield CommandField.TIMEOUT_MS, command.timeout_ms
    yield CommandField.CURRENCY, command.currency
    yield CommandField.CLIENT_TIMESTAMP_NS, command.client_timestamp_ns


FIELDS_NOT_USED: Final = {
    CommandKind.OPEN: {CommandField.TIMEOUT_MS},
    CommandKind.TRANSFER: {CommandField.REFERENCE, CommandField.TIMEOUT_MS, CommandField.CURRENCY},
    CommandKind.SET_LIMIT: {
        CommandField.CREDIT,
        CommandField.REFERENCE,
        CommandField.TIMEOUT_MS,
        CommandField.CURRENCY,
    },
}


def faults_of_all(command: Command) -> Iterator[tuple[bool, Code]]:
    """Whether each fault that every kind can have is there, in order of precedence."""
    is_imported = command.flags == CommandFlag.IMPORTED
    yield command.flags not in (0, CommandFlag.IMPORTED), Code.FLAGS_UNKNOWN
    yield command.reserved != 0, Code.RESERVED_NOT_ZERO
    yield command.id in (b"\x00" * 16, b"\xff" * 16), Code.ID_INVALID
    yield is_imported and command.client_timestamp_ns <= 0, Code.TIMESTAMP_INVALID
    yield not is_imported and command.client_timestamp_ns != 0, Code.TIMESTAMP_INVALID


def faults_of_kind(command: Command) -> Iterator[tuple[bool, Code]]:
    """Whether each fault of the command's own kind is there, in order of precedence."""
    if command.kind == CommandKind.OPEN:
        name, currency = name_of(command), currency_of(command.currency)
        yield name is None, Code.NAME_INVALID
        yield currency is None, Code.CURRENCY_INVALID
        yield command.debit != account_id(name or "", currency or ""), Code.ACCOUNT_ID_MISMATCH
    if command.kind == CommandKind.TRANSFER:
        yield command.amount <= 0, Code.AMOUNT_NOT_POSITIVE
        yield command.debit == command.credit, Code.ACCOUNTS_EQUAL
    else:
        yield command.amount < 0, Code.LIMIT_NEGATIVE


def malformed(command: Command) -> Outcome | None:
    """The outcome of a command that nothing in the ledger could make valid, or None."""
    if command.kind not in (CommandKind.OPEN, CommandKind.TRANSFER, CommandKind.SET_LIMIT):
        return Outcome(Code.KIND_UNKNOWN)
    for is_there, code in faults_of_all(command):
        if is_there:
            return Outcome(code)
    for field, value in fields_of(command):
        if field in FIELDS_NOT_USED[CommandKind(command.kind)] and value not in (0, NO_ID):
            return Outcome(Code.FIELD_NOT_ALLOWED, detail=field)
    for is_there, code in faults_of_kind(command):
        if is_there:
            return Outcome(code)
    return None


# --- Steps 2 to 5: the state


class Model:
    """The ledger, slowly. Same interface as `Ledger`."""

    def __init__(self, *, shard: int = 0, accounts_max: int = 1 << 22) -> None:
        self.shard = shard
        self.accounts_max = accounts_max
        self.decimals: dict[int, int] = {}  # of each registered currency, by its word
        self.accounts: dict[bytes, Account] = {}  # in the order in which they were opened
        self.first_uses: dict[tuple[int, bytes], int] = {}  # (slot of the debit account, id) -> index in events
        self.events: list[Event] = []
        self.last_timestamp_ns = 0

    @property
    def next_sequence(self) -> int:
        return len(self.events) + 1

    @property
    def account_count(self) -> int:
        return len(self.accounts)

    def register_currency(self, code: str, decimals: int) -> None:
        currency = int.from_bytes(code.encode("ascii"), "little")
        if currency_of(currency) != code or not 0 <= decimals <= 18:
            raise UsageError(f"{code!r} with {decimals} decimals is no currency")
        if self.decimals.setdefault(currency, decimals) != decimals:
            raise UsageError(f"{code} is registered with other decimals")

    def execute(self, commands: Records, entry_timestamp_ns: int, preset: Words | None = None) -> ModelExecution:
        if entry_timestamp_ns <= self.last_timestamp_ns:
            raise LedgerError("the entry is not after the last event")
        before = len(self.events)
        presets = [0] * len(commands) if preset is None else preset.tolist()
        outcomes = [
            Outcome(Code(code)) if code else self.execute_one(command, entry_timestamp_ns, before)
            for command, code in zip(decode_commands(commands), presets, strict=True)
        ]
        return ModelExecution(encode_events(self.events[before:]), encode_results(outcomes))

    def execute_one(self, command: Command, entry_timestamp_ns: int, first_of_entry: int) -> Outcome:
        """Execute one command; `first_of_entry` is the number of events before the entry."""
        fault = malformed(command)
        if fault is not None:
            return fault
        use = (slot_of(command.debit), command.id)
        if use in self.first_uses:
            return self.compare_with_first(self.events[self.first_uses[use]], command)
        timestamp_ns = entry_timestamp_ns + len(self.events) - first_of_entry
        if command.flags == CommandFlag.IMPORTED:
            timestamp_ns = command.client_timestamp_ns
            if timestamp_ns >= entry_timestamp_ns:
                return Outcome(Code.IMPORTED_TIMESTAMP_IN_FUTURE)
            if timestamp_ns <= self.last_timestamp_ns:
                return Outcome(Code.IMPORTED_TIMESTAMP_NOT_RISING)
        is_new_account = command.kind == CommandKind.OPEN and command.debit not in self.accounts
        if is_new_account and len(self.accounts) >= self.accounts_max:
            return Outcome(Code.ACCOUNTS_FULL)
        self.first_uses[use] = len(self.events)
        event = self.decide(command, timestamp_ns)
        self.events.append(event)
        self.last_timestamp_ns = timestamp_ns
        return event.outcome

    def compare_with_first(self, first: Event, command: Command) -> Outcome:
        for (field, before), (_, now) in zip(fields_of(first.command), fields_of(command), strict=True):
            if before != now:
                return Outcome(Code.ID_CONFLICT, detail=field, position=first.outcome.position)
        return replace(first.outcome, flags=ResultFlag.REPEATED)

    def decide(self, command: Command, timestamp_ns: int) -> Event:
        """Make the event of a command that leaves one, and change the accounts if it committed."""
        code = {
            CommandKind.OPEN: self.code_of_open,
            CommandKind.TRANSFER: self.code_of_transfer,
            CommandKind.SET_LIMIT: self.code_of_set_limit,
        }[CommandKind(command.kind)](command)
        position = position_of(self.shard, self.next_sequence)
        debit_previous = credit_previous = 0
        if code == Code.COMMITTED:
            self.change(command)
            debit_previous = self.touch(command.debit, position)
            if command.kind == CommandKind.TRANSFER:
                credit_previous = self.touch(command.credit, position)
        debit = self.accounts.get(command.debit)
        credit = self.accounts.get(command.credit) if command.kind == CommandKind.TRANSFER else None
        outcome = Outcome(
            code=code,
            position=position,
            timestamp_ns=timestamp_ns,
            effective_amount=command.amount if code == Code.COMMITTED else 0,
            debit_balance=debit.balance if debit else 0,
            debit_held=debit.held if debit else 0,
            credit_balance=credit.balance if credit else 0,
            credit_held=credit.held if credit else 0,
        )
        return Event(command, outcome, debit_previous, credit_previous)

    def code_of_open(self, command: Command) -> Code:
        if command.currency not in self.decimals:
            return Code.CURRENCY_UNKNOWN
        return Code.ACCOUNT_EXISTS if command.debit in self.accounts else Code.COMMITTED

    def code_of_transfer(self, command: Command) -> Code:
        """Freezing and closing are not kinds yet, so no account is ever frozen or closed."""
        debit, credit = self.accounts.get(command.debit), self.accounts.get(command.credit)
        if debit is None:
            return Code.DEBIT_ACCOUNT_UNKNOWN
        if credit is None:
            return Code.CREDIT_ACCOUNT_UNKNOWN
        if debit.currency != credit.currency:
            return Code.CURRENCY_MISMATCH
        left = debit.balance - debit.held - command.amount
        if debit.limit != UNLIMITED and left < -debit.limit:
            return Code.INSUFFICIENT_FUNDS
        if left < -INTEGER_MAX or credit.balance + credit.incoming + command.amount > INTEGER_MAX:
            return Code.BALANCE_OVERFLOW
        return Code.COMMITTED

    def code_of_set_limit(self, command: Command) -> Code:
        return Code.COMMITTED if command.debit in self.accounts else Code.DEBIT_ACCOUNT_UNKNOWN

    def change(self, command: Command) -> None:
        """Do what a committed command does to balances and limits."""
        if command.kind == CommandKind.OPEN:
            name = name_of(command)
            if name is None:
                raise AssertionError("a malformed OPEN was committed")
            opened = position_of(self.shard, self.next_sequence)
            account = Account(command.debit, name, command.currency, command.amount, opened_position=opened)
            self.accounts[command.debit] = account
        elif command.kind == CommandKind.TRANSFER:
            self.accounts[command.debit].balance -= command.amount
            self.accounts[command.credit].balance += command.amount
        else:
            self.accounts[command.debit].limit = command.amount

    def touch(self, identifier: bytes, position: int) -> int:
        """Put an event on an account's chain; returns the position of the event before it there."""
        account = self.accounts[identifier]
        previous = account.last_position
        account.last_position = position
        account.event_count += 1
        return previous

    def lookup_accounts(self, ids: Words) -> Records:
        return encode_accounts([self.accounts.get(id_bytes(*words)) for words in ids.tolist()], self.decimals)

    def find_events(self, keys: Records) -> list[int]:
        """Sequences (0: none) of the events that used these ids."""
        uses = [(slot_of(command.debit), command.id) for command in decode_commands(keys)]
        return [self.first_uses[use] + 1 if use in self.first_uses else 0 for use in uses]

    def list_accounts(self, cursor: int, count: int) -> Records:
        return encode_accounts(list(self.accounts.values())[cursor : cursor + count], self.decimals)

    def check_invariants(self) -> None:
        """The sum per currency is zero, and every balance fits in 64 bits symmetrically. Raises `LedgerError`."""
        for currency in self.decimals:
            total = sum(account.balance for account in self.accounts.values() if account.currency == currency)
            if total != 0:
                raise LedgerError(f"the balances in {currency_code(currency)} sum to {total}")
        for account in self.accounts.values():
            if not -INTEGER_MAX <= account.balance <= INTEGER_MAX:
                raise LedgerError(f"the balance of {account.name} does not fit in 64 bits: {account.balance}")


# --- The edge: between records and the classes above


def decode_commands(records: Records) -> list[Command]:
    """Read COMMAND records."""
    commands = []
    for record in records:
        values = dict(zip(COMMAND.names or (), record.item(), strict=True))
        for field in ("id", "debit", "credit", "reference", "user_data"):
            values[field] = id_bytes(values.pop(f"{field}_head"), values.pop(f"{field}_tail"))
        commands.append(Command(**values))
    return commands


def encode_commands(commands: Sequence[Command]) -> Records:
    """Write COMMAND records; the inverse of `decode_commands`."""
    records = np.zeros(len(commands), COMMAND)
    for record, command in zip(records, commands, strict=True):
        fill_command(record, command)
        record["reserved"] = command.reserved
    return records


def encode_events(events: Sequence[Event]) -> Records:
    """Write EVENT records."""
    records = np.zeros(len(events), EVENT)
    for record, event in zip(records, events, strict=True):
        fill_command(record, event.command)
        record["result"] = event.outcome.code
        for field in OUTCOME_FIELDS:
            record[field] = getattr(event.outcome, field)
        record["debit_previous"] = event.debit_previous
        record["credit_previous"] = event.credit_previous
    return records


def encode_results(outcomes: Sequence[Outcome]) -> Records:
    """Write RESULT records."""
    records = np.zeros(len(outcomes), RESULT)
    for record, outcome in zip(records, outcomes, strict=True):
        for field in ("code", "flags", "detail", "position", *OUTCOME_FIELDS):
            record[field] = getattr(outcome, field)
    return records


def encode_accounts(accounts: Sequence[Account | None], decimals: dict[int, int]) -> Records:
    """Write ACCOUNT records; all zeros where there is no account."""
    records = np.zeros(len(accounts), ACCOUNT)
    for record, account in zip(records, accounts, strict=True):
        if account is None:
            continue
        record["id_head"], record["id_tail"] = id_words(account.id)
        for field in ACCOUNT_FIELDS:
            record[field] = getattr(account, field)
        record["decimals"] = decimals[account.currency]
        record["found"] = 1
        record["name"] = account.name.encode("ascii")
    return records


OUTCOME_FIELDS: Final = (
    "timestamp_ns",
    "effective_amount",
    "debit_balance",
    "debit_held",
    "credit_balance",
    "credit_held",
)
ACCOUNT_FIELDS: Final = (
    "balance",
    "held",
    "incoming",
    "limit",
    "currency",
    "last_position",
    "event_count",
    "opened_position",
    "flags",
)


def fill_command(record: np.void, command: Command) -> None:
    """Write the fields that commands and events have in common."""
    for field in ("id", "debit", "credit", "reference", "user_data"):
        record[f"{field}_head"], record[f"{field}_tail"] = id_words(getattr(command, field))
    for field in ("amount", "client_timestamp_ns", "currency", "timeout_ms", "code", "flags", "kind"):
        record[field] = getattr(command, field)
