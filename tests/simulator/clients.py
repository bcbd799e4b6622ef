"""Simulated clients: each sends batches of commands, or look-ups, to whom it believes to lead, until it has an answer
or its patience ends. What it asked, when, and what it was told when, is its history."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, Records, Words, id_words

from .frames import NO_COMMANDS, NO_KEYS, Answer, Frame, Outcome, joined, rows_of
from .schedule import Schedule

NAMES = ("world", "a", "b", "c", "d", "e")
CURRENCIES = ("EUR", "JPY")
COMMANDS_MAX = 6
THINKING_US_MAX = 40_000
TRY_US_MIN, TRY_US_MAX = 80_000, 300_000
PATIENCE_US_MAX = 3_000_000
BACK_OFF_US_MAX = 40_000
RESEND_OLD = 0.08
READ = 0.2

Deliver = Callable[[int, Frame], None]
Fields = dict[str, int]


@cache
def words_of_account(name: str, currency: str) -> tuple[int, int]:
    """The id of an account as records have it: there are few, and all seeds have the same."""
    return id_words(account_id(name, currency))


class Told(NamedTuple):
    """An answer as its client got it."""

    at_us: int
    node: int
    sending: int
    answer: Answer
    commits_known: int
    """Entries committed anywhere by then."""


class Operation:
    """One request, however often it was sent."""

    def __init__(self, number: int, client: int, commands: Records, keys: Words, invoked_us: int) -> None:
        self.number = number
        self.client = client
        self.commands = commands
        self.keys = keys
        self.invoked_us = invoked_us
        self.patience_us = 0
        self.sent: list[tuple[int, int]] = []
        """(time, commits known then) of each sending."""
        self.told: list[Told] = []
        self.refused: set[int] = set()
        """The sendings that were answered NOT_LEADER."""
        self.is_done = False

    @cached_property
    def rows(self) -> list[dict[str, int]]:
        """Its commands, one by one, once all have been sent that ever will be."""
        return rows_of(self.commands)


class Client:
    """One client; at most one of its operations is under way, besides old ones that it repeats."""

    def __init__(
        self,
        number: int,
        schedule: Schedule,
        *,
        counts: Counter[str],
        nodes: list[int],
        deliver: Deliver,
        commits_known: Callable[[], int],
        names: Sequence[str] = NAMES,
    ) -> None:
        """`names`: of the accounts that it asks about; the first one has no limit."""
        self.number = number
        self.history: list[Operation] = []
        self.is_quiet = False
        self._schedule = schedule
        self._chance = schedule.chance(f"client {number}")
        self._counts = counts
        self._nodes = nodes
        self._names = names
        self._leader = nodes[0]
        self._deliver = deliver
        self._commits_known = commits_known
        self._last_id = 0
        self._holds: list[Fields] = []
        schedule.after(self._chance.randrange(THINKING_US_MAX), self._begin)

    def fall_silent(self) -> None:
        """Ask for nothing more by itself, and wait for nothing."""
        self.is_quiet = True
        for operation in self.history:
            operation.is_done = True

    # ---- asking ----

    def _begin(self) -> None:
        """Ask for something."""
        if self.is_quiet:
            self._schedule.after(THINKING_US_MAX, self._begin)
            return
        if self.history and self._chance.random() < RESEND_OLD:
            self._resend(self._chance.choice(self.history))
        if self._chance.random() < READ:
            operation = self._new(NO_COMMANDS, self._some_keys())
        else:
            operation = self._new(self._some_commands(), NO_KEYS)
        self._try(operation)

    def _new(self, commands: Records, keys: Words) -> Operation:
        now_us = self._schedule.now_us
        operation = Operation(len(self.history), self.number, commands, keys, now_us)
        operation.patience_us = now_us + self._chance.randrange(PATIENCE_US_MAX)
        self.history.append(operation)
        return operation

    def look_up_one(self) -> Operation:
        """Ask for two accounts, until there is an answer."""
        return self._insist(NO_COMMANDS, self._some_keys())

    def transfer_one(self) -> Operation:
        """Ask for one transfer, until there is an answer."""
        return self._insist(self._transfer(self._names[0], self._names[1], "EUR", 1), NO_KEYS)

    def send_once(self, commands: Records) -> Operation:
        """Send commands once, to anybody, and wait for nothing."""
        operation = self._new(commands, NO_KEYS)
        operation.is_done = True
        self._send(operation, self._chance.choice(self._nodes))
        return operation

    def _insist(self, commands: Records, keys: Words) -> Operation:
        operation = self._new(commands, keys)
        operation.patience_us = 1 << 62
        self._try(operation)
        return operation

    def _resend(self, operation: Operation) -> None:
        """Send an old request again, once, to anybody: a late duplicate."""
        if len(operation.commands):
            self._counts["old requests sent again"] += 1
            self._send(operation, self._chance.choice(self._nodes))

    def _try(self, operation: Operation) -> None:
        if operation.is_done:
            return
        if self._schedule.now_us > operation.patience_us:
            self._counts["operations given up"] += 1
            operation.is_done = True
            self._think()
            return
        sending = self._send(operation, self._leader)
        self._schedule.after(self._chance.randrange(TRY_US_MIN, TRY_US_MAX), self._on_silence, operation, sending)

    def _send(self, operation: Operation, node: int) -> int:
        sending = len(operation.sent)
        operation.sent.append((self._schedule.now_us, self._commits_known()))
        self._deliver(node, Frame(operation.number, self.number, sending, operation.commands, operation.keys))
        return sending

    def _on_silence(self, operation: Operation, sending: int) -> None:
        if not operation.is_done and sending == len(operation.sent) - 1:
            self._counts["tries without an answer"] += 1
            self._leader = self._chance.choice(self._nodes)
            self._try(operation)

    def _think(self) -> None:
        self._schedule.after(self._chance.randrange(THINKING_US_MAX), self._begin)

    # ---- being told ----

    def on_answer(self, node: int, frame: Frame, answer: Answer) -> None:
        """An answer has arrived, perhaps to a sending that nobody waits for any more."""
        operation = self.history[frame.operation]
        self._counts[f"answers: {answer.outcome.name}"] += 1
        if answer.outcome is Outcome.DONE:
            operation.told.append(Told(self._schedule.now_us, node, frame.sending, answer, self._commits_known()))
            if not operation.is_done:
                operation.is_done = True
                self._leader = node
                self._think()
            return
        if answer.outcome is Outcome.NOT_LEADER:
            operation.refused.add(frame.sending)
        if not operation.is_done and frame.sending == len(operation.sent) - 1:
            self._leader = answer.leader or self._chance.choice(self._nodes)
            operation.sent.append(operation.sent[-1])  # so that silence about this sending means nothing any more
            operation.refused.add(len(operation.sent) - 1)
            self._schedule.after(self._chance.randrange(BACK_OFF_US_MAX), self._try, operation)

    # ---- what is asked ----

    @property
    def _makers(self) -> list[Callable[[], Records]]:
        """What commands of a batch are drawn from."""
        return [self._some_transfer, self._some_transfer, self._some_hold, self._some_settling, self._some_other]

    def _some_keys(self) -> Words:
        names = self._chance.sample(self._names, 2)
        return np.array([words_of_account(name, "EUR") for name in names], np.int64)

    def _some_commands(self) -> Records:
        chance = self._chance
        if len(self.history) == 1:
            return joined(self._open(name, currency) for name in self._names for currency in CURRENCIES)
        commands = [chance.choice(self._makers)() for _ in range(chance.randrange(1, COMMANDS_MAX + 1))]
        if len(commands) > 1 and chance.random() < 0.3:
            for command in commands[:-1]:
                command["flags"] |= int(CommandFlag.LINKED)
        return joined(commands)

    def _command(self, kind: CommandKind, fields: Fields) -> Records:
        command = np.zeros(1, COMMAND)
        self._last_id += 1
        command["kind"], command["id_head"], command["id_tail"] = int(kind), self.number + 1, self._last_id
        for name, value in fields.items():
            command[name] = value
        return command

    def _open(self, name: str, currency: str) -> Records:
        head, tail = words_of_account(name, currency)
        limit = LIMIT_UNLIMITED if name == self._names[0] else self._chance.choice([0, 100])
        command = self._command(CommandKind.OPEN, {"debit_head": head, "debit_tail": tail, "amount": limit})
        command["currency"] = currency_word(currency)
        command.view(np.uint8)[32:80] = np.frombuffer(name.encode().ljust(48, b"\0"), np.uint8)
        return command

    def _sides(self, debit: str, credit: str, currency: str) -> Fields:
        debit_head, debit_tail = words_of_account(debit, currency)
        credit_head, credit_tail = words_of_account(credit, currency)
        return {
            "debit_head": debit_head,
            "debit_tail": debit_tail,
            "credit_head": credit_head,
            "credit_tail": credit_tail,
        }

    def _transfer(self, debit: str, credit: str, currency: str, amount: int) -> Records:
        return self._command(CommandKind.TRANSFER, {**self._sides(debit, credit, currency), "amount": amount})

    def _some_transfer(self) -> Records:
        debit, credit = self._chance.sample(self._names, 2)
        if self._chance.random() < 0.4:
            debit, credit = self._names[0], self._chance.choice(self._names[1:])
        return self._transfer(debit, credit, self._chance.choice(CURRENCIES), self._chance.randrange(1, 60))

    def _some_hold(self) -> Records:
        debit, credit = self._chance.sample(self._names, 2)
        fields = {**self._sides(debit, credit, "EUR"), "amount": self._chance.randrange(1, 40)}
        fields["timeout_ms"] = self._chance.choice([0, 50, 500, 100_000])
        command = self._command(CommandKind.HOLD, fields)
        self._holds.append({**fields, "reference_head": self.number + 1, "reference_tail": self._last_id})
        return command

    def _some_settling(self) -> Records:
        """A capture, whole or in part, or a release; of a hold that this client has asked for."""
        if not self._holds:
            return self._some_hold()
        fields = dict(self._chance.choice(self._holds[-6:]))
        del fields["timeout_ms"]
        if self._chance.random() < 0.3:
            for name in ("amount", "credit_head", "credit_tail"):
                del fields[name]
            return self._command(CommandKind.RELEASE, fields)
        fields["amount"] = self._chance.randrange(1, fields["amount"] + 1)
        command = self._command(CommandKind.CAPTURE, fields)
        if self._chance.random() < 0.3:
            command["flags"] |= int(CommandFlag.KEEP_OPEN)
        return command

    def _some_other(self) -> Records:
        """An id of old with other content, or an account that exists."""
        if self._last_id > 4 and self._chance.random() < 0.5:
            command = self._transfer(self._names[0], self._names[2], "EUR", 1_000_000 + self._last_id)
            command["id_tail"] = self._chance.randrange(1, self._last_id)
            return command
        return self._open(self._chance.choice(self._names), "EUR")
