"""Taking back what the commands of a chain did, when one of them is refused.

While a chain is executed, whoever is about to change a row keeps its image here first. Ids that the chain used stay
used, whatever comes of it, so the id index is never taken back.
"""

from typing import Final

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.holds import drop_hold, settle_hold
from bezant.engine.ledger.index import remove
from bezant.engine.ledger.lookups import hash_of_account
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_IN_CHAIN,
    COUNTER_UNDO,
    FATE_OPEN,
    ROW_WORDS,
    UNDO_IMAGE,
    UNDO_KIND,
    UNDO_NUMBER,
    LedgerArrays,
)

_ACCOUNT_CHANGED: Final = 0
_ACCOUNT_OPENED: Final = 1
_HOLD_CHANGED: Final = 2
_HOLD_MADE: Final = 3


@inlined
def _keep(arrays: LedgerArrays, kind: int, number: int) -> int:
    """Start a record; returns its number."""
    place = arrays.counters[COUNTER_UNDO]
    arrays.counters[COUNTER_UNDO] = place + 1
    arrays.undo[place, UNDO_KIND] = kind
    arrays.undo[place, UNDO_NUMBER] = number
    return place


@inlined
def keep_account(arrays: LedgerArrays, number: int) -> None:
    """Keep the image of an account that is about to change, if this is a chain."""
    if arrays.counters[COUNTER_IN_CHAIN] != 0:
        place = _keep(arrays, _ACCOUNT_CHANGED, number)
        for word in range(ROW_WORDS):
            arrays.undo[place, UNDO_IMAGE + word] = arrays.row_words[number, word]


@inlined
def keep_opened(arrays: LedgerArrays, number: int) -> None:
    """Remember that an account was opened, if this is a chain."""
    if arrays.counters[COUNTER_IN_CHAIN] != 0:
        _keep(arrays, _ACCOUNT_OPENED, number)


@inlined
def keep_hold(arrays: LedgerArrays, number: int) -> None:
    """Keep what is left of a hold that is about to change, if this is a chain."""
    if arrays.counters[COUNTER_IN_CHAIN] != 0:
        place = _keep(arrays, _HOLD_CHANGED, number)
        arrays.undo[place, UNDO_IMAGE] = arrays.holds.rows[number]["remaining"]


@inlined
def keep_made(arrays: LedgerArrays, number: int) -> None:
    """Remember that a hold was made, if this is a chain."""
    if arrays.counters[COUNTER_IN_CHAIN] != 0:
        _keep(arrays, _HOLD_MADE, number)


@inlined
def close_hold(arrays: LedgerArrays, number: int, fate: int) -> None:
    """Close a hold: at once, or in a chain when that stands."""
    arrays.holds.rows[number]["fate"] = fate
    if arrays.counters[COUNTER_IN_CHAIN] == 0:
        settle_hold(arrays, number)


@inlined
def begin_chain(arrays: LedgerArrays) -> None:
    """Keep images from now on."""
    arrays.counters[COUNTER_UNDO] = 0
    arrays.counters[COUNTER_IN_CHAIN] = 1


@called
def let_stand(arrays: LedgerArrays) -> None:
    """The chain stands: free the rows of the holds that it closed."""
    arrays.counters[COUNTER_IN_CHAIN] = 0
    for place in range(arrays.counters[COUNTER_UNDO]):
        kind = arrays.undo[place, UNDO_KIND]
        if kind in (_HOLD_CHANGED, _HOLD_MADE):
            number = arrays.undo[place, UNDO_NUMBER]
            hold = arrays.holds.rows[number]
            if hold["sequence"] != 0 and hold["fate"] != FATE_OPEN:
                settle_hold(arrays, number)


@called
def take_back(arrays: LedgerArrays) -> None:
    """The chain falls: restore every image, the last one first."""
    arrays.counters[COUNTER_IN_CHAIN] = 0
    for place in range(arrays.counters[COUNTER_UNDO] - 1, -1, -1):
        kind, number = arrays.undo[place, UNDO_KIND], arrays.undo[place, UNDO_NUMBER]
        if kind == _ACCOUNT_CHANGED:
            for word in range(ROW_WORDS):
                arrays.row_words[number, word] = arrays.undo[place, UNDO_IMAGE + word]
        elif kind == _ACCOUNT_OPENED:
            forget_account(arrays, number)
        elif kind == _HOLD_CHANGED:
            arrays.holds.rows[number]["remaining"] = arrays.undo[place, UNDO_IMAGE]
            arrays.holds.rows[number]["fate"] = FATE_OPEN
        else:
            drop_hold(arrays, number)


@called
def forget_account(arrays: LedgerArrays, number: int) -> None:
    """Take the account that was opened last out of the table again."""
    row, index = arrays.rows[number], arrays.account_index
    remove(index, hash_of_account(arrays, row["id_head"], row["id_tail"]), number + 1)
    arrays.counters[COUNTER_ACCOUNTS] = number
    for word in range(ROW_WORDS):
        arrays.row_words[number, word] = 0
