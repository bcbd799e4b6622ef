"""Long histories, of thousands of commands, from a seed: deeper states than the machine reaches, and old repeats."""

from collections.abc import Callable, Iterator
from typing import Final

import numba
import numpy as np
import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.state import RULES_VERSION_FIRST
from bezant.engine.log import entry as log_entry
from bezant.engine.replay import replay_entry
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import CorruptLog
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.messages import ControlEntry, Currency, encode_message
from bezant.protocol.records import EVENT_SIZE, SEQUENCE_FIRST, Records

from .pair import Entry, Pair, Registration, commands_of, compare_records
from .tables import MAX, hold, open_account
from .writer import write_history

SEEDS: Final = range(2 if numba.config.DISABLE_JIT else 16)
CODES_OF_EVERY_HISTORY: Final = {
    Code.COMMITTED,
    Code.ACCOUNT_EXISTS,
    Code.DEBIT_ACCOUNT_UNKNOWN,
    Code.CREDIT_ACCOUNT_UNKNOWN,
    Code.INSUFFICIENT_FUNDS,
    Code.BALANCE_OVERFLOW,
    Code.HOLD_UNKNOWN,
    Code.HOLD_CAPTURED,
    Code.HOLD_RELEASED,
    Code.HOLD_EXPIRED,
    Code.CAPTURE_EXCEEDS_HOLD,
    Code.ACCOUNT_NOT_EMPTY,
    Code.ID_CONFLICT,
    Code.CHAIN_MEMBER_REFUSED,
    Code.CHAIN_MEMBER_NOT_EXECUTED,
    Code.CHAIN_REPEATED_IN_PART,
    Code.IMPORTED_TIMESTAMP_NOT_RISING,
    Code.IMPORTED_TIMESTAMP_IN_FUTURE,
}


@pytest.mark.parametrize("seed", SEEDS)
def test_long_histories(seed: int) -> None:
    pair, codes = write_history(seed, fetches=seed % 2 == 0)
    missing = CODES_OF_EVERY_HISTORY - {Code(code) for code in codes}
    assert not missing, "the history does not meet every code that it should"
    kinds = [event.command.kind for event in pair.model.events]
    assert kinds.count(CommandKind.EXPIRE) > 5
    if seed % 2 == 0:
        assert len(pair.fetched) > 50
    pair.replay()


def test_replay_gives_the_same_bytes_whatever_the_ledger_did_before() -> None:
    """A command's event follows from the history alone: not from repeats, refused commands or the size of tables."""
    pair, _ = write_history(99)
    plain, tiny, busy = (
        Ledger(shard=99, accounts_max=64, holds_max=64, ids_capacity_initial=capacity)
        for capacity in (1 << 12, 16, 256)
    )
    for part in pair.history:
        if isinstance(part, Registration):
            for ledger in (plain, tiny, busy):
                ledger.register_currency(part.code, part.decimals)
        elif len(part.events):
            commands = commands_of(part.events)
            for ledger in (plain, tiny, busy):
                compare_records("replayed event", ledger.execute(commands, part.timestamp_ns).events, part.events)
            next_timestamp_ns = busy.last_timestamp_ns + 1
            if 0 < busy.next_deadline_ns <= next_timestamp_ns:
                continue  # anything now would let a hold expire before its entry in the history comes
            repeated = busy.execute(commands, next_timestamp_ns)
            assert len(repeated.events) == 0
            sent = part.events[part.events["kind"] != CommandKind.EXPIRE]
            assert repeated.results["code"].tolist() == sent["result"].tolist()
    found = [ledger.digest() for ledger in (plain, tiny, busy, pair.ledger)]
    assert found.count(found[0]) == len(found)


# --- As a replica replays it


def entries_of(history: list[Entry | Registration]) -> Iterator[log_entry.Entry]:
    """The history as entries of a log."""
    sequence = SEQUENCE_FIRST
    for part in history:
        if isinstance(part, Registration):
            body = encode_message(ControlEntry(currencies=[Currency(part.code, part.decimals)]))
            yield log_entry.encode_entry(header_of(EntryKind.CONTROL, sequence, 10**15), body)
        elif len(part.events):
            header = header_of(EntryKind.EVENTS, sequence, part.timestamp_ns, len(part.events))
            yield log_entry.encode_entry(header, part.events.tobytes())
            sequence += len(part.events)


def header_of(kind: EntryKind, first_sequence: int, timestamp_ns: int, count: int = 0) -> log_entry.EntryHeader:
    """A header of which only what the replay looks at is filled in."""
    nothing = log_entry.EntryHeader(0, 0, 0, log_entry.HASH_NONE, *[0] * 11)
    return nothing._replace(
        kind=int(kind),
        first_sequence=first_sequence,
        timestamp_ns=timestamp_ns,
        count=count,
        body_size=count * EVENT_SIZE,
        rules_version=RULES_VERSION_FIRST,
    )


def new_ledger(shard: int) -> Ledger:
    return Ledger(shard=shard, accounts_max=64, holds_max=64, ids_capacity_initial=16)


def test_a_replica_replays_what_the_ledger_wrote() -> None:
    pair, _ = write_history(7)
    again = new_ledger(7)
    for entry in entries_of(pair.history):
        replay_entry(again, entry)
    assert again.digest() == pair.ledger.digest()


def without_last(events: Records) -> Records:
    return events[:-1]


def with_other_amount(events: Records) -> Records:
    events["amount"] += 1
    return events


def with_two_swapped(events: Records) -> Records:
    return events[::-1].copy()


def with_one_more(events: Records) -> Records:
    return np.concatenate([events, events[-1:]])


@pytest.mark.parametrize("forge", [without_last, with_other_amount, with_two_swapped, with_one_more])
def test_expiries_are_not_taken_from_the_history(forge: Callable[[Records], Records]) -> None:
    """A replay lets holds expire by itself: events that say otherwise are not believed."""
    pair = Pair()
    pair.register_currency("EUR", 2)
    pair.execute([open_account("ann", MAX), open_account("bob")], 1_000)
    pair.execute([hold("ann", "bob", amount, 1) for amount in (1, 2)], 2_000)
    pair.execute([], 3_000_000)
    *before, last = pair.history
    assert isinstance(last, Entry)
    assert last.events["kind"].tolist() == [CommandKind.EXPIRE] * 2
    forged = last._replace(events=forge(last.events.copy()))
    ledger = new_ledger(0)
    *good, bad = entries_of([*before, forged])
    for entry in good:
        replay_entry(ledger, entry)
    with pytest.raises(CorruptLog):
        replay_entry(ledger, bad)
