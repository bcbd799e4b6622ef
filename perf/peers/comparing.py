"""One comparison from start to end: each peer by itself, with its servers, its loads, its kills and its books.

Only one peer runs at a time, so that all have the same machine. The sum of all balances is read after every load, and
so is the number of transfers, which must be that of the acknowledged ones.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bezant.cli.node_process import ProcessFailed
from bezant.engine.log.file_system import file_system_type, is_memory
from bezant.perf.load.processes import ChildProcess
from bezant.perf.peers.own import measure_bezant, own_loads
from bezant.perf.peers.plan import (
    ComparisonSettings,
    CrashPoint,
    PeerFailure,
    PeerKind,
    PeerLine,
    PeerOutcome,
    PeerPlan,
    PeerProgress,
)
from bezant.perf.peers.programs import PeerUnavailable, Say
from bezant.perf.peers.report import Comparison, Kill, Measured, PeerReport
from bezant.perf.peers.servers import Site
from bezant.perf.peers.wallets import ACCOUNTS_MIN, PeerWallet, TwoPhaseWallet, make_wallet
from bezant.protocol.errors import UsageError

PEERS: Final[tuple[PeerKind, ...]] = ("bezant", "postgres", "postgres-2pc", "redis", "redis-sharded")
SECONDS_MAX: Final = 60.0
CLIENTS_MAX: Final = 200
PIPELINE_MAX: Final = 1000
ACCOUNTS_MAX: Final = 1_000_000
FOLDER_PREFIX: Final = "bezant-compare-"
_LINE_TIMEOUT_S: Final = 60.0
"""Between two lines of the load, which reports ten times a second once it is connected."""
_LOAD_STOP_TIMEOUT_S: Final = 10.0
_CRASH_AFTER: Final = 200
"""Transfers that are made before the coordinator is killed."""
_KILLED_TIMEOUT_S: Final = 60.0
"""How long a load may go on that is to end by a kill, its own or its server's."""
_CRASHES: Final[tuple[CrashPoint, ...]] = ("prepared", "decided")
_PIPELINING: Final[frozenset[PeerKind]] = frozenset({"bezant", "redis", "redis-sharded"})
"""Peers of which a client usually has several transfers in flight on one connection."""
_NUMBERS_A_LOAD: Final = 1 << 40

_LOAD_COMMAND: Final = (sys.executable, "-m", "bezant.perf.peers.load")


def check_settings(settings: ComparisonSettings) -> None:
    """Raise `UsageError` for what cannot be measured."""
    limits = {
        "seconds": (0.1, SECONDS_MAX),
        "clients": (1, CLIENTS_MAX),
        "pipeline": (1, PIPELINE_MAX),
        "accounts": (ACCOUNTS_MIN, ACCOUNTS_MAX),
        "cross": (0, 1),
    }
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise UsageError(f"--{name} is {least} to {most}, not {value}")
    if settings.directory is not None and not settings.directory.is_dir():
        raise UsageError(f"--directory {settings.directory} is not a folder")


