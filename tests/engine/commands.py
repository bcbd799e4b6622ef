"""Commands as arrays of records, for tests that are about something else than the ledger's rules."""

import itertools
from typing import Final

import numpy as np

from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, Records, Words, id_words

CURRENCY: Final = "EUR"
_numbers = itertools.count(1)


def opening(name: str, limit: int = 0, *, currency: str = CURRENCY) -> Records:
    """One command that opens an account."""
    command = _command(CommandKind.OPEN, limit)
    command["debit_head"], command["debit_tail"] = id_words(account_id(name, currency))
    command["currency"] = currency_word(currency)
    command.view(np.uint8)[32:80] = np.frombuffer(name.encode().ljust(48, b"\0"), np.uint8)
    return command


def transfer(debit: str, credit: str, amount: int = 1, *, currency: str = CURRENCY, **fields: int) -> Records:
    """One command that moves an amount; `fields` are set as they are named in the record."""
    command = _command(CommandKind.TRANSFER, amount)
    command["debit_head"], command["debit_tail"] = id_words(account_id(debit, currency))
    command["credit_head"], command["credit_tail"] = id_words(account_id(credit, currency))
    for field, value in fields.items():
        command[field] = value
    return command


def transfers(debit: str, credit: str, count: int, amount: int = 1) -> Records:
    """So many transfers that differ in their ids alone."""
    commands = np.repeat(transfer(debit, credit, amount), count)
    commands["id_tail"] = [next(_numbers) for _ in range(count)]
    return commands


def opening_world(*names: str) -> Records:
    """Commands that open ``world`` without limit and other accounts with none to spare."""
    return join(opening("world", LIMIT_UNLIMITED), *(opening(name) for name in names))


def join(*commands: Records) -> Records:
    """Commands in one array, as a batch is."""
    return np.concatenate(commands)


def keys_of(commands: Records) -> Words:
    """What look-ups of events take: id and debit account of each command."""
    fields = ("id_head", "id_tail", "debit_head", "debit_tail")
    return np.stack([commands[field] for field in fields], axis=1)


def _command(kind: CommandKind, amount: int) -> Records:
    command = np.zeros(1, COMMAND)
    command["kind"], command["amount"] = int(kind), amount
    command["id_head"], command["id_tail"] = 7, next(_numbers)
    return command
