"""Links from a shard's leader to the leaders of other shards: a client's channel to each, opened when it is needed."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.net.client.connection import State, TcpChannel
from bezant.protocol.errors import BezantError, ConnectionFailed, RemoteProtocolError
from bezant.protocol.frames import BATCH_COUNT_MAX, Operation
from bezant.protocol.records import RESULT, RESULT_SIZE, Records, Words

CONNECT_S_MAX: Final = 2.0
"""Seconds that a first connection to the leader of another shard may take, before that is tried again."""


class SentLegs(NamedTuple):
    """Legs on their way to the leader of a shard: the answers to their frames, and how many legs each frame has."""

    shard: int
    answers: "list[asyncio.Future[memoryview]]"
    counts: list[int]

    async def results(self) -> Records:
        """Their RESULT records, one each. Raises `BezantError` if no answer comes in time."""
        parts = []
        for answer, count in zip(self.answers, self.counts, strict=True):
            body = await answer
            if len(body) != count * RESULT_SIZE:
                raise RemoteProtocolError(f"shard {self.shard} answers {count} legs with {len(body)} bytes")
            parts.append(np.frombuffer(bytearray(body), RESULT))  # Kernels take what may be written to.
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class ShardLinks:
    """See the module. All methods on the loop."""

    def __init__(self, addresses_of: Callable[[int], str]) -> None:
        """`addresses_of` tells where the nodes of a shard are, "host:port,host:port"; "" if nobody knows."""
        self._addresses_of = addresses_of
        self._links: dict[int, asyncio.Task[TcpChannel]] = {}
        self._addresses: dict[int, str] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(self, shard: int, commands: Records, timeout_s: float) -> Records:
        """Have the leader of a shard execute legs; returns their RESULT records, one each.

        Raises `BezantError` if no answer comes in time, which says nothing about what has been done.
        """
        return await _begin(shard, await self._channel(shard), commands, timeout_s).results()

    def begin(self, shard: int, commands: Records, timeout_s: float) -> SentLegs | None:
        """As `ask`, and they are on their way when this returns; None, and nothing is done, if no connection stands."""
        opening = self._links.get(shard)
        if opening is None or not opening.done() or _has_failed(opening):
            return None
        if self._addresses[shard] != self._addresses_of(shard):
            return None
        return _begin(shard, opening.result(), commands, timeout_s)

    async def ask_tries(self, shard: int, ids: Words, timeout_s: float) -> npt.NDArray[np.bool_]:
        """Which of these TRY_CREDITs (int64 of shape (count, 2)) the leader of a shard has under way.

        Raises `BezantError` if no answer comes in time.
        """
        channel = await self._channel(shard)
        body = await channel.request(Operation.TRIES, ids.tobytes(), timeout_s)
        if len(body) != len(ids):
            raise RemoteProtocolError(f"shard {shard} answers for {len(ids)} tries with {len(body)} bytes")
        return np.asarray(np.frombuffer(body, np.uint8) != 0, np.bool_)

    async def request(self, shard: int, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        """The body of the reply of a shard's leader. Raises `BezantError` as `ask`."""
        return await (await self._channel(shard)).request(operation, body, timeout_s)

    async def _channel(self, shard: int) -> TcpChannel:
        addresses = self._addresses_of(shard)
        if not addresses:
            raise ConnectionFailed(f"nobody has said where shard {shard} is")
        opening = self._links.get(shard)
        if opening is None or self._addresses[shard] != addresses or _has_failed(opening):
            if opening is not None:
                self._let_go(opening)
            self._addresses[shard] = addresses
            opening = self._links[shard] = asyncio.create_task(TcpChannel.open(addresses, CONNECT_S_MAX, shard))
        try:
            # Shielded: others wait for the same connection.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            # Whoever asks may be given up in the same turns of the loop: nothing else would ever end that.
            if not opening.cancelled() or (asking is not None and asking.cancelling()):
                raise
            raise ConnectionFailed(f"the connection to shard {shard} was given up for one to another address") from None
        except BezantError:
            if self._links.get(shard) is opening:
                del self._links[shard]
            raise

    async def close(self) -> None:
        """Let go of all connections; what is unanswered fails."""
        links, self._links = list(self._links.values()), {}
        for opening in links:
            self._let_go(opening)
        if self._closing:
            await asyncio.wait(set(self._closing))

    def _let_go(self, opening: "asyncio.Task[TcpChannel]") -> None:
        """Close a connection, whether it stands or is being made; nobody waits for that."""
        closing = asyncio.create_task(_close(opening))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _begin(shard: int, channel: TcpChannel, commands: Records, timeout_s: float) -> SentLegs:
    asked = SentLegs(shard, [], [])
    for first in range(0, len(commands), BATCH_COUNT_MAX):
        part = commands[first : first + BATCH_COUNT_MAX]
        answer = channel.begin_request(Operation.LEGS, part.tobytes(), timeout_s)
        answer.add_done_callback(_note_failure)
        asked.answers.append(answer)
        asked.counts.append(len(part))
    return asked


def _note_failure(answer: "asyncio.Future[memoryview]") -> None:
    """Whoever asked a shard may have given that up before it fails: then nobody needs to know."""
    if not answer.cancelled():
        answer.exception()


def _has_failed(opening: "asyncio.Task[TcpChannel]") -> bool:
    """Whether a connection has ended for good: what has failed once answers nothing any more."""
    if not opening.done():
        return False
    return opening.cancelled() or opening.exception() is not None or opening.result().state is State.FAILED


async def _close(opening: "asyncio.Task[TcpChannel]") -> None:
    if not opening.done():
        opening.cancel()
        await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()
