"""Hands the log to projections, in a thread of its own, so that nothing they do holds up a subscriber or a query."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, Protocol, TypeVar

from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry
from bezant.engine.log.resume import ResumePoint
from bezant.protocol.errors import ArchiveUnavailable, BezantError, HistoryIncomplete, StorageError
from bezant.protocol.records import Records, Words

POLL_S: Final = 0.1
"""Seconds after which the thread looks for new entries although nobody has told it of any."""
POLL_AWAITED_S: Final = 0.001
"""The same while somebody waits for an event that is not there yet."""
REST_S: Final = 0.02
"""Rest after a small batch if nobody waits: what came meanwhile is taken in at once. A batch costs some 0.3 ms, however
small it is, and holds the interpreter up for those who are told of events as they happen."""
REST_EVENTS_MAX: Final = 4096
"""Events in a batch after which there is a rest; behind a larger one there is more to do."""
UNAVAILABLE_RETRY_S: Final = 5.0
"""Seconds after which a part of the history that could not be had, from an archive or the group, is asked for again."""
TOGETHER_EVENTS_MIN: Final = 4096
"""Events in a batch from which on all projections take it in at the same time; to hand it over costs some 0.1 ms."""
STOP_S_MAX: Final = 2.0
"""Seconds that the thread has to end when the reader stops; what it has not saved is made again from the log. (A batch
that is being taken in by all of them at that moment, some milliseconds of work, is waited for at the end.)"""

_Read = TypeVar("_Read")
_log = logging.getLogger("bezant")


class Awaits(BezantError):  # noqa: N818 - it says what happened
    """A query waits for the projections to have come as far as this event, and this entry. Asked again when they have.

    If that does not come in time it is refused; or, if it is not `needed`, answered with what is known.
    """

    def __init__(self, *, sequence: int = 0, index: int = 0, needed: bool = True) -> None:
        super().__init__(f"event {sequence} is awaited" if sequence else f"entry {index} is awaited")
        self.sequence = sequence
        self.index = index
        self.needed = needed


class _Obstacle(BezantError):  # noqa: N818 - it says what is in the way
    """Nothing is to be taken in for now."""


def read_taken(follower: Follower) -> Callable[..., Records]:
    """`Follower.read_events`, but for raising `Awaits` for what has not been taken yet.

    A projection that was saved later than another knows of events that the log, which is read from where the earlier
    one stands, has not come to.
    """

    def read_events(sequences: Words, check_bodies: bool = True) -> Records:
        if len(sequences) and int(sequences[-1]) > follower.last_sequence:
            raise Awaits(sequence=int(sequences[-1]))
        return follower.read_events(sequences, check_bodies)

    return read_events


class TakesIn(Protocol):
    """Something that entries are handed to."""

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Take the next entries in. Their bodies are parts of mapped files."""
        ...


