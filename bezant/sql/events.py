"""The table ``events``: a row for each event, refused ones among them, in the order of the history.

``amount`` is what was asked for and ``effective_amount`` what came of it; ``moved`` is what went from the debit to the
credit account, and nothing else, so that sums of it are sums of money: 0 for holds, releases and refusals.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from bezant.engine.projections.layout import ACCOUNT_CURRENCY, ACCOUNT_NAME
from bezant.engine.tables.replaying import MOVES, Batch, Flags, Replay
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import COPY_OF, CommandFlag, CommandKind
from bezant.protocol.names import currency_word
from bezant.protocol.records import LIMIT_UNLIMITED, Words, position_of
from bezant.sql import arrays

_TRIES: Final = (CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART, CommandKind.PLAN)
_WITH_CREDIT: Final = (*MOVES, CommandKind.HOLD, *_TRIES, CommandKind.CANCEL)
_ENDS: Final = (CommandKind.CAPTURE, CommandKind.RELEASE, CommandKind.EXPIRE, CommandKind.CONFIRM, CommandKind.CANCEL)
_WITH_REFERENCE: Final = (*_ENDS, *_TRIES)
_WITH_LIMIT: Final = (CommandKind.OPEN, CommandKind.SET_LIMIT)
_WITH_AMOUNT: Final = (*MOVES, CommandKind.HOLD, CommandKind.RELEASE, CommandKind.EXPIRE, *_TRIES, CommandKind.CANCEL)
_ID: Final = pa.string()


class EventRows:
    """The rows of one batch: what columns are made of, each part once."""

    def __init__(self, replay: Replay, batch: Batch, shard: int, scale: int) -> None:
        self.events, self.scale = batch.events, scale
        self.debit, self.credit = batch.debit, batch.credit
        self.moves = batch.moves
        self.accounts = replay.tables.accounts
        self.sequences = np.arange(batch.first_sequence, batch.first_sequence + len(batch.events))
        self.first_position = position_of(shard, batch.first_sequence)
        self.codes = [*replay.tables.currencies]
        self._decimals = np.array([*replay.tables.currencies.values(), -1], np.int64)

    def is_kind(self, kinds: tuple[CommandKind, ...]) -> Flags:
        """Which events are of one of some kinds."""
        return np.isin(self.events["kind"], [int(kind) for kind in kinds])

    @cached_property
    def with_credit(self) -> Flags:
        """Which events name a credit account: in an OPEN the same bytes are a name."""
        return self.is_kind(_WITH_CREDIT)

    @cached_property
    def committed(self) -> Flags:
        """Which events were not refused."""
        return np.asarray(self.events["result"] == ResultCode.COMMITTED)

    @cached_property
    def currency(self) -> Words:
        """Numbers of the currencies of the debit accounts, or else of what is named or credited; -1 if none is."""
        numbers = self.currency_of(self.debit)
        credited = self.currency_of(np.where(self.with_credit, self.credit, -1))
        numbers = np.where(numbers < 0, credited, numbers)
        is_open = self.is_kind((CommandKind.OPEN,))
        if is_open.any():
            known = {currency_word(code): number for number, code in enumerate(self.codes)}
            words = self.events["currency"][is_open].tolist()
            numbers[is_open] = [known.get(word, -1) for word in words]
        return numbers

    def currency_of(self, numbers: Words) -> Words:
        """Numbers of the currencies of accounts; -1 for -1."""
        if not len(self.accounts):
            return np.full(len(numbers), -1)
        return np.where(numbers < 0, -1, self.accounts[numbers, ACCOUNT_CURRENCY])

    def decimals_of(self, currency: Words) -> Words:
        """Decimals of currencies by their numbers; -1 for -1."""
        return np.asarray(self._decimals[currency])

    def names(self, numbers: Words) -> Any:
        """Names of accounts by their numbers."""
        return arrays.names(self.accounts[:, ACCOUNT_NAME:], numbers)

    def pair(self, name: str, there: Flags | None = None) -> Any:
        """Ids that stand in the events."""
        return arrays.identifiers(self.events[f"{name}_head"], self.events[f"{name}_tail"], there)

    def minor(self, name: str) -> tuple[Words, Flags]:
        """Amounts of a column in minor units, and which rows have one."""
        events = self.events
        if name in ("amount", "effective_amount"):
            return events[name], self.is_kind(_WITH_AMOUNT)
        if name == "moved":
            return np.where(self.moves, events["effective_amount"], 0), np.ones(len(events), np.bool_)
        if name == "limit_amount":
            return events["amount"], self.is_kind(_WITH_LIMIT)
        if name.startswith("credit_"):
            return events[name], self.with_credit & (self.credit >= 0)
        return events[name], self.debit >= 0

    def money(self, name: str) -> Any:
        """The same as decimals; a limit without end is none."""
        minor, there = self.minor(name)
        currency = self.currency
        if name.startswith(("credit_", "debit_")):
            currency = self.currency_of(self.credit if name.startswith("credit_") else self.debit)
        if name == "limit_amount":
            there = there & (minor != LIMIT_UNLIMITED)
        return arrays.money(minor, self.decimals_of(currency), self.scale, there)


class Column(NamedTuple):
    """A column: its type (None: amounts of the table's scale) and how it is made."""

    kind: Any
    make: Callable[[EventRows], Any]


def _field(name: str, kind: Any, where: Callable[[EventRows], Flags] | None = None) -> Column:
    return Column(kind, lambda rows: arrays.integers(rows.events[name], kind, None if where is None else where(rows)))


def _flag(flag: CommandFlag) -> Column:
    return Column(pa.bool_(), lambda rows: arrays.booleans((rows.events["flags"] & int(flag)) != 0))


def _enumeration(name: str, values: type[CommandKind] | type[ResultCode]) -> Column:
    names = {int(value): value.name for value in values}
    if values is CommandKind:
        names |= {number + COPY_OF: f"COPY_OF_{name}" for number, name in names.items()}
    numbers = np.array(sorted(names))
    texts = [names[number] for number in numbers.tolist()]
    return Column(pa.string(), lambda rows: arrays.chosen(texts, np.searchsorted(numbers, rows.events[name])))


def _amount(name: str) -> dict[str, Column]:
    """An amount twice: as a decimal, and in minor units."""
    minor = f"{name.removesuffix('_amount') if name == 'limit_amount' else name}_minor"
    return {
        name: Column(None, lambda rows: rows.money(name)),
        minor: Column(pa.int64(), lambda rows: arrays.integers(*_typed(rows.minor(name)))),
    }


def _typed(minor: tuple[Words, Flags]) -> tuple[Words, Any, Flags]:
    return minor[0], pa.int64(), minor[1]


COLUMNS: Final[dict[str, Column]] = {
    "position": Column(
        pa.int64(),
        lambda rows: arrays.integers(rows.first_position + np.arange(len(rows.sequences)), pa.int64()),
    ),
    "sequence": Column(pa.int64(), lambda rows: arrays.integers(rows.sequences, pa.int64())),
    "time": _field("timestamp_ns", arrays.TIME),
    "kind": _enumeration("kind", CommandKind),
    "result": _enumeration("result", ResultCode),
    "committed": Column(pa.bool_(), lambda rows: arrays.booleans(rows.committed)),
    "id": Column(_ID, lambda rows: rows.pair("id")),
    "debit_id": Column(_ID, lambda rows: rows.pair("debit")),
    "debit": Column(pa.string(), lambda rows: rows.names(rows.debit)),
    "credit_id": Column(_ID, lambda rows: rows.pair("credit", rows.with_credit)),
    "credit": Column(pa.string(), lambda rows: rows.names(np.where(rows.with_credit, rows.credit, -1))),
    "currency": Column(pa.string(), lambda rows: arrays.chosen(rows.codes, rows.currency)),
    "decimals": Column(
        pa.int8(),
        lambda rows: arrays.integers(rows.decimals_of(rows.currency), pa.int8(), rows.currency >= 0),
    ),
    **_amount("amount"),
    **_amount("effective_amount"),
    **_amount("moved"),
    **_amount("limit_amount"),
    **_amount("debit_balance"),
    **_amount("debit_held"),
    **_amount("credit_balance"),
    **_amount("credit_held"),
    "code": _field("code", pa.int32()),
    "reference": Column(_ID, lambda rows: rows.pair("reference", rows.is_kind(_WITH_REFERENCE))),
    "user_data": Column(_ID, lambda rows: rows.pair("user_data", ~rows.is_kind((CommandKind.OPEN,)))),
    "timeout_ms": _field("timeout_ms", pa.int64(), lambda rows: rows.is_kind((CommandKind.HOLD, CommandKind.CANCEL))),
    "linked": _flag(CommandFlag.LINKED),
    "imported": _flag(CommandFlag.IMPORTED),
    "keep_open": _flag(CommandFlag.KEEP_OPEN),
    "debit_previous": _field("debit_previous", pa.int64(), lambda rows: rows.events["debit_previous"] != 0),
    "credit_previous": _field("credit_previous", pa.int64(), lambda rows: rows.events["credit_previous"] != 0),
}
"""The columns in order. Positions of the events before on each account are NULL where there is none."""


def schema(scale: int, columns: frozenset[str] | None = None) -> Any:
    """The schema of the table, or of some columns of it, in order."""
    kinds = {name: column.kind or arrays.money_type(scale) for name, column in COLUMNS.items()}
    return pa.schema([(name, kind) for name, kind in kinds.items() if columns is None or name in columns])


def record_batch(rows: EventRows, wanted: Any) -> Any:
    """The rows of a batch of events, in the columns of a schema of `schema`."""
    return pa.record_batch([COLUMNS[name].make(rows) for name in wanted.names], schema=wanted)
