"""Claim: messages about states and histories are on the wire as they are written down, and nothing else passes."""

import typing

import msgspec
import pytest

from bezant.protocol import transfer_messages
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.raft_messages import Heartbeat, RaftMessage
from bezant.protocol.transfer_messages import (
    CHECKSUM_MAX,
    FAILED,
    PART_SIZE_MAX,
    PARTS_ASKED_MAX,
    PROBLEM_LENGTH_MAX,
    EntriesReply,
    EntriesRequest,
    PartReply,
    PartRequest,
    PeerMessage,
    SnapshotOffer,
    SnapshotReply,
    TransferMessage,
    checksum_of,
    decode_peer_message,
    encode_peer_message,
)

MESSAGES: list[tuple[TransferMessage, str]] = [
    (SnapshotOffer(1, 2, 5, CHECKSUM_MAX, 100, 4, 8192), f"[16,1,2,5,{CHECKSUM_MAX},100,4,8192]"),
    (SnapshotReply(2, 1, 5, 77, 1), '[17,2,1,5,77,1,""]'),
    (SnapshotReply(2, 1, 5, 77, FAILED, "no room"), '[17,2,1,5,77,3,"no room"]'),
    (PartRequest(2, 1, 5, 77, 0, 0, 1), "[18,2,1,5,77,0,0,1]"),
    (PartReply(1, 2, 5, 77, 3, 4096, 99), "[19,1,2,5,77,3,4096,99]"),
    (EntriesRequest(2, 1, 5, 1, 12), "[20,2,1,5,1,12]"),
    (EntriesReply(1, 2, 5, 1), "[21,1,2,5,1]"),
]
REFUSED = [
    ("an unknown message", [15, 1, 2, 5]),
    ("a state that is none", [17, 2, 1, 5, 77, 4, ""]),
    ("a problem that is told too long", [17, 2, 1, 5, 77, 3, "x" * (PROBLEM_LENGTH_MAX + 1)]),
    ("nothing asked for", [18, 2, 1, 5, 77, 0, 0, 0]),
    ("too much asked for", [18, 2, 1, 5, 77, 0, 0, PARTS_ASKED_MAX * PART_SIZE_MAX + 1]),
    ("an offset below 0", [18, 2, 1, 5, 77, 0, -1, 1]),
    ("entries from before the first", [20, 2, 1, 5, 0, 12]),
    ("a name beyond the last", [16, 1, 2, 5, CHECKSUM_MAX + 1, 100, 4, 8192]),
]


def test_every_message_is_tested_here() -> None:
    assert {type(message) for message, _ in MESSAGES} == set(typing.get_args(TransferMessage))
    structs = {item for item in vars(transfer_messages).values() if isinstance(item, type)}
    own = {
        item for item in structs if issubclass(item, msgspec.Struct) and item.__module__.endswith("transfer_messages")
    }
    assert own == set(typing.get_args(TransferMessage))
    assert set(typing.get_args(PeerMessage)) == {*typing.get_args(TransferMessage), *typing.get_args(RaftMessage)}


@pytest.mark.parametrize(("message", "json"), MESSAGES)
def test_messages_on_the_wire(message: TransferMessage, json: str) -> None:
    encoded = encode_peer_message(message)
    assert encoded == msgspec.msgpack.encode(msgspec.json.decode(json))
    assert decode_peer_message(memoryview(encoded)) == message


@pytest.mark.parametrize(("message", "_"), MESSAGES)
def test_what_is_cut_short_is_refused(message: TransferMessage, _: str) -> None:
    encoded = encode_peer_message(message)
    for length in range(len(encoded)):
        with pytest.raises(RemoteProtocolError):
            decode_peer_message(encoded[:length])


@pytest.mark.parametrize(("_", "values"), REFUSED)
def test_what_cannot_be_is_refused(_: str, values: list[object]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_peer_message(msgspec.msgpack.encode(values))


def test_messages_of_raft_pass_and_are_checked_as_ever() -> None:
    message = Heartbeat(1, 2, 5, 9, 3, 1)
    assert decode_peer_message(encode_peer_message(message)) == message
    with pytest.raises(RemoteProtocolError):
        decode_peer_message(msgspec.msgpack.encode([3, 1, 2, 5, 7, 3, [], 8, 6, 1]))


def test_checksums_are_signed_numbers() -> None:
    assert 0 <= checksum_of(b"") <= CHECKSUM_MAX
    assert checksum_of(b"a") != checksum_of(b"b")


def test_a_problem_that_is_no_text_is_refused() -> None:
    body = encode_peer_message(SnapshotReply(2, 1, 5, 77, FAILED, "no room")).replace(b"room", b"r\xff\xffm")
    with pytest.raises(RemoteProtocolError, match="not a message"):
        decode_peer_message(body)
