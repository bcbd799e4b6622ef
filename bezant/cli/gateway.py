"""`bezant gateway`: an HTTP gateway in front of a node, or of a group of nodes, or of several shards."""

import argparse

from bezant.cli.access import use_access
from bezant.cli.errors import CommandFailed
from bezant.cli.loading import loading
from bezant.cli.options import add_options, read_settings
from bezant.cli.output import write_at_once
from bezant.cli.service import say_and_notify
from bezant.cli.settings import Gateway
from bezant.net.logs import begin_logs


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant gateway`."""
    parser = subparsers.add_parser(
        "gateway",
        description="Take requests by HTTP and hand them to the ledger, until SIGTERM or Ctrl-C. Prints `listening on"
        " http://HOST:PORT` when ready; the API is described at /docs there. Any number of gateways may run. Where"
        " nodes ask for tokens each client brings its own; the gateway has one, with the scope read, for itself.",
    )
    add_options(parser, Gateway)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    told = read_settings(arguments, Gateway)
    begin_logs(told.log_format, "gateway")
    # What the file says of it is not known before.
    arguments.tls, arguments.tls_ca, arguments.token_file = told.tls, told.tls_ca, told.token_file
    arguments.insecure_connect = told.insecure_connect
    if arguments.tls_cert:
        raise CommandFailed(
            "a gateway shows nodes no certificate: they would take all its clients for a node", "leave --tls-cert out"
        )
    use_access(arguments)
    try:
        with loading():
            from bezant.net.gateway.process import run_gateway
            from bezant.net.gateway.settings import GatewaySettings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "bezant":
            raise
        raise CommandFailed(f"this needs {error.name}", "install it: pip install 'bezant[gateway]'") from error
    settings = GatewaySettings(
        connect=told.connect,
        token_file=told.token_file,
        timeout_s=told.timeout_s,
        requests_max=told.requests_max,
        client_requests_max=told.client_requests_max,
        client_rate=told.client_rate,
        client_burst=told.client_burst,
        streams_max=told.streams_max,
        client_streams_max=told.client_streams_max,
        connections_max=told.connections_max,
        hosts=tuple(told.hosts),
        certificate=told.listen_cert,
        key=told.listen_key,
        insecure_listen=told.insecure_listen,
        webhooks=told.webhooks,
        webhook_allow=tuple(told.webhook_allow),
        webhook_ca=told.webhook_ca,
        webhook_attempts_max=told.webhook_attempts_max,
        webhook_backoff_s=told.webhook_backoff_s,
    )
    run_gateway(settings, told.listen, say_and_notify(write_at_once))
    return 0
