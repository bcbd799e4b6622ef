"""Compares the rows of a statement with what the books have, row by row. No network and no file here.

A row belongs to the event with its id: the one that an import derives from currency and transaction_id or, if that is
32 hexadecimal digits, the id itself. What is compared is who paid whom, how much, on which day and, where the statement
has it, the balance afterwards. The statement is about its *subjects*, some accounts, and some days: an event of theirs
in that time that no row belongs to is extra.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from bezant.cli.errors import InputWrong
from bezant.cli.import_batches import transfer_id
from bezant.cli.import_file import CheckedSide, ImportRow
from bezant.protocol.money import format_amount
from bezant.protocol.names import account_id

DAY_NS: Final = 86_400_000_000_000
ROWS_MAX: Final = 5_000_000
"""Rows of one statement: all of them are in memory, some 500 bytes each."""
_ID_DIGITS: Final = 32


class Booked(NamedTuple):
    """A payment that moved money, or was to: of the books. Amounts in minor units, accounts and ids of 16 bytes.

    Between shards, `id` is that of the transfer or leg or, where only the half that came in is known, of that half;
    a balance is None if its half is in the books of another shard, or has not come in yet.
    """

    id: bytes
    position: int
    timestamp_ns: int
    debit: bytes
    credit: bytes
    amount: int
    debit_balance: int | None
    credit_balance: int | None
    undone: str = ""
    """Why it moved nothing, in words; empty if it did."""
    arrived_ns: int | None = None
    """When it came in, if that is another shard's time than when it left."""


class Difference(NamedTuple):
    """One thing that does not agree. `line` is 0, and `transaction_id` the id, for what only the books have."""

    what: str
    line: int
    transaction_id: str
    field: str
    statement: str
    books: str


