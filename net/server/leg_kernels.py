"""Compiled work on what nodes alone may ask: halves of transfers between shards, and transit accounts.

The ledger executes such commands whoever has sent them, as it must when a history is replayed. So those of clients are
refused before it sees them.
"""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, Bytes, Records, Words

_FLAGS_AT: Final = 116
_KIND_AT: Final = 118
_WORD: Final = _FLAGS_AT // 8
_FLAGS_SHIFT: Final = _FLAGS_AT % 8 * 8
_KIND_SHIFT: Final = _KIND_AT % 8 * 8
_TRANSIT: Final = int(CommandFlag.TRANSIT)
_OPEN: Final = int(CommandKind.OPEN)
_TRY_DEBIT: Final = int(CommandKind.TRY_DEBIT)
_TRY_CREDIT: Final = int(CommandKind.TRY_CREDIT)
_CONFIRM: Final = int(CommandKind.CONFIRM)
_CANCEL: Final = int(CommandKind.CANCEL)
_TRY_PART: Final = int(CommandKind.TRY_PART)
_PLAN: Final = int(CommandKind.PLAN)
_LAST: Final = _PLAN
_LINKED: Final = int(CommandFlag.LINKED)
_PART: Final = int(CommandFlag.PART)
_FLAGS_MASK: Final = 0xFFFF
_DEBIT_AT: Final = 16
_CREDIT_AT: Final = 32
_DEBIT_WORD: Final = _DEBIT_AT // 8
_CREDIT_WORD: Final = _CREDIT_AT // 8
_SUSPECT: Final = -_TRY_DEBIT << _KIND_SHIFT | _TRANSIT << _FLAGS_SHIFT
_KIND_UNKNOWN: Final = int(ResultCode.KIND_UNKNOWN)
_FLAGS_UNKNOWN: Final = int(ResultCode.FLAGS_UNKNOWN)

if COMMAND.fields is None or (COMMAND.fields["flags"][1], COMMAND.fields["kind"][1]) != (_FLAGS_AT, _KIND_AT):
    raise AssertionError("the flags and kind of a command are not where they are looked for")
if (COMMAND.fields["debit_head"][1], COMMAND.fields["credit_head"][1]) != (_DEBIT_AT, _CREDIT_AT):
    raise AssertionError("the accounts of a command are not where they are looked for")


@inlined
def is_suspect(command_words: Words, number: int) -> Any:
    """Whether a command may be one that a client must not send: one comparison, for the hot path."""
    return command_words[number, _WORD] & _SUSPECT != 0


@inlined
def code_for_client(command_words: Words, number: int) -> Any:
    """The code that refuses a client's command, or 0."""
    word = command_words[number, _WORD]
    kind = word >> _KIND_SHIFT
    if _TRY_DEBIT <= kind <= _LAST:
        return _KIND_UNKNOWN
    return _FLAGS_UNKNOWN if kind == _OPEN and (word >> _FLAGS_SHIFT) & _TRANSIT != 0 else 0


@kernel
def has_suspects(command_words: Words, first: int, end: int) -> bool:
    """Whether any of the commands from `first` up to `end` may be one that a client must not send."""
    found = np.int64(0)
    for number in range(first, end):
        found |= command_words[number, _WORD] & _SUSPECT
    return bool(found != 0)


@kernel
def preset_legs_span(command_words: Words, first: int, end: int, preset: Words) -> None:
    """Refuse those of a client's commands that nodes alone may send, but for what is refused already."""
    for number in range(first, end):
        if preset[number] == 0:
            preset[number] = code_for_client(command_words, number)


@kernel
def preset_legs(frames: Records, frame_count: int, command_words: Words, preset: Words) -> None:
    """The same for the commands of frames."""
    for index in range(frame_count):
        first = frames[index]["first_command"]
        for number in range(first, first + frames[index]["command_count"]):
            if preset[number] == 0:
                preset[number] = code_for_client(command_words, number)


@kernel
def are_all_legs(command_words: Words) -> bool:
    """Whether a coordinator may ask for all commands: they are legs of transactions, and OPENs of transit accounts.

    None is part of a chain: an open one would swallow what is executed behind it, decisions of this node among it.
    """
    for number in range(len(command_words)):
        word = command_words[number, _WORD]
        kind, flags = word >> _KIND_SHIFT, (word >> _FLAGS_SHIFT) & _FLAGS_MASK
        is_kind = _TRY_DEBIT <= kind <= _TRY_PART or (kind == _OPEN and flags == _TRANSIT)
        if not is_kind or flags & _LINKED != 0:
            return False
    return True


@kernel
def any_for_slots(command_words: Words, slots: Bytes) -> bool:
    """Whether any leg is about a wallet in one of these slots (uint8 for each); see `moved_legs.py`."""
    for number in range(len(command_words)):
        word = command_words[number, _WORD]
        kind, flags = word >> _KIND_SHIFT, (word >> _FLAGS_SHIFT) & _FLAGS_MASK
        is_end = kind in (_CONFIRM, _CANCEL)
        pays = kind in (_TRY_PART, _TRY_DEBIT, _PLAN) or (is_end and flags & _PART != 0)
        if pays or is_end or kind == _TRY_CREDIT:
            wallet = command_words[number, _DEBIT_WORD if pays else _CREDIT_WORD]
            if slots[(wallet & 0xFF) << 4 | ((wallet >> 8) & 0xFF) >> 4] != 0:
                return True
    return False
