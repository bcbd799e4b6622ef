"""What the members of a group say to each other: msgpack arrays, as msgspec structs.

On the wire a message is ``[tag, sender, receiver, term, fields...]``; fields may be added at the end with a default.
The bytes of the entries that an `Append` tells of ride beside it, back to back, as they lie in the log. Names of the
calls follow Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 2.
"""

from typing import Annotated, Final, TypeAlias

import msgspec
from typing_extensions import Buffer

from bezant.protocol.errors import RemoteProtocolError

NODE_ID_MAX: Final = (1 << 31) - 1
INDEX_MAX: Final = (1 << 62) - 1
SESSION_MAX: Final = (1 << 63) - 1
TERM_RUNS_MAX: Final = 1024
"""Runs of entries of one term in one `Append`, at most."""

NodeId: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=NODE_ID_MAX)]
Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INDEX_MAX)]
Term: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INDEX_MAX)]
Session: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=SESSION_MAX)]


class TermRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Entries of one term that follow each other, from `first_index` up to the next run or the last index."""

    first_index: Index
    term: Term


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A candidate asks for a vote; its log ends with the entry `last_index` of the term `last_term`.

    ``is_pre``: nobody's term changes, and ``term`` is the one that the sender would campaign in (Ongaro's dissertation,
    section 9.6). ``is_transfer``: the leader asked for this election, so that hearing from it is no reason to refuse.
    """

    sender: NodeId
    receiver: NodeId
    term: Term
    last_index: Index
    last_term: Term
    is_pre: bool
    is_transfer: bool


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The answer; ``term`` is the request's if a pre-vote is granted, otherwise the voter's own."""

    sender: NodeId
    receiver: NodeId
    term: Term
    is_pre: bool
    granted: bool


class Append(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The leader's entries `prev_index` + 1 to `last_index`, whose terms are `runs`; empty if both are the same.

    ``session`` names this leader's dealings with this receiver since it was last added; answers repeat it.
    """

    sender: NodeId
    receiver: NodeId
    term: Term
    prev_index: Index
    prev_term: Term
    runs: Annotated[tuple[TermRun, ...], msgspec.Meta(max_length=TERM_RUNS_MAX)]
    last_index: Index
    commit_index: Index
    session: Session


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Accepted: the sender's log is durable, and the same as the leader's, through `match_index`.

    Rejected: `match_index` is the `prev_index` that does not fit, and the sender's entry `hint_index` of the term
    `hint_term` is the last one that may. ``lost`` is 0, or a number drawn at the sender's start: the sender may have
    lost entries that it acknowledged before, so what is known of it counts no more and its session is now this number.
    """

    sender: NodeId
    receiver: NodeId
    term: Term
    rejected: bool
    match_index: Index
    hint_index: Index
    hint_term: Term
    session: Session
    lost: Session = 0


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The leader is there. `round` counts the leader's questions whether it still is the leader."""

    sender: NodeId
    receiver: NodeId
    term: Term
    commit_index: Index
    round: Index
    session: Session


class HeartbeatReply(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The answer; through `matched_index` the leader has shown the sender, in this term, that their logs agree.

    ``is_barred``: the sender has yet to catch up before it votes. ``first_index``: its log has the entries from there
    on; what lies before comes to it in its own time. ``may_lead``: it would campaign, were it asked to.
    """

    sender: NodeId
    receiver: NodeId
    term: Term
    round: Index
    session: Session
    matched_index: Index
    is_barred: bool = False
    first_index: Annotated[int, msgspec.Meta(ge=1, le=INDEX_MAX)] = 1
    may_lead: bool = True


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The leader hands over: campaign at once (Ongaro's dissertation, section 3.10)."""

    sender: NodeId
    receiver: NodeId
    term: Term


RaftMessage: TypeAlias = VoteRequest | VoteReply | Append | AppendReply | Heartbeat | HeartbeatReply | TimeoutNow

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[RaftMessage]] = msgspec.msgpack.Decoder(RaftMessage)


def encode_raft_message(message: RaftMessage) -> bytes:
    """Encode a message; the bytes of an `Append`'s entries are not part of it."""
    return _encoder.encode(message)


def decode_raft_message(body: Buffer) -> RaftMessage:
    """Decode a message. Raises `RemoteProtocolError` with what does not fit."""
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the body is not a message between members: {error}") from error
    if type(message) is Append:
        check_append(message)
    return message


def check_append(message: Append) -> None:
    """Terms never fall along a log and never exceed the leader's; runs leave nothing out. Entries of term 0 were
    written before there were elections."""
    index, term = message.prev_index, message.prev_term
    if index == 0 and term != 0:
        raise RemoteProtocolError(f"the entry before the first one is of term 0, not {term}")
    for number, run in enumerate(message.runs):
        is_next = run.first_index == index + 1 if number == 0 else run.first_index > index
        if not is_next or run.term < term or (number and run.term == term):
            raise RemoteProtocolError(f"entries {run.first_index} of term {run.term} cannot follow {index} of {term}")
        index, term = run.first_index, run.term
    if term > message.term:
        raise RemoteProtocolError(f"an entry of term {term} from a leader of term {message.term}")
    if message.last_index < index or (not message.runs and message.last_index != index):
        raise RemoteProtocolError(f"the last entry is {message.last_index}, but the terms are told up to {index}")
