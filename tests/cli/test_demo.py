"""The demo shows what it claims, on a real node; and when a promise does not hold, it says so and fails."""

import gzip
from pathlib import Path

import pytest

from bezant.cli.demo import Findings
from bezant.cli.main import main


@pytest.fixture
def books(bank_file: Path, tmp_path: Path) -> Path:
    """The first 200 rows of the bank's books."""
    with gzip.open(bank_file, "rt", encoding="utf-8") as whole:
        lines = [next(whole) for _ in range(201)]
    path = tmp_path / "slice.csv"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_every_promise_is_shown(books: Path, capsys) -> None:
    status = main(["demo", "--file", str(books), "--transfers", "20000", "--wallets", "50"])
    captured = capsys.readouterr()
    out = " ".join(captured.out.split())
    assert status == 0, captured.out + captured.err
    assert "200 rows of a bank's books were booked" in out
    assert "20,000 transfers in" in out
    assert "Kill the node with SIGKILL" in out
    assert "50 of 50 wallets hold exactly what the demo's own books say" in out
    assert "Every promise held" in out
    assert " NO " not in out


def test_books_that_disagree_fail_it(books: Path, capsys) -> None:
    """One wrong digit in what the bank recorded must not go unseen."""
    header, first, *others = books.read_text(encoding="utf-8").splitlines()
    wrong = first.rpartition(",")[0] + ",700.01"
    books.write_text("\n".join((header, wrong, *others, "")), encoding="utf-8")
    status = main(["demo", "--file", str(books), "--transfers", "2000", "--wallets", "50"])
    captured = capsys.readouterr()
    out = captured.out
    assert status == 1
    assert "Not every promise held" in out, out + captured.err
    finding = f"{books}:2: the engine's balance is 700.00, the bank recorded 700.01"
    assert "".join(finding.split()) in "".join(out.split())  # lines break wherever a long path makes them


def test_a_finding_that_fails_decides_the_status(capsys) -> None:
    findings = Findings()
    findings.check(True, "this holds")
    findings.summary.append("all is well")
    assert findings.tell_summary() == 0
    findings.check(False, "that does not")
    assert findings.tell_summary() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "  NO  that does not"


def test_a_file_that_is_not_there_is_told_before_anything_is_started(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bezant.cli.node_process.NODE_COMMAND", ("/no/such/program",))
    assert main(["demo", "--file", str(tmp_path / "none.csv")]) == 1
    captured = capsys.readouterr()
    assert "none.csv: cannot be read" in captured.err
    assert captured.out == ""
