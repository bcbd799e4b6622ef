"""A group of nodes on this machine for a load: started, loaded at its leader, compared when it has stopped."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bezant.cli.local_cluster import LocalCluster, init_cluster, node_folder
from bezant.cli.node_process import LISTEN_ANYWHERE, WRITE_SIDE_COMMAND, NodeProcess, ProcessFailed
from bezant.cli.session import run_async
from bezant.engine.verify import VerifyReport, verify
from bezant.net.client.connection import TcpChannel
from bezant.net.client.members import read_members
from bezant.perf.load.plan import LoadOutcome
from bezant.perf.load.report import ReplicaReport
from bezant.protocol.errors import BezantError
from bezant.protocol.messages import MembersStatus

CONNECT_TIMEOUT_S: Final = 30.0
LEVEL_TIMEOUT_S: Final = 60.0
"""How long the followers may take to have all that the leader has, once nothing more comes."""
LEVEL_POLL_S: Final = 0.05
STATUS_TIMEOUT_S: Final = 1.0
REPLICA_EVENTS_MAX: Final = 20_000_000
"""Events of a history that is executed again on every replica; that of more would take minutes."""


async def find_leader(addresses: str) -> str:
    """The address of the node alone, or of the leader of the group, that is behind "host:port,host:port,..."."""
    channel = await TcpChannel.open(addresses, CONNECT_TIMEOUT_S)
    try:
        return channel.address
    finally:
        await channel.close()


def is_level(status: MembersStatus, lag_entries_max: int = 0) -> bool:
    """Whether every member is there, and has all of the leader's log but for so many entries, by the leader's word."""
    if status.leader == 0 or status.leader != status.node_id:
        return False
    lags = [member.lag_entries for member in status.members if member.active]
    return len(lags) == len(status.members) and all(lag is not None and lag <= lag_entries_max for lag in lags)


async def await_level(
    addresses: Sequence[str], lag_entries_max: int = 0, timeout_s: float = LEVEL_TIMEOUT_S
) -> MembersStatus:
    """Return when all members have what the leader has, and know it to be committed. Raises `ProcessFailed`."""
    deadline_s = time.monotonic() + timeout_s
    told = "no node answered"
    while time.monotonic() < deadline_s:
        try:
            status = await read_members(addresses, STATUS_TIMEOUT_S)
            if is_level(status, lag_entries_max):
                return status
            told = f"{status}"
        except BezantError as error:
            told = str(error)
        await asyncio.sleep(LEVEL_POLL_S)
    raise ProcessFailed(f"the members were not level within {timeout_s:g} s: {told}")


class LocalReplicas:
    """See the module. A context manager that leaves nothing running; ``nodes`` are the processes by node id."""

    def __init__(self, folder: Path, count: int, command: Sequence[str] = WRITE_SIDE_COMMAND) -> None:
        self._folder = folder / "group"
        init_cluster(self._folder, count, 0)
        self._cluster = LocalCluster(self._folder, _say_nothing, echo=LISTEN_ANYWHERE, command=command)
        self._leader = 0

    def __enter__(self) -> Self:
        try:
            run_async(self._start())
        except BaseException:
            self._cluster.end()
            raise
        return self

    async def _start(self) -> None:
        await self._cluster.start(one_first=True)
        self._leader = (await self._cluster.await_leader()).leader

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._cluster.end()

    @property
    def nodes(self) -> Mapping[int, NodeProcess]:
        """The processes, by node id."""
        return self._cluster.nodes

    @property
    def leader_node(self) -> NodeProcess:
        """The process of the node that led when the group had started."""
        return self._cluster.nodes[self._leader]

    @property
    def leader_address(self) -> str:
        """Where its clients connect."""
        return self._cluster.files[self._leader].client_address

    @property
    def leader_data(self) -> Path:
        """Its data folder."""
        return node_folder(self._folder, self._leader)

    def describe_trouble(self) -> str:
        """Which nodes have ended, and what they said; else that the leadership may have moved."""
        ended = [node.describe_end() for node in self.nodes.values() if node.ended]
        return "; ".join(ended) or f"the nodes run; node {self._leader} led at first, and perhaps does no more"

    def compare(self, outcome: LoadOutcome) -> list[ReplicaReport]:
        """Have the followers take all there is, stop the nodes, say what each ended with. Raises as `verify` does."""
        run_async(self._settle())
        found: dict[int, VerifyReport] = {}
        if outcome.statistics_after.durable_sequence <= REPLICA_EVENTS_MAX:
            found = {number: verify(node_folder(self._folder, number)) for number in self.nodes}
        return [
            ReplicaReport(
                node=number,
                leader=number == self._leader,
                cpu_s=None if cpu_s is None else round(cpu_s, 3),
                **{name: getattr(found[number], name) for name in ("entries", "chain_hash", "state_digest") if found},
            )
            for number, cpu_s in zip(self.nodes, outcome.replica_cpu_seconds, strict=True)
        ]

    async def _settle(self) -> None:
        await await_level(self._cluster.addresses)
        await self._cluster.stop()


def _say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """The report says what is to be said."""
