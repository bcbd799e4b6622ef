"""The node's side of `bezant archive drop`, which names segments that are in an archive: their files go from here.

Looks now and then at whether the mark is another one. The log is told first, so that nobody is to be sent what is not
here any more; the files go on a thread. What a node before this one has left is finished likewise.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from bezant.engine.archive.dropping import remove_archived
from bezant.engine.log.archived import ARCHIVED_NAME
from bezant.engine.replica import Replica
from bezant.net.server.failure import end_after_bug
from bezant.protocol.errors import StorageError

LOOK_S: Final = 1.0
"""Seconds between two looks."""

_log = logging.getLogger("bezant")


class Dropping:
    """Has files go. All methods on the loop."""

    def __init__(self, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
        self._replica = replica
        self._loop = loop
        self._path = Path(replica.log.directory.path) / ARCHIVED_NAME
        self._seen: tuple[int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer = loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        try:
            status = self._path.stat()
        except OSError:
            return
        found = (status.st_ino, status.st_mtime_ns)
        if found != self._seen and self._task is None:
            self._seen = found
            self._task = self._loop.create_task(self._drop(), name="bezant dropping")

    async def _drop(self) -> None:
        log = self._replica.log
        try:
            await asyncio.to_thread(log.archive.load)
            log.note_archived()
            count = await asyncio.to_thread(remove_archived, log.directory, self._replica.shard)
            if count:
                _log.info("bezant: %d segments have left the disk, which an archive has", count)
        except (StorageError, OSError) as error:
            _log.warning("bezant: segments that an archive has stay here: %s", error)
        except Exception as error:
            end_after_bug(error)
        finally:
            self._task = None

    async def stop(self) -> None:
        """Look no more; return when what was begun is done."""
        self._timer.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])
