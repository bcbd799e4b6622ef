"""The sockets of clients: uvicorn's, with bounds for what it has none for.

A connection is closed without an answer when there are too many, when the head of a request has too many bytes, and
when that is not complete in time, also the first after connecting: whoever writes a byte a minute is not waited for.
"""

import asyncio
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ABORT: Final = "bezant.abort"
"""Where the scope of a request has what cuts its connection, for a client that does not take what it is sent."""
HEAD_BYTES_MAX: Final = 32 << 10
"""Of the request line and the headers of one request."""
HEAD_S_MAX: Final = 10.0
"""Seconds from the connecting, or from the first byte of a later request, to the end of its headers."""


class ClientConnection(HttpToolsProtocol):
    """A connection of a client. Give `with_limit` to uvicorn."""

    def __init__(self, *arguments: Any, connections_max: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._connections_max = connections_max
        self._head_bytes = 0
        self._is_head_due = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self._connections_max:
            transport.close()
            return
        self._head_timer = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come; those behind a head count towards none."""
        if self._is_head_due:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_head_due and self._head_bytes > HEAD_BYTES_MAX:
            self._give_up()

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        if self._head_timer is None:
            self._is_head_due = True
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_S_MAX, self._give_up)
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """The head of a request has come."""
        self._stop_timer()
        self._is_head_due = False
        super().on_headers_complete()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._stop_timer()
        self.transport.abort()


def with_limit(connections_max: int) -> Any:
    """What makes the connections of a server that has so many at most."""
    return partial(ClientConnection, connections_max=connections_max)
