"""Which transfers of a batch go to accounts of other shards: a compiled step in front of the ledger."""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from typing import Any, Final

from bezant.engine.compiled import kernel
from bezant.engine.ledger.lookups import find_account
from bezant.engine.ledger.state import LedgerArrays
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import Records, Words

MARKED_COUNT: Final = 0
MARKED_REFUSED: Final = 1
MARKED_NEXT: Final = 2
MARKED_PEER: Final = 3
MARKED_CURRENCY: Final = 4
MARKED_SIZE: Final = 5
"""What `mark_transfers_out` reads and advances: transfers turned into tries, commands refused, the command to go on
with; and, if it stopped for want of a transit account, the shard (else -1) and the currency's number that it is for."""

_TRANSFER: Final = int(CommandKind.TRANSFER)
_TRANSFER_AVAILABLE: Final = int(CommandKind.TRANSFER_AVAILABLE)
_HOLD: Final = int(CommandKind.HOLD)
_TRY_DEBIT: Final = int(CommandKind.TRY_DEBIT)
_LINKED: Final = int(CommandFlag.LINKED)
_WRONG_SHARD: Final = int(ResultCode.WRONG_SHARD)


@kernel
def mark_transfers_out(
    arrays: LedgerArrays,
    commands: Records,
    slots: Words,
    shard: int,
    transit_ids: Words,
    refused: Words,
    marked: Words,
) -> None:
    """Turn each TRANSFER to an account of another shard into a TRY_DEBIT that names the transit account.

    `slots` has the shard of each slot, `transit_ids` (shape: shards, currencies, 2) the ids of this shard's transit
    accounts, zeros where there is none yet: then it stops, and goes on when called again. What cannot go to another
    shard (a hold, a part of a chain) gets a code in `refused`, which has as many words as there are commands.
    """
    is_chained = False
    marked[MARKED_PEER] = -1
    for number in range(marked[MARKED_NEXT], len(commands)):
        command = commands[number]
        kind = command["kind"]
        was_chained, is_chained = is_chained, command["flags"] & _LINKED != 0
        if kind not in (_TRANSFER, _TRANSFER_AVAILABLE, _HOLD):
            continue
        head: Any = command["credit_head"]
        peer = slots[(head & 0xFF) << 4 | (head >> 12) & 0xF]
        if peer == shard:
            continue
        if kind != _TRANSFER or was_chained or is_chained:
            refused[number] = _WRONG_SHARD
            marked[MARKED_REFUSED] += 1
            continue
        row = find_account(arrays, command["debit_head"], command["debit_tail"])
        if row < 0:
            continue  # The ledger says so, and there is no currency to find a transit account by.
        currency = arrays.rows[row]["currency_number"]
        if transit_ids[peer, currency, 0] == 0:
            marked[MARKED_NEXT] = number
            marked[MARKED_PEER] = peer
            marked[MARKED_CURRENCY] = currency
            return
        command["kind"] = _TRY_DEBIT
        command["reference_head"] = transit_ids[peer, currency, 0]
        command["reference_tail"] = transit_ids[peer, currency, 1]
        marked[MARKED_COUNT] += 1
    marked[MARKED_NEXT] = len(commands)
