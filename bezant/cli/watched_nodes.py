"""Nodes as child processes that are kept running: what ends is started again, within bounds."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from bezant.cli.errors import CommandFailed
from bezant.cli.node_process import NodeProcess, ProcessFailed
from bezant.cli.output import write_at_once
from bezant.net.logs import about

RESTARTS_MAX: Final = 5
"""Starts of one node again within RESTART_WINDOW_S; then it is left alone."""
RESTART_WINDOW_S: Final = 60.0
RESTART_DELAY_S: Final = 0.5
"""Before the first start again; twice as long before each further one within the window."""
WATCH_POLL_S: Final = 0.05

_log = logging.getLogger("bezant")

Say = Callable[[str, dict[str, Any]], None]
"""Told what happens: in words, and as fields of which ``event`` names it."""


class WatchedNodes:
    """See the module. Used from one event loop.

    ``nodes``: the processes, by number.
    """

    def __init__(self, nodes: dict[int, NodeProcess], say: Say, fields: Mapping[str, Any]) -> None:
        """`fields` are told with each event."""
        self.nodes = nodes
        self._say = say
        self._common_fields = dict(fields)
        self._restarts: dict[int, deque[float]] = {number: deque(maxlen=RESTARTS_MAX) for number in nodes}
        self._due_s: dict[int, float] = {}
        self._left_alone: set[int] = set()

    async def _start_all(self, told: Callable[[int, NodeProcess], str], *, one_first: bool) -> None:
        """Start all, and return when they listen; `told` says of each what is told. Raises `ProcessFailed`.

        With `one_first` the others are started when the first listens, and find the kernels that it has compiled.
        """
        for node in self.nodes.values():
            node.start()
            if one_first:
                await node.ready()
                one_first = False
        for number, node in self.nodes.items():
            await node.ready()
            fields = self._fields("node", number) | {"address": node.address, "process_id": node.process_id}
            self._say(told(number, node), fields)

    async def _stop_in_order(self, groups: Sequence[Sequence[NodeProcess]]) -> None:
        """Stop the nodes of a group at once, one group after the other. Raises `ProcessFailed` when all have ended."""
        failures: list[ProcessFailed] = []
        for group in groups:
            for node in group:
                node.ask_to_stop()
            for node in group:
                try:
                    await node.stopped()
                except ProcessFailed as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _fields(self, event: str, number: int) -> dict[str, Any]:
        return {"event": event, "node": number} | self._common_fields

    async def watch(self, stopping: asyncio.Event) -> None:
        """Start nodes again that end, until told to stop. Raises `CommandFailed` when all are left alone."""
        while not stopping.is_set():
            for number, node in self.nodes.items():
                if number not in self._left_alone and node.ended:
                    self._on_ended(number, node)
            if len(self._left_alone) == len(self.nodes):
                raise CommandFailed("no node can be kept running", "see what they wrote, beside their data folders")
            await asyncio.sleep(WATCH_POLL_S)

    def _on_ended(self, number: int, node: NodeProcess) -> None:
        """Say so, and start the node again when it is due."""
        now_s, restarts = time.monotonic(), self._restarts[number]
        due_s = self._due_s.get(number)
        if due_s is None:
            while restarts and restarts[0] < now_s - RESTART_WINDOW_S:
                restarts.popleft()
            status, words = node.status, node.describe_end()
            fields = self._fields("ended", number) | {"status": status}
            if len(restarts) == RESTARTS_MAX:
                self._left_alone.add(number)
                within = f"{RESTARTS_MAX} times within {RESTART_WINDOW_S:g} s"
                self._say(f"{words}; it was started again {within}, and is left alone", fields | {"again": False})
                return
            self._say(f"{words}; it is started again", fields | {"again": True})
            self._due_s[number] = now_s + RESTART_DELAY_S * 2 ** len(restarts)
        elif now_s >= due_s:
            del self._due_s[number]
            restarts.append(now_s)
            node.start()
            self._say(
                f"{node.name} is started again, process {node.process_id}",
                self._fields("started", number) | {"process_id": node.process_id},
            )

    def end(self) -> None:
        """Leave nothing running; safe to repeat."""
        with ExitStack() as closing:
            for node in self.nodes.values():
                closing.callback(node.end)


async def done_before(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; false if it was left because of the event."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        return working.done()
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.wait((working, waiting))


def tell_remark(words: str) -> None:
    """Write something to know that is not the result, as this process writes its log."""
    _log.warning("%s", words)


def say_plainly(words: str, fields: dict[str, Any]) -> None:
    """Results to stdout, the rest to stderr."""
    if fields["event"] in {"node", "ready"}:
        write_at_once(words)
    else:
        _log.warning("bezant: %s", words, extra=about(**fields))
