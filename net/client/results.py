"""What the client hands back: outcomes of commands, accounts and events, with amounts as integers and as text.

Amounts are minor units (cents), as the ledger has them; every property that ends in ``_text`` is the same amount as
an exact decimal string in the currency's decimals.
"""

import struct
from enum import Enum, unique
from typing import Any, Final

import msgspec
import numpy as np

from bezant.net.client.channel import CODE_UNKNOWN
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.kinds import AccountFlag, CommandField, CommandFlag, CommandKind, ResultFlag
from bezant.protocol.money import format_amount
from bezant.protocol.names import currency_code
from bezant.protocol.records import ACCOUNT, EVENT, LIMIT_UNLIMITED, POSITION_NONE, RESULT_SIZE, Records, id_bytes

RESULT_ROW: Final = struct.Struct("<hhiqqqqqqq")
"""A RESULT record as a tuple: three times as fast to take apart as through NumPy."""

ResultRow = tuple[int, int, int, int, int, int, int, int, int, int]
UNKNOWN_ROW: Final[ResultRow] = (CODE_UNKNOWN, 0, 0, 0, 0, 0, 0, 0, 0, 0)

if RESULT_ROW.size != RESULT_SIZE:
    raise AssertionError("the row of a result must be as long as its record")


@unique
class Outcome(Enum):
    """What became of a command."""

    COMMITTED = "committed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


@unique
class Unlimited(Enum):
    """Type of `UNLIMITED`, the limit of an account that stands for the outside world."""

    UNLIMITED = "unlimited"


UNLIMITED: Final = Unlimited.UNLIMITED


class Result(msgspec.Struct, frozen=True, gc=False):
    """Outcome of one command.

    ``code`` is None when the outcome is unknown; every number is then 0. ``repeated`` says that the id was known with
    the same content, and that this is its first outcome. ``conflict_field`` is the field that differs (ID_CONFLICT)
    or that the kind does not use (FIELD_NOT_ALLOWED). ``id`` is that of the command; that of a hold names the hold.
    ``position`` is opaque, and None if the command left no event. ``amount`` is what was moved, held or released, or
    the limit that was set; 0 if the command was not done. Balances are those after it.
    """

    outcome: Outcome
    code: ResultCode | None
    repeated: bool
    conflict_field: CommandField | None
    id: bytes
    position: int | None
    timestamp_ns: int
    amount: int
    debit_balance: int
    debit_held: int
    credit_balance: int
    credit_held: int
    decimals: int

    @property
    def committed(self) -> bool:
        """Whether the command was done, durably."""
        return self.outcome is Outcome.COMMITTED

    @property
    def amount_text(self) -> str:
        """What was moved, held, released or set, as a decimal string."""
        return format_amount(self.amount, self.decimals)

    @property
    def debit_balance_text(self) -> str:
        """The debit account's balance after the command, as a decimal string."""
        return format_amount(self.debit_balance, self.decimals)

    @property
    def debit_held_text(self) -> str:
        """What is held of the debit account after the command, as a decimal string."""
        return format_amount(self.debit_held, self.decimals)

    @property
    def credit_balance_text(self) -> str:
        """The credit account's balance after the command, as a decimal string."""
        return format_amount(self.credit_balance, self.decimals)

    @property
    def credit_held_text(self) -> str:
        """What is held of the credit account after the command, as a decimal string."""
        return format_amount(self.credit_held, self.decimals)


_COMMITTED: Final = int(ResultCode.COMMITTED)
_REPEATED: Final = int(ResultFlag.REPEATED)
_FIELD_CODES: Final = frozenset({ResultCode.ID_CONFLICT, ResultCode.FIELD_NOT_ALLOWED})


