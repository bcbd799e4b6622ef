"""Compiled steps of replay: commands out of events, and events compared; as bytes, which may lie anywhere in a log."""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.hashing import load_word, store_word
from bezant.engine.ledger.checks import EXPIRE
from bezant.engine.moves.copies import MOVING_FIRST
from bezant.protocol.records import COMMAND_SIZE, EVENT, EVENT_SIZE, Bytes

_COMMAND_WORDS = COMMAND_SIZE // 8
_EVENT_WORDS = EVENT_SIZE // 8
_FIELDS: Final[Any] = EVENT.fields
_KIND_AT: Final = int(_FIELDS["kind"][1])

if _FIELDS["kind"][0].itemsize != 2:
    raise AssertionError("the kind of an event is not what replay reads")


@kernel
def copy_commands(events: Bytes, commands: Bytes) -> int:
    """Write the commands that events were made of: their first fields, and zero where the outcome follows; how many.

    There are none for holds that fell due (EXPIRE), nor if no command has made any of the events, but a move of slots:
    then -1.
    """
    count, moving = 0, 0
    for source in range(0, len(events) - EVENT_SIZE + 1, EVENT_SIZE):
        kind = (np.int64(np.uint64(load_word(events, source + _KIND_AT)) & np.uint64(0xFFFF)) ^ 0x8000) - 0x8000
        moving += int(kind >= MOVING_FIRST)
        if kind == EXPIRE:
            continue
        target = count * COMMAND_SIZE
        for word in range(_COMMAND_WORDS - 1):
            store_word(commands, target + 8 * word, load_word(events, source + 8 * word))
        store_word(commands, target + COMMAND_SIZE - 8, 0)
        count += 1
    return -1 if moving * EVENT_SIZE == len(events) else count


@kernel
def find_different(left: Bytes, right: Bytes) -> int:
    """Number of the first event that differs, of as many on either side; -1 if none does."""
    for number in range(len(left) // EVENT_SIZE):
        start = number * EVENT_SIZE
        different: Any = np.uint64(0)
        for word in range(_EVENT_WORDS):
            different |= np.uint64(load_word(left, start + 8 * word)) ^ np.uint64(load_word(right, start + 8 * word))
        if different != np.uint64(0):
            return number
    return -1
