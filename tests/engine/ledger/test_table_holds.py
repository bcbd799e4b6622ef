"""What HOLD, CAPTURE and RELEASE do to the books: one row per command, with balances and held sums after it."""

from dataclasses import replace

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandField

from .tables import (
    MAX,
    Books,
    capture,
    capture_open,
    close,
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

HELD, OTHER = id_of(1), id_of(2)


@pytest.fixture
def funded(books: Books) -> Books:
    books.fund(ann=100, bob=0)
    return books


# --- HOLD


def test_a_hold_reserves_and_moves_nothing(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60), Code.COMMITTED, 100, 0, held=60),
        row(hold("ann", "bob", 41), Code.INSUFFICIENT_FUNDS, 100, 0, held=60),
        row(transfer("ann", "bob", 41), Code.INSUFFICIENT_FUNDS, 100, 0, held=60),
        row(hold("ann", "bob", 1), Code.COMMITTED, 100, 0, held=61),
        row(transfer("ann", "bob", 39), Code.COMMITTED, 61, 39, held=61),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 61, 39, held=61),
        row(transfer("world", "ann", 1), Code.COMMITTED, -101, 62, credit_held=61),
        row(hold("ann", "bob", 1), Code.COMMITTED, 62, 39, held=62),
    )
    assert funded.subject.hold_count == 3
    assert funded.subject.holds_with_deadline == 0


def test_an_account_may_hold_in_favour_of_one_that_holds_in_its_favour(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(transfer("ann", "bob", 40), Code.COMMITTED, 60, 40, held=60),
        row(hold("bob", "ann", 30, id=OTHER), Code.COMMITTED, 40, 60, held=30, credit_held=60),
        row(capture("ann", "bob", HELD), Code.COMMITTED, 0, 100, credit_held=30, effective=60),
        row(capture("bob", "ann", OTHER), Code.COMMITTED, 70, 30, effective=30),
    )


@pytest.mark.parametrize("limit", [0, 1, 50, 2**62, MAX - 101])
def test_holds_down_to_the_limit_exactly(funded: Books, limit: int) -> None:
    everything = 100 + limit
    funded.check(
        row(set_limit("ann", limit), Code.COMMITTED, 100),
        row(hold("ann", "bob", everything + 1), Code.INSUFFICIENT_FUNDS, 100, 0),
        row(hold("ann", "bob", everything, id=HELD), Code.COMMITTED, 100, 0, held=everything),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 100, 0, held=everything),
        row(transfer("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 100, 0, held=everything),
        row(set_limit("ann", 0), Code.COMMITTED, 100, held=everything),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 100, 0, held=everything),
        row(capture("ann", "bob", HELD), Code.COMMITTED, -limit, everything, effective=everything),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, -limit, everything),
    )


def test_a_limit_below_what_is_held_refuses_debits_alone(funded: Books) -> None:
    """The hold that was made before is captured all the same: its money was reserved."""
    funded.check(
        row(set_limit("ann", 50), Code.COMMITTED, 100),
        row(hold("ann", "bob", 140, id=HELD), Code.COMMITTED, 100, 0, held=140),
        row(set_limit("ann", 10), Code.COMMITTED, 100, held=140),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 100, 0, held=140),
        row(transfer_available("ann", "bob", 1), Code.NOTHING_AVAILABLE, 100, 0, held=140),
        row(capture_open("ann", "bob", HELD, 100), Code.COMMITTED, 0, 100, held=40),
        row(transfer("world", "ann", 30), Code.COMMITTED, -130, 30, credit_held=40),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 30, 100, held=40),
        row(transfer("world", "ann", 1), Code.COMMITTED, -131, 31, credit_held=40),
        row(hold("ann", "bob", 1), Code.COMMITTED, 31, 100, held=41),
    )


