"""Commands that nothing could make valid: no event, the id stays free, and the first fault decides the code."""

from dataclasses import replace

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import TIMEOUT_MS_MAX, CommandField, CommandFlag, CommandKind
from bezant.protocol.names import account_id

from .model_records import NO_ID, Command
from .tables import (
    MAX,
    MIN,
    Books,
    account,
    capture,
    close,
    forbid,
    freeze,
    fresh_id,
    hold,
    id_of,
    imported,
    linked,
    named,
    open_account,
    release,
    row,
    set_limit,
    transfer,
    transfer_available,
    unfreeze,
    word,
)

EXECUTED_KINDS = tuple(kind for kind in CommandKind if kind < CommandKind.TRY_DEBIT and kind != CommandKind.EXPIRE)
KINDS_WITH_AMOUNT = (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE, CommandKind.HOLD, CommandKind.CAPTURE)
HELD = id_of(99)
FIRST_BYTE = b"\x01" + bytes(15)
LAST_BYTE = bytes(15) + b"\x80"


def valid(kind: CommandKind) -> Command:
    """A command of the kind that commits in the books of `funded`; a FORBID never does, but is executed."""
    return {
        CommandKind.OPEN: open_account("eve", 5),
        CommandKind.TRANSFER: transfer("ann", "bob", 10),
        CommandKind.SET_LIMIT: set_limit("ann", 7),
        CommandKind.HOLD: hold("ann", "bob", 10, 1_000),
        CommandKind.CAPTURE: capture("cat", "bob", HELD, 3),
        CommandKind.RELEASE: release("cat", HELD),
        CommandKind.FREEZE: freeze("ann"),
        CommandKind.UNFREEZE: unfreeze("ann"),
        CommandKind.CLOSE: close("bob"),
        CommandKind.TRANSFER_AVAILABLE: transfer_available("ann", "bob", 10),
        CommandKind.FORBID: forbid("ann", fresh_id()),
    }[kind]


@pytest.fixture
def funded(books: Books) -> Books:
    """``ann`` has 100, ``bob`` nothing, and ``cat`` 20, all of it held in favour of ``bob``."""
    books.fund(ann=100, bob=0, cat=20)
    books.run(hold("cat", "bob", 20, id=HELD))
    return books


def check_malformed(books: Books, command: Command, code: Code, field: CommandField = CommandField.NONE) -> None:
    """The command is answered with the code and changes nothing; and its id can still be used."""
    accounts = books.subject.list_accounts(0, 100).tobytes()
    last_timestamp_ns = books.subject.last_timestamp_ns
    books.check(row(command, code, field=field), row(command, code, field=field))
    assert books.subject.list_accounts(0, 100).tobytes() == accounts
    assert books.subject.last_timestamp_ns == last_timestamp_ns


@pytest.mark.parametrize("kind", [-32768, -1, 0, 7, *range(13, 17), 32, 33, 34, 35, 36, 257, 258, 260, 32767])
def test_kinds_that_are_not_executed(funded: Books, kind: int) -> None:
    """EXPIRE, which nobody can ask for; reserved kinds; and numbers that are a kind's in their low byte."""
    for base in EXECUTED_KINDS:
        check_malformed(funded, replace(valid(base), kind=kind), Code.KIND_UNKNOWN)


@pytest.mark.parametrize("kind", EXECUTED_KINDS)
def test_kinds_that_are_executed(funded: Books, kind: CommandKind) -> None:
    """What all tables below start from has no fault but the one that they put in."""
    code = Code.ID_FORBIDDEN if kind == CommandKind.FORBID else Code.COMMITTED
    funded.check_entry([row(valid(kind), code)], balances=False)


@pytest.mark.parametrize("flags", [8, 16, 0x4000, -32768, -32766, -8])
@pytest.mark.parametrize("kind", EXECUTED_KINDS)
def test_flags_that_no_kind_has(funded: Books, kind: CommandKind, flags: int) -> None:
    check_malformed(funded, replace(valid(kind), flags=flags), Code.FLAGS_UNKNOWN)


