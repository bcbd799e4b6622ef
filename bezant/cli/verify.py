"""`bezant verify`: the whole history once more through the kernel, every byte compared; of shards also what lies
between them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_line
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument

if TYPE_CHECKING:
    from bezant.engine.verify import VerifyReport
    from bezant.engine.verifying.over_shards import ShardsReport


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant verify`."""
    parser = subparsers.add_parser(
        "verify",
        description="Rebuild every command from its event, execute the history from the start, and compare every byte:"
        " checksums, hash chain, balances, back-pointers, and the checkpoints made of it. Of all shards together also"
        " prove that what left one came in to another, or is on its way. Changes nothing. The nodes must be stopped.",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        required=True,
        action="append",
        help="the data folder; of shards the folder of `bezant cluster --shards`, or the data folder of one node of"
        " each, with --data before each",
    )
    add_json_argument(parser)


def _parts(report: "VerifyReport") -> str:
    return f", {report.parts} parts, {report.processes} at a time" if report.parts > 1 else ""


def run(arguments: argparse.Namespace) -> int:
    """Verify the folders; 0 if every byte is as the rules make it. `CorruptLog` says what is not."""
    from bezant.cli.local_shards import data_folders

    folders = data_folders(arguments.data)
    reports = [_verify(folder) for folder in folders]
    over = _verify_over_shards(folders, reports) if len(folders) > 1 else None
    if arguments.json:
        told = [_fields(report) for report in reports]
        if over is None:
            write_json({"ok": True, **told[0]})
        else:
            named = [{"data": str(folder), **fields} for folder, fields in zip(folders, told, strict=True)]
            write_json({"ok": True, "folders": named, "across": _fields_over(over)})
        return 0
    for folder, report in zip(folders, reports, strict=True):
        if over is not None:
            write_line(f"{folder}:")
        _write(report)
    if over is not None:
        _write_over(over)
    return 0


def _verify(folder: Path) -> "VerifyReport":
    from bezant.engine.verify import verify

    with progress("verifying", total=0, unit="events") as bar:
        return verify(folder, bar.update)


def _verify_over_shards(folders: Sequence[Path], reports: Sequence["VerifyReport"]) -> "ShardsReport":
    """What lies between shards, by that node of each whose log is the longest."""
    from bezant.engine.node_file import shard_of_folder
    from bezant.engine.verifying.over_shards import verify_over_shards

    longest: dict[int, tuple[VerifyReport, Path]] = {}
    for folder, report in zip(folders, reports, strict=True):
        shard = shard_of_folder(folder)
        known, other = longest.setdefault(shard, (report, folder))
        if known.log_id != report.log_id:
            raise InputWrong(f"{other} and {folder} both say that they are of shard {shard}, and have different logs")
        if known.entries < report.entries:
            longest[shard] = (report, folder)
    return verify_over_shards({shard: folder for shard, (_, folder) in longest.items()})


def _rate(report: "VerifyReport") -> int:
    return round(report.events / report.seconds) if report.seconds else 0


def _fields(report: "VerifyReport") -> dict[str, Any]:
    return {
        "events": report.events,
        "entries": report.entries,
        "accounts": report.accounts,
        "seconds": round(report.seconds, 3),
        "events_per_second": _rate(report),
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


def _fields_over(over: "ShardsReport") -> dict[str, Any]:
    told = over._asdict()
    told["in_flight"] = [flight._asdict() for flight in over.in_flight]
    return told


def _write(report: "VerifyReport") -> None:
    write_line(
        f"verified: {report.events:,} events in {report.entries:,} entries, {report.accounts:,} accounts,"
        f" in {report.seconds:.1f} s ({_rate(report):,} events/s{_parts(report)}); every byte is as the rules make it"
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


def _write_over(over: "ShardsReport") -> None:
    flights = ", ".join(f"{flight.amount} {flight.currency}" for flight in over.in_flight if flight.amount)
    write_line(
        f"between the shards {', '.join(map(str, over.shards))}: {over.transfers:,} transfers, {over.confirmed:,} of"
        f" them confirmed, {over.cancelled:,} cancelled, {over.open:,} not decided; what left one shard came in to"
        f" another, or is in flight: {flights + ' (minor units)' if flights else 'nothing'}"
    )
    if over.parts:
        write_line(f"of transactions of several legs: {over.parts:,} halves, which add up")
    if over.orphans:
        write_line(f"left by coordinators that were lost, and without effect: {over.orphans:,}")
