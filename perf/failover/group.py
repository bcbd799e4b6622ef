"""The nodes of a group under test, and what can be done to each: killed, hung, cut off, its disk stopped, restarted."""

import asyncio
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bezant.cli.local_cluster import LocalCluster, init_cluster, node_files, node_folder
from bezant.cli.node_process import WRITE_SIDE_COMMAND, NodeProcess, ProcessFailed
from bezant.cli.ports import HOST, free_addresses
from bezant.engine.node_file import new_cluster_id, new_group_node, write_node_file
from bezant.net.client.members import ask_node
from bezant.perf.failover.network import CLIENTS, Cable, Network
from bezant.perf.failover.settings import FaultName
from bezant.perf.failover.stalling_node import stalled_file
from bezant.perf.load.replicas import is_level
from bezant.protocol.errors import BezantError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import MembersStatus, decode_message

STATUS_TIMEOUT_S: Final = 1.0
POLL_S: Final = 0.05
LEVEL_TIMEOUT_S: Final = 120.0
LAG_ENTRIES_MAX: Final = 64
"""Entries that a follower may lack under load and count as level: they are on their way."""
STALLING_COMMAND: Final = (sys.executable, "-m", "bezant.perf.failover.stalling_node", "serve", "--no-reader")
NETWORKED: Final = frozenset({"blackhole", "random"})
"""Faults for which everything goes through cables that can be cut."""
STALLED: Final = frozenset({"disk", "random"})


class Target:
    """See the module. ``addresses`` are for clients, by node id. Leaves nothing running after `end`."""

    def __init__(self, folder: Path, count: int, fault: FaultName, arguments: Sequence[str] = ()) -> None:
        self._folder = folder
        self._network = Network() if fault in NETWORKED else None
        self._isolated: frozenset[int] = frozenset()
        self._fronts: list[tuple[int, socket.socket, str, bool]] = []
        if self._network is None:
            init_cluster(folder, count, 0)
        else:
            self._init_behind_proxies(count)
        self.cluster = LocalCluster(
            folder,
            _say_nothing,
            arguments=arguments,
            command=STALLING_COMMAND if fault in STALLED else WRITE_SIDE_COMMAND,
        )
        members = next(iter(node_files(folder).values())).members
        self.addresses = {member.node_id: member.client_address for member in members}

    def _init_behind_proxies(self, count: int) -> None:
        """Node files in which every node listens at one place and is reached, by way of a proxy, at another."""
        numbers = range(1, count + 1)
        bound = {number: (_bound(), _bound()) for number in numbers}
        members = {number: (_address(peers), _address(clients)) for number, (peers, clients) in bound.items()}
        cluster_id = new_cluster_id()
        for number in numbers:
            node = new_group_node(cluster_id, number, members)
            peer_address, client_address = free_addresses(2)
            node = msgspec.structs.replace(node, peer_address=peer_address, client_address=client_address)
            write_node_file(node_folder(self._folder, number), node)
            peers, clients = bound[number]
            self._fronts += [(number, peers, peer_address, True), (number, clients, client_address, False)]

    @property
    def nodes(self) -> dict[int, NodeProcess]:
        """The processes, by node id."""
        return self.cluster.nodes

    def data(self, node: int) -> Path:
        """The data folder of a node."""
        return node_folder(self._folder, node)

    # ---- its life ----

    async def start(self) -> int:
        """Start all nodes; returns the leader's id. Raises `ProcessFailed`."""
        if self._network is not None:
            for number, bound, backend, for_peers in self._fronts:
                host, _, port = backend.rpartition(":")
                await self._network.add(number, bound, (host, int(port)), for_peers=for_peers)
        await self.cluster.start(one_first=True)
        return (await self.await_level()).leader

    async def stop(self) -> None:
        """Stop all nodes in order. Raises `ProcessFailed`."""
        await self.cluster.stop()
        if self._network is not None:
            await self._network.stop()

    def end(self) -> None:
        """Leave nothing running."""
        self.cluster.end()

    # ---- how it is ----

    async def _status(self, node: int) -> MembersStatus | None:
        try:
            reply = await ask_node(self.cluster.files[node].client_address, Operation.MEMBERS, b"", STATUS_TIMEOUT_S)
            return decode_message(reply, MembersStatus)
        except BezantError:
            return None

    async def statuses(self) -> list[MembersStatus]:
        """What each node that answers says, asked past the proxies."""
        found = await asyncio.gather(*(self._status(number) for number in self.nodes))
        return [status for status in found if status is not None]

    async def leader_status(self) -> MembersStatus | None:
        """What the leader of the newest term says; None if none is known."""
        leaders = [status for status in await self.statuses() if status.leader == status.node_id]
        return max(leaders, key=lambda status: status.term, default=None)

    async def await_level(self, lag_entries_max: int = LAG_ENTRIES_MAX) -> MembersStatus:
        """Return when all nodes answer, follow one leader and have what it has. Raises `ProcessFailed`."""
        deadline_s = time.monotonic() + LEVEL_TIMEOUT_S
        while time.monotonic() < deadline_s:
            found = await self.statuses()
            leaders = {(status.term, status.leader) for status in found}
            if len(found) == len(self.nodes) and len(leaders) == 1:
                for status in found:
                    if is_level(status, lag_entries_max):
                        return status
            for node in self.nodes.values():
                if node.ended:
                    raise ProcessFailed(node.describe_end())
            await asyncio.sleep(POLL_S)
        raise ProcessFailed(f"the nodes were not level within {LEVEL_TIMEOUT_S:g} s: {found}")

    # ---- what is done to it ----

    async def inflict(self, fault: FaultName, node: int) -> None:
        """Begin a fault at a node."""
        process = self.nodes[node]
        if fault == "kill":
            process.kill()
        elif fault == "stop":
            process.pause()
        elif fault == "blackhole":
            self._isolate(self._isolated | {node})
        elif fault == "disk":
            stalled_file(self.data(node)).touch()
        else:
            process.ask_to_stop()
            await process.stopped()

    async def heal(self, fault: FaultName, node: int) -> None:
        """End a fault at a node; it need not be level yet."""
        process = self.nodes[node]
        if fault in {"kill", "restart"}:
            process.start()
            await process.ready()
        elif fault == "stop":
            process.resume()
        elif fault == "blackhole":
            self._isolate(self._isolated - {node})
        else:
            stalled_file(self.data(node)).unlink()

    def _isolate(self, nodes: frozenset[int]) -> None:
        """Cut these nodes off from everybody, and nobody else."""
        if self._network is None:
            raise ProcessFailed("this group has no cables that can be cut")
        self._isolated = nodes
        self._network.cut(cable for node in nodes for cable in self._cables_of(node))

    def _cables_of(self, node: int) -> list[Cable]:
        return [frozenset((node, other)) for other in (CLIENTS, *self.nodes) if other != node]


def _bound() -> socket.socket:
    bound = socket.socket()
    bound.bind((HOST, 0))
    return bound


def _address(bound: socket.socket) -> str:
    return f"{HOST}:{bound.getsockname()[1]}"


def _say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """The report says what is to be said."""
