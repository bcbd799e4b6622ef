"""`bezant reader`: a reader by itself, on the folder of a node that runs, or of none."""

import argparse
from pathlib import Path

from bezant.cli.access import security_of
from bezant.cli.loading import loading
from bezant.cli.options import add_options, read_settings
from bezant.cli.output import write_at_once
from bezant.cli.service import say_and_notify
from bezant.cli.session import check_data_folder
from bezant.cli.settings import Reader
from bezant.net.logs import begin_logs


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant reader`."""
    parser = subparsers.add_parser(
        "reader",
        description="Tell clients what has happened, from a data folder, until SIGTERM or Ctrl-C. Prints `listening on"
        " HOST:PORT`. A node may run on the folder if it was started with --no-reader; else it has a reader already.",
    )
    add_options(parser, Reader)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    with loading():
        from bezant.net.access.settings import check_listening
        from bezant.net.metrics.http import check_watchers
        from bezant.net.reader.process import run_reader
        from bezant.net.reader.setup import Setup
        from bezant.net.server.listening import address_of, bind_address

    settings = read_settings(arguments, Reader)
    begin_logs(settings.log_format, "reader")
    check_data_folder(Path(settings.data))
    security = security_of(settings)
    security.check(in_group=False)
    sockets = bind_address(settings.listen)
    check_listening(sockets, security, has_tokens=bool(security.cluster_token_file))
    metrics = bind_address(settings.metrics) if settings.metrics else []
    check_watchers(metrics, insecure_listen=security.insecure_listen)
    told = address_of(sockets[0])
    say_and_notify(write_at_once)(f"listening on {told}")
    if metrics:
        write_at_once(f"metrics on http://{address_of(metrics[0])}/metrics")
    run_reader(Setup(settings.data, 0, told, security=security), sockets, metrics, ends_with_input=False)
    return 0
