"""One client of a reader: frames in, replies and what is pushed out.

Few frames come in, so they are taken one at a time; what has not arrived whole lies in the inbox that a node's
connections have, too (`bezant.net.server.inbox`). A client that does not read what it is sent is *congested*: nothing
more is pushed to it, and no request of it is read, until it does. One that takes nothing for STALL_S_MAX is told, and
its connection closed.

States: greeting (HELLO must come first, and in time) -> open -> ending (nothing more is taken; closed when what came is
answered) -> closing.
"""

import asyncio
import socket
import time
from typing import Final, Protocol, cast

from typing_extensions import Buffer

from bezant.net.access.addresses import place_of_peer
from bezant.net.access.guard import NOT_LET_IN, PUT_OUT
from bezant.net.access.tls import is_private, name_of_peer
from bezant.net.server.inbox import Inbox, Unread
from bezant.net.server.open_connections import GREETING_S_MAX, OpenConnections
from bezant.protocol.access import ANYBODY
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import (
    CLOSES_CONNECTION,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    HELLO_SIZE_MAX,
    PROTOCOL_VERSION,
    FrameError,
    FrameFlag,
    FrameHeader,
    Operation,
    decode_header,
    encode_frame,
    frame_checksum,
)
from bezant.protocol.messages import ErrorMessage, Hello, Welcome, decode_message, encode_message

FRAMES_PER_STEP_MAX: Final = 64
"""Frames that a connection handles before it is others' turn."""
REQUESTS_IN_FLIGHT_MAX: Final = 64
"""Requests of a connection that are not answered yet at which it is not read any more."""
STALL_S_MAX: Final = 30.0
"""Seconds after which a client is told and disconnected that takes nothing of what waits for it."""
STALL_CHECK_S: Final = 1.0
"""Seconds between two looks at whether such a client takes anything."""
LAST_WORDS_S_MAX: Final = 5.0
"""Seconds that a client has to take the rest when its connection is closed."""
ERROR_MESSAGE_SIZE_MAX: Final = 400
"""Characters of the text of an error; it may repeat what the client sent."""


class Service(Protocol):
    """What connections are for; all methods on the loop."""

    connections: OpenConnections

    def welcome(self) -> Welcome:
        """What a client is told now."""
        ...

    def handle(self, connection: "ReaderConnection", header: FrameHeader, body: bytes) -> None:
        """Handle a request: answer it with `reply` or `refuse`, then `settle`. Raises `RemoteProtocolError`."""
        ...

    def on_congested(self, connection: "ReaderConnection") -> None:
        """The client does not read: push nothing more to it."""
        ...

    def on_writable(self, connection: "ReaderConnection") -> None:
        """The client reads again."""
        ...

    def on_gone(self, connection: "ReaderConnection") -> None:
        """The connection takes nothing any more; may be called again."""
        ...


