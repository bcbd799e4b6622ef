"""Holds: what they reserve, how they are captured in whole and in part, and released; row by row."""

import pytest

from bezant.protocol.codes import ResultCode as Code

from .tables import Books, capture, hold, id_of, release, row, transfer

HELD = id_of(1)


@pytest.fixture
def funded(books: Books) -> Books:
    books.fund(ann=100, bob=0)
    return books


def test_a_hold_reserves_and_moves_nothing(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60), Code.COMMITTED, 100, 0, held=60),
        row(hold("ann", "bob", 41), Code.INSUFFICIENT_FUNDS, 100, 0, held=60),
        row(transfer("ann", "bob", 41), Code.INSUFFICIENT_FUNDS, 100, 0, held=60),
        row(hold("ann", "bob", 1), Code.COMMITTED, 100, 0, held=61),
        row(transfer("ann", "bob", 39), Code.COMMITTED, 61, 39, held=61),
        row(hold("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 61, 39, held=61),
    )


def test_a_capture_of_the_whole(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(capture("ann", "bob", HELD), Code.COMMITTED, 40, 60, effective=60),
        row(capture("ann", "bob", HELD), Code.HOLD_CAPTURED, 40, 60),
        row(release("ann", HELD), Code.HOLD_CAPTURED, 40),
    )


def test_a_release(funded: Books) -> None:
    funded.check(
        row(hold("ann", "bob", 60, id=HELD), Code.COMMITTED, 100, 0, held=60),
        row(release("ann", HELD), Code.COMMITTED, 100, effective=60),
        row(release("ann", HELD), Code.HOLD_RELEASED, 100),
        row(capture("ann", "bob", HELD), Code.HOLD_RELEASED, 100, 0),
    )
