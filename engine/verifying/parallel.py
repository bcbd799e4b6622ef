"""Several processes at work on the parts of a history, and the conclusion from what they find."""

import os
import queue
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from bezant.engine.verifying.part import Order, Outcome
from bezant.engine.verifying.plan import Plan
from bezant.engine.verifying.sums import IdSum
from bezant.engine.verifying.worker import Answer, Job

_SALT_BITS: Final = 63
_IDS_SUMMED_PER_EVENT: Final = 16
"""Ids in files that are added up in the time in which one event is executed."""


class Doubt(Exception):  # noqa: N818 - it is no error: it only leads to the other way of verifying
    """The parts do not make up a history; whether that is wrong, or a checkpoint, is for a walk in one go to say."""


class Proven(NamedTuple):
    """What all parts together have shown; see `VerifyReport`."""

    events: int
    entries: int
    parts: int
    last: Outcome


class _Worker:
    """A process that executes parts. What it says goes into `heard`, with its number; None once it has ended."""

    def __init__(self, number: int, descriptor: int, heard: "queue.SimpleQueue[tuple[int, Answer | None]]") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bezant.engine.verifying.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
        )
        self._thread = threading.Thread(target=self._listen, args=(number, heard), daemon=True)
        self._thread.start()

    def _listen(self, number: int, heard: "queue.SimpleQueue[tuple[int, Answer | None]]") -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                heard.put((number, msgspec.json.decode(line, type=Answer)))
        heard.put((number, None))

    def send(self, job: Job) -> None:
        """Give it the next job. If it has ended, that is heard."""
        if self._process.stdin is None:
            raise Doubt("a process that verifies has no input")
        try:
            self._process.stdin.write(msgspec.json.encode(job) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def verify_parts(
    data_directory: Path,
    shard: int,
    plan: Plan,
    *,
    processes: int,
    events_max: int,
    rows_max: int,
    on_progress: Callable[[int], None],
) -> Proven:
    """Verify all parts, `processes` at a time. Raises `Doubt` if anything does not come out right.

    `events_max` and `rows_max` bound the events, and the accounts and holds, of the whole history. `on_progress` is
    told the events done. Memory: for each of the processes what `verify` needs for a part, and 8 bytes for each event
    of the last one.
    """
    base = Order(
        number=0,
        data_directory=str(data_directory),
        shard=shard,
        begin="",
        end_index=0,
        ids_from=plan.cuts[-1].name,
        salts=plan.salts,
        sum_salts=(secrets.randbits(_SALT_BITS), secrets.randbits(_SALT_BITS)),
        events_max=events_max,
        rows_max=rows_max,
    )
    orders = _orders(base, plan)
    with _memory_file() as descriptor:
        jobs = [Job(order) for order in orders[:-2]]
        jobs += [Job(orders[-2], descriptor), Job(orders[-1], descriptor, is_sum=True)]
        outcomes = _carry_out(jobs, descriptor, processes, on_progress)
    stored = outcomes.pop()
    _check_joints(plan, outcomes)
    made = IdSum()
    for outcome in outcomes[:-1]:
        made += outcome.ids
    if made != stored.ids:
        raise Doubt("the files of ids do not hold what the history makes of ids")
    return Proven(
        events=sum(outcome.events for outcome in outcomes),
        entries=sum(outcome.entries for outcome in outcomes),
        parts=len(outcomes),
        last=outcomes[-1],
    )


def _orders(base: Order, plan: Plan) -> list[Order]:
    """An order for each part, and a last one for the ids that the newest checkpoint has."""
    newest = plan.cuts[-1]
    orders, begin, first = [], "", 0
    for number, cut in enumerate(plan.cuts):
        events = cut.last_sequence - first
        orders.append(replace(base, number=number, begin=begin, end_index=cut.index, events_max=events))
        begin, first = cut.name, cut.last_sequence
    tail = replace(base, number=len(orders), begin=begin, events_max=max(base.events_max - first, 0))
    ids = replace(base, number=len(orders) + 1, events_max=newest.last_sequence // _IDS_SUMMED_PER_EVENT)
    return [*orders, tail, ids]


def _carry_out(jobs: list[Job], descriptor: int, processes: int, on_progress: Callable[[int], None]) -> list[Outcome]:
    """Have all jobs done, and return what came of them in their order: first the last part, whose ids the sum needs,
    then the longest."""
    *parts, last, ids = jobs
    waiting = [*sorted([*parts, ids], key=lambda job: job.order.events_max), last]
    idle: list[_Worker] = []
    heard: queue.SimpleQueue[tuple[int, Answer | None]] = queue.SimpleQueue()
    done: dict[int, Outcome] = {}
    events: dict[int, int] = {}
    with ExitStack() as stack:
        workers: list[_Worker] = []
        for number in range(min(processes, len(jobs))):
            worker = _Worker(number, descriptor, heard)
            stack.callback(worker.end)
            workers.append(worker)
        idle += reversed(workers)
        while len(done) < len(jobs):
            while idle and (job := _take_next(waiting, has_last=last.order.number in done)) is not None:
                idle.pop().send(job)
            number, answer = heard.get()
            if answer is None:
                raise Doubt("a process that verifies has ended")
            events[answer.number] = answer.events
            on_progress(sum(events.values()))
            if answer.outcome is not None:
                if answer.outcome.doubt:
                    raise Doubt(answer.outcome.doubt)
                done[answer.number] = answer.outcome
                idle.append(workers[number])
    return [done[job.order.number] for job in jobs]


def _take_next(waiting: list[Job], *, has_last: bool) -> Job | None:
    """The last of those that wait, but for a sum while the ids of the last part are not known."""
    for place in reversed(range(len(waiting))):
        if has_last or not waiting[place].is_sum:
            return waiting.pop(place)
    return None


def _check_joints(plan: Plan, outcomes: list[Outcome]) -> None:
    """Raise `Doubt` unless each part ends where the next one begins, in the state that the checkpoint there has."""
    for cut, before, after in zip(plan.cuts, outcomes[:-1], outcomes[1:], strict=True):
        if before.end != cut.place:
            raise Doubt(f"{cut.name} is not what the history leads to at entry {cut.index}")
        if after.begin != cut.place:
            raise Doubt(f"{cut.name} has another state than it says")


@contextmanager
def _memory_file() -> Iterator[int]:
    """A file that lives in memory, for as long as somebody has it open."""
    descriptor = os.memfd_create("bezant-ids")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
