"""Long histories, of thousands of commands each, from a seed: deeper states than the machine reaches, and old repeats.

Amounts are often chosen from the balances that are there, so that commands land on a limit or just beyond it.
"""

from dataclasses import replace
from random import Random
from typing import Final

import numba
import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandFlag

from .model_records import UNLIMITED, Command
from .pair import Pair, Registration, commands_of, compare_records
from .tables import MAX, account, id_of, open_account, set_limit, transfer

SEEDS: Final = range(3 if numba.config.DISABLE_JIT else 20)
ENTRIES_COUNT: Final = 150
ENTRY_COMMANDS_MAX: Final = 20
NAMES: Final = ("a", "b", "c", "d", "{t}a", "{t}b", "{t}c", "{t}d")
ALL_NAMES: Final = (*NAMES, *(f"{name}/JPY" for name in NAMES), "a/LATE", "{t}a/LATE", "b/NEVER")
ACCOUNTS_MAX: Final = 15  # so that the last ones find the table full
MANY_IDS: Final = 3_000
STATE_CODES: Final = {
    Code.COMMITTED,
    Code.CURRENCY_UNKNOWN,
    Code.ACCOUNT_EXISTS,
    Code.DEBIT_ACCOUNT_UNKNOWN,
    Code.CREDIT_ACCOUNT_UNKNOWN,
    Code.CURRENCY_MISMATCH,
    Code.INSUFFICIENT_FUNDS,
    Code.BALANCE_OVERFLOW,
    Code.ID_CONFLICT,
    Code.IMPORTED_TIMESTAMP_NOT_RISING,
    Code.IMPORTED_TIMESTAMP_IN_FUTURE,
    Code.ACCOUNTS_FULL,
}


class Writer:
    """Makes up commands; everything it does follows from its seed."""

    def __init__(self, seed: int, pair: Pair) -> None:
        self.chance = Random(seed)
        self.pair = pair

    def entry(self, entry_timestamp_ns: int) -> list[Command]:
        sent = list(self.pair.sent)
        imported_ns = self.pair.model.last_timestamp_ns
        for _ in range(self.chance.randint(0, ENTRY_COMMANDS_MAX)):
            command = self.command(sent)
            if self.chance.random() < 0.1:
                imported_ns = self.chance.choice([imported_ns, imported_ns + 1, imported_ns + 1, entry_timestamp_ns])
                command = replace(command, flags=int(CommandFlag.IMPORTED), client_timestamp_ns=imported_ns)
            sent.append(command)
        return sent[len(self.pair.sent) :]

    def command(self, sent: list[Command]) -> Command:
        lot = self.chance.random()
        if sent and lot < 0.15:
            return self.chance.choice([self.chance.choice(sent), self.chance.choice(sent[-10:])])
        if sent and lot < 0.2:
            return replace(self.chance.choice(sent), **self.change())
        fields: dict[str, bytes | int] = {"id": id_of(self.chance.randrange(MANY_IDS))}
        if lot < 0.3:
            return open_account(self.chance.choice(ALL_NAMES), self.limit(), **fields)
        if lot < 0.4:
            return set_limit(self.chance.choice(ALL_NAMES), self.limit(), **fields)
        debit, credit = self.chance.sample(ALL_NAMES, 2)
        if lot < 0.95:
            currency = self.chance.choice(["", "", "/JPY"])
            debit, credit = (name + currency for name in self.chance.sample(NAMES, 2))
        return transfer(debit, credit, self.amount(debit, credit), **fields)

    def change(self) -> dict[str, bytes | int]:
        return self.chance.choice(
            [
                {"amount": self.chance.randint(1, 100)},
                {"code": self.chance.randint(-5, 5)},
                {"debit": account(self.chance.choice(NAMES))},
                {"credit": account(self.chance.choice(NAMES))},
                {"user_data": self.chance.randbytes(16)},
                {"id": id_of(self.chance.randrange(MANY_IDS))},
            ]
        )

    def limit(self) -> int:
        return self.chance.choice([0, 0, 10, 500, 2**62, MAX - 1, MAX, MAX])

    def amount(self, debit: str, credit: str) -> int:
        """A small amount, a huge one, or one that just fits or just does not, as things stand before the entry."""
        payer, payee = (self.pair.model.state.accounts.get(account(name)) for name in (debit, credit))
        edges = [self.chance.randint(1, 100), self.chance.randint(1, 100), self.chance.randint(1, MAX)]
        if payer is not None:
            edges.append(payer.balance + (MAX if payer.limit == UNLIMITED else payer.limit))
        if payee is not None:
            edges.append(MAX - payee.balance)
        return min(max(1, self.chance.choice(edges) + self.chance.choice([-1, 0, 0, 1])), MAX)


def write_history(seed: int) -> tuple[Pair, set[int]]:
    """A history of some 1,500 commands, compared step by step; returns it with the codes that were met."""
    pair = Pair(shard=seed, accounts_max=ACCOUNTS_MAX, fetches=seed % 2 == 0)
    writer = Writer(seed, pair)
    codes: set[int] = set()
    pair.register_currency("EUR", 2)
    pair.register_currency("JPY", 0)
    for number in range(ENTRIES_COUNT):
        if number == ENTRIES_COUNT // 2:
            pair.register_currency("LATE", 18)
        timestamp_ns = pair.model.last_timestamp_ns + writer.chance.randint(1, 30)
        codes.update(pair.execute(writer.entry(timestamp_ns), timestamp_ns))
        if number % 10 == 0:
            pair.compare_accounts()
    pair.compare_accounts()
    return pair, codes


@pytest.mark.parametrize("seed", SEEDS)
def test_long_histories(seed: int) -> None:
    pair, codes = write_history(seed)
    assert {Code(code) for code in codes} >= STATE_CODES, "the history does not meet every code that depends on state"
    if seed % 2 == 0:
        assert len(pair.fetched) > 50
    pair.replay()


def test_replay_gives_the_same_bytes_whatever_the_ledger_did_before() -> None:
    """A command's event follows from the history alone: not from repeats, refused commands or the size of tables."""
    pair, _ = write_history(99)
    plain, tiny, busy = (
        Ledger(shard=99, accounts_max=64, ids_capacity_initial=capacity) for capacity in (1 << 12, 16, 256)
    )
    for part in pair.history:
        if isinstance(part, Registration):
            for ledger in (plain, tiny, busy):
                ledger.register_currency(part.code, part.decimals)
        elif len(part.events):
            commands = commands_of(part.events)
            for ledger in (plain, tiny):
                compare_records("replayed event", ledger.execute(commands, part.timestamp_ns).events, part.events)
            compare_records("replayed event", busy.execute(commands, part.timestamp_ns).events, part.events)
            repeated = busy.execute(commands, busy.last_timestamp_ns + 1)
            assert len(repeated.events) == 0
            assert repeated.results["code"].tolist() == part.events["result"].tolist()
    found = [ledger.list_accounts(0, 100).tobytes() for ledger in (plain, tiny, busy, pair.ledger)]
    assert found.count(found[0]) == len(found)
