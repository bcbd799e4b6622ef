"""The tables ``accounts``, ``holds`` and ``currencies``: what there is at the end of a history, or was at a moment."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bezant.engine.projections.layout import (
    ACCOUNT_CURRENCY,
    ACCOUNT_HEAD,
    ACCOUNT_NAME,
    ACCOUNT_OPENED,
    ACCOUNT_TAIL,
)
from bezant.engine.tables.history import State
from bezant.engine.tables.replaying import Batch
from bezant.protocol.records import LIMIT_UNLIMITED, Words, position_of
from bezant.sql import arrays
from bezant.sql.events import EventRows

ROWS_AT_A_TIME: Final = 1 << 16
_NS_PER_MS: Final = 1_000_000
_NS_MAX: Final = 2**63 - 1


def _both(name: str, scale: int) -> list[tuple[str, Any]]:
    minor = "limit_minor" if name == "limit_amount" else f"{name}_minor"
    return [(name, arrays.money_type(scale)), (minor, pa.int64())]


def accounts_schema(scale: int) -> Any:
    """The columns of ``accounts``; ``limit_amount`` is NULL where the limit is without end."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("name", pa.string()),
            ("currency", pa.string()),
            ("decimals", pa.int8()),
            *_both("balance", scale),
            *_both("held", scale),
            *_both("limit_amount", scale),
            ("frozen", pa.bool_()),
            ("closed", pa.bool_()),
            ("opened_position", pa.int64()),
            ("opened_time", arrays.TIME),
            ("last_position", pa.int64()),
            ("event_count", pa.int64()),
        ]
    )


def holds_schema(scale: int) -> Any:
    """The columns of ``holds``; ``expires`` is NULL for a hold without end."""
    return pa.schema(
        [
            ("position", pa.int64()),
            ("time", arrays.TIME),
            ("id", pa.string()),
            ("debit_id", pa.string()),
            ("debit", pa.string()),
            ("credit_id", pa.string()),
            ("credit", pa.string()),
            ("currency", pa.string()),
            ("decimals", pa.int8()),
            *_both("amount", scale),
            *_both("remaining", scale),
            ("expires", arrays.TIME),
            ("code", pa.int32()),
            ("user_data", pa.string()),
        ]
    )


def currencies_schema(_scale: int) -> Any:
    """The columns of ``currencies``."""
    return pa.schema([("currency", pa.string()), ("decimals", pa.int8()), ("accounts", pa.int64())])


def accounts_batches(state: State, shard: int, scale: int) -> Iterator[Any]:
    """All accounts in the order of opening."""
    replay = state.replay
    codes, decimals_of = [*replay.tables.currencies], np.array([*replay.tables.currencies.values()], np.int64)
    for start in range(0, len(replay.states), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        rows, states = replay.tables.accounts[part], replay.states[part]
        currency = rows[:, ACCOUNT_CURRENCY]
        decimals = decimals_of[currency]
        limit = np.ascontiguousarray(states["limit"])
        yield pa.record_batch(
            [
                arrays.identifiers(rows[:, ACCOUNT_HEAD], rows[:, ACCOUNT_TAIL]),
                arrays.names(rows[:, ACCOUNT_NAME:], np.arange(len(rows))),
                arrays.chosen(codes, currency),
                arrays.integers(decimals, pa.int8()),
                arrays.money(states["balance"], decimals, scale),
                arrays.integers(states["balance"], pa.int64()),
                arrays.money(states["held"], decimals, scale),
                arrays.integers(states["held"], pa.int64()),
                arrays.money(limit, decimals, scale, limit != LIMIT_UNLIMITED),
                arrays.integers(limit, pa.int64()),
                arrays.booleans(np.ascontiguousarray(states["frozen"])),
                arrays.booleans(np.ascontiguousarray(states["closed"])),
                arrays.integers(positions(shard, rows[:, ACCOUNT_OPENED]), pa.int64()),
                arrays.integers(states["opened_ns"], arrays.TIME),
                arrays.integers(positions(shard, states["last_sequence"]), pa.int64()),
                arrays.integers(states["event_count"], pa.int64()),
            ],
            schema=accounts_schema(scale),
        )


def holds_batches(state: State, shard: int, scale: int) -> Iterator[Any]:
    """Open holds in the order in which they were made."""
    for start in range(0, len(state.hold_sequences), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        events, sequences = state.hold_events[part], state.hold_sequences[part]
        sides = [
            state.replay.tables.numbers_of(np.stack([events[f"{side}_head"], events[f"{side}_tail"]], axis=1))
            for side in ("debit", "credit")
        ]
        rows = EventRows(state.replay, Batch(0, events, *sides), shard, scale)
        decimals = rows.decimals_of(rows.currency)
        times, timeouts = events["timestamp_ns"], events["timeout_ms"]
        expires = (timeouts > 0) & (times <= _NS_MAX - timeouts * _NS_PER_MS)
        remaining = state.hold_remaining[part]
        yield pa.record_batch(
            [
                arrays.integers(positions(shard, sequences), pa.int64()),
                arrays.integers(times, arrays.TIME),
                rows.pair("id"),
                rows.pair("debit"),
                rows.names(rows.debit),
                rows.pair("credit"),
                rows.names(rows.credit),
                arrays.chosen(rows.codes, rows.currency),
                arrays.integers(decimals, pa.int8()),
                arrays.money(events["amount"], decimals, scale),
                arrays.integers(events["amount"], pa.int64()),
                arrays.money(remaining, decimals, scale),
                arrays.integers(remaining, pa.int64()),
                arrays.integers(times + np.where(expires, timeouts, 0) * _NS_PER_MS, arrays.TIME, expires),
                arrays.integers(events["code"], pa.int32()),
                rows.pair("user_data"),
            ],
            schema=holds_schema(scale),
        )


def currencies_batches(state: State, _shard: int, scale: int) -> Iterator[Any]:
    """All registered currencies in the order of registration, with how many accounts were opened in each."""
    currencies = state.replay.tables.currencies
    counts = np.bincount(state.replay.tables.accounts[:, ACCOUNT_CURRENCY], minlength=len(currencies))
    yield pa.record_batch(
        [
            pa.array([*currencies], pa.string()),
            pa.array([*currencies.values()], pa.int8()),
            arrays.integers(counts, pa.int64()),
        ],
        schema=currencies_schema(scale),
    )


def positions(shard: int, sequences: Words) -> Words:
    """Positions of events by their sequences, all above 0."""
    return np.asarray(sequences) + (position_of(shard, 1) - 1 if shard else 0)


STATES: Final[dict[str, tuple[Callable[[int], Any], Callable[[State, int, int], Iterator[Any]]]]] = {
    "accounts": (accounts_schema, accounts_batches),
    "holds": (holds_schema, holds_batches),
    "currencies": (currencies_schema, currencies_batches),
}
"""For each of these tables its schema, and its rows."""