@pytest.mark.parametrize("kind", EXECUTED_KINDS)
def test_flags_that_only_a_capture_has(funded: Books, kind: CommandKind) -> None:
    for flags in (CommandFlag.KEEP_OPEN, CommandFlag.KEEP_OPEN | CommandFlag.IMPORTED):
        timestamp_ns = 1 if flags & CommandFlag.IMPORTED else 0
        command = replace(valid(kind), flags=int(flags), client_timestamp_ns=timestamp_ns)
        if kind != CommandKind.CAPTURE:
            check_malformed(funded, command, Code.FLAGS_UNKNOWN)
        elif flags & CommandFlag.IMPORTED:
            funded.check(row(command, Code.IMPORTED_TIMESTAMP_NOT_RISING))
        else:
            funded.check(row(command, Code.COMMITTED, 17, 3, held=17))


def test_flags_that_all_but_forbid_have(funded: Books) -> None:
    check_malformed(funded, imported(valid(CommandKind.FORBID), 1), Code.FLAGS_UNKNOWN)
    first, last = linked(valid(CommandKind.FORBID), valid(CommandKind.FORBID))
    funded.check(row(first, Code.FLAGS_UNKNOWN), row(last, Code.CHAIN_MEMBER_NOT_EXECUTED))
    for kind in EXECUTED_KINDS:
        if kind != CommandKind.FORBID:
            funded.check(row(imported(valid(kind), 1), Code.IMPORTED_TIMESTAMP_NOT_RISING))


@pytest.mark.parametrize("reserved", [1, 1 << 31, 1 << 32, -1, MIN, MAX])
@pytest.mark.parametrize("kind", EXECUTED_KINDS)
def test_reserved_bytes(funded: Books, kind: CommandKind, reserved: int) -> None:
    check_malformed(funded, replace(valid(kind), reserved=reserved), Code.RESERVED_NOT_ZERO)


@pytest.mark.parametrize("kind", EXECUTED_KINDS)
def test_ids_that_are_none(funded: Books, kind: CommandKind) -> None:
    check_malformed(funded, replace(valid(kind), id=bytes(16)), Code.ID_INVALID)
    check_malformed(funded, replace(valid(kind), id=b"\xff" * 16), Code.ID_INVALID)


@pytest.mark.parametrize(
    "identifier",
    [
        bytes(8) + b"\xff" * 8,
        b"\xff" * 8 + bytes(8),
        FIRST_BYTE,
        LAST_BYTE,
        b"\xff" * 15 + b"\xfe",
        b"\xfe" + b"\xff" * 15,
    ],
)
def test_ids_that_are_nearly_none_are_ids(funded: Books, identifier: bytes) -> None:
    command = replace(valid(CommandKind.TRANSFER), id=identifier)
    funded.check(row(command, Code.COMMITTED, 90, 10), row(command, Code.COMMITTED, 90, 10, repeated=True))


@pytest.mark.parametrize("kind", EXECUTED_KINDS)
@pytest.mark.parametrize(
    ("flags", "timestamp_ns"),
    [
        (CommandFlag.IMPORTED, 0),
        (CommandFlag.IMPORTED, -1),
        (CommandFlag.IMPORTED, MIN),
        (0, 1),
        (0, -1),
        (0, MAX),
        (0, MIN),
    ],
)
def test_client_timestamps(funded: Books, kind: CommandKind, flags: int, timestamp_ns: int) -> None:
    command = replace(valid(kind), flags=int(flags), client_timestamp_ns=timestamp_ns)
    has_no_flags = kind == CommandKind.FORBID and flags
    check_malformed(funded, command, Code.FLAGS_UNKNOWN if has_no_flags else Code.TIMESTAMP_INVALID)


