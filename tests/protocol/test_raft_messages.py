"""Claim: messages between members survive the wire, tolerate later versions, and refuse what no member can mean."""

import typing

import msgspec
import pytest

from bezant.protocol import raft_messages
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.raft_messages import (
    INDEX_MAX,
    NODE_ID_MAX,
    SESSION_MAX,
    TERM_RUNS_MAX,
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    RaftMessage,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    decode_raft_message,
    encode_raft_message,
)

# Every message and, as JSON, the array that it is on the wire.
MESSAGES: list[tuple[RaftMessage, str]] = [
    (VoteRequest(1, 2, 3, 4, 2, True, False), "[1,1,2,3,4,2,true,false]"),
    (VoteReply(NODE_ID_MAX, 1, 0, False, True), "[2,2147483647,1,0,false,true]"),
    (Append(1, 2, 5, 7, 3, (TermRun(8, 3), TermRun(10, 5)), 12, 6, 1), "[3,1,2,5,7,3,[[8,3],[10,5]],12,6,1]"),
    (Append(1, 2, 5, 0, 0, (), 0, INDEX_MAX, SESSION_MAX), f"[3,1,2,5,0,0,[],0,{INDEX_MAX},{SESSION_MAX}]"),
    (Append(1, 2, 5, 1, 0, (TermRun(2, 0),), 2, 0, 1), "[3,1,2,5,1,0,[[2,0]],2,0,1]"),
    (AppendReply(2, 1, 5, False, 12, 0, 0, 1), "[4,2,1,5,false,12,0,0,1,0]"),
    (AppendReply(2, 1, 5, True, 12, 9, 4, 1, 77), "[4,2,1,5,true,12,9,4,1,77]"),
    (Heartbeat(1, 2, 5, 9, 3, 1), "[5,1,2,5,9,3,1]"),
    (HeartbeatReply(2, 1, 5, 3, 1, 12), "[6,2,1,5,3,1,12,false,1,true]"),
    (HeartbeatReply(2, 1, 5, 3, 1, 12, True, 7, False), "[6,2,1,5,3,1,12,true,7,false]"),
    (TimeoutNow(1, 2, 5), "[7,1,2,5]"),
]

REFUSED = [
    ("nothing", []),
    ("an unknown message", [8, 1, 2, 5]),
    ("no message", [0, 1, 2, 5]),
    ("too short", [7, 1, 2]),
    ("node 0", [7, 0, 2, 5]),
    ("a node beyond the last", [7, 1, NODE_ID_MAX + 1, 5]),
    ("a term below 0", [7, 1, 2, -1]),
    ("a term beyond the last", [7, 1, 2, INDEX_MAX + 1]),
    ("an index of another type", [5, 1, 2, 5, 9.5, 3, 1]),
    ("a session beyond the last", [5, 1, 2, 5, 9, 3, SESSION_MAX + 1]),
    ("entry 0 of a term", [3, 1, 2, 5, 0, 1, [], 0, 6, 1]),
    ("entries without terms", [3, 1, 2, 5, 7, 3, [], 8, 6, 1]),
    ("an end before the beginning", [3, 1, 2, 5, 7, 3, [], 6, 6, 1]),
    ("an end before the last run", [3, 1, 2, 5, 7, 3, [[8, 3], [10, 4]], 9, 6, 1]),
    ("a run that leaves an entry out", [3, 1, 2, 5, 7, 3, [[9, 3]], 9, 6, 1]),
    ("a run that begins too early", [3, 1, 2, 5, 7, 3, [[7, 3]], 9, 6, 1]),
    ("runs in the wrong order", [3, 1, 2, 5, 7, 3, [[8, 3], [8, 4]], 9, 6, 1]),
    ("terms that fall", [3, 1, 2, 5, 7, 3, [[8, 2]], 9, 6, 1]),
    ("terms that fall from run to run", [3, 1, 2, 5, 7, 3, [[8, 5], [9, 4]], 9, 6, 1]),
    ("two runs of one term", [3, 1, 2, 5, 7, 3, [[8, 4], [9, 4]], 9, 6, 1]),
    ("an entry of a later term than the leader's", [3, 1, 2, 5, 7, 3, [[8, 6]], 9, 6, 1]),
    ("an entry before of a later term than the leader's", [3, 1, 2, 5, 7, 6, [], 7, 6, 1]),
    ("more runs than may be", [3, 1, 2, 5, 0, 0, [[1 + n, 1 + n] for n in range(TERM_RUNS_MAX + 1)], 70_000, 0, 1]),
]


def test_every_message_is_tested_here() -> None:
    assert {type(message) for message, _ in MESSAGES} == set(typing.get_args(RaftMessage))
    structs = {
        item for item in vars(raft_messages).values() if isinstance(item, type) and issubclass(item, msgspec.Struct)
    }
    assert structs == {*typing.get_args(RaftMessage), TermRun}


@pytest.mark.parametrize(("message", "json"), MESSAGES)
def test_messages_on_the_wire(message: RaftMessage, json: str) -> None:
    encoded = encode_raft_message(message)
    assert encoded == msgspec.msgpack.encode(msgspec.json.decode(json))
    assert decode_raft_message(encoded) == message
    assert decode_raft_message(memoryview(encoded)) == message


@pytest.mark.parametrize(("message", "_"), MESSAGES)
def test_later_versions_may_say_more(message: RaftMessage, _: str) -> None:
    values = msgspec.msgpack.decode(encode_raft_message(message))
    assert decode_raft_message(msgspec.msgpack.encode([*values, "more", [1]])) == message


@pytest.mark.parametrize(("message", "_"), MESSAGES)
def test_what_is_cut_short_or_goes_on_is_refused(message: RaftMessage, _: str) -> None:
    encoded = encode_raft_message(message)
    for length in range(len(encoded)):
        with pytest.raises(RemoteProtocolError):
            decode_raft_message(encoded[:length])
    with pytest.raises(RemoteProtocolError):
        decode_raft_message(encoded + b"\0")


@pytest.mark.parametrize(
    ("values", "_"), [(values, name) for name, values in REFUSED], ids=[name for name, _ in REFUSED]
)
def test_what_no_member_can_mean_is_refused(values: list[object], _: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_raft_message(msgspec.msgpack.encode(values))


@pytest.mark.parametrize("body", [b"", b"\x80", b"\xc1", b"\x01", b"\x91" * 200_000, b"\xdd\xff\xff\xff\xff"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_raft_message(body)
