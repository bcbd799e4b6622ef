"""Every result code, with what a client may conclude from it; the order of the checks is in the ledger's README.

The table answers four questions about each code: does the command leave an event, does it use up the id, can the same
command succeed if it is sent again, and which HTTP status says it. The rules behind it: a malformed command, a repeat
and a conflict leave no event; a refusal that depends on the ledger's state leaves one and uses up the id, so that a
retry can never flip the outcome; "not executed" leaves everything as it was.
"""

from enum import IntEnum, unique
from typing import Final, NamedTuple


@unique
class ResultCode(IntEnum):
    """Outcome of one command; see `RESULT_CODES` for the columns."""

    COMMITTED = 0

    KIND_UNKNOWN = 1
    FLAGS_UNKNOWN = 2
    RESERVED_NOT_ZERO = 3
    ID_INVALID = 4
    TIMESTAMP_INVALID = 5
    FIELD_NOT_ALLOWED = 6
    AMOUNT_NOT_POSITIVE = 7
    ACCOUNTS_EQUAL = 8
    LIMIT_NEGATIVE = 9
    TIMEOUT_INVALID = 10
    REFERENCE_MISSING = 11
    NAME_INVALID = 12
    CURRENCY_INVALID = 13
    ACCOUNT_ID_MISMATCH = 14
    CHAIN_UNTERMINATED = 15
    CHAIN_TOO_LONG = 16
    CHAIN_REPEATED_IN_PART = 17
    CHAIN_MEMBER_NOT_EXECUTED = 18

    DEADLINE_PASSED = 100
    OVERLOADED = 101
    IMPORTED_TIMESTAMP_NOT_RISING = 102
    IMPORTED_TIMESTAMP_IN_FUTURE = 103
    NOT_LEADER = 104
    WRONG_SHARD = 105
    STORAGE_FULL = 106
    ACCOUNTS_FULL = 107
    HOLDS_FULL = 108
    TRANSIT_UNKNOWN = 109
    FORBIDDEN = 110

    ID_CONFLICT = 200
    UNDECIDED = 201

    CURRENCY_UNKNOWN = 300
    ACCOUNT_EXISTS = 301
    DEBIT_ACCOUNT_UNKNOWN = 302
    CREDIT_ACCOUNT_UNKNOWN = 303
    CURRENCY_MISMATCH = 304
    DEBIT_ACCOUNT_CLOSED = 305
    CREDIT_ACCOUNT_CLOSED = 306
    DEBIT_ACCOUNT_FROZEN = 307
    CREDIT_ACCOUNT_FROZEN = 308
    INSUFFICIENT_FUNDS = 309
    BALANCE_OVERFLOW = 310
    HELD_OVERFLOW = 311
    HOLD_UNKNOWN = 312
    HOLD_CAPTURED = 313
    HOLD_RELEASED = 314
    HOLD_EXPIRED = 315
    CAPTURE_EXCEEDS_HOLD = 316
    HOLD_OF_OTHER_ACCOUNTS = 317
    ACCOUNT_NOT_EMPTY = 318
    CHAIN_MEMBER_REFUSED = 319
    ID_FORBIDDEN = 320
    NOTHING_AVAILABLE = 321
    TRANSIT_ACCOUNT = 322
    SHARD_UNREACHABLE = 323


class CodeRow(NamedTuple):
    """One row of the table."""

    code: ResultCode
    leaves_event: bool
    uses_id: bool
    retry_helps: bool
    http_status: int
    meaning: str


def _malformed(code: ResultCode, meaning: str) -> CodeRow:
    return CodeRow(code, False, False, False, 400, meaning)


def _not_executed(code: ResultCode, http_status: int, meaning: str, *, retry_helps: bool = True) -> CodeRow:
    return CodeRow(code, False, False, retry_helps, http_status, meaning)


def _refused(code: ResultCode, http_status: int, meaning: str) -> CodeRow:
    return CodeRow(code, True, True, False, http_status, meaning)


_C = ResultCode

