"""`bezant serve`: reads the settings; the node itself is `bezant.net.server.serve`."""

import argparse
from pathlib import Path
from typing import Any, Final

from bezant.cli.access import security_of
from bezant.cli.loading import loading
from bezant.cli.options import add_options, read_settings, settings_given, words_of
from bezant.cli.output import write_at_once, write_remark
from bezant.cli.service import say_and_notify
from bezant.cli.session import placement
from bezant.cli.settings import MIB, Serve, address_behind
from bezant.net.logs import begin_logs
from bezant.protocol.errors import UsageError

_OF_ONE_FOLDER: Final = ("data", "listen", "echo", "reader_listen", "metrics", "reader_metrics")

_NUMBERED: Final = ("metrics", "reader_metrics")
"""Of several folders each has these at a port of its own: that of the first folder, and those behind it."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant serve`."""
    parser = subparsers.add_parser(
        "serve",
        description="Run a node on a data folder until SIGTERM or Ctrl-C. Prints `listening on HOST:PORT` when ready.",
    )
    add_options(parser, Serve)
    # No setting: what is done once must not be done again at every start.
    parser.add_argument(
        "--repair-from-group",
        action="store_true",
        help="if the log is damaged, cut it before the damage, set what follows aside, and get it from the other nodes"
        " of the group again; the node does not vote until it has it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    settings = read_settings(arguments, Serve)
    begin_logs(settings.log_format, "node")
    if len(settings.data) > 1:
        return _run_several(settings, settings_given(arguments, Serve), repairs=arguments.repair_from_group)
    with loading():
        from bezant.engine.replica import ReplicaSettings
        from bezant.net.server.serve import serve

    try:
        replica_settings = ReplicaSettings(
            segment_size=settings.segment_size_mib * MIB,
            free_space_floor=settings.free_space_floor_mib * MIB,
            accounts_max=settings.accounts_max,
            holds_max=settings.holds_max,
            ids_memory_bytes=settings.ids_memory_mib * MIB,
            checkpoint_ids=settings.checkpoint_ids,
            checkpoint_entries=settings.checkpoint_entries,
            snapshot_behind_bytes=settings.snapshot_behind_mib * MIB,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return serve(
        Path(settings.data[0]),
        settings.listen or None,
        say=say_and_notify(write_at_once),
        echo=settings.echo or None,
        settings=replica_settings,
        repairs=arguments.repair_from_group,
        reader=settings.reader,
        reader_listen=settings.reader_listen or None,
        metrics=settings.metrics or None,
        reader_metrics=settings.reader_metrics or None,
        placement=placement(settings.placement) if settings.placement else None,
        security=security_of(settings),
    )


def _run_several(settings: Serve, given: dict[str, Any], *, repairs: bool) -> int:
    """Serve several shards, each as its folder says."""
    from bezant.cli.serve_shards import serve_shards
    from bezant.cli.session import run_async
    from bezant.cli.watched_nodes import say_plainly

    ready = say_and_notify(write_remark)
    words = words_of(given, Serve, without=_OF_ONE_FOLDER) + (["--repair-from-group"] if repairs else [])

    def words_for(number: int) -> list[str]:
        places = {key: address_behind(getattr(settings, key), number) for key in _NUMBERED if getattr(settings, key)}
        return words + words_of(places, Serve)

    return run_async(serve_shards([Path(folder) for folder in settings.data], words_for, say_plainly, ready))
