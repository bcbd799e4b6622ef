"""A plain echo in the node's own process and loop: the floor against which a benchmark sets the engine's latency."""

import asyncio
from typing import cast


class EchoProtocol(asyncio.Protocol):
    """Sends every byte back, and reads no more while the other end does not read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        # Cast, not checked: the transports of uvloop are asyncio's by duck typing alone.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._transport.write(data)

    def pause_writing(self) -> None:
        """The other end does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The other end reads again."""
        self._transport.resume_reading()