def test_held_sums_up_to_the_largest(books: Books) -> None:
    """With 10 on an account without limit, MAX can be held twice over, were it not for the sum."""
    books.run(open_account("low", MAX), open_account("ann", MAX), open_account("bob"))
    books.check(
        row(transfer("low", "ann", 10), Code.COMMITTED, -10, 10),
        row(hold("ann", "bob", MAX - 1), Code.COMMITTED, 10, 0, held=MAX - 1),
        row(hold("ann", "bob", 2), Code.HELD_OVERFLOW, 10, 0, held=MAX - 1),
        row(hold("ann", "bob", 11), Code.HELD_OVERFLOW, 10, 0, held=MAX - 1),
        row(hold("ann", "bob", 12), Code.BALANCE_OVERFLOW, 10, 0, held=MAX - 1),
        row(hold("ann", "bob", MAX), Code.BALANCE_OVERFLOW, 10, 0, held=MAX - 1),
        row(hold("ann", "bob", 1), Code.COMMITTED, 10, 0, held=MAX),
        row(hold("ann", "bob", 1), Code.HELD_OVERFLOW, 10, 0, held=MAX),
        row(transfer("ann", "bob", 10), Code.COMMITTED, 0, 10, held=MAX),
        row(hold("ann", "bob", 1), Code.BALANCE_OVERFLOW, 0, 10, held=MAX),
        row(transfer("ann", "bob", 1), Code.BALANCE_OVERFLOW, 0, 10, held=MAX),
    )


def test_the_largest_hold_there_is(books: Books) -> None:
    books.run(open_account("low", MAX), open_account("bob"))
    books.check(
        row(hold("low", "bob", MAX, id=HELD), Code.COMMITTED, 0, 0, held=MAX),
        row(hold("low", "bob", 1), Code.BALANCE_OVERFLOW, 0, 0, held=MAX),
        row(capture_open("low", "bob", HELD, MAX - 1), Code.COMMITTED, 1 - MAX, MAX - 1, held=1),
        row(capture("low", "bob", HELD), Code.COMMITTED, -MAX, MAX, effective=1),
        row(hold("low", "bob", 1), Code.BALANCE_OVERFLOW, -MAX, MAX),
    )


# --- CAPTURE


def test_a_capture_of_the_whole(funded: Books) -> None:
    """Asked for as nothing in particular, or by its amount."""
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(hold("ann", "bob", 30, id=OTHER), Code.COMMITTED, 100, 0, held=90),
        row(capture("ann", "bob", HELD), Code.COMMITTED, 40, 60, held=30, effective=60),
        row(capture("ann", "bob", OTHER, 30), Code.COMMITTED, 10, 90),
        row(capture("ann", "bob", HELD), Code.HOLD_CAPTURED, 10, 90),
        row(capture("ann", "bob", OTHER, MAX), Code.HOLD_CAPTURED, 10, 90),
        row(release("ann", HELD), Code.HOLD_CAPTURED, 10),
    )
    assert funded.subject.hold_count == 0


def test_a_capture_of_a_part_releases_the_rest(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(capture("ann", "bob", HELD, 61), Code.CAPTURE_EXCEEDS_HOLD, 100, 0, held=60),
        row(capture("ann", "bob", HELD, MAX), Code.CAPTURE_EXCEEDS_HOLD, 100, 0, held=60),
        row(capture("ann", "bob", HELD, 59), Code.COMMITTED, 41, 59),
        row(capture("ann", "bob", HELD, 1), Code.HOLD_CAPTURED, 41, 59),
        row(transfer("ann", "bob", 41), Code.COMMITTED, 0, 100),
    )