def result_of(row: ResultRow, identifier: bytes, decimals: int) -> Result:
    """Make a `Result` of a RESULT row. Raises `RemoteProtocolError` on numbers that this version does not know."""
    number, flags, detail, position, timestamp_ns, amount, debit_balance, debit_held, credit_balance, credit_held = row
    conflict_field = None
    code: ResultCode | None
    if number == _COMMITTED:
        outcome, code = Outcome.COMMITTED, ResultCode.COMMITTED
    elif number == CODE_UNKNOWN:
        outcome, code = Outcome.UNKNOWN, None
    else:
        outcome = Outcome.REJECTED
        try:
            code = ResultCode(number)
            if code in _FIELD_CODES:
                conflict_field = CommandField(detail)
        except ValueError as error:
            raise RemoteProtocolError(f"the node answers with what this client does not know: {error}") from error
    return Result(
        outcome,
        code,
        flags & _REPEATED != 0,
        conflict_field,
        identifier,
        None if position == POSITION_NONE else position,
        timestamp_ns,
        amount,
        debit_balance,
        debit_held,
        credit_balance,
        credit_held,
        decimals,
    )


class Account(msgspec.Struct, frozen=True, gc=False):
    """An account as it stood when the node answered.

    ``limit`` is how far below zero ``balance - held`` may go. Positions are opaque; ``last_position`` is that of the
    last event that touched the account.
    """

    name: str
    currency: str
    decimals: int
    id: bytes
    balance: int
    held: int
    incoming: int
    limit: int
    frozen: bool
    closed: bool
    event_count: int
    opened_position: int
    last_position: int

    @property
    def unlimited(self) -> bool:
        """Whether the account may go below zero without end."""
        return self.limit == LIMIT_UNLIMITED

    @property
    def available(self) -> int:
        """Balance less what is held."""
        return self.balance - self.held

    @property
    def balance_text(self) -> str:
        """The balance as a decimal string."""
        return format_amount(self.balance, self.decimals)

    @property
    def held_text(self) -> str:
        """What is held, as a decimal string."""
        return format_amount(self.held, self.decimals)

    @property
    def available_text(self) -> str:
        """Balance less what is held, as a decimal string."""
        return format_amount(self.available, self.decimals)

    @property
    def limit_text(self) -> str:
        """The limit as a decimal string, or "unlimited"."""
        return UNLIMITED.value if self.unlimited else format_amount(self.limit, self.decimals)


_ACCOUNT_NAMES: Final = ACCOUNT.names or ()
_EVENT_NAMES: Final = EVENT.names or ()


def accounts_of(records: Records) -> list[Account | None]:
    """Make an `Account` of every ACCOUNT record, or None of one that was not found."""
    return [_account_of(dict(zip(_ACCOUNT_NAMES, row, strict=True))) for row in records.tolist()]


def _account_of(fields: dict[str, Any]) -> Account | None:
    if not fields["found"]:
        return None
    flags = AccountFlag(fields["flags"])
    return Account(
        name=fields["name"].decode("ascii", "replace"),
        currency=currency_code(fields["currency"]),
        decimals=fields["decimals"],
        id=id_bytes(fields["id_head"], fields["id_tail"]),
        balance=fields["balance"],
        held=fields["held"],
        incoming=fields["incoming"],
        limit=fields["limit"],
        frozen=AccountFlag.FROZEN in flags,
        closed=AccountFlag.CLOSED in flags,
        event_count=fields["event_count"],
        opened_position=fields["opened_position"],
        last_position=fields["last_position"],
    )


