"""`bezant diff`: executes one history with two versions of Bezant, and shows the first event that differs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bezant.cli.output import write_json, write_line, write_table
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, check_data_folder

if TYPE_CHECKING:
    from bezant.engine.diffing.comparing import DiffReport


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant diff`."""
    parser = subparsers.add_parser(
        "diff",
        description="Execute the history of a data folder with this version of Bezant and with another one, each in a"
        " process of its own, and compare every event that comes out. Shows the first one that differs, field by field."
        " Changes nothing. The node must be stopped. The exit status is 0 if nothing differs.",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="the data folder")
    parser.add_argument(
        "--with",
        metavar="OTHER_INSTALL",
        dest="other",
        type=Path,
        required=True,
        help="the other version: its python, its bezant, or the folder of its virtual environment",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare; 0 if both make the same of the history."""
    from bezant.engine.diffing.comparing import diff

    check_data_folder(arguments.data)
    with progress("executing", total=0, unit="events") as bar:
        report = diff(arguments.data, arguments.other, lambda done: bar.update(done, max(done, 1)))
    if arguments.json:
        _write_json(report)
    else:
        _write(report)
    return 0 if report.divergence is None else 1


def _write_json(report: "DiffReport") -> None:
    found = report.divergence
    write_json(
        {
            "ok": found is None,
            "this": report.own._asdict(),
            "other": report.other._asdict(),
            "entries": report.entries,
            "events": report.events,
            "divergence": None
            if found is None
            else {**found._asdict(), "fields": [field._asdict() for field in found.fields]},
        }
    )


def _write(report: "DiffReport") -> None:
    for title, version in (("this", report.own), ("other", report.other)):
        write_line(f"{title:<6}{version.version}, kernels {version.kernel_digest}, {version.python}")
    found = report.divergence
    if found is None:
        write_line(f"both make the same of all {report.events:,} events in {report.entries:,} entries")
        return
    write_line(f"the same up to event {report.events:,}, in {report.entries:,} entries")
    if found.fields:
        write_line(f"entry {found.index}, sequence {found.sequence}:")
        write_table(("field", "this", "other"), [tuple(field) for field in found.fields])
    else:
        write_line(f"entry {found.index}: {found.words}" if found.index else found.words)
