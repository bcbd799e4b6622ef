"""The state of a ledger as plain arrays, without its ids: taken for a checkpoint, and put into an empty ledger again.

An image depends on the history alone: not on the layout of hash tables, nor on which rows were free.
"""

from typing import NamedTuple

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.ledger.holds import make_hold
from bezant.engine.ledger.index import insert
from bezant.engine.ledger.lookups import hash_of_account, hash_of_key
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    COUNTER_RULES_VERSION,
    LedgerArrays,
)
from bezant.engine.metadata.table import NO_SUBJECTS
from bezant.protocol.errors import LedgerError, StorageError
from bezant.protocol.records import Records

IMAGE_HOLD = np.dtype(
    [
        ("id_head", "<i8"),
        ("id_tail", "<i8"),
        ("sequence", "<i8"),
        ("remaining", "<i8"),
        ("deadline_ns", "<i8"),
        ("debit_row", "<i4"),
        ("credit_row", "<i4"),
    ]
)
"""An open hold in an image."""


class LedgerImage(NamedTuple):
    """Currencies with their decimals, in order of registration; ROW and ROW_COLD records of the accounts in the order
    of opening; IMAGE_HOLD records of the open holds in the order of their sequences; SUBJECT records of what has
    metadata."""

    currencies: dict[str, int]
    rules_version: int
    next_sequence: int
    last_timestamp_ns: int
    rows: Records
    rows_cold: Records
    holds: Records
    metadata: Records = NO_SUBJECTS


def take_image(arrays: LedgerArrays, currencies: dict[str, int], open_holds: Records) -> LedgerImage:
    """The image of a state; its account rows are views, good until the ledger goes on. `open_holds`: HOLD_ROW."""
    holds = np.zeros(len(open_holds), IMAGE_HOLD)
    for name in IMAGE_HOLD.names or ():
        holds[name] = open_holds[name]
    counters = arrays.counters
    accounts = int(counters[COUNTER_ACCOUNTS])
    return LedgerImage(
        currencies=currencies,
        rules_version=int(counters[COUNTER_RULES_VERSION]),
        next_sequence=int(counters[COUNTER_NEXT_SEQUENCE]),
        last_timestamp_ns=int(counters[COUNTER_LAST_TIMESTAMP_NS]),
        rows=arrays.rows[:accounts],
        rows_cold=arrays.rows_cold[:accounts],
        holds=holds,
    )


def restore_image(arrays: LedgerArrays, image: LedgerImage) -> None:
    """Put an image into arrays that are empty and whose indexes have room; currencies are the caller's to register.

    Raises `StorageError` if there is no room, `LedgerError` if the image makes no sense.
    """
    accounts, holds = len(image.rows), image.holds
    if accounts > len(arrays.rows) or len(holds) > len(arrays.holds.rows):
        raise StorageError(
            f"the checkpoint has {accounts} accounts and {len(holds)} open holds, and accounts_max and holds_max let a "
            f"ledger have {len(arrays.rows)} and {len(arrays.holds.rows)} here: set them to what the node had"
        )
    for what, numbers, limit in (
        ("currency", image.rows["currency_number"], len(image.currencies)),
        ("debit account", holds["debit_row"], accounts),
        ("credit account", holds["credit_row"], accounts),
    ):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < limit:
            raise LedgerError(f"the image names a {what} that it does not have")
    arrays.rows[:accounts] = image.rows
    arrays.rows_cold[:accounts] = image.rows_cold
    counters = arrays.counters
    counters[COUNTER_ACCOUNTS] = accounts
    counters[COUNTER_RULES_VERSION] = image.rules_version
    counters[COUNTER_NEXT_SEQUENCE] = image.next_sequence
    counters[COUNTER_LAST_TIMESTAMP_NS] = image.last_timestamp_ns
    index_rows(arrays, accounts)
    make_holds(arrays, holds)


@kernel
def index_rows(arrays: LedgerArrays, count: int) -> None:
    """Add the first `count` accounts to the account index."""
    for number in range(count):
        row = arrays.rows[number]
        insert(arrays.account_index, hash_of_account(arrays, row["id_head"], row["id_tail"]), number + 1)


@kernel
def make_holds(arrays: LedgerArrays, holds: Records) -> None:
    """Open the holds of an image (IMAGE_HOLD)."""
    for number in range(len(holds)):
        hold = holds[number]
        head, tail = hold["id_head"], hold["id_tail"]
        hash_value = hash_of_key(arrays, head, tail, arrays.rows[hold["debit_row"]]["id_head"])
        make_hold(
            arrays,
            head,
            tail,
            hash_value,
            hold["sequence"],
            hold["remaining"],
            hold["deadline_ns"],
            hold["debit_row"],
            hold["credit_row"],
        )
