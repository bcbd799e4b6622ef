"""What TRANSFER_AVAILABLE, FREEZE, UNFREEZE, CLOSE and FORBID do to the books: one row per command."""

from dataclasses import replace

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import AccountFlag, CommandField

from .tables import (
    MAX,
    Books,
    capture,
    close,
    forbid,
    freeze,
    hold,
    id_of,
    open_account,
    release,
    row,
    set_limit,
    transfer,
    transfer_available,
    unfreeze,
)

FROZEN, CLOSED = int(AccountFlag.FROZEN), int(AccountFlag.CLOSED)


@pytest.fixture
def funded(books: Books) -> Books:
    books.fund(ann=100, bob=0)
    return books


# --- TRANSFER_AVAILABLE


def test_as_much_as_is_available(funded: Books) -> None:
    funded.check(
        row(transfer_available("ann", "bob", 30), Code.COMMITTED, 70, 30),
        row(transfer_available("ann", "bob", 70), Code.COMMITTED, 0, 100),
        row(transfer_available("ann", "bob", 1), Code.NOTHING_AVAILABLE, 0, 100),
        row(transfer_available("bob", "ann", 101), Code.COMMITTED, 0, 100, effective=100),
        row(transfer_available("bob", "ann", MAX), Code.NOTHING_AVAILABLE, 0, 100),
        row(transfer_available("ann", "bob", MAX), Code.COMMITTED, 0, 100, effective=100),
    )


def test_a_repeat_moves_nothing_more(funded: Books) -> None:
    """What was asked for is compared, not what was moved."""
    first = transfer_available("ann", "bob", 150)
    funded.check(
        row(first, Code.COMMITTED, 0, 100, effective=100),
        row(transfer("world", "ann", 50), Code.COMMITTED, -150, 50),
        row(first, Code.COMMITTED, 0, 100, effective=100, repeated=True),
        row(replace(first, amount=100), Code.ID_CONFLICT, field=CommandField.AMOUNT),
    )


def test_what_is_held_is_not_available(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=id_of(1)), Code.COMMITTED, 100, 0, held=60),
        row(transfer_available("ann", "bob", MAX), Code.COMMITTED, 60, 40, held=60, effective=40),
        row(transfer_available("ann", "bob", 1), Code.NOTHING_AVAILABLE, 60, 40, held=60),
        row(release("ann", id_of(1)), Code.COMMITTED, 60, effective=60),
        row(transfer_available("ann", "bob", MAX), Code.COMMITTED, 0, 100, effective=60),
    )


@pytest.mark.parametrize("limit", [1, 50, 2**62, MAX - 101])
def test_available_down_to_the_limit(funded: Books, limit: int) -> None:
    funded.check(
        row(set_limit("ann", limit), Code.COMMITTED, 100),
        row(transfer_available("ann", "world", 100 + limit), Code.COMMITTED, -limit, limit),
        row(transfer_available("ann", "world", 1), Code.NOTHING_AVAILABLE, -limit, limit),
        row(transfer("world", "ann", 1), Code.COMMITTED, limit - 1, 1 - limit),
        row(transfer_available("ann", "world", MAX), Code.COMMITTED, -limit, limit, effective=1),
        row(set_limit("ann", limit - 1), Code.COMMITTED, -limit),
        row(transfer_available("ann", "world", MAX), Code.NOTHING_AVAILABLE, -limit, limit),
        row(set_limit("ann", 0), Code.COMMITTED, -limit),
        row(transfer_available("ann", "world", MAX), Code.NOTHING_AVAILABLE, -limit, limit),
    )


@pytest.mark.parametrize("limit", [MAX, MAX - 1])
def test_balance_and_limit_together_beyond_64_bits(books: Books, limit: int) -> None:
    """An account with more than a little and (nearly) no limit: all that is asked for is there."""
    books.run(open_account("low", MAX), open_account("ann", limit), open_account("bob", MAX))
    books.check(
        row(transfer("low", "ann", MAX), Code.COMMITTED, -MAX, MAX),
        row(transfer_available("ann", "bob", MAX), Code.COMMITTED, 0, MAX),
        row(transfer_available("ann", "low", MAX), Code.COMMITTED, -limit, limit - MAX, effective=limit),
        row(transfer_available("ann", "low", MAX), Code.NOTHING_AVAILABLE, -limit, limit - MAX),
    )