VALUES_OF_FIELDS = {
    CommandField.CREDIT: [{"credit": FIRST_BYTE}, {"credit": LAST_BYTE}, {"credit": account("ann")}],
    CommandField.AMOUNT: [{"amount": 1}, {"amount": -1}, {"amount": MIN}, {"amount": MAX}],
    CommandField.REFERENCE: [{"reference": FIRST_BYTE}, {"reference": LAST_BYTE}, {"reference": HELD}],
    CommandField.TIMEOUT_MS: [{"timeout_ms": 1}, {"timeout_ms": -1}, {"timeout_ms": MIN}, {"timeout_ms": 2**32}],
    CommandField.CURRENCY: [{"currency": word(b"EUR")}, {"currency": MIN}, {"currency": 1}],
}
_F, _K = CommandField, CommandKind
_OF_ONE_ACCOUNT = (_F.CREDIT, _F.AMOUNT, _F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (_K.OPEN, (_F.TIMEOUT_MS,)),
        (_K.TRANSFER, (_F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY)),
        (_K.TRANSFER_AVAILABLE, (_F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY)),
        (_K.SET_LIMIT, (_F.CREDIT, _F.REFERENCE, _F.TIMEOUT_MS, _F.CURRENCY)),
        (_K.HOLD, (_F.REFERENCE, _F.CURRENCY)),
        (_K.CAPTURE, (_F.TIMEOUT_MS, _F.CURRENCY)),
        (_K.RELEASE, (_F.CREDIT, _F.AMOUNT, _F.TIMEOUT_MS, _F.CURRENCY)),
        (_K.FREEZE, _OF_ONE_ACCOUNT),
        (_K.UNFREEZE, _OF_ONE_ACCOUNT),
        (_K.CLOSE, _OF_ONE_ACCOUNT),
        (_K.FORBID, _OF_ONE_ACCOUNT),
    ],
)
def test_fields_that_the_kind_does_not_use(funded: Books, kind: CommandKind, fields: tuple[CommandField, ...]) -> None:
    """Each by itself, and each together with all that come after it: the first is named."""
    for number, field in enumerate(fields):
        for values in VALUES_OF_FIELDS[field]:
            check_malformed(funded, replace(valid(kind), **values), Code.FIELD_NOT_ALLOWED, field)
            later: dict[str, bytes | int] = {}
            for other in fields[number + 1 :]:
                later |= VALUES_OF_FIELDS[other][0]
            check_malformed(funded, replace(valid(kind), **values, **later), Code.FIELD_NOT_ALLOWED, field)


