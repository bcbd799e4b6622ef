"""Accounts as look-ups and lists answer them, out of the two rows that the ledger keeps of each."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import kernel, quick
from bezant.engine.ledger.state import ROW_COLD, LedgerArrays
from bezant.protocol.records import ACCOUNT, Records, Words

_FIELDS: Final[Any] = ACCOUNT.fields
_WORD: Final = {name: int(place) // 8 for name, (_, place) in _FIELDS.items()}
_ACCOUNT_WORDS: Final = ACCOUNT.itemsize // 8
_COLD_WORDS: Final = ROW_COLD.itemsize // 8
_NAME_WORDS: Final = 6
_COLD: Final[Any] = ROW_COLD.fields

_ID_HEAD: Final = _WORD["id_head"]
_ID_TAIL: Final = _WORD["id_tail"]
_BALANCE: Final = _WORD["balance"]
_HELD: Final = _WORD["held"]
_INCOMING: Final = _WORD["incoming"]
_LIMIT: Final = _WORD["limit"]
_CURRENCY: Final = _WORD["currency"]
_LAST_POSITION: Final = _WORD["last_position"]
_EVENT_COUNT: Final = _WORD["event_count"]
_OPENED_POSITION: Final = _WORD["opened_position"]
_FLAGS: Final = _WORD["flags"]
_FOUND: Final = _WORD["found"]
_NAME: Final = _WORD["name"]
_COLD_NAME: Final = int(_COLD["name"][1]) // 8

if (
    any(place % 8 for _, place in (field for name, field in _FIELDS.items() if name != "decimals"))
    or _FIELDS["decimals"][1] != _FIELDS["flags"][1] + 4
    or any(_FIELDS[name][0].itemsize != 4 for name in ("flags", "decimals", "found"))
    or _FIELDS["name"][0].itemsize != 8 * _NAME_WORDS
):
    raise AssertionError("the fields of an account are not where listing writes them")


@kernel
def write_accounts(arrays: LedgerArrays, cold: Words, numbers: Words, decimals: Words, accounts: Words) -> None:
    """Write the ACCOUNT records, as words that are zero, of rows; those of no row (-1) stay zero.

    `cold` are the words of `rows_cold`.
    """
    for place in range(len(numbers)):
        number = numbers[place]
        if number < 0:
            continue
        row = arrays.rows[number]
        currency = row["currency_number"]
        accounts[place, _ID_HEAD] = row["id_head"]
        accounts[place, _ID_TAIL] = row["id_tail"]
        accounts[place, _BALANCE] = row["balance"]
        accounts[place, _HELD] = row["held"]
        accounts[place, _INCOMING] = arrays.rows_cold[number]["incoming"]
        accounts[place, _LIMIT] = row["limit"]
        accounts[place, _CURRENCY] = arrays.currencies[currency]
        accounts[place, _LAST_POSITION] = row["last_position"]
        accounts[place, _EVENT_COUNT] = row["event_count"]
        accounts[place, _OPENED_POSITION] = arrays.rows_cold[number]["opened_position"]
        accounts[place, _FLAGS] = (np.int64(row["flags"]) & 0xFFFFFFFF) | (decimals[currency] << 32)
        accounts[place, _FOUND] = 1
        for word in range(_NAME_WORDS):
            accounts[place, _NAME + word] = cold[number, _COLD_NAME + word]


def account_records(arrays: LedgerArrays, numbers: npt.NDArray[np.int64], decimals: Words) -> Records:
    """ACCOUNT records of rows, zeros where the number is -1; `decimals` are those of the currencies, in order of
    registration."""
    accounts = np.zeros(len(numbers), ACCOUNT)
    cold = arrays.rows_cold.view(np.int64).reshape(-1, _COLD_WORDS)
    words = accounts.view(np.int64).reshape(-1, _ACCOUNT_WORDS)
    quick(write_accounts)(arrays, cold, numbers, decimals, words)
    return accounts
