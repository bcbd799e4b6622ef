"""Claim: however the network splits the bytes, the frames are the same; nothing is believed before it is checked."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from bezant.net.peers import inbox as module
from bezant.net.peers.inbox import RECEIVE_BUFFER_SIZE, BadFrame, Inbox
from bezant.protocol.frames import FrameError, Operation, encode_frame
from bezant.protocol.peer_frames import (
    PEER_CONTROL_SIZE_MAX,
    PEER_FRAME_SIZE_MAX,
    PEER_MESSAGE_SIZE_MAX,
    PEER_PREFIX_SIZE,
    encode_peer_head,
)

PING = encode_frame(Operation.PEER_PING, 7, bytes(range(24)))
SMALL = encode_peer_head(b"message", 5) + b"12345"
EMPTY = encode_peer_head(b"", 0)
LARGE_PAYLOAD = bytes(range(256)) * 1024
LARGE = encode_peer_head(b"large", len(LARGE_PAYLOAD)) + LARGE_PAYLOAD
LONGEST = encode_peer_head(bytes(PEER_MESSAGE_SIZE_MAX), 1) + b"x"


def receive(inbox: Inbox, data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """What comes of these bytes: (operation, body, payload) of each frame."""
    while data:
        space = inbox.space()
        part, data = data[: len(space)], data[len(space) :]
        assert part
        space[: len(part)] = part
        inbox.added(len(part))
        while (frame := inbox.next()) is not None:
            yield frame.header.operation, bytes(frame.body), bytes(frame.payload)


def opened() -> Inbox:
    inbox = Inbox()
    inbox.takes_messages = True
    return inbox


EXPECTED = {
    PING: (18, bytes(range(24)), b""),
    SMALL: (17, b"message", b"12345"),
    EMPTY: (17, b"", b""),
    LARGE: (17, b"large", LARGE_PAYLOAD),
    LONGEST: (17, bytes(PEER_MESSAGE_SIZE_MAX), b"x"),
}


@pytest.mark.parametrize("frame", [PING, SMALL, EMPTY], ids=["ping", "small", "empty"])
def test_small_frames_split_anywhere(frame: bytes) -> None:
    for split in range(len(frame) + 1):
        inbox = opened()
        found = [*receive(inbox, frame[:split]), *receive(inbox, frame[split:])]
        assert found == [EXPECTED[frame]]


@pytest.mark.parametrize("size", [1, 31, 4096, RECEIVE_BUFFER_SIZE - 1, RECEIVE_BUFFER_SIZE, 1 << 20])
def test_a_stream_of_all_kinds_in_parts_of_any_size(size: int) -> None:
    frames = [SMALL, LARGE, PING, LARGE, LARGE, EMPTY, LONGEST, SMALL, LONGEST, LONGEST, PING]
    if size < 100:  # one byte at a time is slow
        frames = [SMALL, PING, EMPTY, PING, SMALL]
    stream = b"".join(frames)
    inbox = opened()
    found = [frame for at in range(0, len(stream), size) for frame in receive(inbox, stream[at : at + size])]
    assert found == [EXPECTED[frame] for frame in frames]


@pytest.mark.parametrize("payload_size", [RECEIVE_BUFFER_SIZE + delta for delta in range(-60, 61, 4)])
def test_payloads_around_the_size_of_the_buffer(payload_size: int) -> None:
    payload = np.arange(payload_size, dtype=np.int64).astype(np.uint8).tobytes()
    frame = encode_peer_head(b"m", payload_size) + payload
    assert list(receive(opened(), frame * 3)) == [(17, b"m", payload)] * 3


def test_payloads_stay_valid_and_their_owner_may_write_into_them() -> None:
    inbox = opened()
    kept = []
    for text in (b"one", b"two"):
        for payload in (text, text * 40_000):
            data = encode_peer_head(text, len(payload)) + payload
            while data:
                space = inbox.space()
                count = min(len(space), len(data))
                space[:count] = data[:count]
                inbox.added(count)
                data = data[count:]
                while (frame := inbox.next()) is not None:
                    kept.append((frame.payload, payload))
    assert len(kept) == 4
    for view, payload in kept:
        assert view == payload
        view[:1] = b"!"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xff" * 64, FrameError.VERSION_UNSUPPORTED),
        (bytes(64), FrameError.VERSION_UNSUPPORTED),
        (SMALL[:8] + struct.pack("<I", 35) + SMALL[12:], FrameError.LENGTH_INVALID),
        (SMALL[:8] + struct.pack("<I", PEER_FRAME_SIZE_MAX + 1) + SMALL[12:], FrameError.LENGTH_INVALID),
        (PING[:8] + struct.pack("<I", PEER_CONTROL_SIZE_MAX + 1) + PING[12:], FrameError.LENGTH_INVALID),
        (PING[:8] + struct.pack("<I", 31) + PING[12:], FrameError.LENGTH_INVALID),
        (SMALL[:8] + struct.pack("<I", len(SMALL) + 1) + SMALL[12:], FrameError.CHECKSUM_WRONG),
        (SMALL[:32] + struct.pack("<I", len(SMALL)) + SMALL[36:], FrameError.CHECKSUM_WRONG),
        (SMALL[:40] + b"\xff" + SMALL[41:], FrameError.CHECKSUM_WRONG),
        (PING[:40] + b"\xff" + PING[41:], FrameError.CHECKSUM_WRONG),
    ],
    ids=lambda value: value.name if isinstance(value, FrameError) else f"{len(value)}-bytes-{value[12]}",
)
def test_damage_is_found(frame: bytes, code: FrameError) -> None:
    with pytest.raises(BadFrame) as raised:
        list(receive(opened(), frame))
    assert raised.value.code == code


def test_no_memory_is_given_out_for_a_length_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.np, "empty", lambda *_: pytest.fail("memory was given out"))
    head = bytearray(encode_peer_head(b"message", 1 << 20))
    head[0] ^= 1
    with pytest.raises(BadFrame):
        list(receive(opened(), bytes(head)))
    list(receive(opened(), encode_peer_head(b"message", 1 << 20)[:-1]))


def test_messages_are_not_taken_before_the_greeting() -> None:
    with pytest.raises(BadFrame) as raised:
        list(receive(Inbox(), SMALL))
    assert raised.value.code == FrameError.HELLO_EXPECTED


def test_the_longest_head_fits_into_the_buffer() -> None:
    assert PEER_PREFIX_SIZE + PEER_MESSAGE_SIZE_MAX < RECEIVE_BUFFER_SIZE
    assert PEER_CONTROL_SIZE_MAX < RECEIVE_BUFFER_SIZE
