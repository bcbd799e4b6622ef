"""How a data folder is opened as a member of its group: its log, its vote, its ledger.

A folder without a node file is a group by itself, and begins its own log. One that `bezant init` has made begins with
the entry that all first members of its group begin with.
"""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bezant.engine.log.segment import segment_numbers
from bezant.engine.log.vote import open_vote_file
from bezant.engine.member import ALONE, Identity, Member
from bezant.engine.node_file import NodeFile, first_entry, first_timestamp_ns, log_id_of
from bezant.engine.raft.interface import Chance, CoreSettings
from bezant.engine.replica import FirstEntry, ReplicaSettings, open_replica, shard_directory


def open_member(
    data_directory: Path,
    node: NodeFile | None = None,
    *,
    shard: int = 0,
    settings: ReplicaSettings | None = None,
    core_settings: CoreSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    chance: Chance | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Member:
    """Open a data folder as the member that its node file names, or as a group by itself, and recover its state.

    Raises `DataFolderInUse`, `UnsupportedFormat`, `CorruptLog`, `StorageError`.
    """
    first = vote_file = None
    identity = ALONE
    if node is not None:
        identity = Identity(node.node_id, node.incarnation)
        first = FirstEntry(first_entry(node), first_timestamp_ns(node), log_id_of(node, shard))
        directory = shard_directory(data_directory, shard)
        directory.create()
        vote_file = open_vote_file(directory, shard=shard, log_is_empty=not segment_numbers(directory))
    with ExitStack() as undoing:
        if vote_file is not None:
            undoing.callback(vote_file.close)
        replica = open_replica(
            data_directory, shard=shard, settings=settings, clock_ns=clock_ns, on_progress=on_progress, first=first
        )
        undoing.callback(replica.close)
        member = Member(replica, vote_file, identity=identity, settings=core_settings, chance=chance or random.Random())
        undoing.pop_all()
    return member
