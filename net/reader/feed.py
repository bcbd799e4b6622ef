"""Follows the log for those who are to be told at once: on the event loop, woken up by the node that publishes.

    waiting --woken, or time to look--> a batch is taken and handed on --more is published--> resting, then another
                                                                       --nothing more-------> waiting

While nobody is to be told it does not have itself woken up, and looks every POLL_S: that costs the node nothing.

After a batch the loop rests for as long as REST_RATIO times what the batch took, if that is worth it, or what batches
took that came without a pause: when little happens everything is told at once, and when much does it is told in larger
batches, which cost less an event, so that the processor is left to the node.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry
from bezant.engine.publication import NO_DESCRIPTOR

POLL_S: Final = 0.02
"""Seconds after which a feed that would be woken up looks all the same: a wake-up may be missed, and a file be new. The
first who subscribes may be told so much later, once."""
POLL_ALONE_S: Final = 0.001
"""The same for one that nobody wakes, while somebody waits for events."""
REFRESH_S: Final = 1.0
"""Seconds between two looks at whether the published file is another one."""
REST_RATIO: Final = 2.0
"""Rest, in units of the time that the batch before took: so a third of one processor is spent at most."""
REST_FROM_S: Final = 0.0005
"""Seconds that a batch, or several without a pause, must have taken for a rest after it."""
REST_S_MAX: Final = 0.05
CATCH_UP_STEPS_MAX: Final = 4
"""Batches that are taken at a time for somebody who asks for what happens from now on."""


class Feed:
    """See the module. All methods on the loop."""

    def __init__(
        self,
        follower: Follower,
        on_entries: Callable[[Sequence[Entry]], None],
        *,
        wake: int,
        is_awaited: Callable[[], bool],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`wake`: the eventfd of the node that publishes, if there is one. `is_awaited`: whether anybody would be told.

        `on_failure` is called when the log fails, after which nothing more is taken.
        """
        self._follower = follower
        self._on_entries = on_entries
        self._wake = wake
        self._is_awaited = is_awaited
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._is_resting = False
        self._unrested_s = 0.0
        self._refresh_s = 0.0
        self._failed = False
        self.is_level = asyncio.Event()
        """Set when for the first time all that was published has been taken."""

    def start(self) -> None:
        """Begin to follow; the follower has begun."""
        if self._wake != NO_DESCRIPTOR:
            self._loop.add_reader(self._wake, self._on_wake)
        self._step()

    def catch_up(self) -> None:
        """Take what is published, here and now, or at least some of it."""
        steps = 0
        while steps < CATCH_UP_STEPS_MAX and self._is_behind() and not self._failed:
            self._step()
            steps += 1

    def stop(self) -> None:
        """Take nothing more."""
        self._failed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._wake != NO_DESCRIPTOR:
            self._loop.remove_reader(self._wake)

    def _on_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return
        if not self._is_resting:
            self._step()

    def _step(self) -> None:
        """Take what there is, and see to it that this happens again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._failed:
            return
        self._is_resting = False
        started_s = time.thread_time()  # the loop's own time stands still within a step
        try:
            entries = self._follower.take()
            if entries:
                self._on_entries(entries)
        except Exception as error:
            self._failed = True
            self._on_failure(error)
            return
        if self._is_behind():
            self._rest(time.thread_time() - started_s)
            return
        self.is_level.set()
        if self._is_awaited():
            self._follower.publication.announce_waiting()
        if self._is_behind():
            self._rest(time.thread_time() - started_s)
        else:
            self._wait()

    def _is_behind(self) -> bool:
        return self._follower.published_index > self._follower.applied_index

    def _rest(self, took_s: float) -> None:
        self._unrested_s += took_s
        is_little = self._unrested_s < REST_FROM_S
        if is_little and self.is_level.is_set() and not self._is_awaited():
            self._wait()  # What came while the batch was taken is no reason to go on at once.
            return
        self._is_resting = True
        if is_little or not self.is_level.is_set():
            self._timer = self._loop.call_soon(self._step)
        else:
            self._timer = self._loop.call_later(min(REST_RATIO * self._unrested_s, REST_S_MAX), self._step)
            self._unrested_s = 0.0

    def _wait(self) -> None:
        self._unrested_s = 0.0
        now_s = self._loop.time()
        if now_s >= self._refresh_s:
            self._refresh_s = now_s + REFRESH_S
            self._follower.publication.refresh()
        is_alone = self._wake == NO_DESCRIPTOR and self._is_awaited()
        self._timer = self._loop.call_later(POLL_ALONE_S if is_alone else POLL_S, self._step)
