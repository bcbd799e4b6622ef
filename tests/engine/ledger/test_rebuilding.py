"""Claim: commands come out of events as they went in, and the first event that differs in any bit is found, wherever
the bytes lie."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.ledger.checks import EXPIRE, TRANSFER
from bezant.engine.ledger.rebuilding import copy_commands, find_different
from bezant.engine.moves.copies import MOVING_KINDS
from bezant.protocol.records import COMMAND, COMMAND_SIZE, EVENT, EVENT_SIZE, Bytes

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


def test_holds_that_fell_due_leave_no_command_and_events_of_a_move_none_at_all() -> None:
    events = np.zeros(3, EVENT)
    events["id_tail"] = 1, 2, 3
    events["kind"] = TRANSFER, EXPIRE, TRANSFER
    commands = np.zeros(3, COMMAND)
    assert copy_commands(placed(events.view(np.uint8), 0), commands.view(np.uint8)) == 2
    assert commands["id_tail"].tolist() == [1, 3, 0]
    events["kind"] = MOVING_KINDS[:3]
    assert copy_commands(placed(events.view(np.uint8), 0), commands.view(np.uint8)) == -1
    events["kind"][2] = TRANSFER
    assert copy_commands(placed(events.view(np.uint8), 0), commands.view(np.uint8)) == 3
    events["kind"] = -1  # which no event has: the ledger refuses it
    assert copy_commands(placed(events.view(np.uint8), 0), commands.view(np.uint8)) == 3


@given(st.integers(0, 7), st.integers(0, 8 * EVENTS * EVENT_SIZE - 1))
def test_any_bit_that_differs_is_found(offset: int, bit: int) -> None:
    assert find_different(ANY.copy(), placed(ANY, offset)) == -1
    changed = ANY.copy()
    changed[bit // 8] ^= 1 << bit % 8
    assert find_different(changed, placed(ANY, offset)) == bit // 8 // EVENT_SIZE
