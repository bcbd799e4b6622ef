"""`bezant bench compare`: Bezant beside wallets on PostgreSQL and Redis, all measured in one run on one machine."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.progress import progress
from bezant.cli.session import add_json_argument, positive_count, positive_seconds

if TYPE_CHECKING:
    from bezant.perf.peers.plan import PeerKind

_PEERS: Final[tuple["PeerKind", ...]] = ("bezant", "postgres", "postgres-2pc", "redis", "redis-sharded")


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant bench compare`."""
    parser = kinds.add_parser(
        "compare",
        help="Bezant beside wallets on PostgreSQL and Redis, with their books after a kill",
        description="Start real servers on loopback in a temporary folder, one peer after the other: PostgreSQL, two"
        " PostgreSQL with two-phase commit, Redis, two Redis without it. Move money on each, kill it under load, start"
        " it again and add up the balances. Servers that are not installed are fetched from Debian's packages.",
    )
    parser.add_argument(
        "--peers",
        metavar="NAME,...",
        type=_peers,
        default=list(_PEERS),
        help=f"which of {','.join(_PEERS)} (default: all)",
    )
    parser.add_argument(
        "--seconds", metavar="S", type=positive_seconds, default=3.0, help="of each load (default: %(default)s)"
    )
    for name, default, meaning in (
        ("--clients", 16, "connections, where there are several"),
        ("--pipeline", 16, "transfers in flight on one connection, where clients do so"),
        ("--accounts", 10_000, "accounts to move money between"),
        ("--seed", 1, "of the random numbers"),
    ):
        parser.add_argument(
            name, metavar="N", type=positive_count, default=default, help=f"{meaning} (default: %(default)s)"
        )
    parser.add_argument(
        "--cross", metavar="SHARE", type=float, default=1.0, help="of transfers between two servers, 0 to 1"
    )
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="draw the speeds, too")
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the temporary folder goes")
    add_json_argument(parser)


def _peers(text: str) -> list["PeerKind"]:
    """Read a list of peers; for argparse, which reports the error."""
    asked = {name.strip() for name in text.split(",")}
    unknown = asked - set(_PEERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"the peers are {', '.join(_PEERS)}, not {', '.join(sorted(unknown))}")
    return [name for name in _PEERS if name in asked]


def run_arguments(arguments: argparse.Namespace) -> int:
    """Measure and tell; 1 if a peer broke what it promises, or none could be had."""
    from bezant.perf.peers.comparing import compare
    from bezant.perf.peers.plan import ComparisonSettings
    from bezant.perf.peers.plot import draw
    from bezant.perf.peers.report import HEADINGS, NUMBERS

    given = {name: value for name, value in vars(arguments).items() if name in ComparisonSettings.__struct_fields__}
    with progress("comparing", total=1, unit="loads") as bar:
        comparison = compare(ComparisonSettings(**given), write_remark, bar.update)
    if arguments.json:
        write_json(comparison.as_json())
    else:
        write_table(HEADINGS, comparison.rows(), right=NUMBERS)
        write_line()
        for remark in comparison.remarks():
            write_line(remark)
    if arguments.plot is not None:
        arguments.plot.write_text(draw(comparison), encoding="utf-8")
    for fault in comparison.faults:
        write_remark(f"bezant: {fault}")
    return 1 if comparison.faults or not any(peer.measured for peer in comparison.peers) else 0
