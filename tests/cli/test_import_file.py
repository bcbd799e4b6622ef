"""An import file is read exactly, and every error in it is told with file and line before anything is sent."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from bezant.cli.errors import InputFileError
from bezant.cli.import_file import KIND_CODE_DERIVED, KIND_CODES, LINE_SIZE_MAX, CheckedSide, ImportFile, kind_code

DECIMALS = {"CZK": 2, "JPY": 0}
MINIMAL_HEADER = "transaction_id,date,from_account,to_account,amount,currency"
DAY_NS = 86_400_000_000_000
GOOD = "7,1970-01-02,bank:cash,account:1,12.50,CZK,cash deposit,12.50,account:1,12.50"

WriteCsv = Callable[..., Path]


def test_reads_every_column(write_csv: WriteCsv) -> None:
    """One row with all columns, one with the recorded balance of the payer, one without a recorded balance."""
    path = write_csv(
        [
            GOOD,
            "8,1970-01-02,account:1,bank:cash,0.01,CZK,cash withdrawal,0.00,account:1,-12.49",
            "9,1970-01-03,bank:cash,account:1,5,JPY,salary,5,account:1,",
        ]
    )
    first, second, third = ImportFile(path, DECIMALS).rows()
    assert (first.line, first.transaction_id, first.day_ns, first.amount, first.decimals) == (2, "7", DAY_NS, 1250, 2)
    assert (first.debit, first.credit, first.currency, first.code) == ("bank:cash", "account:1", "CZK", 1)
    assert (first.checked_side, first.recorded_balance) == (CheckedSide.CREDIT, 1250)
    assert (second.checked_side, second.recorded_balance, second.code) == (CheckedSide.DEBIT, -1249, 2)
    assert (third.checked_side, third.amount, third.decimals) == (CheckedSide.NONE, 5, 0)


@pytest.mark.parametrize("compress", [False, True])
def test_a_minimal_file_has_six_columns_in_any_order(write_csv: WriteCsv, compress: bool) -> None:
    path = write_csv(["1.00,CZK,1,1993-01-01,a,b"], "amount,currency,transaction_id,date,from_account,to_account")
    if compress:
        path.write_bytes(gzip.compress(path.read_bytes()))
    (row,) = ImportFile(path, DECIMALS).rows()
    assert (row.debit, row.credit, row.amount, row.code, row.checked_side) == ("a", "b", 100, 0, CheckedSide.NONE)


def test_bytes_order_mark_blank_lines_and_unknown_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "books.csv"
    path.write_bytes(f"\ufeff{MINIMAL_HEADER},remark\r\n\r\n1,1993-01-01,a,b,1.00,CZK,hello\r\n\r\n".encode())
    file = ImportFile(path, DECIMALS)
    (row,) = file.rows()
    assert row.line == 3
    assert file.columns_ignored == ("remark",)


def _row(**changes: str) -> str:
    cells = {
        "transaction_id": "1",
        "date": "1993-01-01",
        "from_account": "bank:cash",
        "to_account": "account:1",
        "amount": "1.00",
        "currency": "CZK",
        "kind": "",
        "printed_amount": "",
        "client_account": "account:1",
        "bank_recorded_balance": "1.00",
    }
    return ",".join((cells | changes).values())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_row(amount="0.00"), "an amount must be above zero, not '0.00'"),
        (_row(amount="-5.00"), "an amount must be above zero, not '-5.00'"),
        (_row(amount="1.005"), "'1.005' has 3 decimals; the currency has 2"),
        (_row(amount="92233720368547758.08"), "does not fit in 64 bits"),
        (_row(amount="1e3"), "an amount is written like 12.50"),
        (_row(amount="1.00", currency="JPY"), "'1.00' has 2 decimals; the currency has 0"),
        (_row(currency="XXX"), "the currency 'XXX' is not registered: bezant currencies add"),
        (_row(to_account="bank:cash"), "from_account and to_account are the same account: 'bank:cash'"),
        (_row(from_account=""), "an account name has 1 to 48 characters, not 0"),
        (_row(from_account="a b"), "printable ASCII without spaces"),
        (_row(transaction_id=""), "transaction_id is empty"),
        (_row(date="1993-02-29"), "a date is written like 1993-01-01, not '1993-02-29'"),
        (_row(date="19930101"), "a date is written like 1993-01-01, not '19930101'"),
        (_row(date="1969-12-31"), "a date lies between 1970-01-01 and today, not 1969-12-31"),
        (_row(date="2999-01-01"), "a date lies between 1970-01-01 and today, not 2999-01-01"),
        (_row(client_account="account:2"), "client_account 'account:2' is neither from_account nor to_account"),
        (_row(bank_recorded_balance="1.0.0"), "an amount is written like 12.50"),
        ("1,1993-01-01", "the row has 2 fields and the header 10"),
        ('1,"1993', "this is not CSV in UTF-8"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(write_csv: WriteCsv, row: str, message: str) -> None:
    path = write_csv([GOOD, row])
    with pytest.raises(InputFileError) as caught:
        list(ImportFile(path, DECIMALS).rows())
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("transaction_id,date,from_account,to_account,currency", "does not name the column amount"),
        (f"{MINIMAL_HEADER},amount", "names the column amount twice"),
        (f"{MINIMAL_HEADER},bank_recorded_balance", "needs the column client_account"),
    ],
)
def test_a_bad_header_is_line_one(write_csv: WriteCsv, header: str, message: str) -> None:
    path = write_csv([], header)
    with pytest.raises(InputFileError) as caught:
        list(ImportFile(path, DECIMALS).rows())
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "the file is empty"),
        (f"{MINIMAL_HEADER}\n".encode() + b"1,1993-01-01,\xff,b,1.00,CZK\n", 2, "not CSV in UTF-8"),
        (f"{MINIMAL_HEADER}\n".encode() + b"x" * (LINE_SIZE_MAX + 1), 2, f"longer than {LINE_SIZE_MAX} bytes"),
        (gzip.compress(f"{MINIMAL_HEADER}\n".encode() * 100)[:-9], 1, "damaged or cut short"),
    ],
)
def test_what_is_no_csv_is_told(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    path = tmp_path / "books.csv"
    path.write_bytes(content)
    with pytest.raises(InputFileError) as caught:
        list(ImportFile(path, DECIMALS).rows())
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    file = ImportFile(tmp_path / "none.csv", DECIMALS)
    with pytest.raises(InputFileError, match=r"none\.csv: cannot be read: No such file"):
        list(file.rows())
    with pytest.raises(InputFileError, match="cannot be read"):
        _ = file.size_bytes


def test_kind_codes_are_for_ever() -> None:
    """A number that changed would give old events another meaning; these are the ones that were given."""
    assert KIND_CODES == {
        "": 0,
        "cash deposit": 1,
        "cash withdrawal": 2,
        "card withdrawal": 3,
        "interest": 4,
        "remittance in": 5,
        "remittance out": 6,
    }
    assert kind_code("salary") == 1_244_637_170
    assert KIND_CODE_DERIVED <= kind_code("salary") < 2 * KIND_CODE_DERIVED


def test_the_bank_file_reads_whole(bank_file: Path) -> None:
    rows = list(ImportFile(bank_file, DECIMALS).rows())
    assert len(rows) == 39_309
    assert rows[-1].line == 39_310
    assert all(row.checked_side for row in rows)
