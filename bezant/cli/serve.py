"""`bezant serve`: parses the arguments; the node itself is `bezant.net.server.serve`."""

import argparse
from pathlib import Path
from typing import Final

from bezant.cli.access import add_security_arguments, security_of, security_words
from bezant.cli.output import write_at_once
from bezant.cli.session import DEFAULT_ADDRESS, address, placement, positive_count
from bezant.protocol.errors import UsageError

MIB: Final = 1 << 20
_SETTINGS: Final = (
    ("accounts_max", "accounts_max", 1),
    ("holds_max", "holds_max", 1),
    ("free_space_floor_mib", "free_space_floor", MIB),
    ("segment_size_mib", "segment_size", MIB),
    ("ids_memory_mib", "ids_memory_bytes", MIB),
    ("checkpoint_ids", "checkpoint_ids", 1),
    ("checkpoint_entries", "checkpoint_entries", 1),
    ("snapshot_behind_mib", "snapshot_behind_bytes", MIB),
)
"""Options that are settings of a replica: as an argument, as a field of it, and how many of its units one is."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant serve`."""
    parser = subparsers.add_parser(
        "serve",
        description="Run a node on a data folder until SIGTERM or Ctrl-C. Prints `listening on HOST:PORT` when ready.",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        action="append",
        required=True,
        help="the data folder; made if it is not there, and held by one process at a time. Given several times: the"
        " folders of several shards, initialised, each served by a process of its own that is started again if it ends",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=address,
        help="where clients connect; port 0 takes a free one (default: what `bezant init` was told, else"
        f" {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "--echo",
        metavar="HOST:PORT",
        type=address,
        help="also answer every byte with itself there: the floor that `bezant bench` measures against",
    )
    readers = parser.add_mutually_exclusive_group()
    readers.add_argument(
        "--reader-listen",
        metavar="HOST:PORT",
        type=address,
        help="where the node's reader takes clients, who find it by themselves (default: a free port of the same host)",
    )
    readers.add_argument(
        "--no-reader",
        action="store_true",
        help="start no reader beside the node: nobody is told of events, and nothing can be asked about the past",
    )
    parser.add_argument(
        "--accounts-max",
        metavar="N",
        type=positive_count,
        help="how many accounts the node takes; then openings are answered ACCOUNTS_FULL (default: 4,194,304)",
    )
    parser.add_argument(
        "--holds-max",
        metavar="N",
        type=positive_count,
        help="how many open holds the node takes; then holds are answered HOLDS_FULL (default: 4,194,304)",
    )
    parser.add_argument(
        "--free-space-floor-mib",
        metavar="MIB",
        type=positive_count,
        help="free space on the disk at which the node takes no more, so that it never runs full (default: 256)",
    )
    parser.add_argument(
        "--segment-size-mib",
        metavar="MIB",
        type=positive_count,
        help="size of the log files made from now on; below 7 a large batch may find no room and is then refused as"
        " STORAGE_FULL (default: 64)",
    )
    parser.add_argument(
        "--ids-memory-mib",
        metavar="MIB",
        type=positive_count,
        help="memory for the ids of commands, however many there are: older ones are on disk; 64 at least"
        " (default: 1024)",
    )
    parser.add_argument(
        "--checkpoint-ids",
        metavar="N",
        type=positive_count,
        help="new ids after which a checkpoint is made (default: 3,145,728)",
    )
    parser.add_argument(
        "--checkpoint-entries",
        metavar="N",
        type=positive_count,
        help="entries of the log after which a checkpoint is made, however few ids they have (default: 100,000)",
    )
    parser.add_argument(
        "--snapshot-behind-mib",
        metavar="MIB",
        type=positive_count,
        help="how much of the log a node of the group must lack that the leader sends it its state first, and the"
        " history behind that afterwards (default: 256)",
    )
    parser.add_argument(
        "--placement",
        metavar="PLACES",
        type=placement,
        help="where slot maps are kept: HOST:PORT,... of the metadata group, or zookeeper://HOST:PORT,.../PATH"
        " (default: what `bezant init` was told)",
    )
    add_security_arguments(parser)
    parser.add_argument(
        "--repair-from-group",
        action="store_true",
        help="if the log is damaged, cut it before the damage, set what follows aside, and get it from the other nodes"
        " of the group again; the node does not vote until it has it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    if len(arguments.data) > 1:
        return _run_several(arguments)
    from bezant.engine.replica import ReplicaSettings
    from bezant.net.server.serve import serve

    given: dict[str, int] = {}
    for option, setting, unit in _SETTINGS:
        value = getattr(arguments, option)
        if value is not None:
            given[setting] = value * unit
    try:
        settings = ReplicaSettings(**given)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return serve(
        arguments.data[0],
        arguments.listen,
        say=write_at_once,
        echo=arguments.echo,
        settings=settings,
        repairs=arguments.repair_from_group,
        reader=not arguments.no_reader,
        reader_listen=arguments.reader_listen,
        placement=arguments.placement,
        security=security_of(arguments),
    )


def _run_several(arguments: argparse.Namespace) -> int:
    """Serve several shards, each as its folder says."""
    for option in ("listen", "echo", "reader_listen"):
        if getattr(arguments, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} is for one folder: with several each says where it listens")
    from bezant.cli.serve_shards import serve_shards
    from bezant.cli.session import run_async
    from bezant.cli.watched_nodes import say_plainly

    words = [word for word in ("no_reader", "repair_from_group") if getattr(arguments, word)]
    values = [(option, getattr(arguments, option)) for option, _, _ in _SETTINGS]
    values.append(("placement", ",".join(arguments.placement) if arguments.placement else None))
    given = [f"--{option.replace('_', '-')}={value}" for option, value in values if value is not None]
    given += [f"--{word.replace('_', '-')}" for word in words]
    given += security_words(arguments)
    return run_async(serve_shards(arguments.data, given, say_plainly))
