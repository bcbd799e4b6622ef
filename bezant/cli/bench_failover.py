"""`bezant bench failover`: how long nobody is answered when a node of a group fails, and whether anything is lost."""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bezant.cli.output import write_json, write_line, write_remark
from bezant.cli.progress import progress
from bezant.cli.session import run_async

if TYPE_CHECKING:
    from bezant.perf.failover.rig import FailoverReport
    from bezant.perf.failover.settings import FailoverSettings


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run what a command line asks for."""
    from bezant.perf.failover.settings import FailoverSettings

    given = {name: value for name, value in vars(arguments).items() if name in FailoverSettings.__struct_fields__}
    return run_failover(FailoverSettings(**given), as_json=arguments.json)


def run_failover(settings: "FailoverSettings", *, as_json: bool) -> int:
    """Run the trials, print the report, and fail if the logs contradict the answers; then the folder is kept."""
    from bezant.perf.failover.rig import FailoverRig
    from bezant.perf.failover.settings import check_settings

    check_settings(settings)
    folder = Path(tempfile.mkdtemp(prefix="bezant-failover-", dir=settings.directory))
    keep = False
    try:
        with progress("faults", total=settings.trial_count, unit="faults") as bar:
            report = run_async(FailoverRig(settings, folder / "group", bar.advance).run())
        keep = not report.ok
    finally:
        if not keep:
            shutil.rmtree(folder)
    return tell_failover(report, as_json=as_json)


def tell_failover(report: "FailoverReport", *, as_json: bool) -> int:
    """Print a report; returns the exit status."""
    if as_json:
        write_json(report_fields(report))
    else:
        _tell(report)
    for fault in report.faults:
        write_remark(f"bezant: FAULT {fault}")
    if report.faults:
        write_remark(f"bezant: seed {report.seed}; the data is kept: {report.folder}")
    return 0 if report.ok else 1


def report_fields(report: "FailoverReport") -> dict[str, Any]:
    """The object that `--json` prints."""
    import msgspec

    fields: dict[str, Any] = {"ok": report.ok, **msgspec.to_builtins(report)}
    for trial in fields["trial_reports"]:
        del trial["begin_ns"], trial["end_ns"]
    return fields


def _tell(report: "FailoverReport") -> None:
    def times(found: dict[str, float | None]) -> str:
        return "  ".join(f"{name} {'-' if value is None else f'{value:,.0f}'} ms" for name, value in found.items())

    write_line(f"{report.trials} times {report.fault}, {report.replicas} nodes, {report.rate} requests/s")
    write_line(f"nobody answered   {times(report.outage_ms)}   (and before the fault {times(report.quiet_gap_ms)})")
    write_line(f"first answer      {times(report.first_answer_ms)}")
    write_line(
        f"acknowledged      {report.acknowledged:,}: {report.lost} lost, {report.repeated} repeated, {report.changed}"
        f" changed, {report.reordered} reordered, {report.unexplained} unexplained"
    )
    told = ", ".join(f"{name} {count:,}" for name, count in report.errors.items()) or "none"
    write_line(
        f"errors            {told}; of unknown outcome {report.unknown_found:,} are there and {report.unknown_absent:,}"
        " are not"
    )
    level = "the same log and state on all nodes" if report.replicas_level else "the nodes are NOT level"
    write_line(f"logs              {report.events:,} events in {report.entries:,} entries: {level}")
    write_line(f"availability      {report.availability['arithmetic']}")
