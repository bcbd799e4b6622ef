"""Which other shards are silent: they have let a try run out of time, and have answered nothing since.

Whoever pays across shards waits for the other one, and for a moment so does everybody in the same batch (`telling.py`).
A shard that is lost, or between two leaders, has TRY_S_MAX once. The tries that follow are given up soon, which they
may be at any time, until it is heard of again: by the answer to one of them, or to what goes on being asked of it for
those that were given up, which waits as long as it takes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

SILENT_S_MAX: Final = 0.05
"""Seconds that a silent shard may take to answer a try."""


class Silence:
    """See the module. All methods on the loop."""

    def __init__(self, on_heard: Callable[[int], None]) -> None:
        """`on_heard` is called with the number of a shard that was silent, and has answered."""
        self._on_heard = on_heard
        self._loop = asyncio.get_running_loop()
        self._heard_s: dict[int, float] = {}
        self._silent: set[int] = set()

    def patience_s(self, shard: int, whole_s: float) -> float:
        """How long a shard may take to answer a try: `whole_s`, unless it is silent."""
        return min(whole_s, SILENT_S_MAX) if self.is_silent(shard) else whole_s

    def is_silent(self, shard: int) -> bool:
        """Whether nothing has been heard of a shard since it let a try run out of time."""
        return shard in self._silent

    def on_answer(self, shard: int) -> None:
        """A shard has answered something."""
        self._heard_s[shard] = self._loop.time()
        if shard in self._silent:
            self._silent.discard(shard)
            self._on_heard(shard)

    def on_given_up(self, shard: int, asked_s: float) -> None:
        """A try has been given up that was asked for then, by the loop's time."""
        if self._heard_s.get(shard, asked_s - 1.0) < asked_s:
            self._silent.add(shard)
