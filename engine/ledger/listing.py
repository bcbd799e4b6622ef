"""Accounts as look-ups and lists answer them, out of the two rows that the ledger keeps of each."""

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.state import LedgerArrays
from bezant.protocol.records import ACCOUNT, Records

_COPIED = ("id_head", "id_tail", "balance", "held", "limit", "last_position", "event_count", "flags")


def account_records(arrays: LedgerArrays, numbers: npt.NDArray[np.int64], decimals: list[int]) -> Records:
    """ACCOUNT records of rows; `decimals` are those of the currencies, in order of registration."""
    rows, cold = arrays.rows[numbers], arrays.rows_cold[numbers]
    accounts = np.zeros(len(numbers), ACCOUNT)
    for field in _COPIED:
        accounts[field] = rows[field]
    accounts["incoming"] = cold["incoming"]
    accounts["opened_position"] = cold["opened_position"]
    accounts["name"] = np.ascontiguousarray(cold["name"]).view("S48").reshape(len(numbers))
    accounts["currency"] = arrays.currencies[rows["currency_number"]]
    accounts["decimals"] = np.array([*decimals, 0], np.int64)[rows["currency_number"]]
    accounts["found"] = 1
    return accounts
