"""Compiled look-ups that change nothing."""

from bezant.engine.compiled import kernel
from bezant.engine.ledger.kernel import find_account
from bezant.engine.ledger.state import LedgerArrays
from bezant.protocol.records import Words


@kernel
def find_rows(arrays: LedgerArrays, ids: Words, numbers: Words) -> None:
    """Row numbers (-1: unknown) of account ids of shape (count, 2)."""
    for index in range(len(ids)):
        numbers[index] = find_account(arrays, ids[index, 0], ids[index, 1])
