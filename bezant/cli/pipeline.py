"""Keeps a bounded number of batches in flight on one wallet, and hands their answers back in the order of sending."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from bezant.protocol.records import Records


class Submitter(Protocol):
    """The part of a `bezant.Wallet` that a pipeline needs."""

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute commands in order and return their results."""


class HasCommands(Protocol):
    """What is sent: an array of commands, and whatever the sender wants to find beside its answer."""

    @property
    def commands(self) -> Records:
        """At most BATCH_COUNT_MAX commands, so that they travel in one frame."""


_Batch = TypeVar("_Batch", bound=HasCommands)


class Pipeline(Generic[_Batch]):
    """Batches in flight, oldest first. As a context manager it leaves no task running, whatever ends the block.

    A node executes the frames of one connection in the order in which they were sent, so batches may build on the ones
    before them.
    """

    def __init__(self, wallet: Submitter, in_flight_max: int, timeout_s: float | None = None) -> None:
        """At most `in_flight_max` batches are unanswered; each must be answered within `timeout_s` of being sent."""
        self._wallet = wallet
        self._in_flight_max = in_flight_max
        self._timeout_s = timeout_s
        self._in_flight: deque[tuple[_Batch, asyncio.Task[Records]]] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = [task for _, task in self._in_flight]
        self._in_flight.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        """How many batches are unanswered, or answered and not taken."""
        return len(self._in_flight)

    @property
    def is_full(self) -> bool:
        """Whether an answer must be taken before the next batch is sent."""
        return len(self._in_flight) >= self._in_flight_max

    @property
    def oldest(self) -> _Batch:
        """The batch whose answer `take` waits for."""
        return self._in_flight[0][0]

    async def send(self, batch: _Batch) -> None:
        """Send a batch. The caller takes answers while the pipeline is full."""
        if self.is_full:
            raise RuntimeError(f"{self._in_flight_max} batches are in flight already")
        task = asyncio.create_task(self._wallet.submit(batch.commands, self._timeout_s))
        self._in_flight.append((batch, task))
        # The task's first step sends the frame; without this it would wait until the caller has made its next batch.
        await asyncio.sleep(0)

    async def take(self) -> tuple[_Batch, Records]:
        """Wait for the answer to the oldest batch and remove it. Raises what `submit` raised for it."""
        batch, task = self._in_flight[0]
        try:
            return batch, await task
        finally:
            if task.done():
                self._in_flight.popleft()

    async def stream(self, batches: Iterable[_Batch]) -> AsyncIterator[tuple[_Batch, Records]]:
        """Send all batches and yield each with its answer, in order.

        Batches are asked for only as answers are read.
        """
        remaining = iter(batches)
        while True:
            # Answers come before the next batch is asked for, so that the caller can end `batches` because of one.
            while self.is_full:
                yield await self.take()
            batch = next(remaining, None)
            if batch is None:
                break
            await self.send(batch)
        while self._in_flight:
            yield await self.take()
