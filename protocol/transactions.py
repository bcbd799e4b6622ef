"""Transactions of several transfers, and what a shard tells of those under way; the page ``SHARDS.md`` has the rest."""

from enum import IntEnum, unique
from typing import Final

import blake3
import msgspec

from bezant.protocol.errors import UsageError

TRANSACTION_ID_SIZE: Final = 16
NO_LEG: Final = -1
_CONTEXT: Final = b"bezant transaction"
_LEG_CONTEXT: Final = b"bezant leg"
_TIME_SIZE: Final = 6
_VERSION_AT: Final = 6
_VARIANT_AT: Final = 8
_TIME_VERSION: Final = 7
_OTHER_VERSION: Final = 8


@unique
class TransactionMode(IntEnum):
    """How a transaction is kept whole."""

    TCC = 1  # all legs are tried at once; then all are confirmed, or all cancelled
    SAGA = 2  # one step after the other, deductions first; when one is refused, those before it are taken back

    @classmethod
    def of(cls, mode: "TransactionMode | str") -> "TransactionMode":
        """The mode of this name, "tcc" or "saga", or number. Raises `UsageError`."""
        try:
            return cls[mode.upper()] if isinstance(mode, str) else cls(mode)
        except (KeyError, ValueError) as error:
            raise UsageError(f"the mode of a transaction is tcc or saga, not {mode!r}") from error


@unique
class Leg(IntEnum):
    """What follows a try, or comes with it: numbers that go into ids."""

    TRY_CREDIT = 1
    CONFIRM_DEBIT = 2
    CONFIRM_CREDIT = 3
    CANCEL_DEBIT = 4
    CANCEL_CREDIT = 5
    CANCEL_ORPHAN = 6
    """Of a TRY_CREDIT, and derived from that: its own shard has taken it back."""
    GIVE_BACK = 7
    PLAN = 8


def leg_ids(identifier: bytes, debit: bytes, count: int) -> list[bytes]:
    """The ids of the legs of a transaction: the first has that of the transaction. `debit`: its debit account's.

    id of leg n = first 16 bytes of BLAKE3("bezant transaction" | id 16 | first leg's debit account 16 | n 2)
                  with the version and variant of a UUID (RFC 9562): version 7, and the first 48 bits of the
                  transaction's id, if that is such a one, and so has its time there; else version 8
    """
    has_time = _is_timed(identifier)
    keys = (_CONTEXT + identifier + debit + number.to_bytes(2, "little") for number in range(1, count))
    return [identifier, *(_id_from(key, identifier, has_time=has_time) for key in keys)]


def derived_id(identifier: bytes, debit: bytes, leg: Leg) -> bytes:
    """The id of what follows the try with this id and this debit account, as ``SHARDS.md`` has it ("Ids of legs")."""
    has_time = _is_timed(identifier) and any(identifier[:_TIME_SIZE])
    return _id_from(_LEG_CONTEXT + bytes(8) + identifier + debit + bytes([leg]), identifier, has_time=has_time)


def _is_timed(identifier: bytes) -> bool:
    return identifier[_VERSION_AT] >> 4 == _TIME_VERSION


def _id_from(key: bytes, identifier: bytes, *, has_time: bool) -> bytes:
    """An id out of a key, with the time of another one if that has one."""
    made = bytearray(blake3.blake3(key).digest(TRANSACTION_ID_SIZE))
    if has_time:
        made[:_TIME_SIZE] = identifier[:_TIME_SIZE]
    made[_VERSION_AT] = made[_VERSION_AT] & 0x0F | (_TIME_VERSION if has_time else _OTHER_VERSION) << 4
    made[_VARIANT_AT] = made[_VARIANT_AT] & 0x3F | 0x80
    return bytes(made)


class Transact(msgspec.Struct, frozen=True):
    """Asks for a transaction, which is done as a whole or not at all.

    ``legs``: 1 to TRANSACTION_LEGS_MAX records COMMAND, back to back: TRANSFERs without an id, each with its
    ``currency``. The shard of the first one's debit account coordinates. ``await_applied``: answer when all legs are
    done or taken back, not already when that is decided.
    """

    id: bytes
    mode: int
    legs: bytes
    await_applied: bool = False


class Transacted(msgspec.Struct, frozen=True):
    """What became of a transaction. ``code``: 0 if it is committed, else the result code that says why not.

    ``leg``: the number of the leg that was refused, from 0; -1 if it was none. ``detail``: as in RESULT, of that leg.
    ``repeated``: it had been asked for before. ``applied``: all legs are done, or taken back.
    """

    code: int
    leg: int = NO_LEG
    detail: int = 0
    repeated: bool = False
    applied: bool = False


class TransferUnderWay(msgspec.Struct, frozen=True):
    """A transfer to another shard that has not ended.

    ``phase``: ``trying``, ``confirming`` or ``cancelling``; ``shard``: the other one; ``amount``: in minor units;
    ``age_ms``: since it was tried.
    """

    id: str
    phase: str
    shard: int
    amount: int
    currency: str
    age_ms: int


class TransactionUnderWay(msgspec.Struct, frozen=True):
    """A transaction that has not ended.

    ``mode``: ``tcc`` or ``saga``; ``phase``: ``trying``, ``confirming``, ``cancelling``, ``compensating``, ``parked``;
    ``shards``: those that take part; ``amounts``: of its legs, minor units by currency; ``age_ms``: since it was begun.
    """

    id: str
    mode: str
    phase: str
    legs: int
    shards: list[int]
    amounts: dict[str, int]
    age_ms: int


class TransactionsUnderWay(msgspec.Struct, frozen=True):
    """Those that one shard coordinates, the oldest first, and how many there are: perhaps more than are told."""

    transfers: list[TransferUnderWay]
    count: int
    transactions: list[TransactionUnderWay] = []
