"""Compiled work on the slots of a batch: commands of accounts that another shard has never reach the ledger."""

from typing import Final

from bezant.engine.compiled import kernel
from bezant.protocol.codes import ResultCode
from bezant.protocol.records import COMMAND, Bytes, Records, Words

_WRONG_SHARD: Final = int(ResultCode.WRONG_SHARD)
_DEBIT_AT: Final = 16
_DEBIT_WORD: Final = _DEBIT_AT // 8

if COMMAND.fields is None or COMMAND.fields["debit_head"][1] != _DEBIT_AT:
    raise AssertionError("the debit account of a command is not where its slot is looked for")


@kernel
def preset_wrong_shard(frames: Records, frame_count: int, command_words: Words, own: Bytes, preset: Words) -> int:
    """Refuse the commands of frames whose debit account lies in a slot that is not `own` (uint8 for each slot).

    Codes that are there stay. Returns how many it has refused.
    """
    refused = 0
    for index in range(frame_count):
        frame = frames[index]
        first = frame["first_command"]
        for number in range(first, first + frame["command_count"]):
            word = command_words[number, _DEBIT_WORD]
            slot = (word & 0xFF) << 4 | ((word >> 8) & 0xFF) >> 4
            if own[slot] == 0 and preset[number] == 0:
                preset[number] = _WRONG_SHARD
                refused += 1
    return refused