RESULT_CODES: Final[tuple[CodeRow, ...]] = (
    CodeRow(_C.COMMITTED, True, True, False, 200, "done, durably"),
    _malformed(_C.KIND_UNKNOWN, "the kind is not one that this node executes"),
    _malformed(_C.FLAGS_UNKNOWN, "a flag is set that this kind does not have"),
    _malformed(_C.RESERVED_NOT_ZERO, "the reserved bytes are not zero"),
    _malformed(_C.ID_INVALID, "the id is all zeros or all ones"),
    _malformed(_C.TIMESTAMP_INVALID, "a client timestamp without IMPORTED, or IMPORTED without one"),
    _malformed(_C.FIELD_NOT_ALLOWED, "a field is set that this kind does not use; `detail` numbers it"),
    _malformed(_C.AMOUNT_NOT_POSITIVE, "the amount is zero or negative"),
    _malformed(_C.ACCOUNTS_EQUAL, "debit and credit are the same account"),
    _malformed(_C.LIMIT_NEGATIVE, "the limit is negative"),
    _malformed(_C.TIMEOUT_INVALID, "the timeout is negative or too long"),
    _malformed(_C.REFERENCE_MISSING, "the kind needs a reference to a hold"),
    _malformed(_C.NAME_INVALID, "the name is not 1 to 48 printable ASCII characters without spaces"),
    _malformed(_C.CURRENCY_INVALID, "the currency is not 1 to 8 capital letters and digits"),
    _malformed(_C.ACCOUNT_ID_MISMATCH, "the account id is not the one that name and currency give"),
    _malformed(_C.CHAIN_UNTERMINATED, "the last command of the frame is linked to a next one"),
    _malformed(_C.CHAIN_TOO_LONG, "the chain has more commands than a chain may have"),
    _malformed(_C.CHAIN_REPEATED_IN_PART, "the chain mixes known ids with new ones, or names one twice"),
    _malformed(_C.CHAIN_MEMBER_NOT_EXECUTED, "another command of the chain was not executed; its code says why"),
    _not_executed(_C.DEADLINE_PASSED, 504, "the deadline passed before the command reached the ledger"),
    _not_executed(_C.OVERLOADED, 503, "the node has no room for the command now"),
    _not_executed(
        _C.IMPORTED_TIMESTAMP_NOT_RISING, 409, "the client timestamp is not after the last event's", retry_helps=False
    ),
    _not_executed(_C.IMPORTED_TIMESTAMP_IN_FUTURE, 409, "the client timestamp is not in the past"),
    _not_executed(_C.NOT_LEADER, 503, "another node leads; ask it"),
    _not_executed(_C.WRONG_SHARD, 421, "another shard holds the debit account"),
    _not_executed(_C.STORAGE_FULL, 507, "the node's disk is at its free-space floor"),
    _not_executed(_C.ACCOUNTS_FULL, 507, "the node holds as many accounts as it is set to"),
    _not_executed(_C.HOLDS_FULL, 507, "the node has as many open holds as it is set to"),
    _not_executed(_C.TRANSIT_UNKNOWN, 503, "the node has no transit account to the other shard yet"),
    _not_executed(_C.FORBIDDEN, 403, "the client's token may not do this", retry_helps=False),
    CodeRow(_C.ID_CONFLICT, False, False, False, 409, "the id was used with other content; `detail` numbers the field"),
    CodeRow(_C.UNDECIDED, True, True, True, 202, "begun, and whether it will be done is not decided yet"),
    _refused(_C.CURRENCY_UNKNOWN, 422, "the currency is not registered"),
    _refused(_C.ACCOUNT_EXISTS, 409, "the account exists, open or closed for ever"),
    _refused(_C.DEBIT_ACCOUNT_UNKNOWN, 404, "no account has the debit id"),
    _refused(_C.CREDIT_ACCOUNT_UNKNOWN, 404, "no account has the credit id"),
    _refused(_C.CURRENCY_MISMATCH, 422, "the two accounts have different currencies"),
    _refused(_C.DEBIT_ACCOUNT_CLOSED, 409, "the debit account is closed"),
    _refused(_C.CREDIT_ACCOUNT_CLOSED, 409, "the credit account is closed"),
    _refused(_C.DEBIT_ACCOUNT_FROZEN, 409, "the debit account is frozen"),
    _refused(_C.CREDIT_ACCOUNT_FROZEN, 409, "the credit account is frozen"),
    _refused(_C.INSUFFICIENT_FUNDS, 422, "balance less held would fall below the limit"),
    _refused(_C.BALANCE_OVERFLOW, 422, "a balance would leave the 64-bit range"),
    _refused(_C.HELD_OVERFLOW, 422, "the held sum would leave the 64-bit range"),
    _refused(_C.HOLD_UNKNOWN, 404, "no hold has the referenced id"),
    _refused(_C.HOLD_CAPTURED, 409, "the hold is captured already"),
    _refused(_C.HOLD_RELEASED, 409, "the hold is released already"),
    _refused(_C.HOLD_EXPIRED, 409, "the hold has expired"),
    _refused(_C.CAPTURE_EXCEEDS_HOLD, 422, "more was asked than is held"),
    _refused(_C.HOLD_OF_OTHER_ACCOUNTS, 422, "the hold belongs to other accounts"),
    _refused(_C.ACCOUNT_NOT_EMPTY, 409, "balance, held and incoming must be zero to close"),
    _refused(_C.CHAIN_MEMBER_REFUSED, 409, "another command of the chain was refused"),
    _refused(_C.ID_FORBIDDEN, 409, "the id was given up by a resolve before it was used"),
    _refused(_C.NOTHING_AVAILABLE, 422, "there is nothing to move"),
    _refused(_C.TRANSIT_ACCOUNT, 422, "a transit account takes part in nothing but transfers between shards"),
    _refused(_C.SHARD_UNREACHABLE, 409, "the credit account's shard did not answer in time; nothing was moved"),
)

CODE_ROW: Final[dict[int, CodeRow]] = {int(row.code): row for row in RESULT_CODES}

if set(CODE_ROW) != {int(code) for code in ResultCode}:
    raise AssertionError("the code table must have exactly one row for every code")
