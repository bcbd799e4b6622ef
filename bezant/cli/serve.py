"""`bezant serve`: parses the arguments; the node itself is `bezant.net.server.serve`."""

import argparse
from pathlib import Path
from typing import Final

from bezant.cli.output import write_at_once
from bezant.cli.session import DEFAULT_ADDRESS, address, positive_count

MIB: Final = 1 << 20


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
        required=True,
        help="the data folder; made if it is not there, and held by one process at a time",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=address,
        default=DEFAULT_ADDRESS,
        help="where clients connect; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--echo",
        metavar="HOST:PORT",
        type=address,
        help="also answer every byte with itself there: the floor that `bezant bench` measures against",
    )
    parser.add_argument(
        "--accounts-max",
        metavar="N",
        type=positive_count,
        help="how many accounts the node takes; then openings are answered ACCOUNTS_FULL (default: 4,194,304)",
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


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from bezant.engine.replica import ReplicaSettings
    from bezant.net.server.serve import serve

    given: dict[str, int] = {}
    if arguments.accounts_max is not None:
        given["accounts_max"] = arguments.accounts_max
    if arguments.free_space_floor_mib is not None:
        given["free_space_floor"] = arguments.free_space_floor_mib * MIB
    if arguments.segment_size_mib is not None:
        given["segment_size"] = arguments.segment_size_mib * MIB
    return serve(
        arguments.data, arguments.listen, say=write_at_once, echo=arguments.echo, settings=ReplicaSettings(**given)
    )
