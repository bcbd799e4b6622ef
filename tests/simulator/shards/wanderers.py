"""Clients of slots that move: each has accounts in one, and asks whichever shard serves it, or did, or will."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import count, product
from typing import TYPE_CHECKING, Any

import numpy as np

from bezant.engine.transactions.legs import transit_id
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import owners_of, slots_of_words
from bezant.protocol.records import RESULT, Records, split_position

from ..audit import Executed, _key
from ..clients import CURRENCIES, Client, Operation, Told, words_of_account
from ..frames import NO_KEYS, Answer, Frame, Outcome, joined, rows_of
from ..schedule import Violation
from .clients import RELIEF, map_of, names_of
from .movements import slot_of_word
from .payers import Payer

if TYPE_CHECKING:
    from .audit import ShardAudit
    from .world import World

FIRST_NUMBER = 1_000
NODES_MAX = 100
NAMES = ("world", "a", "b", "c")
WANDERERS = 2
ASTRAY = 0.2
"""Of the transactions that are asked for, those of a shard that may have nothing to do with the slot."""
ASKED_AGAIN = 40
"""Requests that are asked for again at the end."""


@cache
def wandering_names(shards: int) -> tuple[tuple[str, ...], ...]:
    """Names of accounts in each slot that moves, of slots that have nothing else in them."""
    owners = owners_of(map_of(shards))
    places = product(range(shards), range(shards), CURRENCIES)
    used = {slot_of(transit_id(own, peer, currency)) for own, peer, currency in places}
    used |= {slot_of(account_id(names_of(shards, shard)[0], "EUR")) for shard in range(shards)}
    used.add(slot_of(account_id("nobody", "EUR")))
    found: list[tuple[str, ...]] = []
    tags = count()
    while len(found) < WANDERERS:
        tag = next(tags)
        names = tuple(f"{{{tag}}}{name}" for name in NAMES)
        slot = slot_of(account_id(names[0], "EUR"))
        if slot not in used and owners[slot] == len(found) % shards:
            used.add(slot)
            found.append(names)
    return tuple(found)


def wandering_slot(shards: int, number: int) -> int:
    """The slot of one of them."""
    return slot_of(account_id(wandering_names(shards)[number][0], "EUR"))


def name_of_node(shard: int, node_id: int) -> int:
    """A node of all shards in one number."""
    return (shard + 1) * NODES_MAX + node_id


def shard_of_node(node: int) -> int:
    """The inverse, as far as the shard goes."""
    return node // NODES_MAX - 1


class Wanderer(Client):
    """See the module."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self.slot = wandering_slot(world.shards, number)
        self.home = int(owners_of(map_of(world.shards))[self.slot])
        self._asked_again: list[Operation] = []
        self.asked_twice: set[int] = set()
        """Requests that were asked for again by themselves, and those that did so, by number."""
        self._far = world.names
        super().__init__(
            FIRST_NUMBER + number,
            world.schedule,
            counts=world.counts,
            nodes=[name_of_node(group.shard, node_id) for group in world.groups for node_id in group.nodes],
            deliver=self._send_to,
            commits_known=lambda: 0,
            names=wandering_names(world.shards)[number],
        )
        self.payer = Payer(world, world.schedule, home=self._names, client=self, send=self._send_transact)

    def _begin(self) -> None:
        if self.history:
            super()._begin()
        else:
            self._insist(joined(self._open(name, code) for name in self._names for code in CURRENCIES), NO_KEYS)

    def _send_to(self, node: int, frame: Frame) -> None:
        self._world.groups[shard_of_node(node)]._send_frame(node % NODES_MAX, frame)

    def _send_transact(self, payer: Payer, number: int, body: bytes) -> None:
        """Ask a shard, mostly that which has the slot, for a transaction of several legs."""
        groups, owner = self._world.groups, self._world.books.movements.owners[self.slot]
        is_astray = owner is None or self._chance.random() < ASTRAY
        group = self._chance.choice(groups) if is_astray else groups[owner]
        group.send_transact(payer, number, body)

    @property
    def _makers(self) -> list[Callable[[], Records]]:
        return [*super()._makers, *super()._makers, *[self._some_transfer_out] * 3]

    def _some_transfer_out(self) -> Records:
        chance = self._chance
        debit, credit = chance.choice(self._names), chance.choice(chance.choice(self._far))
        return self._transfer(debit, credit, chance.choice(CURRENCIES), chance.randrange(1, 60))

    def _some_commands(self) -> Records:
        """A chain across shards is told the same as one that went to the wrong shard: there are none of these."""
        commands = super()._some_commands()
        is_transfer = commands["kind"] == int(CommandKind.TRANSFER)
        if (slots_of_words(commands["credit_head"])[is_transfer] != self.slot).any():
            commands["flags"] &= ~int(CommandFlag.LINKED)
        return commands

    def on_answer(self, node: int, frame: Frame, answer: Answer) -> None:
        if answer.outcome is Outcome.DONE:
            is_elsewhere = _is_elsewhere(frame, answer)
            if is_elsewhere is not None:
                self._counts["answers: another shard's"] += 1
                answer = Answer(Outcome.NOT_LEADER if is_elsewhere else Outcome.UNKNOWN, b"", 0, 0)
        elif answer.leader:
            answer = answer._replace(leader=name_of_node(shard_of_node(node), answer.leader))
        super().on_answer(node, frame, answer)

    def ask_again(self) -> None:
        """Ask for some of the old again, until there is an answer: it must be the first one."""
        writes = [operation for operation in self.history if len(operation.commands)]
        for operation in self._chance.sample(writes, min(len(writes), ASKED_AGAIN)):
            again = self._insist(operation.commands, NO_KEYS)
            self._asked_again.append(again)
            self.asked_twice |= {operation.number, again.number}

    def relieve(self) -> None:
        """Let money leave and reach all accounts, and give them some, until there is an answer."""
        world, *others = self._names
        commands = []
        for name, currency in product(others, CURRENCIES):
            account = dict(zip(("debit_head", "debit_tail"), words_of_account(name, currency), strict=True))
            commands += [self._command(CommandKind.UNFREEZE, account), self._transfer(world, name, currency, RELIEF)]
        self._insist(joined(commands), NO_KEYS)

    @property
    def knows_all(self) -> bool:
        """Whether that has been answered."""
        return all(operation.told for operation in self._asked_again)


