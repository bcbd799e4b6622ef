"""Entries that another member is asked for, until a segment has all of its own."""

from collections.abc import Callable
from typing import Final

from bezant.engine.snapshots.jobs import Jobs
from bezant.engine.snapshots.making import SegmentMaker

RETRY_TICKS: Final = 50
"""Ticks without an answer after which the same is asked again."""


class EntriesFetch:
    """One segment that is being filled. `ask` sends a request for entries from an index on up to another."""

    def __init__(self, maker: SegmentMaker, jobs: Jobs, ask: Callable[[int, int], None]) -> None:
        self._maker = maker
        self._jobs = jobs
        self._ask = ask
        self._asked_index = 0
        self._silent_ticks = 0
        self.silences = 0
        """How often nothing came in time, since the last time that something did."""
        self.is_refused = False
        """Whether the other member has said that it does not have them."""
        self.is_done = False

    def on_tick(self, *, may_ask: bool) -> None:
        """Ask for what is missing, if nobody has been asked; finish. Raises what the helper has raised."""
        self._jobs.poll()
        if self.is_done or not self._jobs.is_idle:
            return
        if self._maker.is_full:
            self._jobs.add(self._finish)
            return
        self._silent_ticks += 1
        if self._silent_ticks > RETRY_TICKS and self._asked_index:
            self._asked_index = 0
            self.silences += 1
        if may_ask and self._asked_index != self._maker.next_index:
            self._silent_ticks = 0
            self._asked_index = self._maker.next_index
            self._ask(self._maker.next_index, self._maker.last_index)

    def _finish(self) -> None:
        self._maker.finish()
        self.is_done = True

    def on_reply(self, first_index: int, entries: memoryview) -> None:
        """Take what has come, if it is what comes next. Raises what the helper has raised."""
        self._jobs.poll()
        if not self._jobs.is_idle or self._maker.is_full or first_index != self._maker.next_index:
            return
        if not len(entries):
            self.is_refused = True
            return
        self.silences = self._silent_ticks = 0
        self._jobs.add(self._maker.add, entries)

    def discard(self) -> None:
        """Give it up."""
        self._jobs.drop()
        self._maker.discard()