def test_captures_that_keep_the_rest_until_nothing_is_left(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(capture_open("ann", "bob", HELD, 61), Code.CAPTURE_EXCEEDS_HOLD, 100, 0, held=60),
        row(capture_open("ann", "bob", HELD, 1), Code.COMMITTED, 99, 1, held=59),
        row(transfer("ann", "bob", 41), Code.INSUFFICIENT_FUNDS, 99, 1, held=59),
        row(capture_open("ann", "bob", HELD, 60), Code.CAPTURE_EXCEEDS_HOLD, 99, 1, held=59),
        row(capture_open("ann", "bob", HELD, 58), Code.COMMITTED, 41, 59, held=1),
        row(capture_open("ann", "bob", HELD, 1), Code.COMMITTED, 40, 60),
        row(capture_open("ann", "bob", HELD, 1), Code.HOLD_CAPTURED, 40, 60),
        row(release("ann", HELD), Code.HOLD_CAPTURED, 40),
    )
    assert funded.subject.hold_count == 0


@pytest.mark.parametrize("amount", [0, 60])
def test_keeping_open_after_the_whole_amount_keeps_nothing(funded: Books, amount: int) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(capture_open("ann", "bob", HELD, amount), Code.COMMITTED, 40, 60, effective=60),
        row(capture("ann", "bob", HELD), Code.HOLD_CAPTURED, 40, 60),
    )
    assert funded.subject.hold_count == 0


def test_what_is_kept_is_captured_or_released_later(funded: Books) -> None:
    """All that remains is what remains now, not what was held at first."""
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(hold("ann", "bob", 20, id=OTHER), Code.COMMITTED, 100, 0, held=80),
        row(capture_open("ann", "bob", HELD, 50), Code.COMMITTED, 50, 50, held=30),
        row(capture_open("ann", "bob", OTHER, 5), Code.COMMITTED, 45, 55, held=25),
        row(capture("ann", "bob", HELD), Code.COMMITTED, 35, 65, held=15, effective=10),
        row(release("ann", OTHER), Code.COMMITTED, 35, effective=15),
        row(release("ann", HELD), Code.HOLD_CAPTURED, 35),
        row(capture("ann", "bob", OTHER), Code.HOLD_RELEASED, 35, 65),
    )


def test_a_capture_needs_no_funds_but_those_held(funded: Books) -> None:
    """What the account owes by now, and its limit, are no reason: the amount was set aside."""
    funded.check(
        row(set_limit("ann", MAX), Code.COMMITTED, 100),
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(transfer("ann", "bob", 5_000), Code.COMMITTED, -4_900, 5_000, held=60),
        row(set_limit("ann", 0), Code.COMMITTED, -4_900, held=60),
        row(capture("ann", "bob", HELD), Code.COMMITTED, -4_960, 5_060, effective=60),
    )


def test_a_capture_that_overflows_the_credit_account(books: Books) -> None:
    """A part that still fits goes through; the hold stays as it was after the refusal."""
    books.run(open_account("low", MAX), open_account("high"), open_account("ann", 20))
    books.check(
        row(transfer("low", "high", MAX - 5), Code.COMMITTED, 5 - MAX, MAX - 5),
        row(hold("ann", "high", 10, id=HELD), Code.COMMITTED, 0, MAX - 5, held=10),
        row(capture("ann", "high", HELD), Code.BALANCE_OVERFLOW, 0, MAX - 5, held=10),
        row(capture("ann", "high", HELD, 6), Code.BALANCE_OVERFLOW, 0, MAX - 5, held=10),
        row(capture_open("ann", "high", HELD, 4), Code.COMMITTED, -4, MAX - 1, held=6),
        row(capture_open("ann", "high", HELD, 2), Code.BALANCE_OVERFLOW, -4, MAX - 1, held=6),
        row(capture("ann", "high", HELD, 1), Code.COMMITTED, -5, MAX),
    )


# --- RELEASE


def test_a_release(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(hold("ann", "bob", 30, id=OTHER), Code.COMMITTED, 100, 0, held=90),
        row(release("ann", HELD), Code.COMMITTED, 100, held=30, effective=60),
        row(release("ann", HELD), Code.HOLD_RELEASED, 100, held=30),
        row(capture("ann", "bob", HELD), Code.HOLD_RELEASED, 100, 0, held=30),
        row(transfer("ann", "bob", 70), Code.COMMITTED, 30, 70, held=30),
        row(release("ann", OTHER), Code.COMMITTED, 30, effective=30),
    )


