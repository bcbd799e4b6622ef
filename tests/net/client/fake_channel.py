"""A channel without a node: it keeps what was submitted, and answers when and as the test says."""

import asyncio

import numpy as np

from bezant.protocol.errors import UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import Welcome
from bezant.protocol.records import RESULT, Records

from .scripted import WELCOME


class FakeChannel:
    """Answers every frame at once with rows that number the commands, unless `answering` is clear.

    `outcomes` are taken in turn, one for each frame: an exception is raised, an array returned.
    """

    def __init__(self, welcome: Welcome = WELCOME) -> None:
        self.welcome = welcome
        self.frames: list[tuple[Records, float | None]] = []
        self.outcomes: list[Exception | Records | None] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.under_way = 0
        self.under_way_max = 0
        self.closed = False

    @property
    def counts(self) -> list[int]:
        """Commands in each frame."""
        return [len(commands) for commands, _ in self.frames]

    async def submit(self, commands: Records, timeout_s: float | None) -> Records:
        first = sum(self.counts)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        self.frames.append((commands, timeout_s))
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            await self.answering.wait()
        finally:
            self.under_way -= 1
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            return outcome
        results = np.zeros(len(commands), RESULT)
        results["position"] = np.arange(first + 1, first + 1 + len(commands))
        return results

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        raise UsageError(f"the fake channel does not answer {operation.name}, {body!r}, {timeout_s}")

    async def close(self) -> None:
        self.closed = True
