"""`bezant accounts`: lists every account, as CSV, as a table, or as JSON."""

import argparse
import csv
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from bezant.cli.output import write_json, write_table
from bezant.cli.session import add_ledger_arguments, open_wallet, run_async

if TYPE_CHECKING:
    import bezant

COLUMNS: Final = ("name", "currency", "balance", "held", "limit")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant accounts`."""
    parser = subparsers.add_parser(
        "accounts",
        description="List every account in the order in which they were opened. Amounts are exact decimals; a limit of"
        " `unlimited` stands for an account of the outside world.",
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--format",
        choices=("csv", "table", "json"),
        default="table",
        help="csv and json write as they read, a table first reads all; csv has names as they are, also such as a"
        " spreadsheet takes for formulas (default: %(default)s)",
    )
    formats.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add_ledger_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """List them."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with open_wallet(arguments) as wallet:
        await _WRITERS[arguments.format](wallet.accounts())
    return 0


def account_fields(account: "bezant.Account") -> dict[str, str]:
    """An account as commands print it; amounts are decimal strings."""
    return {
        "name": account.name,
        "currency": account.currency,
        "balance": account.balance_text,
        "held": account.held_text,
        "limit": account.limit_text,
    }


async def _write_csv(accounts: "AsyncIterator[bezant.Account]") -> None:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    async for account in accounts:
        writer.writerow(account_fields(account))


async def _write_json(accounts: "AsyncIterator[bezant.Account]") -> None:
    """One line of JSON for each account, so that a list of any length can be read as it comes."""
    async for account in accounts:
        write_json(account_fields(account))


async def _write_table(accounts: "AsyncIterator[bezant.Account]") -> None:
    rows = [tuple(account_fields(account).values()) async for account in accounts]
    write_table(COLUMNS, rows, right=frozenset({"balance", "held", "limit"}))


_WRITERS: Final = {"csv": _write_csv, "json": _write_json, "table": _write_table}
