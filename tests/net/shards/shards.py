"""Shards of one node each in the test's own process, and what tests do to them."""

from pathlib import Path
from typing import Any

import bezant
from bezant.engine.kernel_compiler import KernelCompiler
from bezant.engine.ledger import lookups
from bezant.engine.placement.maps import first_map, with_slots_moved
from bezant.engine.transactions import building, ids, marking
from bezant.net.client.sharding import ShardedChannel
from bezant.net.server.placing import Placing
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import SlotMap

from ..server.node import Node

CURRENCY = "EUR"
KERNELS_OF_TRANSFERS = (building, ids, marking, lookups)


def compiled_for() -> dict[str, list[Any]]:
    """What each kernel that transfers between shards take has been compiled for."""
    functions = [found for module in KERNELS_OF_TRANSFERS for found in vars(module).items()]
    return {
        name: list(function.signatures)
        for name, function in functions
        if hasattr(function, "signatures") and function._compiler.pipeline_class is KernelCompiler
    }


class Shards:
    """See the module. ``slot_map`` is the latest map; which nodes go by it is the test's business."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self.nodes = [Node(folder / f"shard-{shard}", shard=shard) for shard in range(count)]
        self.slot_map: SlotMap = first_map({shard: ["x:1"] for shard in range(1)})

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{node.port}" for node in self.nodes]

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
        self.slot_map = first_map({shard: [address] for shard, address in enumerate(self.addresses)})
        for shard, node in enumerate(self.nodes):
            node.reactor.placing = Placing(shard, self.slot_map)

    def move(self, names: list[str], shard: int, *told: int) -> SlotMap:
        """The slots of these accounts belong to a shard from now on; the nodes of the shards `told` hear of it."""
        self.slot_map = with_slots_moved(self.slot_map, [slot_of(account_id(name, CURRENCY)) for name in names], shard)
        self.tell(*told)
        return self.slot_map

    def tell(self, *shards: int) -> None:
        for shard in shards:
            placing = self.nodes[shard].reactor.placing
            assert placing is not None
            placing.take(self.slot_map)

    def connect(self, shard: int = 0, timeout_s: float = 10.0) -> "bezant.Opening":
        return bezant.connect(self.addresses[shard], timeout_s=timeout_s)

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()


def channel_of(wallet: "bezant.Wallet") -> ShardedChannel:
    assert isinstance(wallet.channel, ShardedChannel)
    return wallet.channel


def names_of(wallet: "bezant.Wallet", shard: int, count: int) -> list[str]:
    """So many names of accounts that a shard has by the wallet's map, each in a slot of its own."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        name = f"wallet:{number}"
        identifier = account_id(name, CURRENCY)
        if channel_of(wallet).shard_of(identifier) == shard:
            found.setdefault(slot_of(identifier), name)
        number += 1
    return list(found.values())
