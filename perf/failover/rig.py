"""The trials: hit a node under load, heal it, wait until all are level, again; then hold the logs to the answers.

A trial begins when all nodes are level and nothing has happened for a moment. What it measures is the longest time
between two answers from the fault until all nodes are level again: with the coming back of the node, if that disturbs
anybody. Whatever a client was told, and whatever is in the logs, is checked once at the end, over all trials.
"""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

import bezant
from bezant.cli.node_process import ProcessFailed
from bezant.engine.verify import verify
from bezant.perf.crash.faults import FaultKind, Faults
from bezant.perf.failover.book import Book
from bezant.perf.failover.check import Checked, check
from bezant.perf.failover.group import Target
from bezant.perf.failover.history import read_history
from bezant.perf.failover.load import OpenLoad
from bezant.perf.failover.outage import (
    availability,
    first_answer_ms,
    longest_gap_ms,
    percentiles,
    success_times_ns,
)
from bezant.perf.failover.settings import FailoverSettings, FaultName, check_settings
from bezant.perf.load.books import CURRENCY
from bezant.protocol.errors import BezantError

OPENING_TIMEOUT_S: Final = 60.0
OPENINGS_AT_ONCE: Final = 500
RANDOM_FAULTS: Final[tuple[FaultName, ...]] = ("kill", "stop", "blackhole", "disk", "restart")
LEADER_SHARE: Final = 0.6
"""Of random faults: those that hit the leader."""
TWO_SHARE: Final = 0.2
"""Of random faults: those that hit a second node at once, so that there is no majority until they are over."""
ALL_KILLED_SHARE: Final = 0.1
"""Of random faults: those that kill all nodes at once."""
ARRIVE_S: Final = 0.05
"""What is answered so soon after a trial belongs to it."""


class Hit(NamedTuple):
    """A fault at a node."""

    fault: FaultName
    node: int


class Trial(msgspec.Struct, kw_only=True):
    """One fault, or several at once. Times in ms after the first began; what was not seen is None.

    ``outage_ms``: the longest time between two answers; ``first_answer_ms``: until something was answered that was
    asked after the fault; ``healed_ms`` and ``level_ms``: until the node was let go on, and all nodes were level;
    ``quiet_gap_ms``: the longest time between two answers in the moment before, when nothing was the matter.
    """

    number: int
    fault: str
    nodes: list[int]
    was_leader: bool
    begin_ns: int = 0
    end_ns: int = 0
    outage_ms: float = 0.0
    first_answer_ms: float | None = None
    healed_ms: float = 0.0
    level_ms: float = 0.0
    quiet_gap_ms: float = 0.0


class FailoverReport(msgspec.Struct, kw_only=True):
    """One run. ``acknowledged``: transfers that a client was told the outcome of; of these ``lost`` are not there,
    ``repeated`` are there twice, ``changed`` are there otherwise. ``errors``: what clients were told instead of an
    outcome within the deadline, by name. ``not_made``: requests that were due when too many were unanswered already;
    ``load_late_ms``: by how much the load, which shares the machine with the nodes, was late at most.
    """

    fault: FaultName
    trials: int
    acknowledged: int = 0
    lost: int = 0
    repeated: int = 0
    changed: int = 0
    reordered: int = 0
    unexplained: int = 0
    refused: int = 0
    errors: dict[str, int] = {}
    outage_ms: dict[str, float | None] = {}
    first_answer_ms: dict[str, float | None] = {}
    quiet_gap_ms: dict[str, float | None] = {}
    outage_total_ms: float = 0.0
    availability: dict[str, Any] = {}
    requests: int = 0
    not_made: int = 0
    load_late_ms: float = 0.0
    unknown_found: int = 0
    unknown_absent: int = 0
    events: int = 0
    entries: int = 0
    state_digest: str = ""
    replicas_level: bool = False
    replicas: int = 3
    rate: int = 0
    deadline_s: float = 0.0
    seed: int = 0
    seconds: float = 0.0
    faults: list[str] = []
    folder: str = ""
    """Where the data is, if there is a fault to look for in it."""
    trial_reports: list[Trial] = []

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return not self.faults


