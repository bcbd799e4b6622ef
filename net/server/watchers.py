"""The pages of a node for those who watch it by HTTP: /metrics, /healthz and /readyz (`net/metrics`)."""

from collections.abc import Callable
from typing import Final

from bezant.net.metrics.exposition import content_type, exposed
from bezant.net.metrics.http import Answer, Pages, verdict
from bezant.net.metrics.latencies import LoopWatch
from bezant.net.metrics.node import node_families, node_labels
from bezant.protocol.statistics import Statistics

STALL_S_MAX: Final = 1.0
"""Seconds by which the loop may have woken up too late, the last time, in a process that is told to be healthy."""


def node_pages(told: Callable[[], Statistics], unready: Callable[[], str], loop_watch: LoopWatch) -> Pages:
    """What a node answers; `unready` says why no clients should be sent to it."""

    def metrics(accept: str) -> Answer:
        statistics, format_ = told(), content_type(accept)
        return Answer(200, format_, exposed(node_families(statistics), node_labels(statistics), format_))

    return {"/metrics": metrics} | life_pages(unready, loop_watch)


def life_pages(unready: Callable[[], str], loop_watch: LoopWatch) -> dict[str, Callable[[str], Answer]]:
    """Whether a process is healthy, and ready."""
    return {
        "/healthz": lambda _accept: verdict(_stall(loop_watch)),
        "/readyz": lambda _accept: verdict(_stall(loop_watch) or unready()),
    }


def _stall(loop_watch: LoopWatch) -> str:
    if loop_watch.late_s > STALL_S_MAX:
        return f"the loop was held up for {loop_watch.late_s:.1f} s just now"
    return ""
