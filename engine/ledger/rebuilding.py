"""Compiled steps of replay: commands out of events, and events compared; as bytes, which may lie anywhere in a log."""

from typing import Any

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.hashing import load_word, store_word
from bezant.protocol.records import COMMAND_SIZE, EVENT_SIZE, Bytes

_COMMAND_WORDS = COMMAND_SIZE // 8
_EVENT_WORDS = EVENT_SIZE // 8


@kernel
def copy_commands(events: Bytes, commands: Bytes) -> None:
    """Write the commands that events were made of: their first fields, and zero where the outcome follows."""
    for number in range(len(commands) // COMMAND_SIZE):
        source, target = number * EVENT_SIZE, number * COMMAND_SIZE
        for word in range(_COMMAND_WORDS - 1):
            store_word(commands, target + 8 * word, load_word(events, source + 8 * word))
        store_word(commands, target + COMMAND_SIZE - 8, 0)


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