class FailoverRig:
    """See the module; `run` is the whole of it."""

    def __init__(
        self,
        settings: FailoverSettings,
        folder: Path,
        on_progress: Callable[[int], None] = lambda _done: None,
        before_check: Callable[[Book, dict[int, Path]], None] = lambda _book, _folders: None,
    ) -> None:
        """`before_check` gets the book and the folders, by node id, of the nodes when they have stopped."""
        check_settings(settings)
        self._settings = settings
        self._folder = folder
        self._on_progress = on_progress
        self._before_check = before_check
        self._random = random.Random(settings.seed)
        self._book = Book(settings.accounts, settings.seed)
        self._faults = Faults()
        self._trials: list[Trial] = []

    async def run(self) -> FailoverReport:
        """Run all trials and check. Raises `ProcessFailed` if the nodes do not do what they must for that."""
        settings, started_s = self._settings, time.monotonic()
        target = Target(self._folder, settings.replicas, settings.fault)
        try:
            await target.start()
            load = await self._run_loaded(target)
            await target.await_level(0)
            await target.stop()
        except ProcessFailed as error:
            raise ProcessFailed(f"after {len(self._trials)} trials with seed {settings.seed}: {error}") from error
        finally:
            target.end()
        report = self._report(target, load)
        report.seconds = round(time.monotonic() - started_s, 1)
        return report

    async def _run_loaded(self, target: Target) -> OpenLoad:
        """The load, and the trials beside it; either's failure ends the other."""
        settings = self._settings
        opened = [
            await bezant.connect(",".join(target.addresses.values()), timeout_s=OPENING_TIMEOUT_S)
            for _ in range(settings.clients)
        ]
        try:
            await self._open_accounts(opened[0])
            load = OpenLoad(opened, self._book, settings.rate, settings.deadline_s)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run())
                trials = tasks.create_task(self._run_trials(target))
                trials.add_done_callback(lambda _done: load.stop())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            for wallet in opened:
                await wallet.close()
        return load

    async def _open_accounts(self, wallet: bezant.Wallet) -> None:
        names = self._book.names
        for start in range(0, len(names), OPENINGS_AT_ONCE):
            chosen = names[start : start + OPENINGS_AT_ONCE]
            results = await asyncio.gather(
                *(wallet.open_account(name, CURRENCY, limit=bezant.UNLIMITED) for name in chosen)
            )
            if not all(result.committed for result in results):
                raise ProcessFailed("the accounts of the load cannot be opened")

    # ---- the trials ----

    async def _run_trials(self, target: Target) -> None:
        settings = self._settings
        started_s = time.monotonic()
        for number in range(1, settings.trial_count + 1):
            status = await target.await_level()
            await asyncio.sleep(settings.settle_s)
            if settings.minutes is not None:
                due_s = started_s + (settings.every_s or 60.0) * number
                await asyncio.sleep(max(0.0, due_s - settings.fault_s - time.monotonic()))
            status = await target.leader_status() or status
            for hits in self._choose(target, status.leader):
                await self._run_trial(target, number, hits, status.leader)
            self._on_progress(1)
        await target.await_level()
        await asyncio.sleep(settings.settle_s)

    def _choose(self, target: Target, leader: int) -> list[list[Hit]]:
        """What is done in a trial: lists of hits, one after the other; a rolling restart has one for each node."""
        fault, chance = self._settings.fault, self._random
        if fault == "restart":
            return [[Hit(fault, node)] for node in target.nodes]
        if fault != "random":
            return [[Hit(fault, leader)]]
        if chance.random() < ALL_KILLED_SHARE:
            return [[Hit("kill", node) for node in target.nodes]]
        others = [node for node in target.nodes if node != leader]
        chosen = [leader if chance.random() < LEADER_SHARE else chance.choice(others)]
        if chance.random() < TWO_SHARE:
            chosen.append(chance.choice([node for node in target.nodes if node not in chosen]))
        return [[Hit(chance.choice(RANDOM_FAULTS), node) for node in chosen]]

    async def _run_trial(self, target: Target, number: int, hits: list[Hit], leader: int) -> None:
        trial = Trial(
            number=number,
            fault="+".join(hit.fault for hit in hits),
            nodes=[hit.node for hit in hits],
            was_leader=any(hit.node == leader for hit in hits),
            begin_ns=time.monotonic_ns(),
        )
        self._trials.append(trial)
        for hit in hits:
            await target.inflict(hit.fault, hit.node)
        if trial.fault != "restart":
            await asyncio.sleep(self._settings.fault_s * (self._random.random() if self._is_random else 1))
        await asyncio.gather(*(target.heal(hit.fault, hit.node) for hit in hits))
        trial.healed_ms = _since_ms(trial.begin_ns)
        await target.await_level()
        trial.level_ms = _since_ms(trial.begin_ns)
        await asyncio.sleep(ARRIVE_S)
        trial.end_ns = time.monotonic_ns()

    @property
    def _is_random(self) -> bool:
        return self._settings.fault == "random"

    # ---- what came of it ----

    def _report(self, target: Target, load: OpenLoad) -> FailoverReport:
        settings, book = self._settings, self._book
        folders = {node: target.data(node) for node in target.nodes}
        self._before_check(book, folders)
        history = read_history(folders, self._faults)
        checked = check(book, history, self._faults)
        digest = self._compare_states(folders)
        self._measure_trials()
        trials = self._trials
        report = FailoverReport(
            fault=settings.fault,
            trials=settings.trial_count,
            errors=dict(load.errors),
            first_answer_ms=percentiles([t.first_answer_ms for t in trials if t.first_answer_ms is not None]),
            quiet_gap_ms=percentiles([trial.quiet_gap_ms for trial in trials]),
            outage_ms=percentiles(self._outages_ms()),
            outage_total_ms=round(sum(trial.outage_ms for trial in trials), 1),
            availability=availability(book.answers, [(trial.begin_ns, trial.end_ns) for trial in trials]),
            requests=len(book),
            not_made=load.not_made,
            load_late_ms=round(load.late_ms_max, 1),
            entries=history.entries,
            state_digest=digest,
            replicas_level=bool(digest) and len(set(history.ends.values())) == 1,
            replicas=settings.replicas,
            rate=settings.rate,
            deadline_s=settings.deadline_s,
            seed=settings.seed,
            trial_reports=trials,
        )
        self._note_checked(report, checked)
        return report

    def _note_checked(self, report: FailoverReport, checked: Checked) -> None:
        for name in ("acknowledged", "unknown_found", "unknown_absent", "events"):
            setattr(report, name, getattr(checked, name))
        counts = self._faults.counts
        report.lost = counts[FaultKind.MISSING]
        report.repeated = counts[FaultKind.REPEATED]
        report.changed = counts[FaultKind.CHANGED]
        report.reordered = counts[FaultKind.REORDERED]
        report.unexplained = counts[FaultKind.UNEXPLAINED]
        report.refused = counts[FaultKind.REFUSED]
        report.faults = [f"{fault.kind}: {fault.text}" for fault in self._faults.told]
        if report.faults:
            report.folder = str(self._folder)

    def _compare_states(self, folders: dict[int, Path]) -> str:
        """Execute every history again; returns the digest of the state that all come to, "" if they do not."""
        reports = {}
        for node, folder in folders.items():
            try:
                reports[node] = verify(folder)
            except BezantError as error:
                self._faults.add(FaultKind.REFUSED, f"{folder} does not verify: {error}")
        for name in ("entries", "chain_hash", "state_digest", "log_id"):
            if len({getattr(found, name) for found in reports.values()}) > 1:
                told = {node: getattr(found, name) for node, found in reports.items()}
                self._faults.add(FaultKind.CHANGED, f"the nodes stopped level, and {name} differs: {told}")
                return ""
        return next(iter(reports.values())).state_digest if len(reports) == len(folders) else ""

    def _measure_trials(self) -> None:
        answers = self._book.answers
        times_ns = success_times_ns(answers)
        quiet_ns = int(self._settings.settle_s * 1e9)
        for trial in self._trials:
            trial.outage_ms = round(longest_gap_ms(times_ns, trial.begin_ns, trial.end_ns), 1)
            first_ms = first_answer_ms(answers, trial.begin_ns)
            trial.first_answer_ms = None if first_ms is None else round(first_ms, 1)
            trial.quiet_gap_ms = round(longest_gap_ms(times_ns, trial.begin_ns - quiet_ns, trial.begin_ns), 1)

    def _outages_ms(self) -> list[float]:
        """Of each trial; a rolling restart's are added up."""
        sums: dict[int, float] = {}
        for trial in self._trials:
            sums[trial.number] = sums.get(trial.number, 0.0) + trial.outage_ms
        return list(sums.values())


def _since_ms(begin_ns: int) -> float:
    return round((time.monotonic_ns() - begin_ns) / 1e6, 1)
