"""A node of several shards: a process for each, with a reactor of its own, so that every core has one; kept running.

What a process writes goes to a file beside its folder, as with `bezant cluster`.
"""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from bezant.cli.errors import InputWrong
from bezant.cli.node_process import NODE_COMMAND, NodeProcess
from bezant.cli.watched_nodes import Say, WatchedNodes, done_before, tell_remark
from bezant.engine.node_file import read_node_file
from bezant.protocol.placement import METADATA_SHARD


class ServedShards(WatchedNodes):
    """The processes, by the numbers of their shards."""

    def __init__(
        self,
        folders: Sequence[Path],
        arguments: Callable[[int], Sequence[str]],
        say: Say,
        *,
        command: Sequence[str] = NODE_COMMAND,
    ) -> None:
        """`arguments` are those of `serve` for the folder of a number, from 0. Raises `InputWrong` for folders that
        cannot be one node's."""
        nodes: dict[int, NodeProcess] = {}
        for number, folder in enumerate(folders):
            file = read_node_file(folder)
            if file is None or not (file.placement or file.shard == METADATA_SHARD):
                raise InputWrong(
                    f"{folder} is not initialised as one of several shards", "bezant init --shard S --placement PLACES"
                )
            if file.shard in nodes:
                raise InputWrong(f"{folder} is of shard {file.shard}, as another one is", "name one folder a shard")
            log_path = folder.with_name(f"{folder.name}.log")
            nodes[file.shard] = NodeProcess(
                folder,
                log_path=log_path,
                listen=None,
                arguments=arguments(number),
                command=command,
                name=f"shard {file.shard}",
            )
        # The others ask the metadata group for the slot map, so a node of that is started first.
        super().__init__(dict(sorted(nodes.items(), key=lambda item: item[0] != METADATA_SHARD)), say, {})

    async def start(self) -> None:
        """Start all and return when they listen; one first, which compiles the kernels. Raises `ProcessFailed`."""
        await self._start_all(
            lambda _, node: f"{node.name}: listening on {node.address}, process {node.process_id}", one_first=True
        )

    async def stop(self) -> None:
        """Stop all at once. Raises `ProcessFailed` if one does not stop as it should."""
        await self._stop_in_order([[node for node in self.nodes.values() if not node.ended]])


async def serve_shards(
    folders: Sequence[Path], arguments: Callable[[int], Sequence[str]], say: Say, ready: Callable[[str], None]
) -> int:
    """Serve several folders until told to stop; `ready` is told a line once all of them listen. `arguments`: see
    `ServedShards`."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    shards = ServedShards(folders, arguments, say)
    try:
        if await done_before(stopping, shards.start()):
            ready("bezant: all shards are served")
            await shards.watch(stopping)
        tell_remark("bezant: stopping all shards")
        await shards.stop()
    finally:
        shards.end()
    return 0
