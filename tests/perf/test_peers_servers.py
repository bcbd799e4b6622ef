"""Claim: each peer runs on real servers, keeps its books in peace and after kills as it promises, and is gone after."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from bezant.cli.main import main
from bezant.cli.node_process import ProcessFailed
from bezant.cli.session import run_async
from bezant.perf.peers.comparing import compare, run_load
from bezant.perf.peers.load import open_client
from bezant.perf.peers.plan import START_BALANCE, ComparisonSettings, CrashPoint, PeerClient, PeerKind, PeerPlan, Trade
from bezant.perf.peers.programs import PeerUnavailable
from bezant.perf.peers.servers import Site
from bezant.perf.peers.wallets import PeerWallet, TwoPhaseWallet, make_wallet

ACCOUNTS = 40
STOP_TIMEOUT_S = 60
DATABASES: list[PeerKind] = ["postgres", "postgres-2pc", "redis", "redis-sharded"]
ACROSS: list[PeerKind] = ["postgres-2pc", "redis-sharded"]


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user can come to, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="bezant-test-peers-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Such a folder, which the test is to leave empty."""
    with open_to_all() as folder:
        yield folder


def make_or_skip(kind: PeerKind, folder: Path) -> PeerWallet:
    """Make a peer with few accounts; the test is skipped if its programs cannot be had."""
    try:
        return make_wallet(kind, ACCOUNTS, Site(folder), 8, lambda _: None)
    except PeerUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def can_have() -> Callable[[PeerKind], None]:
    """Skip the test if the programs of a peer cannot be had."""

    def check(kind: PeerKind) -> None:
        with open_to_all() as folder:
            make_or_skip(kind, folder)

    return check


