"""Turns concurrent awaits into frames: all commands of one turn of the event loop travel together.

Rules:

- Commands with the same timeout that are submitted in one turn share frames of up to COALESCED_COUNT_MAX, in order;
  other timeouts get frames of their own, so that the deadline on the frame is exact.
- One callback sends them at the end of the turn. There is no timer to wait for companions: under load the answers to
  one frame wake its callers together, and their next commands make the next frame.
- The commands of a chain lie side by side in one frame.
- At most COMMANDS_PENDING_MAX commands wait for answers, and what the last chain has over that; more wait for room,
  within their deadlines.
- A caller that stops waiting does not stop its command.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Final

import numpy as np

from bezant.net.client.channel import Channel, OutcomeUnknown, check_timeout
from bezant.net.client.results import RESULT_ROW, UNKNOWN_ROW, ResultRow
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.records import COMMAND, Records

COALESCED_COUNT_MAX: Final = 512
"""Commands in one frame. A frame could hold more, but then a thousand callers would be one frame that either this
process or the node works on; with several frames under way both do: 225,000 instead of 161,000 transfers a second."""

COMMANDS_PENDING_MAX: Final = 1 << 17
"""Commands of one wallet that wait for answers: 16 MB of records, and two seconds of them at the target rate."""


class _Batch:
    """Commands that will share a frame, and who waits for each."""

    __slots__ = ("commands", "timeout_s", "waiters")

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.commands: list[bytes] = []
        self.waiters: list[asyncio.Future[ResultRow]] = []


class Coalescer:
    """See the module. Used from one event loop."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._count_max = min(COALESCED_COUNT_MAX, channel.welcome.batch_count_max)
        self._loop = asyncio.get_running_loop()
        self._gathering: dict[float, _Batch] = {}
        self._is_flush_due = False
        self._sending: set[asyncio.Task[None]] = set()
        self._pending_count = 0
        self._wait_for_room: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def pending_count(self) -> int:
        """Commands that wait for their answers."""
        return self._pending_count

    def submit(self, command: bytes, timeout_s: float) -> Awaitable[ResultRow]:
        """Take one encoded command; await what is returned for its RESULT row, UNKNOWN_ROW if no answer came.

        Raises `UsageError` when closed. What is awaited raises what `Channel.submit` raises but `OutcomeUnknown`.
        """
        if self._pending_count >= COMMANDS_PENDING_MAX:
            return self._submit_when_room(command, timeout_s)
        batch = self._gathering.get(timeout_s)
        if batch is None:
            batch = self._begin(timeout_s)
        waiter: asyncio.Future[ResultRow] = self._loop.create_future()
        batch.commands.append(command)
        batch.waiters.append(waiter)
        self._pending_count += 1
        if len(batch.waiters) == self._count_max:
            del self._gathering[timeout_s]
            self._send(batch)
        return waiter

    def submit_chain(self, commands: Sequence[bytes], timeout_s: float) -> Awaitable[list[ResultRow]]:
        """Take the encoded commands of a chain; await what is returned for a RESULT row each, as from `submit`.

        Raises `UsageError` when closed, or if one frame cannot hold them.
        """
        if len(commands) > self._count_max:
            raise UsageError(f"the node takes chains of up to {self._count_max} commands, not {len(commands)}")
        if self._pending_count >= COMMANDS_PENDING_MAX:
            return self._submit_chain_when_room(commands, timeout_s)
        return asyncio.gather(*self._add_chain(commands, timeout_s))

    def close(self) -> None:
        """Take no more commands. Those already sent are the channel's to end, those not yet sent end unknown."""
        self._closed = True
        for batch in self._gathering.values():
            self._settle(batch, [UNKNOWN_ROW] * len(batch.waiters))
        self._gathering.clear()

    async def wait_settled(self) -> None:
        """Return when nobody waits for an answer any more; for after the channel has been closed."""
        while self._sending:
            await asyncio.wait(self._sending)

    def _begin(self, timeout_s: float) -> _Batch:
        if self._closed:
            raise UsageError("the wallet has been closed")
        batch = self._gathering[timeout_s] = _Batch(check_timeout(timeout_s))
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        return batch

    def _add_chain(self, commands: Sequence[bytes], timeout_s: float) -> list[asyncio.Future[ResultRow]]:
        """Put a chain into one frame, if need be into one of its own."""
        batch = self._gathering.get(timeout_s)
        if batch is not None and len(batch.waiters) + len(commands) > self._count_max:
            del self._gathering[timeout_s]
            self._send(batch)
            batch = None
        if batch is None:
            batch = self._begin(timeout_s)
        waiters: list[asyncio.Future[ResultRow]] = [self._loop.create_future() for _ in commands]
        batch.commands += commands
        batch.waiters += waiters
        self._pending_count += len(commands)
        if len(batch.waiters) == self._count_max:
            del self._gathering[timeout_s]
            self._send(batch)
        return waiters

    def _flush(self) -> None:
        self._is_flush_due = False
        batches = list(self._gathering.values())
        self._gathering.clear()
        for batch in batches:
            self._send(batch)

    def _send(self, batch: _Batch) -> None:
        task = self._loop.create_task(self._exchange(batch))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _exchange(self, batch: _Batch) -> None:
        """Send one frame and hand its results to those who wait for them."""
        commands = np.frombuffer(b"".join(batch.commands), COMMAND)
        batch.commands.clear()
        try:
            rows = _rows(await self._submit(commands, batch.timeout_s))
            if len(rows) != len(batch.waiters):
                raise LedgerError(f"{len(batch.waiters)} commands were answered with {len(rows)} results")
        except asyncio.CancelledError:
            # Only the end of the event loop cancels this task.
            for waiter in batch.waiters:
                waiter.cancel()
            raise
        except Exception as error:
            # Whatever it is, it is news for every caller, and they must not wait for ever.
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            self._release(len(batch.waiters))
            return
        self._settle(batch, rows)

    async def _submit(self, commands: Records, timeout_s: float) -> Records:
        try:
            return await self._channel.submit(commands, timeout_s)
        except OutcomeUnknown as unknown:
            return unknown.results

    def _settle(self, batch: _Batch, rows: list[ResultRow]) -> None:
        for waiter, row in zip(batch.waiters, rows, strict=True):
            if not waiter.done():
                waiter.set_result(row)
        self._release(len(batch.waiters))

    async def _submit_when_room(self, command: bytes, timeout_s: float) -> ResultRow:
        try:
            async with asyncio.timeout(check_timeout(timeout_s)):
                await self._room()
                return await self.submit(command, timeout_s)
        except TimeoutError:
            return UNKNOWN_ROW

    async def _submit_chain_when_room(self, commands: Sequence[bytes], timeout_s: float) -> list[ResultRow]:
        try:
            async with asyncio.timeout(check_timeout(timeout_s)):
                await self._room()
                return await self.submit_chain(commands, timeout_s)
        except TimeoutError:
            return [UNKNOWN_ROW] * len(commands)

    async def _room(self) -> None:
        """Return when there is room for a command, or a chain; whoever uses it does so at once."""
        while self._pending_count >= COMMANDS_PENDING_MAX:
            room = self._loop.create_future()
            self._wait_for_room.append(room)
            await room

    def _release(self, count: int) -> None:
        """Note that so many commands are answered, and let as many in that wait for room."""
        self._pending_count -= count
        while count > 0 and self._wait_for_room:
            room = self._wait_for_room.popleft()
            if not room.done():
                room.set_result(None)
                count -= 1


def _rows(results: Records) -> list[ResultRow]:
    return list(RESULT_ROW.iter_unpack(results.tobytes()))
