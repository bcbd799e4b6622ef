"""What makes a command malformed: checks that need the command alone, in the order of their codes.

See ``README.md``, step 1. Every check is a comparison of integers; nothing here reads the ledger's state.
"""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import called, inlined
from bezant.engine.hashing import account_id_words
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import (
    LEG_SHIFT,
    REASON_MAX,
    TIMEOUT_MS_MAX,
    TRANSACTION_LEGS_MAX,
    TRANSACTION_MODE_MAX,
    CommandField,
    CommandFlag,
    CommandKind,
)
from bezant.protocol.names import TRANSIT_NAME_PREFIX
from bezant.protocol.placement import SHARD_MAX
from bezant.protocol.records import RULES_ACROSS_SHARDS, Bytes, Records, Words

OPEN: Final = int(CommandKind.OPEN)
TRANSFER: Final = int(CommandKind.TRANSFER)
SET_LIMIT: Final = int(CommandKind.SET_LIMIT)
HOLD: Final = int(CommandKind.HOLD)
CAPTURE: Final = int(CommandKind.CAPTURE)
RELEASE: Final = int(CommandKind.RELEASE)
EXPIRE: Final = int(CommandKind.EXPIRE)
FREEZE: Final = int(CommandKind.FREEZE)
UNFREEZE: Final = int(CommandKind.UNFREEZE)
CLOSE: Final = int(CommandKind.CLOSE)
TRANSFER_AVAILABLE: Final = int(CommandKind.TRANSFER_AVAILABLE)
FORBID: Final = int(CommandKind.FORBID)
TRY_DEBIT: Final = int(CommandKind.TRY_DEBIT)
TRY_CREDIT: Final = int(CommandKind.TRY_CREDIT)
CONFIRM: Final = int(CommandKind.CONFIRM)
CANCEL: Final = int(CommandKind.CANCEL)
TRY_PART: Final = int(CommandKind.TRY_PART)
PLAN: Final = int(CommandKind.PLAN)
KIND_LAST: Final = PLAN

LINKED: Final = int(CommandFlag.LINKED)
IMPORTED: Final = int(CommandFlag.IMPORTED)
KEEP_OPEN: Final = int(CommandFlag.KEEP_OPEN)
TRANSIT: Final = int(CommandFlag.TRANSIT)
SETTLED: Final = int(CommandFlag.SETTLED)
PART: Final = int(CommandFlag.PART)


def _bits(*fields: CommandField) -> int:
    return sum(1 << int(field) for field in fields)


_F = CommandField
_ONE_ACCOUNT: Final = _bits(_F.CREDIT, _F.AMOUNT, _F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY)
_NOT_ALLOWED: Final = {
    OPEN: _bits(_F.TIMEOUT_MS),
    TRANSFER: _bits(_F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY),
    SET_LIMIT: _bits(_F.CREDIT, _F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY),
    HOLD: _bits(_F.REFERENCE, _F.CURRENCY),
    CAPTURE: _bits(_F.TIMEOUT_MS, _F.CURRENCY),
    RELEASE: _bits(_F.CREDIT, _F.AMOUNT, _F.TIMEOUT_MS, _F.CURRENCY),
    FREEZE: _ONE_ACCOUNT,
    UNFREEZE: _ONE_ACCOUNT,
    CLOSE: _ONE_ACCOUNT,
    TRANSFER_AVAILABLE: _bits(_F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY),
    FORBID: _ONE_ACCOUNT,
    TRY_DEBIT: _bits(_F.CURRENCY),
    TRY_CREDIT: _bits(_F.TIMEOUT_MS, _F.CURRENCY),
    CONFIRM: _bits(_F.AMOUNT, _F.TIMEOUT_MS, _F.CURRENCY),
    CANCEL: _bits(_F.AMOUNT, _F.CURRENCY),
    TRY_PART: _bits(_F.TIMEOUT_MS, _F.CURRENCY),
    PLAN: 0,
}
FIELDS_NOT_ALLOWED: Final = np.array([_NOT_ALLOWED.get(kind, 0) for kind in range(KIND_LAST + 1)], np.int64)
"""For each kind, the fields that it does not use, as bits numbered by `CommandField`."""
_FLAGS: Final = {
    OPEN: LINKED | IMPORTED | TRANSIT,
    CAPTURE: LINKED | IMPORTED | KEEP_OPEN,
    FORBID: 0,
    TRY_DEBIT: 0,
    TRY_CREDIT: PART,
    CONFIRM: PART,
    CANCEL: SETTLED | PART,
    TRY_PART: 0,
    PLAN: 0,
}
FLAGS_ALLOWED: Final = np.array([_FLAGS.get(kind, LINKED | IMPORTED) for kind in range(KIND_LAST + 1)], np.int64)
"""For each kind, the flags that it may have."""

