"""Claim: sums of balances that are not zero are found in each currency, and said exactly, however large."""

import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.errors import LedgerError
from bezant.protocol.money import AMOUNT_MAX

from ..commands import opening_world

NAMES = ("ann", "bob", "eve")


@pytest.fixture
def ledger() -> Ledger:
    opened = Ledger(accounts_max=8, holds_max=1, ids_capacity_initial=64)
    for code in ("USD", "EUR"):
        opened.register_currency(code, 2)
    opened.execute(opening_world(*NAMES), 10**18)
    return opened


@pytest.mark.parametrize(
    "balances",
    [(0, 0, 0, 0), (-1, 1, 0, 0), (-AMOUNT_MAX, AMOUNT_MAX, -7, 7), (-AMOUNT_MAX, -AMOUNT_MAX, AMOUNT_MAX, AMOUNT_MAX)],
)
def test_balances_that_add_up_to_zero_pass(ledger: Ledger, balances: tuple[int, ...]) -> None:
    ledger.image().rows["balance"] = balances
    ledger.check_invariants()


@pytest.mark.parametrize(
    "balances",
    [(1, 0, 0, 0), (-1, -1, -1, -1), (AMOUNT_MAX,) * 4, (-AMOUNT_MAX,) * 4, (1 << 32, -(1 << 32) + 1, 0, 0)],
)
def test_balances_that_do_not_are_found_and_their_sum_is_said(ledger: Ledger, balances: tuple[int, ...]) -> None:
    ledger.image().rows["balance"] = balances
    with pytest.raises(LedgerError, match=f"in EUR add up to {sum(balances)}, not to zero"):
        ledger.check_invariants()


def test_a_currency_that_is_not_there_is_found(ledger: Ledger) -> None:
    ledger.image().rows["currency_number"][2] = 2
    with pytest.raises(LedgerError, match="a currency that is not registered"):
        ledger.check_invariants()
