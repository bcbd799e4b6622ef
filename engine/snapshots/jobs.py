"""Work on files that is done elsewhere, one after another, and looked after from here."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

JOBS_MAX: Final = 24
"""Jobs that may wait: parts of a file, most of them, and so some 6 MiB of memory."""


class Jobs:
    """What was given to a helper, in order."""

    def __init__(self, helper: Executor) -> None:
        self._helper = helper
        self._futures: deque[Future[Any]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether all is done, and `poll` has said so."""
        return not self._futures

    @property
    def has_room(self) -> bool:
        """Whether much more may be added."""
        return len(self._futures) < JOBS_MAX

    def add(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Have something done behind the rest. Raises what that has raised, if it is done at once."""
        self._futures.append(self._helper.submit(job, *arguments))
        self.poll()

    def poll(self) -> None:
        """Raise what the first job has raised that failed, if one has; those behind it are dropped then."""
        while self._futures and self._futures[0].done():
            try:
                self._futures.popleft().result()
            except BaseException:
                self.drop()
                raise

    def drop(self) -> None:
        """Have nothing done that has not begun, and wait for what has."""
        while self._futures:
            future = self._futures.popleft()
            if not future.cancel():
                future.exception()
