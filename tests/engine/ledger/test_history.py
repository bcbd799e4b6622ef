"""Long histories, of thousands of commands, from a seed: deeper states than the machine reaches, and old repeats."""

from typing import Final

import numba
import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandKind

from .pair import Pair, Registration, commands_of, compare_records
from .writer import Writer

SEEDS: Final = range(2 if numba.config.DISABLE_JIT else 16)
ENTRIES_COUNT: Final = 150
ACCOUNTS_MAX: Final = 15  # so that the last ones find the table full
HOLDS_MAX: Final = 8
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


def write_history(seed: int) -> tuple[Pair, set[int]]:
    """A history of some 1,500 commands, compared step by step; returns it with the codes that were met."""
    pair = Pair(shard=seed, accounts_max=ACCOUNTS_MAX, holds_max=HOLDS_MAX, fetches=seed % 2 == 0)
    writer = Writer(seed, pair)
    codes: set[int] = set()
    pair.register_currency("EUR", 2)
    pair.register_currency("JPY", 0)
    pair.execute(writer.first_entry(), 1_000)
    for number in range(ENTRIES_COUNT):
        if number == ENTRIES_COUNT // 2:
            pair.register_currency("LATE", 18)
        timestamp_ns = writer.timestamp_ns()
        codes.update(pair.execute(writer.entry(timestamp_ns), timestamp_ns))
        if number % 10 == 0:
            pair.compare_accounts()
    pair.compare_accounts()
    return pair, codes


@pytest.mark.parametrize("seed", SEEDS)
def test_long_histories(seed: int) -> None:
    pair, codes = write_history(seed)
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
