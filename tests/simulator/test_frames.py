"""Claim: a simulated node takes no more into a batch than a real one has room for, and nothing out of turn."""

import numpy as np
import pytest

from bezant.engine import replica
from bezant.protocol.records import COMMAND

from .frames import NO_COMMANDS, NO_KEYS, Frame, count_for_batch


@pytest.mark.parametrize(
    ("counts", "taken"), [([], 0), ([5, 5], 2), ([5, 6, 0], 1), ([10, 0, 0, 1], 3), ([4, 7, 1], 1), ([0], 1)]
)
def test_a_batch_takes_the_first_frames_that_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch, counts: list[int], taken: int
) -> None:
    monkeypatch.setattr(replica, "BATCH_COMMANDS_MAX", 10)
    frames = [Frame(0, 0, 0, np.zeros(count, COMMAND) if count else NO_COMMANDS, NO_KEYS) for count in counts]
    assert count_for_batch(frames) == taken
