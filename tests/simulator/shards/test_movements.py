"""Claim: what is committed of a slot that moves is found to be wrong where it is, and a hold ends once, where it is."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind
from bezant.protocol.moves import MovePhase, MoveStep, encode_slots
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import SLOT_COUNT
from bezant.protocol.records import EVENT, id_words

from ..schedule import Violation
from .movements import Movements

SOURCE, TARGET = 0, 1
PAYER = account_id("payer", "EUR")
SLOT = slot_of(PAYER)
AMOUNT, DEADLINE_NS = 30, 77


def event_of(kind: CommandKind, *, code: ResultCode = ResultCode.COMMITTED) -> Any:
    """An event of the hold, or of the account that it is on."""
    event = np.zeros(1, EVENT)[0]
    event["kind"], event["result"] = int(kind), int(code)
    event["debit_head"], event["debit_tail"] = id_words(PAYER)
    event["amount"] = event["effective_amount"] = AMOUNT
    event["id_tail" if kind in {CommandKind.HOLD, CommandKind.MOVE_HOLD_IN} else "reference_tail"] = 5
    if kind in {CommandKind.MOVE_HOLD_OUT, CommandKind.MOVE_HOLD_IN}:
        event["client_timestamp_ns"] = DEADLINE_NS
    return event


class Story:
    """Steps and events of one move, as they are committed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.movements = Movements({SLOT: SOURCE}, self.counts)

    def take(self, shard: int, kind: CommandKind, code: ResultCode = ResultCode.COMMITTED) -> None:
        self.movements.take(shard, int(kind), event_of(kind, code=code))

    def step(self, phase: MovePhase) -> None:
        own, peer = (TARGET, SOURCE) if phase == "taken" else (SOURCE, TARGET)
        self.movements.take_step(own, MoveStep(b"m" * 16, phase, peer, encode_slots(np.arange(SLOT_COUNT) == SLOT)))

    def sealed(self) -> "Story":
        self.take(SOURCE, CommandKind.HOLD)
        self.step("begun")
        self.step("sealed")
        return self


def test_a_hold_may_fall_due_behind_the_seal_where_it_is() -> None:
    story = Story().sealed()
    story.take(SOURCE, CommandKind.EXPIRE)
    assert story.counts["holds expired behind a seal"] == 1
    story = Story().sealed()
    story.take(SOURCE, CommandKind.MOVE_HOLD_OUT)
    story.take(TARGET, CommandKind.MOVE_HOLD_IN)
    story.take(TARGET, CommandKind.EXPIRE)
    story.step("taken")
    assert story.counts["holds expired behind a seal"] == 1


@pytest.mark.parametrize("shard", [SOURCE, TARGET])
def test_a_hold_on_its_way_falls_due_nowhere(shard: int) -> None:
    story = Story().sealed()
    story.take(SOURCE, CommandKind.MOVE_HOLD_OUT)
    with pytest.raises(Violation, match="no such open hold"):
        story.take(shard, CommandKind.EXPIRE)


def test_a_hold_falls_due_once() -> None:
    story = Story().sealed()
    story.take(SOURCE, CommandKind.EXPIRE)
    for shard in (SOURCE, TARGET):
        with pytest.raises(Violation, match="no such open hold"):
            story.take(shard, CommandKind.EXPIRE)
    with pytest.raises(Violation, match="no such open hold"):
        story.take(SOURCE, CommandKind.MOVE_HOLD_OUT)
    with pytest.raises(Violation, match="did not go"):
        story.take(TARGET, CommandKind.MOVE_HOLD_IN)


def test_a_hold_that_has_come_falls_due_there_alone() -> None:
    story = Story().sealed()
    story.take(SOURCE, CommandKind.MOVE_HOLD_OUT)
    story.take(TARGET, CommandKind.MOVE_HOLD_IN)
    with pytest.raises(Violation, match="no such open hold"):
        story.take(SOURCE, CommandKind.EXPIRE)
    with pytest.raises(Violation, match="did not go"):
        story.take(TARGET, CommandKind.MOVE_HOLD_IN)


def test_nobody_is_served_behind_the_seal() -> None:
    for shard in (SOURCE, TARGET):
        with pytest.raises(Violation, match="None has it"):
            Story().sealed().take(shard, CommandKind.CAPTURE)


def test_a_hold_is_known_where_its_slot_has_come_to() -> None:
    story = Story().sealed()
    story.take(SOURCE, CommandKind.EXPIRE)
    story.step("taken")
    story.take(TARGET, CommandKind.CAPTURE, ResultCode.HOLD_EXPIRED)
    with pytest.raises(Violation, match="does not know a hold"):
        story.take(TARGET, CommandKind.CAPTURE, ResultCode.HOLD_UNKNOWN)
