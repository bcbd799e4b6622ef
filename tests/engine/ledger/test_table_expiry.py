"""Holds with a timeout: when they expire, in which order, how many at once, and what that leaves."""

from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Final

import numba
import pytest

from bezant.engine.ledger.ledger import TIMESTAMP_NS_MAX, Ledger
from bezant.engine.ledger.state import EXPIRES_PER_ENTRY_MAX
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError
from bezant.protocol.kinds import TIMEOUT_MS_MAX, CommandKind
from bezant.protocol.records import Records

from .model_records import Command, encode_commands
from .pair import Pair
from .tables import (
    MAX,
    Books,
    Expiry,
    Subject,
    capture,
    capture_open,
    chain,
    close,
    freeze,
    hold,
    id_of,
    imported,
    open_account,
    release,
    row,
    transfer,
    transfer_available,
)

MS: Final = 1_000_000
"""Nanoseconds."""
HOLDS_COUNT: Final = 3_000
HELD, OTHER = id_of(1), id_of(2)
MADE_NS: Final = 5_000
NAMES: Final = ("ann", "bob", "world")


@pytest.fixture
def funded(make_subject: Callable[..., Subject]) -> Books:
    """``ann`` has 100 and ``bob`` nothing; every entry comes at the time that its test says."""
    books = Books(make_subject(accounts_max=64, holds_max=2 * EXPIRES_PER_ENTRY_MAX), apart=False)
    books.fund(ann=100, bob=0)
    return books


def expire(books: Books, at: int) -> Records:
    """The events of an entry without commands."""
    executed = books.subject.execute(encode_commands([]), at)
    assert set(executed.events["kind"].tolist()) <= {CommandKind.EXPIRE}
    books.subject.check_invariants()
    return executed.events


def test_up_to_the_deadline_and_not_at_it(funded: Books) -> None:
    """The deadline counts from the event of the HOLD, here the second of its entry."""
    held = hold("ann", "bob", 60, 1, id=HELD)
    funded.run(transfer("ann", "bob", 1), held, at=MADE_NS)
    deadline_ns = MADE_NS + 1 + MS
    assert (funded.subject.holds_with_deadline, funded.subject.next_deadline_ns) == (1, deadline_ns)
    funded.check_entry([row(capture_open("ann", "bob", HELD, 9), Code.COMMITTED, 90, 10, held=51)], at=deadline_ns - 1)
    rows = [
        row(capture("ann", "bob", HELD), Code.HOLD_EXPIRED, 90, 10),
        row(release("ann", HELD), Code.HOLD_EXPIRED, 90),
        row(capture("ann", "world", HELD), Code.HOLD_EXPIRED, 90, -100),
        row(transfer("ann", "bob", 90), Code.COMMITTED, 0, 100),
        row(held, Code.COMMITTED, 99, 1, held=60, repeated=True),
    ]
    executed = funded.check_entry(rows, at=deadline_ns, expired=[Expiry(held, 51, debit=90, credit=10)])
    assert executed.events["timestamp_ns"].tolist() == [deadline_ns + number for number in range(5)]
    assert (funded.subject.hold_count, funded.subject.holds_with_deadline, funded.subject.next_deadline_ns) == (0, 0, 0)


@pytest.mark.parametrize("make", [capture, release])
def test_what_is_closed_in_time_does_not_expire(funded: Books, make: Callable[..., Command]) -> None:
    funded.run(hold("ann", "bob", 60, 1, id=HELD), at=MADE_NS)
    command = release("ann", HELD) if make is release else capture("ann", "bob", HELD)
    funded.check_entry([row(command)], at=MADE_NS + 1, balances=False)
    assert len(funded.check_entry([], at=MADE_NS + 2 * MS).events) == 0
    funded.check_entry(
        [row(release("ann", HELD), Code.HOLD_RELEASED if make is release else Code.HOLD_CAPTURED)], balances=False
    )


def test_without_timeout_a_hold_never_expires(funded: Books) -> None:
    funded.run(hold("ann", "bob", 60, id=HELD), at=MADE_NS)
    assert (funded.subject.hold_count, funded.subject.holds_with_deadline) == (1, 0)
    rows = [row(capture("ann", "bob", HELD), Code.COMMITTED, 40, 60, effective=60)]
    funded.check_entry(rows, at=TIMESTAMP_NS_MAX)


