"""Claim: what nodes send each other is laid out as GROUPS.md says, and lengths are checked before they are believed."""

import struct

import pytest
import xxhash

from bezant.protocol.errors import LocalProtocolError, RemoteProtocolError
from bezant.protocol.frames import FRAME_HEADER_SIZE, Operation, decode_header
from bezant.protocol.peer_frames import (
    PEER_FRAME_SIZE_MAX,
    PEER_MESSAGE_SIZE_MAX,
    PEER_PREFIX_SIZE,
    PeerClocks,
    check_peer_head,
    encode_peer_head,
    peer_head_size,
)

from .test_readme import table


@pytest.mark.parametrize("message", [b"", b"m", bytes(PEER_MESSAGE_SIZE_MAX)])
@pytest.mark.parametrize(
    "payload_size", [0, 1, 3 << 20, PEER_FRAME_SIZE_MAX - PEER_PREFIX_SIZE - PEER_MESSAGE_SIZE_MAX]
)
def test_heads_come_back(message: bytes, payload_size: int) -> None:
    head = encode_peer_head(message, payload_size)
    header = decode_header(head)
    assert (header.operation, header.length) == (Operation.PEER_MESSAGE, len(head) + payload_size)
    assert peer_head_size(header, head) == len(head)
    assert bytes(check_peer_head(header, memoryview(head))) == message
    assert header.checksum == xxhash.xxh3_64_intdigest(head[8:])


def test_the_size_stands_where_the_table_says() -> None:
    offsets = {row["field"]: row["offset"] for row in table("Peer message body", "offset")}
    head = encode_peer_head(b"message", 9)
    at = FRAME_HEADER_SIZE + int(offsets["message_size"])
    assert struct.unpack_from("<I", head, at) == (7,)
    assert head[FRAME_HEADER_SIZE + int(offsets["message"]) :] == b"message"


def test_clocks_stand_where_the_table_says() -> None:
    body = PeerClocks(1, 2, 3).encode()
    rows = table("Peer ping body", "offset")
    assert tuple(row["field"] for row in rows) == PeerClocks._fields
    assert [struct.unpack_from("<q", body, int(row["offset"])) for row in rows] == [(1,), (2,), (3,)]
    assert PeerClocks.decode(body) == (1, 2, 3)


@pytest.mark.parametrize("size", [0, 23, 25])
def test_clocks_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        PeerClocks.decode(bytes(size))


@pytest.mark.parametrize(
    ("message_size", "payload_size"),
    [(PEER_MESSAGE_SIZE_MAX + 1, 0), (0, PEER_FRAME_SIZE_MAX - PEER_PREFIX_SIZE + 1), (1, PEER_FRAME_SIZE_MAX)],
)
def test_what_is_too_long_is_not_encoded(message_size: int, payload_size: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_peer_head(bytes(message_size), payload_size)


@pytest.mark.parametrize("message_size", [8, PEER_MESSAGE_SIZE_MAX + 1, 2**32 - 1])
def test_a_message_that_does_not_lie_within_its_frame_is_refused(message_size: int) -> None:
    head = encode_peer_head(b"message", 0)
    damaged = head[:FRAME_HEADER_SIZE] + struct.pack("<I", message_size) + head[PEER_PREFIX_SIZE:]
    with pytest.raises(RemoteProtocolError):
        peer_head_size(decode_header(damaged), damaged)


@pytest.mark.parametrize("at", range(len(encode_peer_head(b"message", 0))))
def test_every_byte_of_a_head_is_covered(at: int) -> None:
    head = bytearray(encode_peer_head(b"message", 0))
    head[at] ^= 1
    with pytest.raises(RemoteProtocolError):
        check_peer_head(decode_header(head), memoryview(head))
