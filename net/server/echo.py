"""A plain echo in the node's own process and loop: the floor against which a benchmark sets the engine's latency."""

import asyncio


class EchoProtocol(asyncio.Protocol):
    """Sends every byte back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._transport.write(data)  # type: ignore[attr-defined]
