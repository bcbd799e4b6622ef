"""Clients that ask for transactions of several legs, in one shard and across, ask for them again, or give them up."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bezant.engine.transactions.parts import make_legs
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import currency_word
from bezant.protocol.placement import slots_of_words
from bezant.protocol.records import COMMAND, Records, id_words
from bezant.protocol.transactions import Transact, Transacted, TransactionMode

from ..clients import CURRENCIES, Client, words_of_account
from ..frames import joined
from ..schedule import Schedule, Violation
from .parts import Id, Parts

if TYPE_CHECKING:
    from .world import World

FIRST_US = 200_000
PAUSE_US_MAX = 1_000_000
SILENCE_US_MIN, SILENCE_US_MAX = 200_000, 800_000
LEGS_MAX = 6
SAGA = 0.5
FROM_THE_WORLD = 0.6
TO_NOBODY = 0.05
FROZEN = 0.3
FREEZE_US_MAX = 400_000
NOBODY = "nobody"
"""Of the legs, those out of an account that has no limit, and those into one that is not there; of sagas, those with
an account that is frozen meanwhile."""
LEFT = 0.2
"""Those that are sent once, and never asked for again."""
ASK_AGAIN = 0.2
GIVE_UP = 0.5
"""Of those that are asked for again, those that are given up instead."""


class Transaction:
    """One that a payer has asked for."""

    def __init__(self, number: int, asked: Transact, commands: Records, parts: Parts) -> None:
        self.number = number
        self.asked = asked
        self.commands = commands
        self.parts = parts
        self.sendings = 0
        self.told: list[Transacted] = []
        self.is_waited_for = True
        self.is_left = False
        """Whether its client has gone when it had sent it: shards must end it by themselves."""


class Payer:
    """One client; its first legs are paid at home, which is a shard, or a slot that moves."""

    def __init__(
        self,
        world: "World",
        schedule: Schedule,
        *,
        home: Sequence[str],
        client: Client,
        send: Callable[["Payer", int, bytes], None],
    ) -> None:
        """`home`: names of the accounts there, the first of which has no limit. `client` sends other commands about
        these, and `send` a request (its number and body) to some node."""
        self._world = world
        self._schedule = schedule
        self._counts: Counter[str] = world.counts
        self._home = home
        self._client = client
        self._send_to = send
        self._chance = schedule.chance("payer")
        self.transactions: list[Transaction] = []
        self.is_quiet = False
        schedule.after(FIRST_US, self._begin)

    def _begin(self) -> None:
        if self.is_quiet:
            return
        self._schedule.after(self._chance.randrange(PAUSE_US_MAX), self._begin)
        if self.transactions and self._chance.random() < ASK_AGAIN:
            transaction = self._chance.choice(self.transactions)
            if not transaction.is_left:
                self._send(transaction)
            if self._chance.random() < GIVE_UP:
                self._forbid(transaction)
            return
        self._ask_for(TransactionMode.SAGA if self._chance.random() < SAGA else TransactionMode.TCC)

    def _ask_for(self, mode: TransactionMode) -> None:
        commands = joined(self._leg(number, mode) for number in range(self._chance.randrange(1, LEGS_MAX + 1)))
        awaits_applied = self._chance.random() < 0.5
        asked = Transact(self._chance.randbytes(16), int(mode), commands.tobytes(), awaits_applied)
        owners = self._world.owners
        slots = slots_of_words(commands["debit_head"]), slots_of_words(commands["credit_head"])
        parts = self._world.books.parts.register(make_legs(asked.id, mode, commands, owners, slots))
        transaction = Transaction(len(self.transactions), asked, commands, parts)
        self.transactions.append(transaction)
        transaction.is_left = self._chance.random() < LEFT
        self._insist(transaction)
        transaction.is_waited_for = not transaction.is_left
        if mode is TransactionMode.SAGA and self._chance.random() < FROZEN:
            self._freeze_meanwhile()

    def _freeze_meanwhile(self) -> None:
        """Have an account at home frozen for a while: nothing that it was given can be taken back then."""
        chance = self._chance
        account = words_of_account(chance.choice(self._home[1:]), chance.choice(CURRENCIES))
        begin_us = chance.randrange(FREEZE_US_MAX)
        self._schedule.after(begin_us, self._change, CommandKind.FREEZE, account)
        self._schedule.after(begin_us + chance.randrange(FREEZE_US_MAX), self._change, CommandKind.UNFREEZE, account)

    def _change(self, kind: CommandKind, account: Id) -> None:
        if self.is_quiet:
            return  # Whatever stands in the way is being seen to, and stays so.
        command = np.zeros(1, COMMAND)
        command["kind"], command["debit_head"], command["debit_tail"] = int(kind), *account
        command["id_head"], command["id_tail"] = id_words(self._chance.randbytes(16))
        self._client.send_once(command)

    def _leg(self, number: int, mode: TransactionMode) -> Records:
        chance, command = self._chance, np.zeros(1, COMMAND)
        # What a saga takes from an account that is closed then can be given back to nobody.
        names = [mine[:-1] if mode is TransactionMode.SAGA else mine for mine in self._world.names]
        names += self._world.wandering
        home = self._home[:-1] if mode is TransactionMode.SAGA else self._home
        currency = chance.choice(CURRENCIES)
        mine = home if number == 0 else chance.choice(names)
        debit = mine[0] if chance.random() < FROM_THE_WORLD else chance.choice(mine)
        credit = NOBODY if chance.random() < TO_NOBODY else chance.choice(chance.choice(names))
        while credit == debit:
            credit = chance.choice(chance.choice(names))
        for field, name in (("debit", debit), ("credit", credit)):
            command[f"{field}_head"], command[f"{field}_tail"] = words_of_account(name, currency)
        command["amount"], command["kind"] = chance.randrange(1, 30), int(CommandKind.TRANSFER)
        command["currency"] = currency_word(currency)
        return command

    def _forbid(self, transaction: Transaction) -> None:
        """Have the id never used, unless it is."""
        self._counts["transactions given up"] += 1
        command = np.zeros(1, COMMAND)
        command["kind"] = int(CommandKind.FORBID)
        command["id_head"], command["id_tail"] = id_words(transaction.asked.id)
        for word in ("head", "tail"):
            command[f"debit_{word}"] = transaction.commands[f"debit_{word}"][0]
        self._client.send_once(command)

    def _insist(self, transaction: Transaction) -> None:
        """Ask until there is an answer."""
        if transaction.is_waited_for:
            self._send(transaction)
            silence_us = self._chance.randrange(SILENCE_US_MIN, SILENCE_US_MAX)
            self._schedule.after(silence_us, self._insist, transaction)

    def _send(self, transaction: Transaction) -> None:
        transaction.sendings += 1
        self._counts["transactions asked for"] += 1
        self._send_to(self, transaction.number, encode_message(transaction.asked))

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
        transaction.parts.check_told(told.code, is_over=told.applied)

    def ask_all_again(self) -> None:
        """Ask for all that there are until there is an answer."""
        for transaction in self.transactions:
            if not transaction.is_left:
                transaction.is_waited_for = True
                self._insist(transaction)

    @property
    def knows_all(self) -> bool:
        return not any(transaction.is_waited_for for transaction in self.transactions)

    def check(self) -> None:
        """All legs are done, in all shards, or none, as was told."""
        for transaction in self.transactions:
            if not transaction.told:
                transaction.parts.check_over()
                continue
            code, mode = transaction.told[0].code, TransactionMode(transaction.asked.mode).name
            transaction.parts.check_told(code, is_over=True)
            self._counts[f"{mode}: transactions {'done' if code == 0 else 'refused'}"] += 1
