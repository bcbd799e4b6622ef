"""Claim: the parts of a comparison that need no server do what they say: trades, decisions, the report and the plot."""

import argparse
import asyncio
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bezant.cli.bench_compare import add_parser
from bezant.cli.session import run_async
from bezant.perf.peers import programs, two_phase
from bezant.perf.peers.comparing import PEERS, check_settings
from bezant.perf.peers.own import own_loads
from bezant.perf.peers.plan import AMOUNT_MAX, ComparisonSettings, PeerPlan, make_trades
from bezant.perf.peers.plot import draw
from bezant.perf.peers.programs import PeerUnavailable, Programs, Wanted, cache_folder, have_programs
from bezant.perf.peers.redis_client import Connection
from bezant.perf.peers.report import HEADINGS, Comparison, Kill, Measured, PeerReport
from bezant.protocol.errors import UsageError

FIRST, SECOND = f"{1:032x}", f"{2**100:032x}"


def plan(**changes: object) -> PeerPlan:
    settings = {"kind": "postgres", "addresses": ["a:1", "b:2"], "accounts": 10, "clients": 1, "pipeline": 1}
    return PeerPlan(**settings | {"seconds": 1.0, "first_number": 7} | changes)


@pytest.mark.parametrize("accounts", [4, 5, 1000])
@pytest.mark.parametrize("cross", [0.0, 0.3, 1.0])
def test_the_wanted_share_of_trades_lies_across(accounts: int, cross: float) -> None:
    trades = list(islice(make_trades(plan(accounts=accounts, cross=cross)), 4000))
    assert [trade.number for trade in trades] == list(range(7, 4007))
    assert all(trade.debit != trade.credit for trade in trades)
    assert all(0 <= account < accounts for trade in trades for account in (trade.debit, trade.credit))
    assert all(1 <= trade.amount <= AMOUNT_MAX for trade in trades)
    across = sum(trade.debit % 2 != trade.credit % 2 for trade in trades) / 4000
    assert across == cross if cross in {0.0, 1.0} else abs(across - cross) < 0.05
    assert {trade.credit for trade in trades} == set(range(accounts)) if accounts < 10 else True


def test_with_one_server_trades_are_as_they_come() -> None:
    trades = list(islice(make_trades(plan(addresses=["a:1"], accounts=4)), 4000))
    pairs = Counter((trade.debit, trade.credit) for trade in trades)
    assert len(pairs) == 12
    assert trades == list(islice(make_trades(plan(addresses=["a:1"], accounts=4)), 4000))


async def test_decisions_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "decisions"
    record = two_phase.DecisionRecord(path)
    await asyncio.gather(record.write(FIRST), record.write(SECOND))
    record.close()
    assert two_phase.read_decisions(path) == {FIRST, SECOND}
    again = two_phase.DecisionRecord(path)
    await again.write(f"{3:032x}")
    again.close()
    assert two_phase.read_decisions(path) == {FIRST, SECOND, f"{3:032x}"}


async def test_a_decision_is_not_told_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = two_phase.os.fdatasync
    monkeypatch.setattr(two_phase.os, "fdatasync", lambda file: (synced.append(file), real(file)))
    record = two_phase.DecisionRecord(tmp_path / "decisions")
    await record.write(FIRST)
    assert len(synced) == 1
    await asyncio.gather(*(record.write(f"{number:032x}") for number in range(2, 50)))
    record.close()
    assert len(synced) <= 3


async def test_who_waits_for_a_decision_hears_of_a_failed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_file: int) -> None:
        raise OSError("no room")

    record = two_phase.DecisionRecord(tmp_path / "decisions")
    monkeypatch.setattr(two_phase.os, "fdatasync", fail)
    with pytest.raises(OSError, match="no room"):
        await record.write(FIRST)
    record.close()


