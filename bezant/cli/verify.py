"""`bezant verify`: the whole history once more through the kernel, every byte compared."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bezant.cli.output import write_json, write_line
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, check_data_folder

if TYPE_CHECKING:
    from bezant.engine.verify import VerifyReport


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant verify`."""
    parser = subparsers.add_parser(
        "verify",
        description="Rebuild every command from its event, execute the history from the start, and compare every byte:"
        " checksums, hash chain, balances, back-pointers, and the checkpoints made of it. Changes nothing. The node"
        " must be stopped.",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder")
    add_json_argument(parser)


def _parts(report: "VerifyReport") -> str:
    return f", {report.parts} parts, {report.processes} at a time" if report.parts > 1 else ""


def run(arguments: argparse.Namespace) -> int:
    """Verify the folder; 0 if every byte is as the rules make it. `CorruptLog` says what is not."""
    from bezant.engine.verify import verify

    check_data_folder(arguments.data)
    with progress("verifying", total=0, unit="events") as bar:
        report = verify(arguments.data, bar.update)
    rate = round(report.events / report.seconds) if report.seconds else 0
    if arguments.json:
        write_json(
            {
                "ok": True,
                "events": report.events,
                "entries": report.entries,
                "accounts": report.accounts,
                "seconds": round(report.seconds, 3),
                "events_per_second": rate,
                "kernel_digest": report.kernel_digest,
                "log_id": report.log_id,
                "state_digest": report.state_digest,
                "chain_hash": report.chain_hash,
                "torn_bytes": report.torn_bytes,
                "checkpoints": report.checkpoints,
                "checkpoints_damaged": report.checkpoints_damaged,
                "parts": report.parts,
                "processes": report.processes,
                "doubt": report.doubt,
            }
        )
        return 0
    write_line(
        f"verified: {report.events:,} events in {report.entries:,} entries, {report.accounts:,} accounts,"
        f" in {report.seconds:.1f} s ({rate:,} events/s{_parts(report)}); every byte is as the rules make it"
    )
    if report.doubt:
        write_line(f"not in parts, from checkpoint to checkpoint, but in one go from the beginning: {report.doubt}")
    if report.torn_bytes:
        write_line(f"the last write before a crash was torn: {report.torn_bytes:,} bytes that were never acknowledged")
    for damage in report.checkpoints_damaged:
        write_line(f"a checkpoint is damaged, and a start passes over it, which costs it time alone: {damage}")
    for title, value in (
        ("log", report.log_id),
        ("chain hash", report.chain_hash),
        ("state digest", report.state_digest),
        ("kernel digest", report.kernel_digest),
        ("checkpoints", f"{report.checkpoints} as the history makes them"),
    ):
        write_line(f"{title:<14}{value}")
    return 0
