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


class Mover:
    """See the module."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.schedule.chance("moves")
        world.schedule.after(FIRST_US, self._begin)

    def _begin(self) -> None:
        world, chance = self._world, self._chance
        if world.troubles.is_over:
            return
        world.schedule.after(chance.randrange(PAUSE_US_MAX), self._begin)
        wanted = np.zeros(SLOT_COUNT, np.bool_)
        slot, owner = chance.choice(sorted(world.books.movements.owners.items()))
        if owner is None:
            return
        wanted[slot] = True
        target = chance.choice([shard for shard in range(world.shards) if shard != owner])
        body = encode_message(MoveSlots(chance.randbytes(16), encode_slots(wanted), target))
        self._ask(owner, body)
        if chance.random() < AGAIN:
            world.schedule.after(chance.randrange(AGAIN_US_MAX), self._ask, owner, body)

    def _ask(self, shard: int, body: bytes) -> None:
        leader = self._world.groups[shard].shard_leader()
        if leader is not None:
            self._world.counts["moves asked for"] += 1
            leader.on_move(Operation.MOVE_SLOTS, body)
