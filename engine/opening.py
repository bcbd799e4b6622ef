"""How a data folder is opened as a member of its group: its log, its vote, its ledger.

A folder without a node file is a group by itself, and begins its own log. That of a first member begins with the entry
that all first members of its group begin with; that of a node which joins begins empty, and its leader sends all of it.
"""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bezant.engine.log.segment import segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.log.vote import VoteFile, open_vote_file
from bezant.engine.member import ALONE, Identity, Member
from bezant.engine.node_file import FirstEntry, NodeFile, first_entry, first_timestamp_ns, log_id_of
from bezant.engine.raft.interface import Chance, CoreSettings
from bezant.engine.replica import Replica, ReplicaSettings, open_replica, shard_directory
from bezant.engine.skimming import split_span
from bezant.engine.snapshots.installing import finish_install
from bezant.protocol.errors import CorruptLog, StorageError, UsageError
from bezant.protocol.records import ENTRY_INDEX_FIRST

REPAIR_ADVICE: Final = (
    "If the other nodes of its group are well, this one can get from them what it has lost: "
    "bezant serve --repair-from-group"
)


def open_member(
    data_directory: Path | Directory,
    node: NodeFile | None = None,
    *,
    log_id: int = 0,
    shard: int = 0,
    settings: ReplicaSettings | None = None,
    core_settings: CoreSettings | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    chance: Chance | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Member:
    """Open a data folder as the member that its node file names, or as a group by itself, and recover its state.

    `log_id`: the number of the log of a group that a blank disk joins; see `must_ask_for_group`.
    Raises `DataFolderInUse`, `UnsupportedFormat`, `CorruptLog`, `StorageError`.
    """
    first = vote_file = None
    identity = ALONE
    finish_install(data_directory, shard_directory(data_directory, shard), shard)
    if node is not None:
        identity = Identity(node.node_id, node.incarnation)
        directory = shard_directory(data_directory, shard)
        if must_ask_for_group(data_directory, node, shard) and not log_id:
            raise UsageError(f"node {node.node_id} joins a group, and was not told which log it has")
        first = first_entry_of(node, directory, shard, log_id)
        vote_file = open_vote(directory, shard)
    with ExitStack() as undoing:
        if vote_file is not None:
            undoing.callback(vote_file.close)
        replica = open_replica(
            data_directory, shard=shard, settings=settings, clock_ns=clock_ns, on_progress=on_progress, first=first
        )
        undoing.callback(replica.close)
        if node is not None:
            check_group(replica, node)
        member = Member(replica, vote_file, identity=identity, settings=core_settings, chance=chance or random.Random())
        undoing.pop_all()
    return member


def must_ask_for_group(data_directory: Path | Directory, node: NodeFile, shard: int = 0) -> bool:
    """Whether this is the blank disk of a node that joins a group, and needs the number of its log."""
    directory = shard_directory(data_directory, shard)
    directory.create()
    return bool(node.join) and not segment_numbers(directory)


def open_vote(directory: Directory, shard: int) -> VoteFile:
    """The vote file of a member. Raises `CorruptLog` if it is gone beside the log, or the log is gone beside it."""
    directory.create()
    is_empty = not segment_numbers(directory)
    vote_file = open_vote_file(directory, shard=shard, log_is_empty=is_empty)
    state = vote_file.read()
    if is_empty and state.term and not state.barred:
        vote_file.close()
        raise CorruptLog(f"{directory.path}: there is a vote, and no log any more. {REPAIR_ADVICE}")
    return vote_file


def first_entry_of(node: NodeFile, directory: Directory, shard: int, log_id: int = 0) -> FirstEntry:
    """What the log of a member begins with; `log_id` is that of the group which a blank disk joins.

    The number of a log that is there is not asked for: this may be a later version, which would begin another one.
    """
    is_there = bool(segment_numbers(directory))
    if node.members:
        log_id = log_id_of(node, shard)
        return FirstEntry(first_entry(node), first_timestamp_ns(node), 0 if is_there else log_id)
    return FirstEntry(None, 0, 0 if is_there else log_id)


def check_group(replica: Replica, node: NodeFile) -> None:
    """Raise `StorageError` if the log of a first member is not the one that its node file says."""
    log = replica.log
    if node.members and log.first_index == ENTRY_INDEX_FIRST:
        (entry,) = split_span(log.read_encoded(ENTRY_INDEX_FIRST, ENTRY_INDEX_FIRST))
        if log_id_of(node, replica.shard, entry.body) != log.log_id:
            raise StorageError("the log in this folder is of another group than its node file says")
