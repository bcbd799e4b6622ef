"""Claim: a metadata group of three real nodes keeps the slot map through the loss of its leader."""

import asyncio
from pathlib import Path
from typing import Any

from bezant.cli.local_cluster import LocalCluster, init_cluster
from bezant.cli.local_shards import METADATA_ARGUMENTS
from bezant.engine.placement.maps import first_map, with_slots_moved
from bezant.net.placement.store import PlacementStore, open_store
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.placement import METADATA_SHARD, SlotMap

WAIT_S = 30.0
FIRST = first_map({0: ["a:1"], 1: ["b:1"]})
SECOND = with_slots_moved(FIRST, range(100), 1)
THIRD = with_slots_moved(SECOND, range(100), 0)


def say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """Nobody listens."""


async def replaced(store: PlacementStore, wanted: SlotMap) -> SlotMap:
    """Ask until it is known; a replacement that was made already is answered as one."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await store.replace(wanted.version - 1, wanted)
            except ConnectionFailed:
                await asyncio.sleep(0.05)


async def test_the_map_outlives_the_leader(tmp_path: Path) -> None:
    init_cluster(tmp_path, 3, 0, shard=METADATA_SHARD)
    async with LocalCluster(tmp_path, say_nothing, arguments=METADATA_ARGUMENTS) as group:
        leader = (await group.await_leader()).leader
        store, other = open_store(group.addresses), open_store(group.addresses[1:])
        watch = other.watch(0)
        assert await replaced(store, FIRST) == FIRST
        assert await anext(watch) == FIRST
        group.nodes[leader].kill()
        assert await replaced(store, SECOND) == SECOND
        async with asyncio.timeout(WAIT_S):
            assert await anext(watch) == SECOND
        group.nodes[leader].start()
        await group.nodes[leader].ready()
        assert await replaced(other, THIRD) == THIRD
        assert await store.read() == THIRD
        await watch.aclose()  # type: ignore[attr-defined]
        await store.close()
        await other.close()
        await group.stop()