class Statement:
    """The rows of a statement, by the ids that their events have."""

    def __init__(
        self,
        rows: Iterable[ImportRow],
        subjects: Iterable[str] = (),
        is_outside: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`subjects`: names of whom it is about; if nobody is named, whose balances it has or, in a row without one,
        both accounts but for those that are outside. Raises `InputWrong` for too many rows."""
        named = frozenset(subjects)
        self.rows: list[ImportRow] = []
        self.subjects: dict[bytes, tuple[str, str]] = {}
        """Names and currencies of the accounts that it is about, by their ids."""
        self.names: dict[bytes, str] = {}
        self.decimals: dict[bytes, int] = {}
        self.by_id: dict[bytes, int] = {}
        """Numbers of rows, by each id that their events may have."""
        self.own_ids: set[bytes] = set()
        """Those of them that a row says itself. What is imported never goes between shards."""
        self.repeated: list[ImportRow] = []
        for row in rows:
            self._add(row, named, is_outside)
            if len(self.rows) > ROWS_MAX:
                raise InputWrong(f"a statement has {ROWS_MAX:,} rows at most", "split it, by days for example")
        days = [row.day_ns for row in self.rows]
        self.start_ns = min(days, default=0)
        self.end_ns = max(days, default=-DAY_NS) + DAY_NS
        """What is extra lies from `start_ns` on and before `end_ns`."""

    def _add(self, row: ImportRow, named: frozenset[str], is_outside: Callable[[str], bool]) -> None:
        identifier = transfer_id(row.currency, row.transaction_id)
        if identifier in self.by_id:
            self.repeated.append(row)
            return
        number = len(self.rows)
        self.rows.append(row)
        self.by_id[identifier] = number
        own = _own_id(row.transaction_id)
        if own is not None and self.by_id.setdefault(own, number) == number:
            self.own_ids.add(own)
        for name, side in ((row.debit, CheckedSide.DEBIT), (row.credit, CheckedSide.CREDIT)):
            account = account_id(name, row.currency)
            self.names[account] = name
            self.decimals[account] = row.decimals
            is_subject = row.checked_side == side or (row.checked_side == CheckedSide.NONE and not is_outside(name))
            if name in named if named else is_subject:
                self.subjects[account] = (name, row.currency)


def _own_id(text: str) -> bytes | None:
    """The id that a transaction_id is by itself; None if it is none."""
    try:
        return bytes.fromhex(text) if len(text) == _ID_DIGITS and not any(map(str.isspace, text)) else None
    except ValueError:
        return None


class Comparison(NamedTuple):
    """What a comparison has found: rows that agree in everything, and all that does not."""

    agreeing: int
    differences: list[Difference]


def compare(statement: Statement, booked: Iterable[Booked]) -> Comparison:
    """Compare; `booked` are the events that have an id of a row, and those of the subjects in the statement's time.

    Each may be there more than once.
    """
    found: dict[int, Booked] = {}
    extra: dict[int, Booked] = {}
    for event in booked:
        number = statement.by_id.get(event.id)
        if number is not None:
            before = found.get(number)
            if before is None or (not _is_of(statement.rows[number], before) and before.position != event.position):
                found[number] = event
        elif not event.undone and _is_in_time(statement, event):
            extra[event.position] = event
    differences: list[Difference] = []
    agreeing = 0
    for number, row in enumerate(statement.rows):
        of_row = list(_compare_row(statement, row, found.get(number)))
        agreeing += not of_row
        differences += of_row
    differences += [
        _difference("repeated", row, "transaction_id", row.transaction_id, "") for row in statement.repeated
    ]
    differences += [_extra(statement, extra[position]) for position in sorted(extra)]
    return Comparison(agreeing, differences)


def _is_in_time(statement: Statement, event: Booked) -> bool:
    """Whether a subject's side of it lies in the statement's time."""
    sides = ((event.debit, event.timestamp_ns), (event.credit, _arrived_ns(event)))
    return any(account in statement.subjects and statement.start_ns <= at < statement.end_ns for account, at in sides)


def _arrived_ns(event: Booked) -> int:
    return event.timestamp_ns if event.arrived_ns is None else event.arrived_ns


def _is_of(row: ImportRow, event: Booked) -> bool:
    return event.debit == account_id(row.debit, row.currency) and event.credit == account_id(row.credit, row.currency)


def _compare_row(statement: Statement, row: ImportRow, event: Booked | None) -> Iterator[Difference]:
    if event is None:
        yield _difference("missing", row, "", describe_row(row), "")
        return
    if event.undone:
        yield _difference("missing", row, "", describe_row(row), event.undone)
        return
    debit, credit = account_id(row.debit, row.currency), account_id(row.credit, row.currency)
    for field, name, wanted, is_there in (
        ("from_account", row.debit, debit, event.debit),
        ("to_account", row.credit, credit, event.credit),
    ):
        if wanted != is_there:
            yield _difference("different", row, field, name, statement.names.get(is_there, is_there.hex()))
    if event.amount != row.amount:
        yield _amounts(row, "amount", row.amount, event.amount)
    if row.day_ns // DAY_NS not in {event.timestamp_ns // DAY_NS, _arrived_ns(event) // DAY_NS}:
        yield _difference("different", row, "date", day_text(row.day_ns), day_text(event.timestamp_ns))
    balance = event.debit_balance if row.checked_side == CheckedSide.DEBIT else event.credit_balance
    if row.checked_side != CheckedSide.NONE and balance is not None and balance != row.recorded_balance:
        yield _amounts(row, "balance", row.recorded_balance, balance)


def _amounts(row: ImportRow, field: str, statement: int, books: int) -> Difference:
    told = (format_amount(statement, row.decimals), format_amount(books, row.decimals))
    return _difference("different", row, field, *told)


def _difference(what: str, row: ImportRow, field: str, statement: str, books: str) -> Difference:
    return Difference(what, row.line, row.transaction_id, field, statement, books)


def _extra(statement: Statement, event: Booked) -> Difference:
    # One of its accounts is a subject, or it would be of no interest.
    account = event.debit if event.debit in statement.subjects else event.credit
    _, currency = statement.subjects[account]
    amount = format_amount(event.amount, statement.decimals[account])
    debit, credit = (statement.names.get(account, account.hex()) for account in (event.debit, event.credit))
    told = f"{day_text(event.timestamp_ns)} {amount} {currency} from {debit} to {credit}"
    return Difference("extra", 0, event.id.hex(), "", "", told)


def describe_row(row: ImportRow) -> str:
    """A row in words."""
    amount = format_amount(row.amount, row.decimals)
    return f"{day_text(row.day_ns)} {amount} {row.currency} from {row.debit} to {row.credit}"


def day_text(timestamp_ns: int) -> str:
    """The day (UTC) of a time."""
    return datetime.fromtimestamp(timestamp_ns // 10**9, UTC).date().isoformat()
