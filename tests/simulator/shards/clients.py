"""Clients of several shards: each has one at home, where its accounts lie that pay, and pays into all."""

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from bezant.engine.placement.maps import first_map
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import SlotMap, owners_of
from bezant.protocol.records import Records

from ..clients import CURRENCIES, NAMES, Client, Operation
from ..frames import NO_KEYS, joined

RELIEF = 100_000
"""More than a seed could spend of an account."""


@cache
def map_of(shards: int) -> SlotMap:
    """The slot map of so many shards."""
    return first_map({number: [f"shard{number}:1"] for number in range(shards)})


@cache
def names_of(shards: int, shard: int) -> tuple[str, ...]:
    """Names of accounts that lie in one shard of so many; the first has no limit."""
    owners = owners_of(map_of(shards))
    tag = next(n for n in range(1 << 20) if owners[slot_of(account_id(f"{{{n}}}a", "EUR"))] == shard)
    return tuple(f"{{{tag}}}{name}" for name in NAMES)


class ShardClient(Client):
    """See the module."""

    def __init__(self, *arguments: Any, far: Sequence[tuple[str, ...]], **settings: Any) -> None:
        """`far`: the names in each other shard."""
        super().__init__(*arguments, **settings)
        self._far = far

    @property
    def _makers(self) -> list[Callable[[], Records]]:
        return [*super()._makers, *[self._some_transfer_out] * 6, self._some_change]

    def _some_transfer_out(self) -> Records:
        chance = self._chance
        debit = chance.choice([self._names[0], *self._names])
        credit = chance.choice(chance.choice(self._far))
        return self._transfer(debit, credit, chance.choice(CURRENCIES), chance.randrange(1, 60))

    def _some_change(self) -> Records:
        """Of an account: its limit, or whether money can leave or reach it."""
        chance = self._chance
        kind = chance.choice(
            [CommandKind.SET_LIMIT, CommandKind.FREEZE, CommandKind.UNFREEZE, CommandKind.UNFREEZE, CommandKind.CLOSE]
        )
        name = chance.choice(self._names[1:]) if kind is not CommandKind.CLOSE else self._names[-1]
        sides = self._sides(name, name, chance.choice(CURRENCIES))
        fields = {"debit_head": sides["debit_head"], "debit_tail": sides["debit_tail"]}
        if kind is CommandKind.SET_LIMIT:
            fields["amount"] = chance.choice([0, 0, 50, 100])
        return self._command(kind, fields)

    def relieve(self) -> Operation:
        """Let money leave and reach all accounts that are not closed, and give them some, until there is an answer."""
        commands = []
        for name, currency in itertools.product(self._names[1:], CURRENCIES):
            sides = self._sides(name, name, currency)
            debit = {"debit_head": sides["debit_head"], "debit_tail": sides["debit_tail"]}
            commands += [self._command(CommandKind.UNFREEZE, debit)]
            commands += [self._transfer(self._names[0], name, currency, RELIEF)]
        return self._insist(joined(commands), NO_KEYS)
