"""The metrics of a node."""

from bezant.net.metrics.exposition import Family, Sample
from bezant.net.metrics.families import counted, counter, gauge, process_families, queue_families
from bezant.protocol.statistics import Histogram, Statistics


def node_labels(told: Statistics) -> dict[str, str]:
    """The labels of all its metrics."""
    return {"shard": str(told.shard), "node": str(told.node_id)}


def node_families(told: Statistics) -> list[Family]:
    """All of them."""
    return [*_state(told), *_work(told), *_log(told), *_latencies(told), *_process(told)]


def _state(told: Statistics) -> list[Family]:
    followers = [({"follower": str(follower.node_id)}, follower) for follower in told.followers]
    return [
        gauge("bezant_ready", "1 if clients should be sent here", not told.unready),
        gauge("bezant_leader", "1 if this node leads its group", told.role == "leader"),
        gauge("bezant_has_leader", "1 if this node knows of a leader", told.leader != 0),
        gauge("bezant_term", "the term of the group, as far as this node knows", told.term),
        gauge("bezant_voters", "nodes that vote in the group", told.replicas),
        gauge("bezant_commit_index", "last entry that is committed, as far as this node knows", told.commit_index),
        gauge("bezant_applied_index", "last entry whose effects are in the ledger", told.applied_index),
        Family(
            "bezant_follower_match_index",
            "gauge",
            "last entry that is durable at a follower, as its leader knows",
            [Sample(labels, follower.match_index) for labels, follower in followers],
        ),
        Family(
            "bezant_follower_behind_entries",
            "gauge",
            "entries of the leader that a follower has not acknowledged",
            [Sample(labels, follower.behind_entries) for labels, follower in followers],
        ),
        Family(
            "bezant_follower_active",
            "gauge",
            "1 if a follower was heard lately",
            [Sample(labels, int(follower.active)) for labels, follower in followers],
        ),
    ]


def _work(told: Statistics) -> list[Family]:
    return [
        counted("bezant_requests", "frames that were answered", "operation", told.requests),
        counter("bezant_commands", "commands that were executed", told.commands),
        counted("bezant_results", "results that were sent, by what became of the commands", "outcome", told.results),
        counter("bezant_events", "events that were written", told.events),
        counted("bezant_stage_busy_seconds", "time of work, by stage", "stage", told.stage_s),
        counted("bezant_stage_wait_seconds", "time that batches waited, by stage", "stage", told.waited_s),
        *queue_families(told.queues),
        gauge("bezant_accounts", "accounts, open or closed", told.accounts),
        gauge("bezant_holds", "holds that are open", told.holds),
        counted(
            "bezant_ids",
            "ids of commands that are known, by where they are kept",
            "place",
            {"memory": told.ids_in_memory, "disk": told.ids_on_disk},
            kind="gauge",
        ),
    ]


def _log(told: Statistics) -> list[Family]:
    syncs = {"inline": told.syncs_inline, "thread": told.syncs - told.syncs_inline}
    age_s = told.checkpoint_age_s
    return [
        counted("bezant_log_syncs", "groups that were written and synced, by where that was waited for", "way", syncs),
        gauge("bezant_log_last_index", "last entry of the log", told.entries),
        gauge("bezant_log_durable_index", "last entry that is durable here", told.durable_index),
        gauge("bezant_log_bytes", "bytes of the log", told.log_bytes),
        gauge("bezant_checkpoint_index", "entry that the newest checkpoint stands behind", told.checkpoint_index),
        Family(
            "bezant_checkpoint_age_seconds",
            "gauge",
            "time since the last event that the newest checkpoint has",
            [] if age_s is None else [Sample({}, age_s)],
        ),
        gauge("bezant_disk_free_bytes", "left on the disk of the log", told.disk_free_bytes),
        gauge("bezant_disk_floor_bytes", "what must stay free there", told.disk_floor_bytes),
    ]


def _latencies(told: Statistics) -> list[Family]:
    nothing = Histogram()
    return [
        Family(f"bezant_{name}_seconds", "histogram", text, [Sample({}, told.latency.get(key, nothing))])
        for name, key, text in (
            ("request", "request", "from the arrival of a frame of commands to its reply"),
            ("execute", "execute", "of a batch in the ledger"),
            ("sync", "sync", "of a group, written and synced"),
            ("commit", "commit", "of a batch, from its appending to its commit"),
            ("loop_lag", "loop", "by which the loop wakes up later than asked for"),
        )
    ]


def _process(told: Statistics) -> list[Family]:
    return [
        gauge("bezant_loop_stall_max_seconds", "longest step of the loop", told.loop_stall_max_ms / 1e3),
        gauge("bezant_connections", "connections of clients", told.connections),
        counter("bezant_received_bytes", "bytes of clients", told.bytes_in),
        counter("bezant_sent_bytes", "bytes to clients", told.bytes_out),
        *process_families(told.uptime_s, told.memory_bytes, told.processor_s),
    ]
