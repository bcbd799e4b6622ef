"""`bezant top`: how all nodes of a ledger are, live in the terminal, or a line of JSON each second for programs."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bezant.cli.output import write_at_once
from bezant.cli.session import DEFAULT_ADDRESS, addresses, positive_seconds, run_async

if TYPE_CHECKING:
    from bezant.net.client.watching import ClusterWatch, Look
    from bezant.net.gateway.cluster_bodies import ClusterBody

PERIOD_S_DEFAULT: Final = 1.0
LOOK_S_MAX: Final = 2.0
"""Seconds that a node has to answer."""
WIDTH_OF_A_FILE: Final = 200
_QUIT_KEYS: Final = frozenset(b"qQ")
_KEYS_READ_MAX: Final = 64


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant top`."""
    parser = subparsers.add_parser(
        "top",
        description="Show how every node of a ledger is, all shards, until q or Ctrl-C: how much is done, how long it"
        " takes, who leads, who is behind, what waits. Nodes that go away are shown as such until they are back.",
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="a node, or some nodes; the others are found by themselves (default: %(default)s)",
    )
    parser.add_argument(
        "--period",
        metavar="SECONDS",
        dest="period_s",
        type=positive_seconds,
        default=PERIOD_S_DEFAULT,
        help="between two looks (default: 1)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each look, as the gateway tells at /v1/cluster"
    )
    parser.add_argument("--once", action="store_true", help="look twice, print what is new between, and end")


def run(arguments: argparse.Namespace) -> int:
    """Look until told to stop."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.net.client.watching import ClusterWatch

    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    watch = ClusterWatch(arguments.connect)
    looks = Looks(watch, arguments.period_s, stopping)
    try:
        if arguments.json or arguments.once:
            await _print(looks, as_json=arguments.json, once=arguments.once)
        else:
            await _show(looks)
    finally:
        watch.close()
    return 0


class Looks:
    """One look after another, a period apart, until `stopping` is set."""

    def __init__(self, watch: "ClusterWatch", period_s: float, stopping: asyncio.Event) -> None:
        self.stopping = stopping
        self._watch = watch
        self._period_s = period_s
        self._before: dict[str, Look] = {}

    async def next(self) -> "ClusterBody | None":
        """How all is when the period has passed, or at once the first time; None when it is time to stop."""
        from bezant.net.gateway.cluster_bodies import cluster_body

        if self._before and await self._stops_within(self._period_s):
            return None
        looking = asyncio.create_task(self._watch.look(LOOK_S_MAX))
        stopped = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait((looking, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                return None
            looks = looking.result()
        finally:
            for task in (looking, stopped):
                task.cancel()
        body = cluster_body(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z", looks, self._before)
        self._before = {look.address: look for look in looks}
        return body

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return False
        return True


async def _print(looks: Looks, *, as_json: bool, once: bool) -> None:
    """A line of JSON for each look; with `once` the second look alone, as JSON or as tables."""
    import msgspec

    before = await looks.next() if once else None
    while (body := await looks.next()) is not None:
        if as_json:
            write_at_once(msgspec.json.encode(body).decode())
        else:
            from rich.console import Console

            from bezant.cli.top_view import View

            view = View()
            if before is not None:
                view.add(before)
            view.add(body)
            console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
            console.print(view.rendered(console.width))
        if once:
            return


async def _show(looks: Looks) -> None:
    """Tables in place of each other."""
    from rich.console import Console
    from rich.live import Live

    from bezant.cli.top_view import View

    view, console = View(), Console()
    with _keys(looks.stopping), Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while (body := await looks.next()) is not None:
            view.add(body)
            live.update(view.rendered(console.width), refresh=True)


@contextmanager
def _keys(stopping: asyncio.Event) -> Iterator[None]:
    """Have q stop it, if somebody is at a terminal, which is left as it was."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def on_key() -> None:
        if _QUIT_KEYS & set(os.read(descriptor, _KEYS_READ_MAX)):
            stopping.set()

    loop.add_reader(descriptor, on_key)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
