"""What the nodes of a group send each other: PEER_MESSAGE and PEER_PING. PEER_HELLO is a message like others.

A PEER_MESSAGE is a **head** (frame header, size of the message, message) and a payload, which is entries as they lie
in the log. The frame's checksum covers the head alone: entries have checksums of their own, and whoever sends or
receives megabytes of them need not touch them for the frame's sake.
"""

import struct
from typing import Final, NamedTuple

import xxhash
from typing_extensions import Buffer

from bezant.protocol.errors import LocalProtocolError, RemoteProtocolError
from bezant.protocol.frames import (
    CHECKSUM_OFFSET_END,
    FRAME_HEADER_SIZE,
    HEADER_REST,
    PROTOCOL_VERSION,
    FrameHeader,
    Operation,
)

PEER_FRAME_SIZE_MAX: Final = 16 << 20
PEER_MESSAGE_SIZE_MAX: Final = 32 << 10
PEER_CONTROL_SIZE_MAX: Final = 4 << 10
"""Bytes of a frame between nodes that is no PEER_MESSAGE, at most."""
PEER_PREFIX_SIZE: Final = FRAME_HEADER_SIZE + 4
"""Bytes in front of the message in a PEER_MESSAGE."""

_MESSAGE_SIZE: Final = struct.Struct("<I")
_CHECKSUM: Final = struct.Struct("<Q")
_CLOCKS: Final = struct.Struct("<qqq")


def encode_peer_head(message: bytes, payload_size: int) -> bytes:
    """Encode all of a PEER_MESSAGE but its payload, which has `payload_size` bytes and is sent behind it.

    Raises `LocalProtocolError` if the message or the frame would be too long.
    """
    length = PEER_PREFIX_SIZE + len(message) + payload_size
    if len(message) > PEER_MESSAGE_SIZE_MAX or length > PEER_FRAME_SIZE_MAX:
        raise LocalProtocolError(
            f"a message of {len(message)} bytes with {payload_size} of payload is over the {PEER_MESSAGE_SIZE_MAX} "
            f"that a message or the {PEER_FRAME_SIZE_MAX} that its frame may have"
        )
    rest = HEADER_REST.pack(length, Operation.PEER_MESSAGE, PROTOCOL_VERSION, 0, 0, 0, 0, 0)
    covered = b"".join((rest, _MESSAGE_SIZE.pack(len(message)), message))
    return _CHECKSUM.pack(xxhash.xxh3_64_intdigest(covered)) + covered


def peer_head_size(header: FrameHeader, prefix: Buffer) -> int:
    """Return how many bytes the head of a PEER_MESSAGE has, given its first PEER_PREFIX_SIZE bytes.

    Raises `RemoteProtocolError` if that is too many, or more than the frame has.
    """
    (message_size,) = _MESSAGE_SIZE.unpack_from(prefix, FRAME_HEADER_SIZE)
    if message_size > min(PEER_MESSAGE_SIZE_MAX, header.length - PEER_PREFIX_SIZE):
        raise RemoteProtocolError(
            f"a message has at most {PEER_MESSAGE_SIZE_MAX} bytes and lies within its frame of {header.length}; "
            f"this one would have {message_size}"
        )
    return PEER_PREFIX_SIZE + int(message_size)


def check_peer_head(header: FrameHeader, head: memoryview) -> memoryview:
    """Check the checksum of a whole head and return the message in it. Raises `RemoteProtocolError`."""
    if xxhash.xxh3_64_intdigest(head[CHECKSUM_OFFSET_END:]) != header.checksum:
        raise RemoteProtocolError("the checksum of the frame is wrong")
    return head[PEER_PREFIX_SIZE:]


class PeerClocks(NamedTuple):
    """Body of PEER_PING: clocks, in nanoseconds since 1970; see GROUPS.md."""

    sent_ns: int
    received_ns: int = 0
    answered_ns: int = 0

    def encode(self) -> bytes:
        """Encode the body."""
        return _CLOCKS.pack(*self)

    @classmethod
    def decode(cls, body: Buffer) -> "PeerClocks":
        """Decode a body. Raises `RemoteProtocolError`."""
        size = memoryview(body).nbytes
        if size != _CLOCKS.size:
            raise RemoteProtocolError(f"PEER_PING has a body of {_CLOCKS.size} bytes, not {size}")
        return cls(*_CLOCKS.unpack(body))
