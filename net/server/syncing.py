"""The helper thread that writes groups and waits for the disk, so that the reactor's loop does not."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from bezant.engine.log.group import Group
from bezant.net.server.failure import end_after_bug, end_after_failed_sync


def write_or_die(group: Group) -> float:
    """Write and sync a group; returns the seconds that took. A failure ends the process at once.

    After a failed fsync the kernel may drop the dirty pages and report success the next time, so neither a retry nor
    anything read back can be trusted (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    """
    started = time.perf_counter()
    try:
        group.write_and_sync()
    except OSError as error:
        end_after_failed_sync(error)
    except Exception as error:
        # In the thread nobody would see it, and the loop would wait for this group for ever.
        end_after_bug(error)
    return time.perf_counter() - started


class SyncThread:
    """Writes one group at a time; `on_done` is called on the loop with the group and the seconds it took."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_done: Callable[[Group, float], None]) -> None:
        self._loop = loop
        self._on_done = on_done
        self._groups: SimpleQueue[tuple[Group, SimpleQueue[float]] | None] = SimpleQueue()
        self._done: SimpleQueue[float] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bezant-sync", daemon=True)
        self._thread.start()

    def write(self, group: Group) -> None:
        """Have a group written; the one before must be done."""
        self._done = SimpleQueue()
        self._groups.put((group, self._done))

    def wait(self) -> float:
        """Wait here and now for the group that is under way; `on_done` is called all the same. Returns the seconds."""
        return self._done.get()

    def _run(self) -> None:
        while True:
            item = self._groups.get()
            if item is None:
                return
            group, done = item
            seconds = write_or_die(group)
            done.put(seconds)
            self._loop.call_soon_threadsafe(self._on_done, group, seconds)

    def stop(self) -> None:
        """End the thread, after the group that is under way."""
        self._groups.put(None)
        self._thread.join()
