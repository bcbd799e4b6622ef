"""What the model is made of, field by field, and its edge: where NumPy's records are read and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import slot_of
from bezant.protocol.records import ACCOUNT, COMMAND, EVENT, RESULT, Records, id_bytes, id_words

INTEGER_MAX: Final = 2**63 - 1
UNLIMITED: Final = INTEGER_MAX
NO_ID: Final = bytes(16)

Key = tuple[int, bytes, bool]
"""What an id is used up in: the slot of the debit account, the id, and whether it is that of a leg."""


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

    @property
    def key(self) -> Key:
        """What this command uses up."""
        return slot_of(self.debit), self.id, self.kind > CommandKind.TRY_DEBIT

    @property
    def hold_key(self) -> Key:
        """The key of the hold that it speaks of."""
        return slot_of(self.debit), self.reference, False

    @property
    def is_linked(self) -> bool:
        return bool(self.flags & CommandFlag.LINKED)

    @property
    def is_imported(self) -> bool:
        return bool(self.flags & CommandFlag.IMPORTED)


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


@dataclass
class Hold:
    """A hold or try, open or closed: what became of it is its fate, the code that a later capture or confirm gets."""

    id: bytes
    debit: bytes
    credit: bytes
    sequence: int
    remaining: int
    deadline_ns: int
    fate: Code | None = None
    kind: int = CommandKind.HOLD

    @property
    def is_open(self) -> bool:
        return self.fate is None

    def is_due(self, timestamp_ns: int) -> bool:
        """Whether its deadline, if it has one, is at or before a time."""
        return 0 < self.deadline_ns <= timestamp_ns


def decode_commands(records: Records) -> list[Command]:
    """Read COMMAND records."""
    return [
        Command(*(id_bytes(*values[place : place + 2]) for place in range(0, IDS_END, 2)), *values[IDS_END:])
        for values in records.tolist()
    ]


def encode_commands(commands: Sequence[Command]) -> Records:
    """Write COMMAND records; the inverse of `decode_commands`."""
    records = np.zeros(len(commands), COMMAND)
    for number, command in enumerate(commands):
        records[number] = *words_of_command(command), command.reserved
    return records


def encode_events(events: Sequence[Event]) -> Records:
    """Write EVENT records."""
    records = np.zeros(len(events), EVENT)
    for number, event in enumerate(events):
        outcome = event.outcome
        records[number] = (
            *words_of_command(event.command),
            outcome.code,
            0,
            *words_of_outcome(outcome),
            event.debit_previous,
            event.credit_previous,
        )
    return records


def encode_results(outcomes: Sequence[Outcome]) -> Records:
    """Write RESULT records."""
    records = np.zeros(len(outcomes), RESULT)
    for number, outcome in enumerate(outcomes):
        records[number] = outcome.code, outcome.flags, outcome.detail, outcome.position, *words_of_outcome(outcome)
    return records


def encode_accounts(accounts: Sequence[Account | None], decimals: dict[int, int]) -> Records:
    """Write ACCOUNT records; all zeros where there is no account."""
    records = np.zeros(len(accounts), ACCOUNT)
    for number, account in enumerate(accounts):
        if account is not None:
            records[number] = (
                *id_words(account.id),
                account.balance,
                account.held,
                account.incoming,
                account.limit,
                account.currency,
                account.last_position,
                account.event_count,
                account.opened_position,
                account.flags,
                decimals[account.currency],
                1,
                account.name.encode("ascii"),
            )
    return records


IDS_END: Final = 10
"""Fields of a command that are words of its five ids; they come first."""


def words_of_command(command: Command) -> tuple[int, ...]:
    """The fields that commands and events have in common, in the order of the records."""
    return (
        *id_words(command.id),
        *id_words(command.debit),
        *id_words(command.credit),
        *id_words(command.reference),
        *id_words(command.user_data),
        command.amount,
        command.client_timestamp_ns,
        command.currency,
        command.timeout_ms,
        command.code,
        command.flags,
        command.kind,
    )


def words_of_outcome(outcome: Outcome) -> tuple[int, ...]:
    """The fields that results and events have in common, in the order of the records."""
    return (
        outcome.timestamp_ns,
        outcome.effective_amount,
        outcome.debit_balance,
        outcome.debit_held,
        outcome.credit_balance,
        outcome.credit_held,
    )