class ReaderConnection(asyncio.BufferedProtocol):
    """See the module."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connections = service.connections
        self._inbox = Inbox(service.connections.receive_buffer)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self.principal = ANYBODY
        """Who is at the other end, once greeted."""
        self._ending = False
        self._closing = False
        self._requests_in_flight = 0
        self._reading = True
        self._resuming = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._stalled_since_s = 0.0
        self._stalled_bytes = 0
        self.is_congested = False
        """Whether the client leaves so much unread that nothing more is pushed."""
        self.is_too_slow = False
        """Whether it is ended because the client takes nothing."""

    # ---- asyncio's side ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        # Cast, not checked: the transports of uvloop are asyncio's by duck typing alone.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._connections.write_buffer_bytes)
        stream = transport.get_extra_info("socket")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._connections.add(self, place_of_peer(transport.get_extra_info("peername"))):
            self.refuse(0, FrameError.OVERLOADED, "the reader has as many connections as it takes; try again later")
            self._close()

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._ending = self._closing = True
        self._transport = None
        self._inbox.drop()
        self._stop_watching()
        self._connections.remove(self)
        self._service.on_gone(self)

    def eof_received(self) -> bool:
        """The client sends no more; close when its replies are out."""
        self.stop()
        return not self._closing and not is_private(self._transport)

    def get_buffer(self, sizehint: int) -> Buffer:
        """Where the next bytes go."""
        return self._inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        if self._ending:
            return
        unread = self._inbox.add(nbytes, time.monotonic_ns())
        if unread is not None:
            self._scan(unread)
        elif self._inbox.skipped is not None and self._inbox.skipped.remaining == 0:
            skipped = self._inbox.skipped
            self._inbox.drop_unfinished()
            if skipped.is_whole:
                self.refuse(skipped.header.request_id, FrameError.OVERLOADED, "too many large frames arrive at once")
            else:
                self.refuse(0, FrameError.CHECKSUM_WRONG, "the checksum of the frame is wrong")

    def pause_writing(self) -> None:
        """The client leaves much unread."""
        self.is_congested = True
        if self._transport is not None and self._stall_timer is None:
            self._stalled_bytes = self._transport.get_write_buffer_size()
            self._stalled_since_s = asyncio.get_running_loop().time()
            self._watch_stall()
        self._update()
        self._service.on_congested(self)

    def resume_writing(self) -> None:
        """The client has read most of it."""
        self.is_congested = False
        self._stop_watching()
        self._update()
        self._service.on_writable(self)

    # ---- frames ----

    def _scan(self, unread: Unread) -> None:
        """Take all whole frames; keep the rest."""
        buffer, offset, end, _, received_ns = unread
        frames_left = FRAMES_PER_STEP_MAX
        while not self._ending:
            header = decode_header(buffer[offset : offset + FRAME_HEADER_SIZE].data) if self._has(offset, end) else None
            if header is None or (self._check(header) and end - offset < header.length):
                self._inbox.keep_start(buffer, offset, end, 0 if header is None else header.length)
                return
            if self._ending:
                return
            if not frames_left or not self._has_room:
                self._inbox.keep(Unread(buffer, offset, end, -1, received_ns))
                self._update()
                return
            frame = buffer[offset : offset + header.length].data
            if frame_checksum(frame) != header.checksum:
                self.refuse(0, FrameError.CHECKSUM_WRONG, "the checksum of the frame is wrong")
                return
            self._handle(header, bytes(frame[FRAME_HEADER_SIZE:]))
            offset += header.length
            frames_left -= 1

    @staticmethod
    def _has(offset: int, end: int) -> bool:
        return end - offset >= FRAME_HEADER_SIZE

    def _check(self, header: FrameHeader) -> bool:
        """Whether a header can be gone on with; refused if not."""
        if header.version != PROTOCOL_VERSION:
            self.refuse(0, FrameError.VERSION_UNSUPPORTED, f"this reader speaks protocol version {PROTOCOL_VERSION}")
        elif not self._greeted and header.length > HELLO_SIZE_MAX:
            self.refuse(0, FrameError.HELLO_EXPECTED, f"HELLO has {HELLO_SIZE_MAX} bytes at most")
        elif not FRAME_HEADER_SIZE <= header.length <= FRAME_SIZE_MAX:
            self.refuse(0, FrameError.LENGTH_INVALID, f"a frame has {FRAME_HEADER_SIZE} to {FRAME_SIZE_MAX} bytes")
        else:
            return True
        return False

    def _handle(self, header: FrameHeader, body: bytes) -> None:
        """Handle a whole frame; its checksum is right."""
        try:
            if not self._greeted and header.operation != Operation.HELLO:
                self.refuse(header.request_id, FrameError.HELLO_EXPECTED, "the first frame of a connection is HELLO")
            elif header.flags:
                raise RemoteProtocolError("a request has no flags")
            elif not self._greeted:
                self._greet(header, body)
            elif header.operation == Operation.PING:
                self.reply(header, body)
            elif why := self._connections.guard.refusal_of(self.principal, header.operation):
                self.refuse(header.request_id, FrameError.FORBIDDEN, why)
            else:
                self._requests_in_flight += 1
                try:
                    self._service.handle(self, header, body)
                except RemoteProtocolError:
                    self.settle()
                    raise
        except RemoteProtocolError as error:
            self.refuse(header.request_id, FrameError.BODY_MALFORMED, str(error))

    def _greet(self, header: FrameHeader, body: bytes) -> None:
        hello = decode_message(body, Hello)
        if hello.protocol_version != PROTOCOL_VERSION:
            message = f"protocol version {hello.protocol_version} is not spoken here, only {PROTOCOL_VERSION}"
            self.refuse(header.request_id, FrameError.VERSION_UNSUPPORTED, message)
            return
        principal = self._connections.guard.admit(hello.token, name_of_peer(self._transport))
        if principal is None:
            self.refuse(header.request_id, FrameError.UNAUTHENTICATED, NOT_LET_IN)
            return
        self._greeted, self.principal = True, principal
        self._connections.note_greeted(self)
        self.reply(header, encode_message(self._service.welcome()))

    # ---- what goes out ----

    def reply(self, header: FrameHeader, body: Buffer) -> None:
        """Send a reply."""
        self.push(encode_frame(header.operation, header.request_id, body, flags=FrameFlag.REPLY))

    def refuse(self, request_id: int, code: FrameError, message: str) -> None:
        """Answer with an ERROR frame, which closes the connection if it is one of those that do."""
        body = encode_message(ErrorMessage(int(code), message[:ERROR_MESSAGE_SIZE_MAX]))
        self.push(encode_frame(Operation.ERROR, request_id, body, flags=FrameFlag.REPLY))
        if code in CLOSES_CONNECTION:
            self._close()

    def push(self, frames: Buffer) -> None:
        """Send whole frames, back to back; the memory is not to change any more."""
        if self._transport is not None and not self._closing:
            self._transport.write(memoryview(frames))

    def settle(self) -> None:
        """A request is answered."""
        self._requests_in_flight -= 1
        if self._ending:
            self._maybe_close()
        elif not self._reading:
            self._update()

    # ---- flow control ----

    @property
    def _has_room(self) -> bool:
        return not self.is_congested and self._requests_in_flight < REQUESTS_IN_FLIGHT_MAX

    def _update(self) -> None:
        """Read exactly while there is room, and take what was kept once there is."""
        if self._transport is None or self._closing:
            return
        if self._has_room and self._inbox.has_kept and not self._resuming:
            self._resuming = True
            asyncio.get_running_loop().call_soon(self._resume)
        wanted = self._has_room and not self._inbox.has_kept and not self._ending
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _resume(self) -> None:
        self._resuming = False
        unread = self._inbox.take_kept() if self._has_room and not self._ending else None
        if unread is not None:
            self._scan(unread)
        self._update()

    def _watch_stall(self) -> None:
        self._stall_timer = asyncio.get_running_loop().call_later(STALL_CHECK_S, self._check_stall)

    def _check_stall(self) -> None:
        """End a client that has taken nothing for too long."""
        self._stall_timer = None
        if self._transport is None:
            return
        now_s, size = asyncio.get_running_loop().time(), self._transport.get_write_buffer_size()
        if size < self._stalled_bytes:
            self._stalled_since_s = now_s
        self._stalled_bytes = size
        if now_s - self._stalled_since_s < STALL_S_MAX:
            self._watch_stall()
            return
        self.is_too_slow = True
        self.refuse(0, FrameError.TOO_SLOW, f"nothing of {size} bytes was read within {STALL_S_MAX:g} s")

    def _stop_watching(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    # ---- the end ----

    def on_greeting_late(self) -> None:
        """End because HELLO has not come in time."""
        if not self._ending:
            self.refuse(0, FrameError.HELLO_EXPECTED, f"no HELLO has come within {GREETING_S_MAX:.0f} seconds")

    def check_access(self) -> None:
        """End if whoever is at the other end would not be let in any more."""
        if self._greeted and not self._ending and not self._connections.guard.counts(self.principal):
            self.refuse(0, FrameError.UNAUTHENTICATED, PUT_OUT)

    def stop(self) -> None:
        """Take no more requests; close when those that came are answered."""
        self._ending = True
        self._inbox.drop()
        self._service.on_gone(self)
        self._update()
        self._maybe_close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _maybe_close(self) -> None:
        if not self._requests_in_flight:
            self._close()

    def _close(self) -> None:
        """Say nothing more; what was said is sent, if the client takes it in time."""
        if self._closing or self._transport is None:
            return
        self._ending = self._closing = True
        self._inbox.drop()
        self._stop_watching()
        self._service.on_gone(self)
        self._transport.close()
        asyncio.get_running_loop().call_later(LAST_WORDS_S_MAX, self.abort)
