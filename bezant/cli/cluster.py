"""`bezant cluster`: a group of nodes on this machine, a process a node, for trying things out and for tests."""

import argparse
import asyncio
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.output import write_at_once, write_remark
from bezant.cli.session import add_json_argument, placement, positive_count, run_async
from bezant.protocol.errors import UsageError

if TYPE_CHECKING:
    from bezant.cli.local_cluster import LocalCluster
    from bezant.cli.local_shards import LocalShards
    from bezant.cli.watched_nodes import Say

NODES_DEFAULT: Final = 3
BASE_PORT_DEFAULT: Final = 7420


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant cluster`."""
    parser = subparsers.add_parser(
        "cluster",
        description="Run a group of nodes on this machine until SIGTERM or Ctrl-C. Prints `cluster ready: HOST:PORT,..."
        "` when it has a leader, and starts a node again that ends.",
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="holds a folder a node; made on first use"
    )
    parser.add_argument(
        "--nodes", metavar="N", type=positive_count, help=f"on first use: how many nodes (default: {NODES_DEFAULT})"
    )
    parser.add_argument(
        "--shards",
        metavar="S",
        type=positive_count,
        help="on first use: how many shards the accounts are spread over, each a group of N nodes; with more than one"
        " there is also a metadata group, which keeps the slot map (default: 1)",
    )
    parser.add_argument(
        "--placement",
        metavar="zookeeper://HOST:PORT,.../PATH",
        type=placement,
        help="on first use, with several shards: keep the slot map there, without a metadata group",
    )
    parser.add_argument(
        "--base-port",
        metavar="P",
        type=_port,
        help="on first use: the first of two ports for each node; 0 takes any that are free"
        f" (default: {BASE_PORT_DEFAULT})",
    )
    add_json_argument(parser)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the group until told to stop."""
    from bezant.cli.local_shards import read_plan
    from bezant.engine.log.storage import Directory, FolderLock

    Directory(arguments.data).create()
    with ExitStack() as closing:
        closing.callback(FolderLock(arguments.data).release)
        plan = read_plan(arguments.data)
        is_new = _prepare(arguments) if plan is None and (arguments.shards or 1) == 1 else _prepare_shards(arguments)
        if not is_new and any(
            given is not None for given in (arguments.nodes, arguments.shards, arguments.base_port, arguments.placement)
        ):
            write_remark(
                f"bezant: {arguments.data} is initialised already: --shards, --nodes, --placement and --base-port mean "
                "nothing now"
            )
        return run_async(_run(arguments))


def _prepare(arguments: argparse.Namespace) -> bool:
    """Have a group in the folder; whether it is new."""
    from bezant.cli.local_cluster import missing_nodes, needs_init, node_files

    if arguments.placement is not None:
        raise UsageError("--placement goes with --shards: a group that is the only one needs no slot map")
    is_new = needs_init(arguments.data)
    if is_new:
        _init(arguments)
    _say_missing([f"node {number}" for number in missing_nodes(node_files(arguments.data))], arguments.data)
    return is_new


def _prepare_shards(arguments: argparse.Namespace) -> bool:
    """Have the groups of several shards in the folder; whether any of them is new."""
    from bezant.cli.local_cluster import warm_kernels_once
    from bezant.cli.local_shards import Plan, init_shards, missing_in_shards, read_plan, shards_need_init

    base_port = BASE_PORT_DEFAULT if arguments.base_port is None else arguments.base_port
    found = read_plan(arguments.data)
    plan = found or Plan(arguments.shards, arguments.nodes or NODES_DEFAULT, base_port, arguments.placement or [])
    is_new = found is None or shards_need_init(arguments.data, plan)
    if is_new:
        init_shards(arguments.data, plan)
        write_remark("bezant: the shards are initialised; compiling the kernels, unless they are compiled already")
        warm_kernels_once()
    _say_missing(missing_in_shards(arguments.data, plan), arguments.data)
    return is_new


def _say_missing(nodes: list[str], data: Path) -> None:
    for node in nodes:
        write_remark(
            f"bezant: {node} has no folder in {data} and is not started; if its disk is lost, run bezant init --join "
            f"on a new folder, start it, and bezant members replace {node.rpartition(' ')[2]}"
        )


def _init(arguments: argparse.Namespace) -> None:
    from bezant.cli.local_cluster import init_cluster, node_files, warm_kernels_once
    from bezant.engine.node_file import remark_on_voters

    base_port = BASE_PORT_DEFAULT if arguments.base_port is None else arguments.base_port
    init_cluster(arguments.data, arguments.nodes or NODES_DEFAULT, base_port)
    if remark := remark_on_voters(len(node_files(arguments.data))):
        write_remark(f"bezant: {remark}")
    write_remark("bezant: the group is initialised; compiling the kernels, unless they are compiled already")
    warm_kernels_once()


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.local_cluster import LocalCluster
    from bezant.cli.local_shards import LocalShards, read_plan
    from bezant.cli.watched_nodes import done_before, say_plainly

    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    say = _say_json if arguments.json else say_plainly
    is_sharded = read_plan(arguments.data) is not None
    cluster = LocalShards(arguments.data, say) if is_sharded else LocalCluster(arguments.data, say)
    try:
        if await done_before(stopping, _bring_up(cluster, say)):
            await cluster.watch(stopping)
        write_remark(f"bezant: stopping the nodes, the leader{' of each group' if is_sharded else ''} last")
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
