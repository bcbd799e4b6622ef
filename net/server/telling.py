"""Batches that are executed, until all who wait for them have been told: in the order of the log, what is committed.

A batch with transfers to other shards is told when these are decided, as a rule a moment later. Should another shard
take longer than HOLD_AFTER_S, because it is lost or between two leaders, everybody else is told at once: the batch is
*held*, without its room for commands, until it is decided, and those behind it are told. Replies to one connection keep
their order: what is for a connection that waits for something held is held behind that.

Bound: HELD_BYTES_MAX, and what all connections may have in flight (`reactor.py`), of which tries under way take a few
times as much; what finds no room waits in its place, and everything behind it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bezant.engine.member import Member
from bezant.net.server.batch import Batch, Replier
from bezant.net.server.batch_times import note_replied, note_told
from bezant.net.server.requests import AnsweredElsewhere
from bezant.net.server.statistics import Counters
from bezant.protocol.errors import LedgerError

CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]

HOLD_AFTER_S: Final = 0.05
"""Seconds behind its execution after which a batch that is not decided keeps nobody else waiting."""
HELD_BYTES_MAX: Final = 64 << 20
"""Of results and frames that are held."""


class Telling:
    """See the module. All methods on the loop."""

    def __init__(
        self, member: Member, counters: Counters, spare: list[Batch], call_later: CallLater, on_late: Callable[[], None]
    ) -> None:
        """`spare` gets the batches that are to be filled again; `on_late` is called when something may have to be
        held (on the loop, by its `call_later`)."""
        self.waiting: deque[Batch] = deque()
        """Those that are not held, in the order of the log."""
        self.confirmed_ticket = 0
        """The last question whether this node still led that was answered."""
        self._member = member
        self._counters = counters
        self._spare = spare
        self._held: list[Batch] = []
        self._held_bytes = 0
        self._undecided_count = 0
        """Of what is held, as far as that has been looked at."""
        self._behind: set[Replier] = set()
        """Connections for which something is held."""
        self._call_later = call_later
        self._on_late = on_late
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not (self.waiting or self._held)

    def note_confirmed(self) -> None:
        """Take notice of what the others have said to whether this node still leads."""
        confirmed = self._member.reads_confirmed
        if confirmed:
            self.confirmed_ticket = max(ticket for ticket, _ in confirmed)
            confirmed.clear()

    def tell(self) -> None:
        """Tell everything that may be told by now."""
        if self._held:
            self._tell_held()
        waiting = self.waiting
        while waiting and waiting[0].index <= self._member.committed_index:
            batch = waiting[0]
            if batch.read_ticket > self.confirmed_ticket:
                return
            if batch.undecided_count or (self._held and self._is_behind(batch)):
                if not self._may_hold(batch):
                    self._look_again()
                    return
                self._hold(waiting.popleft())
                continue
            self._check_durable(waiting.popleft())
            batch.send_replies()
            note_told(self._counters, batch)
            batch.clear()
            self._spare.append(batch)

    def abandon(self, error: AnsweredElsewhere) -> None:
        """This node leads no more: nobody knows whether what has been executed and not seen committed will be."""
        held, self._held = self._held, []
        for batch in held:
            batch.refuse(error)
        kept: deque[Batch] = deque()
        for batch in self.waiting:
            is_known = batch.index <= self._member.committed_index and not batch.undecided_count
            if is_known and batch.read_ticket <= self.confirmed_ticket:
                kept.append(batch)
            else:
                batch.refuse(error)
                batch.clear()
                self._spare.append(batch)
        self._held_bytes = self._undecided_count = 0
        self._behind.clear()
        self.waiting = kept

    def stop(self) -> None:
        """Hold nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = self._call_later(HOLD_AFTER_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._on_late()

    def _check_durable(self, batch: Batch) -> None:
        member = self._member
        if member.is_alone and batch.index > member.replica.durable_index:
            raise LedgerError(f"results up to index {batch.index} were about to be told before they were durable")

    # ---- what is held ----

    def _is_behind(self, batch: Batch) -> bool:
        return any(run.replier in self._behind for run in batch.runs)

    def _may_hold(self, batch: Batch) -> bool:
        is_late = not batch.undecided_count or time.perf_counter() - batch.started_s > HOLD_AFTER_S
        return is_late and self._held_bytes < HELD_BYTES_MAX

    def _hold(self, batch: Batch) -> None:
        self._check_durable(batch)
        self._spare.append(batch.give_room())
        self._held.append(batch)
        self._held_bytes += batch.kept_bytes
        self._undecided_count += batch.undecided_count
        self._tell_decided(batch)

    def _tell_held(self) -> None:
        """Tell what has been decided since the last time."""
        undecided_count = sum(batch.undecided_count for batch in self._held)
        if undecided_count == self._undecided_count:
            return
        self._undecided_count = undecided_count
        self._behind.clear()
        held, self._held = self._held, []
        for batch in held:
            self._held.append(batch)
            self._tell_decided(batch)

    def _tell_decided(self, batch: Batch) -> None:
        """Tell of the batch that was held last what may be told; if nothing is left, it is held no more."""
        note_replied(self._counters, batch.send_decided(self._behind))
        if not (batch.runs or batch.submissions):
            self._counters.note_results(batch.results)
            self._held.pop()
            self._held_bytes -= batch.kept_bytes
