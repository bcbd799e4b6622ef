"""`bezant reconcile`: compares a statement from outside with the books."""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, run_async

if TYPE_CHECKING:
    from bezant.cli.import_file import ImportFile
    from bezant.cli.reconciling import Comparison, Statement

SHOWN_MAX: Final = 100
"""Differences that the table shows; ``--json`` has all."""
_WHATS: Final = ("missing", "different", "repeated", "extra")

_DESCRIPTION: Final = """\
Compare a statement from outside with the books. The file has the columns of `bezant import`: transaction_id, date,
from_account, to_account, amount, currency, and perhaps client_account and bank_recorded_balance. A transaction_id that
is 32 hexadecimal digits is the id of a transfer itself.

missing: in the statement, and not in the books (or refused there). different: in both, and not the same. repeated: the
transaction_id is in the statement twice. extra: in the books, and not in the statement, on one of its days, to or from
one of the accounts that it is about: those of client_account or, where it has none, all but bank:* and external:*; or
those given with --account. Nothing is changed; exit status 1 if anything differs.

A transfer between shards is one payment, and so is each transfer of a transaction, with an id of its own (`bezant
transaction --json` tells it). What was refused, cancelled or taken back is none. Of several shards the nodes answer for
all; with --data name the folders of all: of one shard alone the other half of such a payment is not seen, so that the
balance of an account of another shard is not compared, and one that came in and is extra has the id of its half."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant reconcile`."""
    parser = subparsers.add_parser(
        "reconcile", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE.csv[.gz]", type=Path)
    parser.add_argument(
        "--account",
        metavar="NAME",
        action="append",
        default=[],
        help="an account that the statement is about; may be given again",
    )
    add_ledger_arguments(
        parser,
        folders_help="the data folder of a node, running or not; of shards the folder of `bezant cluster --shards`, or "
        "the data folder of one node of each, with --data before each",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare; 0 if everything agrees, 1 if not."""
    from bezant.cli.import_file import ImportFile

    ImportFile(arguments.file, {}).check_header()
    if arguments.data is not None:
        file, statement, comparison = _with_folder(arguments)
    else:
        file, statement, comparison = run_async(_with_node(arguments))
    if file.columns_ignored:
        write_remark(f"bezant: columns that are not compared were ignored: {', '.join(file.columns_ignored)}")
    _tell(arguments, statement, comparison)
    return 1 if comparison.differences else 0


async def _with_node(arguments: argparse.Namespace) -> "tuple[ImportFile, Statement, Comparison]":
    from bezant.cli.books import of_node
    from bezant.cli.import_file import ImportFile
    from bezant.cli.reconciling import compare

    async with open_history(arguments) as wallet:
        file = ImportFile(arguments.file, await wallet.currencies())
        statement = _read(arguments, file)
        with progress("comparing", total=len(statement.rows), unit="events") as bar:
            booked = await of_node(wallet, statement, lambda seen: bar.update(seen, max(seen, len(statement.rows))))
    return file, statement, compare(statement, booked)


def _with_folder(arguments: argparse.Namespace) -> "tuple[ImportFile, Statement, Comparison]":
    from bezant.cli.books import currencies_of_folders, folders_of_shards, of_folders
    from bezant.cli.import_file import ImportFile
    from bezant.cli.local_shards import data_folders
    from bezant.cli.reconciling import compare

    folders = folders_of_shards(data_folders(arguments.data))
    with progress("reading", total=0, unit="events") as bar:
        decimals = currencies_of_folders(folders, lambda done: bar.update(done, max(done, 1)))
    file = ImportFile(arguments.file, decimals)
    statement = _read(arguments, file)
    with progress("comparing", total=0, unit="events") as bar:
        booked = of_folders(folders, statement, lambda done: bar.update(done, max(done, 1)))
    return file, statement, compare(statement, booked)


def _read(arguments: argparse.Namespace, file: "ImportFile") -> "Statement":
    from bezant.cli.import_command import overdraft_allowed
    from bezant.cli.reconciling import Statement

    return Statement(file.rows(), arguments.account, overdraft_allowed([]))


def _tell(arguments: argparse.Namespace, statement: "Statement", comparison: "Comparison") -> None:
    counts = Counter(difference.what for difference in comparison.differences)
    if arguments.json:
        write_json(
            {
                "ok": not comparison.differences,
                "file": str(arguments.file),
                "rows": len(statement.rows) + len(statement.repeated),
                "accounts": len(statement.subjects),
                "agreeing": comparison.agreeing,
                **{what: counts[what] for what in _WHATS},
                "differences": [difference._asdict() for difference in comparison.differences],
            }
        )
        return
    if comparison.differences:
        rows = [
            (found.what, str(found.line or ""), found.transaction_id, found.field, found.statement, found.books)
            for found in comparison.differences[:SHOWN_MAX]
        ]
        headings = ("what", "line", "transaction", "field", "statement", "books")
        write_table(headings, rows, right=frozenset({"line"}))
        if len(comparison.differences) > SHOWN_MAX:
            write_line(f"and {len(comparison.differences) - SHOWN_MAX:,} more: see --json")
    told = ", ".join(f"{counts[what]:,} {what}" for what in _WHATS if counts[what]) or "nothing differs"
    write_line(
        f"{len(statement.rows) + len(statement.repeated):,} rows about {len(statement.subjects):,} accounts:"
        f" {comparison.agreeing:,} agree; {told}"
    )
