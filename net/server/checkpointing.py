"""The node's side of checkpoints: has the child make them, and adopts what it has written.

    frozen, between two entries -> committed, and durable here -> the child writes
                                -> runs opened on a thread -> adopted, between two steps

The child is started for the first one, and again, after a pause, when it has died. While it fails
the node goes on for as long as there is room for ids in memory, and then refuses commands (STORAGE_FULL). A child that
twice comes to another result than the node has found that one of the two is wrong: the node ends.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bezant.engine.child_status import tell_status
from bezant.engine.replica import Replica
from bezant.net.logs import about
from bezant.net.server.checkpoint_child import Order, Report, Setup
from bezant.net.server.failure import end_after_bug, end_after_failed_sync
from bezant.protocol.errors import CorruptLog, StorageError

REPORT_WAIT_S_MAX: Final = 120.0
"""Seconds after which a child that does not report is taken for stuck, and killed."""
RETRY_S: Final = 5.0
"""Seconds between two tries of what has failed."""
CORRUPT_REPORTS_MAX: Final = 2
"""Reports in a row that the history is not what the node made of it: then the node ends."""

_log = logging.getLogger("bezant")


class Checkpointing:
    """Checkpoints of one replica. All methods on the loop."""

    def __init__(self, replica: Replica, loop: asyncio.AbstractEventLoop, on_room: Callable[[], None]) -> None:
        """`on_room` is called when ids have left the memory, or when waiting for that has become pointless."""
        self._replica = replica
        self._loop = loop
        self._on_room = on_room
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._corrupt_reports = 0
        self.failing = False

    def on_committed(self) -> None:
        """More of the log is committed and durable, or ids were frozen."""
        if not self._is_due:
            return
        if self._task is None:
            self._task = self._loop.create_task(self._run())
        self._wanted.set()

    @property
    def _is_due(self) -> bool:
        """Whether ids are frozen, and all that they come from can be read by the child and will never be cut."""
        log = self._replica.log
        return 0 < self._replica.frozen_index <= min(log.durable_index, log.commit_index)

    async def _run(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    await self._make_checkpoint()
                except (StorageError, OSError) as error:
                    await self._note_failure(error)
        except Exception as error:
            end_after_bug(error)

    async def _make_checkpoint(self) -> None:
        """Have the checkpoint made that is due. Raises `StorageError`, or OSError if no child can be started."""
        replica = self._replica
        frozen_index = replica.frozen_index
        if not self._is_due:
            return
        try:
            replica.erasing.begin(frozen_index)
            await self._loop.run_in_executor(None, replica.erasing.finish)
        except OSError as error:
            end_after_failed_sync(error)
        await self._have_carried_out(Order(frozen_index))
        open_written, memory = replica.checkpoints.open_written, replica.settings.filter_bytes_max
        written = await self._loop.run_in_executor(None, open_written, frozen_index, memory, replica.id_runs)
        replica.adopt(*written)
        self.failing = False
        self._corrupt_reports = 0
        self._on_room()

    async def _have_carried_out(self, order: Order) -> None:
        """Send an order and wait for the report. Raises `StorageError`."""
        process = self._process or await self._start()
        if process.stdin is None or process.stdout is None:
            raise StorageError("the child that makes checkpoints has no pipes")
        try:
            if not process.stdin.is_closing():  # It has ended, and there is nothing to read either.
                process.stdin.write(msgspec.json.encode(order) + b"\n")
            async with asyncio.timeout(REPORT_WAIT_S_MAX):
                line = await process.stdout.readline()
        except (TimeoutError, ConnectionError) as error:
            await self._end_child()
            raise StorageError(f"the child that makes checkpoints does not answer: {error!r}") from error
        if not line:
            status = await process.wait()
            self._process = None
            raise StorageError(f"the child that makes checkpoints has ended with {tell_status(status)}")
        report = msgspec.json.decode(line, type=Report)
        if report.is_last:
            await self._end_child()
        if report.is_corrupt:
            self._corrupt_reports += 1
            if self._corrupt_reports >= CORRUPT_REPORTS_MAX:
                raise CorruptLog(report.error)
        if report.error:
            raise StorageError(report.error)

    async def _start(self) -> asyncio.subprocess.Process:
        replica = self._replica
        data_directory = Path(replica.checkpoints.directory.path).parent.parent
        setup = Setup(str(data_directory), replica.shard, replica.settings, replica.ledger.salts)
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bezant.net.server.checkpoint_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdin is not None:
            process.stdin.write(msgspec.json.encode(setup) + b"\n")
        return process

    async def _note_failure(self, error: Exception) -> None:
        """Say what has failed, and have it tried again in a while."""
        if isinstance(error, CorruptLog):
            end_after_bug(error)
        _log.warning(
            "bezant: no checkpoint could be made, and it is tried again in %g s: %s",
            RETRY_S,
            error,
            extra=about("checkpoint_failed"),
        )
        self.failing = True
        self._on_room()
        await asyncio.sleep(RETRY_S)
        self._wanted.set()

    async def _end_child(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def stop(self) -> None:
        """End the child, whatever it does: what it has not written is made at the next start, or by the next child."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._end_child()
