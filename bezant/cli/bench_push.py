"""`bezant bench push`: how soon subscribers are told, whether they are told everything, and what that costs."""

import argparse
from pathlib import Path

from bezant.cli.output import write_json, write_remark, write_table
from bezant.cli.session import add_json_argument, positive_count, positive_seconds


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant bench push`."""
    parser = kinds.add_parser(
        "push",
        help="subscribers: how soon they are told, whether of everything, and what it costs",
        description="Start nodes on temporary folders, move money between accounts, and let each account be subscribed"
        " to; once without a reader, once with one.",
    )
    for name, default, meaning in (
        ("--subscribers", 1000, "subscribers, each to its own account"),
        ("--rate", 50_000, "transfers a second, with and without subscribers"),
        ("--latency-rate", 1000, "transfers a second with one subscriber"),
        ("--latency-transfers", 5000, "transfers with one subscriber"),
        ("--seed", 1, "of the random numbers"),
    ):
        parser.add_argument(
            name, metavar="N", type=positive_count, default=default, help=f"{meaning} (default: %(default)s)"
        )
    parser.add_argument(
        "--seconds", metavar="S", type=positive_seconds, default=5.0, help="of each load (default: %(default)s)"
    )
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the temporary folder goes")
    add_json_argument(parser)


def run_arguments(arguments: argparse.Namespace) -> int:
    """Measure and tell; 1 if an event was missed, repeated or out of order."""
    import msgspec

    from bezant.perf.push.measuring import PushSettings, measure_push

    given = {name: value for name, value in vars(arguments).items() if name in PushSettings.__struct_fields__}
    report = measure_push(PushSettings(**given), (lambda _: None) if arguments.json else write_remark)
    if arguments.json:
        write_json(msgspec.to_builtins(report))
    else:
        write_table(["what", "measured", "target"], report.rows())
    for fault in report.faults:
        write_remark(f"bezant: {fault}")
    return 1 if report.faults else 0
