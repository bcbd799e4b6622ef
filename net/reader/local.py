"""Answers questions about the history in the process that has the log open itself, without a reader beside it.

The projections are the reader's own files; they are opened at the first question, and before each answer all that is
published by then is taken in, in a thread of its own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bezant.engine.following import Follower, open_follower
from bezant.engine.replica import shard_directory
from bezant.net.reader.history import HistoryProjection
from bezant.net.reader.metadata import MetadataProjection, MetadataQueries
from bezant.net.reader.projecting import Awaits
from bezant.net.reader.queries import HistoryQueries
from bezant.net.reader.server import READER_FOLDER
from bezant.protocol.errors import RemoteProtocolError, RequestRefused, StorageError, UsageError
from bezant.protocol.frames import FrameError, Operation

OPERATIONS: Final = frozenset(
    {
        Operation.QUERY_ACCOUNTS,
        Operation.STATEMENT,
        Operation.FIND_TRANSFERS,
        Operation.OPEN_HOLDS,
        Operation.TOTALS,
        Operation.GET_METADATA,
    }
)
"""What can be asked here."""


class LocalHistory:
    """See the module. Used from one event loop."""

    def __init__(self, data_directory: Path, shard: int = 0) -> None:
        self._directory = shard_directory(data_directory, shard)
        self._shard = shard
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bezant-history")
        self._stopping = False
        self._follower: Follower | None = None
        self._history: HistoryProjection | None = None
        self._metadata: MetadataProjection | None = None
        self._history_index = self._metadata_index = 0
        self._queries: dict[int, Callable[[bytes, int], bytes]] = {}

    async def request(self, operation: Operation, body: bytes) -> bytes:
        """Answer one question. Raises `RequestRefused` as a reader does, `StorageError` and its kinds."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, operation, body)

    async def prepare(self, on_progress: Callable[[int, int], None]) -> None:
        """Take in all that there is; `on_progress` is told, in the thread, of (events taken in, events in all)."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._take_in, on_progress)

    async def close(self) -> None:
        """Let go of the files. May be called again."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    # ---- in the thread ----

    def _answer(self, operation: Operation, body: bytes) -> bytes:
        self._take_in(lambda *_: None)
        try:
            return self._queries[operation](body, 0)  # all that was published has been taken in
        except Awaits as awaited:
            raise RequestRefused(FrameError.BEHIND, str(awaited)) from awaited
        except RemoteProtocolError as error:
            raise RequestRefused(FrameError.BODY_MALFORMED, str(error)) from error
        except UsageError as error:
            raise RequestRefused(FrameError.REQUEST_REFUSED, str(error)) from error

    def _take_in(self, on_progress: Callable[[int, int], None]) -> None:
        """Take in all that is published now."""
        follower, history, metadata = self._follower, self._history, self._metadata
        if follower is None or history is None or metadata is None:
            follower, history, metadata = self._open()
        until_index = follower.published_index
        while follower.applied_index < until_index and not self._stopping:
            entries = follower.take()
            if not entries:
                break
            next_index = entries[0].header.index
            history.take_in(entries[max(self._history_index + 1 - next_index, 0) :])
            metadata.take_in(entries[max(self._metadata_index + 1 - next_index, 0) :])
            on_progress(follower.last_sequence, max(follower.last_sequence, follower.log.watermark_sequence))
        history.rest()
        metadata.rest()

    def _open(self) -> tuple[Follower, HistoryProjection, MetadataProjection]:
        follower = open_follower(self._directory, self._shard)
        if follower is None:
            raise StorageError(f"{self._directory.path}: there is no log yet")
        history = HistoryProjection(self._directory.path / READER_FOLDER, self._shard, follower.log_id)
        metadata = MetadataProjection(self._directory, self._shard, follower.log_id)
        try:
            starts = [history.start(), metadata.start()]
            self._history_index, self._metadata_index = (0 if start is None else start.index for start in starts)
            follower.begin(min(starts, key=lambda start: 0 if start is None else start.index))
            history.begin(follower)
            metadata.begin(follower)
        except BaseException:
            history.close()
            follower.close()
            raise
        self._follower, self._history, self._metadata = follower, history, metadata
        self._queries = {**HistoryQueries(history).by_operation(), **MetadataQueries(metadata).by_operation()}
        return follower, history, metadata

    def _close(self) -> None:
        self._stopping = True
        self._thread.shutdown(cancel_futures=True)
        if self._history is not None:
            self._history.close()
        if self._follower is not None:
            self._follower.close()
        self._history = self._follower = None