def _is_elsewhere(frame: Frame, answer: Answer) -> bool | None:
    """Whether nothing of a frame has been done because of where its slot is; None if that stood in nobody's way."""
    if not frame.is_write:
        return None if answer.body else True
    is_wrong = np.frombuffer(answer.body, RESULT)["code"] == int(ResultCode.WRONG_SHARD)
    return bool(is_wrong.all()) if is_wrong.any() else None


class WanderersAudit:
    """Are the answers that wanderers got, from whichever shard, explained by what one of them has executed?"""

    def __init__(self, wanderers: Sequence[Wanderer], audits: Mapping[int, "ShardAudit"]) -> None:
        self._wanderers = wanderers
        self._audits = audits
        self._counts = wanderers[0]._counts
        self._executed: dict[tuple[int, int, int], tuple[int, Executed]] = {}

    def run(self) -> None:
        """Raises `Violation`."""
        slots = {wanderer.slot for wanderer in self._wanderers}
        for shard, audit in self._audits.items():
            for key, executed in audit.executed.items():
                if slot_of_word(key[2]) not in slots:
                    continue
                if key in self._executed:
                    raise Violation(f"id {key} was executed in shards {self._executed[key][0]} and {shard}")
                self._executed[key] = shard, executed
        for wanderer in self._wanderers:
            for operation in wanderer.history:
                if len(operation.commands):
                    self._check(operation)

    def _check(self, operation: Operation) -> None:
        if operation.refused.issuperset(range(len(operation.sent))):
            for command in operation.rows:
                _, executed = self._executed.get(_key(command), (-1, None))
                if executed is not None and self._is_only(operation) and _is_of(executed, command):
                    raise Violation(f"client {operation.client}: {_key(command)} was refused everywhere and executed")
        for told in operation.told:
            results = rows_of(np.frombuffer(told.answer.body, RESULT))
            for command, result in zip(operation.rows, results, strict=True):
                self._check_result(operation, told, command, result)

    def _is_only(self, operation: Operation) -> bool:
        """Whether no other request asks for the same: what is given up may be given up again."""
        if operation.rows[0]["kind"] == CommandKind.FORBID:
            return False
        return operation.number not in self._wanderers[operation.client - FIRST_NUMBER].asked_twice

    def _check_result(self, operation: Operation, told: Told, command: Any, result: Any) -> None:
        row, key = CODE_ROW[int(result["code"])], _key(command)
        what = f"client {operation.client}, id {key}, told {row.code.name} by {told.node} at {told.at_us} us"
        shard, executed = self._executed.get(key, (-1, None))
        if not row.leaves_event:
            if row.code not in next(iter(self._audits.values())).without_event:
                raise Violation(f"{what}: nothing explains that")
            if row.code is ResultCode.ID_CONFLICT and (executed is None or _is_of(executed, command)):
                raise Violation(f"{what}: no other command has that id")
            return
        if executed is None:
            raise Violation(f"{what}: it is in no history")
        audit = self._audits[shard]
        audit._check_outcome(what, command, result, executed)
        if split_position(int(result["position"]))[0] != shard:
            raise Violation(f"{what}: it was executed in shard {shard}")
        committed_us = audit.committed_us(executed.index)
        is_new = self._is_only(operation) and not gives_up(command, executed)
        if committed_us > told.at_us or (is_new and committed_us < operation.sent[0][0]):
            raise Violation(f"{what}: it was committed at {committed_us} us, and asked for at {operation.sent[0][0]}")
        self._counts["answers about slots that move explained"] += 1
        if shard_of_node(told.node) != shard:
            self._counts["ids answered by another shard than the first"] += 1


def _is_of(executed: Executed, command: Any) -> bool:
    names = ("debit_head", "debit_tail", "credit_head", "credit_tail", "amount", "flags")
    return all(int(executed.event[name]) == int(command[name]) for name in names)


def gives_up(command: Any, executed: Executed) -> bool:
    """Whether a command is a FORBID whose id had been used."""
    return int(command["kind"]) == CommandKind.FORBID != int(executed.event["kind"])
