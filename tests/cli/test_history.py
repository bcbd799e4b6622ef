"""Claim: a bank's books, imported with their dates, are answered as the bank itself recorded them, date by date."""

import asyncio
import csv
import gzip
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import bezant
from bezant.cli.main import main
from bezant.protocol.money import parse_amount
from bezant.protocol.names import account_id

BOOKS = Path(__file__).parents[1] / "data" / "czech_bank_1993_1994.csv.gz"
CURRENCY = "CZK"
_OPENED_S = 60.0


def rows() -> list[dict[str, str]]:
    with gzip.open(BOOKS, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the bank's books."""
    folder = tmp_path_factory.mktemp("bank") / "data"

    async def make() -> None:
        async with bezant.open(folder):
            pass

    asyncio.run(make())
    assert main(["import", str(BOOKS), "--data", str(folder), "--allow-overdraft", "account:*"]) == 0
    yield folder
    shutil.rmtree(folder)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[Any]:
    """What a command prints with --json, a value for each line."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def end_of(date: str) -> int:
    """The last nanosecond of a day."""
    day = datetime.fromisoformat(date).replace(tzinfo=UTC) + timedelta(days=1)
    return int(day.timestamp()) * 10**9 - 1


def test_every_balance_on_every_date_is_what_the_bank_recorded(data: Path) -> None:
    """At the end of each day each client has the balance that the bank recorded last; none before the first row."""
    recorded: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows():
        recorded[row["date"]][row["client_account"]] = parse_amount(row["bank_recorded_balance"], 2)
    clients = sorted({client for day in recorded.values() for client in day})
    ids = [account_id(client, CURRENCY) for client in clients]

    async def ask() -> int:
        known: dict[str, int] = {}
        checked = 0
        async with bezant.open(data, timeout_s=_OPENED_S) as wallet:
            before = await wallet.history.accounts(ids, at=end_of("1992-12-31"))
            assert before.accounts == [None] * len(ids)
            for date in sorted(recorded):
                known |= recorded[date]
                moment = {"at": end_of(date)} if date != max(recorded) else {}
                then = await wallet.history.accounts(ids, **moment)
                for client, account in zip(clients, then.accounts, strict=True):
                    assert (account.balance if account is not None else None) == known.get(client), (date, client)
                    checked += account is not None
        return checked

    assert asyncio.run(ask()) == 252_918


def test_a_statement_runs_through_the_recorded_balances(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = [row for row in rows() if row["client_account"] == "account:1787"]
    lines = told(capsys, "statement", "account:1787", CURRENCY, "--data", str(data))
    moves = [line for line in lines if line["kind"] == "TRANSFER"]
    side = ["debit_balance" if line["debit"] == "account:1787" else "credit_balance" for line in moves]
    balances = [parse_amount(line[which], 2) for line, which in zip(moves, side, strict=True)]
    assert balances == [parse_amount(row["bank_recorded_balance"], 2) for row in own]
    assert [line["time"][:10] for line in moves] == [row["date"] for row in own]
    half = own[len(own) // 2]["date"]
    later = told(capsys, "statement", "account:1787", CURRENCY, "--data", str(data), "--from", half, "--reverse")
    expected = [line for line in lines if line["time"][:10] >= half]
    assert later == expected[::-1]
    until = told(capsys, "statement", "account:1787", CURRENCY, "--data", str(data), "--at", half)
    assert until == [line for line in lines if line["time"][:10] <= half]


def test_totals_and_searches_agree_with_the_books(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    date = "1993-06-30"
    until = [row for row in rows() if row["date"] <= date]
    (totals,) = told(capsys, "totals", "--data", str(data), "--at", date)
    (sums,) = totals["currencies"]
    assert (sums["currency"], sums["transfers"], sums["held"]) == (CURRENCY, len(until), "0.00")
    assert parse_amount(sums["moved"], 2) == sum(parse_amount(row["amount"], 2) for row in until)
    found = told(
        capsys, "transfers", "--currency", CURRENCY, "--from", date, "--to", date, "--data", str(data), "--reverse"
    )
    of_day = [row for row in until if row["date"] == date]
    assert [(line["debit"], line["credit"]) for line in found[::-1]] == [
        (row["from_account"], row["to_account"]) for row in of_day
    ]
    by_id = told(capsys, "transfers", "--id", found[0]["id"], "--data", str(data))
    assert by_id == [found[0]]
    assert told(capsys, "holds", "--data", str(data)) == []


@pytest.mark.parametrize(
    ("words", "told_words"),
    [
        (("balance", "account:1787", CURRENCY, "--at", "2030-01-01"), "not known yet"),
        (("balance", "account:1787", CURRENCY, "--at", "1992-01-01"), "as of before all events"),
        (("balance", "nobody", CURRENCY, "--at", "1993-06-30"), "there was no account"),
        (("balance", "account:1787", CURRENCY, "--position", "99999999"), "ahead of the last"),
        (("statement", "nobody", CURRENCY), "there is no account 'nobody'"),
        (("statement", "account:1787", CURRENCY, "--at", "1992-01-01"), "there was no account 'account:1787'"),
        (("transfers", "--account", "account:1787"), "--currency"),
        (("transfers", "--id", "xyz"), "32 hexadecimal digits"),
        (("holds", "--account", "account:1787"), "--currency"),
    ],
)
def test_what_cannot_be_answered_is_said(
    data: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told_words: str
) -> None:
    capsys.readouterr()
    assert main([*words, "--data", str(data)]) == 1
    assert told_words in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--at noon", "--at 1969-01-01", "--position x", "--at 2000-01-01 --position 1"])
def test_a_moment_that_is_none_is_a_wrong_command_line(words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["balance", "a", "EUR", *words.split()])
    assert ended.value.code == 2


def test_without_the_folder_of_the_reader_the_answers_are_the_same(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("statement", "account:1787", CURRENCY, "--data", str(data))
    before = told(capsys, *asked)
    shutil.rmtree(data / "shard-0000" / "reader")
    assert told(capsys, *asked) == before


def test_a_statement_shows_what_left_the_account_with_its_sign_and_no_amount_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, hold = ("--data", str(tmp_path / "data")), "0c" * 16

    async def make() -> None:
        async with bezant.open(tmp_path / "data") as wallet:
            await wallet.open_account("bank", "EUR", limit=bezant.UNLIMITED)
            await wallet.open_account("ann", "EUR")

    asyncio.run(make())
    for words in (
        ("transfer", "bank", "ann", "50.00", "EUR"),
        ("hold", "ann", "bank", "20.00", "EUR", "--id", hold),
        ("capture", hold, "ann", "bank", "EUR", "--amount", "15.00"),
        ("transfer", "ann", "bank", "10.00", "EUR"),
        ("freeze", "ann", "EUR"),
    ):
        assert main([*words, *folder]) == 0
    assert main(["transfer", "ann", "bank", "1.00", "EUR", *folder]) == 1
    capsys.readouterr()
    for name, amounts in (
        ("ann", ["limit 0.00", "50.00", "20.00", "-15.00", "-10.00", ""]),
        ("bank", ["unlimited", "-50.00", "15.00", "10.00"]),
    ):
        assert main(["statement", name, "EUR", *folder]) == 0
        _, *lines, _ = capsys.readouterr().out.splitlines()
        assert [line[104:120].strip() for line in lines] == amounts
    assert main(["transfers", "--account", "ann", "--currency", "EUR", "--refused", *folder]) == 0
    refused = capsys.readouterr().out.splitlines()[-2]
    assert "transfer refused" in refused
    assert refused[104:120].strip() == "1.00"
