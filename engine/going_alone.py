"""What is left when a majority of a group is gone for ever: one node goes on alone, with what it has on its disk.

Raft cannot do this, and rightly: what the others had may have been acknowledged and not be here. So it is an operator
who says so, about a node that is stopped. The node becomes the only voter by an entry of a new term, and a second entry
says for ever that it was done, when, and what was known. All of its log counts from then on, committed before or not.

The others must never come back with their disks: theirs is another history now. New nodes join as to any group.
"""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bezant.engine.log.vote import VoteFile
from bezant.engine.node_file import NodeFile
from bezant.engine.opening import check_group, first_entry_of, open_vote
from bezant.engine.raft.hard_state import HardState
from bezant.engine.replica import Replica, ReplicaSettings, open_replica, shard_directory
from bezant.engine.skimming import split_span
from bezant.protocol.errors import HistoryIncomplete, StorageError, UsageError
from bezant.protocol.messages import Configuration, ControlEntry


class GoneAlone(NamedTuple):
    """What was known when a node was made the only voter: entries by their indexes, the members by their ids."""

    term: int
    committed_index: int
    last_index: int
    members_before: list[int]
    voters_before: list[int]
    note: str


def go_on_alone(data_directory: Path, node: NodeFile, settings: ReplicaSettings | None = None) -> GoneAlone:
    """Make a node that is stopped the only voter of its group, whatever the others know.

    Raises `UsageError` for a node that is none of the members or is alone already, `DataFolderInUse`, `CorruptLog`,
    `UnsupportedFormat`, `StorageError`.
    """
    directory = shard_directory(data_directory, node.shard)
    vote_file = open_vote(directory, node.shard)
    try:
        first = first_entry_of(node, directory, node.shard)
        replica = open_replica(data_directory, shard=node.shard, settings=settings, first=first)
        try:
            check_group(replica, node)
            if not replica.log.is_complete:
                raise HistoryIncomplete(
                    f"the history before entry {replica.log.first_index} has not come to node {node.node_id}, and "
                    "nobody would be left to get it from: choose a node that has it, or bring one back from a copy"
                )
            return _go_on_alone(replica, vote_file, node)
        finally:
            replica.close()
    finally:
        vote_file.close()


def _go_on_alone(replica: Replica, vote_file: VoteFile, node: NodeFile) -> GoneAlone:
    log, configuration = replica.log, replica.configurations[-1][1] if replica.configurations else None
    if configuration is None or node.member.node_id not in {member.node_id for member in configuration.members}:
        raise UsageError(f"node {node.node_id} is no member of the group, as far as its log goes")
    members, voters = [member.node_id for member in configuration.members], sorted(configuration.voters)
    if members == [node.node_id]:
        raise UsageError(f"node {node.node_id} is alone already: start it")
    committed_index, last_index = max(log.commit_index, replica.applied_index), log.last_index
    _apply_all(replica)
    term = max(vote_file.read().term, log.term_at(last_index) or 0) + 1
    note = (
        f"bezant {version('bezant')}: on {datetime.now(UTC).isoformat(timespec='seconds')} an operator had node "
        f"{node.node_id} go on alone, in term {term}, accepting that acknowledged transfers may be lost; the members "
        f"were {members}, the voters {voters}; entries up to {committed_index} were known to be committed, and those "
        f"up to {last_index} count now"
    )
    # It is barred no more: what its disk may have lost is among what was accepted to be lost.
    vote_file.write(HardState(term, node.node_id))
    log.term = term
    replica.append_configuration(Configuration([node.member], [node.node_id]))
    replica.append_control(ControlEntry(created_by=note))
    replica.write_group()
    log.commit_index = log.last_index
    replica.tidy()
    return GoneAlone(term, committed_index, last_index, members, voters, note)


def _apply_all(replica: Replica) -> None:
    """Execute what this node did not know to be committed: the next entry stands behind all of it."""
    while replica.applied_index < replica.log.last_index:
        index = replica.applied_index + 1
        for entry in split_span(replica.log.read_encoded(index, index)):
            if not replica.apply(entry):
                raise StorageError(
                    "the ids of what was not known to be committed find no room in memory: give it more "
                    "(--ids-memory-mib)"
                )
