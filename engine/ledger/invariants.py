"""What must hold of a ledger's state, whatever it has executed; `state.py` says it in words."""

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.checks import HOLD, TRY_DEBIT
from bezant.engine.ledger.image import unsettled_records
from bezant.engine.ledger.lookups import find_rows
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_HEAP,
    COUNTER_HOLDS_FREE,
    COUNTER_HOLDS_TOP,
    COUNTER_TRY_DEBITS,
    FATE_OPEN,
    LedgerArrays,
)
from bezant.protocol.errors import LedgerError
from bezant.protocol.kinds import AccountFlag
from bezant.protocol.money import AMOUNT_MAX
from bezant.protocol.records import POSITION_NONE, Records


def check_state(arrays: LedgerArrays, currencies: list[str], open_holds: Records) -> None:
    """Raise `LedgerError` unless the state is one that the rules can reach. `open_holds`: HOLD_ROW, by sequence."""
    count = int(arrays.counters[COUNTER_ACCOUNTS])
    rows, cold = arrays.rows[:count], arrays.rows_cold[:count]
    for code, total in zip(currencies, _totals(rows, len(currencies)), strict=True):
        if total != 0:
            raise LedgerError(f"the balances in {code} add up to {total}, not to zero")
    if np.any(rows["balance"] < rows["held"] - AMOUNT_MAX):
        raise LedgerError("balance less held is below the range")
    if np.any(rows["held"] < 0) or np.any(cold["incoming"] < 0):
        raise LedgerError("a held or incoming sum is negative")
    if np.any(rows["event_count"] < 1) or np.any(rows["last_position"] == POSITION_NONE):
        raise LedgerError("an account has no event, not even the one that opened it")
    _check_holds(arrays, open_holds, rows["held"], cold["incoming"])
    if np.any(cold["incoming"] > AMOUNT_MAX - np.maximum(rows["balance"], 0)):
        raise LedgerError("what is reserved to come in would take a balance above the range")
    if not np.array_equal(rows["flags"] & AccountFlag.HAS_INCOMING != 0, cold["incoming"] != 0):
        raise LedgerError("the flag of an account does not say whether something is reserved to come in")
    moved = rows["flags"] & AccountFlag.MOVED != 0
    if np.any(rows["balance"][moved] != 0) or np.any(rows["held"][moved] != 0) or np.any(cold["incoming"][moved] != 0):
        raise LedgerError("an account that has moved to another shard has something left here")
    if len(rows):
        numbers = np.full(len(rows), -1, np.int64)
        find_rows(arrays, np.stack([rows["id_head"], rows["id_tail"]], axis=1), numbers)
        if not np.array_equal(numbers, np.arange(len(rows))):
            raise LedgerError("the account index does not lead to every account")


def _totals(rows: Records, currencies: int) -> list[int]:
    """The sums of the balances in each currency, exact: of each half of a balance, which for 2^31 accounts fit in 64
    bits. One pass over the accounts, however many currencies there are."""
    numbers, balances = rows["currency_number"], rows["balance"]
    if np.any(numbers < 0) or np.any(numbers >= currencies):
        raise LedgerError("an account has a currency that is not registered")
    high, low = np.zeros((2, currencies), np.int64)
    np.add.at(high, numbers, balances >> 32)
    np.add.at(low, numbers, balances & 0xFFFFFFFF)
    return [(above << 32) + below for above, below in zip(high.tolist(), low.tolist(), strict=True)]


def _check_holds(
    arrays: LedgerArrays, holds: Records, held: npt.NDArray[np.int64], incoming: npt.NDArray[np.int64]
) -> None:
    """Raise `LedgerError` unless every account's held and incoming sums are those of its open holds and tries."""
    counters = arrays.counters
    tries = holds[holds["kind"] != HOLD]
    for what, sums, rows, remaining in (
        ("held", held, holds["debit_row"], holds["remaining"]),
        ("incoming", incoming, tries["credit_row"], tries["remaining"]),
    ):
        totals = np.zeros(len(sums), np.int64)
        np.add.at(totals, rows, remaining)
        if not np.array_equal(totals, sums):
            raise LedgerError(f"an account's {what} sum is not that of its open holds and tries")
    unsettled = unsettled_records(arrays)
    decisions = unsettled["decision_sequence"]
    if np.any(unsettled["try_sequence"] >= decisions) or np.any(decisions[1:] <= decisions[:-1]):
        raise LedgerError("what is unsettled is not in the order of the decisions, each after its try")
    if np.count_nonzero(tries["kind"] == TRY_DEBIT) != int(counters[COUNTER_TRY_DEBITS]):
        raise LedgerError("the number of open tries is not what it was counted to be")
    count = int(counters[COUNTER_HOLDS_TOP] - counters[COUNTER_HOLDS_FREE])
    if np.any(holds["remaining"] <= 0) or np.any(holds["fate"] != FATE_OPEN) or len(holds) != count:
        raise LedgerError("a hold with nothing left, or with a fate, is still open")
    if np.count_nonzero(holds["deadline_ns"]) != int(counters[COUNTER_HEAP]):
        raise LedgerError("the heap of deadlines does not have every open hold that has one")
