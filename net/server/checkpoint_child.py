"""The child process that makes checkpoints while a node runs: it reads the log and never asks the node for anything.

When the node says so it executes every entry since the last time again, on a ledger of its own and at a low priority,
and writes what comes out. In between it merges runs of ids. Its set-up, which has secrets, and then orders come as
lines of JSON on its standard input; reports leave on its standard output. When the input ends, because the node has
ended however it did, so does the process, at once.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import msgspec

from bezant.engine.checkpoints.checkpointer import Checkpointer, restore_ledger
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.log.log import Log, open_log
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.net.logs import TEXT, begin_logs
from bezant.protocol.errors import BezantError, CorruptLog, LedgerError, StorageError

NICENESS: Final = 10
"""Priority: a tenth of the processor's time when nodes or clients want all of it, so that it still gets on."""
FILTER_BYTES_MAX: Final = 0
"""It asks the disk only for holds that were closed long ago, which is rare: filters would double their memory."""

_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2


class Setup(msgspec.Struct, frozen=True):
    """The first line of the input: whose checkpoints are made, and how ids are hashed if there are none yet."""

    data_directory: str
    shard: int
    settings: ReplicaSettings
    salts: tuple[int, int]


class Order(msgspec.Struct, frozen=True):
    """Execute up to this index, which is durable, and write a checkpoint there."""

    until_index: int


class Report(msgspec.Struct, frozen=True):
    """What became of an order. `is_last`: the child ends. `is_corrupt`: the history is not what the node made of it."""

    index: int
    error: str = ""
    is_last: bool = False
    is_corrupt: bool = False


class CheckpointWorker:
    """Carries out orders on one shard."""

    def __init__(self, setup: Setup) -> None:
        directory = shard_directory(Path(setup.data_directory), setup.shard)
        folder = CheckpointFolder(directory)
        self._lock = folder.lock()
        folder.directory.remove_unfinished()
        self._log = open_log(directory, shard=setup.shard, writable=False)
        self._restored = restore_ledger(
            folder,
            setup.settings.ledger_settings,
            self._log.read_events,
            shard=setup.shard,
            filter_bytes_max=FILTER_BYTES_MAX,
            salts=setup.salts,
        )
        point = self._restored.point
        self._written_index = self._index = 0 if point is None else point.index
        self._checkpointer = Checkpointer(
            self._restored,
            self._log,
            folder,
            shard=setup.shard,
            filter_bytes_max=FILTER_BYTES_MAX,
            free_space_floor=setup.settings.free_space_floor,
        )
        self._opened = False

    def carry_out(self, order: Order) -> Report:
        """Execute, and write. Raises `CorruptLog`, `LedgerError`; a full disk is reported, and may be retried."""
        if order.until_index < self._index:
            raise LedgerError(f"asked for a checkpoint at index {order.until_index}, and {self._index} was executed")
        if order.until_index > self._index:
            self._execute(self._log, order.until_index)
        if order.until_index != self._written_index:
            try:
                self._written_index = self._checkpointer.write().point.index
            except CorruptLog:
                raise
            except StorageError as error:
                return Report(self._index, str(error))
        return Report(self._index)

    def _execute(self, log: Log, until_index: int) -> None:
        entries = log.follow(until_index) if self._opened else log.open(self._restored.point, until_index)
        for entry in entries:
            self._checkpointer.take_in(entry)
            self._index = entry.header.index
        self._opened = True

    def close(self) -> None:
        """Let others have the folder."""
        self._checkpointer.close()
        self._log.close()
        self._lock.release()

    def merge_step(self) -> bool:
        """Do a little of what nobody waits for; False if there is nothing."""
        return self._opened and self._checkpointer.merge_step()


def main() -> int:
    """Carry out orders until the input ends; the exit status is 1 after an error that was reported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    # Others may print: what goes to standard output is for the node.
    reports = os.fdopen(os.dup(_STANDARD_OUTPUT), "wb")
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # The node has ended, just as it had started this.
    setup = msgspec.json.decode(line, type=Setup)
    begin_logs(TEXT, "checkpointer")
    threading.Thread(target=_read_orders, args=(sys.stdin.buffer, orders), daemon=True).start()
    try:
        worker = CheckpointWorker(setup)
        while True:
            order = _next_order(orders, worker)
            _send(reports, worker.carry_out(order))
    except (BezantError, OSError) as error:
        _send(reports, Report(0, str(error), is_last=True, is_corrupt=isinstance(error, CorruptLog)))
        return 1


def _next_order(orders: "queue.SimpleQueue[Order]", worker: CheckpointWorker) -> Order:
    """The next order; merges while there is none."""
    while True:
        with contextlib.suppress(queue.Empty):
            return orders.get_nowait()
        if not worker.merge_step():
            return orders.get()


def _read_orders(source: BinaryIO, orders: "queue.SimpleQueue[Order]") -> NoReturn:
    """Put every line into the queue; end the process when there are no more."""
    for line in source:
        orders.put(msgspec.json.decode(line, type=Order))
    os._exit(0)


def _send(reports: BinaryIO, report: Report) -> None:
    reports.write(msgspec.json.encode(report) + b"\n")
    reports.flush()


if __name__ == "__main__":
    sys.exit(main())
