"""`bezant serve`: parses the arguments; the node itself is `bezant.net.server.serve`."""

import argparse
from pathlib import Path

from bezant.cli.session import DEFAULT_ADDRESS, address


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


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from bezant.net.server.serve import serve

    return serve(arguments.data, arguments.listen, echo=arguments.echo)
