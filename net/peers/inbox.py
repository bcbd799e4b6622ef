"""From the bytes of one connection to frames, without a copy of what is large.

Bytes go into one reused buffer. A frame that lies whole in it is taken out (a payload as a small copy, since the buffer
is used again); as soon as the head of a larger one is there, and its checksum is right, one buffer of exactly its
payload's size is made, and the rest is received straight into it. It is handed out with the frame and never used again.
No memory is given out on the word of a length whose checksum has not been seen.
"""

from typing import Final, NamedTuple

import numpy as np

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    PROTOCOL_VERSION,
    FrameError,
    FrameHeader,
    Operation,
    check_frame,
    decode_header,
)
from bezant.protocol.peer_frames import (
    PEER_CONTROL_SIZE_MAX,
    PEER_FRAME_SIZE_MAX,
    PEER_PREFIX_SIZE,
    check_peer_head,
    peer_head_size,
)

RECEIVE_BUFFER_SIZE: Final = 64 << 10
"""Bytes of the reused buffer; more than the longest head, PEER_MESSAGE_SIZE_MAX and what stands before it."""

_NOTHING: Final = memoryview(bytearray())


class BadFrame(RemoteProtocolError):  # noqa: N818 - it says what happened, as all in protocol/errors.py
    """A frame after which nothing on the connection can be trusted; ``code`` says why in an ERROR frame."""

    def __init__(self, code: FrameError, message: str) -> None:
        super().__init__(message)
        self.code = code


class PeerFrame(NamedTuple):
    """A frame whose checksum is right.

    ``body`` (of a PEER_MESSAGE, the message) is valid until the inbox is touched again; ``payload`` for ever: it is a
    writable buffer that belongs to whoever takes it.
    """

    header: FrameHeader
    body: memoryview
    payload: memoryview


class Inbox:
    """See the module. Call `space`, receive into it, call `added`, then `next` until it returns None."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
        self._start = 0
        self._end = 0
        self._large: PeerFrame | None = None
        self._large_filled = 0
        self.takes_messages = False
        """Whether PEER_MESSAGE may come: after the greeting, and on connections that receive."""

    def space(self) -> memoryview:
        """Where the next bytes go; never empty after `next` has returned None."""
        if self._large is not None:
            return self._large.payload[self._large_filled :]
        if self._start:
            kept = self._end - self._start
            self._buffer[:kept] = self._buffer[self._start : self._end]
            self._start, self._end = 0, kept
        return self._buffer[self._end :]

    def added(self, size: int) -> None:
        """So many bytes are in the `space`."""
        if self._large is not None:
            self._large_filled += size
        else:
            self._end += size

    def next(self) -> PeerFrame | None:
        """Take the next frame, if it has arrived. Raises `BadFrame`, after which the inbox is of no use."""
        if self._large is not None:
            return self._finish_large(self._large)
        available = self._end - self._start
        if available < FRAME_HEADER_SIZE:
            return None
        unread = self._buffer[self._start : self._end]
        header = decode_header(unread)
        self._check_header(header)
        try:
            if header.operation == Operation.PEER_MESSAGE:
                return self._take_message(header, unread)
            if available < header.length:
                return None
            frame = unread[: header.length]
            check_frame(frame)
        except RemoteProtocolError as error:
            raise BadFrame(FrameError.CHECKSUM_WRONG, str(error)) from error
        self._start += header.length
        return PeerFrame(header, frame[FRAME_HEADER_SIZE:], _NOTHING)

    def _check_header(self, header: FrameHeader) -> None:
        if header.version != PROTOCOL_VERSION:
            message = f"protocol version {header.version} is not spoken here, only {PROTOCOL_VERSION}"
            raise BadFrame(FrameError.VERSION_UNSUPPORTED, message)
        size_min, size_max = FRAME_HEADER_SIZE, PEER_CONTROL_SIZE_MAX
        if header.operation == Operation.PEER_MESSAGE:
            if not self.takes_messages:
                raise BadFrame(FrameError.HELLO_EXPECTED, "messages are taken after the greeting, from who dialled")
            size_min, size_max = PEER_PREFIX_SIZE, PEER_FRAME_SIZE_MAX
        if not size_min <= header.length <= size_max:
            message = f"a frame of operation {header.operation} has {size_min} to {size_max} bytes, not {header.length}"
            raise BadFrame(FrameError.LENGTH_INVALID, message)

    def _take_message(self, header: FrameHeader, unread: memoryview) -> PeerFrame | None:
        if len(unread) < PEER_PREFIX_SIZE:
            return None
        head_size = peer_head_size(header, unread)
        if len(unread) < head_size:
            return None
        message = check_peer_head(header, unread[:head_size])
        payload_size = header.length - head_size
        arrived = unread[head_size : header.length]
        if len(arrived) == payload_size:
            self._start += header.length
            return PeerFrame(header, message, memoryview(bytearray(arrived)) if payload_size else _NOTHING)
        payload = np.empty(payload_size, np.uint8).data  # of NumPy, because it does not fill it with zeros first
        payload[: len(arrived)] = arrived
        self._start = self._end = 0
        # The buffer is not used while the payload arrives, but will be before the frame has been taken.
        self._large = PeerFrame(header, memoryview(bytes(message)), payload)
        self._large_filled = len(arrived)
        return None

    def _finish_large(self, large: PeerFrame) -> PeerFrame | None:
        if self._large_filled < len(large.payload):
            return None
        self._large = None
        return large
