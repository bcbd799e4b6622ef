"""`bezant audit`: prints what was administered, out of the log in a data folder, whose node may run."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from bezant.cli.output import write_json, write_line
from bezant.cli.session import add_json_argument, check_data_folder
from bezant.protocol.errors import UsageError

_NS_PER_S = 1_000_000_000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant audit`."""
    parser = subparsers.add_parser(
        "audit",
        description="Print what was administered: who asked for it, by the id of the token, when, what, and what came"
        " of it. Read out of the log, every entry of which is verified on the way; a node may run on the folder.",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder of any node")
    parser.add_argument("--by", metavar="ID", help="what was asked for with this token alone")
    parser.add_argument("--after", metavar="INDEX", type=_index, default=0, help="what stands behind this entry alone")
    add_json_argument(parser)


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"the index of an entry is a whole number, not {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Print all there is."""
    from bezant.engine.tokens.acts import escaped
    from bezant.engine.tokens.audit import read_acts

    check_data_folder(arguments.data)
    if arguments.by == "":
        raise UsageError("--by takes the id of a token")
    for line in read_acts(arguments.data, arguments.after):
        if arguments.by is not None and line.token_id != arguments.by:
            continue
        if arguments.json:
            write_json(line._asdict())
            continue
        moment = datetime.fromtimestamp(line.timestamp_ns // _NS_PER_S, UTC)
        told = f"{moment:%Y-%m-%d %H:%M:%S}.{line.timestamp_ns % _NS_PER_S:09d}"
        refused = f" - not done: {line.outcome}" if line.outcome else ""
        said = f"{told}  entry {line.index}  {line.token_id or '-':<12}  {line.operation}: {line.what}{refused}"
        write_line(escaped(said))  # the log may be older than the rule that it holds nothing else
    return 0
