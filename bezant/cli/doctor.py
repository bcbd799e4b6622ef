"""`bezant doctor`: says in words what is in a data folder, damaged or not, and changes nothing in it.

With a file of settings it looks at the machine instead, and with addresses at the group.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bezant.cli.errors import STATUS_FAILED, STATUS_USAGE
from bezant.cli.options import CONFIG_OPTION
from bezant.cli.output import write_json, write_line
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, addresses, positive_count, run_async
from bezant.protocol.errors import StorageError, UsageError

if TYPE_CHECKING:
    from bezant.engine.diagnosis import Diagnosis, Finding

MIB: Final = 1 << 20
_STATUS_OF: Final = {"damaged": STATUS_FAILED, "other_format": STATUS_FAILED, "not_a_data_folder": STATUS_USAGE}
"""Exit statuses by verdict; those that are not here are 0."""
_WORDS_OF: Final = {
    "healthy": "healthy",
    "in_use": "in use, and nothing wrong as far as can be seen meanwhile",
    "damaged": "DAMAGED",
    "other_format": "written by another version of Bezant",
    "not_a_data_folder": "not a data folder",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        description="Explain a data folder, damaged or not, in words. Changes nothing in it. The node should have"
        " stopped. Exit status: 0 healthy, 1 damaged or of another version, 2 not a data folder or a wrong command"
        " line. Checksums and the hash chain are checked; `bezant verify` also executes the history again. With"
        " --config it looks at the machine instead, as the node of that file would use it: disk and its syncs, room,"
        " limits, clock, processor, keys, certificates, ports. With --connect it looks at the group as well: versions,"
        " lag, clocks. Exit status then: 0 good or warnings alone, 1 errors.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="DIR", type=Path, help="the data folder")
    what.add_argument(CONFIG_OPTION, metavar="FILE", type=Path, help="a file of settings with a table [serve]")
    parser.add_argument(
        "--connect", metavar="HOST:PORT,...", type=addresses, help="with --config: nodes of the group to look at"
    )
    parser.add_argument(
        "--free-space-floor-mib",
        metavar="MIB",
        type=positive_count,
        default=256,
        help="the free space at which the folder's node takes no more, as `serve` was told (default: %(default)s)",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Examine the folder, or the machine, and tell; the exit status is the verdict."""
    if arguments.config is not None:
        return _run_machine(arguments)
    if arguments.connect is not None:
        raise UsageError("--connect goes with --config: the doctor then looks at the machine and the group")
    import msgspec

    from bezant.engine.doctor import examine

    try:
        with progress("examining", total=0, unit="bytes") as bar:
            diagnosis = examine(
                arguments.data, free_space_floor=arguments.free_space_floor_mib * MIB, on_progress=bar.update
            )
    except OSError as error:
        raise StorageError(f"{error.filename or arguments.data} cannot be read: {error.strerror}") from error
    if arguments.json:
        write_json({"data": str(arguments.data), **msgspec.to_builtins(diagnosis)})
    else:
        _tell(arguments.data, diagnosis)
    return _STATUS_OF.get(diagnosis.verdict, 0)


def _run_machine(arguments: argparse.Namespace) -> int:
    """Examine the machine, and the group if there are addresses of it."""
    import msgspec

    from bezant.cli.config_file import table_of
    from bezant.cli.machine import ERROR, examine_machine
    from bezant.cli.settings import Serve

    try:
        settings = msgspec.convert(table_of(arguments.config, "serve"), Serve)
    except msgspec.ValidationError as error:
        raise UsageError(f"{arguments.config}: {error}") from error
    findings = examine_machine(settings)
    if arguments.connect is not None:
        from bezant.cli.group_health import examine_group

        findings += run_async(examine_group(arguments.connect.split(",")))
    if arguments.json:
        write_json({"config": str(arguments.config), "findings": msgspec.to_builtins(findings)})
    else:
        for finding in findings:
            write_line(f"{finding.severity:<8} {finding.subject:<18} {finding.found}")
            if finding.next_step:
                write_line(f"{'':<8} {'next':<18} {finding.next_step}")
    return STATUS_FAILED if any(finding.severity == ERROR for finding in findings) else 0


def _tell(data: Path, diagnosis: "Diagnosis") -> None:
    """The verdict, what is there, and every finding in full."""
    write_line(f"{data}: {_WORDS_OF[diagnosis.verdict]}")
    for title, value in _counts(diagnosis):
        write_line(f"  {title:<14}{value}")
    for finding in diagnosis.findings:
        write_line()
        write_line(f"{finding.severity}: {finding.kind.replace('_', ' ')}{_place(finding)}")
        for title, words in (
            ("found", finding.found),
            ("expected", finding.expected),
            ("means", finding.meaning),
            ("next", finding.next_step),
        ):
            if words:
                write_line(f"  {title:<14}{words}")


def _place(finding: "Finding") -> str:
    offset = "" if finding.offset is None else f", offset {finding.offset}"
    return f" in {finding.file}{offset}" if finding.file else ""


def _counts(diagnosis: "Diagnosis") -> list[tuple[str, str]]:
    if diagnosis.verdict == "not_a_data_folder":
        return []
    rows = [("log", diagnosis.log_id or "unknown"), ("segments", f"{diagnosis.segments:,}")]
    if diagnosis.walked:
        rows += [
            ("good entries", f"{diagnosis.entries:,}"),
            ("events", f"{diagnosis.events:,}"),
            ("accounts", f"{diagnosis.accounts:,}"),
            ("chain hash", diagnosis.chain_hash or "none yet"),
        ]
    return [*rows, ("free on disk", f"{diagnosis.free_bytes / MIB:,.0f} MiB")]
