"""The sockets of clients: uvicorn's, with bounds for what it has none for.

A connection is closed without an answer when there are too many, or too many of one address, when the head of a request
has too many bytes, and when that is not complete in time, also the first after connecting: whoever writes a byte a
minute is not waited for. So is one that does not read what it is sent, and one that goes on with a body after the
answer (``front.py`` keeps the time of bodies).
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bezant.net.access.addresses import SHARE, place_of_peer

ABORT: Final = "bezant.abort"
"""Where the scope of a request has what cuts its connection, for a client that does not take what it is sent."""
HEAD_BYTES_MAX: Final = 32 << 10
"""Of the request line and the headers of one request."""
HEAD_S_MAX: Final = 10.0
"""Seconds from the connecting, or from the first byte of a later request, to the end of its headers."""
WRITE_S_MAX: Final = 30.0
"""Seconds that a client may take to read until there is room for more, and for the last that it is sent."""
LINGER_S_MAX: Final = 2.0
"""Seconds that the rest of a body is still read, and thrown away, after the answer: closed at once, many a client would
be told of a broken connection instead of the answer."""


class ClientConnection(HttpToolsProtocol):
    """A connection of a client. Give `with_limit` to uvicorn."""

    def __init__(self, *arguments: Any, connections_max: int, count_of: Counter[str], **settings: Any) -> None:
        """`count_of`: how many there are of each address; all connections share it."""
        super().__init__(*arguments, **settings)
        self._connections_max = connections_max
        self._count_of = count_of
        self._place = ""
        self._head_bytes = 0
        self._fields_bytes = 0
        self._is_head_due = True
        self._is_body_due = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._place = place_of_peer(self.client)
        self._count_of[self._place] += 1
        # Nobody needs a token to connect, so nobody may keep all others out.
        place_max = max(self._connections_max // SHARE, 1)
        if len(self.connections) > self._connections_max or self._count_of[self._place] > place_max:
            transport.close()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop_timers()
        self._leave_place()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come; those behind a head count towards none."""
        if self._head_timer is None and not self._is_body_due and (self.cycle is None or self.cycle.response_complete):
            # Whatever comes between two requests, also what the parser skips, begins the time of the next one.
            self._await_head()
        if self._is_head_due:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_head_due and self._head_bytes > HEAD_BYTES_MAX:
            self._give_up()

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        if self._head_timer is None:
            self._await_head()
        self._fields_bytes = 0
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        """A part of the address has come."""
        self._fields_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come."""
        self._fields_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request has come; one that came in a single piece is measured here."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._is_head_due = False
        if self._fields_bytes > HEAD_BYTES_MAX:
            self._give_up()
            return
        self._is_body_due = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body has come."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request has come."""
        self._is_body_due = False
        if self.transport.is_closing():
            return
        super().on_message_complete()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def handle_websocket_upgrade(self) -> None:
        """A request asks for a WebSocket."""
        if not self.transport.is_closing():
            self._stop_timers()
            # It is another's from here on, and one of the streams, of which a client has so many at most.
            self._leave_place()
            super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        """An answer is written; one that came before the end of the body ends the connection, a little later."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._end_writing()
        elif self._is_body_due and self.cycle.response_complete:
            # uvicorn's own timer ends with the next byte of the body.
            self._linger_timer = self.loop.call_later(LINGER_S_MAX, self._give_up)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for long."""
        super().timeout_keep_alive_handler()
        self._end_writing()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._end_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _leave_place(self) -> None:
        self._count_of[self._place] -= 1
        if not self._count_of[self._place]:
            del self._count_of[self._place]

    def _await_head(self) -> None:
        self._is_head_due = True
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def _end_writing(self) -> None:
        """Cut the connection unless the client reads in time."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_S_MAX, self._give_up)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._linger_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._linger_timer = self._write_timer = None

    def _give_up(self) -> None:
        self._stop_timers()
        self.transport.abort()


def with_limit(connections_max: int) -> Any:
    """What makes the connections of a server that has so many at most, and one in SHARE of them of one address."""
    return partial(ClientConnection, connections_max=connections_max, count_of=Counter())
