"""Turns rows of a file into arrays of commands, one array to a frame. No network and no file here.

Three rules make a second import of the same file, or of a longer one that begins with it, change nothing:

- the id of a transfer is derived from (currency, transaction_id), that of an opening from (currency, name);
- a command's timestamp is midnight UTC of its row's date, or one nanosecond after the command before it if that is
  later: a function of the rows up to it, and of nothing else;
- an account is opened in front of the first row that names it, whether the ledger knows it already or not.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import blake3
import numpy as np
import numpy.typing as npt

from bezant.cli.import_file import ImportRow
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, NAME_SIZE_MAX, Records, Words

COMMANDS_PER_ROW_MAX: Final = 3
"""A row whose two accounts are both new takes two openings and one transfer."""

_ID_SIZE: Final = 16
_TRANSFER_ID_CONTEXT: Final = "bezant import: id of a transfer, version 1"
_OPEN_ID_CONTEXT: Final = "bezant import: id of an opening, version 1"
_NAME_FIELDS: Final = (
    "credit_head",
    "credit_tail",
    "reference_head",
    "reference_tail",
    "user_data_head",
    "user_data_tail",
)


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """The commands of one frame, and beside each what its result is to be compared with."""

    commands: Records
    is_open: npt.NDArray[np.bool_]
    lines: Words
    checked_side: Words
    recorded_balance: Words
    decimals: Words
    row_count: int
    rows_moved: int
    """Rows whose date is before that of a row in front of them; they carry a later time than midnight of their date."""


def transfer_id(currency: str, transaction_id: str) -> bytes:
    """The id of the transfer that an imported row becomes: the same in every run."""
    return _derive_id(_TRANSFER_ID_CONTEXT, currency, transaction_id)


def open_id(currency: str, name: str) -> bytes:
    """The id of the command that opens an account which an import meets."""
    return _derive_id(_OPEN_ID_CONTEXT, currency, name)


def _derive_id(context: str, currency: str, text: str) -> bytes:
    # A currency has no zero byte, so no two pairs can give the same bytes.
    return blake3.blake3(f"{currency}\0{text}".encode(), derive_key_context=context).digest(length=_ID_SIZE)


def build_batches(rows: Iterable[ImportRow], is_unlimited: Callable[[str], bool]) -> Iterator[ImportBatch]:
    """Make batches of at most BATCH_COUNT_MAX commands out of rows, in their order.

    `is_unlimited` says of an account's name whether it may go below zero without end. Remembers the id of every account
    that it meets, and so needs memory for as many accounts as the file names.
    """
    builder = _BatchBuilder(is_unlimited)
    for row in rows:
        if builder.count + COMMANDS_PER_ROW_MAX > BATCH_COUNT_MAX:
            yield builder.finish()
        builder.add(row)
    if builder.count:
        yield builder.finish()


class _BatchBuilder:
    """Collects columns as lists, because an append costs a tenth of a store into a NumPy record."""

    def __init__(self, is_unlimited: Callable[[str], bool]) -> None:
        self._is_unlimited = is_unlimited
        self._accounts: dict[tuple[str, str], bytes] = {}
        self._last_timestamp_ns = 0
        self._last_day_ns = 0
        self._clear()

    def _clear(self) -> None:
        self._ids: list[bytes] = []
        self._debits: list[bytes] = []
        self._credits: list[bytes] = []
        self._amounts: list[int] = []
        self._timestamps_ns: list[int] = []
        self._codes: list[int] = []
        self._lines: list[int] = []
        self._checked_sides: list[int] = []
        self._recorded_balances: list[int] = []
        self._decimals: list[int] = []
        self._opens: list[tuple[int, str, str]] = []
        self._rows_moved = 0

    @property
    def count(self) -> int:
        """Commands so far."""
        return len(self._ids)

    def add(self, row: ImportRow) -> None:
        """Append the commands of one row."""
        if row.day_ns < self._last_day_ns:
            self._rows_moved += 1
        self._last_day_ns = max(self._last_day_ns, row.day_ns)
        debit = self._account(row.debit, row)
        credit = self._account(row.credit, row)
        identifier = transfer_id(row.currency, row.transaction_id)
        self._append(identifier, debit, credit, row.amount, row)
        self._codes.append(row.code)
        self._checked_sides.append(row.checked_side)
        self._recorded_balances.append(row.recorded_balance)

    def _account(self, name: str, row: ImportRow) -> bytes:
        """The id of an account, with a command that opens it if it was not met before."""
        known = self._accounts.get((name, row.currency))
        if known is not None:
            return known
        account = self._accounts[name, row.currency] = account_id(name, row.currency)
        self._opens.append((self.count, name, row.currency))
        limit = LIMIT_UNLIMITED if self._is_unlimited(name) else 0
        # Where a transfer has its credit account, an opening has its name: `finish` writes it.
        self._append(open_id(row.currency, name), account, bytes(_ID_SIZE), limit, row)
        self._codes.append(0)
        self._checked_sides.append(0)
        self._recorded_balances.append(0)
        return account

    def _append(self, identifier: bytes, debit: bytes, credit: bytes, amount: int, row: ImportRow) -> None:
        self._last_timestamp_ns = max(self._last_timestamp_ns + 1, row.day_ns)
        self._ids.append(identifier)
        self._debits.append(debit)
        self._credits.append(credit)
        self._amounts.append(amount)
        self._timestamps_ns.append(self._last_timestamp_ns)
        self._lines.append(row.line)
        self._decimals.append(row.decimals)

    def finish(self) -> ImportBatch:
        """The batch of everything added since the last one."""
        commands = np.zeros(self.count, COMMAND)
        for field, identifiers in (("id", self._ids), ("debit", self._debits), ("credit", self._credits)):
            words = np.frombuffer(b"".join(identifiers), "<i8").reshape(-1, 2)
            commands[f"{field}_head"] = words[:, 0]
            commands[f"{field}_tail"] = words[:, 1]
        commands["amount"] = self._amounts
        commands["client_timestamp_ns"] = self._timestamps_ns
        commands["code"] = self._codes
        commands["flags"] = CommandFlag.IMPORTED
        commands["kind"] = CommandKind.TRANSFER
        is_open = np.zeros(self.count, np.bool_)
        for index, name, currency in self._opens:
            is_open[index] = True
            commands["kind"][index] = CommandKind.OPEN
            commands["currency"][index] = currency_word(currency)
            name_words = np.frombuffer(name.encode("ascii").ljust(NAME_SIZE_MAX, b"\0"), "<i8")
            for field, word in zip(_NAME_FIELDS, name_words, strict=True):
                commands[field][index] = word
        batch = ImportBatch(
            commands,
            is_open,
            np.array(self._lines, np.int64),
            np.array(self._checked_sides, np.int64),
            np.array(self._recorded_balances, np.int64),
            np.array(self._decimals, np.int64),
            row_count=self.count - len(self._opens),
            rows_moved=self._rows_moved,
        )
        self._clear()
        return batch
