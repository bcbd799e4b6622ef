"""What the nodes of a ledger look like to those who operate it, made of what the nodes tell of themselves.

Counters (`..._total`, `counts`, `busy_s`, `waited_s`) count from the start of a node, and begin anew with it. Rates and
quantiles are of the time between the two latest looks of this gateway, a second or so; null where there are none.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from bezant.net.client.quantiles import between, quantile_ms
from bezant.net.client.watching import Look
from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram, Role, Statistics

LATENCY_BOUNDS_S: Final = [bound / 1_000_000_000 for bound in LATENCY_BOUNDS_NS]
_NOTHING: Final = Histogram()

Total = Annotated[int, Meta(ge=0, examples=[1_200_345])]
Rate = Annotated[float, Meta(ge=0, examples=[98_214.5])]
Milliseconds = Annotated[float, Meta(ge=0, examples=[1.74])]
Address = Annotated[str, Meta(examples=["127.0.0.1:7420"])]


class LatencyBody(msgspec.Struct, frozen=True):
    """How long something took: `counts[i]` times up to `latency_bounds_s[i]`, the last beyond all of them."""

    counts: list[int]
    sum_s: float
    recent: Annotated[int, Meta(ge=0, description="How many times between the two latest looks.")]
    p50_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    p999_ms: Milliseconds | None


class QueueBody(msgspec.Struct, frozen=True):
    """What waits now, and how much can; a limit of 0 is that of whatever it comes from."""

    depth: int
    limit: int


class RatesBody(msgspec.Struct, frozen=True):
    """By the second. `processor`: processors that are kept busy, on average."""

    transfers_per_s: Rate
    requests_per_s: Rate
    events_per_s: Rate
    processor: Annotated[float, Meta(ge=0, examples=[0.71])]


class NumbersBody(msgspec.Struct, frozen=True):
    """What a node tells of itself. `latency` has `request` (from its arrival to the reply), `commit`, `sync`, `execute`
    and `loop` (how late the loop wakes up); `queues` among others `commands`, `batches` and `request_bytes`."""

    role: Role
    term: int
    last_index: int
    durable_index: int
    commit_index: int
    applied_index: int
    behind_entries: Annotated[int, Meta(ge=0, description="Behind the last entry of its leader, on its disk.")]
    transfers_total: Annotated[int, Meta(ge=0, description="Commands of clients that were committed.")]
    refused_total: Total
    not_executed_total: Total
    requests_total: Total
    events_total: Total
    syncs_total: Total
    bytes_in_total: Total
    bytes_out_total: Total
    rates: RatesBody | None
    latency: dict[str, LatencyBody]
    queues: dict[str, QueueBody]
    busy_s: Annotated[dict[str, float], Meta(description="Seconds of work, by stage.")]
    waited_s: Annotated[dict[str, float], Meta(description="Seconds that batches waited, by stage.")]
    accounts: int
    holds: int
    connections: int
    uptime_s: float
    memory_bytes: int
    log_bytes: int
    disk_free_bytes: int
    checkpoint_age_s: float | None
    loop_stall_max_ms: float


class ReaderBody(msgspec.Struct, frozen=True):
    """The reader of a node, which answers what was and tells subscribers; all else is null while it cannot be reached.

    `behind_entries`: of what its node has committed, before subscribers are told; `history_behind_events`: of what they
    are told, before the history has it.
    """

    address: Address
    problem: Annotated[str, Meta(examples=[""])]
    behind_entries: Annotated[int, Meta(ge=0, examples=[0])] | None
    history_behind_events: Annotated[int, Meta(ge=0, examples=[0])] | None
    subscriptions: Annotated[int, Meta(ge=0, examples=[12])] | None
    queries_total: Annotated[int, Meta(ge=0, examples=[1_200_345])] | None
    memory_bytes: int | None


class NodeBody(msgspec.Struct, frozen=True):
    """A node; `numbers` is null while it cannot be reached, and `problem` says why, or what else is wrong with it.
    `reader` is null if it has none, or cannot be reached."""

    node: Annotated[int, Meta(examples=[1])] | None
    address: Address
    reachable: bool
    problem: Annotated[str, Meta(examples=[""])]
    numbers: NumbersBody | None
    reader: ReaderBody | None = None


class ShardBody(msgspec.Struct, frozen=True):
    """A group of nodes that keep one log. `shard` is null for nodes that were never reached; 4095 keeps the map."""

    shard: int | None
    leader: Annotated[int, Meta(description="The number of a node.", examples=[1])] | None
    term: int
    nodes: list[NodeBody]


class ClusterBody(msgspec.Struct, frozen=True):
    """All nodes, by shard. `rates` are of all of them together."""

    time: Annotated[str, Meta(examples=["2026-05-01T12:00:00.000000000Z"])]
    rates: RatesBody | None
    transfers_total: Total
    latency_bounds_s: list[float]
    shards: list[ShardBody]


def cluster_body(time: str, looks: Sequence[Look], before: Mapping[str, Look]) -> ClusterBody:
    """All nodes as they are; `before` has an earlier look at each, by address. `looks` are in the order of shards."""
    shards = [_shard_body(shard, list(of_shard), before) for shard, of_shard in groupby(looks, lambda look: look.shard)]
    numbers = [node.numbers for shard in shards for node in shard.nodes if node.numbers is not None]
    rates = [one.rates for one in numbers if one.rates is not None]
    return ClusterBody(
        time=time,
        rates=_sum(rates) if rates else None,
        transfers_total=sum(one.transfers_total for one in numbers),
        latency_bounds_s=LATENCY_BOUNDS_S,
        shards=shards,
    )


def _sum(rates: Sequence[RatesBody]) -> RatesBody:
    return RatesBody(*(sum(getattr(one, name) for one in rates) for name in RatesBody.__struct_fields__))


def _shard_body(shard: int | None, looks: Sequence[Look], before: Mapping[str, Look]) -> ShardBody:
    leaders = [look.statistics for look in looks if look.statistics is not None and look.statistics.role == "leader"]
    leader = max(leaders, key=lambda one: one.term, default=None)
    terms = [look.statistics.term for look in looks if look.statistics is not None]
    nodes = []
    for look in looks:
        statistics, numbers = look.statistics, None
        if statistics is not None:
            earlier = before.get(look.address)
            numbers = _numbers(look, statistics, earlier, statistics if leader is None else leader)
        reader = _reader_body(look)
        nodes.append(NodeBody(look.node_id, look.address, statistics is not None, look.problem, numbers, reader))
    return ShardBody(shard, None if leader is None else leader.node_id, max(terms, default=0), nodes)


def _reader_body(look: Look) -> ReaderBody | None:
    told = look.reader_statistics
    if not look.reader or look.statistics is None:
        return None
    if told is None:
        return ReaderBody(look.reader, look.reader_problem or "it cannot be reached", None, None, None, None, None)
    return ReaderBody(
        address=look.reader,
        problem=look.reader_problem,
        behind_entries=max(told.published_index - told.followed_index, 0),
        history_behind_events=max(told.told_sequence - told.projected_sequence, 0),
        subscriptions=told.subscriptions,
        queries_total=sum(told.queries.values()),
        memory_bytes=told.memory_bytes,
    )


def _numbers(look: Look, now: Statistics, earlier: Look | None, leader: Statistics) -> NumbersBody:
    known = None if earlier is None else earlier.statistics
    if known is not None and known.uptime_s > now.uptime_s:
        known = None  # It was started again.
    elapsed_s = 0.0 if earlier is None or known is None else look.at_s - earlier.at_s
    fields: dict[str, Any] = {name: getattr(now, name) for name in _TAKEN_AS_THEY_ARE}
    return NumbersBody(
        **fields,
        last_index=now.entries,
        behind_entries=max(leader.entries - now.durable_index, 0),
        transfers_total=now.results.get("committed", 0),
        refused_total=now.results.get("refused", 0),
        not_executed_total=now.results.get("not_executed", 0),
        requests_total=sum(now.requests.values()),
        events_total=now.events,
        syncs_total=now.syncs,
        bytes_in_total=now.bytes_in,
        bytes_out_total=now.bytes_out,
        rates=_rates(known, now, elapsed_s) if known is not None and elapsed_s > 0 else None,
        latency={
            name: _latency(_NOTHING if known is None else known.latency.get(name, _NOTHING), histogram, known)
            for name, histogram in now.latency.items()
        },
        queues={name: QueueBody(queue.depth, queue.limit) for name, queue in now.queues.items()},
        busy_s=now.stage_s,
    )


_MADE_HERE: Final = frozenset({"latency", "queues"})
_TAKEN_AS_THEY_ARE: Final = [
    name for name in NumbersBody.__struct_fields__ if name in Statistics.__struct_fields__ and name not in _MADE_HERE
]


def _rates(before: Statistics, now: Statistics, elapsed_s: float) -> RatesBody:
    def rate(earlier: float, later: float) -> float:
        return max(later - earlier, 0) / elapsed_s

    return RatesBody(
        transfers_per_s=rate(before.results.get("committed", 0), now.results.get("committed", 0)),
        requests_per_s=rate(sum(before.requests.values()), sum(now.requests.values())),
        events_per_s=rate(before.events, now.events),
        processor=rate(before.processor_s, now.processor_s),
    )


def _latency(before: Histogram, now: Histogram, known: Statistics | None) -> LatencyBody:
    recent = _NOTHING if known is None else between(before, now)
    return LatencyBody(
        counts=now.counts,
        sum_s=now.sum_s,
        recent=sum(recent.counts),
        p50_ms=quantile_ms(recent, 0.5),
        p99_ms=quantile_ms(recent, 0.99),
        p999_ms=quantile_ms(recent, 0.999),
    )
