"""The model's first step: what makes a command malformed, whatever the state; and how two commands are compared."""

from collections.abc import Iterator
from typing import Final

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import TIMEOUT_MS_MAX, CommandField, CommandFlag, CommandKind
from bezant.protocol.names import account_id

from .model_records import NO_ID, Command, Outcome


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


_F: Final = CommandField
_OF_ONE_ACCOUNT: Final = {_F.CREDIT, _F.AMOUNT, _F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY}
FIELDS_NOT_USED: Final = {
    CommandKind.OPEN: {_F.TIMEOUT_MS},
    CommandKind.TRANSFER: {_F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.TRANSFER_AVAILABLE: {_F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.SET_LIMIT: {_F.CREDIT, _F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.HOLD: {_F.REFERENCE, _F.CURRENCY},
    CommandKind.CAPTURE: {_F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.RELEASE: {_F.CREDIT, _F.AMOUNT, _F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.FREEZE: _OF_ONE_ACCOUNT,
    CommandKind.UNFREEZE: _OF_ONE_ACCOUNT,
    CommandKind.CLOSE: _OF_ONE_ACCOUNT,
    CommandKind.FORBID: _OF_ONE_ACCOUNT,
    CommandKind.TRY_DEBIT: {_F.CURRENCY},
    CommandKind.TRY_CREDIT: {_F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.CONFIRM: {_F.AMOUNT, _F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.CANCEL: {_F.AMOUNT, _F.CURRENCY},
    CommandKind.TRY_PART: {_F.TIMEOUT_MS, _F.CURRENCY},
    CommandKind.PLAN: set(),
}
"""By every kind that is executed."""
FLAGS_OF_MOST: Final = CommandFlag.LINKED | CommandFlag.IMPORTED
FLAGS_ALLOWED: Final = dict.fromkeys(FIELDS_NOT_USED, FLAGS_OF_MOST) | {
    CommandKind.CAPTURE: FLAGS_OF_MOST | CommandFlag.KEEP_OPEN,
    CommandKind.OPEN: FLAGS_OF_MOST | CommandFlag.TRANSIT,
    CommandKind.FORBID: CommandFlag(0),
    CommandKind.TRY_DEBIT: CommandFlag(0),
    CommandKind.TRY_CREDIT: CommandFlag.PART,
    CommandKind.CONFIRM: CommandFlag.PART,
    CommandKind.CANCEL: CommandFlag.SETTLED | CommandFlag.PART,
    CommandKind.TRY_PART: CommandFlag(0),
    CommandKind.PLAN: CommandFlag(0),
}


def faults_of_all(command: Command, rules_version: int) -> Iterator[tuple[bool, Code]]:
    """Whether each fault that every kind can have is there, in order of precedence."""
    yield command.kind not in FIELDS_NOT_USED, Code.KIND_UNKNOWN
    yield command.kind >= CommandKind.TRY_DEBIT and rules_version < 2, Code.KIND_UNKNOWN
    yield command.flags & CommandFlag.TRANSIT != 0 and rules_version < 2, Code.FLAGS_UNKNOWN
    yield command.flags & ~int(FLAGS_ALLOWED[CommandKind(command.kind)]) != 0, Code.FLAGS_UNKNOWN
    yield command.reserved != 0, Code.RESERVED_NOT_ZERO
    yield command.id in (b"\x00" * 16, b"\xff" * 16), Code.ID_INVALID
    yield command.is_imported and command.client_timestamp_ns <= 0, Code.TIMESTAMP_INVALID
    has_time = command.client_timestamp_ns > 0 and command.kind > CommandKind.TRY_DEBIT
    yield not command.is_imported and command.client_timestamp_ns != 0 and not has_time, Code.TIMESTAMP_INVALID


def faults_of_open(command: Command, rules_version: int) -> Iterator[tuple[bool, Code]]:
    name, currency = name_of(command), currency_of(command.currency)
    yield name is None, Code.NAME_INVALID
    is_transit = bool(command.flags & CommandFlag.TRANSIT)
    yield rules_version >= 2 and (name or "").startswith("transit:") != is_transit, Code.NAME_INVALID
    yield currency is None, Code.CURRENCY_INVALID
    yield command.debit != account_id(name or "", currency or ""), Code.ACCOUNT_ID_MISMATCH
    yield command.amount < 0, Code.LIMIT_NEGATIVE


def faults_of_limit(command: Command) -> Iterator[tuple[bool, Code]]:
    yield command.amount < 0, Code.LIMIT_NEGATIVE


def faults_of_transfer(command: Command) -> Iterator[tuple[bool, Code]]:
    yield command.amount <= 0, Code.AMOUNT_NOT_POSITIVE
    yield command.debit == command.credit, Code.ACCOUNTS_EQUAL


def faults_of_hold(command: Command) -> Iterator[tuple[bool, Code]]:
    yield from faults_of_transfer(command)
    yield not 0 <= command.timeout_ms <= TIMEOUT_MS_MAX, Code.TIMEOUT_INVALID


def faults_of_capture(command: Command) -> Iterator[tuple[bool, Code]]:
    yield command.amount < 0, Code.AMOUNT_NOT_POSITIVE
    yield command.debit == command.credit, Code.ACCOUNTS_EQUAL
    yield command.reference == NO_ID, Code.REFERENCE_MISSING


def faults_of_release(command: Command) -> Iterator[tuple[bool, Code]]:
    yield command.reference == NO_ID, Code.REFERENCE_MISSING


def faults_of_end(command: Command) -> Iterator[tuple[bool, Code]]:
    yield command.debit == command.credit, Code.ACCOUNTS_EQUAL
    leg, reason = divmod(command.timeout_ms, 2**16)
    yield not (0 <= leg < 256 and reason < 2**15), Code.TIMEOUT_INVALID
    yield command.reference == NO_ID, Code.REFERENCE_MISSING


def faults_of_try_debit(command: Command) -> Iterator[tuple[bool, Code]]:
    yield from faults_of_transfer(command)
    mode, legs = divmod(command.timeout_ms, 2**16)
    yield not (0 <= mode <= 2 and legs <= 256), Code.TIMEOUT_INVALID


def faults_of_plan(command: Command) -> Iterator[tuple[bool, Code]]:
    yield command.amount <= 0, Code.AMOUNT_NOT_POSITIVE
    yield command.reference == command.credit, Code.ACCOUNTS_EQUAL
    yield any(not 0 <= number <= 4094 for number in divmod(command.timeout_ms, 2**16)), Code.TIMEOUT_INVALID
    yield command.reference == NO_ID, Code.REFERENCE_MISSING


FAULTS_OF_KIND: Final = {
    CommandKind.SET_LIMIT: faults_of_limit,
    CommandKind.TRANSFER: faults_of_transfer,
    CommandKind.TRANSFER_AVAILABLE: faults_of_transfer,
    CommandKind.HOLD: faults_of_hold,
    CommandKind.CAPTURE: faults_of_capture,
    CommandKind.RELEASE: faults_of_release,
    CommandKind.TRY_DEBIT: faults_of_try_debit,
    CommandKind.TRY_CREDIT: faults_of_transfer,
    CommandKind.CONFIRM: faults_of_end,
    CommandKind.CANCEL: faults_of_end,
    CommandKind.TRY_PART: faults_of_transfer,
    CommandKind.PLAN: faults_of_plan,
}


def malformed(command: Command, rules_version: int) -> Outcome | None:
    """The outcome of a command that nothing in the ledger could make valid under these rules, or None."""
    for is_there, code in faults_of_all(command, rules_version):
        if is_there:
            return Outcome(code)
    kind = CommandKind(command.kind)
    for field, value in fields_of(command):
        if field in FIELDS_NOT_USED[kind] and value not in (0, NO_ID):
            return Outcome(Code.FIELD_NOT_ALLOWED, detail=field)
    faults = FAULTS_OF_KIND[kind](command) if kind in FAULTS_OF_KIND else ()
    for is_there, code in faults_of_open(command, rules_version) if kind == CommandKind.OPEN else faults:
        if is_there:
            return Outcome(code)
    return None


def first_difference(first: Command, second: Command) -> CommandField:
    """The first field in which two commands differ, or NONE. Those of which one is a FORBID are not compared."""
    if CommandKind.FORBID in (first.kind, second.kind):
        return CommandField.NONE
    passed_over: set[CommandField] = set()
    if {first.kind, second.kind} <= {CommandKind.TRANSFER, CommandKind.TRY_DEBIT}:
        passed_over = {CommandField.KIND, CommandField.REFERENCE}
    if first.kind > CommandKind.TRY_DEBIT:
        passed_over = {CommandField.CLIENT_TIMESTAMP_NS}
    for (field, before), (_, now) in zip(fields_of(first), fields_of(second), strict=True):
        if before != now and field not in passed_over:
            return field
    return CommandField.NONE
