"""Halves of transfers between shards: each rule of tries and their ends, and every order in which messages can come."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import LEG_SHIFT, REASON_MAX, CommandField, CommandFlag
from bezant.protocol.records import RULES_VERSION

from .model_records import encode_commands
from .tables import (
    MAX,
    Books,
    Subject,
    cancel,
    capture,
    close,
    confirm,
    forbid,
    freeze,
    hold,
    id_of,
    linked,
    open_account,
    open_transit,
    plan,
    release,
    row,
    set_limit,
    transfer,
    transfer_available,
    try_credit,
    try_debit,
    try_part,
    unfreeze,
)

T: Final = "transit:0:1"
TRY, OTHER = id_of(1), id_of(2)
SETTLED: Final = {"flags": int(CommandFlag.SETTLED)}


@pytest.fixture
def made(make_books: Callable[..., Books]) -> Books:
    """Ann has 100, bob nothing; a transit account, and all in EUR."""
    books = make_books()
    books.subject.switch_rules(RULES_VERSION)
    books.fund(ann=100, bob=0)
    books.run(open_transit(T))
    return books


def amounts(books: Books, name: str) -> tuple[int, int, int]:
    """(balance, held, incoming)."""
    found = books.find(name)
    return int(found["balance"]), int(found["held"]), int(found["incoming"])


# ---- under rules 1 ----


def test_rules_1_know_nothing_of_it(make_books: Callable[..., Books]) -> None:
    books = make_books()
    books.fund(ann=100)
    books.check(
        row(open_transit(T), Code.FLAGS_UNKNOWN),
        row(try_debit("ann", "far", 1, T), Code.KIND_UNKNOWN),
        row(try_credit(T, "ann", 1), Code.KIND_UNKNOWN),
        row(confirm("ann", T, TRY), Code.KIND_UNKNOWN),
        row(cancel("ann", T, TRY), Code.KIND_UNKNOWN),
    )
    books.run(open_account(T, MAX))


# ---- transit accounts ----


def test_a_transit_account_takes_part_in_nothing_else(made: Books) -> None:
    made.check(
        row(transfer("ann", T, 1), Code.TRANSIT_ACCOUNT, 100),
        row(transfer(T, "ann", 1), Code.TRANSIT_ACCOUNT, 0, 100),
        row(transfer_available("ann", T, 1), Code.TRANSIT_ACCOUNT, 100),
        row(hold("ann", T, 1), Code.TRANSIT_ACCOUNT, 100),
        row(hold(T, "ann", 1), Code.TRANSIT_ACCOUNT, 0, 100),
        row(freeze(T), Code.TRANSIT_ACCOUNT),
        row(unfreeze(T), Code.TRANSIT_ACCOUNT),
        row(close(T), Code.TRANSIT_ACCOUNT),
        row(set_limit(T, 0), Code.TRANSIT_ACCOUNT),
        row(try_debit(T, "far", 1, T), Code.TRANSIT_ACCOUNT),
        row(try_credit(T, T + "x", 1), Code.CREDIT_ACCOUNT_UNKNOWN),
        row(open_account(T), Code.NAME_INVALID),
        row(open_transit("ann"), Code.NAME_INVALID),
        row(open_transit(T), Code.ACCOUNT_EXISTS),
    )


def test_a_leg_without_its_transit_account_waits(made: Books) -> None:
    made.check(
        row(try_debit("ann", "far", 1, "bob", id=TRY), Code.TRANSIT_UNKNOWN),
        row(try_debit("ann", "far", 1, bytes(16), id=TRY), Code.TRANSIT_UNKNOWN),
        row(try_debit("nobody", "far", 1, bytes(16)), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(try_credit("ann", "bob", 1, id=TRY), Code.TRANSIT_UNKNOWN),
        row(confirm("ann", "bob", TRY), Code.TRANSIT_UNKNOWN),
        row(cancel("ann", "bob", TRY), Code.TRANSIT_UNKNOWN),
        row(try_debit("ann", "far", 1, T, id=TRY), Code.UNDECIDED, 100, held=1),
    )


# ---- what refuses a try ----


def test_what_refuses_a_try(made: Books) -> None:
    made.run(open_account("eve/USD"), open_account("gone"), open_account("ice"))
    made.run(close("gone"), freeze("ice"))
    made.check(
        row(try_debit("eve/USD", "far", 1, T), Code.CURRENCY_MISMATCH),
        row(try_debit("gone", "far", 1, T), Code.DEBIT_ACCOUNT_CLOSED),
        row(try_debit("ice", "far", 1, T), Code.DEBIT_ACCOUNT_FROZEN),
        row(try_debit("ann", "far", 101, T), Code.INSUFFICIENT_FUNDS, 100),
        row(try_credit(T, "nobody", 1), Code.CREDIT_ACCOUNT_UNKNOWN),
        row(try_credit(T, "eve/USD", 1), Code.CURRENCY_MISMATCH),
        row(try_credit(T, "gone", 1), Code.CREDIT_ACCOUNT_CLOSED),
        row(try_credit(T, "ice", 1), Code.CREDIT_ACCOUNT_FROZEN),
        row(try_credit(T, "ann", MAX), Code.BALANCE_OVERFLOW, 0, 100),
    )


def test_there_stays_room_for_what_is_reserved(made: Books) -> None:
    made.check(
        row(try_credit(T, "bob", MAX - 5, id=TRY), held=MAX - 5, effective=MAX - 5),
        row(try_credit(T, "bob", 6), Code.BALANCE_OVERFLOW, held=MAX - 5),
        row(transfer("ann", "bob", 6), Code.BALANCE_OVERFLOW, 100),
        row(transfer("ann", "bob", 5), Code.COMMITTED, 95, 5),
        row(confirm(T, "bob", TRY), Code.COMMITTED, 5 - MAX, MAX, effective=MAX - 5),
    )


# ---- each order of messages ----


def test_a_try_and_its_confirm_and_what_comes_late(made: Books) -> None:
    confirmed = confirm("ann", T, TRY)
    made.check(
        row(try_debit("ann", "far", 30, T, id=TRY), Code.UNDECIDED, 100, held=30),
        row(try_debit("ann", "far", 30, T, id=TRY), Code.UNDECIDED, 100, held=30, repeated=True),
        row(transfer("ann", "far", 30, id=TRY), Code.UNDECIDED, 100, held=30, repeated=True),
        row(confirmed, Code.COMMITTED, 70, 30, effective=30),
        row(confirmed, Code.COMMITTED, 70, 30, repeated=True),
        row(cancel("ann", T, TRY), Code.HOLD_CAPTURED, 70, 30),
        row(confirm("ann", T, TRY), Code.HOLD_CAPTURED, 70, 30),
        row(try_debit("ann", "far", 30, T, id=TRY), Code.UNDECIDED, 100, held=30, repeated=True),
    )
    assert [bool(one) for one in made.subject.unsettled()["is_confirm"].tolist()] == [True]


def test_a_try_and_its_cancel_and_what_comes_late(made: Books) -> None:
    made.check(
        row(try_credit(T, "bob", 30, id=TRY), held=30, effective=30),
        row(cancel(T, "bob", TRY), Code.COMMITTED, effective=30),
        row(cancel(T, "bob", TRY), Code.COMMITTED, effective=0),
        row(confirm(T, "bob", TRY), Code.HOLD_RELEASED),
        row(try_credit(T, "bob", 30, id=TRY), Code.ID_FORBIDDEN, held=30, repeated=True),
    )
    assert amounts(made, "bob") == (0, 0, 0)


def test_a_cancel_before_its_try(made: Books) -> None:
    made.check_entry(
        [row(cancel(T, "bob", TRY), effective=0), row(cancel("ann", T, OTHER), effective=0)], balances=False
    )
    for command in (try_credit(T, "bob", 30, id=TRY), try_debit("ann", "far", 30, T, id=OTHER)):
        executed = made.subject.execute(encode_commands([command]), made.next_timestamp_ns())
        assert executed.results["code"].tolist() == [Code.ID_FORBIDDEN]
        assert len(executed.events) == 0
    made.check(row(cancel(T, "bob", TRY), effective=0), row(confirm(T, "bob", TRY), Code.HOLD_RELEASED))
    # The ids of legs are apart: whoever knows one cannot use it up.
    made.run(transfer("ann", "bob", 1, id=TRY))


def test_a_cancel_of_what_was_no_try(made: Books) -> None:
    made.run(transfer("ann", "bob", 1, id=TRY))
    made.check(
        row(try_debit("ann", "far", 200, T, id=OTHER), Code.INSUFFICIENT_FUNDS, 99),
        row(cancel("ann", T, OTHER), Code.COMMITTED, 99, effective=0),
        row(confirm("ann", T, OTHER), Code.HOLD_UNKNOWN, 99),
        row(cancel("ann", T, TRY), Code.HOLD_UNKNOWN, 99),
        row(confirm("ann", T, id_of(9)), Code.HOLD_UNKNOWN, 99),
        row(forbid("ann", id_of(8)), Code.ID_FORBIDDEN, 99),
        row(cancel("ann", T, id_of(8)), Code.COMMITTED, 99, effective=0),
    )


def test_a_try_is_no_hold_and_a_hold_no_try(made: Books) -> None:
    made.run(hold("ann", "bob", 10, id=OTHER))
    made.check(
        row(try_debit("ann", "far", 30, T, id=TRY), Code.UNDECIDED, 100, held=40),
        row(capture("ann", "bob", TRY), Code.HOLD_UNKNOWN, 100, held=40),
        row(release("ann", TRY), Code.HOLD_UNKNOWN, 100, held=40),
        row(confirm("ann", T, OTHER), Code.HOLD_UNKNOWN, 100, held=40),
        row(cancel("ann", T, OTHER), Code.HOLD_UNKNOWN, 100, held=40),
        row(confirm("bob", T, TRY), Code.HOLD_UNKNOWN),
    )


def test_nothing_that_becomes_of_the_accounts_stops_a_confirm(made: Books) -> None:
    made.check(
        row(try_debit("ann", "far", 30, T, id=TRY), Code.UNDECIDED, 100, held=30),
        row(try_credit(T, "bob", 20, id=TRY), held=20),
        row(close("bob"), Code.ACCOUNT_NOT_EMPTY),
    )
    made.run(freeze("ann"), freeze("bob"), set_limit("ann", 0))
    made.check(
        row(confirm("ann", T, TRY), Code.COMMITTED, 70, 30, credit_held=20, effective=30),
        row(confirm(T, "bob", TRY), Code.COMMITTED, 10, 20, effective=20),
    )
    assert amounts(made, T) == (10, 0, 0)


def test_what_was_settled_at_once_leaves_nothing_to_tell(made: Books) -> None:
    made.check(row(try_debit("ann", "far", 30, T, id=TRY), Code.UNDECIDED, 100, held=30))
    made.run(cancel("ann", T, TRY, **SETTLED))
    assert len(made.subject.unsettled()) == len(made.subject.open_tries()) == 0


def test_no_chain_has_a_leg(made: Books) -> None:
    chain = linked(transfer("ann", "bob", 1), try_debit("ann", "far", 30, T, id=TRY))
    made.check(
        row(chain[0], Code.CHAIN_MEMBER_NOT_EXECUTED),
        row(chain[1], Code.KIND_UNKNOWN),
        row(replace(chain[1], flags=int(CommandFlag.IMPORTED), client_timestamp_ns=1), Code.FLAGS_UNKNOWN),
    )


def test_a_decision_always_finds_room(make_subject: Callable[..., Subject]) -> None:
    """Open tries and what is unsettled are bounded together."""
    books = Books(make_subject(holds_max=2), apart=False)
    books.subject.switch_rules(RULES_VERSION)
    books.fund(ann=100)
    books.run(open_transit(T))
    books.check(
        row(try_debit("ann", "far", 1, T, id=TRY), Code.UNDECIDED, 100, held=1),
        row(try_debit("ann", "far", 1, T, id=OTHER), Code.UNDECIDED, 100, held=2),
        row(confirm("ann", T, TRY), Code.COMMITTED, 99, 1, held=1, effective=1),
        row(try_debit("ann", "far", 1, T), Code.HOLDS_FULL),
        row(hold("ann", "world", 1), Code.COMMITTED, 99, -100, held=2),
        row(confirm("ann", T, OTHER), Code.COMMITTED, 98, 2, held=1, effective=1),
        row(try_debit("ann", "far", 1, T), Code.HOLDS_FULL),
    )


# ---- what another shard decides ----


def test_a_part_is_held_until_another_shard_has_decided(made: Books) -> None:
    made.run(set_limit("ann", 0))
    ends = {"flags": int(CommandFlag.PART)}
    made.check(
        row(try_part("ann", "far", 30, T, id=TRY), Code.COMMITTED, 100, held=30),
        row(try_part("ann", "far", 30, T, id=TRY), Code.COMMITTED, 100, held=30, repeated=True),
        row(try_part("ann", "far", 80, T, id=OTHER), Code.INSUFFICIENT_FUNDS, 100, held=30),
        row(confirm("ann", T, TRY), Code.HOLD_UNKNOWN, 100, held=30),
        row(confirm("ann", T, TRY, **ends), Code.COMMITTED, 70, 30, effective=30),
        row(cancel("ann", T, TRY, **ends), Code.HOLD_CAPTURED, 70, 30),
        row(cancel("ann", T, OTHER, **ends), Code.COMMITTED, 70, 30, effective=0),
        row(try_part("ann", "far", 5, T, id=id_of(3)), Code.COMMITTED, 70, held=5),
        row(cancel("ann", T, id_of(3), **ends), Code.COMMITTED, 70, 30, effective=5),
    )
    assert len(made.subject.open_tries()) == len(made.subject.unsettled()) == 0
    # The ids are apart: whoever knows one cannot use it up.
    made.run(transfer("ann", "bob", 1, id=TRY))


def test_a_part_that_comes_after_its_cancel(made: Books) -> None:
    ends = {"flags": int(CommandFlag.PART)}
    made.check_entry([row(cancel("ann", T, TRY, **ends), effective=0)], balances=False)
    executed = made.subject.execute(encode_commands([try_part("ann", "far", 5, T, id=TRY)]), made.next_timestamp_ns())
    assert (executed.results["code"].tolist(), len(executed.events)) == ([Code.ID_FORBIDDEN], 0)
    made.check(row(try_debit("ann", "far", 5, T, id=TRY), Code.UNDECIDED, 100, held=5))


def test_a_part_without_its_transit_account_waits(made: Books) -> None:
    made.check(
        row(try_part("ann", "far", 1, "bob", id=TRY), Code.TRANSIT_UNKNOWN),
        row(try_part("nobody", "far", 1, bytes(16)), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(try_part("ann", "far", 1, T, id=TRY), Code.COMMITTED, 100, held=1),
    )


def test_a_plan_is_there_to_be_read_again(made: Books) -> None:
    planned = plan("ann", "x", "ann", 7, id=TRY, code=5)
    made.check(
        row(planned, Code.COMMITTED, 100, effective=0),
        row(planned, Code.COMMITTED, 100, repeated=True),
        row(replace(planned, amount=8), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(plan("ann", "x", "x", 7), Code.ACCOUNTS_EQUAL),
        row(plan("ann", bytes(16), "ann", 7), Code.REFERENCE_MISSING),
        row(plan("ann", "x", "ann", 0), Code.AMOUNT_NOT_POSITIVE),
        row(plan("nobody", "x", "ann", 1), Code.COMMITTED, effective=0),
    )


def test_what_a_transaction_is_stands_in_its_first_try(made: Books) -> None:
    begun = try_debit("ann", "far", 30, T, id=TRY, timeout_ms=1 << LEG_SHIFT | 3)
    made.check(
        row(replace(begun, timeout_ms=3 << LEG_SHIFT), Code.TIMEOUT_INVALID),
        row(replace(begun, timeout_ms=-1), Code.TIMEOUT_INVALID),
        row(begun, Code.UNDECIDED, 100, held=30),
        row(replace(begun, timeout_ms=1 << LEG_SHIFT | 4), Code.ID_CONFLICT, field=CommandField.TIMEOUT_MS),
        row(transfer("ann", "far", 30, id=TRY), Code.ID_CONFLICT, field=CommandField.TIMEOUT_MS),
        row(cancel("ann", T, TRY, timeout_ms=REASON_MAX + 1), Code.TIMEOUT_INVALID),
        row(cancel("ann", T, TRY, timeout_ms=256 << LEG_SHIFT), Code.TIMEOUT_INVALID),
        row(cancel("ann", T, TRY, timeout_ms=255 << LEG_SHIFT | 303), Code.COMMITTED, 100, effective=30),
    )