def test_in_the_order_of_deadlines_and_then_of_sequences(funded: Books) -> None:
    """An imported hold counts from its own time, so the deadlines are in another order than the holds."""
    funded.run(*(imported(hold("ann", "bob", amount, 2), MADE_NS + amount) for amount in (1, 2)), at=MADE_NS + 100)
    late, early, middle = (hold("ann", "bob", amount, timeout_ms) for amount, timeout_ms in ((3, 3), (4, 1), (5, 2)))
    funded.run(late, early, middle, at=MADE_NS + 200)
    events = expire(funded, MADE_NS + 10 * MS)
    assert events["amount"].tolist() == [4, 1, 2, 5, 3]
    assert events["debit_held"].tolist() == [11, 10, 8, 3, 0]


def test_equal_deadlines_in_the_order_of_sequences(funded: Books) -> None:
    """A hold that is a nanosecond later has as much less time: events of one entry differ by a nanosecond each."""
    first = funded.run(imported(hold("ann", "bob", 1, 2), MADE_NS), at=MADE_NS + 1)
    funded.run(hold("ann", "bob", 2, 1), hold("ann", "bob", 3, 1), at=MADE_NS + MS)
    assert first.events["timestamp_ns"].tolist() == [MADE_NS]
    assert expire(funded, MADE_NS + 2 * MS)["amount"].tolist() == [1, 2]
    assert expire(funded, MADE_NS + 2 * MS + 2)["amount"].tolist() == [3]


def test_holds_of_frozen_and_closed_accounts_expire_too(funded: Books) -> None:
    held = hold("ann", "bob", 60, 1, id=HELD)
    funded.run(held, freeze("ann"), close("bob"), at=MADE_NS)
    funded.check_entry([], at=MADE_NS + MS, expired=[Expiry(held, 60, debit=100)])


def test_an_expiry_is_on_the_chain_of_the_debit_account_alone(funded: Books) -> None:
    held, other = hold("ann", "bob", 60, 1, id=HELD), hold("ann", "world", 5, 1, id=OTHER)
    funded.run(held, other, at=MADE_NS)
    before = [(int(funded.find(name)["event_count"]), int(funded.find(name)["last_position"])) for name in NAMES]
    sequence = funded.subject.next_sequence
    expired = [Expiry(held, 60, debit=100, held=5), Expiry(other, 5, debit=100, credit=-100)]
    events = funded.check_entry([], at=MADE_NS + 2 * MS, expired=expired).events
    previous = [before[0][1], funded.position(sequence)]
    assert events["debit_previous"].tolist() == previous
    after = [(int(funded.find(name)["event_count"]), int(funded.find(name)["last_position"])) for name in NAMES]
    assert after == [(before[0][0] + 2, funded.position(sequence + 1)), *before[1:]]


def test_an_expiry_takes_the_time_of_its_entry(funded: Books) -> None:
    """So nothing can be imported behind one, and commands that are refused do not hold it up."""
    held = hold("ann", "bob", 60, 1, id=HELD)
    funded.run(held, at=MADE_NS)
    at = MADE_NS + 2 * MS
    rows = [
        row(imported(transfer("ann", "bob", 1), at - 1), Code.IMPORTED_TIMESTAMP_NOT_RISING),
        row(transfer("ann", "bob", 1), Code.STORAGE_FULL),
        row(transfer("ann", "ann", 1), Code.ACCOUNTS_EQUAL),
    ]
    events = funded.check_entry(
        rows, at=at, preset=[0, Code.STORAGE_FULL, 0], expired=[Expiry(held, 60, debit=100)]
    ).events
    assert events["timestamp_ns"].tolist() == [at]
    assert funded.subject.last_timestamp_ns == at


def test_an_imported_hold_may_be_due_when_it_is_made(funded: Books) -> None:
    """It expires with the next entry; until then it is held, and cannot be had."""
    due = imported(hold("ann", "bob", 60, 1, id=HELD), MADE_NS)
    rows = [
        row(due, Code.COMMITTED, 100, 0, held=60),
        row(imported(capture("ann", "bob", HELD), MADE_NS + 1), Code.HOLD_EXPIRED, 100, 0, held=60),
        row(release("ann", HELD), Code.HOLD_EXPIRED, 100, held=60),
        row(capture("ann", "world", HELD), Code.HOLD_OF_OTHER_ACCOUNTS, 100, -100, held=60),
        row(transfer_available("ann", "bob", MAX), Code.COMMITTED, 60, 40, held=60, effective=40),
        *chain(
            [
                row(transfer("world", "ann", 1), Code.CHAIN_MEMBER_REFUSED, -100, 60, credit_held=60),
                row(capture("ann", "bob", HELD), Code.HOLD_EXPIRED, 60, 40, held=60),
            ]
        ),
    ]
    funded.check_entry(rows, at=MADE_NS + MS)
    rows = [row(capture("ann", "bob", HELD), Code.HOLD_EXPIRED, 60, 40)]
    funded.check_entry(rows, expired=[Expiry(due, 60, debit=60, credit=40)])


