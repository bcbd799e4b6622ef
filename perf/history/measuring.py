"""Times what is done with a history: verified, taken in by a reader, asked.

Each begins with a disk that has written what was made before, as that of a node has that made it in days, not minutes:
or it would be measured beside the writing of gigabytes.
"""

import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np

from bezant.engine.compiled import kernel_digest
from bezant.engine.following import Follower, open_follower
from bezant.engine.log.entry import Entry
from bezant.engine.projections.warm import warm_projections
from bezant.engine.proofs.hashing import warm_hashing
from bezant.engine.replica import shard_directory
from bezant.engine.verify import verify
from bezant.net.reader.history import HistoryProjection
from bezant.net.reader.projecting import Intake
from bezant.net.reader.proving import ProofProjection
from bezant.perf.history.asking import Asking, time_receipts
from bezant.perf.history.making import HOT_ACCOUNTS, make_checkpoints, make_history
from bezant.perf.history.report import CatchUp, HistoryReport, Verify
from bezant.perf.load.books import LoadAccounts
from bezant.protocol.errors import LedgerError, StorageError

READER_FOLDER: Final = "reader"
RECEIPTS: Final = 1000

OnProgress = Callable[[int], None]
Show = Callable[[str, int], AbstractContextManager[OnProgress]]
"""Shows how far something is, by its name and how many of what it does there are."""


def measure_history(
    folder: Path, events: int, accounts: LoadAccounts, *, questions: int, seed: int, show: Show
) -> HistoryReport:
    """Make a history in a data folder that is not there yet, and measure all of it; `questions` of each sort.

    Raises `StorageError`.
    """
    started_s = time.perf_counter()
    with show("making history", events) as on_progress:
        make_history(folder, events, accounts, seed, on_progress)
    make_s = time.perf_counter() - started_s
    with show("checkpoints", events) as on_progress:
        make_checkpoints(folder, events, accounts, on_progress)
    os.sync()
    with show("verifying", events) as on_progress:
        verified = _verify(folder, on_progress)
    # They have served, and the disk may be small.
    shutil.rmtree(shard_directory(folder, 0).path / "checkpoints")
    warm_projections()
    warm_hashing()
    os.sync()
    with _Reader(folder) as reader, show("taking it in", events) as on_progress:
        catch_up = reader.catch_up(on_progress)
    os.sync()
    started_s = time.perf_counter()
    with _Reader(folder) as reader:
        reopen_s = time.perf_counter() - started_s
        reader.catch_up(lambda _: None)
        random = np.random.default_rng(seed)
        asking = Asking(reader.history.questions, accounts, random)
        hot, cold = range(min(HOT_ACCOUNTS, accounts.count)), range(min(HOT_ACCOUNTS, accounts.count), accounts.count)
        groups = {"hot": hot, "cold": cold or hot}
        as_of = {name: asking.time_as_of(group, questions) for name, group in groups.items()}
        statement = {name: asking.time_statement(group, questions) for name, group in groups.items()}
        by_id = asking.time_by_id(questions)
        receipts = time_receipts(reader.proofs.issuer, reader.follower.public_id, RECEIPTS, random)
        files = [path for path in reader.folder.rglob("*") if path.is_file()]
        return HistoryReport(
            events=reader.follower.last_sequence,
            accounts=accounts.count,
            make_events_per_s=int(events / make_s),
            verify=verified,
            catch_up=catch_up,
            reader_bytes=sum(path.stat().st_size for path in files),
            index_files=sum(path.name.startswith(("index-", "ids-")) for path in files),
            reopen_s=round(reopen_s, 3),
            balance_as_of_us=as_of,
            statement_100_us=statement,
            transfer_by_id_us=by_id,
            receipts=receipts,
            kernel_digest=kernel_digest(),
        )


def _verify(folder: Path, on_progress: OnProgress) -> Verify:
    before_s = _processor_s()
    report = verify(folder, lambda done, _: on_progress(done))
    return Verify(
        events_per_s=int(report.events / report.seconds),
        parts=report.parts,
        processes=report.processes,
        processor_ns_per_event=round((_processor_s() - before_s) / report.events * 1e9, 1),
        doubt=report.doubt,
    )


def _processor_s() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class _Timed:
    """Something that takes entries in, and the processor time of its threads for that."""

    def __init__(self, take_in: Callable[[Sequence[Entry]], None]) -> None:
        self._take_in = take_in
        self.processor_s = 0.0

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Hand them on."""
        before_s = time.thread_time()
        self._take_in(entries)
        self.processor_s += time.thread_time() - before_s


class _Reader:
    """What a reader keeps of a history, and how it takes it in; without subscribers."""

    def __init__(self, data_directory: Path) -> None:
        directory = shard_directory(data_directory, 0)
        follower = open_follower(directory)
        if follower is None:
            raise StorageError(f"{directory.path}: there is no log")
        self.follower: Follower = follower
        self.folder = directory.path / READER_FOLDER
        self.history = HistoryProjection(self.folder, 0, follower.log_id)
        self.proofs = ProofProjection(self.folder, 0, follower.log_id)
        starts = [self.history.start(), self.proofs.start()]
        self._indexes = [0 if start is None else start.index for start in starts]
        follower.begin(min(starts, key=lambda start: 0 if start is None else start.index))
        for projection in (self.history, self.proofs):
            projection.begin(follower)

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.history.close()
        self.proofs.close()
        self.follower.close()

    def catch_up(self, on_progress: OnProgress) -> CatchUp:
        """Take in all that there is, and wait for the files."""
        follower, history, proofs = self.follower, _Timed(self.history.take_in), _Timed(self.proofs.take_in)
        started_s, started_processor_s = time.perf_counter(), time.process_time()
        intake, log_s = Intake((history, proofs), self._indexes), 0.0
        while True:
            before_s, before = time.thread_time(), follower.last_sequence
            entries = follower.take()
            log_s += time.thread_time() - before_s
            if not entries:
                break
            intake.take_in(entries, follower.last_sequence - before)
            on_progress(follower.last_sequence)
        intake.close()
        caught_up_s = time.perf_counter() - started_s
        self.history.rest()
        self.proofs.rest()
        self.history.settle()
        settled_s, processor_s = time.perf_counter() - started_s, time.process_time() - started_processor_s
        events = follower.last_sequence
        if self.proofs.issuer.size != events or self.history.questions.view().sequence != events:
            raise LedgerError(f"a reader is not at event {events}, where the log ends")

        def share_ns(seconds: float) -> float:
            return round(seconds / events * 1e9, 1)

        return CatchUp(
            events_per_s=int(events / caught_up_s),
            settled_events_per_s=int(events / settled_s),
            log_ns_per_event=share_ns(log_s),
            projections_ns_per_event=share_ns(history.processor_s),
            tree_ns_per_event=share_ns(proofs.processor_s),
            files_ns_per_event=share_ns(max(processor_s - log_s - history.processor_s - proofs.processor_s, 0.0)),
        )
