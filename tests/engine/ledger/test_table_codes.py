"""Every code that depends on the state, of every kind: a row that must get it, in books where all of them are near."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from bezant.protocol.codes import CODE_ROW
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandField
from bezant.protocol.kinds import CommandKind as Kind

from .model_records import Command
from .tables import (
    MAX,
    Books,
    Expiry,
    Subject,
    capture,
    capture_open,
    close,
    forbid,
    freeze,
    hold,
    id_of,
    imported,
    open_account,
    release,
    row,
    set_limit,
    transfer,
    transfer_available,
    unfreeze,
)

ANN, TWO = "{t}ann", "{t}two"  # of one slot
HELD, CAPTURED, RELEASED, EXPIRED, NO_HOLD = (id_of(number) for number in range(1, 6))
OF_FROZEN, FOR_FROZEN, FOR_CLOSED, FOR_HIGH = (id_of(number) for number in range(6, 10))

PAIR: Final = (
    Code.DEBIT_ACCOUNT_UNKNOWN,
    Code.CREDIT_ACCOUNT_UNKNOWN,
    Code.CURRENCY_MISMATCH,
    Code.DEBIT_ACCOUNT_CLOSED,
    Code.CREDIT_ACCOUNT_CLOSED,
    Code.DEBIT_ACCOUNT_FROZEN,
    Code.CREDIT_ACCOUNT_FROZEN,
)
HOLD_CODES: Final = (
    Code.HOLD_UNKNOWN,
    Code.HOLD_CAPTURED,
    Code.HOLD_RELEASED,
    Code.HOLD_EXPIRED,
    Code.HOLD_OF_OTHER_ACCOUNTS,
)
NOT_EXECUTED: Final = (Code.IMPORTED_TIMESTAMP_IN_FUTURE, Code.IMPORTED_TIMESTAMP_NOT_RISING)
CODES: Final[dict[Kind, tuple[Code, ...]]] = {
    Kind.OPEN: (*NOT_EXECUTED, Code.ACCOUNTS_FULL, Code.CURRENCY_UNKNOWN, Code.ACCOUNT_EXISTS),
    Kind.SET_LIMIT: (*NOT_EXECUTED, Code.DEBIT_ACCOUNT_UNKNOWN, Code.DEBIT_ACCOUNT_CLOSED),
    Kind.FREEZE: (*NOT_EXECUTED, Code.DEBIT_ACCOUNT_UNKNOWN, Code.DEBIT_ACCOUNT_CLOSED),
    Kind.UNFREEZE: (*NOT_EXECUTED, Code.DEBIT_ACCOUNT_UNKNOWN, Code.DEBIT_ACCOUNT_CLOSED),
    Kind.CLOSE: (*NOT_EXECUTED, Code.DEBIT_ACCOUNT_UNKNOWN, Code.DEBIT_ACCOUNT_CLOSED, Code.ACCOUNT_NOT_EMPTY),
    Kind.TRANSFER: (*NOT_EXECUTED, *PAIR, Code.INSUFFICIENT_FUNDS, Code.BALANCE_OVERFLOW),
    Kind.TRANSFER_AVAILABLE: (*NOT_EXECUTED, *PAIR, Code.NOTHING_AVAILABLE, Code.BALANCE_OVERFLOW),
    Kind.HOLD: (
        *NOT_EXECUTED,
        Code.HOLDS_FULL,
        *PAIR,
        Code.INSUFFICIENT_FUNDS,
        Code.BALANCE_OVERFLOW,
        Code.HELD_OVERFLOW,
    ),
    # An account with an open hold cannot be closed, so a capture is never told that its debit account is.
    Kind.CAPTURE: (
        *NOT_EXECUTED,
        Code.DEBIT_ACCOUNT_UNKNOWN,
        Code.CREDIT_ACCOUNT_UNKNOWN,
        *HOLD_CODES,
        Code.CAPTURE_EXCEEDS_HOLD,
        Code.CREDIT_ACCOUNT_CLOSED,
        Code.DEBIT_ACCOUNT_FROZEN,
        Code.CREDIT_ACCOUNT_FROZEN,
        Code.BALANCE_OVERFLOW,
    ),
    Kind.RELEASE: (*NOT_EXECUTED, Code.DEBIT_ACCOUNT_UNKNOWN, *HOLD_CODES),
    Kind.FORBID: (Code.ID_FORBIDDEN,),
}
"""What the rules say that each kind can be answered with after its first two steps, other than COMMITTED."""

PAIRED: Final[dict[Kind, Callable[[str, str, int], Command]]] = {
    Kind.TRANSFER: transfer,
    Kind.TRANSFER_AVAILABLE: transfer_available,
    Kind.HOLD: hold,
}


def paired_cases(kind: Kind) -> list[tuple[Command, Code]]:
    make = PAIRED[kind]
    return [
        (make("nobody", "noone", 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        (make("nobody", ANN, 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        (make(ANN, "noone", 1), Code.CREDIT_ACCOUNT_UNKNOWN),
        (make(ANN, "ann/USD", 1), Code.CURRENCY_MISMATCH),
        (make("closed", "ann/USD", 1), Code.CURRENCY_MISMATCH),
        (make("closed", "gone", 1), Code.DEBIT_ACCOUNT_CLOSED),
        (make("closed", "frozen", 1), Code.DEBIT_ACCOUNT_CLOSED),
        (make(ANN, "closed", 1), Code.CREDIT_ACCOUNT_CLOSED),
        (make("frozen", "closed", 1), Code.CREDIT_ACCOUNT_CLOSED),
        (make("frozen", "cold", 1), Code.DEBIT_ACCOUNT_FROZEN),
        (make("frozen", "bob", MAX), Code.DEBIT_ACCOUNT_FROZEN),
        (make(ANN, "frozen", 1), Code.CREDIT_ACCOUNT_FROZEN),
        (make("bob", "frozen", 1), Code.CREDIT_ACCOUNT_FROZEN),
    ]


def hold_cases(make: Callable[[str, bytes], Command]) -> list[tuple[Command, Code]]:
    """What is wrong with the hold that a capture in favour of ``bob``, or a release, names."""
    return [
        (make("nobody", HELD), Code.DEBIT_ACCOUNT_UNKNOWN),
        (make(ANN, id_of(77)), Code.HOLD_UNKNOWN),
        (make(ANN, NO_HOLD), Code.HOLD_UNKNOWN),
        (make("world", HELD), Code.HOLD_UNKNOWN),
        (make(ANN, CAPTURED), Code.HOLD_CAPTURED),
        (make(ANN, RELEASED), Code.HOLD_RELEASED),
        (make(ANN, EXPIRED), Code.HOLD_EXPIRED),
        (make(TWO, CAPTURED), Code.HOLD_CAPTURED),
        (make(TWO, HELD), Code.HOLD_OF_OTHER_ACCOUNTS),
    ]


CASES: Final[dict[Kind, list[tuple[Command, Code]]]] = {
    Kind.OPEN: [
        (open_account("new/NONE"), Code.CURRENCY_UNKNOWN),
        (open_account(ANN), Code.ACCOUNT_EXISTS),
        (open_account("closed"), Code.ACCOUNT_EXISTS),
        (open_account("frozen", 5), Code.ACCOUNT_EXISTS),
    ],
    Kind.SET_LIMIT: [
        (set_limit("nobody", 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        (set_limit("closed", 1), Code.DEBIT_ACCOUNT_CLOSED),
    ],
    Kind.FREEZE: [
        (freeze("nobody"), Code.DEBIT_ACCOUNT_UNKNOWN),
        (freeze("closed"), Code.DEBIT_ACCOUNT_CLOSED),
    ],
    Kind.UNFREEZE: [
        (unfreeze("nobody"), Code.DEBIT_ACCOUNT_UNKNOWN),
        (unfreeze("closed"), Code.DEBIT_ACCOUNT_CLOSED),
    ],
    Kind.CLOSE: [
        (close("nobody"), Code.DEBIT_ACCOUNT_UNKNOWN),
        (close("closed"), Code.DEBIT_ACCOUNT_CLOSED),
        (close(ANN), Code.ACCOUNT_NOT_EMPTY),
        (close("low"), Code.ACCOUNT_NOT_EMPTY),
        (close("owing"), Code.ACCOUNT_NOT_EMPTY),
    ],
    Kind.TRANSFER: [
        *paired_cases(Kind.TRANSFER),
        (transfer(ANN, "bob", 101), Code.INSUFFICIENT_FUNDS),
        (transfer("bob", "high", 1), Code.INSUFFICIENT_FUNDS),
        (transfer("low", "high", 1), Code.BALANCE_OVERFLOW),
        (transfer("low", "bob", 1), Code.BALANCE_OVERFLOW),
        (transfer(ANN, "high", 1), Code.BALANCE_OVERFLOW),
    ],
    Kind.TRANSFER_AVAILABLE: [
        *paired_cases(Kind.TRANSFER_AVAILABLE),
        (transfer_available("bob", "high", 1), Code.NOTHING_AVAILABLE),
        (transfer_available("low", "high", 1), Code.NOTHING_AVAILABLE),
        (transfer_available(ANN, "high", 1), Code.BALANCE_OVERFLOW),
    ],
    Kind.HOLD: [
        *paired_cases(Kind.HOLD),
        (hold(ANN, "bob", 101), Code.INSUFFICIENT_FUNDS),
        (hold(ANN, "high", 101), Code.INSUFFICIENT_FUNDS),
        (hold("low", "bob", 1), Code.BALANCE_OVERFLOW),
        (hold("full", "bob", 1), Code.HELD_OVERFLOW),
    ],
    Kind.CAPTURE: [
        *hold_cases(lambda debit, reference: capture(debit, "bob", reference)),
        (capture(ANN, "nobody", HELD), Code.CREDIT_ACCOUNT_UNKNOWN),
        (capture(ANN, "nobody", id_of(77)), Code.CREDIT_ACCOUNT_UNKNOWN),
        (capture(ANN, "cold", HELD), Code.HOLD_OF_OTHER_ACCOUNTS),
        (capture(ANN, "ann/USD", HELD), Code.HOLD_OF_OTHER_ACCOUNTS),
        (capture(ANN, "cold", CAPTURED), Code.HOLD_CAPTURED),
        (capture(ANN, "bob", HELD, 21), Code.CAPTURE_EXCEEDS_HOLD),
        (capture(ANN, "bob", HELD, MAX), Code.CAPTURE_EXCEEDS_HOLD),
        (capture(ANN, "closed", FOR_CLOSED, MAX), Code.CAPTURE_EXCEEDS_HOLD),
        (capture(ANN, "closed", FOR_CLOSED), Code.CREDIT_ACCOUNT_CLOSED),
        (capture("frozen", "bob", OF_FROZEN), Code.DEBIT_ACCOUNT_FROZEN),
        (capture(ANN, "frozen", FOR_FROZEN), Code.CREDIT_ACCOUNT_FROZEN),
        (capture(ANN, "high", FOR_HIGH), Code.BALANCE_OVERFLOW),
        (capture(ANN, "high", FOR_HIGH, 1), Code.BALANCE_OVERFLOW),
    ],
    Kind.RELEASE: hold_cases(release),
    Kind.FORBID: [(forbid(ANN, id_of(88)), Code.ID_FORBIDDEN), (forbid("nobody", id_of(88)), Code.ID_FORBIDDEN)],
}
HAS_ROOM_CODES: Final = {Code.ACCOUNTS_FULL, Code.HOLDS_FULL}
"""Codes of tables that are full, which other tests fill."""


@pytest.fixture
def near_everything(make_subject: Callable[..., Subject]) -> Books:
    """Books in which every reason for a refusal is there; ``{t}ann`` can pay 100, ``bob`` nothing."""
    books = Books(make_subject(accounts_max=64, holds_max=64), apart=False)
    books.run(*(open_account(name, MAX) for name in ("world", "low", "full")), open_account("owing", 10))
    books.run(
        *(open_account(name) for name in (ANN, TWO, "bob", "cold", "frozen", "closed", "gone", "ann/USD", "high"))
    )
    books.run(
        transfer("low", "high", MAX),
        transfer("world", ANN, 161),
        transfer("world", "frozen", 50),
        transfer("world", "full", 10),
        transfer(ANN, "world", 1, id=NO_HOLD),
        hold("full", "bob", MAX),
        hold("owing", "bob", 10),
        hold("frozen", "bob", 10, id=OF_FROZEN),
    )
    held = {HELD: ("bob", 20), CAPTURED: ("bob", 10), RELEASED: ("bob", 10)}
    held |= {FOR_FROZEN: ("frozen", 10), FOR_CLOSED: ("closed", 10), FOR_HIGH: ("high", 10)}
    books.run(*(hold(ANN, credit, amount, id=reference) for reference, (credit, amount) in held.items()))
    books.run(capture(ANN, "bob", CAPTURED), transfer("bob", "world", 10), release(ANN, RELEASED))
    books.run(freeze("frozen"), freeze("cold"), close("closed"), close("gone"))
    expires = hold(ANN, "bob", 10, 1, id=EXPIRED)
    books.run(expires)
    expiry = Expiry(expires, 10, debit=150, held=50)
    books.check_entry([], at=books.subject.next_deadline_ns, expired=[expiry])
    return books


def test_the_cases_are_complete() -> None:
    """Every kind that is executed, and every code that the rules give it."""
    assert set(CASES) == set(CODES) == {kind for kind in Kind if kind < Kind.TRY_DEBIT} - {Kind.EXPIRE}
    for kind, cases in CASES.items():
        missing = set(CODES[kind]) - {code for _, code in cases} - set(NOT_EXECUTED) - HAS_ROOM_CODES
        assert not missing, f"{kind.name} has no row for {missing}"
        assert {code for _, code in cases} <= set(CODES[kind])
        assert all(command.kind == kind for command, _ in cases)


@pytest.mark.parametrize(("command", "code"), [case for cases in CASES.values() for case in cases])
def test_codes_that_depend_on_the_state(near_everything: Books, command: Command, code: Code) -> None:
    """And the refusal changes no account, and stands when the command is repeated."""
    books = near_everything
    accounts, holds = books.subject.list_accounts(0, 100).tobytes(), books.subject.hold_count
    books.check_entry([row(command, code)], balances=False)
    books.check_entry([row(command, code, repeated=True)], balances=False)
    assert CODE_ROW[code].leaves_event
    assert (books.subject.list_accounts(0, 100).tobytes(), books.subject.hold_count) == (accounts, holds)


VALID: Final = (
    open_account("new"),
    set_limit(ANN, 1),
    freeze(ANN),
    unfreeze(ANN),
    close(TWO),
    transfer(ANN, "bob", 1),
    transfer_available(ANN, "bob", 1),
    hold(ANN, "bob", 1),
    capture(ANN, "bob", HELD),
    capture_open(ANN, "bob", HELD, 1),
    release(ANN, HELD),
)


@pytest.mark.parametrize("command", VALID)
def test_what_every_kind_but_forbid_is_turned_away_for(near_everything: Books, command: Command) -> None:
    """Without an event and without the id, which is then used by a command that commits."""
    books = near_everything
    last_timestamp_ns = books.subject.last_timestamp_ns
    at = last_timestamp_ns + 100
    rows = [
        row(imported(command, at), Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        row(imported(command, MAX), Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        row(imported(command, last_timestamp_ns), Code.IMPORTED_TIMESTAMP_NOT_RISING),
        row(imported(command, last_timestamp_ns + 1)),
    ]
    events = books.check_entry(rows, at=at, balances=False).events
    assert events["timestamp_ns"].tolist() == [last_timestamp_ns + 1]


def test_full_tables(make_subject: Callable[..., Subject]) -> None:
    """No room is what an OPEN and a HOLD are told before the state is looked at, but not before their timestamps."""
    books = Books(make_subject(accounts_max=3, holds_max=2), apart=False)
    books.run(open_account("world", MAX), open_account("ann"), open_account("bob"))
    books.run(hold("world", "ann", 1, id=HELD), hold("world", "ann", 2, id=CAPTURED))
    late = hold("world", "ann", 3)
    books.check(
        row(open_account("new"), Code.ACCOUNTS_FULL),
        row(open_account("new/NONE"), Code.ACCOUNTS_FULL),
        row(open_account("ann"), Code.ACCOUNT_EXISTS),
        row(late, Code.HOLDS_FULL),
        row(hold("nobody", "ann", 3), Code.HOLDS_FULL),
        row(hold("ann", "world", MAX), Code.HOLDS_FULL),
        row(imported(hold("world", "ann", 3), MAX), Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        row(hold("world", "ann", 0), Code.AMOUNT_NOT_POSITIVE),
        row(replace(late, id=HELD), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(capture_open("world", "ann", HELD), Code.COMMITTED, -1, 1, held=2, effective=1),
        row(late, Code.COMMITTED, -1, 1, held=5),
        row(late, Code.COMMITTED, -1, 1, held=5, repeated=True),
        row(hold("world", "ann", 4), Code.HOLDS_FULL),
        row(capture_open("world", "ann", CAPTURED, 1), Code.COMMITTED, -2, 2, held=4),
        row(hold("world", "ann", 4), Code.HOLDS_FULL),
        row(release("world", CAPTURED), Code.COMMITTED, -2, held=3, effective=1),
        row(hold("world", "ann", 4), Code.COMMITTED, -2, 2, held=7),
    )
