"""What a reader keeps of the log and what it answers beside subscriptions: the one list to add to.

See the package for what a projection and a query are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bezant.engine.log.storage import Directory
from bezant.net.reader.history import HistoryProjection
from bezant.net.reader.metadata import MetadataProjection, MetadataQueries
from bezant.net.reader.projecting import Projection
from bezant.net.reader.proving import ProofProjection, ProofQueries
from bezant.net.reader.queries import HistoryQueries

Query = Callable[[bytes, int], bytes]
"""From the body of a request to that of its reply; on any of a few threads. The number is the index of the entry up to
which the log was published when the request came: whoever asks for what is now is told all up to there."""

LimitedQuery = Callable[[tuple[str, ...], bytes, int], bytes]
"""The same for a token that is limited to prefixes of account names, which come first."""


class Parts(NamedTuple):
    """Projections, and queries by their operation."""

    projections: list[Projection]
    queries: dict[int, Query]
    limited: dict[int, LimitedQuery]
    """Those for tokens that are limited to accounts, where each is to be looked at."""
    find_obstacle: Callable[[], str] = lambda: ""
    """Why projections are to take in nothing more for now, in words; "" if nothing is against it."""


def make_parts(folder: Path, shard: int, log_id: int) -> Parts:
    """The parts of the reader of a shard, whose own files are in this folder, `reader` beside the log's.

    The folder need not be there; to lose it costs no more than the time to make it again.
    """
    history = HistoryProjection(folder, shard, log_id)
    proofs = ProofProjection(folder, shard, log_id)
    metadata = MetadataProjection(Directory(folder.parent), shard, log_id)
    queries = HistoryQueries(history)
    return Parts(
        [history, proofs, metadata],
        {
            **queries.by_operation(),
            **ProofQueries(proofs).by_operation(),
            **MetadataQueries(metadata).by_operation(),
        },
        queries.limited_by_operation(),
        history.find_obstacle,
    )
