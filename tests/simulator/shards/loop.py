"""An event loop in virtual time: asyncio code of a simulated node, tasks and timers, runs on the schedule, unchanged.

What is ready runs in the order in which it became so, as in asyncio; nothing else decides the order. A loop belongs to
one life of a node: what has not run when that ends never does.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from ..schedule import Schedule, Violation

Wake = Callable[..., None]


class NodeLoop(asyncio.AbstractEventLoop):
    """See the module. Only what tasks, futures, timers and sleeps take."""

    def __init__(self, schedule: Schedule, wake: Wake) -> None:
        """`wake(delay_us, action, *arguments)` has the node do something, if it lives until then."""
        self._schedule = schedule
        self._wake = wake
        self._ready: deque[asyncio.Handle] = deque()
        self._is_due = False
        self._is_dead = False
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._schedule.now_us / 1e6

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._is_dead

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, **kwargs)
        self._tasks = [other for other in self._tasks if not other.done()]
        self._tasks.append(task)
        return task

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._is_dead:
            self._ready.append(handle)
            if not self._is_due:
                self._is_due = True
                self._wake(0, self._run_ready)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._is_dead:
            self._wake(math.ceil(when * 1e6) - self._schedule.now_us, self._fire, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._is_dead:
            raise Violation(f"nobody has asked what became of it: {context}")

    def end(self) -> None:
        """The node has stopped: nothing of this goes on."""
        self._is_dead = True
        self._ready.clear()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done():
                task.get_coro().close()

    def _run_ready(self) -> None:
        self._is_due = False
        for _ in range(len(self._ready)):
            if not self._ready:
                return  # It has ended meanwhile.
            self._run(self._ready.popleft())
        if self._ready and not self._is_due:
            self._is_due = True
            self._wake(0, self._run_ready)

    def _fire(self, handle: asyncio.Handle) -> None:
        self._run(handle)

    def _run(self, handle: asyncio.Handle) -> None:
        """Unlike `Handle._run`, let what is raised reach the node."""
        if not handle.cancelled():
            handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
