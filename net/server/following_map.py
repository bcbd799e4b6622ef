"""How a node of a shard keeps up with the slot map: from its own folder at a start, then from where maps are kept."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bezant.engine.placement.file import read_map, write_map
from bezant.net.placement.store import open_store
from bezant.net.server.placing import Placing
from bezant.protocol.errors import StorageError
from bezant.protocol.placement import SlotMap

WAIT_REMARK_S: Final = 5.0
"""Seconds after which a start says what it waits for."""

_log = logging.getLogger("bezant")


async def await_map(data_directory: Path, places: Sequence[str]) -> SlotMap:
    """The map that a node begins with: what its folder has, else the first that is to be had, which is kept.

    Raises `CorruptLog`, `StorageError`; `UsageError` for places that cannot be.
    """
    kept = read_map(data_directory)
    if kept is not None:
        return kept
    store = open_store(places)
    remark = asyncio.get_running_loop().call_later(WAIT_REMARK_S, _say_waiting, places)
    try:
        async for found in store.watch(0):
            write_map(data_directory, found)
            return found
    finally:
        remark.cancel()
        await store.close()
    raise StorageError("the watch of the slot map has ended")


def _say_waiting(places: Sequence[str]) -> None:
    _log.warning("bezant: waiting for a slot map at %s: this node does not know yet what it serves", ",".join(places))


class MapFollower:
    """Has a node go by each later map, once that is kept in its folder. All methods on the loop.

    Without places there is nothing to follow: a group that is the only one, or that keeps the map itself.
    """

    def __init__(self, placing: Placing | None, data_directory: Path, places: Sequence[str]) -> None:
        self._placing = placing
        self._data_directory = data_directory
        self._places = places
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow until `stop`."""
        if self._placing is not None and self._places:
            self._task = asyncio.create_task(self._follow(self._placing), name="bezant slot map")

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self, placing: Placing) -> None:
        store = open_store(self._places)
        try:
            async for found in store.watch(placing.map_version):
                await self._keep(found)
                if placing.take(found):
                    _log.warning("bezant: this node goes by version %d of the slot map", found.version)
        finally:
            await store.close()

    async def _keep(self, found: SlotMap) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, write_map, self._data_directory, found)
        except StorageError as error:
            # It counts all the same; after a restart it is heard of again.
            _log.warning("bezant: version %d of the slot map cannot be kept: %s", found.version, error)