class Projection(TakesIn, Protocol):
    """Something that is kept of the log. Calls come one after the other, from two threads at most, and `close` last."""

    def start(self) -> ResumePoint | None:
        """The entry behind which this goes on, as `Follower.log.resume_point` gave it; None for the beginning."""
        ...

    def begin(self, follower: Follower) -> None:
        """The log is open; it stands at `start`, or before it if another projection begins there."""
        ...

    def rest(self) -> None:
        """Everything published has been taken in: a good moment to save."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Intake:
    """Hands entries to projections that begin behind different ones, a large batch to all at the same time.

    What they compute leaves the interpreter's lock, and history and tree take about equally long.
    """

    def __init__(self, projections: Sequence[TakesIn], indexes: Sequence[int]) -> None:
        """`indexes`: the entry behind which each begins, 0 for the first."""
        self._targets = list(zip(projections, indexes, strict=True))
        self._helpers = ThreadPoolExecutor(max(len(projections) - 1, 1), "bezant-intake")

    def take_in(self, entries: Sequence[Entry], events: int) -> None:
        """Have all of them take in entries, which hold so many events. Raises what the first that fails raises."""
        first_index = entries[0].header.index
        parts = [(target, entries[max(index + 1 - first_index, 0) :]) for target, index in self._targets]
        if events < TOGETHER_EVENTS_MIN:
            for target, part in parts:
                target.take_in(part)
            return
        (own, own_part), *others = parts
        taking = [self._helpers.submit(target.take_in, part) for target, part in others]
        try:
            own.take_in(own_part)
        finally:
            wait(taking)
        for taken in taking:
            taken.result()

    def close(self) -> None:
        """End the helping threads."""
        self._helpers.shutdown()


class Projector:
    """See the module."""

    def __init__(
        self,
        projections: Sequence[Projection],
        follower: Follower,
        on_failure: Callable[[Exception], None],
        find_obstacle: Callable[[], str] = lambda: "",
        on_begun: Callable[[], object] = lambda: None,
    ) -> None:
        """`follower` is this thread's own. `on_failure` is called on the loop when a projection or the log fails.

        `find_obstacle` says, in the thread, why nothing more is to be taken in for now; "" if nothing is against it.
        `on_begun` is called there when all projections have begun.
        """
        self._find_obstacle = find_obstacle
        self._on_begun = on_begun
        self._projections = projections
        self._follower = follower
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._woken = threading.Event()
        self._hurried = threading.Event()
        self._stopping = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bezant-projector", daemon=True)
        self._waiters: list[tuple[Awaits, asyncio.Future[None]]] = []
        self._applied_index = 0
        self.applied_sequence = 0
        """The last event that all projections have taken in."""
        self.problem = ""
        """What keeps them where they are: a part of the history that cannot be had, or the disk; "" if nothing does."""

    def start(self) -> None:
        """Begin, in the thread."""
        self._thread.start()

    def wake(self) -> None:
        """More has been published."""
        if not self._woken.is_set():
            self._woken.set()

    @property
    def published_index(self) -> int:
        """The last entry that can be taken in now: whoever has been told a result of this node finds it up to there."""
        return self._follower.published_index

    async def wait(self, awaited: Awaits, timeout_s: float) -> bool:
        """Whether the projections have come as far, or do within the time. On the loop."""
        if self._has_come_to(awaited):
            return True
        reached = self._loop.create_future()
        waiter = (awaited, reached)
        self._waiters.append(waiter)
        self._hurry()
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError:
            return False
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        return True

    def _hurry(self) -> None:
        """Have the thread look at once."""
        self._hurried.set()
        self._woken.set()

    def stop(self) -> bool:
        """End the thread, after the batch that it is at, and close what it uses; whether it has ended in time.

        If it has not, all of that stays open under it, and the process is to end without waiting for it.
        """
        self._stopping = True
        self._ended.set()
        self._hurry()
        self._thread.join(STOP_S_MAX)
        if self._thread.is_alive():
            _log.warning(
                "bezant: what the reader keeps is still being read or written after %g s, and is left as it is: what "
                "is not saved is made again from the log",
                STOP_S_MAX,
            )
            return False
        for projection in self._projections:
            try:
                projection.close()
            except StorageError as error:  # What it has not saved is made again; why this ends, if it failed, is told.
                _log.warning("bezant: not saved: %s", error)
        self._follower.close()
        return True

    # ---- in the thread ----

    def _run(self) -> None:
        try:
            self._project()
        except Exception as error:
            self._loop.call_soon_threadsafe(self._on_failure, error)

    def _project(self) -> None:
        follower = self._follower
        starts = [projection.start() for projection in self._projections]
        indexes = [0 if start is None else start.index for start in starts]
        first = min(starts, key=lambda start: 0 if start is None else start.index)
        self._insist(lambda: follower.begin(first))
        if self._stopping:
            return
        for projection in self._projections:
            projection.begin(follower)
        intake = Intake(self._projections, indexes)
        try:
            self._follow(intake)
        finally:
            intake.close()

    def _follow(self, intake: Intake) -> None:
        follower = self._follower
        self._on_begun()
        self._loop.call_soon_threadsafe(self._note_applied, follower.last_sequence, follower.applied_index)
        while not self._stopping:
            first_sequence = follower.last_sequence
            entries = self._insist(self._take)
            if not entries:
                self._woken.clear()
                if follower.published_index > follower.applied_index:
                    continue
                for projection in self._projections:
                    projection.rest()
                self._woken.wait(POLL_AWAITED_S if self._waiters else POLL_S)
                continue
            intake.take_in(entries, follower.last_sequence - first_sequence)
            self._loop.call_soon_threadsafe(self._note_applied, follower.last_sequence, follower.applied_index)
            if follower.last_sequence - first_sequence <= REST_EVENTS_MAX:
                self._rest()

    def _take(self) -> list[Entry]:
        obstacle = self._find_obstacle()
        if obstacle:
            raise _Obstacle(obstacle)
        return self._follower.take()

    def _insist(self, read: Callable[[], _Read]) -> _Read | None:
        """What reading the log gives, as soon as all that it takes can be had; None when this is to stop.

        Those who are told of what happens now need none of that, so the reader goes on meanwhile.
        """
        while not self._stopping:
            try:
                found = read()
            except (_Obstacle, ArchiveUnavailable, HistoryIncomplete) as error:
                if str(error) != self.problem:
                    self.problem = str(error)
                    _log.warning("bezant: the reader does not come further for now: %s", error)
                self._ended.wait(UNAVAILABLE_RETRY_S)
                continue
            self.problem = ""
            return found
        return None

    def _rest(self) -> None:
        self._hurried.clear()
        if not self._waiters and not self._stopping:
            self._hurried.wait(REST_S)

    # ---- on the loop ----

    def _has_come_to(self, awaited: Awaits) -> bool:
        return awaited.sequence <= self.applied_sequence and awaited.index <= self._applied_index

    def _note_applied(self, sequence: int, index: int) -> None:
        self.applied_sequence, self._applied_index = sequence, index
        for waiter in [waiter for waiter in self._waiters if self._has_come_to(waiter[0])]:
            self._waiters.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)
