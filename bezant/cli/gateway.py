"""`bezant gateway`: an HTTP gateway in front of a node, or of a group of nodes, or of several shards."""

import argparse

from bezant.cli.errors import CommandFailed
from bezant.cli.output import write_at_once
from bezant.cli.session import DEFAULT_ADDRESS, address, addresses, positive_count, positive_seconds

DEFAULT_LISTEN = "127.0.0.1:8080"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant gateway`."""
    parser = subparsers.add_parser(
        "gateway",
        description="Take requests by HTTP and hand them to the ledger, until SIGTERM or Ctrl-C. Prints `listening on"
        " http://HOST:PORT` when ready; the API is described at /docs there. Any number of gateways may run.",
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="the node, or some nodes of a group (default: %(default)s)",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=address,
        default=DEFAULT_LISTEN,
        help="where clients connect, on loopback; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=5.0,
        help="the deadline of requests that name none: 0.1, 0.2, 0.5, 1, 2, 5, 10 or 30 (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        dest="hosts",
        action="append",
        default=[],
        help="a name besides localhost by which clients ask for the gateway, as through a proxy; may be given again",
    )
    for option, default, explanation in (
        ("--requests-max", 8192, "requests that are worked on at a time, at most"),
        ("--client-requests-max", 1024, "requests of one client that are worked on at a time, at most"),
        ("--client-burst", 10_000, "requests that a client may send at once after a pause"),
        ("--streams-max", 2000, "streams of events that are open at a time, at most"),
        ("--client-streams-max", 200, "of those, of one client"),
        ("--connections-max", 20_000, "connections of clients, at most"),
    ):
        parser.add_argument(
            option, metavar="N", type=positive_count, default=default, help=f"{explanation} (default: %(default)s)"
        )
    parser.add_argument(
        "--client-rate",
        metavar="N",
        type=positive_seconds,
        default=50_000.0,
        help="requests of one client a second, at most, on average (default: 50000)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    _refuse_credentials(arguments)
    try:
        from bezant.net.gateway.process import run_gateway
        from bezant.net.gateway.settings import GatewaySettings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "bezant":
            raise
        raise CommandFailed(f"this needs {error.name}", "install it: pip install 'bezant[gateway]'") from error
    settings = GatewaySettings(
        connect=arguments.connect,
        timeout_s=arguments.timeout_s,
        requests_max=arguments.requests_max,
        client_requests_max=arguments.client_requests_max,
        client_rate=arguments.client_rate,
        client_burst=arguments.client_burst,
        streams_max=arguments.streams_max,
        client_streams_max=arguments.client_streams_max,
        connections_max=arguments.connections_max,
        hosts=tuple(arguments.hosts),
    )
    run_gateway(settings, arguments.listen, write_at_once)
    return 0


def _refuse_credentials(arguments: argparse.Namespace) -> None:
    """Everybody who reaches the gateway would act with its token, or as the node whose certificate it shows.

    Raises `CommandFailed`.
    """
    from bezant.net.access.credentials import own_credentials

    if own_credentials().token or getattr(arguments, "tls_cert", None):
        raise CommandFailed(
            "a gateway takes no token and no certificate: it would lend them to everybody who reaches it",
            "have it ask nodes that ask for no tokens",
        )
