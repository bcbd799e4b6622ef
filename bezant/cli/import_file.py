"""Reads a CSV file of dated transfers into checked rows. No network here: see `importing.py` for what becomes of them.

Every error names the file and the line. What can be refused without asking a ledger is refused here (a field that is
missing, an amount that is zero, negative, too large or has too many decimals, an unknown currency, the same account on
both sides, a date that is none), so that a file can be read through once before anything of it is sent.
"""

import csv
import gzip
import io
import time
import zlib
from collections.abc import Iterator, Mapping
from datetime import date
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import blake3

from bezant.cli.errors import InputFileError
from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.money import parse_amount
from bezant.protocol.names import check_name

COLUMNS_REQUIRED: Final = ("transaction_id", "date", "from_account", "to_account", "amount", "currency")
COLUMNS_OPTIONAL: Final = ("kind", "printed_amount", "client_account", "bank_recorded_balance")
LINE_SIZE_MAX: Final = 65_536
"""Bytes in one line, at most: a file that is not CSV must not be read into memory whole."""

KIND_CODES: Final[dict[str, int]] = {
    "": 0,
    "cash deposit": 1,
    "cash withdrawal": 2,
    "card withdrawal": 3,
    "interest": 4,
    "remittance in": 5,
    "remittance out": 6,
}
"""The number that a `kind` leaves in the event's ``code``. Numbers are for ever: new kinds are added at the end."""

KIND_CODE_DERIVED: Final = 1 << 30
"""Any other kind gets this plus 30 bits of the BLAKE3 of its text: the same number in every file."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_NS: Final = 86_400_000_000_000


class CheckedSide(IntEnum):
    """Which balance of the result the bank's recorded balance is compared with."""

    NONE = 0
    DEBIT = 1
    CREDIT = 2


class ImportRow(NamedTuple):
    """One row: what was paid, and what the bank says the balance was afterwards. Amounts are in minor units."""

    line: int
    transaction_id: str
    day_ns: int
    debit: str
    credit: str
    amount: int
    currency: str
    decimals: int
    code: int
    checked_side: CheckedSide
    recorded_balance: int


class _Columns(NamedTuple):
    """Where each column stands in the file; None for an optional one that it does not have."""

    transaction_id: int
    date: int
    from_account: int
    to_account: int
    amount: int
    currency: int
    kind: int | None
    client_account: int | None
    recorded_balance: int | None


def kind_code(kind: str) -> int:
    """The number of a kind of transaction; see KIND_CODES."""
    known = KIND_CODES.get(kind)
    if known is not None:
        return known
    digest = int.from_bytes(blake3.blake3(kind.encode()).digest(length=4), "big")
    return KIND_CODE_DERIVED | digest >> 2