def processes_that_name(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(command.decode().replace("\0", " "))
    return found


def servers_in(folder: Path) -> list[str]:
    """Those of them that are Redis. (A process that starts another is two for a moment, by its command line.)"""
    return [command for command in processes_that_name(folder) if "redis-server" in command.split(" ")[0]]


def await_nobody(folder: Path) -> list[str]:
    """The same, but that a server which was killed may take a moment to end."""
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while (found := processes_that_name(folder)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("kind", DATABASES)
def test_a_short_comparison_keeps_its_promises_and_leaves_nothing(
    open_folder: Path, can_have: Callable[[PeerKind], None], kind: PeerKind
) -> None:
    can_have(kind)
    steps: list[tuple[int, int]] = []
    settings = ComparisonSettings(
        peers=[kind], seconds=0.5, clients=4, pipeline=4, accounts=ACCOUNTS, directory=open_folder
    )
    told = compare(settings, lambda _: None, lambda done, total: steps.append((done, total)))
    (report,) = told.peers
    assert report.unavailable is None
    assert told.faults == []
    assert [(one.clients, one.pipeline) for one in report.measured] == (
        [(1, 1), (4, 1), (4, 4)] if kind.startswith("redis") else [(1, 1), (4, 1)]
    )
    assert all(one.made > 0 and one.refused == 0 for one in report.measured)
    assert all((one.latency_us_p99 or 0) >= (one.latency_us_p50 or 0) > 0 for one in report.measured)
    assert report.version
    assert report.atomic_across_shards == {"postgres-2pc": True, "redis-sharded": False}.get(kind)
    assert len(report.kills) == (3 if kind == "postgres-2pc" else 1)
    assert report.missing == 0
    assert report.kills[0].unknown
    assert [kill.unknown for kill in report.kills[1:]] == [None] * (len(report.kills) - 1)
    assert all(kill.prepared_rolled_back + kill.prepared_committed > 0 for kill in report.kills[1:])
    assert steps == [(number + 1, len(steps)) for number in range(len(report.measured) + len(report.kills))]
    assert await_nobody(open_folder) == []
    assert list(open_folder.iterdir()) == []


def test_bezant_itself_is_beside_them(open_folder: Path) -> None:
    settings = ComparisonSettings(
        peers=["bezant"], seconds=0.1, clients=2, pipeline=2, accounts=ACCOUNTS, directory=open_folder
    )
    told = compare(settings, lambda _: None, lambda _done, _total: None)
    (report,) = told.peers
    assert told.faults == []
    assert [one.in_flight for one in report.measured] == ["1", "2 x 2", "4 x 8189"]
    assert report.lost_minor_units == report.missing == 0
    assert await_nobody(open_folder) == []
    assert list(open_folder.iterdir()) == []


def test_the_command_prints_and_draws(
    can_have: Callable[[PeerKind], None], capsys: pytest.CaptureFixture[str], tmp_path: Path, open_folder: Path
) -> None:
    can_have("redis")
    plot = tmp_path / "peers.svg"
    words = ["--seconds", "0.2", "--accounts", "10", "--clients", "1", "--pipeline", "1", "--directory"]
    assert main(["bench", "compare", "--peers", "redis", *words, str(open_folder), "--plot", str(plot), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    (peer,) = fields["peers"]
    assert peer["peer"] == "redis"
    assert peer["durable"] is (fields["file_system"] not in {"tmpfs", "ramfs"})
    assert peer["lost_minor_units"] == 0
    assert "appendfsync always" in peer["settings"]
    assert len(peer["measured"]) == 1
    assert plot.read_text().startswith("<svg")


def test_a_peer_that_cannot_be_had_is_told_and_the_command_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PeerUnavailable("there is no such thing here")

    monkeypatch.setattr("bezant.perf.peers.wallets.have_programs", refuse)
    assert main(["bench", "compare", "--peers", "redis,postgres", "--seconds", "0.2"]) == 1
    told = capsys.readouterr()
    assert told.out.count("not measured: there is no such thing here") == 2
    assert "postgres is left out" in told.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_leaves_nothing(
    open_folder: Path, can_have: Callable[[PeerKind], None], number: signal.Signals
) -> None:
    can_have("redis-sharded")
    words = ("bench", "compare", "--peers", "redis-sharded", "--seconds", "60", "--directory", str(open_folder))
    command = subprocess.Popen([sys.executable, "-m", "bezant", *words], stderr=subprocess.PIPE)
    try:
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while len(servers := servers_in(open_folder)) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert len(servers) == 2
        command.send_signal(number)
        command.communicate(timeout=STOP_TIMEOUT_S)
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 130}[number]
    assert await_nobody(open_folder) == []
    assert list(open_folder.iterdir()) == []


# ---- what a transfer promises ----


@pytest.fixture(scope="module", params=DATABASES)
def running(request: pytest.FixtureRequest) -> Iterator[PeerWallet]:
    """A peer of each kind that runs, for all tests that look only at what they change."""
    with open_to_all() as folder, make_or_skip(request.param, folder) as peer:
        yield peer
    assert peer.process_ids == []


Use = Callable[[PeerClient], Coroutine[None, None, None]]


def with_client(peer: PeerWallet, use: Use) -> None:
    """Use a client of a running peer in this process."""

    async def run() -> None:
        client = await open_client(a_plan(peer))
        try:
            await use(client)
        finally:
            await client.close()

    run_async(run())


def a_plan(peer: PeerWallet, **changes: object) -> PeerPlan:
    """A load of one client, if it is not said otherwise."""
    plan = peer.plan(clients=1, pipeline=1, seconds=1.0, first_number=1 << 80, cross=1.0, seed=1)
    return msgspec.structs.replace(plan, **changes)


def test_an_id_works_once_and_nobody_pays_more_than_there_is(running: PeerWallet) -> None:
    async def use(client: PeerClient) -> None:
        for credit in (1, 2):  # in the other server and in the same, if there are two
            assert await client.transfer(0, [Trade(10 + credit, 0, credit, 5)]) == 1
            assert await client.transfer(0, [Trade(10 + credit, 0, credit, 5)]) == 0
            assert await client.transfer(0, [Trade(20 + credit, 0, credit, START_BALANCE)]) == 0
            assert await client.transfer(0, [Trade(20 + credit, credit, 0, 1)]) == 1

    with_client(running, use)
    assert running.read_books() == (ACCOUNTS * START_BALANCE, 4)
    assert running.is_durable()
    assert len(running.process_ids) == len(running.addresses) == (2 if running.kind in ACROSS else 1)


@pytest.mark.parametrize("running", ACROSS, indirect=True)
def test_a_transfer_whose_second_server_is_gone(running: PeerWallet) -> None:
    """It is rolled back by two-phase commit; of two Redis, one has taken the money that the other never gets."""

    async def use(client: PeerClient) -> None:
        running.kill()
        with pytest.raises(client.losses):
            await client.transfer(0, [Trade(100, 0, 1, 5)])

    balance, made = running.read_books()
    with_client(running, use)
    running.restart()
    lost = running.kind == "redis-sharded"
    assert running.read_books() == (balance - 5 * lost, made + lost)


@pytest.mark.parametrize("running", ["postgres-2pc"], indirect=True)
@pytest.mark.parametrize(("crash_at", "made"), [("prepared", 0), ("decided", 1)])
def test_what_a_dead_coordinator_prepared_is_settled_by_its_decision(
    running: PeerWallet, crash_at: CrashPoint, made: int
) -> None:
    assert isinstance(running, TwoPhaseWallet)
    _, made_before = running.read_books()
    plan = a_plan(running, seconds=60.0, first_number=1000 + made, crash_at=crash_at)
    assert run_load(plan, lambda: None) == (None, 0)
    assert running.read_books() == (ACCOUNTS * START_BALANCE, made_before)
    running.kill()
    running.restart()  # what is prepared outlives its server, too
    assert running.recovered == ((2, 0) if made else (0, 2))
    assert running.read_books() == (ACCOUNTS * START_BALANCE, made_before + made)
    running.recover()
    assert running.recovered == (0, 0)


@pytest.mark.parametrize("running", ["postgres-2pc"], indirect=True)
def test_legs_that_wait_for_each_other_are_tried_again(running: PeerWallet) -> None:
    """Four accounts only, two in each server: nearly every transfer meets another."""
    _, made_before = running.read_books()
    outcome, made = run_load(a_plan(running, clients=8, accounts=4, first_number=1 << 90), lambda: None)
    assert outcome is not None
    assert outcome.unknown == 0
    assert running.read_books() == (ACCOUNTS * START_BALANCE, made_before + made)
    assert outcome.retries > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_a_folder_that_the_servers_may_not_enter_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    inner = closed / "inner"
    inner.mkdir()
    with pytest.raises(ProcessFailed, match="may not enter"):
        Site(inner)
