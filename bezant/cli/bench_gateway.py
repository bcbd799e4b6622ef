"""`bezant bench gateway`: durable transfers by HTTP, over empty answers of the same framework."""

import argparse
from pathlib import Path

from bezant.cli.output import write_json, write_remark, write_table
from bezant.cli.session import add_json_argument, positive_count, positive_seconds


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant bench gateway`."""
    parser = kinds.add_parser(
        "gateway",
        help="transfers by HTTP, and beside them empty answers of the same framework",
        description="Start a node, a gateway and an empty answer of its framework, and load the two with wrk in turns.",
    )
    for name, default, meaning in (
        ("--connections", 64, "connections of wrk"),
        ("--rounds", 3, "loads of each, of which the medians count"),
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
    """Measure and tell; 1 if a request was not answered with success."""
    import msgspec

    from bezant.perf.gateway.measuring import GatewaySettings, measure_gateway

    given = {name: value for name, value in vars(arguments).items() if name in GatewaySettings.__struct_fields__}
    report = measure_gateway(GatewaySettings(**given), (lambda _: None) if arguments.json else write_remark)
    if arguments.json:
        write_json(msgspec.to_builtins(report))
    else:
        write_table(["what", "measured", "target"], report.rows())
    if report.failed:
        write_remark(f"bezant: {report.failed} requests failed")
    return 1 if report.failed else 0