class ImportFile:
    """A CSV file, plain or compressed with gzip, whose rows can be read any number of times."""

    def __init__(self, path: Path, decimals: Mapping[str, int]) -> None:
        """`decimals` maps each registered currency to its decimals."""
        self.path = path
        self.decimals = decimals
        self.columns_ignored: tuple[str, ...] = ()
        """Columns that this importer does not know; filled when the header is read."""

        self._lines = _LineReader(path)
        self._days_ns: dict[str, int] = {}
        self._names_checked: set[str] = set()
        self._kind_codes: dict[str, int] = {}

    @property
    def bytes_read(self) -> int:
        """How far the reading has come, of `size_bytes`."""
        return self._lines.bytes_read

    @property
    def size_bytes(self) -> int:
        """The size of the file on disk. Raises `InputFileError`."""
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise self._unreadable(error) from error

    def check_header(self) -> None:
        """Raise `InputFileError` unless the file can be read and its first line names the columns."""
        for _ in self._read(header_only=True):
            pass

    def rows(self) -> Iterator[ImportRow]:
        """Read the file from its first row. Raises `InputFileError` with file and line."""
        return self._read(header_only=False)

    def _read(self, *, header_only: bool) -> Iterator[ImportRow]:
        lines = self._lines = _LineReader(self.path)
        reader = csv.reader(lines, strict=True)
        try:
            with lines:
                header = next(reader, None)
                columns = self._find_columns(header)
                if header_only:
                    return
                width = len(header or ())
                for cells in reader:
                    if not cells:
                        continue
                    if len(cells) != width:
                        raise InvalidAmountOrName(f"the row has {len(cells)} fields and the header {width}")
                    yield self._read_row(reader.line_num, cells, columns)
        except InvalidAmountOrName as error:
            raise self.error(max(reader.line_num, 1), str(error)) from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise self.error(lines.number, f"this is not CSV in UTF-8: {error}") from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.error(lines.number + 1, f"the compressed file is damaged or cut short: {error}") from error
        except OSError as error:
            raise self._unreadable(error) from error

    def error(self, line: int, message: str) -> InputFileError:
        """An error about one line of this file."""
        return InputFileError(f"{self.path}:{line}: {message}")

    def _unreadable(self, error: OSError) -> InputFileError:
        return InputFileError(f"{self.path}: cannot be read: {error.strerror or error}")

    def _find_columns(self, header: list[str] | None) -> _Columns:
        if header is None:
            raise InvalidAmountOrName(f"the file is empty; its first line must name {', '.join(COLUMNS_REQUIRED)}")
        missing = [name for name in COLUMNS_REQUIRED if name not in header]
        if missing:
            columns = "column" if len(missing) == 1 else "columns"
            raise InvalidAmountOrName(f"the first line does not name the {columns} {', '.join(missing)}")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise InvalidAmountOrName(f"the first line names the column {', '.join(twice)} twice")
        if "bank_recorded_balance" in header and "client_account" not in header:
            raise InvalidAmountOrName("bank_recorded_balance needs the column client_account: whose balance it is")
        known = {*COLUMNS_REQUIRED, *COLUMNS_OPTIONAL}
        self.columns_ignored = tuple(name for name in header if name not in known)
        place = {name: index for index, name in enumerate(header)}
        return _Columns(
            transaction_id=place["transaction_id"],
            date=place["date"],
            from_account=place["from_account"],
            to_account=place["to_account"],
            amount=place["amount"],
            currency=place["currency"],
            kind=place.get("kind"),
            client_account=place.get("client_account"),
            recorded_balance=place.get("bank_recorded_balance"),
        )

    def _read_row(self, line: int, cells: list[str], columns: _Columns) -> ImportRow:
        transaction_id = cells[columns.transaction_id]
        if not transaction_id:
            raise InvalidAmountOrName(
                "transaction_id is empty; without it a second import could not know the row again"
            )
        debit, credit, currency = cells[columns.from_account], cells[columns.to_account], cells[columns.currency]
        self._check_names(debit, credit)
        decimals = self.decimals.get(currency)
        if decimals is None:
            raise InvalidAmountOrName(
                f"the currency {currency!r} is not registered: bezant currencies add CODE DECIMALS"
            )
        amount = parse_amount(cells[columns.amount], decimals)
        if amount <= 0:
            raise InvalidAmountOrName(f"an amount must be above zero, not {cells[columns.amount]!r}")
        side, recorded = self._read_recorded_balance(cells, columns, decimals)
        return ImportRow(
            line,
            transaction_id,
            self._read_day(cells[columns.date]),
            debit,
            credit,
            amount,
            currency,
            decimals,
            self._read_kind(cells[columns.kind]) if columns.kind is not None else 0,
            side,
            recorded,
        )

    def _check_names(self, debit: str, credit: str) -> None:
        for name in (debit, credit):
            if name not in self._names_checked:
                check_name(name)
                self._names_checked.add(name)
        if debit == credit:
            raise InvalidAmountOrName(f"from_account and to_account are the same account: {debit!r}")

    def _read_recorded_balance(self, cells: list[str], columns: _Columns, decimals: int) -> tuple[CheckedSide, int]:
        if columns.recorded_balance is None or columns.client_account is None:
            return CheckedSide.NONE, 0
        text = cells[columns.recorded_balance]
        if not text:
            return CheckedSide.NONE, 0
        client = cells[columns.client_account]
        recorded = parse_amount(text, decimals)
        if client == cells[columns.from_account]:
            return CheckedSide.DEBIT, recorded
        if client == cells[columns.to_account]:
            return CheckedSide.CREDIT, recorded
        raise InvalidAmountOrName(f"client_account {client!r} is neither from_account nor to_account")

    def _read_kind(self, kind: str) -> int:
        code = self._kind_codes.get(kind)
        if code is None:
            code = self._kind_codes[kind] = kind_code(kind)
        return code

    def _read_day(self, text: str) -> int:
        """Midnight UTC of a date, in nanoseconds since 1970."""
        day_ns = self._days_ns.get(text)
        if day_ns is not None:
            return day_ns
        try:
            day = date.fromisoformat(text)
        except ValueError:
            day = None
        if day is None or len(text) != len("1993-01-01"):
            raise InvalidAmountOrName(f"a date is written like 1993-01-01, not {text!r}")
        day_ns = (day.toordinal() - _EPOCH_DAY) * _DAY_NS
        if not 0 <= day_ns < time.time_ns():
            raise InvalidAmountOrName(f"a date lies between 1970-01-01 and today, not {text}")
        self._days_ns[text] = day_ns
        return day_ns


class _LineReader:
    """The lines of a file as text, of bounded length, with the number of the last one; unzips what is zipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.BufferedReader | None = None
        self._stream: BinaryIO | None = None
        self.number = 0

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the disk so far, read-ahead included; 0 when the file is not open."""
        return self._file.tell() if self._file is not None else 0

    def __enter__(self) -> "_LineReader":
        self._file = self._path.open("rb")
        is_gzip = self._file.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] == _GZIP_MAGIC
        # The buffer matters: GzipFile.readline by itself costs several microseconds a line.
        self._stream = cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=self._file))) if is_gzip else self._file
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._stream, self._file):
            if stream is not None:
                stream.close()
        self._stream = self._file = None

    def __iter__(self) -> "_LineReader":
        return self

    def __next__(self) -> str:
        if self._stream is None:
            raise StopIteration
        line = self._stream.readline(LINE_SIZE_MAX + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LINE_SIZE_MAX:
            raise csv.Error(f"the line is longer than {LINE_SIZE_MAX} bytes")
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
