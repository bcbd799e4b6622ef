"""Where `bezant reconcile` takes events from: the reader of a running node, or the log in a data folder."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bezant.cli.reconciling import Booked, Statement
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import EVENT, id_bytes, id_words, position_of

if TYPE_CHECKING:
    import bezant
    from bezant.engine.log.entry import Entry

ACCOUNTS_ASKED_MAX: Final = 200
"""Accounts whose statements are asked for one by one; for more of them all transfers of the time are gone through."""
MOVING: Final = (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE, CommandKind.CAPTURE)
_NS_PER_S: Final = 10**9


async def of_node(wallet: "bezant.Wallet", statement: Statement) -> AsyncIterator[Booked]:
    """The events that a comparison needs, from a node. Raises what the wallet's history does."""
    start, end = _time(statement.start_ns), _time(statement.end_ns)
    met: set[bytes] = set()
    history = wallet.history
    if len(statement.subjects) <= ACCOUNTS_ASKED_MAX:
        for name, currency in statement.subjects.values():
            async for event in history.statement(name, currency, start=start, end=end):
                if event.kind in MOVING:
                    met.add(event.id)
                    yield _booked(event)
    else:
        async for event in history.transfers(kinds=MOVING, start=start, end=end):
            met.add(event.id)
            if event.debit in statement.subjects or event.credit in statement.subjects:
                yield _booked(event)
    for identifier in statement.by_id:
        # Also those that were refused, booked on another day, or between other accounts.
        if identifier not in met:
            for event in await history.transfer(identifier):
                if event.id == identifier and event.kind in MOVING:
                    yield _booked(event)


def _time(timestamp_ns: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ns // _NS_PER_S, UTC)


def _booked(event: "bezant.Event") -> Booked:
    return Booked(
        event.id,
        event.position,
        event.timestamp_ns,
        event.debit,
        event.credit,
        event.effective_amount if event.committed else event.amount,
        event.debit_balance,
        event.credit_balance,
        int(event.result),
    )


def currencies_of_folder(data: Path, on_progress: Callable[[int], None]) -> dict[str, int]:
    """Decimals of the currencies that the log in a data folder registers. Raises `StorageError` and its kinds."""
    decimals: dict[str, int] = {}
    for entry in _entries(data, on_progress):
        if entry.header.kind == EntryKind.CONTROL:
            decimals.update({known.code: known.decimals for known in decode_control_entry(entry.body).currencies})
    return decimals


def of_folder(data: Path, statement: Statement, on_progress: Callable[[int], None]) -> Iterator[Booked]:
    """The events that a comparison needs, from the log in a data folder, whose node may run. Raises as above."""
    heads = np.array(sorted({id_words(identifier)[0] for identifier in statement.by_id}), np.int64)
    accounts = np.array(sorted({id_words(account)[0] for account in statement.subjects}), np.int64)
    for entry in _entries(data, on_progress):
        if entry.header.kind != EntryKind.EVENTS:
            continue
        events = np.frombuffer(entry.body, EVENT)
        wanted = np.isin(events["id_head"], heads)
        wanted |= np.isin(events["debit_head"], accounts) | np.isin(events["credit_head"], accounts)
        wanted &= np.isin(events["kind"], [int(kind) for kind in MOVING])
        first = position_of(entry.header.shard, entry.header.first_sequence)
        for place in np.flatnonzero(wanted).tolist():
            booked = _booked_record(events[place], first + place)
            # The words above are a part of what they stand for.
            if booked.id in statement.by_id or not statement.subjects.keys().isdisjoint((booked.debit, booked.credit)):
                yield booked


def _booked_record(event: "np.void", position: int) -> Booked:
    result = int(event["result"])
    amount = int(event["effective_amount"] if result == ResultCode.COMMITTED else event["amount"])
    return Booked(
        id_bytes(event["id_head"], event["id_tail"]),
        position,
        int(event["timestamp_ns"]),
        id_bytes(event["debit_head"], event["debit_tail"]),
        id_bytes(event["credit_head"], event["credit_tail"]),
        amount,
        int(event["debit_balance"]),
        int(event["credit_balance"]),
        result,
    )


def _entries(data: Path, on_progress: Callable[[int], None]) -> "Iterator[Entry]":
    """Every entry of the log as far as it is committed, verified. `on_progress` is told the events done."""
    from bezant.engine.following import open_follower
    from bezant.engine.node_file import shard_of_folder
    from bezant.engine.replica import shard_directory

    shard = shard_of_folder(data)
    follower = open_follower(shard_directory(data, shard), shard)
    if follower is None:
        return
    try:
        follower.begin()
        while entries := follower.take():
            yield from entries
            on_progress(follower.last_sequence)
    finally:
        follower.close()
