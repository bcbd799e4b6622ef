"""What members say to each other when one begins with the state of another, and when one lacks a part of the history.

They travel like the messages of ``raft_messages.py`` and are lost like them: whoever asks asks again. All numbers that
name a state are made of what is in it, so that an answer to an old question cannot be taken for one to a new question.
"""

from typing import Annotated, Final, TypeAlias

import msgspec
import xxhash
from typing_extensions import Buffer

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.raft_messages import Append, Index, NodeId, RaftMessage, Term, check_append

PART_SIZE_MAX: Final = 256 << 10
"""Bytes of a file in one `PartReply`, at most."""
PARTS_ASKED_MAX: Final = 8
"""Parts that one `PartRequest` may ask for."""
ENTRIES_SIZE_MAX: Final = 256 << 10
"""Bytes of entries in one `EntriesReply`, at most, unless a single entry is longer."""
PROBLEM_LENGTH_MAX: Final = 500
RUN_NUMBER_MAX: Final = (1 << 62) - 1
CHECKSUM_MAX: Final = (1 << 63) - 1

Checksum: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=CHECKSUM_MAX)]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=RUN_NUMBER_MAX)]
Problem: TypeAlias = Annotated[str, msgspec.Meta(max_length=PROBLEM_LENGTH_MAX)]

UNWANTED: Final = 0
WANTED: Final = 1
INSTALLED: Final = 2
FAILED: Final = 3


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """The leader has the state behind its entry `index`, of the term `index_term`, in a checkpoint of `size` bytes and
    the files that it lists. ``snapshot`` names it: `checksum_of` the checkpoint's first page, on which all else rests.
    """

    sender: NodeId
    receiver: NodeId
    term: Term
    snapshot: Checksum
    index: Index
    index_term: Term
    size: Size


class SnapshotReply(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """What becomes of it: UNWANTED; WANTED, said again while it is worked on; INSTALLED, durably; FAILED, and why."""

    sender: NodeId
    receiver: NodeId
    term: Term
    snapshot: Checksum
    state: Annotated[int, msgspec.Meta(ge=0, le=3)]
    problem: Problem = ""


class PartRequest(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """Asks for `size` bytes of a file from an offset on: of run `run`, or of the checkpoint itself (0)."""

    sender: NodeId
    receiver: NodeId
    term: Term
    snapshot: Checksum
    run: Size
    offset: Size
    size: Annotated[int, msgspec.Meta(ge=1, le=PARTS_ASKED_MAX * PART_SIZE_MAX)]


class PartReply(msgspec.Struct, frozen=True, array_like=True, tag=19, gc=False):
    """At most PART_SIZE_MAX of them, beside the message, and their `checksum_of`. None: there is no such state."""

    sender: NodeId
    receiver: NodeId
    term: Term
    snapshot: Checksum
    run: Size
    offset: Size
    checksum: Checksum


class EntriesRequest(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """Asks for committed entries from `first_index` up to `last_index`, as many as one reply may have."""

    sender: NodeId
    receiver: NodeId
    term: Term
    first_index: Annotated[int, msgspec.Meta(ge=1)]
    last_index: Index


class EntriesReply(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """They are beside the message, as they lie in the log. None: the sender does not have them, or not yet."""

    sender: NodeId
    receiver: NodeId
    term: Term
    first_index: Annotated[int, msgspec.Meta(ge=1)]


TransferMessage: TypeAlias = SnapshotOffer | SnapshotReply | PartRequest | PartReply | EntriesRequest | EntriesReply
PeerMessage: TypeAlias = RaftMessage | TransferMessage

TRANSFER_MESSAGES: Final = (SnapshotOffer, SnapshotReply, PartRequest, PartReply, EntriesRequest, EntriesReply)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[PeerMessage]] = msgspec.msgpack.Decoder(PeerMessage)


def checksum_of(data: Buffer) -> int:
    """XXH3-64 without its lowest bit, so that it is a signed number like all others."""
    return xxhash.xxh3_64_intdigest(data) >> 1


def encode_peer_message(message: PeerMessage) -> bytes:
    """Encode a message; what rides beside it is no part of it."""
    return _encoder.encode(message)


def decode_peer_message(body: Buffer) -> PeerMessage:
    """Decode a message. Raises `RemoteProtocolError` with what does not fit."""
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the body is not a message between members: {error}") from error
    if type(message) is Append:
        check_append(message)
    return message