def test_an_imported_hold_that_is_not_due(funded: Books) -> None:
    funded.run(imported(hold("ann", "bob", 60, 1, id=HELD), MADE_NS), at=MADE_NS + MS - 2)
    funded.check_entry([row(capture("ann", "bob", HELD), Code.COMMITTED, 40, 60, effective=60)], at=MADE_NS + MS - 1)


def test_the_largest_timeout_at_the_latest_time() -> None:
    """A deadline beyond 64 bits would be a negative one: due at once."""
    ledger = Ledger(accounts_max=4, holds_max=4, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    ledger.execute(encode_commands([open_account("ann", MAX), open_account("bob")]), 1)
    held = encode_commands([hold("ann", "bob", 1, TIMEOUT_MS_MAX)])
    assert ledger.execute(held, TIMESTAMP_NS_MAX).results["code"].tolist() == [Code.COMMITTED]
    assert ledger.next_deadline_ns == TIMESTAMP_NS_MAX + TIMEOUT_MS_MAX * MS < 2**63
    with pytest.raises(LedgerError, match="2160"):
        ledger.execute(held, TIMESTAMP_NS_MAX + 1)


# --- More than expire at once


def test_at_most_so_many_expire_in_an_entry(funded: Books) -> None:
    """Those that must wait are still held, but can no longer be captured or released: their time is up."""
    count = EXPIRES_PER_ENTRY_MAX + 3
    holds = [hold("world", "bob", 1, 1, id=id_of(number)) for number in range(count)]
    funded.run(*holds, at=MADE_NS)
    at = MADE_NS + 5 * MS
    last = row(capture("world", "bob", holds[-1].id), Code.HOLD_EXPIRED, -100, 0, held=3)
    rows = [
        row(capture("world", "bob", holds[0].id), Code.HOLD_EXPIRED, -100, 0, held=3),
        row(capture("world", "bob", holds[-3].id), Code.HOLD_EXPIRED, -100, 0, held=3),
        last,
        row(release("world", holds[-2].id), Code.HOLD_EXPIRED, -100, held=3),
        row(hold("world", "bob", 5, 1, id=id_of(count)), Code.COMMITTED, -100, 0, held=8),
    ]
    assert EXPIRES_PER_ENTRY_MAX == 1_024
    expired = [Expiry(one, 1, debit=-100, held=count - number) for number, one in enumerate(holds[:1_024], 1)]
    funded.check_entry(rows, at=at, expired=expired)
    assert (funded.subject.hold_count, funded.subject.holds_with_deadline) == (4, 4)
    expired = [Expiry(one, 1, debit=-100, held=7 - number) for number, one in enumerate(holds[1_024:])]
    funded.check_entry([row(last.command, Code.HOLD_EXPIRED, -100, 0, held=3, repeated=True)], expired=expired)
    assert (funded.subject.hold_count, funded.subject.holds_with_deadline) == (1, 1)


@pytest.mark.parametrize("seed", range(1 if numba.config.DISABLE_JIT else 2))
def test_thousands_of_holds_with_deadlines_in_any_order(seed: int) -> None:
    """Made, captured and released in any order, against the model; then the rest expires, a bounded number an entry."""
    chance = Random(seed)
    pair = Pair(accounts_max=64, holds_max=HOLDS_COUNT)
    pair.register_currency("EUR", 2)
    pair.execute([open_account("world", MAX), open_account("ann")], MADE_NS)
    numbers = iter(range(HOLDS_COUNT))
    while pair.ledger.next_sequence < HOLDS_COUNT * 3 // 2:
        commands: list[Command] = []
        for number in islice(numbers, 200):
            commands.append(hold("world", "ann", number % 7 + 1, chance.randint(0, 150), id=id_of(number)))
            named = id_of(chance.randint(0, number))
            if number % 2:
                commands.append(chance.choice([capture("world", "ann", named), release("world", named)]))
        pair.execute(commands, pair.model.last_timestamp_ns + chance.randint(1, 4 * MS))
    pair.compare_accounts()
    expired_at_once = 0
    while pair.ledger.holds_with_deadline:
        before = pair.ledger.hold_count
        pair.execute([], pair.model.last_timestamp_ns + chance.choice([20, 200]) * MS)
        expired_at_once = max(expired_at_once, before - pair.ledger.hold_count)
    assert expired_at_once == EXPIRES_PER_ENTRY_MAX
    pair.compare_accounts()
    pair.replay()
