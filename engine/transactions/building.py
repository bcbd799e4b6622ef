"""Compiled work on the legs of transfers between shards: each is written in one pass over its try.

The first 128 bytes of an EVENT are the COMMAND that it comes from, so tries are taken as words (int64 of shape (count,
16 or 24)) of either, and legs are written as those of COMMAND records, zeros until then.
"""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, COMMAND_SIZE, EVENT, Words

_WORDS: Final = COMMAND_SIZE // 8
_ID: Final = 0
_DEBIT: Final = 2
_CREDIT: Final = 4
_REFERENCE: Final = 6
_USER_DATA: Final = 8
_AMOUNT: Final = 10
_CLIENT_TIMESTAMP: Final = 11
_TIMEOUT: Final = 13
_KIND_FLAGS_CODE: Final = 14
_CODE_MASK: Final = (1 << 32) - 1
_FLAGS_SHIFT: Final = 32
_KIND_SHIFT: Final = 48

_TRY_CREDIT: Final = int(CommandKind.TRY_CREDIT)
_CONFIRM: Final = int(CommandKind.CONFIRM)
_CANCEL: Final = int(CommandKind.CANCEL)
_SETTLED: Final = int(CommandFlag.SETTLED)
_COMMITTED: Final = int(ResultCode.COMMITTED)
_UNDECIDED: Final = int(ResultCode.UNDECIDED)
_NOT_EXECUTED_FIRST: Final = 100
_NOT_EXECUTED_END: Final = 200

_PLACES: Final = {
    "id_head": _ID,
    "debit_head": _DEBIT,
    "credit_head": _CREDIT,
    "reference_head": _REFERENCE,
    "user_data_head": _USER_DATA,
    "amount": _AMOUNT,
    "client_timestamp_ns": _CLIENT_TIMESTAMP,
    "timeout_ms": _TIMEOUT,
    "code": _KIND_FLAGS_CODE,
}
for _layout in (COMMAND, EVENT):
    _found = {name: _layout.fields[name][1] for name in (*_PLACES, "flags", "kind")} if _layout.fields else {}
    _expected = {name: 8 * word for name, word in _PLACES.items()}
    _expected |= {"flags": 8 * _KIND_FLAGS_CODE + _FLAGS_SHIFT // 8, "kind": 8 * _KIND_FLAGS_CODE + _KIND_SHIFT // 8}
    if _found != _expected:
        raise AssertionError("the fields of a command are not where they are looked for")


@inlined
def write_common(leg: Any, a_try: Any, kind: int, flags: int) -> None:
    """What every leg has of its transfer, and its kind."""
    leg[_USER_DATA] = a_try[_USER_DATA]
    leg[_USER_DATA + 1] = a_try[_USER_DATA + 1]
    leg[_KIND_FLAGS_CODE] = (a_try[_KIND_FLAGS_CODE] & _CODE_MASK) | flags << _FLAGS_SHIFT | kind << _KIND_SHIFT


@inlined
def write_pair(leg: Any, place: int, head: int, tail: int) -> None:
    """Write an id of two words."""
    leg[place] = head
    leg[place + 1] = tail


@kernel
def write_try_credits(tries: Words, ids: Words, far: Words, times: Words, legs: Words) -> None:
    """Write the TRY_CREDIT of each TRY_DEBIT; `ids`: its own, and `far`: the transit account of the far shard, of shape
    (count, 2), or (1, 2) for the same in all."""
    for number in range(len(tries)):
        a_try, leg, there = tries[number], legs[number], min(number, len(far) - 1)
        write_pair(leg, _ID, ids[number, 0], ids[number, 1])
        write_pair(leg, _DEBIT, far[there, 0], far[there, 1])
        write_pair(leg, _CREDIT, a_try[_CREDIT], a_try[_CREDIT + 1])
        write_pair(leg, _REFERENCE, a_try[_DEBIT], a_try[_DEBIT + 1])
        leg[_AMOUNT] = a_try[_AMOUNT]
        leg[_CLIENT_TIMESTAMP] = times[number]
        write_common(leg, a_try, _TRY_CREDIT, 0)


@kernel
def write_decisions(tries: Words, ids: Words, codes: Words, times: Words, legs: Words) -> int:
    """Write the CONFIRM of each TRY_DEBIT whose code is COMMITTED, and the CANCEL of the others, with these ids.

    Returns of how many the code is UNDECIDED, which decides nothing.
    """
    undecided = 0
    for number in range(len(tries)):
        a_try, leg, code = tries[number], legs[number], codes[number]
        kind, flags = _CONFIRM, 0
        if code == _UNDECIDED:
            undecided += 1
        if code != _COMMITTED:
            kind = _CANCEL
            if not _NOT_EXECUTED_FIRST <= code < _NOT_EXECUTED_END:
                flags = _SETTLED
        write_pair(leg, _ID, ids[number, 0], ids[number, 1])
        write_pair(leg, _DEBIT, a_try[_DEBIT], a_try[_DEBIT + 1])
        write_pair(leg, _CREDIT, a_try[_REFERENCE], a_try[_REFERENCE + 1])
        write_pair(leg, _REFERENCE, a_try[_ID], a_try[_ID + 1])
        leg[_CLIENT_TIMESTAMP] = times[number]
        leg[_TIMEOUT] = code
        write_common(leg, a_try, kind, flags)
    return undecided


@kernel
def write_second_legs(
    tries: Words, ids: Words, try_credits: Words, decisions: Words, far: Words, times: Words, legs: Words
) -> None:
    """Write what follows in the far shard from the decision on each TRY_DEBIT, a CONFIRM or a CANCEL, with these ids;
    `try_credits` are those of the TRY_CREDITs that it is about, and `far` as in `write_try_credits`."""
    for number in range(len(tries)):
        a_try, leg, there = tries[number], legs[number], min(number, len(far) - 1)
        kind = decisions[number, _KIND_FLAGS_CODE] >> _KIND_SHIFT
        write_pair(leg, _ID, ids[number, 0], ids[number, 1])
        write_pair(leg, _REFERENCE, try_credits[number, 0], try_credits[number, 1])
        write_pair(leg, _DEBIT, far[there, 0], far[there, 1])
        write_pair(leg, _CREDIT, a_try[_CREDIT], a_try[_CREDIT + 1])
        leg[_CLIENT_TIMESTAMP] = times[number]
        leg[_TIMEOUT] = decisions[number, _TIMEOUT]
        write_common(leg, a_try, kind, 0)


def warm_building() -> None:
    """Compile the kernels, or load them."""
    words, pairs, ones = np.zeros((1, _WORDS), np.int64), np.zeros((1, 2), np.int64), np.zeros(1, np.int64)
    write_try_credits(words, pairs, pairs, ones, words.copy())
    write_decisions(words, pairs, ones, ones, words.copy())
    write_second_legs(words, pairs, pairs, words, pairs, ones, words.copy())
