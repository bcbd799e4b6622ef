"""Claim: a folder is asked by SQL and written to Parquet as it is or was; queries change and reach nothing."""

import asyncio
import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import bezant
from bezant.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql") / "data"

    async def make() -> None:
        async with bezant.open(folder) as wallet:
            await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
            await wallet.open_account("ann", "EUR")
            for _ in range(4):
                await wallet.transfer("world", "ann", "1.25", "EUR")
            await wallet.transfer("ann", "world", "100.00", "EUR")
            await wallet.hold("ann", "world", "2.00", "EUR")

    asyncio.run(make())
    return folder


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(command: str, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([command, *map(str, words), "--data", str(data)])
        return (status, *capsys.readouterr())

    return run


def rows_of(run: Run, query: str, *words: object) -> list[dict[str, Any]]:
    status, out, err = run("sql", query, "--json", *words)
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_queries(run: Run) -> None:
    (sums,) = rows_of(run, "select count(*) n, sum(moved_minor) moved, sum(amount_minor) asked from events")
    assert sums == {"n": 8, "moved": 500, "asked": 500 + 10_000 + 200}
    query = "select name, balance, held_minor from accounts order by name"
    assert rows_of(run, query) == [
        {"name": "ann", "balance": "5.0000", "held_minor": 200},
        {"name": "world", "balance": "-5.0000", "held_minor": 0},
    ]
    joined = "select a.name, count(*) n from events e join accounts a on e.credit_id = a.id group by all order by 1"
    assert rows_of(run, joined) == [{"name": "ann", "n": 4}, {"name": "world", "n": 2}]
    twice = "select count(*) n from events x join events y on x.debit_previous = y.position"
    assert rows_of(run, twice) == [{"n": 5}]
    assert rows_of(run, "select remaining_minor, debit from holds") == [{"remaining_minor": 200, "debit": "ann"}]
    assert rows_of(run, "select * exclude (kind) from events limit 0") == []
    assert rows_of(run, "select decimals, accounts from currencies where currency = 'EUR'") == [
        {"decimals": 2, "accounts": 2}
    ]


def test_the_past(run: Run) -> None:
    (fourth,) = rows_of(run, "select position, time from events where sequence = 4")
    for words in (("--position", fourth["position"]), ("--at", fourth["time"])):
        assert rows_of(run, "select count(*) n from events", *words) == [{"n": 4}]
        assert rows_of(run, "select balance_minor b from accounts where name = 'ann'", *words) == [{"b": 250}]
    assert rows_of(run, "select count(*) n from accounts", "--position", "0") == [{"n": 0}]
    assert run("sql", "select 1", "--position", "99")[0] == 1
    assert "not known yet" in run("sql", "select 1", "--at", "2200-01-01")[2]


def test_forms(run: Run) -> None:
    query = "select debit, moved, time is null as timeless, null as nothing from events where sequence > 6"
    assert run("sql", query, "--csv")[1].splitlines() == [
        "debit,moved,timeless,nothing",
        "ann,0.0000,false,",
        "ann,0.0000,false,",
    ]
    assert run("sql", "select name, balance from accounts")[1].splitlines() == [
        "name   balance",
        "world    -5.00",
        "ann       5.00",
    ]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("drop table events", "nothing else"),
        ("select 1; select 2", "one query"),
        ("set memory_limit = '9GB'", "nothing else"),
        ("copy (select 1) to '/tmp/x.csv'", "nothing else"),
        ("attach '/tmp/x.db'", "nothing else"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
        ("select * from '/etc/passwd'", "does not exist"),
        ("select * from ARROW_SCAN(1, 2, 3)", "memory at any address"),
        ("select nothing_such from events", "nothing_such"),
        ("selec", "syntax error"),
        ("", "one query"),
    ],
)
def test_what_is_not_answered(run: Run, query: str, told: str) -> None:
    status, out, err = run("sql", query)
    assert (status, out) == (1, "")
    assert told in err
    assert err.count("\n") == 1


def test_the_next_step_is_one_for_what_is_wrong(run: Run) -> None:
    for query, memory, step in (
        (
            "select nope from events",
            "1GB",
            'correct the query; "describe events" shows the columns of a table; others are accounts, holds, currencies',
        ),
        ("select list(i) from range(20000000) t(i)", "64MB", "give it more with --memory, or ask for less"),
    ):
        status, _, err = run("sql", query, "--memory", memory)
        assert (status, err.count("\n")) == (1, 1)
        assert err.endswith(f"; {step}\n")


def test_export(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    status, out, _ = run("export", "--parquet", folder, "--json")
    assert status == 0
    assert json.loads(out)["events"] == 8
    (file,) = (folder / "events").iterdir()
    assert file.name == "events-0000000000000001-0000000000000008.parquet"
    table = pq.read_table(file, columns=["moved_minor", "debit"])
    assert sum(table["moved_minor"].to_pylist()) == 500
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).statistics.max == 8
    assert pq.read_table(folder / "accounts.parquet")["balance_minor"].to_pylist() == [-500, 500]
    status, _, err = run("export", "--parquet", folder)
    assert status == 1
    assert "nothing is overwritten" in err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_the_extra_it_is_said_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "duckdb":
            raise ImportError("none", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    status, _, err = run("sql", "select 1")
    assert status == 1
    assert "pip install 'bezant[sql]'" in err
