"""``python -m bezant.perf.crash``: runs the rig and says what it saw. Exit status 1 if a promise did not hold."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bezant.cli.bench_failover import run_failover
from bezant.cli.errors import STATUS_FAILED, describe
from bezant.cli.output import write_json, write_line, write_remark
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, positive_count, run_async
from bezant.perf.crash.rig import Rig, RigSettings, Summary
from bezant.perf.failover.settings import FailoverSettings
from bezant.protocol.errors import BezantError

FAULT_S_MAX: Final = 2.0
"""Seconds that a node of a group is away, at most, before it may go on; some less than an election, some more."""
SETTLE_S: Final = 0.2


def main() -> int:
    """Run one command line and return its exit status."""
    arguments = _parse()
    if arguments.replicas > 1:
        return _hit_groups(arguments)
    directory = Path(tempfile.mkdtemp(prefix="bezant-crash-", dir=arguments.directory))
    settings = RigSettings(directory=directory, kills=arguments.kills, seed=arguments.seed)
    try:
        with progress("killing nodes", total=settings.kills, unit="kills") as bar:
            rig = Rig(settings, on_progress=bar.advance)
            summary = run_async(rig.run())
    except BezantError as error:
        write_remark(f"the rig failed in round {rig.summary.rounds} of seed {settings.seed}: {describe(error)}")
        return STATUS_FAILED
    if summary.ok:
        shutil.rmtree(directory)
    if arguments.json:
        write_json({"ok": summary.ok, **msgspec.to_builtins(summary)})
    else:
        _tell(summary)
    return 0 if summary.ok else STATUS_FAILED


def _hit_groups(arguments: argparse.Namespace) -> int:
    """Hit the nodes of a group instead: any of them, in any way, several at once or all."""
    settings = FailoverSettings(
        trials=arguments.kills,
        fault="random",
        replicas=arguments.replicas,
        fault_s=FAULT_S_MAX,
        settle_s=SETTLE_S,
        seed=arguments.seed,
        directory=arguments.directory,
    )
    try:
        return run_failover(settings, as_json=arguments.json)
    except BezantError as error:
        write_remark(f"the rig failed with seed {settings.seed}: {describe(error)}")
        return STATUS_FAILED


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bezant.perf.crash",
        description="Kill nodes under load at random moments, and check after each that everything they had"
        " acknowledged is there, once and unchanged.",
    )
    parser.add_argument("--kills", metavar="N", type=positive_count, default=30, help="default: %(default)s")
    parser.add_argument("--seed", metavar="S", type=positive_count, default=1, help="default: %(default)s")
    parser.add_argument(
        "--replicas", metavar="N", type=positive_count, default=1, help="nodes of a group (default: %(default)s)"
    )
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the data goes (default: the system's)")
    add_json_argument(parser)
    return parser.parse_args()


def _tell(summary: Summary) -> None:
    write_line(
        f"{summary.kills} kills ({summary.kills_at_rotation} while a segment was made,"
        f" {summary.kills_at_checkpoint} while a checkpoint was, {summary.kills_in_start_up} in start-up) and"
        f" {summary.stops} clean stops in {summary.seconds:.0f} s, seed {summary.seed}"
    )
    write_line(
        f"{summary.acknowledged:,} commands acknowledged: {summary.missing} missing, {summary.repeated} repeated,"
        f" {summary.changed} changed, {summary.in_part} in part"
    )
    write_line(
        f"without an answer: {summary.found:,} there and whole, {summary.absent:,} absent and sent again;"
        f" {summary.torn_tails} torn tails ({summary.torn_bytes:,} bytes)"
    )
    write_line(
        f"{summary.events:,} events ({summary.expired:,} expiries) in {summary.segments} segments;"
        f" {summary.verified} times verified"
    )
    for fault in summary.faults:
        write_line(f"FAULT {fault}")
    if summary.faults:
        write_line(f"seed {summary.seed}, round {summary.rounds}; the folder is kept: {summary.folder}")


if __name__ == "__main__":
    sys.exit(main())
