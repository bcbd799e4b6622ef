"""`bezant export`: the history and the balances in a data folder, as Parquet files."""

import argparse
from pathlib import Path

from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_line
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument
from bezant.cli.sql import need_extra, open_tables
from bezant.cli.times import add_moment_arguments


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant export`."""
    parser = subparsers.add_parser(
        "export",
        description="Write the tables that `bezant sql` reads to a new folder: events, a file for each million of them,"
        " accounts, holds and currencies. The folder is there whole or not at all, and nothing is overwritten. The data"
        " folder may be that of a node that runs or not, and nothing is changed there.",
    )
    parser.add_argument("--parquet", metavar="DIR", type=Path, required=True, help="the folder to make")
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder")
    add_moment_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write."""
    need_extra()
    from bezant.protocol.errors import UsageError
    from bezant.sql.parquet import export

    try:
        history = open_tables(arguments)
        total = history.until_sequence
        with progress("exporting", total=total, unit="events") as bar:
            done = export(history, arguments.parquet, lambda written: bar.update(written, total))
    except UsageError as error:
        raise InputWrong(str(error), "correct the command and run it again") from error
    if arguments.json:
        write_json({"folder": str(arguments.parquet), **done._asdict()})
    else:
        write_line(f"{arguments.parquet}: {done.events:,} events, {done.files} files, {done.size_bytes:,} bytes")
    return 0