def test_available_without_limit_ends_at_the_range(books: Books) -> None:
    books.run(open_account("low", MAX), open_account("ann", MAX), open_account("bob", MAX))
    books.check(
        row(transfer_available("low", "ann", MAX - 7), Code.COMMITTED, 7 - MAX, MAX - 7),
        row(hold("low", "ann", 2), Code.COMMITTED, 7 - MAX, MAX - 7, held=2),
        row(transfer_available("low", "bob", MAX), Code.COMMITTED, 2 - MAX, 5, held=2, effective=5),
        row(transfer_available("low", "bob", 1), Code.NOTHING_AVAILABLE, 2 - MAX, 5, held=2),
    )


def test_what_is_available_may_overflow_the_credit_account(books: Books) -> None:
    """The amount that would be moved counts, not the one that was asked for; nothing is moved in part for it."""
    books.run(open_account("low", MAX), open_account("high"), open_account("ann", 10))
    books.check(
        row(transfer("low", "high", MAX - 9), Code.COMMITTED, 9 - MAX, MAX - 9),
        row(transfer_available("ann", "high", MAX), Code.BALANCE_OVERFLOW, 0, MAX - 9),
        row(transfer_available("ann", "high", 10), Code.BALANCE_OVERFLOW, 0, MAX - 9),
        row(set_limit("ann", 9)),
        row(transfer_available("ann", "high", MAX), Code.COMMITTED, -9, MAX, effective=9),
    )


# --- FREEZE and UNFREEZE


def test_a_frozen_account_takes_part_in_nothing(funded: Books) -> None:
    funded.check(
        row(freeze("ann"), Code.COMMITTED, 100),
        row(transfer("ann", "bob", 1), Code.DEBIT_ACCOUNT_FROZEN, 100, 0),
        row(transfer("world", "ann", 1), Code.CREDIT_ACCOUNT_FROZEN, -100, 100),
        row(transfer_available("ann", "bob", 1), Code.DEBIT_ACCOUNT_FROZEN, 100, 0),
        row(transfer_available("bob", "ann", 1), Code.CREDIT_ACCOUNT_FROZEN, 0, 100),
        row(hold("ann", "bob", 1), Code.DEBIT_ACCOUNT_FROZEN, 100, 0),
        row(hold("bob", "ann", 1), Code.CREDIT_ACCOUNT_FROZEN, 0, 100),
        row(set_limit("ann", 7), Code.COMMITTED, 100),
        row(transfer("world", "bob", 1), Code.COMMITTED, -101, 1),
        row(unfreeze("ann"), Code.COMMITTED, 100),
        row(transfer("ann", "bob", 107), Code.COMMITTED, -7, 108),
    )


def test_freezing_twice_and_thawing_twice(funded: Books) -> None:
    assert funded.find("ann")["flags"] == 0
    for make, flags in ((freeze, FROZEN), (freeze, FROZEN), (unfreeze, 0), (unfreeze, 0)):
        before = funded.find("ann")["event_count"]
        funded.check(row(make("ann"), Code.COMMITTED, 100))
        assert (funded.find("ann")["flags"], funded.find("ann")["event_count"]) == (flags, before + 1)


# --- CLOSE


def test_only_an_empty_account_can_be_closed(funded: Books) -> None:
    funded.check(
        row(close("ann"), Code.ACCOUNT_NOT_EMPTY, 100),
        row(close("world"), Code.ACCOUNT_NOT_EMPTY, -100),
        row(set_limit("bob", 10)),
        row(hold("bob", "ann", 10, id=id_of(1)), Code.COMMITTED, 0, 100, held=10),
        row(close("bob"), Code.ACCOUNT_NOT_EMPTY, 0, held=10),
        row(release("bob", id_of(1)), Code.COMMITTED, 0, effective=10),
        row(close("bob")),
        row(transfer("ann", "world", 100), Code.COMMITTED, 0, 0),
        row(close("ann")),
        row(close("world")),
    )
    assert [funded.find(name)["flags"] for name in ("ann", "bob", "world")] == [CLOSED] * 3


