"""A slot map in the memory of this process: for tests, and for whoever embeds several shards in one process."""

import asyncio
from collections.abc import AsyncIterator

from bezant.engine.placement.maps import may_replace
from bezant.protocol.errors import UsageError
from bezant.protocol.placement import SlotMap


class MemoryStore:
    """A `PlacementStore` that everybody who has this object shares."""

    def __init__(self) -> None:
        self._map: SlotMap | None = None
        self._changed = asyncio.Condition()

    async def read(self) -> SlotMap | None:
        """See `PlacementStore.read`."""
        return self._map

    async def replace(self, expected_version: int, wanted: SlotMap) -> SlotMap:
        """See `PlacementStore.replace`."""
        async with self._changed:
            if may_replace(self._map, expected_version, wanted):
                self._map = wanted
                self._changed.notify_all()
        if self._map is None:
            raise UsageError("there is no slot map yet, and so none with the version that was expected")
        return self._map

    async def watch(self, after_version: int) -> AsyncIterator[SlotMap]:
        """See `PlacementStore.watch`."""
        while True:
            async with self._changed:
                while self._map is None or self._map.version <= after_version:
                    await self._changed.wait()
                found = self._map
            after_version = found.version
            yield found

    async def close(self) -> None:
        """See `PlacementStore.close`."""
