"""What a node tells of itself: `Statistics`, put together from its counters and from how things stand now."""

import time
from typing import Final

from bezant.engine.raft.interface import CoreStatus
from bezant.engine.raft.roles import Role
from bezant.engine.replica import BATCH_COMMANDS_MAX, Replica
from bezant.net.metrics.latencies import resident_bytes
from bezant.net.server.open_connections import CONNECTIONS_MAX, UNSENT_BYTES_MAX, OpenConnections
from bezant.net.server.reactor import BATCHES_MAX, TOTAL_BYTES_IN_FLIGHT_MAX, Reactor
from bezant.protocol.errors import LedgerError
from bezant.protocol.statistics import FollowerStatistics, Queue, Statistics
from bezant.protocol.statistics import Role as RoleWord

APPLY_BEHIND_ENTRIES_MAX: Final = 4096
"""Entries that may be committed and not applied on a node that is told to be ready."""
_NS_PER_S: Final = 1_000_000_000


def report(reactor: Reactor, connections: OpenConnections | None = None) -> Statistics:
    """How a node is, or an engine in this process, which has no connections. On the loop: some 50 us.

    The longest step of the loop is looked for anew from here on.
    """
    counters, replica, member = reactor.counters, reactor.replica, reactor.member
    log, ledger, core = replica.log, replica.ledger, member.core.status()
    step_s_max, step_recent_s_max = counters.take_longest_steps()
    disk_free_bytes = log.free_bytes()
    checkpoint = replica.checkpoints.newest_known
    return Statistics(
        uptime_s=time.monotonic() - counters.started_s,
        connections=counters.connections,
        commands=counters.commands,
        events=counters.events,
        accounts=ledger.account_count,
        entries=log.last_index,
        syncs=counters.syncs,
        syncs_inline=counters.syncs_inline,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
        log_bytes=log.bytes_count,
        durable_index=log.durable_index,
        durable_sequence=log.durable_sequence,
        bytes_in_flight=reactor.bytes_in_flight,
        stage_s=dict(counters.stage_s),
        loop_stall_max_ms=1e3 * step_s_max,
        durable=replica.durable,
        replicas=len(member.configuration.voters),
        loop_stall_recent_ms=1e3 * step_recent_s_max,
        shard=replica.shard,
        node_id=member.identity.node_id,
        role=_role(core),
        term=core.term,
        leader=core.leader_id,
        commit_index=member.committed_index,
        applied_index=replica.applied_index,
        followers=_followers(core, member.identity.node_id),
        requests=dict(counters.requests),
        results=counters.results(),
        latency=counters.latencies(),
        waited_s=dict(counters.waited_s),
        queues=_queues(reactor, connections),
        holds=ledger.hold_count,
        ids_in_memory=_ids_in_memory(replica),
        ids_on_disk=replica.id_runs.count,
        memory_bytes=resident_bytes(),
        disk_free_bytes=disk_free_bytes,
        disk_floor_bytes=replica.settings.free_space_floor,
        checkpoint_index=replica.checkpoint_index,
        checkpoint_age_s=None
        if checkpoint is None
        else max(time.time_ns() - checkpoint.last_timestamp_ns, 0) / _NS_PER_S,
        processor_s=time.process_time(),
        unready=find_unready(reactor, disk_free_bytes),
    )


def find_unready(reactor: Reactor, disk_free_bytes: int | None = None) -> str:
    """Why clients should not be sent to this node; "" if they should."""
    member, replica = reactor.member, reactor.replica
    if member.leader_id == 0:
        return "its group has no leader, as far as this node knows"
    behind = member.committed_index - replica.applied_index
    if behind > APPLY_BEHIND_ENTRIES_MAX:
        return f"{behind} committed entries are not applied yet"
    if member.leader_id == member.identity.node_id and not member.is_leader:
        return "it is about to lead, and has not applied its log yet"
    free_bytes = replica.log.free_bytes() if disk_free_bytes is None else disk_free_bytes
    if free_bytes < replica.settings.free_space_floor:
        return "the disk is full: no more than what must stay free is left"
    return ""


def _role(core: CoreStatus) -> RoleWord:
    if core.role is Role.LEADER:
        return "leader"
    return "candidate" if core.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) else "follower"


def _followers(core: CoreStatus, own_id: int) -> list[FollowerStatistics]:
    return [
        FollowerStatistics(
            node_id=known.node_id,
            match_index=known.match_index,
            behind_entries=max(core.last_index - known.match_index, 0),
            state=known.state,
            active=known.recent_active,
        )
        for known in core.members
        if known.node_id != own_id
    ]


def _queues(reactor: Reactor, connections: OpenConnections | None) -> dict[str, Queue]:
    queues = {
        "commands": Queue(reactor.collecting.command_count, BATCH_COMMANDS_MAX),
        "batches": Queue(reactor.batch_count, BATCHES_MAX),
        "request_bytes": Queue(reactor.bytes_in_flight, TOTAL_BYTES_IN_FLIGHT_MAX),
        "waiters": Queue(reactor.waiter_count, CONNECTIONS_MAX),
        "legs": Queue(reactor.legs.command_count, 0),
        "parked": Queue(len(reactor.replica.parked), 0),
    }
    if connections is not None:
        queues["connections"] = Queue(connections.count, connections.connections_max)
        queues["unsent_bytes"] = Queue(connections.unsent_bytes, UNSENT_BYTES_MAX)
    return queues


def _ids_in_memory(replica: Replica) -> int:
    try:
        return replica.ledger.generations.key_count
    except LedgerError:
        return replica.ledger.id_index.key_count