def test_ids_of_closed_holds_are_not_free(funded: Books) -> None:
    first = hold("ann", "bob", 60, id=HELD)
    funded.check(
        row(first, Code.COMMITTED, 100, 0, held=60),
        row(release("ann", HELD), Code.COMMITTED, 100, effective=60),
        row(first, Code.COMMITTED, 100, 0, held=60, repeated=True),
        row(replace(first, amount=59), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(replace(first, timeout_ms=1), Code.ID_CONFLICT, field=CommandField.TIMEOUT_MS),
    )
    assert funded.subject.hold_count == 0


# --- Which hold is meant


def test_ids_of_commands_that_made_no_hold(funded: Books) -> None:
    """A transfer, a hold that was refused, a capture: their ids are in use, and no hold has them."""
    paid, refused, captured = transfer("ann", "bob", 1), hold("ann", "bob", 101), capture("ann", "bob", HELD, 2)
    funded.check(
        row(hold("ann", "bob", 2, id=HELD), Code.COMMITTED, 100, 0, held=2),
        row(paid, Code.COMMITTED, 99, 1, held=2),
        row(refused, Code.INSUFFICIENT_FUNDS, 99, 1, held=2),
        row(captured, Code.COMMITTED, 97, 3),
        *(
            row(capture("ann", "bob", one.id), Code.HOLD_UNKNOWN, 97, 3)
            for one in (paid, refused, captured, transfer("ann", "bob", 9))
        ),
        *(row(release("ann", one.id), Code.HOLD_UNKNOWN, 97) for one in (paid, refused, captured)),
    )


def test_a_command_may_name_itself(funded: Books) -> None:
    funded.check(
        row(capture("ann", "bob", HELD, id=HELD), Code.HOLD_UNKNOWN, 100, 0),
        row(release("ann", OTHER, id=OTHER), Code.HOLD_UNKNOWN, 100),
        row(hold("ann", "bob", 1, id=HELD), Code.ID_CONFLICT, field=CommandField.KIND),
    )


def test_holds_of_other_accounts(books: Books) -> None:
    """In the same slot the hold is found, and belongs to others; in another slot there is none of that id."""
    books.run(*(open_account(name, 100) for name in ("{t}ann", "{t}bob", "{t}eve", "eve")))
    books.check(
        row(hold("{t}ann", "{t}bob", 10, id=HELD), Code.COMMITTED, 0, 0, held=10),
        row(capture("{t}eve", "{t}bob", HELD), Code.HOLD_OF_OTHER_ACCOUNTS),
        row(capture("{t}ann", "{t}eve", HELD), Code.HOLD_OF_OTHER_ACCOUNTS, held=10),
        row(capture("{t}ann", "eve", HELD), Code.HOLD_OF_OTHER_ACCOUNTS, held=10),
        row(capture("{t}bob", "{t}ann", HELD, MAX), Code.HOLD_OF_OTHER_ACCOUNTS, credit_held=10),
        row(release("{t}eve", HELD), Code.HOLD_OF_OTHER_ACCOUNTS),
        row(release("{t}bob", HELD), Code.HOLD_OF_OTHER_ACCOUNTS),
        row(capture("eve", "{t}bob", HELD), Code.HOLD_UNKNOWN),
        row(release("eve", HELD), Code.HOLD_UNKNOWN),
        row(capture("{t}ann", "{t}bob", HELD), Code.COMMITTED, -10, 10, effective=10),
        row(capture("{t}eve", "{t}bob", HELD), Code.HOLD_CAPTURED, 0, 10),
        row(release("{t}eve", HELD), Code.HOLD_CAPTURED),
    )


def test_equal_ids_in_different_slots_are_different_holds(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 10, id=HELD), Code.COMMITTED, 100, 0, held=10),
        row(hold("world", "bob", 20, id=HELD), Code.COMMITTED, -100, 0, held=20),
        row(capture("world", "bob", HELD), Code.COMMITTED, -120, 20, effective=20),
        row(capture("world", "bob", HELD), Code.HOLD_CAPTURED, -120, 20),
        row(capture("bob", "ann", HELD), Code.HOLD_UNKNOWN, 20, 100, credit_held=10),
        row(release("ann", HELD), Code.COMMITTED, 100, effective=10),
    )


