"""`bezant bench history`: how soon a history is verified, taken in by a reader, and asked about."""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bezant.cli.output import write_json, write_remark, write_table
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, positive_count

EVENTS_DEFAULT = 4_000_000
ACCOUNTS_DEFAULT = 100_000
QUESTIONS_DEFAULT = 2000


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant bench history`."""
    parser = kinds.add_parser(
        "history",
        help="a history made by the engine, verified, taken in by a reader, and questions about it",
        description="Make a history in a temporary folder, which needs some 260 bytes of disk an event, verify it, take"
        " it in as a reader does, and ask for accounts as of past times, for statements, for transfers by their ids and"
        " for receipts.",
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
    from bezant.perf.history.making import check_room
    from bezant.perf.history.measuring import measure_history
    from bezant.perf.load.books import LoadAccounts

    if not 1 < arguments.accounts < arguments.events:
        raise InputWrong("a history has more events than accounts, and two accounts at least", "choose other numbers")
    folder = Path(tempfile.mkdtemp(prefix="bezant-history-", dir=arguments.directory))
    try:
        check_room(folder, arguments.events)
        report = measure_history(
            folder / "data",
            arguments.events,
            LoadAccounts(arguments.accounts),
            questions=arguments.questions,
            seed=arguments.seed,
            show=_show,
        )
    finally:
        shutil.rmtree(folder)
    missed = report.missed
    if arguments.json:
        import msgspec

        write_json({"ok": not missed, "missed": missed, **msgspec.to_builtins(report)})
    else:
        write_table(["what", "measured", "target"], report.rows())
    for fault in missed:
        write_remark(f"bezant: {fault}")
    return 1 if missed else 0


@contextmanager
def _show(title: str, total: int) -> Iterator[Callable[[int], None]]:
    with progress(title, total=total, unit="events") as bar:
        yield lambda done: bar.update(done, total)
