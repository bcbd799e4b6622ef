"""`bezant cluster`: a group of nodes on this machine, a process a node, for trying things out and for tests."""

import argparse
import asyncio
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.options import add_options, read_settings
from bezant.cli.output import write_at_once
from bezant.cli.session import add_json_argument, placement, run_async
from bezant.cli.settings import Cluster
from bezant.cli.watched_nodes import tell_remark
from bezant.net.logs import begin_logs
from bezant.protocol.errors import UsageError

if TYPE_CHECKING:
    from bezant.cli.local_cluster import LocalCluster
    from bezant.cli.local_shards import LocalShards
    from bezant.cli.watched_nodes import Say

_ON_FIRST_USE: Final = ("nodes", "shards", "placement", "base_port")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant cluster`."""
    parser = subparsers.add_parser(
        "cluster",
        description="Run a group of nodes on this machine until SIGTERM or Ctrl-C. Prints `cluster ready: HOST:PORT,..."
        "` when it has a leader, and starts a node again that ends.",
    )
    add_options(parser, Cluster)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the group until told to stop."""
    from bezant.cli.local_shards import read_plan
    from bezant.engine.log.storage import Directory, FolderLock

    settings = read_settings(arguments, Cluster)
    begin_logs(settings.log_format, "cluster")
    data = Path(settings.data)
    Directory(data).create()
    with ExitStack() as closing:
        closing.callback(FolderLock(data).release)
        plan = read_plan(data)
        alone = plan is None and settings.shards == 1
        is_new = _prepare(data, settings) if alone else _prepare_shards(data, settings)
        if not is_new and any(getattr(arguments, key) is not None for key in _ON_FIRST_USE):
            tell_remark(
                f"bezant: {data} is initialised already: --shards, --nodes, --placement and --base-port mean nothing"
                " now"
            )
        return run_async(_run(data, is_json=arguments.json))


def _prepare(data: Path, settings: Cluster) -> bool:
    """Have a group in the folder; whether it is new."""
    from bezant.cli.local_cluster import missing_nodes, needs_init, node_files

    if settings.placement:
        raise UsageError("--placement goes with --shards: a group that is the only one needs no slot map")
    is_new = needs_init(data)
    if is_new:
        _init(data, settings)
    _say_missing([f"node {number}" for number in missing_nodes(node_files(data))], data)
    return is_new


def _prepare_shards(data: Path, settings: Cluster) -> bool:
    """Have the groups of several shards in the folder; whether any of them is new."""
    from bezant.cli.local_cluster import warm_kernels_once
    from bezant.cli.local_shards import Plan, init_shards, missing_in_shards, read_plan, shards_need_init

    found = read_plan(data)
    plan = found or Plan(
        settings.shards, settings.nodes, settings.base_port, placement(settings.placement) if settings.placement else []
    )
    is_new = found is None or shards_need_init(data, plan)
    if is_new:
        init_shards(data, plan)
        tell_remark("bezant: the shards are initialised; compiling the kernels, unless they are compiled already")
        warm_kernels_once()
    _say_missing(missing_in_shards(data, plan), data)
    return is_new


def _say_missing(nodes: list[str], data: Path) -> None:
    for node in nodes:
        tell_remark(
            f"bezant: {node} has no folder in {data} and is not started; if its disk is lost, run bezant init --join "
            f"on a new folder, start it, and bezant members replace {node.rpartition(' ')[2]}"
        )


def _init(data: Path, settings: Cluster) -> None:
    from bezant.cli.local_cluster import init_cluster, node_files, warm_kernels_once
    from bezant.engine.node_file import remark_on_voters

    init_cluster(data, settings.nodes, settings.base_port)
    if remark := remark_on_voters(len(node_files(data))):
        tell_remark(f"bezant: {remark}")
    tell_remark("bezant: the group is initialised; compiling the kernels, unless they are compiled already")
    warm_kernels_once()


async def _run(data: Path, *, is_json: bool) -> int:
    from bezant.cli.local_cluster import LocalCluster
    from bezant.cli.local_shards import LocalShards, read_plan
    from bezant.cli.watched_nodes import done_before, say_plainly

    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    say = _say_json if is_json else say_plainly
    is_sharded = read_plan(data) is not None
    cluster = LocalShards(data, say) if is_sharded else LocalCluster(data, say)
    try:
        if await done_before(stopping, _bring_up(cluster, say)):
            await cluster.watch(stopping)
        tell_remark(f"bezant: stopping the nodes, the leader{' of each group' if is_sharded else ''} last")
        await cluster.stop()
    finally:
        cluster.end()
    return 0


async def _bring_up(cluster: "LocalCluster | LocalShards", say: "Say") -> None:
    from bezant.cli.local_cluster import LocalCluster

    fields: dict[str, Any] = {"event": "ready", "addresses": cluster.addresses}
    if isinstance(cluster, LocalCluster):
        await cluster.start()
        fields |= {"leader": (await cluster.await_leader()).leader}
    else:
        slot_map = await cluster.start()
        fields |= {"shards": len(slot_map.shards), "map_version": slot_map.version, "placement": cluster.placement}
    say(f"cluster ready: {','.join(cluster.addresses)}", fields)


def _say_json(_words: str, fields: dict[str, Any]) -> None:
    write_at_once(json.dumps(fields))
