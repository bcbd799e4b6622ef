"""Claim: a statement that agrees with the books passes, and whatever is missing, extra or different is named."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import bezant
from bezant.cli.import_batches import transfer_id
from bezant.cli.import_file import ImportFile
from bezant.cli.main import main
from bezant.cli.reconciling import Booked, Statement, compare
from bezant.protocol.names import account_id

from .conftest import HEADER, Node

DAY_NS = 86_400_000_000_000
WriteCsv = Callable[..., Path]
ROWS = [
    "1,1993-01-01,bank:cash,account:1,700.00,CZK,cash deposit,700.00,account:1,700.00",
    "2,1993-01-01,account:1,external:7,100.50,CZK,remittance out,100.50,account:1,599.50",
    "3,1993-01-02,bank:interest,account:2,0.50,CZK,interest,0.50,,",
]


def statement_of(path: Path, *subjects: str) -> Statement:
    outside = ("bank:", "external:")
    return Statement(ImportFile(path, {"CZK": 2}).rows(), subjects, lambda name: name.startswith(outside))


def booked(statement: Statement, number: int, **changes: object) -> Booked:
    """The event that a row should have."""
    row = statement.rows[number]
    event = Booked(
        id=transfer_id(row.currency, row.transaction_id),
        position=number + 1,
        timestamp_ns=row.day_ns + number,
        debit=account_id(row.debit, row.currency),
        credit=account_id(row.credit, row.currency),
        amount=row.amount,
        debit_balance=row.recorded_balance,
        credit_balance=row.recorded_balance,
    )
    return event._replace(**changes)  # type: ignore[arg-type]


def test_what_agrees_is_counted(write_csv: WriteCsv) -> None:
    statement = statement_of(write_csv(ROWS))
    found = compare(statement, [booked(statement, number) for number in (2, 0, 1, 0)])
    assert (found.agreeing, found.differences) == (3, [])
    assert set(statement.subjects.values()) == {("account:1", "CZK"), ("account:2", "CZK")}
    assert (statement.start_ns, statement.end_ns) == (statement.rows[0].day_ns, statement.rows[2].day_ns + DAY_NS)


@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        (0, {"amount": 70001}, ("different", "amount", "700.00", "700.01")),
        (0, {"credit_balance": 5}, ("different", "balance", "700.00", "0.05")),
        (1, {"debit_balance": 5}, ("different", "balance", "599.50", "0.05")),
        (0, {"debit": account_id("account:2", "CZK")}, ("different", "from_account", "bank:cash", "account:2")),
        (0, {"credit": b"x" * 16}, ("different", "to_account", "account:1", (b"x" * 16).hex())),
        (2, {"timestamp_ns": 5 * DAY_NS}, ("different", "date", "1993-01-02", "1970-01-06")),
        (
            1,
            {"undone": "refused: INSUFFICIENT_FUNDS"},
            ("missing", "", "1993-01-01 100.50 CZK from account:1 to external:7", "refused: INSUFFICIENT_FUNDS"),
        ),
    ],
)
def test_each_difference_is_named(
    write_csv: WriteCsv, number: int, changes: dict[str, object], expected: tuple[str, ...]
) -> None:
    statement = statement_of(write_csv(ROWS))
    events = [booked(statement, place, **(changes if place == number else {})) for place in range(3)]
    found = compare(statement, events)
    assert [(told.what, told.field, told.statement, told.books) for told in found.differences] == [expected]
    assert (found.agreeing, found.differences[0].line) == (2, number + 2)


def test_what_one_side_lacks_is_named(write_csv: WriteCsv) -> None:
    statement = statement_of(write_csv([*ROWS, ROWS[0]]))
    other = booked(statement, 1, id=b"y" * 16, position=9)
    outside_time = other._replace(position=10, timestamp_ns=statement.end_ns)
    refused = other._replace(position=11, undone="refused: INSUFFICIENT_FUNDS")
    found = compare(statement, [booked(statement, 0), booked(statement, 1), other, other, outside_time, refused])
    assert [(told.what, told.transaction_id) for told in found.differences] == [
        ("missing", "3"),
        ("repeated", "1"),
        ("extra", (b"y" * 16).hex()),
    ]
    assert found.differences[2].books == "1993-01-01 100.50 CZK from account:1 to external:7"


def test_of_several_events_with_an_id_that_of_the_row_counts(write_csv: WriteCsv) -> None:
    """Ids belong to accounts: another one may have used it."""
    statement = statement_of(write_csv(ROWS[:1]))
    right, other = booked(statement, 0), booked(statement, 0, debit=b"z" * 16, position=7)
    for events in ([right, other], [other, right]):
        assert compare(statement, events).differences == []


def test_subjects_can_be_named(write_csv: WriteCsv) -> None:
    statement = statement_of(write_csv(ROWS), "bank:interest")
    assert list(statement.subjects.values()) == [("bank:interest", "CZK")]


# ---- with a ledger ----


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return (main([str(word) for word in words]), *capsys.readouterr())

    return run


def test_a_real_banks_books_against_themselves_and_against_a_changed_copy(
    start_node: Callable[..., Node], run: Callable[..., tuple[int, str, str]], bank_file: Path, tmp_path: Path
) -> None:
    lines = gzip.decompress(bank_file.read_bytes()).decode().splitlines()[:2001]
    good = tmp_path / "good.csv"
    good.write_text("\n".join(lines) + "\n")
    changed = tmp_path / "changed.csv"
    cells = lines[10].split(",")
    cells[4] = "1.23"
    new = "999999999,1993-01-05,bank:cash,account:576,900.00,CZK,cash deposit,900.00,account:576,"
    changed.write_text("\n".join([*lines[:10], ",".join(cells), *lines[11:20], new, *lines[21:]]) + "\n")
    with start_node(reader=True) as node:
        where = ("--connect", node.address, "--timeout", "60")
        assert run("currencies", "add", "CZK", "2", "--connect", node.address)[0] == 0
        assert run("import", good, "--allow-overdraft", "account:*", "--connect", node.address)[0] == 0
        status, out, _ = run("reconcile", good, *where)
        assert status == 0, out
        assert "2,000 agree; nothing differs" in out
        status, by_node, _ = run("reconcile", changed, *where, "--json")
        assert status == 1
        status, while_running, _ = run("reconcile", changed, "--data", node.data, "--json")
        assert status == 1
        assert node.stop() == 0
    status, at_rest, _ = run("reconcile", changed, "--data", node.data, "--json")
    told = json.loads(at_rest)
    assert (told["missing"], told["different"], told["extra"], told["ok"]) == (1, 1, 1, False)
    assert {found["what"]: found["transaction_id"] for found in told["differences"]} == {
        "different": cells[0],
        "missing": "999999999",
        "extra": transfer_id("CZK", lines[20].split(",")[0]).hex(),
    }
    assert json.loads(by_node) == json.loads(while_running) == told
    status, out, _ = run("reconcile", changed, "--data", node.data)
    assert status == 1
    assert out.splitlines()[0].split() == ["what", "line", "transaction", "field", "statement", "books"]
    assert out.splitlines()[-1].endswith("1,998 agree; 1 missing, 1 different, 1 extra")


def test_live_transfers_are_found_by_their_own_ids(
    node: Node, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    with bezant.connect_blocking(node.address) as wallet:
        wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
        wallet.open_account("ann", "EUR")
        done = wallet.transfer("world", "ann", "1.00", "EUR")
        event = wallet.event(done.id, "world", "EUR")
    assert event is not None
    day = datetime.fromtimestamp(event.timestamp_ns / 1e9, UTC).date()
    file = tmp_path / "s.csv"
    header = "transaction_id,date,from_account,to_account,amount,currency"
    file.write_text(f"{header}\n{done.id.hex()},{day},world,ann,1.00,EUR\n")
    status, out, _ = run("reconcile", file, "--account", "ann", "--connect", node.address, "--timeout", "60")
    assert (status, out) == (0, "1 rows about 1 accounts: 1 agree; nothing differs\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("a,b,c\n1,2,3\n", "does not name the columns transaction_id, date, "),
        (f"{HEADER}\n1,1993-01-01,bank:cash,account:1,7.001,EUR,,,,\n", ":2: "),
        (f"{HEADER}\n1,1993-01-01,bank:cash,account:1,7.00,XXX,,,,\n", "the currency 'XXX' is not registered"),
        ("\0\0\xff" * 50, "the first line"),
    ],
)
def test_a_file_of_another_format_is_told(
    node: Node, run: Callable[..., tuple[int, str, str]], tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "s.csv"
    file.write_text(content)
    status, _, err = run("reconcile", file, "--connect", node.address)
    assert status == 1
    assert words in err
