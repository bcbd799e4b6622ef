"""How commands reach a ledger: a running node with ``--connect``, a stopped one's folder with ``--data``.

Both give the same `bezant.Wallet`, so a command is written once.
"""

import argparse
import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bezant.cli.errors import CommandFailed, InputWrong, LedgerInUse
from bezant.cli.output import write_remark
from bezant.protocol.errors import DataFolderInUse

if TYPE_CHECKING:
    import bezant

DEFAULT_ADDRESS: Final = "127.0.0.1:7420"
DEFAULT_TIMEOUT_S: Final = 10.0
READER_S_MAX: Final = 120.0
"""Seconds that a reader which is being started is waited for, unless another time is asked for."""
READER_PAUSE_S: Final = 0.2
"""Seconds between two looks whether it is there."""

_Value = TypeVar("_Value")


def add_ledger_arguments(parser: argparse.ArgumentParser, *, folders_help: str = "") -> None:
    """Add the choice between a running node and the folder of a stopped one; or several folders, if help says so."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="the node to ask, or some nodes of a group, whose leader is asked (default: %(default)s)",
    )
    if folders_help:
        group.add_argument("--data", metavar="DIR", type=Path, action="append", help=folders_help)
    else:
        group.add_argument("--data", metavar="DIR", type=Path, help="the data folder of a node that is not running")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for a connection and for each answer (default: %(default)s)",
    )


def ledger_words(arguments: argparse.Namespace) -> list[str]:
    """The words of the command line that lead to the same ledger again; none if that is where they lead anyway."""
    if arguments.data is not None:
        return ["--data", str(arguments.data)]
    return ["--connect", arguments.connect] if arguments.connect != DEFAULT_ADDRESS else []


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of text")


def address(text: str) -> str:
    """Check that an argument looks like HOST:PORT; for argparse, which reports the error."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"an address is written like {DEFAULT_ADDRESS}, not {text!r}")
    return text


def addresses(text: str) -> str:
    """Check that an argument looks like HOST:PORT,HOST:PORT; for argparse, which reports the error."""
    return ",".join(address(one.strip()) for one in text.split(","))


def placement(text: str) -> list[str]:
    """Read where slot maps are kept, HOST:PORT,... or zookeeper://HOST:PORT,.../PATH; for argparse."""
    from bezant.net.placement.store import parse_places
    from bezant.protocol.errors import UsageError

    try:
        return parse_places(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive_seconds(text: str) -> float:
    """Read a finite number of seconds above zero; for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds above zero is needed, not {text!r}")
    return seconds


def positive_count(text: str) -> int:
    """Read a whole number above zero, of at most twelve digits; for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number above zero is needed, not {text!r}")
    return int(text)


@asynccontextmanager
async def open_wallet(arguments: argparse.Namespace) -> "AsyncIterator[bezant.Wallet]":
    """The wallet that the arguments of `add_ledger_arguments` name. Raises `BezantError` if it cannot be had."""
    import bezant

    if arguments.data is not None:
        check_data_folder(arguments.data)
        async with _opened(arguments.data) as wallet:
            yield wallet
    else:
        async with bezant.connect(arguments.connect, timeout_s=arguments.timeout_s) as wallet:
            yield wallet


@asynccontextmanager
async def open_history(arguments: argparse.Namespace) -> "AsyncIterator[bezant.Wallet]":
    """The same, for questions about the past: what answers them is made ready first, or waited for, in sight."""
    from bezant.cli.progress import progress

    async with open_wallet(arguments) as wallet:
        if arguments.data is not None:
            from bezant.net.embedded import EngineChannel

            if isinstance(wallet.channel, EngineChannel):
                with progress("reading history", total=1, unit="events") as bar:
                    await wallet.channel.prepare_history(bar.update)
        else:
            await _await_readers(wallet, arguments.timeout_s)
        yield wallet


async def _await_readers(wallet: "bezant.Wallet", timeout_s: float) -> None:
    """Return when the readers of the ledger answer, which start with their nodes and are ready somewhat later.

    Raises `CommandFailed` if one does not for READER_S_MAX, or for as long as was asked for.
    """
    from bezant.net.client.sharding_readers import find_silent_reader

    within_s = READER_S_MAX if timeout_s == DEFAULT_TIMEOUT_S else timeout_s
    deadline_s = time.monotonic() + within_s
    has_told = False
    while silent := await find_silent_reader(wallet.channel, min(within_s, DEFAULT_TIMEOUT_S)):
        if time.monotonic() > deadline_s:
            raise CommandFailed(
                f"the reader at {silent}, which answers questions about the past, did not come within {within_s:g} s",
                "see the log of its node; it may need longer for a long history: --timeout SECONDS",
            )
        if not has_told:
            write_remark(f"bezant: waiting for the reader at {silent}, which starts with its node")
        has_told = True
        await asyncio.sleep(READER_PAUSE_S)


@asynccontextmanager
async def _opened(data: Path) -> "AsyncIterator[bezant.Wallet]":
    """The wallet in a folder. Raises `LedgerInUse`, which can say what `bezant.open` does not know."""
    import bezant

    try:
        wallet = await bezant.open(data)
    except DataFolderInUse as error:
        raise LedgerInUse(str(error), "stop that process or, if it is a node, ask it with --connect") from error
    async with wallet:
        yield wallet


def check_data_folder(data: Path) -> None:
    """Raise `InputWrong` unless there is a ledger: `bezant.open` would make one, and a mistyped path must not."""
    from bezant.engine.node_file import shard_of_folder
    from bezant.engine.replica import shard_directory

    if not shard_directory(data, shard_of_folder(data)).path.is_dir():
        raise InputWrong(f"there is no ledger at {data}", "make one by running a node: bezant serve --data DIR")


def run_async(main: Coroutine[Any, Any, _Value]) -> _Value:
    """Run a command's coroutine on uvloop; Ctrl-C cancels it and becomes KeyboardInterrupt."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
