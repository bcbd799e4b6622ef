"""`bezant reader`: a reader by itself, on the folder of a node that runs, or of none."""

import argparse
from pathlib import Path

from bezant.cli.access import add_security_arguments, security_of
from bezant.cli.output import write_at_once
from bezant.cli.session import address, check_data_folder

LISTEN_ANYWHERE = "127.0.0.1:0"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant reader`."""
    parser = subparsers.add_parser(
        "reader",
        description="Tell clients what has happened, from a data folder, until SIGTERM or Ctrl-C. Prints `listening on"
        " HOST:PORT`. A node may run on the folder if it was started with --no-reader; else it has a reader already.",
    )
    parser.add_argument("data", metavar="DIR", type=Path, help="the data folder")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=address,
        default=LISTEN_ANYWHERE,
        help="where clients connect; port 0 takes a free one (default: %(default)s)",
    )
    add_security_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from bezant.net.access.settings import check_listening
    from bezant.net.reader.process import run_reader
    from bezant.net.reader.setup import Setup
    from bezant.net.server.listening import address_of, bind_address

    check_data_folder(arguments.data)
    security = security_of(arguments)
    security.check(in_group=False)
    sockets = bind_address(arguments.listen)
    check_listening(sockets, security, has_tokens=bool(security.cluster_token_file))
    told = address_of(sockets[0])
    write_at_once(f"listening on {told}")
    run_reader(Setup(str(arguments.data), 0, told, security=security), sockets, ends_with_input=False)
    return 0
