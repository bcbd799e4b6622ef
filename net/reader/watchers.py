"""The pages of a reader for those who watch it by HTTP: /metrics, /healthz and /readyz (`net/metrics`)."""

from collections.abc import Callable

from bezant.net.metrics.exposition import content_type, exposed
from bezant.net.metrics.http import Answer, Pages
from bezant.net.metrics.latencies import LoopWatch
from bezant.net.metrics.reader import reader_families, reader_labels
from bezant.net.server.watchers import life_pages
from bezant.protocol.statistics import ReaderStatistics


def reader_pages(told: Callable[[], ReaderStatistics], loop_watch: LoopWatch) -> Pages:
    """What a reader answers."""

    def metrics(accept: str) -> Answer:
        statistics, format_ = told(), content_type(accept)
        return Answer(200, format_, exposed(reader_families(statistics), reader_labels(statistics), format_))

    return {"/metrics": metrics} | life_pages(lambda: told().unready, loop_watch)
