"""What a reader counts, and tells of itself."""

import time
from typing import TYPE_CHECKING, Final

from bezant.net.metrics.latencies import Latencies, resident_bytes
from bezant.net.reader.hub import Hub
from bezant.net.server.open_connections import UNSENT_BYTES_MAX
from bezant.protocol.frames import Operation
from bezant.protocol.statistics import Queue, ReaderStatistics

if TYPE_CHECKING:
    from bezant.net.reader.server import ReaderServer

BEHIND_ENTRIES_MAX: Final = 4096
"""Entries that may be published and not read by a reader that is told to be ready."""
_NAMES: Final = {int(operation): operation.name.lower() for operation in Operation}


class ReaderCounters:
    """Added to once for a question, and once for what is read at a time."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.subscriptions_dropped = 0
        self.push = Latencies()
        self.loop = Latencies()
        self._queries: dict[str, Latencies] = {}

    def note_query(self, operation: int, nanoseconds: int) -> None:
        """A question was answered, whatever the answer."""
        self._queries.setdefault(_NAMES.get(operation, "unknown"), Latencies()).observe(nanoseconds)

    def note_told(self, timestamp_ns: int) -> None:
        """Live subscriptions have been told of events up to one of this time."""
        self.push.observe(max(time.time_ns() - timestamp_ns, 0))

    def queries(self) -> dict[str, Latencies]:
        """The times of all questions, by operation."""
        return self._queries


def report(server: "ReaderServer", hub: Hub | None, published_index: int, followed_index: int) -> ReaderStatistics:
    """How a reader is. On the loop."""
    counters, connections = server.counters, server.connections
    told = {f"query_{name}": latencies.told() for name, latencies in counters.queries().items()}
    behind = published_index - followed_index
    unready = "it has no log yet" if hub is None else server.problem
    if behind > BEHIND_ENTRIES_MAX:
        unready = unready or f"{behind} published entries are not read yet"
    return ReaderStatistics(
        uptime_s=time.monotonic() - counters.started_s,
        shard=server.shard,
        connections=connections.count,
        published_index=published_index,
        followed_index=followed_index,
        told_sequence=0 if hub is None else hub.position,
        projected_sequence=server.projected_sequence,
        subscriptions=0 if hub is None else hub.count,
        subscriptions_dropped=counters.subscriptions_dropped,
        events_pushed=0 if hub is None else hub.events_sent,
        queries={name: sum(latencies.told().counts) for name, latencies in counters.queries().items()},
        latency={"push": counters.push.told(), "loop": counters.loop.told(), **told},
        queues=server.queues() | {"unsent_bytes": Queue(connections.unsent_bytes, UNSENT_BYTES_MAX)},
        memory_bytes=resident_bytes(),
        processor_s=time.process_time(),
        unready=unready,
    )
