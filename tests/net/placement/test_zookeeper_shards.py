"""Claim: real nodes of two shards go by a map in ZooKeeper, follow it, and start again while ZooKeeper is away."""

import asyncio
from pathlib import Path
from typing import Any

import bezant
from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.cli.node_process import WRITE_SIDE_COMMAND
from bezant.engine.placement.maps import with_slots_moved
from bezant.net.placement.store import open_store
from bezant.protocol.names import account_id, slot_of

from ..shards.processes import SMALL
from .zookeeper_server import ZooKeeperServer

WAIT_S = 30.0


def say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """Nobody listens."""


async def test_shards_with_the_map_in_zookeeper(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    place = f"zookeeper://{zookeeper.address}/bezant/shards"
    init_shards(tmp_path, Plan(2, 1, 0, [place]))
    async with LocalShards(tmp_path, say_nothing, arguments=SMALL, command=WRITE_SIDE_COMMAND) as shards:
        assert shards.metadata is None
        store = open_store([place])
        found = await store.read()
        assert found is not None
        await store.replace(found.version, with_slots_moved(found, [slot_of(account_id("ann", "EUR"))], 1))
        await store.close()
        await go_on_at(shards, 2)
        zookeeper.stop()
        try:
            node = shards.shards[1].nodes[1]
            await node.stop()
            node.start()
            await node.ready()
            await go_on_at(shards, 2)
        finally:
            await asyncio.to_thread(zookeeper.start)
        await shards.stop()


async def go_on_at(shards: LocalShards, version: int) -> None:
    """Every node goes by this map, soon, and an account can be used."""
    async with asyncio.timeout(WAIT_S):
        for address in shards.addresses:
            while True:
                async with bezant.connect(address) as wallet:
                    if wallet.welcome.map_version == version:
                        break
                await asyncio.sleep(0.05)
    async with bezant.connect(shards.addresses[0]) as wallet:
        assert (await wallet.open_account("ann", "EUR")).code in (
            bezant.ResultCode.COMMITTED,
            bezant.ResultCode.ACCOUNT_EXISTS,
        )
