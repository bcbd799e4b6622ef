"""The bytes of one connection that have arrived and are not taken yet.

All connections receive into one shared buffer, since the loop reads one at a time: an idle connection holds no memory.
Beside it an inbox holds at most one of these:

- the **start** of a frame whose rest has not arrived, up to START_SIZE_MAX bytes; it is copied back before the rest;
- the **own buffer** of a larger frame, into which its rest is received directly;
- a **skipped** frame: a larger one for which there was no memory. Its rest is hashed and thrown away;
- **kept** frames: whole ones that have to wait for room elsewhere. Nothing is received meanwhile.
"""

from typing import Final, NamedTuple

import numpy as np
import xxhash
from typing_extensions import Buffer

from bezant.protocol.frames import CHECKSUM_OFFSET_END, FRAME_HEADER_SIZE, FrameHeader, decode_header
from bezant.protocol.records import Bytes

RECEIVE_BUFFER_SIZE: Final = 1 << 20
START_SIZE_MAX: Final = 64 << 10
"""Bytes of an unfinished frame that a connection holds without asking; longer frames get a buffer of their own."""
OWN_BUFFERS_BYTES_MAX: Final = 64 << 20
"""Bytes of own buffers and kept frames of all connections together. Large frames beyond it are refused, and reads
become so small that other frames do not exceed it by much."""
READ_SIZE_MIN: Final = 4096
"""Bytes that a connection may always receive at a time."""
NOT_VERIFIED: Final = -1


class ReceiveBuffer:
    """The buffer that all connections of a loop share, and the account of the memory that they hold beside it."""

    def __init__(self) -> None:
        self.bytes: Bytes = np.zeros(RECEIVE_BUFFER_SIZE, np.uint8)
        self.view = self.bytes.data
        self.held_bytes = 0


class Unread(NamedTuple):
    """Bytes to be taken: ``buffer[offset:end]``, received at `received_ns` of the monotonic clock.

    ``verified`` is the offset of a frame whose checksum is known to be right.
    """

    buffer: Bytes
    offset: int
    end: int
    verified: int
    received_ns: int


class SkippedFrame:
    """A frame that is not stored: its header is known, and its checksum when all of it has passed."""

    def __init__(self, start: Buffer) -> None:
        view = memoryview(start)
        self.header: FrameHeader = decode_header(view[:FRAME_HEADER_SIZE])
        self.remaining = self.header.length - len(view)
        self._hasher = xxhash.xxh3_64(view[CHECKSUM_OFFSET_END:])

    def add(self, data: Buffer) -> None:
        """Take the next bytes of it."""
        self._hasher.update(data)
        self.remaining -= memoryview(data).nbytes

    @property
    def is_whole(self) -> bool:
        """Whether it came as it was sent."""
        return self.remaining == 0 and self._hasher.intdigest() == self.header.checksum


class Inbox:
    """See the module."""

    def __init__(self, shared: ReceiveBuffer) -> None:
        self._shared = shared
        self._start = b""
        self._own: Bytes | None = None
        self._own_filled = 0
        self._kept: Unread | None = None
        self.skipped: SkippedFrame | None = None

    @property
    def has_kept(self) -> bool:
        """Whether whole frames wait here."""
        return self._kept is not None

    @property
    def awaits_large_frame(self) -> bool:
        """Whether a frame longer than START_SIZE_MAX is arriving."""
        return self._own is not None or self.skipped is not None

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._own is not None:
            return self._own.data[self._own_filled :]
        shared = self._shared
        if self.skipped is not None:
            return shared.view[: self.skipped.remaining]
        size = len(self._start)
        if size:
            shared.view[:size] = self._start
        return shared.view[size : size + max(OWN_BUFFERS_BYTES_MAX - shared.held_bytes, READ_SIZE_MIN)]

    def add(self, size: int, received_ns: int) -> Unread | None:
        """So many bytes are in the `space`; returns what there is to take now, if anything."""
        if self._own is not None:
            self._own_filled += size
            if self._own_filled < len(self._own):
                return None
            own, self._own = self._own, None
            self._shared.held_bytes -= len(own)
            return Unread(own, 0, len(own), NOT_VERIFIED, received_ns)
        if self.skipped is not None:
            self.skipped.add(self._shared.view[:size])
            return None
        end = len(self._start) + size
        self._start = b""
        return Unread(self._shared.bytes, 0, end, NOT_VERIFIED, received_ns)

    def keep_start(self, buffer: Bytes, offset: int, end: int, length: int) -> None:
        """Keep the start of a frame that has `length` bytes (0: its header has not arrived), or begin to skip it."""
        size = end - offset
        if length <= START_SIZE_MAX:
            self._start = buffer[offset:end].tobytes()
        elif self._shared.held_bytes + length > OWN_BUFFERS_BYTES_MAX:
            self.skipped = SkippedFrame(buffer[offset:end].data)
        else:
            self._shared.held_bytes += length
            self._own = np.empty(length, np.uint8)
            self._own[:size] = buffer[offset:end]
            self._own_filled = size

    def keep(self, unread: Unread) -> None:
        """Keep whole frames until `take_kept`. Copies them once at most, however often they are kept."""
        buffer, offset, end, verified, received_ns = unread
        if buffer is self._shared.bytes:
            verified = 0 if verified == offset else NOT_VERIFIED
            unread = Unread(buffer[offset:end].copy(), 0, end - offset, verified, received_ns)
        self._kept = unread
        self._shared.held_bytes += len(unread.buffer)

    def take_kept(self) -> Unread | None:
        """Hand the kept frames back."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._shared.held_bytes -= len(kept.buffer)
        return kept

    def drop_unfinished(self) -> None:
        """Forget a frame that has not arrived whole."""
        self._start = b""
        self.skipped = None
        if self._own is not None:
            self._shared.held_bytes -= len(self._own)
            self._own = None

    def drop(self) -> None:
        """Forget everything."""
        self.drop_unfinished()
        self.take_kept()
