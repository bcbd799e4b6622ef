"""Virtual time: what is to happen, in order; a stream of chance for each kind of thing; a trace of what happened."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import xxhash

TRACE_LINES_KEPT = 80
STEPS_MAX = 300_000
"""Steps of a seed, at most: the longest take some tens of thousands."""


class Violation(AssertionError):
    """A promise does not hold."""


class Schedule:
    """Microseconds since the beginning of a seed, and nothing in it that depends on anything but the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_us = 0
        self.steps = 0
        self.recent: deque[str] = deque(maxlen=TRACE_LINES_KEPT)
        self._digest = xxhash.xxh3_128(str(seed).encode())
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._streams: dict[str, random.Random] = {}

    def chance(self, kind: str) -> random.Random:
        """The numbers of one kind of event: drawing one more of them moves no other kind."""
        stream = self._streams.get(kind)
        if stream is None:
            stream = self._streams[kind] = random.Random(f"{self.seed}:{kind}")
        return stream

    def after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Have something done; what is due at the same time is done in the order in which it was asked for."""
        self._sequence += 1
        at_us = self.now_us + delay_us if delay_us > 0 else self.now_us
        heapq.heappush(self._queue, (at_us, self._sequence, action, arguments))

    def step(self) -> None:
        """Do what is due next."""
        self.now_us, _, action, arguments = heapq.heappop(self._queue)
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Violation(f"{STEPS_MAX} steps, and no end: something is done again and again")
        action(*arguments)

    def run_until(self, until_us: int) -> None:
        """Do everything that is due before then."""
        while self._queue and self._queue[0][0] < until_us:
            self.step()
        self.now_us = max(self.now_us, until_us)

    def note(self, *words: object) -> None:
        """Add to the trace."""
        line = f"{self.now_us:>10} {' '.join(map(str, words))}"
        self.recent.append(line)
        self._digest.update(line.encode())

    @property
    def trace_hash(self) -> str:
        """A digest of all that was noted: the same seed gives the same."""
        return self._digest.hexdigest()
