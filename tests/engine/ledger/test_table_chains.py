"""Linked chains that are executed: they stand or fall as a whole; of one that falls nothing is left but its events."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX

from .model_records import Command
from .tables import (
    MAX,
    Books,
    Expiry,
    Subject,
    account,
    capture,
    capture_open,
    chain,
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
    words_of,
)

REFUSED: Final = Code.CHAIN_MEMBER_REFUSED
HELD, OTHER = id_of(1), id_of(2)
MS: Final = 1_000_000
"""Nanoseconds."""


@pytest.fixture
def funded(books: Books) -> Books:
    books.fund(ann=100, bob=0)
    return books


def state_of(books: Books) -> tuple[bytes, int, int, int]:
    """What a chain that falls must leave as it was."""
    subject = books.subject
    accounts = subject.list_accounts(0, 1_000).tobytes()
    return accounts, subject.hold_count, subject.holds_with_deadline, subject.next_deadline_ns


# --- Chains that stand


def test_a_chain_that_stands(funded: Books) -> None:
    """Its commands see what those before them did, and its events are those of single commands."""
    rows = [
        *chain(
            [
                row(transfer("ann", "bob", 100), Code.COMMITTED, 0, 100),
                row(transfer("bob", "ann", 40), Code.COMMITTED, 60, 40),
                row(set_limit("ann", 7), Code.COMMITTED, 40),
                row(transfer_available("ann", "bob", MAX), Code.COMMITTED, -7, 107, effective=47),
            ]
        ),
        row(transfer("bob", "ann", 7), Code.COMMITTED, 100, 0),
    ]
    first = funded.subject.next_sequence
    events = funded.check_entry(rows, at=10_000).events
    assert events["timestamp_ns"].tolist() == [10_000, 10_001, 10_002, 10_003, 10_004]
    debit, credit = [first, first + 1, first + 2, first + 3], [first, None, first + 1, first + 3]
    assert events["debit_previous"].tolist()[1:] == [funded.position(sequence) for sequence in debit]
    assert events["credit_previous"].tolist()[1:] == [funded.position(one) if one else 0 for one in credit]


def test_each_chain_stands_or_falls_by_itself(funded: Books) -> None:
    funded.check(
        *chain([row(transfer("ann", "bob", 10), Code.COMMITTED, 90, 10), row(freeze("bob"), Code.COMMITTED, 10)]),
        row(transfer("ann", "bob", 10), Code.CREDIT_ACCOUNT_FROZEN, 90, 10),
        *chain([row(unfreeze("bob"), REFUSED, 10), row(transfer("ann", "bob", 91), Code.INSUFFICIENT_FUNDS, 90, 10)]),
        row(transfer("ann", "bob", 10), Code.CREDIT_ACCOUNT_FROZEN, 90, 10),
        *chain([row(unfreeze("bob"), Code.COMMITTED, 10), row(transfer("ann", "bob", 90), Code.COMMITTED, 0, 100)]),
    )


def test_an_account_that_its_own_chain_opens(funded: Books) -> None:
    funded.check(
        *chain(
            [
                row(open_account("eve", 5)),
                row(transfer("eve", "bob", 5), Code.COMMITTED, -5, 5),
                row(transfer("ann", "eve", 6), Code.COMMITTED, 94, 1),
                row(transfer("eve", "ann", 1), Code.COMMITTED, 0, 95),
                row(close("eve")),
                row(transfer("bob", "ann", 5), Code.COMMITTED, 0, 100),
            ]
        ),
        row(transfer("ann", "eve", 6), Code.CREDIT_ACCOUNT_CLOSED, 100, 0),
    )
    assert funded.find("eve")["event_count"] == 5


def test_a_hold_that_is_made_and_captured_in_one_chain(funded: Books) -> None:
    """Nothing is left of it but its fate."""
    held = hold("ann", "bob", 60, 1, id=HELD)
    funded.check(
        *chain(
            [
                row(held, Code.COMMITTED, 100, 0, held=60),
                row(capture_open("ann", "bob", HELD, 20), Code.COMMITTED, 80, 20, held=40),
                row(capture("ann", "bob", HELD, 30), Code.COMMITTED, 50, 50),
                row(transfer("ann", "bob", 50), Code.COMMITTED, 0, 100),
            ]
        ),
        row(capture("ann", "bob", HELD), Code.HOLD_CAPTURED, 0, 100),
        row(release("ann", HELD), Code.HOLD_CAPTURED, 0),
    )
    assert (funded.subject.hold_count, funded.subject.next_deadline_ns) == (0, 0)


def test_holds_that_a_chain_makes_changes_and_leaves(funded: Books) -> None:
    kept, gone = hold("ann", "bob", 60, 1, id=HELD), hold("ann", "bob", 40, 1, id=OTHER)
    rows = chain(
        [
            row(kept, Code.COMMITTED, 100, 0, held=60),
            row(gone, Code.COMMITTED, 100, 0, held=100),
            row(capture_open("ann", "bob", HELD, 20), Code.COMMITTED, 80, 20, held=80),
            row(release("ann", OTHER), Code.COMMITTED, 80, held=40, effective=40),
        ]
    )
    funded.check_entry(rows, at=10_000)
    assert (funded.subject.hold_count, funded.subject.next_deadline_ns) == (1, 10_000 + MS)
    funded.check_entry(
        [row(release("ann", OTHER), Code.HOLD_RELEASED, 80)],
        at=10_000 + MS,
        expired=[Expiry(rows[0].command, 40, debit=80, credit=20)],
    )


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (capture("ann", "bob", HELD, 1), Code.HOLD_CAPTURED),
        (capture_open("ann", "bob", HELD), Code.HOLD_CAPTURED),
        (release("ann", HELD), Code.HOLD_RELEASED),
    ],
)
def test_a_hold_that_its_chain_closed_already(funded: Books, first: Command, code: Code) -> None:
    """The second use is told the fate and takes the first one back with it: then the hold is open again."""
    funded.run(hold("ann", "bob", 60, id=HELD))
    second, third = capture("ann", "bob", HELD), release("ann", HELD)
    funded.check(
        *chain([row(first, REFUSED, 100, 0, held=60), row(second, code, 100, 0, held=60)]),
        *chain([row(replace(first, id=OTHER), REFUSED, 100, 0, held=60), row(third, code, 100, held=60)]),
        row(capture("ann", "bob", HELD), Code.COMMITTED, 40, 60, effective=60),
    )


# --- Chains that fall


@pytest.mark.parametrize("culprit", range(4))
def test_one_refusal_takes_all_others_back(funded: Books, culprit: int) -> None:
    """Wherever it is: the one keeps its code, and the events show the balances as they are after that."""
    rows = [row(transfer("ann", "bob", 10 + number), REFUSED, 100, 0) for number in range(4)]
    rows[culprit] = row(transfer("bob", "ann", 50), Code.INSUFFICIENT_FUNDS, 0, 100)
    before = state_of(funded)
    funded.check(*chain(rows))
    assert state_of(funded) == before
    funded.check(*(replace(one, repeated=True) for one in chain(rows)))


def test_only_the_first_refusal_keeps_its_code(funded: Books) -> None:
    """The commands behind it are not even tried."""
    funded.check(
        *chain(
            [
                row(transfer("ann", "bob", 101), Code.INSUFFICIENT_FUNDS, 100, 0),
                row(transfer("ann", "nobody", 1), REFUSED, 100),
                row(open_account("ann"), REFUSED, 100),
                row(open_account("eve/NONE"), REFUSED),
                row(transfer("nobody", "ann", 1), REFUSED, 0, 100),
                row(set_limit("nobody", 1), REFUSED),
                row(hold("ann", "world", 1), REFUSED, 100, -100),
                row(release("ann", HELD), REFUSED, 100),
                row(capture("ann", "world", HELD), REFUSED, 100, -100),
                row(forbid("ann", id_of(9)), REFUSED, 100),
            ]
        )
    )


@pytest.mark.parametrize("count", [2, 3, 255, CHAIN_COMMANDS_MAX])
def test_chains_up_to_the_longest(funded: Books, count: int) -> None:
    """One that stands; and one of captures, which leave the most to take back, that falls with its last command."""
    rows = [row(transfer("world", "bob", 1), Code.COMMITTED, -101 - number, 1 + number) for number in range(count)]
    funded.check(*chain(rows))
    funded.run(hold("world", "bob", 1_000, id=HELD))
    before = state_of(funded)
    balances = (-100 - count, count)
    rows = [row(capture_open("world", "bob", HELD, 1), REFUSED, *balances, held=1_000) for _ in range(count - 1)]
    refused = transfer("bob", "world", 2 * count)
    funded.check(*chain([*rows, row(refused, Code.INSUFFICIENT_FUNDS, *reversed(balances), credit_held=1_000)]))
    assert state_of(funded) == before


MEMBERS: Final = {
    "open": (open_account("eve", 5), open_account("dan")),
    "limit": (set_limit("ann", 1), set_limit("bob", 2), set_limit("ann", 3)),
    "freeze": (freeze("ann"), freeze("bob"), unfreeze("ann"), unfreeze("cold"), freeze("cold"), unfreeze("cold")),
    "close": (transfer("ann", "world", 20), close("bob"), close("cold")),
    "transfer": (transfer("ann", "bob", 5), transfer("bob", "ann", 5), transfer("ann", "bob", 7)),
    "transfer available": (transfer_available("ann", "bob", MAX), transfer_available("bob", "ann", 7)),
    "hold": (hold("ann", "bob", 5), hold("ann", "bob", 5, 3), hold("world", "bob", 5, 1)),
    "hold and capture": (hold("ann", "bob", 5, 3, id=id_of(7)), capture("ann", "bob", id_of(7), 4)),
    "hold and release": (hold("ann", "bob", 5, 3, id=id_of(7)), release("ann", id_of(7))),
    "hold and capture twice": (
        hold("ann", "bob", 5, 3, id=id_of(7)),
        capture_open("ann", "bob", id_of(7), 4),
        capture("ann", "bob", id_of(7)),
    ),
    "captures": (capture("ann", "bob", HELD, 10), capture("ann", "bob", OTHER)),
    "captures that keep open": (capture_open("ann", "bob", HELD, 10), capture_open("ann", "bob", HELD, 20)),
    "captures to the end": (capture_open("ann", "bob", HELD, 10), capture_open("ann", "bob", HELD)),
    "capture and release": (capture_open("ann", "bob", HELD, 10), release("ann", HELD), release("ann", OTHER)),
    "open, pay, hold, capture, close": (
        open_account("eve"),
        transfer("ann", "eve", 9),
        hold("eve", "bob", 9, 1, id=id_of(7)),
        capture("eve", "bob", id_of(7)),
        close("eve"),
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_everything_is_taken_back(make_subject: Callable[..., Subject], name: str) -> None:
    """Whatever a command did; and what is there again is captured, opened and expires as if nothing had been."""
    books = Books(make_subject(accounts_max=7, holds_max=6), apart=False)
    books.fund(ann=100, bob=0)
    expires = hold("ann", "bob", 20, 2, id=OTHER)
    books.run(
        open_account("owing"), open_account("cold"), freeze("cold"), hold("ann", "bob", 60, id=HELD), expires, at=10_000
    )
    before = state_of(books)
    members = [row(command, REFUSED) for command in MEMBERS[name]]
    refused = row(transfer("owing", "ann", 99), Code.INSUFFICIENT_FUNDS)
    books.check_entry(chain([*members, refused]), at=20_000, balances=False)
    assert state_of(books) == before
    rows = [row(capture_open("ann", "bob", HELD, 59), Code.COMMITTED, 41, 59, held=21), row(open_account("eve"))]
    books.check_entry(rows, at=30_000)
    expired = [Expiry(expires, 20, debit=41, credit=59, held=1)]
    books.check_entry(
        [row(capture("ann", "bob", OTHER), Code.HOLD_EXPIRED, 41, 59, held=1)], at=3 * MS, expired=expired
    )
    books.check(row(release("ann", HELD), Code.COMMITTED, 41, effective=1))


def test_captures_are_taken_back_last_first(funded: Books) -> None:
    """What remained of the hold before the first of them, and no other sum on the way, is held again."""
    funded.run(hold("ann", "bob", 60, id=HELD))
    captures = [row(capture_open("ann", "bob", HELD, amount), REFUSED, 100, 0, held=60) for amount in (10, 20, 30)]
    funded.check(
        *chain([*captures, row(capture("ann", "bob", HELD), Code.HOLD_CAPTURED, 100, 0, held=60)]),
        *chain(
            [
                row(capture_open("ann", "bob", HELD, 10), Code.COMMITTED, 90, 10, held=50),
                row(capture_open("ann", "bob", HELD, 20), Code.COMMITTED, 70, 30, held=30),
                row(capture_open("ann", "bob", HELD, 30), Code.COMMITTED, 40, 60),
            ]
        ),
        row(capture("ann", "bob", HELD), Code.HOLD_CAPTURED, 40, 60),
    )


def test_a_hold_of_a_fallen_chain_never_expires(funded: Books) -> None:
    rows = [
        row(hold("ann", "bob", 5, 1), REFUSED, 100, 0),
        row(transfer("bob", "ann", 1), Code.INSUFFICIENT_FUNDS, 0, 100),
    ]
    funded.check_entry(chain(rows), at=10_000)
    funded.check_entry([], at=10_000 + 9 * MS)


def test_the_account_that_a_fallen_chain_opened_is_not_there(funded: Books) -> None:
    """Those opened later take its place in the list, at their own position."""
    rows = [
        row(open_account("eve", 9), REFUSED),
        row(open_account("dan", 9), REFUSED),
        row(transfer("eve", "ann", 5), REFUSED, 0, 100),
        row(transfer("eve", "ann", 5), Code.INSUFFICIENT_FUNDS, 0, 100),
    ]
    funded.check(
        *chain(rows),
        row(transfer("eve", "ann", 5), Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
        row(open_account("dan")),
        row(open_account("eve", 3)),
        row(transfer("dan", "ann", 1), Code.INSUFFICIENT_FUNDS, 0, 100),
    )
    listed = funded.subject.list_accounts(0, 100)
    assert listed["name"].tolist() == [b"world", b"ann", b"bob", b"dan", b"eve"]
    assert listed["limit"].tolist()[3:] == [0, 3]
    assert funded.subject.lookup_accounts(words_of([account("eve")])).tobytes() == listed[4:].tobytes()


def test_commands_of_a_fallen_chain_committed_later(funded: Books) -> None:
    """Under new ids the same chain stands, once its reason to fall is gone."""

    def commands() -> list[Command]:
        made = hold("ann", "bob", 50)
        return [open_account("eve"), made, capture_open("ann", "bob", made.id, 20), transfer("ann", "eve", 60)]

    first = commands()
    funded.check(
        *chain(
            [
                row(first[0], REFUSED),
                row(first[1], REFUSED, 100, 0),
                row(first[2], REFUSED, 100, 0),
                row(first[3], Code.INSUFFICIENT_FUNDS, 100, 0),
            ]
        )
    )
    assert funded.find("eve")["found"] == 0
    second = commands()
    funded.check(
        row(capture("ann", "bob", first[1].id), Code.HOLD_UNKNOWN, 100, 0),
        row(transfer("world", "ann", 10), Code.COMMITTED, -110, 110),
        *chain(
            [
                row(second[0]),
                row(second[1], Code.COMMITTED, 110, 0, held=50),
                row(second[2], Code.COMMITTED, 90, 20, held=30),
                row(second[3], Code.COMMITTED, 30, 60, held=30),
            ]
        ),
        row(capture("ann", "bob", second[1].id), Code.COMMITTED, 0, 50, effective=30),
        row(release("ann", first[1].id), Code.HOLD_UNKNOWN, 0),
    )


def test_the_time_of_a_fallen_chain_has_passed(funded: Books) -> None:
    """Its events are imported history, too: what comes next must be later."""
    now_ns = funded.subject.last_timestamp_ns
    rows = [
        *chain(
            [
                row(imported(transfer("ann", "bob", 1), now_ns + 10), REFUSED, 100, 0),
                row(imported(transfer("bob", "ann", 2), now_ns + 20), Code.INSUFFICIENT_FUNDS, 0, 100),
            ]
        ),
        row(imported(transfer("ann", "bob", 1), now_ns + 20), Code.IMPORTED_TIMESTAMP_NOT_RISING),
        row(imported(transfer("ann", "bob", 1), now_ns + 21), Code.COMMITTED, 99, 1),
    ]
    events = funded.check_entry(rows, at=now_ns + 100).events
    assert events["timestamp_ns"].tolist() == [now_ns + 10, now_ns + 20, now_ns + 21]


def test_a_chain_that_ends_in_a_forbid_always_falls(funded: Books) -> None:
    """It can end one, since it needs no flag there; and the id is forbidden."""
    given_up = transfer("ann", "bob", 1)
    forbidden = row(forbid("ann", given_up.id), Code.ID_FORBIDDEN, 100)
    rows = chain([row(transfer("ann", "bob", 5), REFUSED, 100, 0), forbidden])
    funded.check(
        *rows,
        row(given_up, Code.ID_FORBIDDEN, 100, repeated=True),
        *(replace(one, repeated=True) for one in rows),
        replace(rows[0], command=forbid("ann", rows[0].command.id), repeated=True),
    )