@pytest.mark.parametrize("code", [1, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("kind", EXECUTED_KINDS)
def test_fields_that_are_only_carried(funded: Books, kind: CommandKind, code: int) -> None:
    """All kinds carry a code of any value, and user data, which in an OPEN is the name."""
    carried: dict[str, bytes | int] = {"code": code}
    if kind != CommandKind.OPEN:
        carried["user_data"] = b"\xff" * 16
    wanted = Code.ID_FORBIDDEN if kind == CommandKind.FORBID else Code.COMMITTED
    command = replace(valid(kind), **carried)
    funded.check_entry([row(command, wanted)], balances=False)


@pytest.mark.parametrize("amount", [0, -1, -100, MIN, MIN + 1])
@pytest.mark.parametrize("kind", KINDS_WITH_AMOUNT)
def test_amounts_that_move_nothing(funded: Books, kind: CommandKind, amount: int) -> None:
    """A capture of 0 is one of all that remains."""
    command = replace(valid(kind), amount=amount)
    if (kind, amount) == (CommandKind.CAPTURE, 0):
        funded.check(row(command, Code.COMMITTED, 0, 20, effective=20))
    else:
        check_malformed(funded, command, Code.AMOUNT_NOT_POSITIVE)


@pytest.mark.parametrize("identifier", [account("ann"), account("nobody"), NO_ID, b"\xff" * 16])
@pytest.mark.parametrize("kind", KINDS_WITH_AMOUNT)
def test_transfers_to_the_same_account(funded: Books, kind: CommandKind, identifier: bytes) -> None:
    check_malformed(funded, replace(valid(kind), debit=identifier, credit=identifier), Code.ACCOUNTS_EQUAL)


@pytest.mark.parametrize("timeout_ms", [-1, MIN, TIMEOUT_MS_MAX + 1, 2**62, MAX])
def test_timeouts_out_of_range(funded: Books, timeout_ms: int) -> None:
    check_malformed(funded, hold("ann", "bob", 1, timeout_ms), Code.TIMEOUT_INVALID)


@pytest.mark.parametrize("timeout_ms", [0, 1, TIMEOUT_MS_MAX - 1, TIMEOUT_MS_MAX])
def test_timeouts_at_the_edges(funded: Books, timeout_ms: int) -> None:
    funded.check(row(hold("ann", "bob", 1, timeout_ms), Code.COMMITTED, 100, 0, held=1))


@pytest.mark.parametrize("kind", [CommandKind.CAPTURE, CommandKind.RELEASE])
def test_references_to_nothing(funded: Books, kind: CommandKind) -> None:
    """All zeros is no reference; anything else is one, also what cannot be an id."""
    check_malformed(funded, replace(valid(kind), reference=NO_ID), Code.REFERENCE_MISSING)
    for reference in (FIRST_BYTE, LAST_BYTE, b"\xff" * 16):
        funded.check(row(replace(valid(kind), reference=reference), Code.HOLD_UNKNOWN, 20, 0, held=20))


@pytest.mark.parametrize("byte", [0, 7, 8, 15])
def test_accounts_that_differ_in_one_bit_are_not_the_same(funded: Books, byte: int) -> None:
    other = bytearray(account("ann"))
    other[byte] ^= 1
    funded.check(
        row(transfer("ann", bytes(other), 1), Code.CREDIT_ACCOUNT_UNKNOWN, 100),
        row(transfer(bytes(other), "ann", 1), Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
    )


@pytest.mark.parametrize("limit", [-1, MIN, MIN + 1])
def test_negative_limits(funded: Books, limit: int) -> None:
    check_malformed(funded, open_account("eve", limit), Code.LIMIT_NEGATIVE)
    check_malformed(funded, set_limit("ann", limit), Code.LIMIT_NEGATIVE)
    check_malformed(funded, set_limit("nobody", limit), Code.LIMIT_NEGATIVE)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b" ",
        b"a b",
        b"ann ",
        b" ann",
        b"ann\t",
        b"\x1f",
        b"\x7f",
        b"\x80",
        b"\xff" * 48,
        "Ängie".encode("latin-1"),
        "Ängie".encode(),
        b"\0ann",
        b"a\0nn",
        b"a" * 7 + b"\0" + b"b",
        b"a" * 15 + b"\0" + b"b",
        b"a" + bytes(46) + b"b",
        b"a" * 47 + b" ",
        b"a" * 47 + b"\x80",
    ],
)
def test_names_that_are_none(funded: Books, name: bytes) -> None:
    """Whatever the account id says: the name is looked at before it."""
    check_malformed(funded, replace(open_account("eve"), **named(name)), Code.NAME_INVALID)


@pytest.mark.parametrize(
    "name",
    [
        "!",
        "~",
        "a" * 7,
        "a" * 8,
        "a" * 9,
        "a" * 15,
        "a" * 16,
        "a" * 17,
        "a" * 32,
        "a" * 47,
        "~" * 48,
        "".join(chr(code) for code in range(0x21, 0x21 + 48)),
        "".join(chr(code) for code in range(0x7F - 48, 0x7F)),
        "wallet:{ann}:savings",
        "{ann}",
        "{}",
        "{}ann",
        "x{}{ann}",
        "{ann",
        "ann}",
        "}ann{",
        "}{ann}",
        "{{ann}}",
        "{a}{b}",
        "{" * 48,
        "{" + "a" * 46 + "}",
        "a" * 46 + "{}",
        "a" * 45 + "{b}",
    ],
)
@pytest.mark.parametrize("currency", ["EUR", "JPY"])
def test_names_at_the_edges_are_names(funded: Books, name: str, currency: str) -> None:
    """Length 1 and 48, the first and the last character, and every way in which a tag can be there or not."""
    identifier = account_id(name, currency)
    command = replace(open_account("x", 5), debit=identifier, currency=word(currency.encode()), **named(name.encode()))
    funded.check(row(command))
    found = funded.find(identifier)
    assert (found["found"], found["name"], found["limit"]) == (1, name.encode(), 5)


@pytest.mark.parametrize("currency", [b"", b"eur", b"EuR", b"E R", b"EUR ", b"E\0UR", b"\0EUR", b"EUR\0\0\0\0A"])
def test_currencies_that_are_none(funded: Books, currency: bytes) -> None:
    check_malformed(funded, replace(open_account("eve"), currency=word(currency)), Code.CURRENCY_INVALID)


@pytest.mark.parametrize("byte", [0x01, 0x20, 0x2F, 0x3A, 0x40, 0x5B, 0x60, 0x61, 0x7F, 0x80, 0xB0, 0xC1, 0xFF])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_bytes_around_the_capitals_and_digits_of_a_currency(funded: Books, byte: int, place: int) -> None:
    currency = bytearray(b"EURUSDJP")
    currency[place] = byte
    check_malformed(funded, replace(open_account("eve"), currency=word(bytes(currency))), Code.CURRENCY_INVALID)


@pytest.mark.parametrize("currency", ["A", "Z", "0", "9", "A0Z9", "ZZZZZZZZ", "00000000", "POINTS"])
def test_currencies_at_the_edges_are_currencies(funded: Books, currency: str) -> None:
    funded.check(row(open_account(f"eve/{currency}"), Code.CURRENCY_UNKNOWN))
    funded.subject.register_currency(currency, 18)
    funded.check(row(open_account(f"eve/{currency}")))
    assert funded.find(f"eve/{currency}")["decimals"] == 18


@pytest.mark.parametrize("byte", range(16))
@pytest.mark.parametrize("bit", [0x01, 0x10, 0x80])
def test_account_ids_that_are_wrong_in_one_bit(funded: Books, byte: int, bit: int) -> None:
    identifier = bytearray(account("eve"))
    identifier[byte] ^= bit
    check_malformed(funded, replace(open_account("eve"), debit=bytes(identifier)), Code.ACCOUNT_ID_MISMATCH)


def test_account_ids_of_other_accounts(funded: Books) -> None:
    for identifier in (account("ann"), account("eve/USD"), NO_ID, b"\xff" * 16):
        check_malformed(funded, replace(open_account("eve"), debit=identifier), Code.ACCOUNT_ID_MISMATCH)


FAULTS_IN_COMMON = (
    ({"kind": CommandKind.EXPIRE}, Code.KIND_UNKNOWN, CommandField.NONE),
    ({"flags": 8}, Code.FLAGS_UNKNOWN, CommandField.NONE),
    ({"reserved": 1}, Code.RESERVED_NOT_ZERO, CommandField.NONE),
    ({"id": NO_ID}, Code.ID_INVALID, CommandField.NONE),
    ({"client_timestamp_ns": 1}, Code.TIMESTAMP_INVALID, CommandField.NONE),
)
TIMEOUT_NOT_ALLOWED = ({"timeout_ms": 1}, Code.FIELD_NOT_ALLOWED, CommandField.TIMEOUT_MS)
CURRENCY_NOT_ALLOWED = ({"currency": 1}, Code.FIELD_NOT_ALLOWED, CommandField.CURRENCY)
AMOUNT_NEGATIVE = ({"amount": -1}, Code.AMOUNT_NOT_POSITIVE, CommandField.NONE)
REFERENCE_MISSING = ({"reference": NO_ID}, Code.REFERENCE_MISSING, CommandField.NONE)


@pytest.mark.parametrize(
    ("kind", "faults"),
    [
        (
            CommandKind.OPEN,
            (
                TIMEOUT_NOT_ALLOWED,
                (named(b""), Code.NAME_INVALID, CommandField.NONE),
                ({"currency": 0}, Code.CURRENCY_INVALID, CommandField.NONE),
                ({"debit": NO_ID}, Code.ACCOUNT_ID_MISMATCH, CommandField.NONE),
                ({"amount": -1}, Code.LIMIT_NEGATIVE, CommandField.NONE),
            ),
        ),
        (
            CommandKind.TRANSFER,
            (
                TIMEOUT_NOT_ALLOWED,
                AMOUNT_NEGATIVE,
                ({"debit": account("bob")}, Code.ACCOUNTS_EQUAL, CommandField.NONE),
            ),
        ),
        (
            CommandKind.TRANSFER_AVAILABLE,
            (
                TIMEOUT_NOT_ALLOWED,
                AMOUNT_NEGATIVE,
                ({"debit": account("bob")}, Code.ACCOUNTS_EQUAL, CommandField.NONE),
            ),
        ),
        (CommandKind.SET_LIMIT, (TIMEOUT_NOT_ALLOWED, ({"amount": -1}, Code.LIMIT_NEGATIVE, CommandField.NONE))),
        (
            CommandKind.HOLD,
            (
                CURRENCY_NOT_ALLOWED,
                AMOUNT_NEGATIVE,
                ({"debit": account("bob")}, Code.ACCOUNTS_EQUAL, CommandField.NONE),
                ({"timeout_ms": -1}, Code.TIMEOUT_INVALID, CommandField.NONE),
            ),
        ),
        (
            CommandKind.CAPTURE,
            (
                TIMEOUT_NOT_ALLOWED,
                AMOUNT_NEGATIVE,
                ({"credit": account("cat")}, Code.ACCOUNTS_EQUAL, CommandField.NONE),
                REFERENCE_MISSING,
            ),
        ),
        (CommandKind.RELEASE, (TIMEOUT_NOT_ALLOWED, REFERENCE_MISSING)),
        (CommandKind.FREEZE, (TIMEOUT_NOT_ALLOWED,)),
        (CommandKind.UNFREEZE, (TIMEOUT_NOT_ALLOWED,)),
        (CommandKind.CLOSE, (TIMEOUT_NOT_ALLOWED,)),
        (CommandKind.FORBID, (TIMEOUT_NOT_ALLOWED,)),
    ],
)
def test_the_first_fault_is_reported(
    funded: Books, kind: CommandKind, faults: tuple[tuple[dict[str, bytes | int], Code, CommandField], ...]
) -> None:
    """A command with every fault of its kind; then the first one is mended, and the next must come to light."""
    ladder = FAULTS_IN_COMMON + faults
    for step, (_, code, field) in enumerate(ladder):
        wrong = {name: value for fields, _, _ in reversed(ladder[step:]) for name, value in fields.items()}
        check_malformed(funded, replace(valid(kind), **wrong), code, field)


def test_a_malformed_command_does_not_use_its_id(funded: Books) -> None:
    funded.check(
        row(transfer("ann", "bob", 0, id=id_of(1)), Code.AMOUNT_NOT_POSITIVE),
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10),
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10, repeated=True),
        row(transfer("ann", "bob", 0, id=id_of(1)), Code.AMOUNT_NOT_POSITIVE),
        row(transfer("ann", "ann", 10, id=id_of(1)), Code.ACCOUNTS_EQUAL),
        row(transfer("ann", "bob", 10, id=id_of(1), currency=9), Code.FIELD_NOT_ALLOWED, field=CommandField.CURRENCY),
        row(transfer("ann", "bob", 10, id=id_of(1), kind=7), Code.KIND_UNKNOWN),
    )
