"""Numbers that appear in records: command kinds, command flags, account flags and entry kinds.

Rules: a number is never reused for another meaning; numbers marked "reserved" are refused today and named so that no
later part takes them for something else.
"""

from enum import IntEnum, IntFlag, unique
from typing import Final

TIMEOUT_MS_MAX: Final = 100 * 365 * 24 * 3600 * 1000
"""The longest timeout of a hold: a hundred years."""
COPY_OF: Final = 64
"""The kind of an event that is a copy of another shard's, from which the ids of a slot came: 64 more than there."""
CHAIN_COMMANDS_MAX: Final = 256
"""Commands in one linked chain, at most."""
TRANSACTION_LEGS_MAX: Final = 256
"""Transfers in one transaction, at most."""
TRANSACTION_MODE_MAX: Final = 2
REASON_MAX: Final = 2**15 - 1
"""The largest result code that a result has room for, and so a CANCEL."""
LEG_SHIFT: Final = 16
"""In some kinds `timeout_ms` is two numbers, the second so many bits up. CANCEL: a result code, and the leg that it is
about. TRY_DEBIT that begins a transaction: how many legs that has, and its mode. PLAN: the shards of the accounts that
pay and receive."""


@unique
class CommandKind(IntEnum):
    """What a command asks for, and what its event records."""

    OPEN = 1
    TRANSFER = 2
    SET_LIMIT = 3
    HOLD = 4
    CAPTURE = 5
    RELEASE = 6
    EXPIRE = 7  # only ever an event: a hold whose time is up
    FREEZE = 8
    UNFREEZE = 9
    CLOSE = 10
    TRANSFER_AVAILABLE = 11
    FORBID = 12
    TRY_DEBIT = 32  # from here on: between shards only, never from a client
    TRY_CREDIT = 33
    CONFIRM = 34
    CANCEL = 35
    TRY_PART = 36
    PLAN = 37
    MOVE_OPEN = 40  # from here on: only ever events, of slots that move from one shard to another
    MOVE_IN = 41
    MOVE_OUT = 42
    MOVE_HOLD_IN = 43
    MOVE_HOLD_OUT = 44


@unique
class CommandFlag(IntFlag):
    """Modifiers of a command. Bits without a name are refused as FLAGS_UNKNOWN."""

    LINKED = 1  # the next command of the frame stands and falls with this one
    IMPORTED = 2  # the client's timestamp is the event's
    KEEP_OPEN = 4  # a part capture leaves the rest held
    TRANSIT = 8  # the account that an OPEN adds is a transit account: only nodes may
    SETTLED = 16  # the other shard has nothing left of what a CANCEL ends: only nodes may
    PART = 32  # a TRY_CREDIT is of a transaction, or what is ended is a TRY_PART: only nodes may


@unique
class AccountFlag(IntFlag):
    """State bits of an account."""

    FROZEN = 1
    CLOSED = 2
    HAS_INCOMING = 4
    TRANSIT = 8
    MOVED = 16  # the account has moved to another shard, and is there


@unique
class ResultFlag(IntFlag):
    """Remarks on a result that do not change its code."""

    REPEATED = 1  # the id was known and the content the same: this is the first outcome


@unique
class EntryKind(IntEnum):
    """What the body of a log entry holds. Unknown kinds are refused, never skipped."""

    EVENTS = 1
    CONTROL = 2
    BLOB = 3  # metadata, erasable
    FILLER = 4
    CONFIGURATION = 5  # who belongs to the group
    PHASES = 6  # reserved: phase rows that need more than an event


@unique
class CommandField(IntEnum):
    """Fields of a command in the order in which a conflict or a malformed field is reported."""

    NONE = 0
    KIND = 1
    FLAGS = 2
    DEBIT = 3
    CREDIT = 4
    AMOUNT = 5
    REFERENCE = 6
    USER_DATA = 7
    CODE = 8
    TIMEOUT_MS = 9
    CURRENCY = 10
    CLIENT_TIMESTAMP_NS = 11
    ID = 12
    RESERVED = 13
