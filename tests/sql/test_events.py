"""Claim: the tables say of any history what a plain replay of it does, and only what moved counts as money."""

from collections import defaultdict
from typing import Any, Final

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bezant.engine.compiled import COMPILED
from bezant.engine.projections.layout import ACCOUNT_HEAD, ACCOUNT_TAIL, HOLD_REMAINING, HOLD_SEQUENCE
from bezant.engine.tables.history import State
from bezant.engine.tables.replaying import Replay
from bezant.protocol.records import LIMIT_UNLIMITED, id_bytes, position_of
from bezant.sql import events as event_table
from bezant.sql.states import accounts_batches, holds_batches

from ..engine.ledger import strategies as drawn
from ..engine.ledger.pair import Pair, Registration
from ..engine.ledger.test_machine import fund, send
from ..engine.ledger.writer import write_history
from ..engine.projections.naive import MOVES, states_of

SCALE: Final = 18


def replayed(pair: Pair, size: int) -> tuple[Replay, list[dict[str, Any]]]:
    """The rows of all events, taken in by so many at a time, and the replay behind them."""
    replay, rows = Replay(), []
    schema = event_table.schema(SCALE)
    for part in pair.history:
        if isinstance(part, Registration):
            replay.tables.register_currency(part.code, part.decimals)
            continue
        for start in range(0, len(part.events), size):
            batch = replay.take(part.events[start : start + size].copy())
            made = event_table.record_batch(event_table.EventRows(replay, batch, pair.shard, SCALE), schema)
            assert made.schema == schema
            times = schema.get_field_index("time")
            rows += made.set_column(times, "time", made.column(times).cast("int64")).to_pylist()
    return replay, rows


def check(pair: Pair, size: int) -> None:
    replay, rows = replayed(pair, size)
    events = np.concatenate([part.events for part in pair.history if not isinstance(part, Registration)])
    last = states_of(events, len(events))[len(events)]
    moved: dict[str, int] = defaultdict(int)
    for sequence, (row, event) in enumerate(zip(rows, events, strict=True), 1):
        assert row["position"] == position_of(pair.shard, sequence)
        assert (row["sequence"], row["time"]) == (sequence, event["timestamp_ns"])
        is_move = event["result"] == 0 and event["kind"] in MOVES
        assert row["moved_minor"] == (event["effective_amount"] if is_move else 0)
        assert row["committed"] == (event["result"] == 0)
        if row["moved"] is not None and row["decimals"] is not None:
            assert int(row["moved"].scaleb(row["decimals"])) == row["moved_minor"]
        moved[row["debit_id"]] -= row["moved_minor"]
        if is_move:
            moved[row["credit_id"]] += row["moved_minor"]
            assert row["credit_balance_minor"] == event["credit_balance"]
    accounts = [row for batch in accounts_batches(_state(replay, events), pair.shard, SCALE) for row in _plain(batch)]
    assert len(accounts) == len(last.accounts)
    sums: dict[str, int] = defaultdict(int)
    for row, account in zip(accounts, last.accounts.values(), strict=True):
        assert row["id"] == id_bytes(*account.identifier).hex()
        assert (row["name"], row["currency"]) == (account.name.decode(), account.currency)
        assert (row["balance_minor"], row["held_minor"]) == (account.balance, account.held)
        assert int(row["balance"].scaleb(row["decimals"])) == account.balance
        assert row["limit_minor"] == account.limit
        assert (row["limit_amount"] is None) == (account.limit == LIMIT_UNLIMITED)
        assert row["frozen"] + 2 * row["closed"] == account.flags
        assert row["event_count"] == len(account.touched)
        assert row["last_position"] == position_of(pair.shard, account.touched[-1])
        assert row["opened_position"] == position_of(pair.shard, account.opened)
        assert moved[row["id"]] == account.balance  # sums over events are the balances of the ledger
        sums[account.currency] += account.balance
    assert all(total == 0 for total in sums.values())
    holds = [row for batch in holds_batches(_state(replay, events), pair.shard, SCALE) for row in _plain(batch)]
    found = [(row["position"], row["remaining_minor"]) for row in holds]
    assert found == [(position_of(pair.shard, sequence), left) for sequence, left in sorted(last.holds.values())]


def _state(replay: Replay, events: Any) -> State:
    holds = replay.tables.holds
    holds = holds[holds[:, HOLD_SEQUENCE] > 0]
    holds = holds[np.argsort(holds[:, HOLD_SEQUENCE])]
    sequences = holds[:, HOLD_SEQUENCE]
    return State(replay, sequences, events[sequences - 1], holds[:, HOLD_REMAINING])


def _plain(batch: Any) -> list[dict[str, Any]]:
    names = [name for name in batch.schema.names if name not in ("time", "opened_time", "expires")]
    return batch.select(names).to_pylist()


def test_a_long_history_with_an_account_known_only_from_its_opening_on() -> None:
    pair, _ = write_history(1, fetches=False)
    check(pair, 7)
    replay, rows = replayed(pair, 1 << 14)
    assert rows == replayed(pair, 3)[1]  # whatever the batches
    ids = {id_bytes(int(row[ACCOUNT_HEAD]), int(row[ACCOUNT_TAIL])).hex() for row in replay.tables.accounts}
    assert {row["debit_id"] for row in rows if row["debit"] is not None} <= ids
    assert any(not row["committed"] and row["amount_minor"] for row in rows)


@settings(deadline=None, print_blob=True, max_examples=10 if COMPILED else 2, suppress_health_check=list(HealthCheck))
@given(entries=st.lists(st.tuples(drawn.entries(), drawn.gaps), max_size=6), size=st.integers(1, 40))
def test_any_history(entries: list[tuple[list[drawn.Group], drawn.Gap]], size: int) -> None:
    pair = Pair(fetches=False)
    for code, decimals in drawn.CURRENCIES.items():
        pair.register_currency(code, decimals)
    fund(pair)
    for groups, gap in entries:
        send(pair, groups, gap)
    check(pair, size)
