"""The metrics of a reader."""

from bezant.net.metrics.exposition import Family, Sample
from bezant.net.metrics.families import counted, counter, gauge, process_families, queue_families
from bezant.protocol.statistics import Histogram, ReaderStatistics

_QUERY = "query_"


def reader_labels(told: ReaderStatistics) -> dict[str, str]:
    """The labels of all its metrics."""
    return {"shard": str(told.shard)}


def reader_families(told: ReaderStatistics) -> list[Family]:
    """All of them."""
    questions = [
        Sample({"operation": name.removeprefix(_QUERY)}, histogram)
        for name, histogram in sorted(told.latency.items())
        if name.startswith(_QUERY)
    ]
    return [
        gauge("bezant_reader_ready", "1 if clients should be sent here", not told.unready),
        gauge("bezant_reader_published_index", "last entry that the node has published", told.published_index),
        gauge("bezant_reader_followed_index", "last entry that was read", told.followed_index),
        gauge("bezant_reader_told_sequence", "last event that live subscriptions have been told", told.told_sequence),
        gauge("bezant_reader_projected_sequence", "last event that questions see", told.projected_sequence),
        gauge("bezant_reader_subscriptions", "subscriptions", told.subscriptions),
        counter(
            "bezant_reader_subscriptions_dropped",
            "subscriptions that ended because their client did not read",
            told.subscriptions_dropped,
        ),
        counter("bezant_reader_events_pushed", "events that were sent to subscriptions", told.events_pushed),
        counted("bezant_reader_queries", "questions that were answered", "operation", told.queries),
        Family("bezant_reader_query_seconds", "histogram", "from a question to its answer", questions),
        Family(
            "bezant_reader_push_seconds",
            "histogram",
            "from the timestamp of an event to when it was handed to the connections",
            [Sample({}, told.latency.get("push", Histogram()))],
        ),
        *queue_families(told.queues),
        gauge("bezant_connections", "connections of clients", told.connections),
        *process_families(told.uptime_s, told.memory_bytes, told.processor_s),
    ]
