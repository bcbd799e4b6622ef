"""Claim: a frame means the same however the network cuts it, and a damaged one is refused, never misread.

One list of frames drives encoder and decoder. Its header bytes are written out, not computed: they freeze the layout,
the byte order and the checksum.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from bezant.protocol.errors import LocalProtocolError, RemoteProtocolError
from bezant.protocol.frames import (
    BATCH_COUNT_MAX,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    PROTOCOL_VERSION,
    FrameFlag,
    FrameHeader,
    FrameReader,
    Operation,
    check_frame,
    decode_header,
    encode_frame,
    frame_checksum,
)
from bezant.protocol.records import COMMAND, RESULT_SIZE

REPLY = int(FrameFlag.REPLY)


class FrameCase(NamedTuple):
    """One frame: the arguments that encode it, and its header as hex."""

    name: str
    operation: int
    request_id: int
    body: bytes
    flags: int
    timeout_ms: int
    shard: int
    map_version: int
    header_hex: str

    @property
    def wire(self) -> bytes:
        """The whole frame as it travels."""
        return bytes.fromhex(self.header_hex) + self.body

    @property
    def header(self) -> FrameHeader:
        """What decoding must give."""
        checksum = int.from_bytes(bytes.fromhex(self.header_hex)[:8], "little")
        length = FRAME_HEADER_SIZE + len(self.body)
        return FrameHeader(
            checksum,
            length,
            self.operation,
            1,
            self.flags,
            self.request_id,
            self.timeout_ms,
            self.shard,
            self.map_version,
        )

    def encode(self) -> bytes:
        """Encode the case with the product's encoder."""
        return encode_frame(
            self.operation,
            self.request_id,
            self.body,
            flags=self.flags,
            timeout_ms=self.timeout_ms,
            shard=self.shard,
            map_version=self.map_version,
        )


def _case(
    name: str,
    operation: int,
    request_id: int,
    body: bytes,
    header_hex: str,
    *,
    flags: int = 0,
    timeout_ms: int = 0,
    shard: int = 0,
    map_version: int = 0,
) -> FrameCase:
    return FrameCase(name, operation, request_id, body, flags, timeout_ms, shard, map_version, header_hex)


