"""Makes up long histories from a seed: commands of every kind, mostly sensible, mostly about what is there.

Amounts are often chosen from the balances and holds as they are, so that commands land on a limit or just beyond it,
and entries often come at the very time at which a hold falls due.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from bezant.protocol.kinds import CHAIN_COMMANDS_MAX, TIMEOUT_MS_MAX, CommandFlag, CommandKind

from .model_records import UNLIMITED, Command, Hold
from .pair import Pair
from .tables import (
    MAX,
    account,
    capture,
    capture_open,
    close,
    forbid,
    freeze,
    hold,
    id_of,
    imported,
    linked,
    open_account,
    release,
    set_limit,
    transfer,
    transfer_available,
    unfreeze,
)

NAMES: Final = ("a", "b", "c", "d", "{t}a", "{t}b", "{t}c", "{t}d")
ALL_NAMES: Final = (*NAMES, *(f"{name}/JPY" for name in NAMES), "a/LATE", "{t}a/LATE", "b/NEVER")
ACCOUNTS_MAX: Final = 15  # so that the last ones find the table full
HOLDS_MAX: Final = 8
ENTRY_UNITS_MAX: Final = 12
CHAIN_USUAL_MAX: Final = 6
MANY_IDS: Final = 3_000
DEADLINE_NS_MAX: Final = 10**18
"""Later deadlines are not waited for: behind a hundred years a ledger has no time left."""
WEIGHTS: Final = {
    CommandKind.OPEN: 9,
    CommandKind.SET_LIMIT: 6,
    CommandKind.TRANSFER: 30,
    CommandKind.TRANSFER_AVAILABLE: 10,
    CommandKind.HOLD: 25,
    CommandKind.CAPTURE: 25,
    CommandKind.RELEASE: 8,
    CommandKind.FREEZE: 1,
    CommandKind.UNFREEZE: 6,
    CommandKind.CLOSE: 2,
    CommandKind.FORBID: 1,
}


class Writer:
    """Makes up entries; everything it does follows from its seed."""

    def __init__(self, seed: int, pair: Pair) -> None:
        self.chance = Random(seed)
        self.pair = pair
        self.chains: list[list[Command]] = []
        self._new_ids = 0
        self._makers: dict[CommandKind, Callable[[], Command]] = {
            CommandKind.OPEN: lambda: open_account(self.chance.choice(ALL_NAMES), self.limit()),
            CommandKind.SET_LIMIT: lambda: set_limit(self.chance.choice(ALL_NAMES), self.limit()),
            CommandKind.TRANSFER: lambda: transfer(*self.pair_and_amount()),
            CommandKind.TRANSFER_AVAILABLE: lambda: transfer_available(*self.pair_and_amount()),
            CommandKind.HOLD: lambda: hold(*self.pair_and_amount(), self.timeout_ms()),
            CommandKind.CAPTURE: self.capture,
            CommandKind.RELEASE: self.release,
            CommandKind.FREEZE: lambda: freeze(self.chance.choice(ALL_NAMES)),
            CommandKind.UNFREEZE: lambda: unfreeze(self.chance.choice(ALL_NAMES)),
            CommandKind.CLOSE: self.close,
            CommandKind.FORBID: lambda: forbid(self.chance.choice(ALL_NAMES), bytes(16)),
        }

    def first_entry(self) -> list[Command]:
        """Opens most accounts, most of them able to pay."""
        names = [*NAMES, *(f"{name}/JPY" for name in NAMES[:4])]
        return [open_account(name, self.chance.choice([0, 1_000, MAX - 1, MAX, MAX])) for name in names]

    def timestamp_ns(self) -> int:
        """When the next entry comes."""
        last_timestamp_ns, next_deadline_ns = self.pair.model.last_timestamp_ns, self.pair.model.next_deadline_ns
        lot = self.chance.random()
        if lot < 0.1 and 0 < next_deadline_ns < DEADLINE_NS_MAX:
            return max(last_timestamp_ns + 1, next_deadline_ns + self.chance.randint(-1, 1))
        return last_timestamp_ns + (self.chance.randint(1, 2_000_000) if lot < 0.2 else self.chance.randint(1, 30))

    def entry(self, entry_timestamp_ns: int) -> list[Command]:
        sent = list(self.pair.sent)
        imported_ns = self.pair.model.last_timestamp_ns
        for _ in range(self.chance.randint(0, ENTRY_UNITS_MAX)):
            unit = self.chain(sent) if self.chance.random() < 0.25 else [self.command(sent)]
            for command in unit:
                if self.chance.random() < 0.04:
                    imported_ns = self.chance.choice(
                        [imported_ns, imported_ns + 1, imported_ns + 1, entry_timestamp_ns]
                    )
                    sent.append(imported(command, imported_ns))
                else:
                    sent.append(command)
        return sent[len(self.pair.sent) :]

    def chain(self, sent: list[Command]) -> list[Command]:
        """A new chain, or one that was sent before, perhaps with a change, perhaps a part of it."""
        lot = self.chance.random()
        if self.chains and lot < 0.25:
            commands = self.chance.choice([self.chance.choice(self.chains), self.chains[-1]])
            if lot < 0.05:
                commands = commands[: self.chance.randint(1, len(commands))]
            elif lot < 0.1:
                number = self.chance.randrange(len(commands))
                commands = [*commands[:number], replace(commands[number], **self.change()), *commands[number + 1 :]]
            return commands
        count = self.chance.randint(2, CHAIN_USUAL_MAX)
        if lot > 0.998:
            count = self.chance.randint(CHAIN_COMMANDS_MAX - 1, CHAIN_COMMANDS_MAX + 1)
        commands = linked(*(self.command(sent) if self.chance.random() < 0.03 else self.new() for _ in range(count)))
        if lot > 0.99:
            commands[-1] = replace(commands[-1], flags=commands[-1].flags | CommandFlag.LINKED)
        self.chains.append(commands)
        return commands

    def command(self, sent: list[Command]) -> Command:
        lot = self.chance.random()
        if sent and lot < 0.15:
            return self.chance.choice([self.chance.choice(sent), self.chance.choice(sent[-10:])])
        if sent and lot < 0.2:
            return replace(self.chance.choice(sent), **self.change())
        return self.new()

    def new(self) -> Command:
        """A command with an id that may have been used, though most have not."""
        kind = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self._new_ids += 1
        number = self.chance.randrange(MANY_IDS) if self.chance.random() < 0.1 else MANY_IDS + self._new_ids
        return replace(self._makers[kind](), id=id_of(number))

    def change(self) -> dict[str, bytes | int]:
        return self.chance.choice(
            [
                {"amount": self.chance.randint(1, 100)},
                {"code": self.chance.randint(-5, 5)},
                {"debit": account(self.chance.choice(NAMES))},
                {"credit": account(self.chance.choice(NAMES))},
                {"user_data": self.chance.randbytes(16)},
                {"id": id_of(self.chance.randrange(MANY_IDS))},
                {"reference": id_of(self.chance.randrange(MANY_IDS))},
            ]
        )

    def limit(self) -> int:
        return self.chance.choice([0, 500, 2**62, MAX - 1, MAX, MAX, MAX])

    def timeout_ms(self) -> int:
        return self.chance.choice([0, 0, 1, 1, 2, 5, TIMEOUT_MS_MAX])

    def pair_and_amount(self) -> tuple[str, str, int]:
        """Two names, mostly of one currency, and a small amount, a huge one, or one that just fits or just does not."""
        debit, credit = self.chance.sample(ALL_NAMES, 2)
        if self.chance.random() < 0.95:
            currency = self.chance.choice(["", "", "", "/JPY"])
            names = NAMES[:4] if currency else NAMES
            debit, credit = (name + currency for name in self.chance.sample(names, 2))
        if self.chance.random() < 0.7:
            return debit, credit, self.chance.randint(1, 100)
        payer, payee = (self.pair.model.state.accounts.get(account(name)) for name in (debit, credit))
        edges = [self.chance.randint(1, MAX)]
        if payer is not None:
            edges.append(payer.balance - payer.held + (MAX if payer.limit == UNLIMITED else payer.limit))
            edges.append(MAX - payer.held)
        if payee is not None:
            edges.append(MAX - payee.balance)
        return debit, credit, min(max(1, self.chance.choice(edges) + self.chance.choice([-1, 0, 0, 1])), MAX)

    def some_hold(self) -> Hold | None:
        """A hold that was made, mostly an open one."""
        state = self.pair.model.state
        holds = list(state.holds.values())[-50:] if self.chance.random() < 0.2 else state.open_holds
        return self.chance.choice(holds) if holds else None

    def capture(self) -> Command:
        named = self.some_hold()
        if named is None:
            return capture(*self.chance.sample(NAMES, 2), id_of(self.chance.randrange(MANY_IDS)))
        debit, credit = named.debit, named.credit
        lot = self.chance.random()
        if lot < 0.04:
            credit = account(self.chance.choice([name for name in ALL_NAMES if account(name) != debit]))
        elif lot < 0.08:
            debit = account(self.chance.choice([name for name in ALL_NAMES if account(name) != credit]))
        remaining = named.remaining
        amount = self.chance.choice([0, 1, 1, 2, remaining // 2, remaining - 1, remaining, remaining + 1])
        make = self.chance.choice([capture, capture_open, capture_open])
        return make(debit, credit, named.id, min(max(0, amount), MAX))

    def release(self) -> Command:
        named = self.some_hold()
        if named is None or self.chance.random() < 0.1:
            return release(self.chance.choice(NAMES), id_of(self.chance.randrange(MANY_IDS)))
        return release(named.debit, named.id)

    def close(self) -> Command:
        """Mostly of an account that can be closed, but not of the first ones, which the history needs."""
        accounts = list(self.pair.model.state.accounts.values())[8:]
        empty = [one.id for one in accounts if (one.balance, one.held) == (0, 0)]
        return close(
            self.chance.choice(empty) if empty and self.chance.random() < 0.3 else self.chance.choice(NAMES[:4])
        )


def write_history(seed: int, *, entries_count: int = 150, fetches: bool = True) -> tuple[Pair, set[int]]:
    """A history of some 2,500 commands, compared step by step; returns it with the codes that were met."""
    pair = Pair(shard=seed, accounts_max=ACCOUNTS_MAX, holds_max=HOLDS_MAX, fetches=fetches)
    writer = Writer(seed, pair)
    codes: set[int] = set()
    pair.register_currency("EUR", 2)
    pair.register_currency("JPY", 0)
    pair.execute(writer.first_entry(), 1_000)
    for number in range(entries_count):
        if number == entries_count // 2:
            pair.register_currency("LATE", 18)
        timestamp_ns = writer.timestamp_ns()
        codes.update(pair.execute(writer.entry(timestamp_ns), timestamp_ns))
        if number % 10 == 0:
            pair.compare_accounts()
    pair.compare_accounts()
    return pair, codes
