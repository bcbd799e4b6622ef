"""The state of a ledger as plain arrays, without its ids: taken for a checkpoint, and put into an empty ledger again.

An image depends on the history alone: not on the layout of hash tables, nor on which rows were free.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.ledger.checks import HOLD, TRY_CREDIT, TRY_DEBIT, TRY_PART
from bezant.engine.ledger.holds import make_hold
from bezant.engine.ledger.index import insert
from bezant.engine.ledger.lookups import hash_of_account, hash_of_key, place_of
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    COUNTER_RULES_VERSION,
    COUNTER_TRY_DEBITS,
    COUNTER_UNSETTLED,
    UNSETTLED,
    UNSETTLED_WORDS,
    LedgerArrays,
)
from bezant.engine.metadata.table import NO_SUBJECTS
from bezant.engine.moves.state import MovesRecord
from bezant.protocol.access import Token
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
IMAGE_TRY = np.dtype([*IMAGE_HOLD.descr, ("kind", "<i8")])
"""An open try: the fields of a hold, `deadline_ns` 0, and the kind of its command."""
NO_TRIES = np.zeros(0, IMAGE_TRY)
NO_UNSETTLED = np.zeros(0, UNSETTLED)


class LedgerImage(NamedTuple):
    """Currencies with their decimals, in order of registration; ROW and ROW_COLD records of the accounts in the order
    of opening; IMAGE_HOLD records of the open holds and IMAGE_TRY records of the open tries, in the order of their
    sequences; UNSETTLED records in the order of the decisions; SUBJECT records of what has metadata;
    named positions; what is known of moves of slots; the tokens of clients."""

    currencies: dict[str, int]
    rules_version: int
    next_sequence: int
    last_timestamp_ns: int
    rows: Records
    rows_cold: Records
    holds: Records
    tries: Records = NO_TRIES
    unsettled: Records = NO_UNSETTLED
    metadata: Records = NO_SUBJECTS
    positions: Mapping[str, int] = MappingProxyType({})
    moves: MovesRecord | None = None
    tokens: tuple[Token, ...] = ()
    tokens_forgotten: bytes = b""


def pick_fields(records: Records, dtype: np.dtype[np.void]) -> Records:
    """The fields of a dtype, out of records that have more."""
    picked = np.zeros(len(records), dtype)
    for name in dtype.names or ():
        picked[name] = records[name]
    return picked


def unsettled_records(arrays: LedgerArrays) -> Records:
    """UNSETTLED records of the decisions that are not settled: a view, good until the ledger goes on."""
    rows = arrays.holds.unsettled[: int(arrays.counters[COUNTER_UNSETTLED])]
    return rows.reshape(-1).view(UNSETTLED)


def take_image(arrays: LedgerArrays, currencies: dict[str, int], open_holds: Records) -> LedgerImage:
    """The image of a state; its account rows are views, good until the ledger goes on. `open_holds`: HOLD_ROW."""
    counters = arrays.counters
    accounts = int(counters[COUNTER_ACCOUNTS])
    return LedgerImage(
        currencies=currencies,
        rules_version=int(counters[COUNTER_RULES_VERSION]),
        next_sequence=int(counters[COUNTER_NEXT_SEQUENCE]),
        last_timestamp_ns=int(counters[COUNTER_LAST_TIMESTAMP_NS]),
        rows=arrays.rows[:accounts],
        rows_cold=arrays.rows_cold[:accounts],
        holds=pick_fields(open_holds[open_holds["kind"] == HOLD], IMAGE_HOLD),
        tries=pick_fields(open_holds[open_holds["kind"] != HOLD], IMAGE_TRY),
        unsettled=unsettled_records(arrays).copy(),
    )


def restore_image(arrays: LedgerArrays, image: LedgerImage) -> None:
    """Put an image into arrays that are empty and whose indexes have room; currencies are the caller's to register.

    Raises `StorageError` if there is no room, `LedgerError` if the image makes no sense.
    """
    accounts, holds, tries = len(image.rows), image.holds, image.tries
    undecided = int(np.count_nonzero(tries["kind"] == TRY_DEBIT))
    open_count = max(len(holds) + len(tries), undecided + len(image.unsettled))
    if accounts > len(arrays.rows) or open_count > len(arrays.holds.rows):
        raise StorageError(
            f"the checkpoint has {accounts} accounts and {open_count} open holds, and accounts_max and holds_max let a "
            f"ledger have {len(arrays.rows)} and {len(arrays.holds.rows)} here: set them to what the node had"
        )
    if not np.isin(tries["kind"], (TRY_DEBIT, TRY_CREDIT, TRY_PART)).all() or np.any(tries["deadline_ns"] != 0):
        raise LedgerError("the image has a try that is of no kind of tries, or has a deadline")
    for what, numbers, limit in (
        ("currency", image.rows["currency_number"], len(image.currencies)),
        ("debit account", holds["debit_row"], accounts),
        ("credit account", holds["credit_row"], accounts),
        ("debit account", tries["debit_row"], accounts),
        ("credit account", tries["credit_row"], accounts),
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
    counters[COUNTER_TRY_DEBITS] = undecided
    counters[COUNTER_UNSETTLED] = len(image.unsettled)
    arrays.holds.unsettled[: len(image.unsettled)] = (
        np.ascontiguousarray(image.unsettled).view(np.int64).reshape(-1, UNSETTLED_WORDS)
    )
    plain = np.zeros(len(holds), IMAGE_TRY)
    for name in IMAGE_HOLD.names or ():
        plain[name] = holds[name]
    plain["kind"] = HOLD
    make_holds(arrays, plain)
    make_holds(arrays, np.require(tries, IMAGE_TRY, ["C_CONTIGUOUS", "WRITEABLE"]))


@kernel
def index_rows(arrays: LedgerArrays, count: int) -> None:
    """Add the first `count` accounts to the account index."""
    for number in range(count):
        row = arrays.rows[number]
        insert(arrays.account_index, hash_of_account(arrays, row["id_head"], row["id_tail"]), number + 1)


@kernel
def make_holds(arrays: LedgerArrays, holds: Records) -> None:
    """Open the holds and tries of an image (IMAGE_TRY)."""
    for number in range(len(holds)):
        hold = holds[number]
        head, tail = hold["id_head"], hold["id_tail"]
        place = place_of(hold["kind"], arrays.rows[hold["debit_row"]]["id_head"])
        hash_value = hash_of_key(arrays, head, tail, place)
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
            hold["kind"],
        )