FRAME_CASES = [
    _case(
        "hello",
        Operation.HELLO,
        1,
        b"\x82\xa6client\xa1t\xb0protocol_version\x01",
        "533966d4f1317461 3c00000001010000 0100000000000000 0000000000000000",
    ),
    _case(
        "welcome",
        Operation.HELLO,
        1,
        b"\x80",
        "e114ae5607ca3d92 2100000001010100 0100000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case(
        "ping without body",
        Operation.PING,
        2,
        b"",
        "00af1a57029e9c65 2000000002010000 0200000000000000 8813000000000000",
        timeout_ms=5000,
    ),
    _case(
        "ping reply",
        Operation.PING,
        2,
        b"",
        "dae21e885e03ec15 2000000002010100 0200000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case(
        "ping of one byte",
        Operation.PING,
        3,
        b"\x00",
        "0f6e8cfb677c0b57 2100000002010000 0300000000000000 0000000000000000",
    ),
    _case(
        "commands",
        Operation.COMMANDS,
        4,
        bytes(range(128)),
        "0cf981f5680cec42 a000000003010000 0400000000000000 fa00000000000000",
        timeout_ms=250,
    ),
    _case(
        "results",
        Operation.COMMANDS,
        4,
        bytes(range(64)),
        "c14cb9dcacac8e72 6000000003010100 0400000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case(
        "account look-up",
        Operation.LOOKUP_ACCOUNTS,
        5,
        bytes(range(32)),
        "5b7ef55da36df418 4000000004010000 0500000000000000 0000000000000000",
    ),
    _case(
        "accounts",
        Operation.LOOKUP_ACCOUNTS,
        5,
        b"\xff" * 320,
        "27103426d646b5d1 6001000004010100 0500000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case(
        "event look-up",
        Operation.LOOKUP_EVENTS,
        6,
        bytes(range(32)),
        "9c4d95d50e6f67a1 4000000005010000 0600000000000000 0000000000000000",
    ),
    _case(
        "events",
        Operation.LOOKUP_EVENTS,
        6,
        bytes(208),
        "73946300a74106eb f000000005010100 0600000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case(
        "account list",
        Operation.LIST_ACCOUNTS,
        7,
        b"\x82\xa6cursor\x00\xa5count\x0a",
        "a275a81314b14509 3000000006010000 0700000000000000 0000000000000000",
    ),
    _case(
        "currency list",
        Operation.LIST_CURRENCIES,
        8,
        b"",
        "cbcb7500b463e08a 2000000007010000 0800000000000000 0000000000000000",
    ),
    _case(
        "currency",
        Operation.REGISTER_CURRENCY,
        9,
        b"\x82\xa4code\xa6POINTS\xa8decimals\x00",
        "425a8783a24f5342 3700000008010000 0900000000000000 0000000000000000",
    ),
    _case(
        "statistics",
        Operation.STATISTICS,
        10,
        b"",
        "8ba54138f9f9e320 2000000009010000 0a00000000000000 0000000000000000",
    ),
    _case(
        "error",
        Operation.ERROR,
        11,
        b"\x82\xa4code\x04\xa7message\xa2no",
        "4c6be9382e647e47 32000000ff010100 0b00000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case(
        "error about no request",
        Operation.ERROR,
        0,
        b"\x82\xa4code\x01\xa7message\xa0",
        "2250257a4c1a0b4e 30000000ff010100 0000000000000000 0000000000000000",
        flags=REPLY,
    ),
    _case("operation not known", 254, 12, b"?", "0117dc79240974be 21000000fe010000 0c00000000000000 0000000000000000"),
    _case(
        "all fields at their least", 0, 0, b"", "a162d5704560430d 2000000000010000 0000000000000000 0000000000000000"
    ),
    _case(
        "all fields at their greatest",
        0xFF,
        2**64 - 1,
        b"\xff",
        "dc9c806b976421bd 21000000ff01ffff ffffffffffffffff ffffffffffffffff",
        flags=0xFFFF,
        timeout_ms=2**32 - 1,
        shard=0xFFFF,
        map_version=0xFFFF,
    ),
    _case(
        "fields in their places",
        1,
        0x1112131415161718,
        b"",
        "4921a694c16d92ec 2000000001012221 1817161514131211 3433323142415251",
        flags=0x2122,
        timeout_ms=0x31323334,
        shard=0x4142,
        map_version=0x5152,
    ),
    _case(
        "as long as a frame may be",
        Operation.PING,
        13,
        bytes(FRAME_SIZE_MAX - FRAME_HEADER_SIZE),
        "9e6a81a8c3d0a4df 0000100002010000 0d00000000000000 0000000000000000",
    ),
]

Frames = list[tuple[FrameHeader, bytes]]
CASE_IDS = [case.name for case in FRAME_CASES]
SMALL_CASES = [case for case in FRAME_CASES if len(case.wire) < 1000]
every_case = pytest.mark.parametrize("case", FRAME_CASES, ids=CASE_IDS)


def read(pieces: Iterable[bytes]) -> Frames:
    """Feed the pieces to a fresh reader and copy what it gives."""
    reader = FrameReader()
    return [(header, bytes(body)) for piece in pieces for header, body in reader.feed(piece)]


def expected(cases: Iterable[FrameCase]) -> Frames:
    return [(case.header, case.body) for case in cases]


def pieces_of(wire: bytes, size: int) -> list[bytes]:
    return [wire[start : start + size] for start in range(0, len(wire), size)]


def cut(wire: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(places), len(wire)]
    return [wire[start:end] for start, end in pairwise(bounds)]


@every_case
def test_encodes_to_exactly_these_bytes(case: FrameCase) -> None:
    assert case.encode() == case.wire


@every_case
def test_decodes_whole(case: FrameCase) -> None:
    assert decode_header(case.wire) == case.header
    assert check_frame(case.wire) == case.header
    assert frame_checksum(case.wire) == case.header.checksum
    assert read([case.wire]) == expected([case])


@every_case
def test_decodes_one_byte_at_a_time(case: FrameCase) -> None:
    # The frame of a mebibyte goes in larger odd pieces behind its first bytes, which is where a byte matters.
    pieces = pieces_of(case.wire[:400], 1) + pieces_of(case.wire[400:], 4099)
    reader = FrameReader()
    for piece in pieces[:-1]:
        assert reader.feed(piece) == []
    [(header, body)] = reader.feed(pieces[-1])
    assert (header, bytes(body)) == (case.header, case.body)


