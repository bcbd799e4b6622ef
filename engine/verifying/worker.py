"""The process that executes parts of a history: orders come as lines of JSON on its standard input, answers leave so.

For each part it is given the number of an open file, in memory, to leave the hashes of the ids in. When the input ends,
because whoever gave the orders has ended however that came, so does the process, at once.
"""

import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import msgspec
import numpy as np

from bezant.engine.checkpoints.file import read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.ids.merge import Merge
from bezant.engine.ids.warm import warm_ids
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.replica import shard_directory
from bezant.engine.verifying.part import Order, Outcome, execute_part
from bezant.engine.verifying.sums import sum_of, warm_sums
from bezant.protocol.errors import BezantError
from bezant.protocol.records import Words

PROGRESS_EVERY_S: Final = 0.2
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2


class Job(msgspec.Struct, frozen=True):
    """A part to execute, and where to leave the sorted hashes of its ids; or, without a file, ids to add up."""

    order: Order
    descriptor: int = -1


class Answer(msgspec.Struct, frozen=True):
    """How far a part is (events), or what came of it."""

    number: int
    events: int = 0
    outcome: Outcome | None = None


def main() -> int:
    """Carry out jobs until the input ends."""
    answers = os.fdopen(os.dup(_STANDARD_OUTPUT), "wb")
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    warm_ledger()
    warm_ids()
    warm_sums()
    while True:
        job = jobs.get()
        try:
            outcome = _carry_out(job, answers)
        except (BezantError, OSError, MemoryError) as error:
            outcome = Outcome(job.order.number, doubt=str(error) or type(error).__name__)
        _send(answers, Answer(job.order.number, outcome.events, outcome))


def _carry_out(job: Job, answers: BinaryIO) -> Outcome:
    order = job.order
    if job.descriptor < 0:
        return _sum_stored(order)
    last_told_s = time.monotonic()

    def tell(events: int) -> None:
        nonlocal last_told_s
        if time.monotonic() - last_told_s >= PROGRESS_EVERY_S:
            last_told_s = time.monotonic()
            _send(answers, Answer(order.number, events))

    def take_hashes(count: int) -> Words:
        os.ftruncate(job.descriptor, count * 8)
        if not count:
            return np.zeros(0, np.int64)
        with os.fdopen(os.dup(job.descriptor), "r+b") as file:
            return np.memmap(file, np.int64, "r+", shape=(count,))

    return execute_part(order, take_hashes, tell)


def _sum_stored(order: Order) -> Outcome:
    """The sum over the ids that the files of a checkpoint have. Raises `StorageError`."""
    folder = CheckpointFolder(shard_directory(Path(order.data_directory), order.shard))
    manifest = read_checkpoint(folder.directory, order.ids_from).manifest
    merge = Merge(folder.directory, manifest.identity, manifest.runs, 0)
    parts = ((np.ascontiguousarray(part[:, 0]), np.ascontiguousarray(part[:, 1])) for part in merge.parts())
    return Outcome(order.number, ids=sum_of(parts, order.sum_salts))


def _read_jobs(source: BinaryIO, jobs: "queue.SimpleQueue[Job]") -> NoReturn:
    """Put every line into the queue; end the process when there are no more."""
    for line in source:
        jobs.put(msgspec.json.decode(line, type=Job))
    os._exit(0)


def _send(answers: BinaryIO, answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
