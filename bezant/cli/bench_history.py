"""`bezant bench history`: how soon the reader takes a history in, and how soon it answers questions about it."""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bezant.cli.output import write_json, write_line
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, positive_count

if TYPE_CHECKING:
    from bezant.perf.history.measuring import HistoryReport

EVENTS_DEFAULT = 4_000_000
ACCOUNTS_DEFAULT = 100_000
QUESTIONS_DEFAULT = 2000


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant bench history`."""
    parser = kinds.add_parser(
        "history",
        help="a history made by the engine, taken in by the reader's projections, and questions about it",
        description="Make a history in a temporary folder, which needs some 250 bytes of disk an event, take it in as a"
        " reader does, and ask for accounts as of past times, for statements and for transfers by their ids.",
    )
    parser.add_argument(
        "--events", metavar="N", type=positive_count, default=EVENTS_DEFAULT, help="events (default: %(default)s)"
    )
    parser.add_argument(
        "--accounts", metavar="N", type=positive_count, default=ACCOUNTS_DEFAULT, help="accounts (default: %(default)s)"
    )
    parser.add_argument(
        "--questions",
        metavar="N",
        type=positive_count,
        default=QUESTIONS_DEFAULT,
        help="questions of each sort (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of the random numbers (default: %(default)s)")
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the temporary folder goes")
    add_json_argument(parser)


def run_arguments(arguments: argparse.Namespace) -> int:
    """Measure and tell; 1 if a target is missed."""
    from bezant.cli.errors import InputWrong
    from bezant.perf.history.making import check_room, make_history
    from bezant.perf.history.measuring import measure_history
    from bezant.perf.load.books import LoadAccounts

    if not 1 < arguments.accounts < arguments.events:
        raise InputWrong("a history has more events than accounts, and two accounts at least", "choose other numbers")
    folder = Path(tempfile.mkdtemp(prefix="bezant-history-", dir=arguments.directory))
    try:
        check_room(folder, arguments.events)
        accounts = LoadAccounts(arguments.accounts)
        with progress("making history", total=arguments.events, unit="events") as bar:
            make_history(
                folder / "data",
                arguments.events,
                accounts,
                arguments.seed,
                lambda done: bar.update(done, arguments.events),
            )
        with progress("taking it in", total=arguments.events, unit="events") as bar:
            report = measure_history(
                folder / "data",
                accounts,
                arguments.questions,
                arguments.seed,
                lambda done: bar.update(done, arguments.events),
            )
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        import msgspec

        write_json(msgspec.to_builtins(report))
    else:
        _tell(report)
    return 0 if report.ok else 1


def _tell(report: "HistoryReport") -> None:
    def times(found: dict[str, float | None]) -> str:
        return "  ".join(
            f"{name} {'-' if value is None else f'{value / 1000:.3f}'} ms" for name, value in found.items()
        )

    write_line(f"history           {report.events:,} events, {report.accounts:,} accounts")
    write_line(
        f"taken in          {report.catch_up_events_per_s:,} events/s, {report.settled_events_per_s:,} with all files"
        f" merged; {report.processor_ns_per_event:.0f} ns of processor an event"
    )
    write_line(
        f"files             {report.index_bytes / 1e6:,.1f} MB in {report.index_files}; opened again in"
        f" {report.reopen_s:.2f} s"
    )
    write_line(f"as of, hot        {times(report.as_of_hot_us)}")
    write_line(f"as of, cold       {times(report.as_of_cold_us)}")
    write_line(f"statement, hot    {times(report.statement_hot_us)}")
    write_line(f"statement, cold   {times(report.statement_cold_us)}")
    write_line(f"transfer by id    {times(report.transfer_by_id_us)}")