@pytest.mark.parametrize("torn", [b"0", SECOND.encode(), b"\0" * 33, SECOND[:-1].encode() + b"\n"])
def test_a_torn_decision_is_none_and_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "decisions"
    path.write_bytes(FIRST.encode() + b"\n" + torn)
    assert two_phase.read_decisions(path) == {FIRST}
    assert path.read_bytes() == FIRST.encode() + b"\n"


def test_no_file_is_no_decision(tmp_path: Path) -> None:
    assert two_phase.read_decisions(tmp_path / "decisions") == set()


# ---- Bezant's own loads ----


@pytest.mark.parametrize(("clients", "pipeline", "per_s"), [(1, 1, 2_000), (2, 2, 8_000), (16, 16, 100_000)])
def test_a_load_of_few_in_flight_is_no_longer_than_the_peers(clients: int, pipeline: int, per_s: int) -> None:
    """It takes a number of transfers, not of seconds: with those of many in flight, it took ten times as long."""
    alone, together, _ = own_loads(ComparisonSettings(peers=["bezant"], clients=clients, pipeline=pipeline))
    assert (alone.usual_transfers_per_s, together.usual_transfers_per_s) == (2_000, per_s)


# ---- the programs ----


def test_programs_that_were_fetched_are_found_again(tmp_path: Path) -> None:
    wanted = Wanted("bezant-nothing", ("bezant-nothing",), ("usr/lib/nothing/*/bin",))
    for version in ("9", "15"):
        folder = tmp_path / "bezant-nothing" / "usr/lib/nothing" / version / "bin"
        folder.mkdir(parents=True)
        program = folder / "bezant-nothing"
        program.write_text(f"#!/bin/sh\necho nothing {version} $LD_LIBRARY_PATH\n")
        program.chmod(0o755)
    libraries = tmp_path / "bezant-nothing/usr/lib/any-linux-gnu"
    libraries.mkdir()
    found = have_programs(wanted, lambda _: None, tmp_path)
    assert found.version == f"nothing 15 {libraries}"
    copied = found.copied_to(tmp_path / "copy")
    assert copied.folder == tmp_path / "copy/usr/lib/nothing/15/bin"
    assert (copied.folder / "bezant-nothing").read_text() == (found.folder / "bezant-nothing").read_text()