WORD_NAME_FIRST: Final = 4
WORD_NAME_END: Final = 10
TRANSIT_NAME_WORD: Final = int.from_bytes(TRANSIT_NAME_PREFIX.encode(), "little")
"""How the names of transit accounts, and of no others, begin: just one word."""
_LOW: Final = (1 << LEG_SHIFT) - 1
_IN_TIMEOUT: Final = {
    TRY_DEBIT: (TRANSACTION_MODE_MAX, TRANSACTION_LEGS_MAX),
    CANCEL: (TRANSACTION_LEGS_MAX - 1, REASON_MAX),
    PLAN: (SHARD_MAX, SHARD_MAX),
}
HIGH_MAX: Final = np.array([_IN_TIMEOUT.get(kind, (0, 0))[0] for kind in range(KIND_LAST + 1)], np.int64)
LOW_MAX: Final = np.array([_IN_TIMEOUT.get(kind, (0, 0))[1] for kind in range(KIND_LAST + 1)], np.int64)
"""For each kind from TRY_DEBIT on, the largest of the two numbers that `timeout_ms` consists of there."""

_OK: Final = int(ResultCode.COMMITTED)
_KIND_UNKNOWN: Final = int(ResultCode.KIND_UNKNOWN)
_FLAGS_UNKNOWN: Final = int(ResultCode.FLAGS_UNKNOWN)
_RESERVED_NOT_ZERO: Final = int(ResultCode.RESERVED_NOT_ZERO)
_ID_INVALID: Final = int(ResultCode.ID_INVALID)
_TIMESTAMP_INVALID: Final = int(ResultCode.TIMESTAMP_INVALID)
_FIELD_NOT_ALLOWED: Final = int(ResultCode.FIELD_NOT_ALLOWED)
_AMOUNT_NOT_POSITIVE: Final = int(ResultCode.AMOUNT_NOT_POSITIVE)
_ACCOUNTS_EQUAL: Final = int(ResultCode.ACCOUNTS_EQUAL)
_LIMIT_NEGATIVE: Final = int(ResultCode.LIMIT_NEGATIVE)
_TIMEOUT_INVALID: Final = int(ResultCode.TIMEOUT_INVALID)
_REFERENCE_MISSING: Final = int(ResultCode.REFERENCE_MISSING)
_NAME_INVALID: Final = int(ResultCode.NAME_INVALID)
_CURRENCY_INVALID: Final = int(ResultCode.CURRENCY_INVALID)
_ACCOUNT_ID_MISMATCH: Final = int(ResultCode.ACCOUNT_ID_MISMATCH)

_CREDIT: Final = int(CommandField.CREDIT)
_AMOUNT: Final = int(CommandField.AMOUNT)
_REFERENCE: Final = int(CommandField.REFERENCE)
_TIMEOUT: Final = int(CommandField.TIMEOUT_MS)
_CURRENCY: Final = int(CommandField.CURRENCY)


@inlined
def field_not_allowed(command: Any, kind: int) -> int:
    """The first field (`CommandField`) that this kind does not use and that is set, or 0."""
    fields = FIELDS_NOT_ALLOWED[kind]
    if fields >> _CREDIT & 1 != 0 and (command["credit_head"] != 0 or command["credit_tail"] != 0):
        return _CREDIT
    if fields >> _AMOUNT & 1 != 0 and command["amount"] != 0:
        return _AMOUNT
    if fields >> _REFERENCE & 1 != 0 and (command["reference_head"] != 0 or command["reference_tail"] != 0):
        return _REFERENCE
    if fields >> _TIMEOUT & 1 != 0 and command["timeout_ms"] != 0:
        return _TIMEOUT
    if fields >> _CURRENCY & 1 != 0 and command["currency"] != 0:
        return _CURRENCY
    return 0


@called
def name_is_valid(words: Words) -> bool:
    """Whether the six words are 1 to 48 bytes of printable ASCII without spaces, then zeros."""
    ended = False
    for index in range(WORD_NAME_FIRST, WORD_NAME_END):
        word = words[index]
        for byte in range(8):
            character = (word >> (8 * byte)) & 0xFF
            if character == 0:
                ended = True
            elif ended or character < 0x21 or character > 0x7E:
                return False
    return words[WORD_NAME_FIRST] & 0xFF != 0


@called
def currency_is_valid(word: int) -> bool:
    """Whether the word is 1 to 8 of A-Z and 0-9, then zeros."""
    ended = False
    for byte in range(8):
        character = (word >> (8 * byte)) & 0xFF
        if character == 0:
            ended = True
        elif ended or not (0x41 <= character <= 0x5A or 0x30 <= character <= 0x39):
            return False
    return word & 0xFF != 0