def compare(settings: ComparisonSettings, say: Say, on_progress: Callable[[int, int], None]) -> Comparison:
    """Measure every peer in turn. A peer that cannot be had is reported as such, and `say` is told, as of downloads;
    `on_progress` gets the loads that are done and how many there are.

    Raises `UsageError`, and `ProcessFailed` if a server or a load fails.
    """
    check_settings(settings)
    run = _Run(settings, say, on_progress)
    reports: list[PeerReport] = []
    file_system = None
    for kind in settings.peers:
        with _folder(settings.directory) as folder:
            file_system = file_system_type(folder)
            report = run.compare(kind, folder)
            reports.append(msgspec.structs.replace(report, durable=report.durable and not is_memory(file_system)))
    return Comparison(
        peers=reports,
        accounts=settings.accounts,
        seconds=settings.seconds,
        cores=os.cpu_count(),
        file_system=file_system,
        faults=run.faults,
    )


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=directory))
    except OSError as error:
        raise UsageError(f"no folder for the servers' data: {error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class _Run:
    """The peers, one after the other; `faults` is what contradicted a promise."""

    def __init__(self, settings: ComparisonSettings, say: Say, on_progress: Callable[[int, int], None]) -> None:
        self.faults: list[str] = []
        self._settings = settings
        self._say = say
        self._on_progress = on_progress
        self._done = 0
        self._total = sum(map(self._step_count, settings.peers))

    def compare(self, kind: PeerKind, folder: Path) -> PeerReport:
        """Everything about one peer, whose data go to the folder."""
        settings = self._settings
        try:
            wallet = make_wallet(kind, settings.accounts, Site(folder), settings.clients, self._say)
        except PeerUnavailable as error:
            self._say(f"{kind} is left out: {error}")
            self._total -= self._step_count(kind)
            return PeerReport(peer=kind, title=kind, unavailable=str(error))
        measured = []
        if kind == "bezant":
            for load in own_loads(settings):
                measured.append(measure_bezant(load, settings, folder))
                self._step()
        with wallet:
            peer = _Peer(wallet, settings)
            if kind != "bezant":
                for clients, pipeline in _loads(settings, kind):
                    measured.append(peer.measure(clients, pipeline))
                    self._step()
            kills = self._kill(peer, wallet)
            durable = wallet.is_durable()
        self.faults += peer.faults
        return PeerReport(
            peer=kind,
            title=wallet.title,
            version=wallet.version,
            settings=wallet.settings,
            durable=durable,
            atomic_across_shards=wallet.atomic_across,
            cross=None if wallet.atomic_across is None else settings.cross,
            measured=measured,
            kills=kills,
        )

    def _kill(self, peer: "_Peer", wallet: PeerWallet) -> list[Kill]:
        kills = [peer.kill_server()]
        self._step()
        if isinstance(wallet, TwoPhaseWallet):
            for crash_at in _CRASHES:
                kills.append(peer.kill_coordinator(wallet, crash_at))
                self._step()
        return kills

    def _step_count(self, kind: PeerKind) -> int:
        loads = own_loads(self._settings) if kind == "bezant" else _loads(self._settings, kind)
        return len(loads) + (1 + len(_CRASHES) if kind == "postgres-2pc" else 1)

    def _step(self) -> None:
        self._done += 1
        self._on_progress(self._done, self._total)


def _loads(settings: ComparisonSettings, kind: PeerKind) -> list[tuple[int, int]]:
    """(clients, pipeline) of each load on a peer that is not Bezant."""
    loads = [(1, 1), (settings.clients, 1)]
    if kind in _PIPELINING:
        loads.append((settings.clients, settings.pipeline))
    return sorted(set(loads))


def run_load(plan: PeerPlan, on_line: Callable[[], None]) -> tuple[PeerOutcome | None, int]:
    """Run a load in a process of its own, and call `on_line` ten times a second.

    Returns its outcome, None if it was to be killed and was, and how many transfers it said were acknowledged. Raises
    `ProcessFailed`.
    """
    made = 0
    with ChildProcess("the load process", _LOAD_COMMAND, _LOAD_STOP_TIMEOUT_S) as child:
        child.send(msgspec.json.encode(plan))
        while True:
            try:
                line = msgspec.json.decode(child.read_line(_LINE_TIMEOUT_S), type=PeerLine)
            except ProcessFailed:
                if plan.crash_at and child.ended:
                    return None, made
                raise
            if isinstance(line, PeerProgress):
                made = line.made
                on_line()
            elif isinstance(line, PeerFailure):
                raise ProcessFailed(f"the load on {plan.kind} failed: {line.message}")
            else:
                return line, line.made


class _Peer:
    """A peer under its loads, one after the other; `faults` is what contradicted a promise."""

    def __init__(self, wallet: PeerWallet, settings: ComparisonSettings) -> None:
        self.faults: list[str] = []
        self._wallet = wallet
        self._settings = settings
        self._load_count = 0
        self._stored = 0
        self._balance = wallet.start_balance

    def measure(self, clients: int, pipeline: int) -> Measured:
        """Load it in peace."""
        outcome, _ = run_load(self._plan(clients, pipeline), lambda: None)
        if outcome is None:
            raise ProcessFailed("the load process was killed")
        self._check_peace(outcome)
        return Measured(
            clients=clients,
            pipeline=pipeline,
            seconds=round(outcome.seconds, 3),
            transfers_per_s=round(outcome.made / outcome.seconds, 1),
            made=outcome.made,
            refused=outcome.refused,
            retries=outcome.retries,
            latency_us_p50=outcome.latency_us_p50,
            latency_us_p99=outcome.latency_us_p99,
            load_cpu=round(outcome.cpu_s / outcome.seconds, 2),
        )

    def kill_server(self) -> Kill:
        """Kill the last server in the middle of a load, which goes on until nobody is answered any more."""
        kill_at_s: float | None = None
        killed = False

        def kill_in_time() -> None:
            nonlocal kill_at_s, killed
            if kill_at_s is None:
                kill_at_s = time.monotonic() + self._settings.seconds / 2
            if not killed and time.monotonic() >= kill_at_s:
                self._wallet.kill()
                killed = True

        pipeline = self._settings.pipeline if self._wallet.kind in _PIPELINING else 1
        plan = self._plan(self._settings.clients, pipeline)
        outcome, made = run_load(msgspec.structs.replace(plan, seconds=_KILLED_TIMEOUT_S), kill_in_time)
        if not killed:
            raise ProcessFailed("the load ended before the server was killed")
        self._wallet.restart()
        return self._read_after_kill("a server", made, outcome.unknown if outcome else 0)

    def kill_coordinator(self, wallet: TwoPhaseWallet, crash_at: CrashPoint) -> Kill:
        """Let the coordinator of two-phase commit die at a point, and settle what it left."""
        outcome, made = run_load(self._plan(self._settings.clients, 1, crash_at), lambda: None)
        if outcome is not None:
            raise ProcessFailed("the coordinator was not killed")
        wallet.recover()
        return self._read_after_kill(f"the coordinator, when it had {crash_at},", made, None)

    def _plan(self, clients: int, pipeline: int, crash_at: CrashPoint = "") -> PeerPlan:
        self._load_count += 1
        return self._wallet.plan(
            clients=clients,
            pipeline=pipeline,
            seconds=_KILLED_TIMEOUT_S if crash_at else self._settings.seconds,
            first_number=self._load_count * _NUMBERS_A_LOAD,
            cross=self._settings.cross if not crash_at else 1.0,
            seed=self._settings.seed + self._load_count,
            crash_at=crash_at,
            crash_after=_CRASH_AFTER,
        )

    def _check_peace(self, outcome: PeerOutcome) -> None:
        if outcome.unknown:
            raise ProcessFailed(f"{self._wallet.title} lost {outcome.unknown} transfers' answers, but nobody killed it")
        balance, stored = self._wallet.read_books()
        if balance != self._balance:
            self._fault(f"balances add up to {balance}, not {self._balance}")
        if stored != self._stored + outcome.made:
            self._fault(f"{stored - self._stored} transfers are stored, but {outcome.made} were acknowledged")
        self._stored = stored

    def _read_after_kill(self, killed: str, acknowledged: int, unknown: int | None) -> Kill:
        """What the books say after a kill; money that is gone is a fault unless the peer promises nothing."""
        balance, stored = self._wallet.read_books()
        recovered = self._wallet.recovered if isinstance(self._wallet, TwoPhaseWallet) else (0, 0)
        kill = Kill(
            killed=killed,
            acknowledged=acknowledged,
            unknown=unknown,
            lost_minor_units=self._balance - balance,
            missing=max(0, self._stored + acknowledged - stored),
            prepared_committed=recovered[0],
            prepared_rolled_back=recovered[1],
        )
        self._balance, self._stored = balance, stored
        if kill.missing:
            self._fault(f"{kill.missing} acknowledged transfers are missing after {killed} was killed")
        if kill.lost_minor_units and self._wallet.atomic_across is not False:
            self._fault(f"{kill.lost_minor_units} minor units are lost after {killed} was killed")
        return kill

    def _fault(self, what: str) -> None:
        self.faults.append(f"{self._wallet.title}: {what}")
