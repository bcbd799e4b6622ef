"""One TCP connection to a node: bytes to frames and back, from the greeting until it ends. Never comes back to life."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from bezant.net.access.credentials import Credentials, own_credentials
from bezant.protocol.errors import (
    AccessDenied,
    BezantError,
    ConnectionFailed,
    RemoteProtocolError,
    RequestRefused,
    UsageError,
)
from bezant.protocol.frames import (
    CLOSES_CONNECTION,
    PROTOCOL_VERSION,
    FrameError,
    FrameHeader,
    FrameReader,
    Operation,
    encode_frame,
)
from bezant.protocol.messages import ErrorMessage, Hello, Welcome, decode_message, encode_message

DEAD_PEER_S: Final = 10
"""Seconds without an acknowledgement after which the system gives a connection up."""

_PORT_MAX: Final = 65535


def parse_address(address: str) -> tuple[str, int]:
    """Split "host:port", "[::1]:port" for IPv6. Raises `UsageError`."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= _PORT_MAX:
        raise UsageError(f"an address is written like 127.0.0.1:7420 or [::1]:7420, not {address!r}")
    return host, int(port)


class Link(asyncio.Protocol):
    """See the module. Frames go to `on_frame` in order; `on_end` is called once, with the reason, after the last.

    `on_end` gets a `RemoteProtocolError` if the node broke the protocol, else a `ConnectionFailed`.
    """

    def __init__(
        self,
        on_frame: Callable[[FrameHeader, memoryview], None],
        on_writable: Callable[[], None],
        on_end: Callable[["Link", BezantError], None],
    ) -> None:
        self._on_frame = on_frame
        self._on_writable = on_writable
        self._on_end = on_end
        loop = asyncio.get_running_loop()
        self._greeting: asyncio.Future[Welcome] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._ended = False
        self.received_count = 0
        """Arrivals of bytes so far, of whatever number."""

    @property
    def is_writable(self) -> bool:
        """Whether a frame may be written now: connected, and the system takes more."""
        return self._transport is not None and not self._ended and not self._paused

    @property
    def has_ended(self) -> bool:
        """Whether the connection is gone."""
        return self._ended

    async def greet(self, token: str = "") -> Welcome:
        """Send HELLO, with a token if there is one, and return the node's welcome.

        Raises `RequestRefused` if the node will not have us, `AccessDenied` if for want of a token that it knows,
        `RemoteProtocolError` if it speaks otherwise, `ConnectionFailed` if it goes away.
        """
        hello = Hello(client="bezant-python", protocol_version=PROTOCOL_VERSION, token=token)
        self.write(encode_frame(Operation.HELLO, 0, encode_message(hello)))
        return await self._greeting

    def write(self, frame: bytes) -> None:
        """Write one frame. Frames written to a connection that has ended are lost, as they are on the way."""
        if self._transport is not None and not self._ended:
            self._transport.write(frame)

    def pause_reading(self) -> None:
        """Take no more bytes for now; the other end waits."""
        if self._transport is not None and not self._ended:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._transport is not None and not self._ended:
            self._transport.resume_reading()

    def end(self, error: BezantError) -> None:
        """Drop the connection now, for this reason; nothing happens if it has ended."""
        if self._ended:
            return
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        if not self._greeting.done():
            self._greeting.set_exception(error)
            # Whoever greets sees it raised; if nobody does any more, it is no news.
            self._greeting.exception()
        self._on_end(self, error)

    async def wait_closed(self) -> None:
        """Return when the socket has been let go of."""
        if self._transport is not None:
            await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # Not every event loop derives its transports from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._ended:
            self._transport.abort()
            return
        _set_options(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self.received_count += 1
        try:
            for header, body in self._reader.feed(data):
                if self._greeting.done():
                    self._on_frame(header, body)
                else:
                    self._greeting.set_result(_decode_greeting(header, body))
        except BezantError as error:
            self.end(error)

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._paused = False
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if not self._closed.done():
            self._closed.set_result(None)
        self.end(ConnectionFailed(f"the connection was lost: {exc}" if exc else "the node closed the connection"))


async def dial(link: Link, address: str, timeout_s: float, credentials: Credentials | None = None) -> Welcome:
    """Connect a new link to the node at `address` and return its welcome; the link has ended if this raises.

    `credentials`: what is shown there, if not what this process shows to everybody. Raises `ConnectionFailed` if nobody
    answers within `timeout_s`, and what `Link.greet` does.
    """
    host, port = parse_address(address)
    shown = own_credentials() if credentials is None else credentials
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(
                lambda: link, host, port, **shown.dial_arguments(host, timeout_s)
            )
            welcome = await link.greet(shown.token)
        if link.has_ended:
            raise ConnectionFailed(f"the node at {address} welcomed us and went away")
    except TimeoutError as error:
        raise _give_up(link, address, f"did not answer within {timeout_s:.3g} s") from error
    except OSError as error:
        raise _give_up(link, address, f"cannot be reached: {error}") from error
    except BaseException:
        _give_up(link, address, "was left while connecting")
        raise
    return welcome


async def welcome_at(address: str, timeout_s: float, credentials: Credentials | None = None) -> Welcome:
    """Ask the node at `address` for no more than its welcome; raises as `dial` does."""
    link = Link(_ignore, _ignore, _ignore)
    try:
        return await dial(link, address, timeout_s, credentials)
    finally:
        link.end(ConnectionFailed("the question was answered"))


def _ignore(*_event: object) -> None:
    """Nothing that happens after a greeting matters to who only asked for it."""


def _give_up(link: Link, address: str, reason: str) -> ConnectionFailed:
    error = ConnectionFailed(f"the node at {address} {reason}")
    link.end(error)
    return error


def _decode_greeting(header: FrameHeader, body: memoryview) -> Welcome:
    """Decode the first frame that a node sends."""
    if header.operation == Operation.ERROR:
        refusal = decode_message(body, ErrorMessage)
        if refusal.code == FrameError.HELLO_EXPECTED:
            # Nothing but HELLO is ever sent first, so it came too late: after a pause of this process or the node's.
            raise ConnectionFailed(f"the node did not wait for our HELLO: {refusal.message}")
        if refusal.code == FrameError.UNAUTHENTICATED:
            raise AccessDenied(refusal.code, refusal.message)
        if refusal.code in CLOSES_CONNECTION:
            raise RemoteProtocolError(f"the node does not understand us: {refusal.message} (error {refusal.code})")
        raise RequestRefused(refusal.code, refusal.message)
    if header.operation != Operation.HELLO:
        raise RemoteProtocolError(f"a node answers HELLO with HELLO, not with operation {header.operation}")
    welcome = decode_message(body, Welcome)
    if welcome.protocol_version != PROTOCOL_VERSION:
        raise RemoteProtocolError(
            f"the node speaks protocol version {welcome.protocol_version}, not {PROTOCOL_VERSION}"
        )
    return welcome


def _set_options(stream: socket.socket) -> None:
    """Send small frames at once, and notice a peer that is gone without a word."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", DEAD_PEER_S),
        ("TCP_KEEPINTVL", DEAD_PEER_S // 5),
        ("TCP_KEEPCNT", 5),
        ("TCP_USER_TIMEOUT", DEAD_PEER_S * 1000),
    ):
        option = getattr(socket, name, None)  # not every system has every one
        if option is not None:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
