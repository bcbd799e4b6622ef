"""`bezant bench`: measures a node under load, from another process; perf/README.md says what the figures mean."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Final, NoReturn, cast

from bezant.cli import bench_compare, bench_gateway, bench_history, bench_push
from bezant.cli.output import write_json, write_remark
from bezant.cli.progress import Bar, progress
from bezant.cli.session import add_json_argument, address, addresses, positive_seconds

if TYPE_CHECKING:
    from bezant.perf.load.report import Report
    from bezant.perf.load.session import Settings

_OTHERS: Final[dict[str, ModuleType]] = {
    "push": bench_push,
    "gateway": bench_gateway,
    "compare": bench_compare,
    "history": bench_history,
}
"""Measurements that have a module of their own."""
_WIDTH_MAX = 500
_STATUS_TERMINATED = 128 + signal.SIGTERM


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant bench`."""
    parser = subparsers.add_parser(
        "bench",
        description="Measure a node under load. Starts one on a temporary folder unless it gets the address of one.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    _add_transfers(kinds)
    _add_sdk(kinds)
    _add_failover(kinds)
    bench_history.add_parser(kinds)
    bench_push.add_parser(kinds)
    bench_gateway.add_parser(kinds)
    bench_compare.add_parser(kinds)


def _add_transfers(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "transfers between random accounts, in frames, over any number of connections"
    parser = kinds.add_parser("transfers", help=summary, description=summary.capitalize() + ".")
    _add_number(parser, "--accounts", 10_000, "accounts to move money between")
    _add_number(parser, "--transfers", 1_000_000, "transfers in all")
    _add_number(parser, "--batch", 8189, "transfers in one frame")
    parser.add_argument(
        "--load",
        choices=("plain", "mixed"),
        default="plain",
        help="transfers alone, or of a hundred commands ten holds, ten captures, ten in chains of four and two that "
        "must be refused (default: %(default)s)",
    )
    parser.add_argument(
        "--zipf",
        metavar="EXPONENT",
        type=float,
        help="choose accounts by Zipf's law (default: 1.1 with --load mixed, else 0, which gives all the same chance)",
    )
    _add_number(parser, "--clients", 1, "connections")
    _add_number(parser, "--inflight", 1, "frames of one connection that wait for their reply")
    parser.add_argument(
        "--ids",
        choices=("time", "random"),
        default="time",
        help="ids of transfers: rising with time, as the SDK's, or 128 random bits (default: %(default)s)",
    )
    _add_number(parser, "--shards", 1, "shards to start, of --replicas nodes each, which all get the same load")
    parser.add_argument(
        "--loaded-shards",
        metavar="N",
        type=int,
        help="with --shards: how many of them get the load (default: all); with 1, and one frame in flight, a latency "
        "is that of a transfer that nothing else is under way beside",
    )
    parser.add_argument(
        "--cross",
        metavar="SHARE",
        type=float,
        default=0.0,
        help="with --shards: the share of transfers, 0 to 1, that pay into an account of another shard (default: 0)",
    )
    _add_number(parser, "--ids-before", 0, "transfers with random ids to make first, at full speed and not measured")
    _add_common(parser)


def _add_sdk(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "concurrent awaits of wallet.transfer in one process, through the SDK"
    parser = kinds.add_parser("sdk", help=summary, description=summary.capitalize() + ".")
    _add_number(parser, "--concurrency", 1000, "transfers that are awaited at the same time")
    _add_number(parser, "--transfers", 200_000, "transfers in all")
    _add_number(parser, "--accounts", 10_000, "accounts to move money between")
    _add_common(parser)


def _add_failover(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "the leader of a group of nodes is killed under load, again and again: how long is nobody answered"
    parser = kinds.add_parser(
        "failover",
        help=summary,
        description="Start a group of nodes, ask for transfers at a steady rate, and hit the leader again and again:"
        " how long nobody is answered. Afterwards the logs of all nodes are held against every answer.",
    )
    _add_number(parser, "--trials", 30, "faults, one after the other")
    parser.add_argument(
        "--fault",
        choices=("kill", "stop", "blackhole", "disk", "restart", "random"),
        default="kill",
        help="SIGKILL; SIGSTOP and SIGCONT; nothing reaches or leaves it; its disk stops; every node in turn is stopped"
        " with SIGTERM and started; any of these to any node (default: %(default)s)",
    )
    _add_number(parser, "--replicas", 3, "nodes")
    _add_number(parser, "--rate", 2000, "requests a second, of one transfer each")
    _add_number(parser, "--clients", 4, "wallets, each with a connection of its own")
    _add_number(parser, "--accounts", 1000, "accounts to move money between")
    _add_seconds(parser, "--deadline", 5.0, "that a client waits for an answer")
    _add_seconds(parser, "--fault-time", 2.0, "from the fault until the node may go on", dest="fault_s")
    _add_seconds(parser, "--settle", 1.0, "of peace before each fault")
    parser.add_argument("--minutes", metavar="M", type=float, help="instead of --trials: a fault every so often")
    _add_seconds(parser, "--every", None, "with --minutes: between two faults, 60 unless given")
    _add_number(parser, "--seed", 1, "of the random numbers")
    parser.add_argument("--directory", metavar="DIR", type=Path, help="where the temporary folder goes")
    add_json_argument(parser)


def _add_seconds(
    parser: argparse.ArgumentParser, name: str, default: float | None, meaning: str, dest: str | None = None
) -> None:
    words = f"seconds {meaning}" + (" (default: %(default)s)" if default is not None else "")
    dest = dest or f"{name.removeprefix('--')}_s"
    parser.add_argument(name, metavar="S", dest=dest, type=positive_seconds, default=default, help=words)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        help="of the random numbers (default: the same in every run, or a new one with --connect)",
    )
    parser.add_argument(
        "--replicas", metavar="N", type=int, default=1, help="nodes to start, as one group (default: %(default)s)"
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        help="a node that runs already, or nodes of a group, whose leader is then loaded",
    )
    parser.add_argument("--echo", metavar="HOST:PORT", type=address, help="with --connect: the node's echo listener")
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        help="where the temporary folder goes; with --connect, a folder on the disk of that node's data",
    )
    add_json_argument(parser)


def _add_number(parser: argparse.ArgumentParser, name: str, default: int, meaning: str) -> None:
    parser.add_argument(name, metavar="N", type=int, default=default, help=f"{meaning} (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the report, and fail if the books contradict the answers."""
    if arguments.kind == "failover":
        from bezant.cli.bench_failover import run_arguments

        with _stopping_on_sigterm():
            return run_arguments(arguments)
    if arguments.kind in _OTHERS:
        with _stopping_on_sigterm():
            return cast(int, _OTHERS[arguments.kind].run_arguments(arguments))
    settings = _settings(arguments)
    with _stopping_on_sigterm():
        # Earlier ids may take minutes, which nobody should wait for without a sign of life; it goes to stderr.
        report = _measure(settings, quiet=arguments.json and not settings.ids_before)
    if arguments.json:
        write_json(report.as_json())
    else:
        _write_table(report)
    if report.books_fault:
        write_remark(f"bezant: the node's accounts contradict its answers: {report.books_fault}")
        return 1
    return 0


def _settings(arguments: argparse.Namespace) -> "Settings":
    from bezant.perf.load.session import Settings

    given = {name: value for name, value in vars(arguments).items() if name in Settings.__struct_fields__}
    return Settings(**given)


def _measure(settings: "Settings", *, quiet: bool) -> "Report":
    from bezant.perf.load.session import measure

    if quiet:
        return measure(settings, lambda _done: None)
    total = settings.ids_before + settings.transfers
    with progress("transfers", total=total, unit="transfers") as bar:
        return measure(settings, _follow(bar, total))


def _follow(bar: Bar, total: int) -> Callable[[int], None]:
    return lambda done: bar.update(done, total)


def _write_table(report: "Report") -> None:
    from rich.console import Console

    from bezant.perf.load.report import make_table

    # What is not a terminal has no width to fit into.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH_MAX).print(make_table(report))


@contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an ordinary exit while the block runs, so that no node or load is left behind."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(_STATUS_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
