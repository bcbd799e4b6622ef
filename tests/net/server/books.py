"""Commands for the tests, as arrays of records and as frames."""

import numpy as np

from bezant.net.client.commands import encode_open
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, Records, id_words

CURRENCY = "EUR"
WORLD = "world"
NAMES = (WORLD, "ann", "bob")
COMMITTED = 0


def opening(*names: str) -> Records:
    """Opens accounts without a limit; the ids follow from the names."""
    commands = (encode_open(account_id(name, CURRENCY), name, CURRENCY, LIMIT_UNLIMITED, 0) for name in names)
    return np.frombuffer(b"".join(commands), COMMAND)


def transfers(count: int, first_id: int, debit: str = WORLD, credit: str = "ann", amount: int = 1) -> Records:
    """Transfers with ids of their own, from `first_id` on."""
    commands = np.zeros(count, COMMAND)
    commands["id_head"] = np.arange(first_id, first_id + count)
    commands["id_tail"] = 1
    for side, name in (("debit", debit), ("credit", credit)):
        commands[f"{side}_head"], commands[f"{side}_tail"] = id_words(account_id(name, CURRENCY))
    commands["amount"] = amount
    commands["kind"] = CommandKind.TRANSFER
    return commands


def transfer_frame(request_id: int, count: int = 1, first_id: int | None = None, timeout_ms: int = 0) -> bytes:
    """A frame of transfers whose ids follow from the request id unless said otherwise."""
    commands = transfers(count, (request_id << 16) + 1 if first_id is None else first_id)
    return encode_frame(Operation.COMMANDS, request_id, commands.tobytes(), timeout_ms=timeout_ms)
