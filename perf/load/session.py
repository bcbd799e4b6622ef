"""One measurement from start to end: a node, the floor, the load, the floor again, the report.

The node and the load are processes of their own; this one only waits for them. The floor is measured before and after
the load, so that a drift of the machine shows in both; its sync part before the node starts and after it has stopped,
because a node without load still writes: it makes segments ahead of need.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bezant.cli.node_process import LISTEN_ANYWHERE, WRITE_SIDE_COMMAND, NodeProcess, ProcessFailed
from bezant.cli.session import run_async
from bezant.engine.log.file_system import file_system_type, is_memory
from bezant.net.access.credentials import own_credentials
from bezant.perf.load.floor import SyncFloor
from bezant.perf.load.limits import check_in_flight, check_mixed
from bezant.perf.load.memory import MemoryPeak
from bezant.perf.load.plan import IdKind, LoadMix, LoadOutcome, LoadPlan
from bezant.perf.load.processes import run_load
from bezant.perf.load.replicas import LocalReplicas, find_leader
from bezant.perf.load.report import ReplicaReport, Report, Surroundings, make_report
from bezant.perf.load.shards import LoadShards
from bezant.perf.load.zipf import ZIPF_EXPONENT_MAX
from bezant.protocol.errors import BezantError, UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.messages import MEMBERS_MAX

LoadKind = Literal["transfers", "sdk"]

_MODULES: Final[dict[LoadKind, str]] = {
    "transfers": "bezant.perf.load.generator",
    "sdk": "bezant.perf.load.sdk",
}
_SETTINGS: Final[dict[LoadKind, tuple[str, ...]]] = {
    "transfers": (
        "load",
        "accounts",
        "zipf",
        "transfers",
        "batch",
        "clients",
        "inflight",
        "ids",
        "ids_before",
        "shards",
        "loaded_shards",
        "cross",
        "seed",
    ),
    "sdk": ("accounts", "transfers", "concurrency", "seed"),
}
_SHARDED_MODULE: Final = "bezant.perf.load.sharded"
_SHARDS_MAX: Final = 64
_CLIENTS_MAX: Final = 10_000
_ACCOUNTS_MAX: Final = 10_000_000
_SEED_FIXED: Final = 1
_ZIPF_MIXED: Final = 1.1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `bezant bench` was asked for.

    ``zipf`` is the exponent by which accounts are chosen (None: what is usual for the ``load``), ``replicas`` how
    many nodes to start, for each of so many ``shards``, ``loaded_shards`` how many of these get the load (None: all),
    and ``cross`` the share of transfers between two of them.
    ``connect`` is the address of a node that runs already (None: start one), ``echo`` that of its echo listener, and
    ``directory`` the folder for the data of our own node, or one on the file system of the other node's data.
    """

    kind: LoadKind
    accounts: int
    transfers: int
    batch: int = 1
    clients: int = 1
    inflight: int = 1
    concurrency: int = 1
    ids: IdKind = "time"
    load: LoadMix = "plain"
    zipf: float | None = None
    ids_before: int = 0
    replicas: int = 1
    shards: int = 1
    loaded_shards: int | None = None
    cross: float = 0.0
    seed: int | None = None
    connect: str | None = None
    echo: str | None = None
    directory: Path | None = None
    node_command: Sequence[str] = WRITE_SIDE_COMMAND


