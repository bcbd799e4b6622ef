"""Several shards on this machine for a load, each with its process or processes, and their metadata group."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bezant.cli.local_cluster import node_folder
from bezant.cli.local_shards import LocalShards, Plan, init_shards, shard_folder
from bezant.cli.node_process import LISTEN_ANYWHERE, WRITE_SIDE_COMMAND, NodeProcess
from bezant.cli.session import run_async


class LoadShards:
    """See the module. A context manager that leaves nothing running; what is loaded are the leaders at the start."""

    def __init__(self, folder: Path, shards: int, replicas: int, command: Sequence[str] = WRITE_SIDE_COMMAND) -> None:
        self._folder = folder / "shards"
        init_shards(self._folder, Plan(shards, replicas, 0))
        self._shards = LocalShards(self._folder, _say_nothing, echo=LISTEN_ANYWHERE, command=command)
        self._leaders: dict[int, int] = {}

    def __enter__(self) -> Self:
        try:
            run_async(self._start())
        except BaseException:
            self._shards.end()
            raise
        return self

    async def _start(self) -> None:
        await self._shards.start()
        for shard, group in self._shards.shards.items():
            self._leaders[shard] = (await group.await_leader()).leader

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._shards.end()

    @property
    def leaders(self) -> list[NodeProcess]:
        """The process of each shard's leader."""
        return [self._shards.shards[shard].nodes[leader] for shard, leader in self._leaders.items()]

    @property
    def addresses(self) -> list[str]:
        """Where the clients of each leader connect."""
        return [self._shards.shards[shard].files[leader].client_address for shard, leader in self._leaders.items()]

    @property
    def data(self) -> list[Path]:
        """The data folder of each leader."""
        return [node_folder(shard_folder(self._folder, shard), leader) for shard, leader in self._leaders.items()]

    @property
    def process_ids(self) -> list[int]:
        """The processes of all nodes of all shards."""
        return [node.process_id for group in self._shards.shards.values() for node in group.nodes.values()]

    def describe_trouble(self) -> str:
        """Which nodes have ended, and what they said; else that a leadership may have moved."""
        nodes = [node for group in self._shards.groups for node in group.nodes.values()]
        ended = [node.describe_end() for node in nodes if node.ended]
        return "; ".join(ended) or "the nodes run; a shard may be led by another node than at first"


def _say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """The report says what is to be said."""
