"""What makes a command malformed: checks that need the command alone, in the order of their codes.

See ``README.md``, step 1. Every check is a comparison of integers; nothing here reads the ledger's state.
"""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import account_id_words
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandField, CommandFlag, CommandKind
from bezant.protocol.records import Bytes, Records, Words

OPEN: Final = int(CommandKind.OPEN)
TRANSFER: Final = int(CommandKind.TRANSFER)
SET_LIMIT: Final = int(CommandKind.SET_LIMIT)
IMPORTED: Final = int(CommandFlag.IMPORTED)

FLAGS_ALLOWED: Final = IMPORTED

WORD_NAME_FIRST: Final = 4
WORD_CREDIT_FIRST: Final = 4
WORD_NAME_END: Final = 10

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
_NAME_INVALID: Final = int(ResultCode.NAME_INVALID)
_CURRENCY_INVALID: Final = int(ResultCode.CURRENCY_INVALID)
_ACCOUNT_ID_MISMATCH: Final = int(ResultCode.ACCOUNT_ID_MISMATCH)

_CREDIT: Final = int(CommandField.CREDIT)
_REFERENCE: Final = int(CommandField.REFERENCE)
_TIMEOUT: Final = int(CommandField.TIMEOUT_MS)
_CURRENCY: Final = int(CommandField.CURRENCY)


@inlined
def field_not_allowed(command: Any, kind: int) -> int:
    """The first field (`CommandField`) that this kind does not use and that is set, or 0."""
    if kind == SET_LIMIT and (command["credit_head"] != 0 or command["credit_tail"] != 0):
        return _CREDIT
    if kind != OPEN and (command["reference_head"] != 0 or command["reference_tail"] != 0):
        return _REFERENCE
    if command["timeout_ms"] != 0:
        return _TIMEOUT
    if kind != OPEN and command["currency"] != 0:
        return _CURRENCY
    return 0


@kernel
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


@kernel
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


@kernel
def check_open(command: Any, words: Words, scratch: Bytes) -> int:
    """The code of what is wrong with an OPEN, or COMMITTED."""
    if not name_is_valid(words):
        return _NAME_INVALID
    if not currency_is_valid(command["currency"]):
        return _CURRENCY_INVALID
    head, tail = account_id_words(words[WORD_NAME_FIRST:WORD_NAME_END], command["currency"], scratch)
    if head != command["debit_head"] or tail != command["debit_tail"]:
        return _ACCOUNT_ID_MISMATCH
    if command["amount"] < 0:
        return _LIMIT_NEGATIVE
    return _OK


@inlined
def check_command(commands: Records, words: Words, index: int, scratch: Bytes) -> tuple[int, int]:
    """(code, detail) of what is wrong with a command by itself; code COMMITTED when nothing is."""
    command = commands[index]
    kind: Any = np.int64(command["kind"])
    if kind < OPEN or kind > SET_LIMIT:
        return _KIND_UNKNOWN, 0
    flags: Any = np.int64(command["flags"])
    if flags & ~FLAGS_ALLOWED != 0:
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
    elif timestamp_ns != 0:
        return _TIMESTAMP_INVALID, 0
    field = field_not_allowed(command, kind)
    if field != 0:
        return _FIELD_NOT_ALLOWED, field
    if kind == TRANSFER:
        if command["amount"] <= 0:
            return _AMOUNT_NOT_POSITIVE, 0
        if command["debit_head"] == command["credit_head"] and command["debit_tail"] == command["credit_tail"]:
            return _ACCOUNTS_EQUAL, 0
        return _OK, 0
    if kind == SET_LIMIT:
        return (_LIMIT_NEGATIVE if command["amount"] < 0 else _OK), 0
    return check_open(command, words[index], scratch), 0