def test_a_closed_account_stays_closed(funded: Books) -> None:
    funded.check(
        row(close("bob")),
        row(close("bob"), Code.DEBIT_ACCOUNT_CLOSED),
        row(freeze("bob"), Code.DEBIT_ACCOUNT_CLOSED),
        row(unfreeze("bob"), Code.DEBIT_ACCOUNT_CLOSED),
        row(set_limit("bob", 1), Code.DEBIT_ACCOUNT_CLOSED),
        row(open_account("bob"), Code.ACCOUNT_EXISTS),
        row(transfer("bob", "ann", 1), Code.DEBIT_ACCOUNT_CLOSED, 0, 100),
        row(transfer("ann", "bob", 1), Code.CREDIT_ACCOUNT_CLOSED, 100, 0),
        row(transfer_available("ann", "bob", 1), Code.CREDIT_ACCOUNT_CLOSED, 100, 0),
        row(hold("ann", "bob", 1), Code.CREDIT_ACCOUNT_CLOSED, 100, 0),
        row(hold("bob", "ann", 1), Code.DEBIT_ACCOUNT_CLOSED, 0, 100),
        row(capture("bob", "ann", id_of(1)), Code.HOLD_UNKNOWN, 0, 100),
        row(release("bob", id_of(1)), Code.HOLD_UNKNOWN),
    )


def test_a_frozen_account_can_be_closed_and_is_both(funded: Books) -> None:
    funded.check(
        row(freeze("bob")),
        row(close("bob")),
        row(unfreeze("bob"), Code.DEBIT_ACCOUNT_CLOSED),
        row(transfer("ann", "bob", 1), Code.CREDIT_ACCOUNT_CLOSED, 100, 0),
        row(freeze("ann"), Code.COMMITTED, 100),
        row(transfer("ann", "bob", 1), Code.CREDIT_ACCOUNT_CLOSED, 100, 0),
    )
    assert funded.find("bob")["flags"] == FROZEN | CLOSED


# --- FORBID


def test_a_forbidden_id_is_used_up(funded: Books) -> None:
    """Whatever comes under it from then on, and asking again, is answered with that outcome."""
    given_up = transfer("ann", "bob", 10, id=id_of(1))
    refused = row(forbid("ann", id_of(1)), Code.ID_FORBIDDEN, 100)
    again = replace(refused, repeated=True)
    funded.check(
        refused,
        again,
        replace(again, command=given_up),
        replace(again, command=hold("ann", "bob", 5, id=id_of(1))),
        replace(again, command=forbid("ann", id_of(1), code=5, user_data=b"u" * 16)),
        row(transfer("ann", "bob", 10, id=id_of(2)), Code.COMMITTED, 90, 10),
        replace(again, command=given_up),
        row(capture("ann", "bob", id_of(1)), Code.HOLD_UNKNOWN, 90, 10),
    )


def test_an_id_that_was_used_cannot_be_forbidden(funded: Books) -> None:
    """The answer is what became of it, committed or refused."""
    paid, poor = transfer("ann", "bob", 10, id=id_of(1)), transfer("ann", "bob", 95, id=id_of(2))
    funded.check(
        row(paid, Code.COMMITTED, 90, 10),
        row(poor, Code.INSUFFICIENT_FUNDS, 90, 10),
        row(forbid("ann", id_of(1)), Code.COMMITTED, 90, 10, effective=10, repeated=True),
        row(forbid("ann", id_of(2)), Code.INSUFFICIENT_FUNDS, 90, 10, repeated=True),
        row(paid, Code.COMMITTED, 90, 10, repeated=True),
    )


def test_an_id_is_forbidden_in_its_slot(funded: Books) -> None:
    """No account need be there, and the same id in another slot is free."""
    funded.check(
        row(forbid("nobody", id_of(1)), Code.ID_FORBIDDEN),
        row(forbid(b"\x01" * 16, id_of(1)), Code.ID_FORBIDDEN),
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10),
        row(open_account("nobody", id=id_of(1)), Code.ID_FORBIDDEN, repeated=True),
        row(open_account("nobody")),
    )


def test_the_hold_of_an_id_that_was_asked_about(funded: Books) -> None:
    """A FORBID that came too late leaves the hold as it is."""
    funded.check(
        row(hold("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 100, 0, held=10),
        row(forbid("ann", id_of(1)), Code.COMMITTED, 100, 0, held=10, effective=10, repeated=True),
        row(capture("ann", "bob", id_of(1)), Code.COMMITTED, 90, 10, effective=10),
    )