@called
def check_open(command: Any, words: Words, rules_version: int, scratch: Bytes) -> int:
    """The code of what is wrong with an OPEN, or COMMITTED."""
    if not name_is_valid(words):
        return _NAME_INVALID
    is_transit = command["flags"] & TRANSIT != 0
    if rules_version >= RULES_ACROSS_SHARDS and (words[WORD_NAME_FIRST] == TRANSIT_NAME_WORD) != is_transit:
        return _NAME_INVALID
    if not currency_is_valid(command["currency"]):
        return _CURRENCY_INVALID
    head, tail = account_id_words(words[WORD_NAME_FIRST:WORD_NAME_END], command["currency"], scratch)
    if head != command["debit_head"] or tail != command["debit_tail"]:
        return _ACCOUNT_ID_MISMATCH
    if command["amount"] < 0:
        return _LIMIT_NEGATIVE
    return _OK


@called
def check_leg(command: Any, kind: int) -> int:
    """The code of what is wrong with the fields of a kind from TRY_DEBIT on, or COMMITTED."""
    if kind not in (CONFIRM, CANCEL) and command["amount"] <= 0:
        return _AMOUNT_NOT_POSITIVE
    head, tail = command["debit_head"], command["debit_tail"]
    if kind == PLAN:  # Its debit account says where the id is used up, and its reference who pays.
        head, tail = command["reference_head"], command["reference_tail"]
    if head == command["credit_head"] and tail == command["credit_tail"]:
        return _ACCOUNTS_EQUAL
    timeout_ms = command["timeout_ms"]
    if timeout_ms < 0 or timeout_ms >> LEG_SHIFT > HIGH_MAX[kind] or timeout_ms & _LOW > LOW_MAX[kind]:
        return _TIMEOUT_INVALID
    if kind in (CONFIRM, CANCEL, PLAN) and command["reference_head"] == 0 and command["reference_tail"] == 0:
        return _REFERENCE_MISSING
    return _OK


@inlined
def check_fields(command: Any, words: Words, kind: int, rules_version: int, scratch: Bytes) -> int:
    """The code of what is wrong with the fields that a kind uses, or COMMITTED."""
    if kind == OPEN:
        return check_open(command, words, rules_version, scratch)
    if kind >= TRY_DEBIT:
        return check_leg(command, kind)
    amount = command["amount"]
    if kind == SET_LIMIT:
        return _LIMIT_NEGATIVE if amount < 0 else _OK
    if amount < 0 or (amount == 0 and (kind in (TRANSFER, HOLD, TRANSFER_AVAILABLE))):
        return _AMOUNT_NOT_POSITIVE
    if kind in (TRANSFER, HOLD, CAPTURE, TRANSFER_AVAILABLE):
        if command["debit_head"] == command["credit_head"] and command["debit_tail"] == command["credit_tail"]:
            return _ACCOUNTS_EQUAL
        timeout_ms = command["timeout_ms"]
        if timeout_ms < 0 or timeout_ms > TIMEOUT_MS_MAX:
            return _TIMEOUT_INVALID
    if kind in (CAPTURE, RELEASE) and command["reference_head"] == 0 and command["reference_tail"] == 0:
        return _REFERENCE_MISSING
    return _OK


@inlined
def check_command(commands: Records, words: Words, index: int, rules_version: int, scratch: Bytes) -> tuple[int, int]:
    """(code, detail) of what is wrong with a command by itself, under these rules; code COMMITTED when nothing is."""
    command = commands[index]
    kind: Any = np.int64(command["kind"])
    is_leg = kind > FORBID and TRY_DEBIT <= kind <= KIND_LAST and rules_version >= RULES_ACROSS_SHARDS
    if kind < OPEN or kind == EXPIRE or (kind > FORBID and not is_leg):
        return _KIND_UNKNOWN, 0
    flags: Any = np.int64(command["flags"])
    if flags != 0:
        allowed = FLAGS_ALLOWED[kind]
        if flags & ~allowed != 0 or (flags & TRANSIT != 0 and rules_version < RULES_ACROSS_SHARDS):
            return _FLAGS_UNKNOWN, 0
    if command["reserved"] != 0:
        return _RESERVED_NOT_ZERO, 0
    head, tail = command["id_head"], command["id_tail"]
    if head == tail and (head == 0 or head == -1):
        return _ID_INVALID, 0
    timestamp_ns = command["client_timestamp_ns"]
    if flags & IMPORTED != 0:
        if timestamp_ns <= 0:
            return _TIMESTAMP_INVALID, 0
    elif timestamp_ns != 0 and (timestamp_ns < 0 or kind <= TRY_DEBIT):
        return _TIMESTAMP_INVALID, 0
    field = field_not_allowed(command, kind)
    if field != 0:
        return _FIELD_NOT_ALLOWED, field
    return check_fields(command, words[index], kind, rules_version, scratch), 0
