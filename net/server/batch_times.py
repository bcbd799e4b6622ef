"""Takes notice of how far batches are, for the counters: once for each batch, and once for each run of frames.

All times are of `time.perf_counter`, which is the monotonic clock that frames are stamped with when they arrive.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from bezant.net.metrics.latencies import BOUNDS, Latencies
from bezant.net.server.batch import Batch, Run
from bezant.net.server.statistics import Counters

_NS_PER_S: Final = 1e9


def note_executed(counters: Counters, batch: Batch, started_s: float, *, has_appended: bool) -> None:
    """A batch has been executed, beginning then. What waits for other shards too has no time of its commit."""
    ended_s = time.perf_counter()
    batch.started_s = started_s
    if has_appended and not batch.undecided_count:
        batch.executed_s = ended_s
    if batch.runs:
        counters.wait("execute", max(started_s - batch.runs[0].received_ns / _NS_PER_S, 0.0))
    counters.add("execute", ended_s - started_s)
    counters.execute.observe(int(_NS_PER_S * (ended_s - started_s)))


def note_begun(counters: Counters, batches: Iterable[Batch], now_s: float) -> None:
    """Batches are handed to the disk."""
    for batch in batches:
        if batch.executed_s:
            batch.begun_s = now_s
            counters.wait("write", now_s - batch.executed_s)


def note_synced(counters: Counters, batches: Iterable[Batch]) -> None:
    """What was handed to the disk, of these, is durable here."""
    now_s = time.perf_counter()
    for batch in batches:
        if batch.begun_s and not batch.synced_s:
            batch.synced_s = now_s
            counters.wait("sync", now_s - batch.begun_s)


def note_told(counters: Counters, batch: Batch) -> None:
    """The results of a batch have been told: it is committed."""
    now_s = time.perf_counter()
    if batch.executed_s:
        counters.commit.observe(int(_NS_PER_S * (now_s - batch.executed_s)))
    if batch.synced_s:
        counters.wait("replicate", now_s - batch.synced_s)
    counters.note_results(batch.results)
    note_replied(counters, batch.runs)


def note_replied(counters: Counters, runs: list[Run]) -> None:
    """The frames of these runs have been answered now."""
    if runs:
        counters.note_request("commands", _count_replied(counters.request, runs))


def _count_replied(request: Latencies, runs: list[Run]) -> int:
    """Note their latencies; returns how many frames they are. Written out: thousands may send one each."""
    counts, now_ns, frames, sum_ns = request.counts, time.monotonic_ns(), 0, 0
    for _, frame_first, frame_end, _, received_ns in runs:
        count, waited_ns = frame_end - frame_first, now_ns - received_ns
        counts[bisect_left(BOUNDS, waited_ns)] += count
        frames += count
        sum_ns += waited_ns * count
    request.sum_ns += sum_ns
    return frames
