"""Where the slot map is kept, simulated: slow, away for a while, and with answers that get lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.placement import SlotMap

from .clients import map_of

if TYPE_CHECKING:
    from .world import World

DELAY_S_MAX = 0.02
LOSS = 0.1
TOLD_US_MAX = 800_000
"""Until a node hears of a map."""


class Maps:
    """The map that is in force, and who is told of it when."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.slot_map = map_of(world.shards)
        self.is_away = False
        self.loss = LOSS

    def open(self) -> "MapStore":
        """As `bezant.net.placement.store.open_store`."""
        return MapStore(self)

    async def reach(self) -> None:
        """Raises `ConnectionFailed` if that cannot be done now."""
        chance = self._world.schedule.chance("maps")
        await asyncio.sleep(chance.uniform(0, DELAY_S_MAX))
        if self.is_away or chance.random() < self.loss:
            self._world.counts["maps not reached"] += 1
            raise ConnectionFailed("the maps cannot be reached")

    def come_back(self) -> None:
        """They can be reached again."""
        self.is_away = False

    def put(self, slot_map: SlotMap) -> None:
        """Have a map in force; nodes hear of it, each at its time."""
        self._world.schedule.note("map", slot_map.version)
        self._world.counts["maps replaced"] += 1
        self.slot_map = slot_map
        for group in self._world.groups:
            for node in group.shard_nodes:
                node.hear_of_map()


class MapStore:
    """See `bezant.net.placement.store.PlacementStore`."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps

    async def read(self) -> SlotMap | None:
        await self._maps.reach()
        return self._maps.slot_map

    async def replace(self, expected_version: int, wanted: SlotMap) -> SlotMap:
        await self._maps.reach()
        if self._maps.slot_map.version == expected_version:
            self._maps.put(wanted)
        await self._maps.reach()
        return self._maps.slot_map

    async def watch(self, after_version: int) -> AsyncIterator[SlotMap]:
        raise NotImplementedError("nodes are told by `Maps.put`")
        yield self._maps.slot_map

    async def close(self) -> None:
        """There is nothing to let go of."""
