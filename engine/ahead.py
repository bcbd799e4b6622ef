"""Walks a log in a thread of its own, a bounded way ahead of who executes the entries: each takes about as long."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, NoReturn, Self

from bezant.engine.log.entry import Entry

CHUNKS_AHEAD_MAX: Final = 3
CHUNK_ENTRIES_MAX: Final = 64
CHUNK_EVENTS_MIN: Final = 8192
"""A chunk ends with the entry that brings it to this many events: handing over costs some 20 us a chunk."""


class Ahead:
    """Iterates over entries, which another thread takes from `entries` ahead of time; what that raises is raised here.

    Use it in ``with``: its thread ends with it. Memory: chunks of at most CHUNK_EVENTS_MIN events and one entry.
    """

    def __init__(self, entries: Iterator[Entry], thread: Executor | None = None) -> None:
        """`thread`: what takes the entries, in place of a thread of its own; it is shut down at the end, too."""
        self._entries = entries
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="bezant-walk")
        self._chunks: deque[Future[list[Entry]]] = deque()
        self._walked: deque[Entry] = deque()
        self._paused = False
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Entry:
        if not self._walked:
            if not self._chunks:
                self._paused = False
            while not self._paused and len(self._chunks) < CHUNKS_AHEAD_MAX:
                self._chunks.append(self._thread.submit(self._take_chunk))
            self._walked.extend(self._chunks.popleft().result())
            if not self._walked:
                self._end()
        return self._walked.popleft()

    def _end(self) -> NoReturn:
        failure, self._failure = self._failure or StopIteration(), None
        try:
            raise failure
        finally:
            del failure  # or its traceback would refer to itself, and keep the log's files open

    def pause(self) -> None:
        """Walk no further until every entry that was walked has been taken."""
        self._paused = True

    @property
    def is_level(self) -> bool:
        """Whether, after `pause`, the last entry taken is the last one walked; the next one taken ends the pause."""
        return self._paused and not self._walked and not self._chunks

    def _take_chunk(self) -> list[Entry]:
        chunk: list[Entry] = []
        events = 0
        try:
            for entry in islice(self._entries, CHUNK_ENTRIES_MAX):
                chunk.append(entry)
                events += entry.header.count
                if events >= CHUNK_EVENTS_MIN:
                    break
        except BaseException as failure:  # raised where it would have come: behind the entries before it
            self._failure = failure
        return chunk
