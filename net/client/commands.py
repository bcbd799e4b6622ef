"""Encodes single commands from what people write: names, amounts as text, ids. Batches come as records already.

A command is packed with one `struct` call; the layouts below are views of `COMMAND` that leave out the fields which
are zero, and tests hold them against it.
"""

import struct
from decimal import Decimal
from functools import lru_cache
from typing import Final

from bezant.net.client.results import Unlimited
from bezant.protocol.errors import InvalidAmountOrName, UsageError
from bezant.protocol.kinds import TIMEOUT_MS_MAX, CommandKind
from bezant.protocol.money import DECIMALS_MAX, parse_amount
from bezant.protocol.names import account_id, check_name, currency_word
from bezant.protocol.records import COMMAND_SIZE, LIMIT_UNLIMITED

ID_SIZE: Final = 16
NO_ID: Final = bytes(ID_SIZE)
USER_DATA_SIZE_MAX: Final = 16
ACCOUNT_IDS_CACHED_MAX: Final = 1 << 16
"""Account ids kept per process: some 20 MB at most. To derive one costs 3 us, a third of a transfer."""

_DIGITS_MAX: Final = 19  # of 2^63 - 1, the greatest amount

_OPEN: Final = struct.Struct("<16s16s48sq8xq8xihh8x")
_TRANSFER: Final = struct.Struct("<16s16s16s16x16sq24xi2xh8x")
_COMMAND: Final = struct.Struct("<16s16s16s16s16sq16xqihh8x")

if {_OPEN.size, _TRANSFER.size, _COMMAND.size} != {COMMAND_SIZE}:
    raise AssertionError("every command must have the size of a record")

_KIND_OPEN: Final = int(CommandKind.OPEN)
_KIND_TRANSFER: Final = int(CommandKind.TRANSFER)

cached_account_id = lru_cache(maxsize=ACCOUNT_IDS_CACHED_MAX)(account_id)


def check_id(identifier: bytes) -> bytes:
    """Return an id that the caller chose, or raise `UsageError` if it does not have 16 bytes."""
    if not isinstance(identifier, bytes) or len(identifier) != ID_SIZE:
        raise UsageError(f"an id is {ID_SIZE} bytes, not {identifier!r}")
    return identifier


def amount_units(amount: str | Decimal, decimals: int) -> int:
    """Convert an exact amount to minor units of a currency with so many decimals.

    Raises `InvalidAmountOrName`, also for a float or an int: the one is not exact, the other could mean either unit.
    """
    if isinstance(amount, str):
        return parse_amount(amount, decimals)
    if not isinstance(amount, Decimal):
        raise InvalidAmountOrName(f"an amount is a string or a Decimal, not the {type(amount).__name__} {amount!r}")
    exponent = amount.as_tuple().exponent
    # Written out, a Decimal may have a billion digits: refuse by its exponent before it is.
    if not isinstance(exponent, int) or amount.adjusted() >= _DIGITS_MAX or exponent < -DECIMALS_MAX:
        raise InvalidAmountOrName(f"{amount!r} is not an amount of up to {_DIGITS_MAX} digits")
    return parse_amount(format(amount, "f"), decimals)


def limit_units(limit: str | Decimal | Unlimited, decimals: int) -> int:
    """Convert a limit to minor units. Raises `InvalidAmountOrName`."""
    if isinstance(limit, Unlimited):
        return LIMIT_UNLIMITED
    units = amount_units(limit, decimals)
    if units == LIMIT_UNLIMITED:
        raise InvalidAmountOrName(
            f"the limit {limit!r} is the number that means no limit: say UNLIMITED if you mean it"
        )
    return units


def encode_transfer(
    identifier: bytes, debit: bytes, credit: bytes, units: int, *, user_data: bytes, code: int
) -> bytes:
    """Encode a TRANSFER between two account ids. Raises `UsageError` if a field does not fit."""
    try:
        command = _TRANSFER.pack(identifier, debit, credit, user_data, units, code, _KIND_TRANSFER)
    except struct.error as error:
        raise _misfit(code, error) from error
    if len(user_data) > USER_DATA_SIZE_MAX:
        raise _user_data_too_long(user_data)
    return command


def encode_open(identifier: bytes, name: str, currency: str, limit: int, code: int, *, flags: int = 0) -> bytes:
    """Encode an OPEN; `limit` in minor units. Raises `UsageError` if a field does not fit."""
    account = cached_account_id(name, currency)
    word = currency_word(currency)
    try:
        return _OPEN.pack(identifier, account, check_name(name), limit, word, code, flags, _KIND_OPEN)
    except struct.error as error:
        raise _misfit(code, error) from error


def encode_command(
    kind: CommandKind,
    identifier: bytes,
    debit: bytes,
    *,
    credit: bytes = NO_ID,
    reference: bytes = NO_ID,
    units: int = 0,
    timeout_ms: int = 0,
    flags: int = 0,
    user_data: bytes = b"",
    code: int = 0,
) -> bytes:
    """Encode a command of any kind but OPEN. Raises `UsageError` if a field does not fit."""
    if not isinstance(timeout_ms, int):
        raise UsageError(f"the timeout of a hold is a whole number of milliseconds, not {timeout_ms!r}")
    if not 0 <= timeout_ms <= TIMEOUT_MS_MAX:
        raise UsageError(
            f"a hold lasts up to {TIMEOUT_MS_MAX} ms, or without end with a timeout of 0: not {timeout_ms}"
        )
    try:
        command = _COMMAND.pack(
            identifier, debit, credit, reference, user_data, units, timeout_ms, code, flags, int(kind)
        )
    except struct.error as error:
        raise _misfit(code, error) from error
    if len(user_data) > USER_DATA_SIZE_MAX:
        raise _user_data_too_long(user_data)
    return command


def _misfit(code: int, error: struct.error) -> UsageError:
    return UsageError(f"a code is a 32-bit integer ({code!r} was given) and user data are bytes: {error}")


def _user_data_too_long(user_data: bytes) -> UsageError:
    return UsageError(f"user data are up to {USER_DATA_SIZE_MAX} bytes, not {len(user_data)}")
