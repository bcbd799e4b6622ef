"""Several shards on this machine, each a group of nodes, and the metadata group that keeps the slot map.

Under one folder: ``shard-S`` for each shard and ``metadata``, each as in `local_cluster`, and ``shards``, which says
what was asked for at first, so that an initialisation that was interrupted can be finished. With the slot map in
ZooKeeper there is no ``metadata``.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from bezant.cli.errors import InputWrong
from bezant.cli.local_cluster import LocalCluster, init_cluster, missing_nodes, needs_init, node_files, node_folder
from bezant.cli.node_process import NODE_COMMAND
from bezant.cli.session import check_data_folder
from bezant.cli.watched_nodes import Say
from bezant.engine.log.storage import Directory
from bezant.engine.placement.maps import first_map
from bezant.net.placement.store import open_store
from bezant.protocol.errors import CorruptLog
from bezant.protocol.placement import METADATA_SHARD, SHARD_MAX, SlotMap

PLAN_NAME: Final = "shards"
METADATA_FOLDER: Final = "metadata"
METADATA_NODES_MAX: Final = 3
METADATA_ARGUMENTS: Final = ("--no-reader", "--segment-size-mib", "8", "--ids-memory-mib", "64", "--accounts-max", "64")
"""It has no accounts and no history that anybody asks about."""
_PLAN_SIZE_MAX: Final = 1 << 16


class Plan(msgspec.Struct, frozen=True):
    """What was asked for: ``placement`` is empty for a metadata group beside the shards."""

    shards: int
    nodes: int
    base_port: int
    placement: list[str] = []


def read_plan(folder: Path) -> Plan | None:
    """What a folder was initialised for; None if not for shards. Raises `CorruptLog`."""
    path = folder / PLAN_NAME
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes()[:_PLAN_SIZE_MAX], type=Plan)
    except msgspec.DecodeError as error:
        raise CorruptLog(f"{path} is not as `bezant cluster` wrote it: {error}") from error


def init_shards(folder: Path, plan: Plan) -> None:
    """Initialise the folders of all groups, or finish what was begun. Raises `InputWrong`.

    The shards take their ports one after the other, from the base port on, and the metadata group those behind them.
    """
    if not 2 <= plan.shards <= SHARD_MAX + 1:
        raise InputWrong(f"there are 2 to {SHARD_MAX + 1} shards, or one without this, not {plan.shards}")
    directory = Directory(folder)
    directory.create()
    if read_plan(folder) is None:
        if node_files(folder):
            raise InputWrong(f"{folder} has a group that is not one of several: take another folder for shards")
        directory.write_file(PLAN_NAME, [msgspec.json.encode(plan)])
    # Of what was begun earlier, by another process: nobody listens there yet.
    taken = {port for group in group_folders(folder, plan) for port in _ports_of(group)}
    places = plan.placement
    if not places:
        count, port = metadata_nodes(plan.nodes), _port(plan, plan.shards)
        init_cluster(_metadata(folder), count, port, shard=METADATA_SHARD, taken=taken)
        places = [node.client_address for node in node_files(_metadata(folder)).values()]
    for shard in range(plan.shards):
        place, port = shard_folder(folder, shard), _port(plan, shard)
        init_cluster(place, plan.nodes, port, shard=shard, placement=places, taken=taken)


def metadata_nodes(nodes: int) -> int:
    """Nodes of a metadata group for shards of so many: as safe as they are, up to three, and an odd number."""
    return METADATA_NODES_MAX if nodes >= METADATA_NODES_MAX else 1


def _port(plan: Plan, shard: int) -> int:
    return plan.base_port + 2 * plan.nodes * shard if plan.base_port else 0


def _ports_of(group: Path) -> list[int]:
    members = [member for node in node_files(group).values() for member in node.members]
    return [int(at.rpartition(":")[2]) for member in members for at in (member.client_address, member.peer_address)]


def _metadata(folder: Path) -> Path:
    return folder / METADATA_FOLDER


def shard_folder(folder: Path, shard: int) -> Path:
    """Where the nodes of a shard have their folders."""
    return folder / f"shard-{shard}"


def group_folders(folder: Path, plan: Plan) -> list[Path]:
    """The folders of all groups, that of the metadata group first."""
    shards = [shard_folder(folder, shard) for shard in range(plan.shards)]
    return shards if plan.placement else [_metadata(folder), *shards]


def data_folders(given: Sequence[Path]) -> list[Path]:
    """The data folders that are meant: of a folder of shards on this machine those of all their nodes.

    Raises `InputWrong` where there is no ledger, `CorruptLog`.
    """
    found: list[Path] = []
    for folder in given:
        plan = read_plan(folder)
        if plan is None:
            found.append(folder)
            continue
        groups = [shard_folder(folder, shard) for shard in range(plan.shards)]
        found += [node_folder(group, number) for group in groups for number in node_files(group)]
    for folder in found:
        check_data_folder(folder)
    return found


def shards_need_init(folder: Path, plan: Plan) -> bool:
    """Whether `init_shards` has something left to do."""
    return any(needs_init(group) for group in group_folders(folder, plan))


def missing_in_shards(folder: Path, plan: Plan) -> list[str]:
    """First members of the groups that have no folder here, in words."""
    return [
        f"{group.name} node {number}"
        for group in group_folders(folder, plan)
        for number in missing_nodes(node_files(group))
    ]


class LocalShards:
    """See the module. Used from one event loop; as an async context manager it leaves nothing running.

    ``shards`` are the groups by their numbers; ``metadata`` the metadata group, None with the map elsewhere.
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
    ) -> None:
        """`arguments`, `echo`, `environment` and `command` are those of the nodes of shards, as in `LocalCluster`."""
        plan = read_plan(folder)
        if plan is None:
            raise InputWrong(f"{folder} is not initialised for shards")
        self.metadata = None
        if not plan.placement:
            self.metadata = LocalCluster(
                _metadata(folder), say, arguments=METADATA_ARGUMENTS, environment=environment, name=METADATA_FOLDER
            )
        self.shards = {
            shard: LocalCluster(
                shard_folder(folder, shard),
                say,
                arguments=arguments,
                echo=echo,
                environment=environment,
                command=command,
                name=f"shard {shard}",
            )
            for shard in range(plan.shards)
        }
        self.placement = plan.placement or ([] if self.metadata is None else self.metadata.addresses)

    @property
    def groups(self) -> list[LocalCluster]:
        """All groups, in the order in which they start."""
        return [*([] if self.metadata is None else [self.metadata]), *self.shards.values()]

    @property
    def addresses(self) -> list[str]:
        """Where clients reach the nodes of all shards."""
        return [address for group in self.shards.values() for address in group.addresses]

    async def __aenter__(self) -> "LocalShards":
        try:
            await self.start()
        except BaseException:
            self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    async def start(self) -> SlotMap:
        """Start all nodes and return the slot map when every group has a leader. Raises `ProcessFailed`,
        `CommandFailed`."""
        if self.metadata is not None:
            await self.metadata.start()
            await self.metadata.await_leader()
        slot_map = await self._put_map()
        await _all(group.start() for group in self.shards.values())
        for group in self.shards.values():
            await group.await_leader()
        return slot_map

    async def _put_map(self) -> SlotMap:
        """The slot map, the first one if there is none yet."""
        store = open_store(self.placement)
        try:
            found = await store.read()
            if found is not None:
                return found
            return await store.replace(0, first_map({shard: group.addresses for shard, group in self.shards.items()}))
        finally:
            await store.close()

    async def watch(self, stopping: asyncio.Event) -> None:
        """Start nodes again that end, until told to stop. Raises `CommandFailed` if a group cannot be kept running."""
        await _all(group.watch(stopping) for group in self.groups)

    async def stop(self) -> None:
        """Stop all nodes, the shards first. Raises `ProcessFailed`."""
        await _all(group.stop() for group in self.shards.values())
        if self.metadata is not None:
            await self.metadata.stop()

    def end(self) -> None:
        """Leave nothing running; safe to repeat."""
        with ExitStack() as closing:
            for group in self.groups:
                closing.callback(group.end)


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do several things at a time; the first failure ends the others, and is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
