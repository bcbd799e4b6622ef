"""An operator who moves slots from shard to shard, whatever else goes on."""

from typing import TYPE_CHECKING

import numpy as np

from bezant.protocol.frames import Operation
from bezant.protocol.messages import encode_message
from bezant.protocol.moves import MoveSlots, encode_slots
from bezant.protocol.placement import SLOT_COUNT

if TYPE_CHECKING:
    from .world import World

FIRST_US = 300_000
PAUSE_US_MAX = 900_000
AGAIN = 0.5
AGAIN_US_MAX = 500_000
BACK_US = 1_000_000
"""How long a slot stays where it was brought back to, at least: several times what a parked saga waits."""


class Mover:
    """See the module."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.schedule.chance("moves")
        self._next_back_us = 0
        world.schedule.after(FIRST_US, self._begin)

    def _begin(self) -> None:
        world, chance = self._world, self._chance
        if world.troubles.is_over:
            return
        world.schedule.after(chance.randrange(PAUSE_US_MAX), self._begin)
        slot, owner = chance.choice(sorted(world.books.movements.owners.items()))
        if owner is None:
            return
        target = chance.choice([shard for shard in range(world.shards) if shard != owner])
        body = self._move(slot, target)
        self._ask(owner, body)
        if chance.random() < AGAIN:
            world.schedule.after(chance.randrange(AGAIN_US_MAX), self._ask, owner, body)

    def bring_back(self) -> None:
        """Move a slot back to where a saga is parked that has something to give back there, as its alarm says."""
        world = self._world
        if world.schedule.now_us < self._next_back_us:
            return
        for slot, shard in world.books.parts.confirmed_in_vain:
            owner = world.books.movements.owners.get(slot)
            if owner not in (None, shard):
                world.counts["slots brought back for a saga"] += 1
                self._next_back_us = world.schedule.now_us + BACK_US
                self._ask(owner, self._move(slot, shard))
                return

    def _move(self, slot: int, target: int) -> bytes:
        wanted = np.zeros(SLOT_COUNT, np.bool_)
        wanted[slot] = True
        return encode_message(MoveSlots(self._chance.randbytes(16), encode_slots(wanted), target))

    def _ask(self, shard: int, body: bytes) -> None:
        leader = self._world.groups[shard].shard_leader()
        if leader is not None:
            self._world.counts["moves asked for"] += 1
            leader.on_move(Operation.MOVE_SLOTS, body)