class Event(msgspec.Struct, frozen=True, gc=False):
    """The fact that a command left: what was asked, what came of it, and the balances after it.

    ``kind`` is a `CommandKind`; ``amount`` is what was asked and ``effective_amount`` what was moved, held, released or
    set; ``code`` is the client's own number and ``result`` the outcome. Accounts are ids, and so is ``reference``, the
    hold that was captured or released. ``name`` is that of the account that an OPEN opened, and None for other kinds.
    ``debit_previous`` and ``credit_previous`` are the positions of the events before this one that touched the same
    accounts, None if there is none or this one touched nothing. ``linked`` says that the next command stood and fell
    with this one. ``currency`` is that of its accounts, where the event came by a subscription.
    """

    kind: CommandKind
    result: ResultCode
    id: bytes
    position: int
    timestamp_ns: int
    name: str | None
    debit: bytes
    credit: bytes
    reference: bytes
    user_data: bytes
    code: int
    amount: int
    effective_amount: int
    debit_balance: int
    debit_held: int
    credit_balance: int
    credit_held: int
    debit_previous: int | None
    credit_previous: int | None
    imported: bool
    decimals: int
    hold_timeout_ms: int = 0
    keep_open: bool = False
    linked: bool = False
    currency: str = ""

    @property
    def committed(self) -> bool:
        """Whether the command was done."""
        return self.result is ResultCode.COMMITTED

    @property
    def amount_text(self) -> str:
        """What was asked to move, as a decimal string."""
        return format_amount(self.amount, self.decimals)

    @property
    def effective_amount_text(self) -> str:
        """What was moved, as a decimal string."""
        return format_amount(self.effective_amount, self.decimals)

    @property
    def debit_balance_text(self) -> str:
        """The debit account's balance after the event, as a decimal string."""
        return format_amount(self.debit_balance, self.decimals)

    @property
    def debit_held_text(self) -> str:
        """What is held of the debit account after the event, as a decimal string."""
        return format_amount(self.debit_held, self.decimals)

    @property
    def credit_balance_text(self) -> str:
        """The credit account's balance after the event, as a decimal string."""
        return format_amount(self.credit_balance, self.decimals)

    @property
    def credit_held_text(self) -> str:
        """What is held of the credit account after the event, as a decimal string."""
        return format_amount(self.credit_held, self.decimals)


_NO_ID: Final = bytes(16)


def event_of(answers: Records, decimals: int) -> Event | None:
    """Make an `Event` of the first EVENT_ANSWER record, or None if it was not found.

    Raises `RemoteProtocolError` on a kind or a result that this version does not know.
    """
    position, found, record = answers[0].tolist()
    return pushed_event_of(position, record, "", decimals) if found else None


def pushed_event_of(position: int, record: bytes, currency: str, decimals: int) -> Event:
    """Make an `Event` of the bytes of an EVENT record.

    Raises `RemoteProtocolError` on a kind or a result that this version does not know.
    """
    fields = dict(zip(_EVENT_NAMES, np.frombuffer(record, EVENT)[0].tolist(), strict=True))
    try:
        kind, result = CommandKind(fields["kind"]), ResultCode(fields["result"])
    except ValueError as error:
        raise RemoteProtocolError(f"the node answered with an event that this client does not know: {error}") from error

    def id_of(field: str) -> bytes:
        return id_bytes(fields[f"{field}_head"], fields[f"{field}_tail"])

    # In an OPEN the bytes of these three fields hold the account's name.
    second = (id_of("credit"), id_of("reference"), id_of("user_data"))
    name = None
    if kind is CommandKind.OPEN:
        name = b"".join(second).rstrip(b"\0").decode("ascii", "replace")
        second = (_NO_ID, _NO_ID, _NO_ID)
    credit, reference, user_data = second
    return Event(
        kind=kind,
        result=result,
        id=id_of("id"),
        position=position,
        timestamp_ns=fields["timestamp_ns"],
        name=name,
        debit=id_of("debit"),
        credit=credit,
        reference=reference,
        user_data=user_data,
        code=fields["code"],
        amount=fields["amount"],
        effective_amount=fields["effective_amount"],
        debit_balance=fields["debit_balance"],
        debit_held=fields["debit_held"],
        credit_balance=fields["credit_balance"],
        credit_held=fields["credit_held"],
        debit_previous=fields["debit_previous"] or None,
        credit_previous=fields["credit_previous"] or None,
        imported=bool(fields["flags"] & CommandFlag.IMPORTED),
        decimals=decimals,
        hold_timeout_ms=fields["timeout_ms"],
        keep_open=bool(fields["flags"] & CommandFlag.KEEP_OPEN),
        linked=bool(fields["flags"] & CommandFlag.LINKED),
        currency=currency,
    )
