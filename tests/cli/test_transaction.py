"""`bezant transaction` does several transfers as a whole, says which one was refused, and never does anything twice."""

import asyncio
import json
from pathlib import Path

import pytest

import bezant
from bezant.cli.main import main

IDS = "0190a0b0c0d07e0f8a0b0c0d0e0f1011"


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"

    async def fill() -> None:
        async with bezant.open(folder) as wallet:
            await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
            for name in ("shop", "ann", "bob"):
                await wallet.open_account(name, "EUR")
            await wallet.transfer("world", "shop", "20.00", "EUR")

    asyncio.run(fill())
    return folder


def run(books: Path, *words: str) -> int:
    return main(["transaction", *words, "--data", str(books)])


def balance(books: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["balance", name, "EUR", "--json", "--data", str(books)]) == 0
    return str(json.loads(capsys.readouterr().out)["balance"])


def test_all_of_it_is_done_once(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legs = ("shop", "ann", "9.50", "EUR", "shop", "bob", "4.00", "EUR", "--id", IDS)
    capsys.readouterr()
    assert run(books, *legs) == 0
    assert capsys.readouterr().out.splitlines() == ["2 transfers (EUR): done in every shard", f"id {IDS}"]
    assert run(books, *legs, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["repeated"], told["legs"], told["leg"]) == ("committed", True, 2, None)
    assert [balance(books, name, capsys) for name in ("shop", "ann", "bob")] == ["6.50", "9.50", "4.00"]


def test_one_that_is_refused_refuses_all(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(books, "shop", "ann", "9.50", "EUR", "shop", "nobody", "4.00", "EUR", "--mode", "saga") == 1
    told = capsys.readouterr().err
    assert "transfer 2 of 2: CREDIT_ACCOUNT_UNKNOWN" in told
    assert "bezant open nobody EUR" in told
    assert balance(books, "shop", capsys) == "20.00"


def test_legs_come_from_a_file(books: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legs = [
        {"debit": "shop", "credit": name, "amount": "1.00", "currency": "EUR", "code": 7} for name in ("ann", "bob")
    ]
    file = tmp_path / "legs.jsonl"
    file.write_text("\n".join(json.dumps(leg | {"user_data": "00ff"}) for leg in legs) + "\n\n")
    assert run(books, "--file", str(file)) == 0
    assert [balance(books, name, capsys) for name in ("ann", "bob")] == ["1.00", "1.00"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "line 1 is no transfer"),
        ('{"debit": "shop"}', "it needs debit, credit, amount, currency"),
        ('{"debit": "a", "credit": "b", "amount": 1.5, "currency": "EUR"}', "are text, the amount too"),
        ('{"debit": "a", "credit": "b", "amount": "1", "currency": "EUR", "user_data": "x"}', "line 1 is no transfer"),
        ('{"debit": "a", "credit": "b", "amount": "1", "currency": "EUR", "note": "x"}', "it needs"),
        ("", "there is no transfer"),
    ],
)
def test_a_line_that_is_no_transfer(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    file = tmp_path / "legs.jsonl"
    file.write_text(line)
    assert main(["transaction", "--file", str(file)]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["a", "b", "1.00"], ["a", "b", "1.00", "EUR", "--file", "x"]])
def test_words_that_are_no_transfers(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["transaction", *words]) == 1
    assert capsys.readouterr().err.startswith("bezant: ")