@every_case
def test_decodes_with_trailing_bytes(case: FrameCase) -> None:
    follower = FRAME_CASES[5]
    for kept in (1, FRAME_HEADER_SIZE - 1, FRAME_HEADER_SIZE, len(follower.wire) - 1):
        reader = FrameReader()
        [(header, body)] = reader.feed(case.wire + follower.wire[:kept])
        assert (header, bytes(body)) == (case.header, case.body)
        [(header, body)] = reader.feed(follower.wire[kept:])
        assert (header, bytes(body)) == (follower.header, follower.body)


def test_decodes_all_cases_as_one_stream() -> None:
    stream = b"".join(case.wire for case in FRAME_CASES)
    assert read([stream]) == expected(FRAME_CASES)
    assert read(pieces_of(stream, 65_537)) == expected(FRAME_CASES)
    assert read(pieces_of(stream, 65_537)[:-1]) == expected(FRAME_CASES[:-1])


@given(st.lists(st.sampled_from(SMALL_CASES), max_size=6), st.data())
def test_every_cut_of_a_stream_gives_the_same_frames(cases: list[FrameCase], data: st.DataObject) -> None:
    stream = b"".join(case.wire for case in cases)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert read(cut(stream, places)) == expected(cases)


def test_an_empty_read_changes_nothing() -> None:
    case = FRAME_CASES[0]
    assert read([b"", case.wire[:20], b"", case.wire[20:], b""]) == expected([case])


def test_bodies_of_split_frames_outlive_what_was_fed() -> None:
    case = FRAME_CASES[5]
    reader = FrameReader()
    buffer = bytearray(case.wire[:50])
    assert reader.feed(buffer) == []
    buffer[:] = bytes(50)
    tail = bytearray(case.wire[50:])
    [(_, body)] = reader.feed(tail)
    tail[:] = bytes(len(tail))
    assert bytes(body) == case.body


def test_the_header_is_what_the_specification_says_byte_by_byte() -> None:
    body = b"body"
    rest = struct.pack("<IBBHQIHH", 36, Operation.PING, PROTOCOL_VERSION, 0, 7, 250, 3, 9) + body
    wire = struct.pack("<Q", xxhash.xxh3_64(rest).intdigest()) + rest
    assert encode_frame(Operation.PING, 7, body, timeout_ms=250, shard=3, map_version=9) == wire


def test_records_are_encoded_as_they_lie_in_memory() -> None:
    commands = np.zeros(3, COMMAND)
    commands["amount"] = [1, 2, 3]
    frame = encode_frame(Operation.COMMANDS, 1, commands)
    assert frame == encode_frame(Operation.COMMANDS, 1, commands.tobytes())
    assert check_frame(frame).length == FRAME_HEADER_SIZE + 3 * COMMAND.itemsize
    assert encode_frame(Operation.COMMANDS, 1, commands[:0]) == encode_frame(Operation.COMMANDS, 1)


def test_a_full_batch_and_its_results_fit_in_a_frame_and_one_more_does_not() -> None:
    assert BATCH_COUNT_MAX == 8191
    assert len(encode_frame(Operation.COMMANDS, 1, np.zeros(BATCH_COUNT_MAX, COMMAND))) <= FRAME_SIZE_MAX
    assert FRAME_HEADER_SIZE + BATCH_COUNT_MAX * RESULT_SIZE <= FRAME_SIZE_MAX
    with pytest.raises(LocalProtocolError, match="over the 1048576"):
        encode_frame(Operation.COMMANDS, 1, np.zeros(BATCH_COUNT_MAX + 1, COMMAND))


@pytest.mark.parametrize(
    ("operation", "request_id", "options"),
    [
        (256, 1, {}),
        (-1, 1, {}),
        (1, 2**64, {}),
        (1, -1, {}),
        (1, 1, {"flags": 2**16}),
        (1, 1, {"timeout_ms": 2**32}),
        (1, 1, {"timeout_ms": -1}),
        (1, 1, {"shard": 2**16}),
        (1, 1, {"map_version": -1}),
    ],
)
def test_fields_that_do_not_fit_are_refused_before_they_are_sent(
    operation: int, request_id: int, options: dict[str, int]
) -> None:
    with pytest.raises(LocalProtocolError, match="does not fit"):
        encode_frame(operation, request_id, **options)


