"""Leaves metadata out of a folder that is made of a snapshot: what has been erased since that was made.

The folder of a node alone goes on by itself, so the erasing is a part of its history: entries behind the snapshot's
last one erase what is unwanted, and what had been overwritten in the files already while they were being kept. That of
a member of a group is to have nothing but the group's own entries, among them those that erased it, which it has not
got yet: there the content is overwritten and nothing is added.
"""

import secrets
from collections.abc import Set as AbstractSet
from typing import Final

from bezant.engine.archive.source import State
from bezant.engine.ledger.ledger import ACCOUNTS_MAX_DEFAULT, HOLDS_MAX_DEFAULT
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.storage import Directory
from bezant.engine.metadata.erasing import Erasing
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import ReplicaSettings, open_replica, shard_directory
from bezant.protocol.errors import StorageError
from bezant.protocol.metadata import SALT_SIZE, SetMetadata, blob_is_erased

ERASED_AT_A_TIME: Final = 1000
"""Entries that are written together."""


def forget(
    data: Directory, shard: int, state: State, kept: AbstractSet[int] | None, *, is_member: bool, free_space_floor: int
) -> int:
    """Leave out the metadata of all entries but those with these indexes (None: of none); of how many subjects it was.

    The folder ends with `state`, and nobody has it locked. Raises `StorageError` and its kinds.
    """
    log = open_log(shard_directory(data, shard), shard=shard, writable=False)
    try:
        for _ in log.open(None if state.checkpoint is None else state.checkpoint.point, state.point.index):
            pass
        known = [int(index) for index in state.metadata]
        found = [index for index in known if kept is not None and index not in kept]
        if is_member:
            _overwrite(log, found)
            return len(found)
        unwanted = frozenset(found)
        gone = [index for index in known if index in unwanted or blob_is_erased(log.read_entry(index).body)]
    finally:
        log.close()
    if gone:
        _erase(data, shard, state, frozenset(gone), free_space_floor)
    return len(found)


def _overwrite(log: Log, indexes: list[int]) -> None:
    erasing = Erasing(log, log.directory.helper("bezant-erase"))
    try:
        erasing.erase(indexes)
    finally:
        erasing.close()


def _erase(data: Directory, shard: int, state: State, indexes: AbstractSet[int], free_space_floor: int) -> None:
    settings = ReplicaSettings(
        free_space_floor=free_space_floor,
        accounts_max=max(ACCOUNTS_MAX_DEFAULT, state.accounts),
        holds_max=max(HOLDS_MAX_DEFAULT, state.holds),
    )
    replica = open_replica(data, shard=shard, settings=settings)
    try:
        if (replica.applied_index, replica.ledger.digest()) != (state.point.index, state.state_digest):
            raise StorageError(f"{replica.log.directory.path}: it has changed while it was being made")
        records = [one for one in replica.ledger.metadata.records() if int(one["index"]) in indexes]
        for number, record in enumerate(records, start=1):
            asked = SetMetadata(int(record["subject_kind"]), record["subject"].tobytes())
            set_metadata(replica, asked, secrets.token_bytes(SALT_SIZE))
            if number % ERASED_AT_A_TIME == 0:
                replica.write_group()
        replica.write_group()
        replica.settle_erasing(replica.durable_index)
        replica.log.commit_index = replica.durable_index
        replica.tidy()
    finally:
        replica.close()
