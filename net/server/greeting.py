"""What is looked at before a client has said HELLO: nothing but that, and no more bytes than it may have."""

from bezant.net.server.frame_kernels import (
    SCAN_CHECKSUM_WRONG,
    SCAN_INCOMPLETE,
    SCAN_LENGTH_INVALID,
    SCAN_OTHER_OPERATION,
    SCAN_VERSION_UNSUPPORTED,
)
from bezant.net.server.scan_errors import SCAN_HELLO_TOO_LONG
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    HELLO_SIZE_MAX,
    PROTOCOL_VERSION,
    decode_header,
    frame_checksum,
)


def check_greeting(received: memoryview) -> tuple[int, int]:
    """Why the first frame of a connection can, or cannot, be handled (SCAN_*), and its length; by no kernel.

    Whoever has not said who it is gets no memory for a large frame, which others might be without.
    """
    if len(received) < FRAME_HEADER_SIZE:
        return SCAN_INCOMPLETE, 0
    header = decode_header(received[:FRAME_HEADER_SIZE])
    status = SCAN_OTHER_OPERATION
    if header.version != PROTOCOL_VERSION:
        status = SCAN_VERSION_UNSUPPORTED
    elif not FRAME_HEADER_SIZE <= header.length <= FRAME_SIZE_MAX:
        status = SCAN_LENGTH_INVALID
    elif header.length > HELLO_SIZE_MAX:
        status = SCAN_HELLO_TOO_LONG
    elif len(received) < header.length:
        status = SCAN_INCOMPLETE
    elif frame_checksum(received[: header.length]) != header.checksum:
        status = SCAN_CHECKSUM_WRONG
    return status, header.length
