"""`bezant import`: reads the file once to check it, once more to send it, and says what became of every row."""

import argparse
import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.output import write_json, write_line, write_remark
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_wallet, run_async

if TYPE_CHECKING:
    import bezant
    from bezant.cli.import_file import ImportFile
    from bezant.cli.importing import ImportReport

OUTSIDE_WORLD: Final = ("bank:*", "external:*")
"""Names of accounts that stand for the world outside the ledger: they may go below zero without end."""

_ROWS_PER_STEP: Final = 4096
"""Rows checked before the event loop gets a turn: about 20 ms."""

_DESCRIPTION: Final = """\
Import dated transfers from a CSV file, plain or gzip, with their dates. The first line names the columns:
transaction_id, date, from_account, to_account, amount, currency; and if you have them kind, client_account and
bank_recorded_balance, which is then compared with the engine's balance after every row.

Accounts are opened when they are first met; bank:* and external:* may go below zero, others only if they match
--allow-overdraft. The file is read through before anything is sent. Importing it again changes nothing. History goes
in before live traffic: the time of an event can only rise."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant import`."""
    parser = subparsers.add_parser(
        "import", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE.csv[.gz]", type=Path)
    parser.add_argument(
        "--allow-overdraft",
        metavar="PATTERN",
        action="append",
        default=[],
        help="open accounts whose name matches (as in 'account:*') without a lower limit; may be given again",
    )
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Import the file; 0 if every row is booked and every recorded balance agrees."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.import_file import ImportFile

    # Before anybody is asked: a mistyped path is told as such, and not as a node that does not answer.
    ImportFile(arguments.file, {}).check_header()
    async with open_wallet(arguments) as wallet:
        file, report = await import_csv(wallet, arguments.file, overdraft_allowed(arguments.allow_overdraft))
    if file.columns_ignored:
        write_remark(f"bezant: columns that an import does not use were ignored: {', '.join(file.columns_ignored)}")
    if arguments.json:
        write_json(report_fields(file, report))
    else:
        for line in report_lines(file, report):
            write_line(line)
    for remark in failures(report):
        write_remark(f"bezant: {remark}")
    return 0 if report.ok else 1


async def import_csv(
    wallet: "bezant.Wallet", path: Path, is_unlimited: Callable[[str], bool]
) -> "tuple[ImportFile, ImportReport]":
    """Check a file, then import it, with progress on stderr. Raises `InputFileError` before anything is sent."""
    from bezant.cli.import_batches import build_batches
    from bezant.cli.import_file import ImportFile
    from bezant.cli.importing import submit_batches

    file = ImportFile(path, await wallet.currencies())
    row_count = await _check(file)
    with progress("importing", total=row_count, unit="rows") as bar:
        report = await submit_batches(wallet, build_batches(file.rows(), is_unlimited), bar.advance)
    return file, report


async def _check(file: "ImportFile") -> int:
    """Read the file through and return the number of its rows."""
    row_count = 0
    with progress("checking the file", total=file.size_bytes, unit="bytes") as bar:
        for row_count, _ in enumerate(file.rows(), 1):
            if row_count % _ROWS_PER_STEP == 0:
                bar.update(file.bytes_read, file.size_bytes)
                await asyncio.sleep(0)
        bar.update(file.size_bytes, file.size_bytes)
    return row_count


def overdraft_allowed(patterns: list[str]) -> Callable[[str], bool]:
    """A test for names of accounts that may go below zero without end."""
    all_patterns = (*OUTSIDE_WORLD, *patterns)
    return lambda name: any(fnmatchcase(name, pattern) for pattern in all_patterns)


def report_fields(file: "ImportFile", report: "ImportReport") -> dict[str, Any]:
    """The report as `--json` prints it."""
    return {
        "ok": report.ok,
        "file": str(file.path),
        "rows": report.rows,
        "committed": report.committed,
        "repeated": report.repeated,
        "refused": {code.name: count for code, count in sorted(report.refused.items())},
        "refused_examples": [
            {"line": row.line, "code": row.code.name, "field": row.field.name.lower()}
            for row in report.refused_examples
        ],
        "accounts_opened": report.accounts_opened,
        "accounts_existing": report.accounts_existing,
        "accounts_other_limit": report.accounts_other_limit,
        "openings_refused": {code.name: count for code, count in sorted(report.openings_refused.items())},
        "balances_checked": report.balances_checked,
        "balance_mismatches": report.mismatches,
        "mismatch_examples": [row._asdict() for row in report.mismatch_examples],
        "rows_moved": report.rows_moved,
        "stopped_by": report.stopped_by.name if report.stopped_by is not None else None,
        "seconds": round(report.seconds, 3),
        "rows_per_second": round(report.rows / report.seconds) if report.seconds else 0,
    }


def report_lines(file: "ImportFile", report: "ImportReport") -> list[str]:
    """The report in words."""
    from bezant.cli.importing import describe_refusal

    lines = [
        f"{report.rows:,} rows of {file.path.name} in {report.seconds:.1f} s:"
        f" {report.committed:,} booked, {report.repeated:,} repeated, {report.refused.total():,} refused",
        f"accounts: {report.accounts_opened:,} opened, {report.accounts_existing:,} existed",
        f"recorded balances: {report.balances_checked:,} checked, {report.mismatches:,} differ",
    ]
    lines += [f"refused {count:,} times {describe_refusal(code)}" for code, count in sorted(report.refused.items())]
    lines += [f"{file.path}:{row.line}: {describe_refusal(row.code, row.field)}" for row in report.refused_examples]
    lines += [
        f"refused {count:,} openings {describe_refusal(code)}"
        for code, count in sorted(report.openings_refused.items())
    ]
    lines += [
        f"{file.path}:{row.line}: the engine's balance is {row.engine}, the bank recorded {row.recorded}"
        for row in report.mismatch_examples
    ]
    if report.rows_moved:
        lines.append(f"{report.rows_moved:,} rows are dated before a row above them and were booked at that row's date")
    if report.accounts_other_limit:
        lines.append(f"{report.accounts_other_limit:,} accounts existed with another limit, which they keep")
    return lines


def failures(report: "ImportReport") -> list[str]:
    """What went wrong, one line each, with the next step."""
    from bezant.protocol.codes import CODE_ROW, ResultCode

    lines: list[str] = []
    if report.stopped_by == ResultCode.IMPORTED_TIMESTAMP_NOT_RISING:
        lines.append(
            "stopped: the ledger has an event that is later than a row of the file; history goes in"
            " oldest first and before live traffic, so use a new data folder"
        )
    elif report.stopped_by is not None:
        meaning = CODE_ROW[report.stopped_by].meaning
        lines.append(f"stopped: {report.stopped_by.name}, {meaning}; when that is mended, run the same import again")
    elif report.refused[ResultCode.INSUFFICIENT_FUNDS]:
        lines.append(
            f"{report.refused[ResultCode.INSUFFICIENT_FUNDS]:,} rows would take an account below its limit; their ids"
            " are used up, so start again on a new data folder with --allow-overdraft PATTERN if they are right"
        )
    elif report.refused or report.openings_refused:
        lines.append("some rows were refused; the list above names them")
    if report.mismatches:
        lines.append(
            f"balances that differ from what the bank recorded: {report.mismatches:,}; the list above has the first"
        )
    return lines
