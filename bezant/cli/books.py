"""Where `bezant reconcile` takes events from: the readers of running nodes, or the logs in data folders."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bezant.cli.errors import InputWrong
from bezant.cli.halves import MOVING, PAYMENT_KINDS, Payments, accounts_unnamed, derive
from bezant.cli.reconciling import Booked, Statement
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import EVENT, Words, id_bytes, id_words, position_of
from bezant.protocol.transactions import Leg

if TYPE_CHECKING:
    import bezant
    from bezant.engine.log.entry import Entry
    from bezant.net.client.history import History

ACCOUNTS_ASKED_MAX: Final = 200
"""Accounts whose statements are asked for one by one; for more of them all transfers of the time are gone through."""
ACCOUNTS_AT_A_TIME: Final = 1000
"""Accounts that are looked up at a time."""
_NS_PER_S: Final = 10**9
_KINDS: Final = [int(kind) for kind in PAYMENT_KINDS]
_MOVING: Final = [int(kind) for kind in MOVING]
_OPENING: Final = [int(CommandKind.OPEN), int(CommandKind.MOVE_OPEN)]


async def of_node(wallet: "bezant.Wallet", statement: Statement, on_progress: Callable[[int], None]) -> list[Booked]:
    """What a comparison needs, from a node or, of shards, from one of each. Raises what the wallet's history does.

    `on_progress` is told the events that have been looked at.
    """
    payments = Payments(statement)
    history, seen = wallet.history, 0
    positions = await _last_positions(wallet, statement)
    for events in _asked(history, statement, positions):
        async for event in events:
            seen += 1
            if payments.wants(event):
                payments.add(event)
            on_progress(seen)
    for identifier in payments.tries_missing:
        # Tried before the time of the statement.
        await _add(history, payments, identifier)
    done = {payment.id for payment in payments.booked() if not payment.undone}
    for identifier in statement.by_id:
        # Also those that were refused, booked on another day, or between other accounts.
        if identifier not in done:
            await _add(history, payments, identifier)
            for _, debit in payments.parts_confirmed(identifier):
                await _add_given_back(history, payments, identifier, debit)
        on_progress(seen)
    booked = payments.booked()
    unnamed = accounts_unnamed(booked, statement.names)
    for first in range(0, len(unnamed), ACCOUNTS_AT_A_TIME):
        asked = unnamed[first : first + ACCOUNTS_AT_A_TIME]
        for identifier, account in zip(asked, await wallet.accounts_by_id(asked), strict=True):
            if account is not None:
                statement.names[identifier] = account.name
    return booked


async def _last_positions(wallet: "bezant.Wallet", statement: Statement) -> dict[bytes, int]:
    """Where the subjects were touched last, by those who lead: a reader may not have come as far yet."""
    ids, positions = list(statement.subjects), {}
    for first in range(0, len(ids), ACCOUNTS_AT_A_TIME):
        for account in await wallet.accounts_by_id(ids[first : first + ACCOUNTS_AT_A_TIME]):
            if account is not None:
                positions[account.id] = account.last_position
    return positions


def _asked(
    history: "History", statement: Statement, positions: dict[bytes, int]
) -> "Iterator[AsyncIterator[bezant.Event]]":
    start, end = _time(statement.start_ns), _time(statement.end_ns)
    if len(statement.subjects) > ACCOUNTS_ASKED_MAX:
        last = max(positions.values(), default=0)
        yield history.transfers(kinds=PAYMENT_KINDS, start=start, end=end, wait_for=last)
        return
    for identifier, (name, currency) in statement.subjects.items():
        yield history.statement(name, currency, start=start, end=end, wait_for=positions.get(identifier, 0))


async def _add(history: "History", payments: Payments, identifier: bytes) -> int:
    """Add the events with an id and those that end what has it; returns how many there are."""
    found = await history.transfer(identifier)
    for event in found:
        # What captured a hold is a payment with an id of its own.
        if event.kind not in MOVING or event.id == identifier:
            payments.add(event)
    return len(found)


async def _add_given_back(history: "History", payments: Payments, identifier: bytes, debit: bytes) -> None:
    """Add the tries to give back what a transaction had done, of which each has an id that follows from the last."""
    following = derive([(identifier, debit)], Leg.GIVE_BACK)[0]
    while await _add(history, payments, following):
        following = derive([(following, debit)], Leg.GIVE_BACK)[0]


def _time(timestamp_ns: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ns // _NS_PER_S, UTC)


def folders_of_shards(folders: Iterable[Path]) -> list[Path]:
    """One data folder of each shard: that whose log is the longest. Raises `InputWrong`, `StorageError`."""
    from bezant.engine.following import open_follower
    from bezant.engine.node_file import shard_of_folder
    from bezant.engine.replica import shard_directory

    longest: dict[int, tuple[int, int, Path]] = {}
    for folder in folders:
        shard = shard_of_folder(folder)
        follower = open_follower(shard_directory(folder, shard), shard)
        if follower is None:
            continue
        try:
            found = (follower.log_id, follower.published_index, folder)
        finally:
            follower.close()
        known = longest.setdefault(shard, found)
        if known[0] != found[0]:
            raise InputWrong(
                f"{known[2]} and {folder} both say that they are of shard {shard}, and have different logs",
                "name the folders of one ledger",
            )
        if known[1] < found[1]:
            longest[shard] = found
    return [folder for _, _, folder in longest.values()]


def currencies_of_folders(folders: Sequence[Path], on_progress: Callable[[int], None]) -> dict[str, int]:
    """Decimals of the currencies that the logs in data folders register. Raises `StorageError` and its kinds."""
    decimals: dict[str, int] = {}
    for entry in _entries(folders, on_progress):
        if entry.header.kind == EntryKind.CONTROL:
            decimals.update({known.code: known.decimals for known in decode_control_entry(entry.body).currencies})
    return decimals


def of_folders(folders: Sequence[Path], statement: Statement, on_progress: Callable[[int], None]) -> list[Booked]:
    """What a comparison needs, from the logs in data folders, whose nodes may run. Raises as above."""
    from bezant.net.client.results import pushed_event_of

    payments = Payments(statement)
    heads = _heads(payments.ids)
    subjects, accounts = _heads(statement.subjects), _heads(statement.names)
    for entry in _entries(folders, on_progress):
        if entry.header.kind != EntryKind.EVENTS:
            continue
        events = np.frombuffer(entry.body, EVENT)
        wanted = np.isin(events["debit_head"], accounts) | np.isin(events["credit_head"], accounts)
        is_subject = np.isin(events["debit_head"], subjects) | np.isin(events["credit_head"], subjects)
        wanted = np.where(np.isin(events["kind"], _MOVING), is_subject, wanted)
        wanted |= np.isin(events["id_head"], heads) | np.isin(events["reference_head"], heads)
        wanted &= np.isin(events["kind"], _KINDS)
        first = position_of(entry.header.shard, entry.header.first_sequence)
        for place in np.flatnonzero(wanted).tolist():
            event = pushed_event_of(first + place, events[place].tobytes(), "", 0)
            # The words above are a part of what they stand for.
            if payments.wants(event):
                payments.add(event)
    booked = payments.booked()
    statement.names.update(_names_of(folders, accounts_unnamed(booked, statement.names), on_progress))
    return booked


def _heads(ids: Iterable[bytes]) -> Words:
    return np.array(sorted({id_words(identifier)[0] for identifier in ids}), np.int64)


def _names_of(
    folders: Sequence[Path], accounts: Sequence[bytes], on_progress: Callable[[int], None]
) -> dict[bytes, str]:
    """The names of accounts that these books have opened."""
    names: dict[bytes, str] = {}
    heads = _heads(accounts)
    for entry in _entries(folders, on_progress) if accounts else ():
        if entry.header.kind != EntryKind.EVENTS:
            continue
        events = np.frombuffer(entry.body, EVENT)
        wanted = np.isin(events["debit_head"], heads) & np.isin(events["kind"], _OPENING)
        for event in events[wanted]:
            account = id_bytes(event["debit_head"], event["debit_tail"])
            words = (
                event[f"{field}_{part}"] for field in ("credit", "reference", "user_data") for part in ("head", "tail")
            )
            name = np.array(list(words), "<i8").tobytes().rstrip(b"\0").decode("ascii", "replace")
            names[account] = name
    return {account: names[account] for account in accounts if account in names}


def _entries(folders: Sequence[Path], on_progress: Callable[[int], None]) -> "Iterator[Entry]":
    """Every entry of logs as far as they are committed, verified. `on_progress` is told the events done."""
    from bezant.engine.following import open_follower
    from bezant.engine.node_file import shard_of_folder
    from bezant.engine.replica import shard_directory

    done = 0
    for folder in folders:
        shard = shard_of_folder(folder)
        follower = open_follower(shard_directory(folder, shard), shard)
        if follower is None:
            continue
        try:
            follower.begin()
            while entries := follower.take():
                yield from entries
                on_progress(done + follower.last_sequence)
            done += follower.last_sequence
        finally:
            follower.close()
