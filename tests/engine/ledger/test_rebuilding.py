"""Claim: commands come out of events as they went in, and the first event that differs in any bit is found, wherever
the bytes lie."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.ledger.rebuilding import copy_commands, find_different
from bezant.protocol.records import COMMAND_SIZE, EVENT_SIZE, Bytes

EVENTS = 5
ANY = np.random.default_rng(1).integers(0, 256, EVENTS * EVENT_SIZE, np.uint8)


def placed(data: Bytes, offset: int) -> Bytes:
    """The same bytes, read-only, at an offset that no word lies at."""
    memory = np.zeros(len(data) + 8, np.uint8)
    memory[offset : offset + len(data)] = data
    found = memory[offset : offset + len(data)]
    found.flags.writeable = False
    return found


@given(st.integers(0, 7))
def test_commands_are_the_first_fields_of_events(offset: int) -> None:
    commands = np.ones(EVENTS * COMMAND_SIZE, np.uint8)
    copy_commands(placed(ANY, offset), commands)
    expected = ANY.reshape(EVENTS, EVENT_SIZE)[:, :COMMAND_SIZE].copy()
    expected[:, -8:] = 0
    assert commands.tobytes() == expected.tobytes()


@given(st.integers(0, 7), st.integers(0, 8 * EVENTS * EVENT_SIZE - 1))
def test_any_bit_that_differs_is_found(offset: int, bit: int) -> None:
    assert find_different(ANY.copy(), placed(ANY, offset)) == -1
    changed = ANY.copy()
    changed[bit // 8] ^= 1 << bit % 8
    assert find_different(changed, placed(ANY, offset)) == bit // 8 // EVENT_SIZE
