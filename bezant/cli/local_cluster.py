"""A group of nodes on this machine, a process a node: initialised on first use, started, watched, stopped.

Under one folder each node has its data, ``node-N``, and what it writes, ``node-N.log``. Where it listens stands in its
node file. A node that ends is started again, within bounds.
"""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.node_process import NODE_COMMAND, START_TIMEOUT_S, NodeProcess, ProcessFailed, spawn
from bezant.cli.ports import HOST, free_ports
from bezant.cli.watched_nodes import WATCH_POLL_S, Say, WatchedNodes
from bezant.engine.log.storage import Directory
from bezant.engine.node_file import NodeFile, new_cluster_id, new_group_node, read_node_file, write_node_file
from bezant.net.client.members import read_members
from bezant.protocol.errors import BezantError
from bezant.protocol.messages import MEMBERS_MAX, MembersStatus

LEADER_TIMEOUT_S: Final = 60.0
"""How long a group whose nodes all listen may take to have a leader."""
STATUS_TIMEOUT_S: Final = 1.0
_PORT_MAX: Final = 65_535
_NODE_FOLDER: Final = re.compile(r"node-([1-9][0-9]{0,9})")
_SHARD_FOLDERS: Final = "shard-*"
_WARM: Final = "from bezant.net.server.warm import warm_kernels; warm_kernels()"
_NO_STREAMS: Final = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


def init_cluster(
    folder: Path,
    node_count: int,
    base_port: int,
    *,
    shard: int = 0,
    placement: Sequence[str] = (),
    taken: Set[int] = frozenset(),
) -> None:
    """Initialise the folders of a new group, or finish what was begun; base port 0 takes any ports that are free.

    `shard` and `placement` are as in the node file; `taken` are ports of nodes that may not run now. Node N gets the
    ports base + 2N - 2, for clients, and base + 2N - 1, for the others. Raises `InputWrong`.
    """
    if not 1 <= node_count <= MEMBERS_MAX:
        raise InputWrong(f"a group has 1 to {MEMBERS_MAX} nodes, not {node_count}")
    if base_port and base_port + 2 * node_count - 1 > _PORT_MAX:
        raise InputWrong(
            f"{node_count} nodes need {2 * node_count} ports from {base_port} on, and there are not so many"
        )
    Directory(folder).create()
    begun = next(iter(node_files(folder).values()), None)
    if begun is None:
        ports = free_ports(2 * node_count, taken) if not base_port else range(base_port, base_port + 2 * node_count)
        members = {
            number: (f"{HOST}:{ports[2 * number - 1]}", f"{HOST}:{ports[2 * number - 2]}")
            for number in range(1, node_count + 1)
        }
        cluster_id = new_cluster_id()
    else:
        members = {member.node_id: (member.peer_address, member.client_address) for member in begun.members}
        cluster_id = begun.cluster_id
    for number in members:
        if read_node_file(node_folder(folder, number)) is None:
            node = new_group_node(cluster_id, number, members, shard=shard, placement=placement)
            write_node_file(node_folder(folder, number), node)


def needs_init(folder: Path) -> bool:
    """Whether `init_cluster` has something to do: no node of the group was ever started, and some have no folder."""
    nodes = node_files(folder)
    was_started = any(any(node_folder(folder, number).glob(_SHARD_FOLDERS)) for number in nodes)
    return not was_started and (not nodes or bool(missing_nodes(nodes)))


def missing_nodes(nodes: Mapping[int, NodeFile]) -> list[int]:
    """First members of the group that have no folder here: not initialised yet, removed, or lost."""
    return sorted({member.node_id for node in nodes.values() for member in node.members} - set(nodes))


def node_files(folder: Path) -> dict[int, NodeFile]:
    """The node files of a cluster's folder, by node id, in order. Raises `CorruptLog`, `UnsupportedFormat`."""
    found: dict[int, NodeFile] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NODE_FOLDER.fullmatch(path.name)
        node = read_node_file(path) if match else None
        if match and node is not None:
            if node.node_id != int(match[1]):
                raise InputWrong(f"{path} belongs to node {node.node_id}: name it so, or remove it")
            found[node.node_id] = node
    return dict(sorted(found.items()))


def node_folder(folder: Path, node_id: int) -> Path:
    """Where a node of a cluster has its data."""
    return folder / f"node-{node_id}"


def warm_kernels_once() -> None:
    """Compile the kernels, in a child: nodes that start together would each compile them. Raises `ProcessFailed`."""
    with spawn("the compiler of the kernels", (sys.executable, "-c", _WARM), **_NO_STREAMS) as child:
        try:
            status = child.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ProcessFailed(f"the kernels were not compiled within {START_TIMEOUT_S:g} s") from None
    if status != 0:
        raise ProcessFailed(f"the kernels cannot be compiled: status {status}")


class LocalCluster(WatchedNodes):
    """See the module. Used from one event loop; as an async context manager it leaves nothing running.

    ``nodes``: the processes, by node id.
    """

    def __init__(
        self,
        folder: Path,
        say: Say,
        *,
        arguments: Sequence[str] = (),
        echo: str | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = NODE_COMMAND,
        name: str = "",
    ) -> None:
        """`arguments`, `echo` and `environment` are given to every node; `name` is what the group is called, if it is
        one of several. Raises what `node_files` does."""
        self._folder = folder
        self.files = node_files(folder)
        nodes = {
            number: NodeProcess(
                node_folder(folder, number),
                log_path=folder / f"node-{number}.log",
                listen=None,
                echo=echo,
                arguments=arguments,
                environment=environment,
                command=command,
                name=f"{name} node {number}".lstrip(),
            )
            for number in self.files
        }
        super().__init__(nodes, say, {"group": name} if name else {})

    @property
    def addresses(self) -> list[str]:
        """Where clients reach the nodes, in the order of their ids."""
        return [node.client_address for node in self.files.values()]

    async def __aenter__(self) -> "LocalCluster":
        try:
            await self.start()
        except BaseException:
            self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    async def start(self, *, one_first: bool = False) -> None:
        """Start all nodes and return when they listen. Raises `ProcessFailed` if one does not.

        With `one_first` the others are started when the first listens, and find the kernels that it has compiled.
        """
        await self._start_all(
            lambda number, node: (
                f"{node.name}: {node.address}, process {node.process_id}, {node_folder(self._folder, number)}"
            ),
            one_first=one_first,
        )

    async def await_leader(self, timeout_s: float = LEADER_TIMEOUT_S) -> MembersStatus:
        """Return when a node knows of a leader. Raises `CommandFailed` if none does in time."""
        deadline_s = time.monotonic() + timeout_s
        told = "no node answered"
        while time.monotonic() < deadline_s:
            for address in self.addresses:
                try:
                    status = await read_members([address], STATUS_TIMEOUT_S)
                except BezantError as error:
                    told = str(error)
                    continue
                if status.leader:
                    return status
                told = f"node {status.node_id} knows of no leader"
            await asyncio.sleep(WATCH_POLL_S)
        raise CommandFailed(f"the group had no leader within {timeout_s:g} s: {told}")

    async def stop(self) -> None:
        """Stop all nodes in order, the leader last: nobody has to be elected meanwhile. Raises `ProcessFailed`."""
        leader = 0
        try:
            leader = (await read_members(self.addresses, STATUS_TIMEOUT_S)).leader
        except BezantError:
            pass  # Without a leader there is no order to keep.
        running = {number: node for number, node in self.nodes.items() if not node.ended}
        followers = [node for number, node in running.items() if number != leader]
        await self._stop_in_order([followers, [running[leader]] if leader in running else []])
