"""How families are made of plain numbers, and those that every process of ours has."""

from collections.abc import Mapping
from typing import Literal

from bezant.net.metrics.exposition import Family, Sample
from bezant.protocol.statistics import Queue


def process_families(uptime_s: float, memory_bytes: int, processor_s: float) -> list[Family]:
    """What every process of ours tells of itself."""
    return [
        gauge("bezant_uptime_seconds", "since the start of the process", uptime_s),
        gauge("bezant_memory_bytes", "resident memory of the process", memory_bytes),
        counter("bezant_processor_seconds", "processor time of the process", processor_s),
    ]


def queue_families(queues: Mapping[str, Queue]) -> list[Family]:
    """How much waits, and how much can."""
    depths = {name: queue.depth for name, queue in queues.items()}
    limits = {name: queue.limit for name, queue in queues.items() if queue.limit}
    return [
        counted("bezant_queue_depth", "how much waits now", "queue", depths, kind="gauge"),
        counted("bezant_queue_limit", "how much can wait", "queue", limits, kind="gauge"),
    ]


def gauge(name: str, help_: str, value: float) -> Family:
    """A number that rises and falls."""
    return Family(name, "gauge", help_, [Sample({}, _plain(value))])


def counter(name: str, help_: str, value: float) -> Family:
    """A number that rises from the start of the process on."""
    return Family(name, "counter", help_, [Sample({}, _plain(value))])


def counted(
    name: str,
    help_: str,
    label: str,
    values: Mapping[str, float],
    *,
    kind: Literal["counter", "gauge"] = "counter",
) -> Family:
    """Several numbers that are told apart by a label."""
    return Family(name, kind, help_, [Sample({label: key}, _plain(value)) for key, value in sorted(values.items())])


def _plain(value: float) -> float:
    """Truth as 1 and 0."""
    return int(value) if isinstance(value, bool) else value
