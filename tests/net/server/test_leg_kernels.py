"""Claim: what kernels say of legs is what the rules say, written out."""

import numpy as np
import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.placement.maps import first_map
from bezant.net.server import moved_legs
from bezant.net.server.placing import Placing
from bezant.net.server.requests import legs_of
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.placement import SLOT_COUNT
from bezant.protocol.records import COMMAND, RESULT, Records

LEG_KINDS = range(int(CommandKind.TRY_DEBIT), int(CommandKind.TRY_PART) + 1)
KINDS = sorted({0, *map(int, CommandKind), *LEG_KINDS, 38, -1})


def random_legs(seed: int, count: int) -> Records:
    chance = np.random.default_rng(seed)
    legs = np.frombuffer(chance.bytes(count * COMMAND.itemsize), COMMAND).copy()
    legs["kind"] = chance.choice(KINDS, count)
    legs["flags"] = chance.choice([0, *map(int, CommandFlag)], count)
    return legs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [0, *map(int, CommandFlag), int(CommandFlag.TRANSIT | CommandFlag.LINKED)])
def test_coordinators_send_legs_alone(kind: int, flags: int) -> None:
    legs = random_legs(kind + 2, 3)
    legs["kind"], legs["flags"] = int(CommandKind.CONFIRM), 0
    assert (legs_of(legs.tobytes()) == legs).all()
    legs["kind"][2], legs["flags"][2] = kind, flags
    opens_transit = kind == CommandKind.OPEN and flags == CommandFlag.TRANSIT
    if opens_transit or (kind in LEG_KINDS and not flags & CommandFlag.LINKED):
        assert (legs_of(legs.tobytes()) == legs).all()
    else:
        with pytest.raises(RemoteProtocolError, match="coordinators only"):
            legs_of(legs.tobytes())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_passed_on_unlooked_at_that_is_elsewhere(seed: int) -> None:
    placing, ledger = Placing(0, first_map({0: ["a:1"], 1: ["b:1"]})), Ledger(accounts_max=16)
    passed = 0
    for number in range(200):
        drained = np.zeros(SLOT_COUNT, np.bool_)
        drained[: 16 * (number % 3)] = True
        placing.drain(drained if number % 3 else None)
        legs = random_legs(1000 * seed + number, 1 + number % 3)
        told: list[Records | Exception] = []
        looked_at, respond = moved_legs.without_legs_elsewhere(placing, ledger, legs, told.append)
        is_elsewhere = moved_legs._find_elsewhere(placing, ledger, legs, with_ends=True)
        assert looked_at.tobytes() == legs[~is_elsewhere].tobytes()
        passed += looked_at is legs
        assert placing.may_refuse_any(legs) or not is_elsewhere.any()
        respond(np.zeros(len(looked_at), RESULT))
        assert len(told) == 1 and len(told[0]) == len(legs)
    assert 0 < passed < 200
