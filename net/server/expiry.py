"""Has holds expire also while nothing comes in.

The ledger expires what is due at the start of every entry, so traffic does it. Without traffic a timer has an entry
executed that has no commands. Which holds are due is the ledger's to say, by its own time: the timer only estimates
when it is worth asking.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from bezant.engine.ledger.ledger import Ledger

EXPIRY_INTERVAL_S_MIN: Final = 0.005
"""Seconds between two entries without commands, so that however many holds are due, requests are served meanwhile."""
EXPIRY_WAIT_S_MAX: Final = 1.0
"""Seconds until the clock is read again: it may be set, and a deadline may lie further off than a timer reaches. Also
how long the timer waits after an entry in which nothing expired, because the disk is full or the clock was set back."""

_NS_PER_S: Final = 1_000_000_000


class ExpiryTimer:
    """Calls `on_due` when the next hold falls due. `is_due` from then on, until an entry has been executed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger, on_due: Callable[[], None]) -> None:
        self.is_due = False
        self._loop = loop
        self._ledger = ledger
        self._on_due = on_due
        self._wait_s_min = EXPIRY_INTERVAL_S_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def arm(self) -> None:
        """Have the timer run for the next deadline; to be called whenever that may have changed."""
        deadline_ns = self._ledger.next_deadline_ns
        if not deadline_ns or self.is_due or self._stopped:
            return
        wait_s = min(max((deadline_ns - self._now_ns) / _NS_PER_S, self._wait_s_min), EXPIRY_WAIT_S_MAX)
        if self._timer is not None:
            # One that is early finds nothing due and is armed anew: cheaper than to move it with every hold.
            if self._timer.when() <= self._loop.time() + wait_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wait_s_min = EXPIRY_INTERVAL_S_MIN
        self.is_due = 0 < self._ledger.next_deadline_ns <= self._now_ns
        if self.is_due:
            self._on_due()
        else:
            self.arm()

    @property
    def _now_ns(self) -> int:
        """The time that an entry would have: the clock's, but after the last event's if the clock was set back."""
        return max(time.time_ns(), self._ledger.last_timestamp_ns + 1)

    def on_executed(self, event_count: int) -> None:
        """An entry has been executed; it would have had `event_count` events, commands or not."""
        if self.is_due and not event_count:
            self._wait_s_min = EXPIRY_WAIT_S_MAX
        self.is_due = False

    def stop(self) -> None:
        """Ask for no more entries."""
        self._stopped = True
        self.is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
