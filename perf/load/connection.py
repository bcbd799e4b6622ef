"""One connection of a load: a raw protocol that reads into one buffer and keeps a fixed number of frames in flight.

Replies that arrive together are taken by one kernel call, and as many frames go out in their place with one write of a
slice of the ring. The order matters: the reply is stamped before anything else, and new frames are written before new
ones are prepared.
"""

import asyncio
import time
from typing import Final, Protocol, cast

from bezant.perf.load.control import hello_frame
from bezant.perf.load.frames import SHORT_REPLY_SIZE
from bezant.perf.load.mixed import UnexpectedResult
from bezant.perf.load.ring import FrameRing, ReceiveBuffer
from bezant.protocol.errors import BezantError, ConnectionFailed, RemoteProtocolError, RequestRefused
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameReader,
    Operation,
)
from bezant.protocol.messages import ErrorMessage, Welcome, decode_message
from bezant.protocol.records import RESULT_SIZE

_RECEIVE_SIZE_MIN: Final = 64 << 10
_RECEIVE_SIZE_MAX: Final = 2 * FRAME_SIZE_MAX


class LoadOwner(Protocol):
    """What a connection tells the load that it belongs to."""

    ring: FrameRing

    def on_replies(self, connection: "LoadConnection") -> None:
        """Frames of this connection were answered, so it has room for others."""

    def on_failure(self, error: BezantError) -> None:
        """The connection is of no more use, and so is the load."""


class LoadConnection(asyncio.BufferedProtocol):
    """Connection number `number` of a load; ``room`` is how many more frames it may have in flight."""

    def __init__(self, owner: LoadOwner, number: int, inflight: int) -> None:
        self._owner = owner
        self._ring = owner.ring
        self.number = number
        self.room = inflight
        replies = SHORT_REPLY_SIZE * inflight
        if self._ring.batch > 1:
            replies = (FRAME_HEADER_SIZE + self._ring.batch * RESULT_SIZE) * min(inflight, 2)
        self._reply_size = FRAME_HEADER_SIZE + self._ring.batch * RESULT_SIZE
        self._buffer = ReceiveBuffer(min(max(replies, _RECEIVE_SIZE_MIN), _RECEIVE_SIZE_MAX))
        self._transport: asyncio.Transport | None = None
        self._hello_reader: FrameReader | None = FrameReader()
        self.welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(hello_frame())

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Where to receive: behind what has not been taken, with room for a whole reply."""
        return self._buffer.room(self._reply_size)

    def buffer_updated(self, size: int) -> None:
        """Take what has arrived and let the load send as many frames again."""
        now_ns = time.perf_counter_ns()
        buffer = self._buffer
        buffer.end += size
        try:
            if self._hello_reader is not None:
                self._take_welcome(self._hello_reader)
                return
            taken = self._ring.take_replies(buffer, self.number, now_ns)
        except RemoteProtocolError as error:
            self._owner.on_failure(self._explain(error))
            return
        except UnexpectedResult as error:
            self._owner.on_failure(error)
            return
        if taken:
            self.room += taken
            self._owner.on_replies(self)

    def send(self) -> None:
        """Send frames until `room` is used up or no more are prepared."""
        transport = self._transport
        if transport is None:
            raise ConnectionFailed("a load connection was used before it was made")
        while self.room:
            count, frames = self._ring.take(self.room, self.number, time.perf_counter_ns())
            if not count:
                return
            self.room -= count
            transport.write(frames)

    def connection_lost(self, error: Exception | None) -> None:
        """Without our doing, this ends the load."""
        why = f": {error}" if error else ""
        failure = ConnectionFailed(f"the node closed connection {self.number} of the load{why}")
        if not self.welcome.done():
            self.welcome.set_exception(failure)
        self._owner.on_failure(failure)

    def close(self) -> None:
        """Close at once; what is on its way is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def _take_welcome(self, reader: FrameReader) -> None:
        buffer = self._buffer
        frames = reader.feed(bytes(buffer.view[buffer.start : buffer.end]))
        buffer.start = buffer.end
        if not frames:
            return
        header, body = frames[0]
        self._hello_reader = None
        if header.operation == Operation.ERROR:
            refusal = decode_message(body, ErrorMessage)
            self.welcome.set_exception(RequestRefused(refusal.code, refusal.message))
        elif header.operation != Operation.HELLO or len(frames) > 1:
            self.welcome.set_exception(RemoteProtocolError("the node does not answer hello with a welcome"))
        else:
            self.welcome.set_result(decode_message(body, Welcome))

    def _explain(self, fault: RemoteProtocolError) -> BezantError:
        """If the bytes that were not taken hold an error reply, what that says; else the fault that was found."""
        buffer = self._buffer
        try:
            frames = FrameReader().feed(buffer.view[buffer.start : buffer.end])
        except RemoteProtocolError:
            return fault
        for header, body in frames:
            if header.operation == Operation.ERROR:
                refusal = decode_message(body, ErrorMessage)
                return RequestRefused(refusal.code, refusal.message)
        return fault
