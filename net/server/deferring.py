"""Tries that are not written yet, because another shard has been asked and nobody waits for them but its answer.

A transfer to another shard is told when its decision is durable. That is behind the try in the log, so one sync makes
both durable, and whatever else comes meanwhile. A sync of the try alone, on the loop, would keep the answer waiting,
and the questions of other shards. The other shard may be asked before the try is durable: what it has reserved for a
try that is lost with this node it takes back (`orphans.py`).

Bound: WRITE_TRIES_S_MAX; a shard that answers no sooner is waited for while the disk writes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

WRITE_TRIES_S_MAX: Final = 0.003
"""Seconds until tries are written, if nothing is that has to be written at once: a few times what a shard and its disk
take to answer."""


class Deferral:
    """See the module. All methods on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_late: Callable[[], None]) -> None:
        """`on_late` is called when the time is over; what is unwritten is to be written then."""
        self.is_on = False
        """Whether all that is unwritten are such tries, and there is time."""
        self._loop = loop
        self._on_late = on_late
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """More such tries are unwritten; the time is that of the first."""
        self.is_on = True
        if self._timer is None:
            self._timer = self._loop.call_later(WRITE_TRIES_S_MAX, self._on_timer)

    def end(self) -> None:
        """Everything is being written, or soon will be."""
        self.is_on = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self.is_on = False
        self._on_late()