def check_settings(settings: Settings) -> None:
    """Raise `UsageError` for what cannot be measured."""
    limits = {
        "accounts": (2, _ACCOUNTS_MAX),
        "transfers": (1, 1 << 40),
        "batch": (1, BATCH_COUNT_MAX),
        "clients": (1, _CLIENTS_MAX),
        "inflight": (1, 1 << 16),
        "concurrency": (1, 1 << 20),
        "ids_before": (0, 1 << 40),
        "zipf": (0, ZIPF_EXPONENT_MAX),
        "replicas": (1, MEMBERS_MAX),
        "shards": (1, _SHARDS_MAX),
        "loaded_shards": (1, settings.shards),
        "cross": (0, 1),
    }
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise UsageError(f"--{name.replace('_', '-')} is {least} to {most}, not {value}")
    _check_shards(settings)
    frame_count = -(-settings.transfers // settings.batch)
    in_flight = min(settings.clients * settings.inflight, frame_count)
    check_in_flight(in_flight, settings.batch)
    if settings.load == "mixed":
        check_mixed(settings.transfers, settings.batch, in_flight)
    if settings.seed is not None and not 0 <= settings.seed < 1 << 63:
        raise UsageError(f"--seed is 0 to 2^63 - 1, not {settings.seed}")
    if settings.directory is not None and not settings.directory.is_dir():
        raise UsageError(f"--directory {settings.directory} is not a folder")
    if settings.replicas > 1 and settings.connect:
        raise UsageError("--replicas is for nodes that are started; how many there are behind --connect is found out")
    if settings.echo and not settings.connect:
        raise UsageError("--echo goes with --connect; a node of our own has its echo listener")


def _check_shards(settings: Settings) -> None:
    if settings.shards == 1 and settings.cross:
        raise UsageError("--cross goes with --shards: there is no other shard to pay into")
    if settings.shards == 1:
        return
    if settings.connect:
        raise UsageError("--shards is for nodes that are started")
    if settings.load != "plain" or settings.zipf or settings.ids_before:
        raise UsageError("--load, --zipf and --ids-before are for one shard")
    if settings.transfers < settings.shards:
        raise UsageError(f"--transfers is one for each of the {settings.shards} shards at least")


def measure(settings: Settings, on_progress: Callable[[int], None]) -> Report:
    """Measure as asked and report; `on_progress` gets the number of transfers answered so far.

    Starts and stops its own node unless there is an address to connect to. Raises `UsageError`, `ProcessFailed`,
    and what the load failed with.
    """
    check_settings(settings)
    with ExitStack() as stack:
        if settings.connect:
            return _measure_other(settings, settings.connect, on_progress)
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bezant-bench-", dir=settings.directory))
        except OSError as error:
            raise UsageError(f"no folder for the node's data: {error}") from error
        measure_nodes = _measure_own if settings.replicas == 1 else _measure_group
        if settings.shards > 1:
            measure_nodes = _measure_shards
        return measure_nodes(settings, Path(folder), on_progress)


def _measure_own(settings: Settings, folder: Path, on_progress: Callable[[int], None]) -> Report:
    data = folder / "data"
    floor = SyncFloor(folder)
    floor.measure()
    with NodeProcess(data, echo=LISTEN_ANYWHERE, command=settings.node_command) as node:
        plan = _own_plan(settings, node, data)
        memory = MemoryPeak(node.process_id)

        def watch(done: int) -> None:
            memory.sample()
            on_progress(done)

        try:
            outcome = run_load(_MODULES[settings.kind], plan, watch)
            memory.sample()
        except BezantError as error:
            if node.ended:
                raise ProcessFailed(f"{node.describe_end()}; the load: {error}") from error
            raise
    floor.measure()
    return _report(settings, plan, outcome, _surroundings(folder, floor, memory.bytes_max))


def _measure_group(settings: Settings, folder: Path, on_progress: Callable[[int], None]) -> Report:
    floor = SyncFloor(folder)
    floor.measure()
    with LocalReplicas(folder, settings.replicas, settings.node_command) as group:
        plan = _make_plan(settings, group.leader_address, group.leader_node.echo, _SEED_FIXED)
        plan = msgspec.structs.replace(
            plan,
            node_process_id=group.leader_node.process_id,
            replica_process_ids=[node.process_id for node in group.nodes.values()],
            data=str(group.leader_data),
        )
        memory = MemoryPeak(group.leader_node.process_id)

        def watch(done: int) -> None:
            memory.sample()
            on_progress(done)

        try:
            outcome = run_load(_MODULES[settings.kind], plan, watch)
            memory.sample()
        except BezantError as error:
            raise ProcessFailed(f"{group.describe_trouble()}; the load: {error}") from error
        replicas = group.compare(outcome)
    floor.measure()
    return _report(settings, plan, outcome, _surroundings(folder, floor, memory.bytes_max), replicas)


def _measure_shards(settings: Settings, folder: Path, on_progress: Callable[[int], None]) -> Report:
    floor = SyncFloor(folder)
    floor.measure()
    with LoadShards(folder, settings.shards, settings.replicas, settings.node_command) as shards:
        plan = msgspec.structs.replace(
            _make_plan(settings, shards.addresses[0], shards.leaders[0].echo, _SEED_FIXED),
            replica_process_ids=shards.process_ids,
            shards=settings.shards,
            loaded_shards=settings.loaded_shards or settings.shards,
            cross=settings.cross,
            shard_addresses=shards.addresses,
            shard_data=[str(data) for data in shards.data],
        )
        memory = [MemoryPeak(node.process_id) for node in shards.leaders]

        def watch(done: int) -> None:
            for peak in memory:
                peak.sample()
            on_progress(done)

        try:
            outcome = run_load(_SHARDED_MODULE, plan, watch)
            watch(settings.transfers)
        except BezantError as error:
            raise ProcessFailed(f"{shards.describe_trouble()}; the load: {error}") from error
    floor.measure()
    used = [peak.bytes_max for peak in memory if peak.bytes_max is not None]
    return _report(settings, plan, outcome, _surroundings(folder, floor, sum(used) if used else None))


def _measure_other(settings: Settings, addresses: str, on_progress: Callable[[int], None]) -> Report:
    address = run_async(find_leader(addresses))
    # A fixed seed would repeat the random ids of the measurement before this one on the same node.
    plan = _make_plan(settings, address, settings.echo or "", int.from_bytes(os.urandom(7), "little"))
    floor = SyncFloor(settings.directory) if settings.directory else None
    if floor:
        floor.measure()
    outcome = run_load(_MODULES[settings.kind], plan, on_progress)
    if floor:
        floor.measure()
    return _report(settings, plan, outcome, _surroundings(settings.directory, floor))


def _own_plan(settings: Settings, node: NodeProcess, data: Path) -> LoadPlan:
    plan = _make_plan(settings, node.address, node.echo, _SEED_FIXED)
    return msgspec.structs.replace(plan, node_process_id=node.process_id, data=str(data))


def _make_plan(settings: Settings, address: str, echo: str, seed_default: int) -> LoadPlan:
    shown = own_credentials()
    return LoadPlan(
        token=shown.token,
        insecure=shown.insecure,
        address=address,
        transfers=settings.transfers,
        accounts=settings.accounts,
        batch=settings.batch,
        clients=settings.clients,
        inflight=settings.inflight,
        concurrency=settings.concurrency,
        ids=settings.ids,
        load=settings.load,
        zipf=_zipf(settings),
        ids_before=settings.ids_before,
        seed=seed_default if settings.seed is None else settings.seed,
        echo=echo,
    )


def _zipf(settings: Settings) -> float:
    if settings.zipf is not None:
        return settings.zipf
    return _ZIPF_MIXED if settings.load == "mixed" else 0.0


def _surroundings(directory: Path | None, floor: SyncFloor | None, memory_bytes: int | None = None) -> Surroundings:
    file_system = file_system_type(directory) if directory else None
    return Surroundings(
        file_system=file_system,
        on_memory=is_memory(file_system),
        sync_p50_us=floor.p50_us() if floor else {},
        memory_bytes=memory_bytes,
    )


def _report(
    settings: Settings,
    plan: LoadPlan,
    outcome: LoadOutcome,
    surroundings: Surroundings,
    replicas: Sequence[ReplicaReport] = (),
) -> Report:
    asked: dict[str, Any] = {name: getattr(plan, name) for name in _SETTINGS[settings.kind]}
    return make_report(plan, outcome, surroundings, asked, replicas)
