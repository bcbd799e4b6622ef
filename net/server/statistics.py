"""Counters of a reactor: what it did, and where its time went.

Plain numbers and lists that are added to once for a frame, a batch or a group, and never for each transfer.
`reporting.py` makes the message of them that STATISTICS is answered with.
"""

import asyncio
import time
from bisect import bisect_left
from typing import Final

import numpy as np

from bezant.protocol.codes import CODE_ROW
from bezant.protocol.records import Records
from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram

LOOP_LOOK_S: Final = 0.05
"""Seconds between two looks at how late the loop wakes up."""
_NS_PER_S: Final = 1_000_000_000
_BOUNDS: Final = list(LATENCY_BOUNDS_NS)


class Latencies:
    """A histogram that is added to."""

    __slots__ = ("_counts", "_sum_ns")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum_ns = 0

    def observe(self, nanoseconds: int, count: int = 1) -> None:
        """So many things took so long each."""
        self._counts[bisect_left(_BOUNDS, nanoseconds)] += count
        self._sum_ns += nanoseconds * count

    def told(self) -> Histogram:
        """What was observed, without the zeros at the end."""
        counts = list(self._counts)
        while counts and not counts[-1]:
            counts.pop()
        return Histogram(counts, self._sum_ns / _NS_PER_S)


class Counters:
    """See the module. `connections` is what there is now; everything else only grows."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.stage_s: dict[str, float] = {}
        self.waited_s: dict[str, float] = {}
        self.requests: dict[str, int] = {}
        self._results: dict[int, int] = {}
        self._step_s_max = 0.0
        self._step_recent_s_max = 0.0
        self.connections = 0
        self.commands = 0
        self.events = 0
        self.syncs = 0
        self.syncs_inline = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.request = Latencies()
        self.execute = Latencies()
        self.sync = Latencies()
        self.commit = Latencies()
        self.loop = Latencies()

    def add(self, stage: str, seconds: float) -> None:
        """Add to the time spent in a stage."""
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds

    def wait(self, stage: str, seconds: float) -> None:
        """Add to the time that batches waited for a stage."""
        self.waited_s[stage] = self.waited_s.get(stage, 0.0) + seconds

    def note_request(self, operation: str, count: int = 1) -> None:
        """So many requests of a kind have been answered."""
        self.requests[operation] = self.requests.get(operation, 0) + count

    def note_results(self, results: Records) -> None:
        """Results are told to those who asked."""
        codes = results["code"]
        refused = int(np.count_nonzero(codes))
        self._results[0] = self._results.get(0, 0) + len(codes) - refused
        if refused:
            found, counts = np.unique(codes, return_counts=True)
            for code, count in zip(found.tolist(), counts.tolist(), strict=True):
                if code:
                    self._results[code] = self._results.get(code, 0) + count

    def results(self) -> dict[str, int]:
        """Results by what became of the commands."""
        told = {"committed": 0, "refused": 0, "not_executed": 0}
        for code, count in self._results.items():
            leaves_event = CODE_ROW[code].leaves_event
            told["committed" if not code else "refused" if leaves_event else "not_executed"] += count
        return told

    def note_step(self, seconds: float) -> None:
        """Take notice of how long one step of the loop took."""
        self._step_recent_s_max = max(self._step_recent_s_max, seconds)

    def take_longest_steps(self) -> tuple[float, float]:
        """Seconds of the longest step since the start, and since this was last called."""
        step_recent_s_max, self._step_recent_s_max = self._step_recent_s_max, 0.0
        self._step_s_max = max(self._step_s_max, step_recent_s_max)
        return self._step_s_max, step_recent_s_max

    def latencies(self) -> dict[str, Histogram]:
        """All histograms, by name."""
        return {name: getattr(self, name).told() for name in ("request", "execute", "sync", "commit", "loop")}


class LoopWatch:
    """Has the loop wake up every LOOP_LOOK_S, and counts by how much later it does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counted: Latencies) -> None:
        self._loop = loop
        self._counted = counted
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.late_s = 0.0
        """By how much it woke up too late the last time."""

    def start(self) -> None:
        """Begin."""
        self._due_s = self._loop.time() + LOOP_LOOK_S
        self._timer = self._loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        now_s = self._loop.time()
        self.late_s = max(now_s - self._due_s, 0.0)
        self._counted.observe(round(self.late_s * _NS_PER_S))
        self._due_s = now_s + LOOP_LOOK_S
        self._timer = self._loop.call_at(self._due_s, self._look)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