def with_field(offset: int, code: str, value: int, *, seal: bool) -> bytes:
    """A good frame with one header field replaced, its checksum made right again or not."""
    frame = bytearray(FRAME_CASES[5].wire)
    struct.pack_into(code, frame, offset, value)
    if seal:
        struct.pack_into("<Q", frame, 0, frame_checksum(frame))
    return bytes(frame)


DAMAGED = [
    ("checksum off by one", with_field(0, "<Q", FRAME_CASES[5].header.checksum ^ 1, seal=False), "checksum"),
    ("checksum zero", with_field(0, "<Q", 0, seal=False), "checksum"),
    ("body changed", FRAME_CASES[5].wire[:-1] + b"\x00", "checksum"),
    ("operation changed", with_field(12, "<B", 200, seal=False), "checksum"),
    ("version 0", with_field(13, "<B", 0, seal=True), "version 0"),
    ("version of the future", with_field(13, "<B", 2, seal=True), "version 2"),
    ("length 0", with_field(8, "<I", 0, seal=True), "32 to 1048576 bytes, not 0"),
    ("length below a header", with_field(8, "<I", 31, seal=True), "not 31"),
    ("length over the limit", with_field(8, "<I", FRAME_SIZE_MAX + 1, seal=True), "not 1048577"),
    ("length of 4 GiB", with_field(8, "<I", 2**32 - 1, seal=True), "not 4294967295"),
]
DAMAGED_IDS = [name for name, _, _ in DAMAGED]
every_damage = pytest.mark.parametrize(("_name", "wire", "message"), DAMAGED, ids=DAMAGED_IDS)


@every_damage
def test_damage_is_refused_by_the_check(_name: str, wire: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        check_frame(wire)


@every_damage
def test_damage_is_refused_by_the_reader_however_it_arrives(_name: str, wire: bytes, message: str) -> None:
    for size in (len(wire), 1, 33):
        with pytest.raises(RemoteProtocolError, match=message):
            read(pieces_of(wire, size))


@every_damage
def test_frames_before_damage_are_read_and_nothing_after_it_is(_name: str, wire: bytes, message: str) -> None:
    case = FRAME_CASES[0]
    reader = FrameReader()
    assert len(reader.feed(case.wire)) == 1
    with pytest.raises(RemoteProtocolError, match=message):
        reader.feed(wire + case.wire)
    for again in (case.wire, b""):
        with pytest.raises(RemoteProtocolError, match=message):
            reader.feed(again)


def test_a_length_out_of_range_is_refused_without_waiting_for_the_body() -> None:
    reader = FrameReader()
    header = with_field(8, "<I", FRAME_SIZE_MAX + 1, seal=True)[:FRAME_HEADER_SIZE]
    assert reader.feed(header[:-1]) == []
    with pytest.raises(RemoteProtocolError, match="1048577"):
        reader.feed(header[-1:])


def test_a_frame_that_is_cut_or_has_more_than_its_header_says_is_refused() -> None:
    wire = FRAME_CASES[5].wire
    for wrong in (wire[:-1], wire + b"\x00"):
        with pytest.raises(RemoteProtocolError, match="the header says 160 bytes"):
            check_frame(wrong)


def test_no_single_flipped_bit_goes_unnoticed() -> None:
    wire = FRAME_CASES[5].wire
    for bit in range(8 * len(wire)):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            check_frame(flipped)


def outcome(action: Callable[[], Frames]) -> Frames | str:
    try:
        return action()
    except RemoteProtocolError as error:
        return str(error)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_but_never_taken_for_a_frame(garbage: bytes) -> None:
    result = outcome(lambda: read([garbage]))
    assert result == [] or isinstance(result, str)


@given(st.sampled_from(SMALL_CASES), st.binary(min_size=1, max_size=100), st.lists(st.integers(0, 500), max_size=8))
def test_garbage_behind_a_frame_is_refused_alike_however_it_arrives(
    case: FrameCase, garbage: bytes, places: list[int]
) -> None:
    stream = case.wire + garbage
    whole = outcome(lambda: read([stream]))
    in_pieces = outcome(lambda: read(cut(stream, [min(place, len(stream)) for place in places])))
    assert whole == in_pieces
