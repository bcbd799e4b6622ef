"""Shards of one node each, with readers, as processes, and a wallet that is connected to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bezant
from bezant.cli.local_cluster import node_folder
from bezant.cli.local_shards import LocalShards, Plan, init_shards, shard_folder
from bezant.engine.verifying.over_shards import ShardsReport, verify_over_shards

WAIT_S = 120.0
SMALL = ("--segment-size-mib", "8", "--ids-memory-mib", "64")
"""Two segments are written in full, and the memory for ids is touched, before a node takes the first command."""


def say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """Nobody listens."""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[LocalShards, bezant.Wallet]]:
    """Two shards of one node each, with readers, and a wallet."""
    init_shards(folder, Plan(2, 1, 0))
    async with LocalShards(folder, say_nothing, arguments=SMALL) as shards:
        async with bezant.connect(",".join(shards.addresses), timeout_s=WAIT_S) as wallet:
            yield shards, wallet
        await shards.stop()


def verified(folder: Path, shards: int = 2) -> ShardsReport:
    """What the logs of shards of one node each prove together, when those are stopped."""
    return verify_over_shards({shard: node_folder(shard_folder(folder, shard), 1) for shard in range(shards)})
