"""Clients that ask for transactions of several legs (TC/C), in one shard and across, and ask for them again later."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bezant.engine.transactions.ids import Leg, derived_ids
from bezant.engine.transactions.parts import make_legs
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.placement import slots_of_words
from bezant.protocol.records import COMMAND, Records, id_words
from bezant.protocol.transactions import Transact, Transacted, TransactionMode

from ..frames import joined
from ..schedule import Schedule, Violation
from .books import Books, Id

if TYPE_CHECKING:
    from .group import ShardGroup

FIRST_US = 200_000
PAUSE_US_MAX = 1_000_000
SILENCE_US_MIN, SILENCE_US_MAX = 200_000, 800_000
LEGS_MAX = 4
ASK_AGAIN = 0.2


class Transaction:
    """One that a payer has asked for."""

    def __init__(self, number: int, asked: Transact, commands: Records) -> None:
        self.number = number
        self.asked = asked
        self.commands = commands
        self.sendings = 0
        self.told: list[Transacted] = []
        self.is_waited_for = True


class Payer:
    """One client of one shard; its first legs are paid there."""

    def __init__(
        self, group: "ShardGroup", schedule: Schedule, counts: Counter[str], names: Sequence[Sequence[str]]
    ) -> None:
        """`names`: of accounts in each shard."""
        self._group = group
        self._schedule = schedule
        self._counts = counts
        self._names = names
        self._chance = schedule.chance("payer")
        self.transactions: list[Transaction] = []
        self.is_quiet = False
        schedule.after(FIRST_US, self._begin)

    def _begin(self) -> None:
        if self.is_quiet:
            return
        self._schedule.after(self._chance.randrange(PAUSE_US_MAX), self._begin)
        if self.transactions and self._chance.random() < ASK_AGAIN:
            self._send(self._chance.choice(self.transactions))
            return
        commands = joined(self._leg(number) for number in range(self._chance.randrange(1, LEGS_MAX + 1)))
        mode, awaits = int(TransactionMode.TCC), self._chance.random() < 0.5
        asked = Transact(self._chance.randbytes(16), mode, commands.tobytes(), awaits)
        self.transactions.append(Transaction(len(self.transactions), asked, commands))
        self._group.world.books.parts.update(self._halves(self.transactions[-1]))
        self._insist(self.transactions[-1])

    def _leg(self, number: int) -> Records:
        chance, command = self._chance, np.zeros(1, COMMAND)
        home = self._names[self._group.shard]
        currency = chance.choice(["EUR", "JPY"])
        debit = chance.choice([home[0], *home] if number == 0 else chance.choice(self._names))
        credit = chance.choice(chance.choice(self._names))
        while credit == debit:
            credit = chance.choice(chance.choice(self._names))
        for field, name in (("debit", debit), ("credit", credit)):
            command[f"{field}_head"], command[f"{field}_tail"] = id_words(account_id(name, currency))
        command["amount"], command["kind"] = chance.randrange(1, 30), int(CommandKind.TRANSFER)
        command["currency"] = currency_word(currency)
        return command

    def _insist(self, transaction: Transaction) -> None:
        """Ask until there is an answer."""
        if transaction.is_waited_for:
            self._send(transaction)
            silence_us = self._chance.randrange(SILENCE_US_MIN, SILENCE_US_MAX)
            self._schedule.after(silence_us, self._insist, transaction)

    def _send(self, transaction: Transaction) -> None:
        transaction.sendings += 1
        self._counts["transactions asked for"] += 1
        node_id = self._chance.choice(list(self._group.nodes))
        self._group.send_transact(node_id, transaction.number, encode_message(transaction.asked))

    def on_answer(self, number: int, body: bytes) -> None:
        """An answer has arrived."""
        told = decode_message(body, Transacted)
        if told.code in range(100, 200):
            return  # Nothing has happened: it is asked for again.
        transaction = self.transactions[number]
        transaction.is_waited_for = False
        transaction.told.append(told)
        first = transaction.told[0]
        if (told.code, told.leg) != (first.code, first.leg):
            raise Violation(f"transaction {transaction.asked.id.hex()} was told {first}, and then {told}")

    def ask_all_again(self) -> None:
        """Ask for all that there are until there is an answer."""
        for transaction in self.transactions:
            transaction.is_waited_for = True
            self._insist(transaction)

    @property
    def knows_all(self) -> bool:
        return not any(transaction.is_waited_for for transaction in self.transactions)

    def _halves(self, transaction: Transaction) -> list[Id]:
        """The ids of all tries of a transaction."""
        commands, owners = transaction.commands, self._group.world.places.owners
        slots = slots_of_words(commands["debit_head"]), slots_of_words(commands["credit_head"])
        tries = make_legs(transaction.asked.id, TransactionMode.TCC, commands, owners, slots).tries
        return ids_of(tries) + [(head, tail) for head, tail in derived_ids(tries, Leg.TRY_CREDIT).tolist()]

    def check(self, books: Books) -> None:
        """All legs are done, in all shards, or none, as was told."""
        for transaction in self.transactions:
            done = [books.part_ends.get(half) is CommandKind.CONFIRM for half in self._halves(transaction)]
            code = transaction.told[0].code
            if not all(done) if code == 0 else any(done):
                raise Violation(f"transaction {transaction.asked.id.hex()} was told {code}; halves done: {done}")
            self._counts["transactions done" if code == 0 else "transactions refused"] += 1


def ids_of(records: Records) -> list[Id]:
    return [(int(record["id_head"]), int(record["id_tail"])) for record in records]
