"""What a client is told after bytes of which no frame can be made: each ends the connection."""

from typing import Final

from bezant.net.server.frame_kernels import SCAN_CHECKSUM_WRONG, SCAN_LENGTH_INVALID, SCAN_VERSION_UNSUPPORTED
from bezant.protocol.frames import FRAME_HEADER_SIZE, FRAME_SIZE_MAX, HELLO_SIZE_MAX, PROTOCOL_VERSION, FrameError

SCAN_HELLO_TOO_LONG: Final = 100
"""Beside the statuses of the kernel: the first frame has more bytes than HELLO may have."""

SCAN_ERRORS: Final = {
    SCAN_HELLO_TOO_LONG: (
        FrameError.HELLO_EXPECTED,
        f"the first frame of a connection is HELLO, of {HELLO_SIZE_MAX} bytes at most",
    ),
    SCAN_CHECKSUM_WRONG: (FrameError.CHECKSUM_WRONG, "the checksum of the frame is wrong"),
    SCAN_LENGTH_INVALID: (
        FrameError.LENGTH_INVALID,
        f"a frame has {FRAME_HEADER_SIZE} to {FRAME_SIZE_MAX} bytes",
    ),
    SCAN_VERSION_UNSUPPORTED: (
        FrameError.VERSION_UNSUPPORTED,
        f"this node speaks protocol version {PROTOCOL_VERSION}",
    ),
}
