"""Three scripted nodes that keep one ledger between them, and the test says who leads and who believes what."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np

from bezant.net.client.connection import TcpChannel
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import COMMAND, RESULT, Records

from .scripted import WAIT_S, WELCOME, ScriptedServer, Seen, say_nothing

REQUESTS = [operation for operation in Operation if operation not in (Operation.HELLO, Operation.ERROR)]


class Group:
    """Executes each command once, whichever node is asked; a node that does not lead refuses, for good, a connection.

    ``executed`` are the first words of the ids in the order of their first execution.
    """

    def __init__(self, size: int = 3) -> None:
        self.nodes = [ScriptedServer() for _ in range(size)]
        self.executed: list[int] = []
        self.leader: int | None = None
        self._refused: set[tuple[int, int]] = set()  # (node, connection): what was refused once stays refused

    async def start(self) -> None:
        for number, node in enumerate(self.nodes):
            await node.start()
            for operation in REQUESTS:
                node.handlers[operation] = self._handler(number)
        self.lead(0)

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    @property
    def text(self) -> str:
        return ",".join(self.addresses)

    def lead(self, leader: int | None) -> None:
        """Make a node the leader, or none, and let all know it."""
        self.leader = leader
        self.believe([leader] * len(self.nodes))

    def believe(self, leaders: Sequence[int | None]) -> None:
        """Let each node say who leads, true or not."""
        for number, (node, leader) in enumerate(zip(self.nodes, leaders, strict=True), 1):
            named = "" if leader is None else self.addresses[leader]
            node.welcome = msgspec.structs.replace(WELCOME, node_id=number, leader=named, members=self.addresses)

    def silence(self, number: int) -> None:
        """Let a node take everything in and say nothing from now on."""
        for operation in Operation:
            self.nodes[number].handlers[operation] = say_nothing

    def execute(self, commands: Records) -> bytes:
        results = np.zeros(len(commands), RESULT)
        for result, identifier in zip(results, commands["id_head"].tolist(), strict=True):
            if identifier in self.executed:
                result["flags"] = ResultFlag.REPEATED
            else:
                self.executed.append(identifier)
            result["position"] = self.executed.index(identifier) + 1
        return results.tobytes()

    def _handler(self, number: int) -> Callable[[Seen], Awaitable[None]]:
        async def handle(seen: Seen) -> None:
            await self.handle(number, seen)

        return handle

    async def handle(self, number: int, seen: Seen) -> None:
        """Answer as node `number`."""
        node = self.nodes[number]
        if self.refuses(number, seen):
            await seen.peer.refuse(seen, FrameError.NOT_LEADER, leader=node.welcome.leader)
        elif seen.header.operation == Operation.COMMANDS:
            await seen.peer.reply(seen, self.execute(seen.commands))
        else:
            await node.answer(seen)

    def refuses(self, number: int, seen: Seen) -> bool:
        """Whether node `number` does not lead, or did not when something came on the same connection before."""
        if number != self.leader:
            self._refused.add((number, seen.peer.number))
        return (number, seen.peer.number) in self._refused

    def greeted(self, number: int) -> int:
        """How often a node was asked for its welcome."""
        return len(self.nodes[number].frames(Operation.HELLO))

    def frames(self, number: int) -> list[int]:
        """The first command of each frame of commands that a node got."""
        return [int(seen.commands["id_head"][0]) for seen in self.nodes[number].frames(Operation.COMMANDS)]


class Hold:
    """A handler that keeps what it gets until it is released, and then hands it on in order."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.arrived = asyncio.Event()

    async def __call__(self, seen: Seen) -> None:
        self.seen.append(seen)
        self.arrived.set()


Opener = Callable[..., Awaitable[TcpChannel]]
"""Opens a channel, by default to all nodes of the group in order, that is closed after the test."""


def command(number: int, count: int = 1) -> Records:
    commands = np.zeros(count, COMMAND)
    commands["id_head"] = np.arange(number, number + count)
    return commands


def submit_each(channel: TcpChannel, numbers: range, timeout_s: float = WAIT_S) -> list["asyncio.Task[Records]"]:
    """One frame for each, all at once."""
    return [asyncio.ensure_future(channel.submit(command(number), timeout_s)) for number in numbers]