# --- Frozen and closed accounts


def test_holds_of_frozen_accounts_can_be_released_and_not_captured(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(hold("ann", "bob", 10, id=OTHER), Code.COMMITTED, 100, 0, held=70),
        row(freeze("bob")),
        row(capture("ann", "bob", HELD), Code.CREDIT_ACCOUNT_FROZEN, 100, 0, held=70),
        row(freeze("ann"), Code.COMMITTED, 100, held=70),
        row(capture("ann", "bob", HELD), Code.DEBIT_ACCOUNT_FROZEN, 100, 0, held=70),
        row(release("ann", HELD), Code.COMMITTED, 100, held=10, effective=60),
        row(unfreeze("ann"), Code.COMMITTED, 100, held=10),
        row(capture("ann", "bob", OTHER), Code.CREDIT_ACCOUNT_FROZEN, 100, 0, held=10),
        row(unfreeze("bob")),
        row(capture("ann", "bob", OTHER), Code.COMMITTED, 90, 10, effective=10),
    )


def test_the_account_that_is_to_be_paid_may_be_closed(funded: Books) -> None:
    """Nothing of its is held, so it can be; the hold can then only be released."""
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(close("bob")),
        row(capture("ann", "bob", HELD, 61), Code.CAPTURE_EXCEEDS_HOLD, 100, 0, held=60),
        row(capture("ann", "bob", HELD), Code.CREDIT_ACCOUNT_CLOSED, 100, 0, held=60),
        row(freeze("ann"), Code.COMMITTED, 100, held=60),
        row(capture("ann", "bob", HELD), Code.CREDIT_ACCOUNT_CLOSED, 100, 0, held=60),
        row(release("ann", HELD), Code.COMMITTED, 100, effective=60),
    )


# --- Chains of events


def test_back_pointers_of_holds(books: Books) -> None:
    """A HOLD and a RELEASE are on the debit account's chain alone, a CAPTURE on both."""
    rows = [
        # command, code, balances; then the sequences before it on both chains
        (row(open_account("world", MAX)), 0, 0),
        (row(open_account("ann")), 0, 0),
        (row(hold("world", "ann", 10, id=HELD), held=10), 1, 0),
        (row(hold("world", "ann", 5, id=OTHER), held=15), 3, 0),
        (row(capture_open("world", "ann", HELD, 4), Code.COMMITTED, -4, 4, held=11), 4, 2),
        (row(capture("world", "ann", HELD, 7), Code.CAPTURE_EXCEEDS_HOLD, -4, 4, held=11), 0, 0),
        (row(release("world", OTHER), Code.COMMITTED, -4, held=6, effective=5), 5, 0),
        (row(capture("world", "ann", HELD), Code.COMMITTED, -10, 10, effective=6), 7, 5),
    ]
    for entry in [[one] for one in rows] if books.apart else [rows]:
        events = books.check_entry([one for one, _, _ in entry]).events
        for event, (_, debit, credit) in zip(events, entry, strict=True):
            assert event["debit_previous"] == (books.position(debit) if debit else 0)
            assert event["credit_previous"] == (books.position(credit) if credit else 0)
    for name, last, count in (("world", 8, 6), ("ann", 8, 3)):
        found = books.find(name)
        assert (found["last_position"], found["event_count"]) == (books.position(last), count)
