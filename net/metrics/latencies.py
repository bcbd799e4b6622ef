"""Counts how long things take, in the process that does them; cheap enough for what happens once a frame or a batch."""

import asyncio
import resource
from bisect import bisect_left
from typing import Final

from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram

LOOP_LOOK_S: Final = 0.05
"""Seconds between two looks at how late the loop wakes up."""
_NS_PER_S: Final = 1_000_000_000
BOUNDS: Final = list(LATENCY_BOUNDS_NS)
_STATM: Final = "/proc/self/statm"
_RESIDENT_FIELD: Final = 1


class Latencies:
    """A histogram that is added to."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum_ns = 0

    def observe(self, nanoseconds: int, count: int = 1) -> None:
        """So many things took so long each."""
        self.counts[bisect_left(BOUNDS, nanoseconds)] += count
        self.sum_ns += nanoseconds * count

    def told(self) -> Histogram:
        """What was observed, without the zeros at the end."""
        counts = list(self.counts)
        while counts and not counts[-1]:
            counts.pop()
        return Histogram(counts, self.sum_ns / _NS_PER_S)


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


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open(_STATM, encoding="ascii") as file:  # noqa: PTH123 - once a second; a Path costs more than the reading
        return int(file.read().split()[_RESIDENT_FIELD]) * resource.getpagesize()