def test_what_cannot_be_had_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    with pytest.raises(PeerUnavailable, match="without apt-get it cannot be fetched"):
        have_programs(Wanted("bezant-nothing", ("bezant-nothing",), ()), said.append, tmp_path)
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / tool).write_text("#!/bin/sh\necho no package of that name >&2\nexit 100\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(PeerUnavailable, match="apt-get failed with status 100: no package of that name"):
        have_programs(Wanted("bezant-nothing", ("bezant-nothing",), ()), said.append, tmp_path)
    assert not (tmp_path / "bezant-nothing").exists()


def test_two_who_want_programs_at_the_same_time_fetch_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package lists are of both: what one asks of them while the other renews them may fail."""
    tools, cache = tmp_path / "tools", tmp_path / "cache"
    tools.mkdir()
    busy = tmp_path / "busy"
    for tool, words in (
        ("apt-get", f"mkdir {busy} || exit 100; sleep 0.1; rmdir {busy}; echo Inst bezant-nothing; : > nothing.deb"),
        ("dpkg-deb", 'mkdir -p "$3/bin" && ln -s /bin/true "$3/bin/bezant-nothing"'),
    ):
        (tools / tool).write_text(f"#!/bin/sh\n{words}\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    wanted, said = Wanted("bezant-nothing", ("bezant-nothing",), ("bin",)), list[str]()
    with ThreadPoolExecutor() as both:
        found = list(both.map(lambda _: have_programs(wanted, said.append, cache), range(2)))
    assert {one.folder for one in found} == {cache / "bezant-nothing/bin"}
    assert sum(line.startswith("fetching") for line in said) == 1


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bezant/peers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/bezant/peers"


def test_an_installed_program_is_not_copied(tmp_path: Path) -> None:
    installed = Programs(Path("/usr/bin"), "1", None)
    assert installed.copied_to(tmp_path / "copy") == installed
    assert "LD_LIBRARY_PATH" not in installed.environment()
    assert programs.POSTGRES.programs == ("postgres", "initdb")


# ---- what is asked and told ----


@pytest.mark.parametrize(
    "changes",
    [{"seconds": 0.01}, {"seconds": 61.0}, {"clients": 201}, {"pipeline": 1001}, {"accounts": 3}, {"cross": 1.1}],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, float]) -> None:
    check_settings(ComparisonSettings(peers=list(PEERS)))
    with pytest.raises(UsageError, match=f"--{next(iter(changes))} is "):
        check_settings(ComparisonSettings(peers=list(PEERS), **changes))


def test_peers_are_asked_for_by_name() -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    assert parser.parse_args(["compare"]).peers == list(PEERS)
    assert parser.parse_args(["compare", "--peers", "redis, postgres,redis"]).peers == ["postgres", "redis"]
    with pytest.raises(SystemExit):
        parser.parse_args(["compare", "--peers", "oracle"])


def measured(**changes: object) -> Measured:
    figures = {"clients": 1, "pipeline": 1, "seconds": 1.0, "transfers_per_s": 1234.4, "made": 1234, "refused": 0}
    return Measured(
        **figures | {"retries": 0, "latency_us_p50": 810.0, "latency_us_p99": None, "load_cpu": 0.5} | changes
    )


def comparison() -> Comparison:
    kill = Kill(killed="a server", acknowledged=90, unknown=16, lost_minor_units=250, missing=0)
    sharded = PeerReport(
        peer="redis-sharded",
        title="Redis x 2 <&>",
        version="7",
        durable=True,
        atomic_across_shards=False,
        cross=0.3,
        measured=[measured(), measured(clients=16, pipeline=16, transfers_per_s=0.0)],
        kills=[kill, Kill(killed="a server", acknowledged=9, unknown=0, lost_minor_units=-50, missing=2)],
    )
    absent = PeerReport(peer="postgres", title="postgres", unavailable="there is none")
    return Comparison(peers=[sharded, absent], accounts=10, seconds=1.0, cores=2, file_system="ext4", faults=[])


def test_the_table_says_what_was_measured_and_lost() -> None:
    told = comparison()
    rows = told.rows()
    assert all(len(row) == len(HEADINGS) for row in rows)
    assert rows[0] == ["Redis x 2 <&>", "1", "1,234", "0.81", "-", "yes", "NO", "3.00, 2 transfers", "0.50"]
    assert rows[1][1] == "16 x 16"
    remarks = told.remarks()
    assert remarks[1].strip() == "30% of its transfers lie across the two servers"
    assert "killed: 90 transfers acknowledged, 0 of them missing, 16 without an answer, 2.50 lost" in remarks[2]
    assert remarks[-1] == "postgres: not measured: there is none"
    fields = told.as_json()
    assert [peer["lost_minor_units"] for peer in fields["peers"]] == [300, None]
    assert fields["peers"][1]["unavailable"] == "there is none"


def test_the_plot_has_a_bar_for_each_load() -> None:
    root = ElementTree.fromstring(draw(comparison()))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Redis x 2 <&>, 16 x 16 in flight" in texts
    assert "1,234" in texts
    bars = [element for element in root.iter("{http://www.w3.org/2000/svg}rect") if element.get("x")]
    assert [float(bar.get("width", "")) > 0 for bar in bars] == [True, False]
    empty = Comparison(peers=[], accounts=4, seconds=1, cores=1, file_system=None, faults=[])
    assert ElementTree.fromstring(draw(empty)).tag.endswith("svg")


def test_a_redis_whose_end_has_been_seen_is_told_as_gone() -> None:
    """Not as a fault of who asks: uvloop has no other word for a write behind the end of a connection."""

    async def ask() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.transport.abort()
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError):
                await Connection(reader, writer).run([("digest", 0)])

    run_async(ask())
