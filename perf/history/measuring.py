"""Times what the reader's projections do with a history: taking it in, and answering."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bezant.engine.compiled import kernel_digest
from bezant.engine.following import Follower, open_follower
from bezant.engine.log.storage import Directory
from bezant.engine.projections.answers import Range
from bezant.engine.projections.projections import Projections, open_projections
from bezant.engine.projections.queries import AsOf, Questions
from bezant.engine.projections.warm import warm_projections
from bezant.engine.replica import shard_directory
from bezant.perf.history.making import HOT_ACCOUNTS
from bezant.perf.load.books import LoadAccounts
from bezant.perf.load.latency import new_histogram, percentiles_us, record_latency
from bezant.protocol.errors import LedgerError, StorageError

STATEMENT_LINES: Final = 100
AS_OF_MS_MAX: Final = 10.0
STATEMENT_MS_MAX: Final = 2.0
CATCH_UP_MIN: Final = 1_000_000
_FOLDER: Final = "projections"

Latencies = dict[str, float | None]


class HistoryReport(msgspec.Struct, frozen=True):
    """Figures. Latencies are in microseconds, by percentile; `ok` says whether every target is met.

    ``catch_up`` are events a second until the last one can be asked for, ``settled`` until every file is merged, too;
    the processor time is of all threads until then. ``index_bytes`` are what the projections take on the disk.
    """

    ok: bool
    events: int
    accounts: int
    catch_up_events_per_s: int
    settled_events_per_s: int
    processor_ns_per_event: float
    reopen_s: float
    index_bytes: int
    index_files: int
    as_of_hot_us: Latencies
    as_of_cold_us: Latencies
    statement_hot_us: Latencies
    statement_cold_us: Latencies
    transfer_by_id_us: Latencies
    targets: dict[str, float]
    kernel_digest: str


def measure_history(
    folder: Path, accounts: LoadAccounts, questions: int, seed: int, on_progress: Callable[[int], None]
) -> HistoryReport:
    """Take the history of a data folder in, from its beginning, and ask so many questions of each sort."""
    warm_projections()
    directory = shard_directory(folder, 0)
    follower = open_follower(directory)
    if follower is None:
        raise StorageError(f"{directory.path}: there is no log")
    place = Directory(folder / _FOLDER)
    projections = open_projections(place, log_id=follower.public_id)
    started_s, started_processor_s = time.perf_counter(), time.process_time()
    try:
        _catch_up(follower, projections, on_progress)
        caught_up_s = time.perf_counter() - started_s
        projections.settle()
        settled_s, processor_s = time.perf_counter() - started_s, time.process_time() - started_processor_s
    finally:
        projections.close()
    started_s = time.perf_counter()
    projections = open_projections(place, log_id=follower.public_id)
    reopen_s = time.perf_counter() - started_s
    follower.close()
    follower = open_follower(directory)
    if follower is None:
        raise StorageError(f"{directory.path}: the log has gone")
    try:
        follower.begin()
        _catch_up(follower, projections, lambda _: None)
        asking = _Asking(Questions(projections, follower.read_events), accounts, np.random.default_rng(seed))
        hot, cold = range(min(HOT_ACCOUNTS, accounts.count)), range(min(HOT_ACCOUNTS, accounts.count), accounts.count)
        cold = cold or hot
        figures = {
            "as_of_hot_us": asking.time_as_of(hot, questions),
            "as_of_cold_us": asking.time_as_of(cold, questions),
            "statement_hot_us": asking.time_statement(hot, questions),
            "statement_cold_us": asking.time_statement(cold, questions),
            "transfer_by_id_us": asking.time_by_id(questions),
        }
        events = projections.sequence
        files = [path for path in place.path.rglob("*") if path.is_file()]
        catch_up = int(events / caught_up_s)
        return HistoryReport(
            ok=_is_met(figures, catch_up),
            events=events,
            accounts=accounts.count,
            catch_up_events_per_s=catch_up,
            settled_events_per_s=int(events / settled_s),
            processor_ns_per_event=round(processor_s / events * 1e9, 1),
            reopen_s=round(reopen_s, 3),
            index_bytes=sum(path.stat().st_size for path in files),
            index_files=sum(path.name.startswith(("index-", "ids-")) for path in files),
            **figures,
            targets={
                "as_of_p99_ms": AS_OF_MS_MAX,
                "statement_p99_ms": STATEMENT_MS_MAX,
                "catch_up_events_per_s": CATCH_UP_MIN,
            },
            kernel_digest=kernel_digest(),
        )
    finally:
        projections.close()
        follower.close()


def _is_met(figures: dict[str, Latencies], catch_up: int) -> bool:
    limits_ms = {"as_of": AS_OF_MS_MAX, "statement": STATEMENT_MS_MAX}
    met = [
        (found["p99"] or 0) <= limits_ms[kind] * 1000
        for name, found in figures.items()
        for kind in limits_ms
        if name.startswith(kind)
    ]
    return all(met) and catch_up >= CATCH_UP_MIN


def _catch_up(follower: Follower, projections: Projections, on_progress: Callable[[int], None]) -> None:
    if not follower.applied_index:
        follower.begin()
    while entries := follower.take():
        for entry in entries:
            projections.apply(entry)
        on_progress(projections.sequence)
    if projections.sequence != follower.last_sequence:
        raise LedgerError(f"projections are at {projections.sequence}, and the log at {follower.last_sequence}")


class _Asking:
    """Asks, and times each question by itself."""

    def __init__(self, questions: Questions, accounts: LoadAccounts, random: np.random.Generator) -> None:
        self._questions = questions
        self._accounts = accounts
        self._random = random
        self._first_ns = questions.moment(questions.view(), AsOf(position=1)).timestamp_ns
        self._last_ns = questions.view().timestamp_ns

    def time_as_of(self, accounts: range, count: int) -> Latencies:
        """One account as of a past time, each chosen with equal chance; held included."""

        def ask() -> None:
            view = self._questions.view()
            moment = self._questions.moment(
                view, AsOf(time_ns=int(self._random.integers(self._first_ns, self._last_ns)))
            )
            self._questions.accounts(view, np.array([self._account(accounts)], np.int64), moment)

        return _time(ask, count)

    def time_statement(self, accounts: range, count: int) -> Latencies:
        """The last lines of a statement."""

        def ask() -> None:
            view = self._questions.view()
            moment = self._questions.moment(view, AsOf())
            wanted = Range(limit=STATEMENT_LINES, reverse=True)
            self._questions.statement(view, self._account(accounts), moment, wanted)

        return _time(ask, count)

    def time_by_id(self, count: int) -> Latencies:
        """A transfer by its id."""
        view = self._questions.view()
        chosen = np.unique(self._random.integers(1, view.sequence + 1, count))
        events = self._questions.reader.read(view, chosen)
        ids = iter(zip(events["id_head"].tolist(), events["id_tail"].tolist(), strict=True))

        def ask() -> None:
            moment = self._questions.moment(view, AsOf())
            if not len(self._questions.transfer(view, next(ids), moment, Range()).sequences):
                raise LedgerError("an id that was used is not found")

        return _time(ask, len(chosen))

    def _account(self, accounts: range) -> tuple[int, int]:
        number = accounts[int(self._random.integers(len(accounts)))]
        return int(self._accounts.heads[number]), int(self._accounts.tails[number])


def _time(ask: Callable[[], None], count: int) -> Latencies:
    histogram, longest_ns = new_histogram(), 0
    for _ in range(count):
        started_ns = time.perf_counter_ns()
        ask()
        taken_ns = time.perf_counter_ns() - started_ns
        record_latency(histogram, taken_ns, 1)
        longest_ns = max(longest_ns, taken_ns)
    return percentiles_us(histogram, longest_ns)
