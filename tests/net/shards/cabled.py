"""Two shards of one node each, real processes, behind cables that can be cut: to clients, and to the other shard."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from bezant.cli.local_cluster import LocalCluster, init_cluster, node_folder
from bezant.cli.ports import HOST, free_addresses
from bezant.engine.node_file import new_cluster_id, new_group_node, write_node_file
from bezant.engine.placement.maps import first_map
from bezant.net.placement.store import open_store
from bezant.perf.failover.network import CLIENTS, Network
from bezant.protocol.messages import Hello, decode_message
from bezant.protocol.placement import METADATA_SHARD

from .processes import SMALL, say_nothing

TOKEN = f"bezant_{12 * '0'}_{43 * '0'}"
"""What the clients of the test show, and no node does; nobody asks for one."""
OTHER_SHARD = 1000
"""Stands for the nodes of the other shard where a node id is asked for."""
_NODE = 1
METADATA_ARGUMENTS = ("--no-reader", *SMALL, "--accounts-max", "64")


def client_of(greeting: bytes) -> int:
    """Nodes dial those of the other shard, as clients do; only these have a token."""
    return CLIENTS if decode_message(greeting, Hello).token == TOKEN else OTHER_SHARD


class CabledShard:
    """A shard of one node, which listens at one place and is reached by clients, and by the other shard, at another."""

    def __init__(self, folder: Path, shard: int, placement: list[str]) -> None:
        self.data = node_folder(folder, _NODE)
        self._network = Network()
        self._front = socket.socket()
        self._front.bind((HOST, 0))
        self.address = f"{HOST}:{self._front.getsockname()[1]}"
        peer_address, client_address = free_addresses(2)
        members = {_NODE: (peer_address, self.address)}
        node = new_group_node(new_cluster_id(), _NODE, members, shard=shard, placement=placement)
        write_node_file(self.data, msgspec.structs.replace(node, client_address=client_address))
        self.cluster = LocalCluster(folder, say_nothing, arguments=SMALL, name=f"shard {shard}")

    async def plug_in(self) -> None:
        host, _, port = self.cluster.addresses[0].rpartition(":")
        await self._network.add(_NODE, self._front, (host, int(port)), for_peers=False, client_of=client_of)

    def cut_off(self, *diallers: int) -> None:
        """From all of these, and nobody else: CLIENTS, OTHER_SHARD; what this node itself dials is the other's."""
        self._network.cut(frozenset((_NODE, dialler)) for dialler in diallers)

    def kill(self) -> None:
        self.cluster.nodes[_NODE].kill()

    async def stop(self) -> None:
        self.cluster.end()
        await self._network.stop()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[list[CabledShard]]:
    """Two shards, with readers; nodes that end are started again."""
    async with AsyncExitStack() as closing:
        init_cluster(folder / "metadata", 1, 0, shard=METADATA_SHARD)
        metadata = LocalCluster(folder / "metadata", say_nothing, arguments=METADATA_ARGUMENTS, name="metadata")
        closing.callback(metadata.end)
        await metadata.start()
        await metadata.await_leader()
        shards = [CabledShard(folder / f"shard-{shard}", shard, metadata.addresses) for shard in (0, 1)]
        store = open_store(metadata.addresses)
        await store.replace(0, first_map({number: [shard.address] for number, shard in enumerate(shards)}))
        await store.close()
        for shard in shards:
            closing.push_async_callback(shard.stop)
            await shard.plug_in()
        await asyncio.gather(*(shard.cluster.start() for shard in shards))
        stopping = asyncio.Event()
        watching = [asyncio.create_task(shard.cluster.watch(stopping)) for shard in shards]
        try:
            yield shards
        finally:
            stopping.set()
            await asyncio.gather(*watching)
        await asyncio.gather(*(shard.cluster.stop() for shard in shards))
        await metadata.stop()
