"""What a node, and a reader, tells of itself: the message that STATISTICS is answered with. See STATISTICS.md.

Everything counts from the start of the process, so that who asks twice knows what happened in between, however many
ask; but for `loop_stall_recent_ms`, the longest since anybody last asked. No more than numbers and words of our own:
nothing of accounts, and nothing of who asked for what.
"""

from typing import Final, Literal

import msgspec

LATENCY_BOUNDS_NS: Final = tuple(round(50_000 * 2 ** (number / 2)) for number in range(40))
"""Upper bounds of the classes of a `Histogram`, two an octave: 50 us to 37 s. What takes longer has a class, too."""

Role = Literal["leader", "follower", "candidate", "unknown"]


class Histogram(msgspec.Struct, frozen=True):
    """How long something took, each time. ``counts``: by class (LATENCY_BOUNDS_NS); zeros at the end are left out."""

    counts: list[int] = []
    sum_s: float = 0.0


class Queue(msgspec.Struct, frozen=True):
    """How much waits somewhere now, and how much can; ``limit`` 0 is no bound but that of others."""

    depth: int
    limit: int


class FollowerStatistics(msgspec.Struct, frozen=True):
    """A member as its leader sees it."""

    node_id: int
    match_index: int
    behind_entries: int
    state: str
    active: bool


class Statistics(msgspec.Struct, frozen=True):
    """Counters of a node since it started; times are seconds of the reactor's clock."""

    uptime_s: float
    connections: int
    commands: int
    events: int
    accounts: int
    entries: int
    syncs: int
    syncs_inline: int
    bytes_in: int
    bytes_out: int
    log_bytes: int
    durable_index: int
    durable_sequence: int
    bytes_in_flight: int
    stage_s: dict[str, float] = {}
    loop_stall_max_ms: float = 0.0
    durable: bool = True
    replicas: int = 1
    loop_stall_recent_ms: float = 0.0
    shard: int = 0
    node_id: int = 0
    role: Role = "unknown"
    term: int = 0
    leader: int = 0
    commit_index: int = 0
    applied_index: int = 0
    followers: list[FollowerStatistics] = []
    requests: dict[str, int] = {}
    results: dict[str, int] = {}
    latency: dict[str, Histogram] = {}
    waited_s: dict[str, float] = {}
    queues: dict[str, Queue] = {}
    holds: int = 0
    ids_in_memory: int = 0
    ids_on_disk: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    disk_floor_bytes: int = 0
    checkpoint_index: int = 0
    checkpoint_age_s: float | None = None
    processor_s: float = 0.0
    unready: str = ""


class ReaderStatistics(msgspec.Struct, frozen=True):
    """Counters of a reader since it started."""

    uptime_s: float
    shard: int
    connections: int
    published_index: int
    followed_index: int
    told_sequence: int
    projected_sequence: int
    subscriptions: int
    subscriptions_dropped: int = 0
    events_pushed: int = 0
    queries: dict[str, int] = {}
    latency: dict[str, Histogram] = {}
    queues: dict[str, Queue] = {}
    memory_bytes: int = 0
    processor_s: float = 0.0
    unready: str = ""
