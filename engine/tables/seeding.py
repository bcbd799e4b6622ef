"""What a checkpoint knows of accounts, currencies and holds, so that a part of the history need not be led up to.

Names and currencies of accounts never change, and a number says when an account was opened: so the accounts of a
checkpoint serve for every event before it, and with its open holds whatever follows can be taken in.
"""

from typing import Final

import numpy as np

from bezant.engine.checkpoints.file import Checkpoint, read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.ledger.image import IMAGE_HOLD, LedgerImage, pick_fields
from bezant.engine.log.storage import Directory
from bezant.engine.projections.kernels import restore_holds
from bezant.engine.projections.layout import (
    ACCOUNT_CURRENCY,
    ACCOUNT_HEAD,
    ACCOUNT_NAME,
    ACCOUNT_OPENED,
    ACCOUNT_TAIL,
    ACCOUNT_WORDS,
    CHANGE_ACCOUNT,
    CHANGE_AFTER,
    CHANGE_HEAD,
    CHANGE_HOLD,
    CHANGE_SEQUENCE,
    CHANGE_TAIL,
    CHANGE_WORDS,
)
from bezant.engine.projections.tables import Tables
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.records import SEQUENCE_BITS

_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1


def find_checkpoint(directory: Directory, until_index: int) -> Checkpoint | None:
    """The newest checkpoint that is whole and stands at or before an entry; None if there is none."""
    folder = CheckpointFolder(directory)
    for index in reversed(folder.indexes()):
        if index > until_index:
            continue
        try:
            return read_checkpoint(folder.directory, checkpoint_name(index))
        except (StorageError, OSError):
            continue  # It is damaged, or a newer one has taken its place: another one, or none, costs time alone.
    return None


def seed(tables: Tables, image: LedgerImage) -> None:
    """Put what an image knows into tables that are empty. Raises `CorruptLog`, `StorageError`."""
    for code, decimals in image.currencies.items():
        tables.register_currency(code, decimals)
    rows = np.zeros((len(image.rows), ACCOUNT_WORDS), np.int64)
    rows[:, ACCOUNT_HEAD], rows[:, ACCOUNT_TAIL] = image.rows["id_head"], image.rows["id_tail"]
    rows[:, ACCOUNT_CURRENCY] = image.rows["currency_number"]
    rows[:, ACCOUNT_OPENED] = image.rows_cold["opened_position"] & _SEQUENCE_MASK
    rows[:, ACCOUNT_NAME:] = image.rows_cold["name"]
    tables.restore_accounts([rows.tobytes()], len(rows))
    holds = np.concatenate([image.holds, pick_fields(image.tries, IMAGE_HOLD)])
    changes = np.zeros((len(holds), CHANGE_WORDS), np.int64)
    for place, name in (
        (CHANGE_SEQUENCE, "sequence"),
        (CHANGE_HOLD, "sequence"),
        (CHANGE_AFTER, "remaining"),
        (CHANGE_ACCOUNT, "debit_row"),
        (CHANGE_HEAD, "id_head"),
        (CHANGE_TAIL, "id_tail"),
    ):
        changes[:, place] = holds[name]
    if restore_holds(tables.make_room(len(changes)), changes) < len(changes):
        raise CorruptLog("the holds of a checkpoint do not fit together")
