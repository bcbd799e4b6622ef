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
from bezant.engine.ids.run_set import Run
from bezant.engine.ids.warm import warm_ids
from bezant.engine.ledger.warm import warm_ledger
from bezant.engine.replica import shard_directory
from bezant.engine.verifying.part import Order, Outcome, execute_part
from bezant.engine.verifying.stored import sum_stored, warm_sums
from bezant.protocol.errors import BezantError
from bezant.protocol.records import Words

PROGRESS_EVERY_S: Final = 0.2
NO_FILE: Final = -1
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2


class Job(msgspec.Struct, frozen=True):
    """A part to execute, and where to leave the sorted hashes of its ids, if anywhere; or (`is_sum`) stored ids to add
    up, and where the hashes are that came after them."""

    order: Order
    descriptor: int = NO_FILE
    is_sum: bool = False


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
    if job.is_sum:
        return _sum_stored(order, read_hashes(job.descriptor))
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

    return execute_part(order, tell, None if job.descriptor == NO_FILE else take_hashes)


def read_hashes(descriptor: int) -> Words:
    """The hashes that somebody has left in a file."""
    return np.frombuffer(os.pread(descriptor, os.fstat(descriptor).st_size, 0), np.int64)


def _sum_stored(order: Order, later: Words) -> Outcome:
    """The sum over the ids that the files of a checkpoint have. Raises `StorageError`."""
    folder = CheckpointFolder(shard_directory(Path(order.data_directory), order.shard))
    manifest = read_checkpoint(folder.directory, order.ids_from).manifest
    runs = [
        Run.open(folder.directory, manifest.identity, info, load_filter=False, at_random=False)
        for info in manifest.runs
    ]
    return Outcome(order.number, ids=sum_stored(runs, order.sum_salts, later))


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
