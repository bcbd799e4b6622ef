"""What a leader is asked to remember beside the money: metadata of accounts and events, and named positions."""

import random
from collections import Counter

from bezant.engine.keeping_positions import keep_positions
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import Replica
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.metadata import SALT_SIZE, SetMetadata, SubjectKind, subject_of_position
from bezant.protocol.names import account_id
from bezant.protocol.records import position_of

from .clients import NAMES

METADATA_RATE = 0.1
"""How often a leader sets or erases metadata when it executes frames; and how often of those it erases."""
METADATA_ERASED = 0.3


def maybe_set_metadata(replica: Replica, chance: random.Random, boot: int, counts: Counter[str]) -> None:
    """Set, or erase, the metadata of an account or an event, perhaps of one that is not there; keep a position."""
    if chance.random() >= METADATA_RATE:
        return
    position = chance.randrange(1, 9)
    subject = chance.choice(
        [
            (SubjectKind.ACCOUNT, account_id(chance.choice(NAMES), "EUR")),
            (SubjectKind.EVENT, subject_of_position(position_of(0, position))),
        ]
    )
    content = b"" if chance.random() < METADATA_ERASED else b'{"set":"%d by %d"}' % (chance.randrange(9), boot)
    acknowledged = position_of(0, chance.randrange(replica.ledger.next_sequence))
    try:
        keep_positions(replica, {"mail": acknowledged})
        set_metadata(replica, SetMetadata(*subject, content), chance.randbytes(SALT_SIZE))
    except (UsageError, StorageError):
        counts["metadata refused"] += 1
    else:
        counts["metadata erased" if not content else "metadata set"] += 1
