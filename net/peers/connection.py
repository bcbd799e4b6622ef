"""One TCP connection between two nodes, whichever of them dialled: bytes to frames, and how it ends."""

import asyncio
import socket
from typing import Final, cast

from typing_extensions import Buffer

from bezant.net.peers.inbox import BadFrame, Inbox, PeerFrame
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import FrameError, FrameFlag, Operation, encode_frame
from bezant.protocol.messages import ErrorMessage, decode_message, encode_message

HELLO_S_MAX: Final = 2.0
"""Seconds that the other end has for its part of the greeting."""
DEAD_PEER_S: Final = 4
"""Seconds without an acknowledgement after which the system gives a connection up. A new one is faster than the old
one's next repetition by then."""
REASON_SIZE_MAX: Final = 400
"""Characters of a reason that is sent or kept; it may repeat what the other end said."""


class PeerConnection(asyncio.BufferedProtocol):
    """See the module. Subclasses say what frames mean (`on_frame`) and what follows from the end (`on_end`)."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.transport: asyncio.Transport | None = None
        self.has_ended = False
        self.reason = ""
        self.code: FrameError | None = None
        """What the other end was told when this one ended the connection."""
        self.was_refused = False
        """Whether one end would not have the other, so that there is no hurry to dial again."""
        self._held = False
        self._closed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # ---- for subclasses ----

    def on_made(self) -> None:
        """The connection is there."""

    def on_frame(self, frame: PeerFrame) -> None:
        """A frame other than ERROR has arrived. May raise `RemoteProtocolError`, which ends the connection."""
        raise NotImplementedError

    def on_end(self) -> None:
        """The connection has ended, for `reason`; called once."""

    def on_closed(self) -> None:
        """Its socket has been let go of; called once, if the connection was ever made."""

    # ---- what both ends do ----

    def send_control(self, operation: Operation, body: bytes, *, request_id: int = 0, is_reply: bool = False) -> None:
        """Send a frame other than PEER_MESSAGE, at once."""
        if self.transport is not None and not self.has_ended:
            flags = FrameFlag.REPLY if is_reply else 0
            self.transport.write(encode_frame(operation, request_id, body, flags=flags))

    def end(self, reason: str, code: FrameError | None = None) -> None:
        """Drop the connection now, for this reason; with `code` the other end is told. Nothing if it has ended."""
        if self.has_ended:
            return
        reason = reason[:REASON_SIZE_MAX]
        if code is not None:
            self.send_control(Operation.ERROR, encode_message(ErrorMessage(code, reason)), is_reply=True)
        self.has_ended = True
        self.reason, self.code = reason, code
        self.stop_timer()
        if self.transport is not None:
            if code is None:
                self.transport.abort()
            else:
                self.transport.close()
                # Should it not take even that, it is not waited for.
                self._timer = asyncio.get_running_loop().call_later(HELLO_S_MAX, self.transport.abort)
        self.on_end()

    async def wait_closed(self) -> None:
        """Return when the socket has been let go of. Only for connections that were made."""
        await self._closed.wait()

    def hold(self) -> None:
        """Take nothing more until `release`; what was received meanwhile is at most the inbox and the system's."""
        self._held = True
        if self.transport is not None and not self.has_ended:
            self.transport.pause_reading()

    def release(self) -> None:
        """Go on after `hold`, in the next step of the loop."""
        if self._held:
            self._held = False
            asyncio.get_running_loop().call_soon(self._go_on)

    def start_timer(self, delay_s: float, reason: str, code: FrameError | None = None) -> None:
        """End the connection for this reason unless `stop_timer` is called in time."""
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.end, reason, code)

    def stop_timer(self) -> None:
        """Let it live."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # Cast, not checked: the transports of uvloop are asyncio's by duck typing alone.
        self.transport = cast("asyncio.Transport", transport)
        if self.has_ended:
            self.transport.abort()
            return
        _set_options(self.transport.get_extra_info("socket"))
        self.on_made()

    def get_buffer(self, sizehint: int) -> Buffer:
        """Called by the event loop."""
        return self.inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        if not self.has_ended:
            self.inbox.added(nbytes)
            self._take_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.end(f"the connection was lost: {exc}" if exc else "the other end closed the connection")
        self.stop_timer()
        self.transport = None
        self._closed.set()
        self.on_closed()

    def _take_frames(self) -> None:
        try:
            while not (self.has_ended or self._held):
                frame = self.inbox.next()
                if frame is None:
                    return
                if frame.header.operation == Operation.ERROR:
                    self.was_refused = True
                    self.end(f"the other end says: {decode_message(frame.body, ErrorMessage).message}")
                else:
                    self.on_frame(frame)
        except BadFrame as error:
            self.end(str(error), error.code)
        except RemoteProtocolError as error:
            self.end(str(error), FrameError.BODY_MALFORMED)
        except Exception as error:  # a bug here: the frame is lost, and so is what its sender thinks of it
            self.end(f"this node failed at a frame: {error!r}")
            raise

    def _go_on(self) -> None:
        self._take_frames()
        if self.transport is not None and not (self.has_ended or self._held):
            self.transport.resume_reading()


def _set_options(stream: socket.socket) -> None:
    """Send small frames at once, and notice soon that the other end is gone without a word."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 1),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", DEAD_PEER_S),
        ("TCP_USER_TIMEOUT", DEAD_PEER_S * 1000),
    ):
        option = getattr(socket, name, None)  # not every system has every one
        if option is not None:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
