"""A real node in its own process, and every command against it: over TCP, and on its folder once it has stopped."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from bezant.cli.main import main

SLICE_ROWS = 500


@pytest.fixture
def bezant(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line in this process: (exit status, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def books(bank_file: Path, tmp_path: Path) -> Path:
    """The first rows of the bank's books."""
    with gzip.open(bank_file, "rt", encoding="utf-8") as whole:
        lines = [next(whole) for _ in range(SLICE_ROWS + 1)]
    path = tmp_path / "slice.csv.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def last_recorded_balances(path: Path) -> dict[str, str]:
    """What the bank says every client had in the end."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return {row["client_account"]: row["bank_recorded_balance"] for row in csv.DictReader(lines)}


def test_a_bank_s_books_from_import_to_verify(bezant, start_node, books: Path) -> None:
    """Import twice, look, move money, stop, look at the folder, verify."""
    with start_node() as node:
        there = ("--connect", node.address)
        status, out, _ = bezant("import", str(books), *there, "--json")
        report = json.loads(out)
        assert (status, report["ok"]) == (0, True)
        assert report["rows"] == report["committed"] == report["balances_checked"] == SLICE_ROWS

        status, out, _ = bezant("import", str(books), *there)
        assert status == 0
        assert "0 booked, 500 repeated, 0 refused" in out

        status, listed, _ = bezant("accounts", "--format", "csv", *there)
        assert status == 0
        assert listed.splitlines()[0] == "name,currency,balance,held,limit"
        accounts = {row["name"]: row for row in csv.DictReader(io.StringIO(listed))}
        assert len(accounts) == report["accounts_opened"]
        assert sum(Decimal(row["balance"]) for row in accounts.values()) == 0
        assert accounts["bank:cash"]["limit"] == "unlimited"
        for name, balance in last_recorded_balances(books).items():
            assert (accounts[name]["balance"], accounts[name]["limit"]) == (balance, "0.00")

        client, balance = next(iter(last_recorded_balances(books).items()))
        assert bezant("balance", client, "CZK", *there)[:2] == (0, f"{balance} CZK  held 0.00  limit 0.00\n")

        line = ("transfer", client, "bank:cash", "0.01", "CZK", "--id", "0a" * 16, *there)
        status, out, _ = bezant(*line)
        assert (status, out.splitlines()[0]) == (0, f"0.01 CZK from {client} to bank:cash")
        status, out, _ = bezant(*line, "--json")
        again = json.loads(out)
        assert (status, again["outcome"], again["repeated"]) == (0, "committed", True)
        assert Decimal(again["debit_balance"]) == Decimal(balance) - Decimal("0.01")
        assert node.stop() == 0

    here = ("--data", str(node.data))
    status, out, _ = bezant("accounts", "--format", "csv", *here)
    assert status == 0
    assert len(out.splitlines()) == len(listed.splitlines())

    status, out, _ = bezant("verify", *here, "--json")
    verified = json.loads(out)
    assert status == 0
    assert verified["events"] == SLICE_ROWS + len(accounts) + 1
    assert verified["accounts"] == len(accounts)
    status, out, _ = bezant("verify", *here)
    assert status == 0
    assert out.startswith("verified: ")


def test_history_after_live_traffic_is_refused_with_a_reason(bezant, start_node, books: Path) -> None:
    with start_node() as node:
        there = ("--connect", node.address)
        assert bezant("open", "bank:live", "CZK", *there)[0] == 0
        status, out, err = bezant("import", str(books), *there, "--json")
        assert status == 1
        assert json.loads(out)["stopped_by"] == "IMPORTED_TIMESTAMP_NOT_RISING"
        assert "before live traffic" in err


@pytest.fixture(scope="module")
def ann_and_bank(node) -> tuple[str, str]:
    """The arguments that lead to a node with two accounts, EUR; ann has 50.00."""
    there = ("--connect", node.address)
    assert main(["open", "bank:main", "EUR", "--limit", "unlimited", *there]) == 0
    assert main(["open", "wallet:ann", "EUR", *there]) == 0
    assert main(["transfer", "bank:main", "wallet:ann", "50.00", "EUR", *there]) == 0
    return there


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("transfer bank:main wallet:ann -5 EUR", "AMOUNT_NOT_POSITIVE"),
        ("transfer bank:main wallet:ann 0.00 EUR", "AMOUNT_NOT_POSITIVE"),
        ("transfer bank:main wallet:ann 1.005 EUR", "has 3 decimals; the currency has 2"),
        ("transfer bank:main wallet:ann 92233720368547758.08 EUR", "does not fit in 64 bits"),
        ("transfer bank:main wallet:ann 92233720368547758.07 EUR", "BALANCE_OVERFLOW"),
        ("transfer bank:main wallet:ann 1,50 EUR", "an amount is written like 12.50"),
        ("transfer bank:main wallet:ann 1e2 EUR", "an amount is written like 12.50"),
        ("transfer bank:main wallet:ann 1.00 XXX", "'XXX' is not registered"),
        ("transfer bank:main wallet:ann 1.00 eur", "is not registered"),
        ("transfer bank:main wallet:ann 12345678901234567890.00 EUR", "does not fit in 64 bits"),
        ("transfer bank:main wallet:bob 1.00 EUR", "open it first: bezant open wallet:bob EUR"),
        ("transfer wallet:b'b bank:main 1.00 EUR", """open it first: bezant open 'wallet:b'"'"'b' EUR"""),
        ("transfer wallet:ann bank:main 50.01 EUR", "INSUFFICIENT_FUNDS"),
        ("transfer wallet:ann wallet:ann 1.00 EUR", "ACCOUNTS_EQUAL"),
        ("transfer wallet:ann bank:main 1.00 EUR --id 1234", "an id is 32 hexadecimal digits"),
        ("transfer wallet:ann bank:main 1.00 EUR --id 00000000000000000000000000000000", "ID_INVALID"),
        ("open wallet:ann EUR", "ACCOUNT_EXISTS: the account exists, open or closed for ever; see which it is: bezant"),
        ("open wallet:new EUR --limit -1", "LIMIT_NEGATIVE"),
        ("open wallet:new XXX", "'XXX' is not registered"),
        (f"open {'x' * 49} EUR", "an account name has 1 to 48 characters"),
        ("balance wallet:bob EUR", "there is no account 'wallet:bob' in EUR; open it"),
        ("balance wallet:ann XXX", "the currency 'XXX' is not registered"),
        ("currencies add EUR 3", "the node refused"),
        ("currencies add euro 2", ""),
        ("import /nonexistent.csv", "cannot be read"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_1(bezant, ann_and_bank, line: str, told: str) -> None:
    there = ann_and_bank
    status, out, err = bezant(*line.split(), *there)
    assert status == 1
    assert out == ""
    assert err.startswith("bezant: ")
    assert err.count("\n") == 1
    assert told in err
    assert bezant("balance", "wallet:ann", "EUR", *there)[1] == "50.00 EUR  held 0.00  limit 0.00\n"


def test_a_refusal_in_json_says_the_code(bezant, ann_and_bank) -> None:
    status, out, _ = bezant("transfer", "wallet:ann", "bank:main", "60.00", "EUR", "--json", *ann_and_bank)
    result = json.loads(out)
    assert status == 1
    assert (result["outcome"], result["code"], result["amount"]) == ("rejected", "INSUFFICIENT_FUNDS", "0.00")


def test_an_id_with_other_content_names_the_field(bezant, ann_and_bank) -> None:
    line = ("transfer", "bank:main", "wallet:ann", "0.00", "EUR")
    assert bezant(*line, *ann_and_bank)[0] == 1
    identifier = ("--id", "0b" * 16)
    assert bezant("transfer", "wallet:ann", "bank:main", "50.01", "EUR", *identifier, *ann_and_bank)[0] == 1
    status, _, err = bezant("transfer", "wallet:ann", "bank:main", "50.02", "EUR", *identifier, *ann_and_bank)
    assert status == 1
    assert "ID_CONFLICT" in err
    assert "amount" in err
    _, out, _ = bezant("transfer", "wallet:ann", "bank:main", "50.02", "EUR", "--json", *identifier, *ann_and_bank)
    assert (json.loads(out)["code"], json.loads(out)["conflict_field"]) == ("ID_CONFLICT", "amount")


def test_currencies_are_listed_and_added(bezant, ann_and_bank) -> None:
    there = ann_and_bank
    assert bezant("currencies", "add", "POINTS", "0", *there)[:2] == (0, "POINTS is registered with 0 decimals\n")
    assert bezant("currencies", "add", "POINTS", "0", *there)[0] == 0
    status, out, _ = bezant("currencies", "list", *there)
    assert status == 0
    assert "POINTS           0" in out.splitlines()
    _, out, _ = bezant("currencies", "list", "--json", *there)
    assert json.loads(out)["EUR"] == 2


def test_accounts_as_a_table_and_as_json(bezant, ann_and_bank) -> None:
    status, out, _ = bezant("accounts", *ann_and_bank)
    assert status == 0
    assert out.splitlines()[0].split() == ["name", "currency", "balance", "held", "limit"]
    _, out, _ = bezant("accounts", "--format", "json", *ann_and_bank)
    assert bezant("accounts", "--json", *ann_and_bank)[1] == out
    assert {"name": "wallet:ann", "currency": "EUR", "balance": "50.00", "held": "0.00", "limit": "0.00"} in [
        json.loads(line) for line in out.splitlines()
    ]


def test_a_folder_in_use_is_told(bezant, node) -> None:
    for line, can_connect in (
        (("accounts", "--data"), True),
        (("serve", "--listen", "127.0.0.1:0", "--data"), False),
        (("verify", "--data"), False),
    ):
        status, out, err = bezant(*line, str(node.data))
        assert status == 1
        assert out == ""
        assert err.startswith(f"bezant: the data folder: {node.data} is in use by process {node.process.pid}; stop")
        assert ("--connect" in err, err.count("stop")) == (can_connect, 1)


@pytest.mark.parametrize("line", ["verify", "accounts", "balance a EUR", "open a EUR", "transfer a b 1.00 EUR"])
def test_a_folder_without_a_ledger_is_told_and_stays_as_it_is(bezant, tmp_path: Path, line: str) -> None:
    """A mistyped path must not become a new, empty ledger."""
    status, out, err = bezant(*line.split(), "--data", str(tmp_path))
    assert status == 1
    assert out == ""
    assert err.startswith(f"bezant: your input: there is no ledger at {tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_told_before_anybody_is_asked(bezant) -> None:
    status, _, err = bezant("import", "/nonexistent.csv", "--connect", "127.0.0.1:1")
    assert status == 1
    assert err.startswith("bezant: the file: ")


def test_nobody_there_is_told(bezant) -> None:
    status, out, err = bezant("accounts", "--connect", "127.0.0.1:1")
    assert (status, out) == (1, "")
    assert err.startswith("bezant: no connection: the node at 127.0.0.1:1 cannot be reached")


def test_one_of_several_addresses_is_enough(bezant, start_node) -> None:
    with start_node() as node:
        status, out, _ = bezant("accounts", "--connect", f"127.0.0.1:1,{node.address}")
        assert (status, out) == bezant("accounts", "--connect", node.address)[:2]
    assert status == 0
