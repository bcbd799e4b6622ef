"""Who answers questions about the history: the reader of the node that a wallet is connected to."""

import asyncio
import contextlib
from typing import Final

from bezant.net.client.channel import Channel
from bezant.net.client.connection import TcpChannel
from bezant.protocol.errors import ConnectionFailed, RequestRefused, RequestTimedOut, UsageError
from bezant.protocol.frames import FrameError, Operation

_ANY_HOSTS: Final = frozenset({"0.0.0.0", "[::]", "::", ""})

_NOT_YET: Final = frozenset({FrameError.OVERLOADED, FrameError.BEHIND})
"""Refusals of what can be answered a little later."""
BACKOFF_S_MIN: Final = 0.02
BACKOFF_S_MAX: Final = 0.5
"""Seconds between two attempts at a reader that is being started, doubled each time."""


def reader_address(channel: TcpChannel) -> str:
    """Where the reader listens of the node that a channel is connected to; "" if that node has none."""
    told = channel.welcome.reader
    host, _, port = told.rpartition(":")
    if told and host in _ANY_HOSTS:
        host = channel.address.rpartition(":")[0]
    return f"{host}:{port}" if told else ""


class ReaderChannel:
    """Asks the reader of the node that a channel leads to, or an engine in this process itself.

    A connection is made at the first question, and made anew if the channel meanwhile leads to another node.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = asyncio.Lock()
        self._reader: TcpChannel | None = None
        self._address = ""

    @property
    def channel(self) -> Channel:
        """The channel that leads to the node."""
        return self._channel

    async def request(self, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        """Ask, and return the body of the reply. Asks again until the time is up if the reader is not there (yet), or
        has no answer yet.

        Raises `ConnectionFailed`, `RequestTimedOut`; `RequestRefused` if the answer is an error; `UsageError` if the
        node has no reader.
        """
        loop = asyncio.get_running_loop()
        deadline_s, backoff_s = loop.time() + timeout_s, BACKOFF_S_MIN
        refusal: RequestRefused | None = None
        while True:
            left_s = deadline_s - loop.time()
            try:
                return await self._ask(operation, body, max(left_s, BACKOFF_S_MIN))
            except ConnectionFailed as error:
                await self._drop()
                if left_s < 2 * backoff_s:
                    if refusal is not None and isinstance(error, RequestTimedOut):
                        raise refusal from error  # It says more than that the time is up.
                    raise
            except RequestRefused as error:
                refusal = error
                if error.code not in _NOT_YET or left_s < 2 * backoff_s:
                    raise
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _ask(self, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        try:
            return await (await self._connected(timeout_s)).request(operation, body, timeout_s)
        except RequestRefused as refusal:
            if refusal.code == FrameError.OPERATION_UNKNOWN:
                raise UsageError(
                    "the node answers no questions about the past: it has no reader (`bezant serve --no-reader`, or a "
                    "version that knows none)"
                ) from refusal
            raise

    async def _connected(self, timeout_s: float) -> Channel:
        if not isinstance(self._channel, TcpChannel):
            return self._channel
        async with self._lock:
            address = reader_address(self._channel)
            if not address:
                return self._channel
            if self._reader is not None and self._address != address:
                await self._drop()
            if self._reader is None:
                try:
                    self._reader = await TcpChannel.open(address, timeout_s, credentials=self._channel.credentials)
                except ConnectionFailed as error:
                    raise ConnectionFailed(
                        f"the reader of the node at {self._channel.address} does not answer, which after a start may "
                        f"take a minute: {error}"
                    ) from error
                self._address = address
            return self._reader

    async def _drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()

    async def close(self) -> None:
        """Close the connection. May be called again."""
        with contextlib.suppress(ConnectionFailed):
            await self._drop()
