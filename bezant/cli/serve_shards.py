"""A node of several shards: a process for each, with a reactor of its own, so that every core has one; kept running.

What a process writes goes to a file beside its folder, as with `bezant cluster`.
"""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from bezant.cli.errors import InputWrong
from bezant.cli.node_process import NODE_COMMAND, NodeProcess, ProcessFailed
from bezant.cli.output import write_remark
from bezant.cli.watched_nodes import Say, WatchedNodes, done_before
from bezant.engine.node_file import read_node_file
from bezant.protocol.placement import METADATA_SHARD


class ServedShards(WatchedNodes):
    """The processes, by the numbers of their shards."""

    def __init__(
        self, folders: Sequence[Path], arguments: Sequence[str], say: Say, *, command: Sequence[str] = NODE_COMMAND
    ) -> None:
        """`arguments` are those of `serve` for each. Raises `InputWrong` for folders that cannot be one node's."""
        nodes: dict[int, NodeProcess] = {}
        for folder in folders:
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
                arguments=arguments,
                command=command,
                name=f"shard {file.shard}",
            )
        # The others ask the metadata group for the slot map, so a node of that is started first.
        super().__init__(dict(sorted(nodes.items(), key=lambda item: item[0] != METADATA_SHARD)), say, {})

    async def start(self) -> None:
        """Start all and return when they listen; one first, which compiles the kernels. Raises `ProcessFailed`."""
        is_first = True
        for node in self.nodes.values():
            node.start()
            if is_first:
                await node.ready()
                is_first = False
        for shard, node in self.nodes.items():
            await node.ready()
            fields = self._fields("node", shard) | {"address": node.address, "process_id": node.process_id}
            self._say(f"{node.name}: listening on {node.address}, process {node.process_id}", fields)

    async def stop(self) -> None:
        """Stop all at once. Raises `ProcessFailed` if one does not stop as it should."""
        running = [node for node in self.nodes.values() if not node.ended]
        for node in running:
            node.ask_to_stop()
        failures: list[ProcessFailed] = []
        for node in running:
            try:
                await node.stopped()
            except ProcessFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]


async def serve_shards(folders: Sequence[Path], arguments: Sequence[str], say: Say) -> int:
    """Serve several folders until told to stop."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    shards = ServedShards(folders, arguments, say)
    try:
        if await done_before(stopping, shards.start()):
            await shards.watch(stopping)
        write_remark("bezant: stopping all shards")
        await shards.stop()
    finally:
        shards.end()
    return 0
