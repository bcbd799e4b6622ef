"""How far another node's clock is ahead of ours: the least delayed of the last pings (RFC 5905, sections 8 and 10).

Samples are kept against our monotonic clock: a step of our own wall clock shows at once and does not spoil them.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from bezant.protocol.peer_frames import PeerClocks

SAMPLES_MAX: Final = 8
"""Pings that are remembered; the clock filter of RFC 5905 has as many stages."""


class Clocks(NamedTuple):
    """The two clocks of this node, in nanoseconds; tests bring their own."""

    wall_ns: Callable[[], int] = time.time_ns
    monotonic_ns: Callable[[], int] = time.monotonic_ns


class Sample(NamedTuple):
    """One ping: how long it was on the way both ways, and the other's wall clock less our monotonic one."""

    round_trip_ns: int
    ahead_of_monotonic_ns: int


class ClockFilter:
    """The estimate for one node."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def add(self, asked_monotonic_ns: int, answer: PeerClocks) -> None:
        """A ping that left at this time of our monotonic clock is answered now. One that makes no sense is ignored."""
        arrived_ns = self._clocks.monotonic_ns()
        round_trip_ns = (arrived_ns - asked_monotonic_ns) - (answer.answered_ns - answer.received_ns)
        if round_trip_ns < 0:  # the other's clock was set forward in between
            return
        ahead_ns = ((answer.received_ns - asked_monotonic_ns) + (answer.answered_ns - arrived_ns)) // 2
        self._samples.append(Sample(round_trip_ns, ahead_ns))

    @property
    def round_trip_ns(self) -> int | None:
        """Of the sample that counts."""
        return min(self._samples).round_trip_ns if self._samples else None

    @property
    def offset_ns(self) -> int | None:
        """The other's wall clock less ours; None before the first answer. Off by half a round trip at most."""
        if not self._samples:
            return None
        return min(self._samples).ahead_of_monotonic_ns - (self._clocks.wall_ns() - self._clocks.monotonic_ns())
