"""Claim: what is reserved to come in to an account counts: there stays room for it, and the account stays open.

These tests write it into the account's row; how tries reserve it is in ``test_table_tries.py``.
"""

import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import AccountFlag

from .model_records import Command, encode_commands
from .tables import MAX, close, open_account, transfer

BOB_ROW = 1


@pytest.fixture
def ledger() -> Ledger:
    """World without a limit, and bob."""
    ledger = Ledger(accounts_max=16, holds_max=16, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    assert execute(ledger, open_account("world", MAX)) == Code.COMMITTED
    assert execute(ledger, open_account("bob")) == Code.COMMITTED
    return ledger


def execute(ledger: Ledger, command: Command) -> int:
    """The code of one command in an entry of its own."""
    return int(ledger.execute(encode_commands([command]), ledger.last_timestamp_ns + 1).results["code"][0])


def reserve(ledger: Ledger, incoming: int) -> None:
    """Have so much reserved to come in to bob."""
    row = ledger._arrays.rows[BOB_ROW]
    flag = int(AccountFlag.HAS_INCOMING)
    row["flags"] = row["flags"] | flag if incoming else row["flags"] & ~flag
    ledger._arrays.rows_cold[BOB_ROW]["incoming"] = incoming


def test_room_for_what_is_to_come_in_is_not_taken(ledger: Ledger) -> None:
    reserve(ledger, MAX - 5)
    assert execute(ledger, transfer("world", "bob", 6)) == Code.BALANCE_OVERFLOW
    assert execute(ledger, transfer("world", "bob", 5)) == Code.COMMITTED
    assert execute(ledger, transfer("world", "bob", 1)) == Code.BALANCE_OVERFLOW
    reserve(ledger, 0)
    assert execute(ledger, transfer("world", "bob", 1)) == Code.COMMITTED


def test_an_account_that_something_is_to_come_in_to_cannot_be_closed(ledger: Ledger) -> None:
    reserve(ledger, 1)
    assert execute(ledger, close("bob")) == Code.ACCOUNT_NOT_EMPTY
    reserve(ledger, 0)
    assert execute(ledger, close("bob")) == Code.COMMITTED
