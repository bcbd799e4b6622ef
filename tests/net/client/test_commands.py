"""Claim: commands are encoded exactly as the record says; what cannot be written in one is refused with a reason."""

import re
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest

from bezant.net.client.commands import (
    amount_units,
    check_id,
    encode_command,
    encode_open,
    encode_transfer,
    limit_units,
)
from bezant.net.client.results import UNLIMITED
from bezant.protocol.errors import InvalidAmountOrName, UsageError
from bezant.protocol.kinds import TIMEOUT_MS_MAX, CommandFlag, CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, id_bytes, id_words

ID = bytes(range(1, 17))
ANN, BOB = account_id("wallet:ann", "EUR"), account_id("wallet:bob", "EUR")
USER_DATA = b"order 4711"


def fields(command: bytes) -> dict[str, int | bytes]:
    """The fields of a command that are not zero, ids joined."""
    record = np.frombuffer(command, COMMAND)[0]
    found: dict[str, int | bytes] = {}
    names = COMMAND.names or ()
    for name in names:
        base = name.removesuffix("_head").removesuffix("_tail")
        value = id_bytes(record[f"{base}_head"], record[f"{base}_tail"]) if base != name else int(record[name])
        if value not in (0, bytes(16)):
            found[base] = value
    return found


def test_the_record_is_what_the_encoders_think_it_is() -> None:
    offsets = [COMMAND.fields[name][1] for name in COMMAND.names]
    assert all(a < b for a, b in pairwise(offsets))
    assert COMMAND.itemsize == 128


def test_a_transfer_fills_its_fields_and_no_other() -> None:
    assert fields(encode_transfer(ID, ANN, BOB, 1250, user_data=USER_DATA, code=-7)) == {
        "id": ID,
        "debit": ANN,
        "credit": BOB,
        "user_data": USER_DATA.ljust(16, b"\0"),
        "amount": 1250,
        "code": -7,
        "kind": CommandKind.TRANSFER,
    }


def test_a_command_of_any_kind_has_what_it_is_given_where_it_belongs() -> None:
    whole = encode_command(
        CommandKind.CAPTURE,
        ID,
        ANN,
        credit=BOB,
        reference=ID[::-1],
        units=2**63 - 1,
        timeout_ms=TIMEOUT_MS_MAX,
        flags=CommandFlag.KEEP_OPEN,
        user_data=USER_DATA,
        code=2**31 - 1,
    )
    assert fields(whole) == {
        "id": ID,
        "debit": ANN,
        "credit": BOB,
        "reference": ID[::-1],
        "user_data": USER_DATA.ljust(16, b"\0"),
        "amount": 2**63 - 1,
        "timeout_ms": TIMEOUT_MS_MAX,
        "code": 2**31 - 1,
        "flags": CommandFlag.KEEP_OPEN,
        "kind": CommandKind.CAPTURE,
    }
    assert fields(encode_command(CommandKind.FREEZE, ID, ANN)) == {"id": ID, "debit": ANN, "kind": CommandKind.FREEZE}


@pytest.mark.parametrize("name", ["a", "wallet:{ann}:savings", "n" * 48])
def test_an_open_has_the_name_across_three_fields(name: str) -> None:
    assert encode_open(ID, name, "EUR", 500, 9, flags=0) == encode_open(ID, name, "EUR", 500, 9)
    linked = np.frombuffer(encode_open(ID, name, "EUR", 500, 9, flags=CommandFlag.LINKED), COMMAND)
    assert linked["flags"] == CommandFlag.LINKED
    command = encode_open(ID, name, "EUR", 500, 9)
    record = np.frombuffer(command, COMMAND)[0]
    assert command[32:80].rstrip(b"\0") == name.encode()
    assert (record["id_head"], record["id_tail"]) == id_words(ID)
    assert (record["debit_head"], record["debit_tail"]) == id_words(account_id(name, "EUR"))
    assert (record["amount"], record["currency"]) == (500, currency_word("EUR"))
    assert (record["code"], record["kind"]) == (9, CommandKind.OPEN)
    assert [int(record[name]) for name in ("client_timestamp_ns", "timeout_ms", "flags", "reserved")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("amount", "decimals", "units"),
    [
        ("12.50", 2, 1250),
        ("12.5", 2, 1250),
        ("-3", 2, -300),
        ("0", 0, 0),
        ("92233720368547758.07", 2, 2**63 - 1),
        (Decimal("12.50"), 2, 1250),
        (Decimal("1E+3"), 0, 1000),
        (Decimal("1E-8"), 8, 1),
        (Decimal("-0"), 2, 0),
        (Decimal("9223372036854775807"), 0, 2**63 - 1),
    ],
)
def test_amounts_are_exact(amount: str | Decimal, decimals: int, units: int) -> None:
    assert amount_units(amount, decimals) == units


@pytest.mark.parametrize(
    "amount",
    [
        "",
        "1,5",
        "+1",
        " 1",
        "1e3",
        "1.500",
        "92233720368547758.08",
        "NaN",
        Decimal("1.500"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1E+999999999"),
        Decimal("1E-999999999"),
        Decimal("0E+999999999"),
        12,
        12.5,
        None,
        b"12",
    ],
)
def test_an_amount_that_is_not_exact_is_refused(amount: object) -> None:
    with pytest.raises(InvalidAmountOrName):
        amount_units(amount, 2)  # type: ignore[arg-type]


def test_no_limit_must_be_said_in_words() -> None:
    assert limit_units(UNLIMITED, 2) == LIMIT_UNLIMITED
    assert limit_units("0", 2) == 0
    with pytest.raises(InvalidAmountOrName, match="say UNLIMITED"):
        limit_units("92233720368547758.07", 2)


@pytest.mark.parametrize("identifier", [b"", b"short", bytes(17), "0123456789abcdef", 7])
def test_an_id_has_sixteen_bytes(identifier: object) -> None:
    with pytest.raises(UsageError, match="16 bytes"):
        check_id(identifier)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("user_data", "code", "reason"),
    [
        (bytes(17), 0, "up to 16 bytes, not 17"),
        ("text", 0, "user data are bytes"),
        (b"", 2**31, "a code is a 32-bit integer (2147483648 was given)"),
        (b"", "7", "a code is a 32-bit integer"),
    ],
)
def test_what_does_not_fit_is_refused(user_data: object, code: object, reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        encode_transfer(ID, ANN, BOB, 1, user_data=user_data, code=code)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=re.escape(reason)):
        encode_command(CommandKind.SET_LIMIT, ID, ANN, user_data=user_data, code=code)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_ms", [-1, TIMEOUT_MS_MAX + 1, 1.5, "60", None])
def test_the_timeout_of_a_hold_is_whole_milliseconds_up_to_a_century(timeout_ms: object) -> None:
    with pytest.raises(UsageError, match="a hold"):
        encode_command(CommandKind.HOLD, ID, ANN, timeout_ms=timeout_ms)  # type: ignore[arg-type]


def test_a_name_that_cannot_be_written_is_refused() -> None:
    for name in ("", "n" * 49, "two words", "bär"):
        with pytest.raises(InvalidAmountOrName):
            encode_open(ID, name, "EUR", 0, 0)
