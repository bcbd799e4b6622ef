"""Control messages: msgpack bodies of frames that are too rare to be records, as msgspec structs.

Fields may be added at the end with a default; none is ever renamed or given another meaning.
"""

from typing import TypeVar

import msgspec
from typing_extensions import Buffer

from bezant.protocol.errors import RemoteProtocolError, UnsupportedFormat


class Hello(msgspec.Struct, frozen=True):
    """First frame of a client."""

    client: str
    protocol_version: int
    token: str = ""


class Welcome(msgspec.Struct, frozen=True):
    """The node's answer to `Hello`: who it is and what it takes.

    ``leader`` is the client address, "host:port", of the node that executes commands: empty if none is known; on a
    node with ``node_id`` 0, which is alone, it says nothing. ``members`` are the client addresses of all nodes of the
    group. A node leads if ``leader`` is its own client address.
    """

    server: str
    protocol_version: int
    log_id: str
    shard: int
    rules_version: int
    kernel_digest: str
    frame_size_max: int
    batch_count_max: int
    connection_bytes_in_flight_max: int
    clock_ns: int
    node_id: int = 0
    leader: str = ""
    members: list[str] = []


class ErrorMessage(msgspec.Struct, frozen=True):
    """Body of an ERROR frame; ``code`` is a `FrameError`. ``leader`` is as in `Welcome`."""

    code: int
    message: str
    leader: str = ""


class ListAccounts(msgspec.Struct, frozen=True):
    """Asks for `count` accounts in the order in which they were opened, from `cursor` (0 at first).

    The reply is an array of account records; the next cursor is `cursor` plus their number. A node may answer fewer
    than asked, and never more than ACCOUNT_COUNT_MAX; an empty reply ends the list.
    """

    cursor: int
    count: int


class Currency(msgspec.Struct, frozen=True):
    """A registered currency: its code and the decimals of its minor unit (0 to 18)."""

    code: str
    decimals: int


class Currencies(msgspec.Struct, frozen=True):
    """The registry, in order of registration."""

    currencies: list[Currency]


class Statistics(msgspec.Struct, frozen=True):
    """Counters of a node since it started; times are seconds of the reactor's clock."""

    uptime_s: float
    connections: int
    commands: int
    events: int
    accounts: int
    entries: int
    syncs: int
    syncs_inline: int
    bytes_in: int
    bytes_out: int
    log_bytes: int
    durable_index: int
    durable_sequence: int
    bytes_in_flight: int
    stage_s: dict[str, float] = {}
    loop_stall_max_ms: float = 0.0
    durable: bool = True
    replicas: int = 1
    loop_stall_recent_ms: float = 0.0


class Member(msgspec.Struct, frozen=True):
    """A node of a group. ``node_id`` (1 to 2^31-1) is the operator's name for it, ``incarnation`` (a positive 63-bit
    number, drawn when its data folder was initialised) that of its disk; addresses are ``host:port``."""

    node_id: int
    incarnation: int
    peer_address: str
    client_address: str


class Configuration(msgspec.Struct, frozen=True):
    """Who belongs to a group and who votes: the body of an entry of kind CONFIGURATION. All lists but ``members`` are
    node ids.

    It is joint if ``voters_outgoing`` is not empty: then a quorum is a majority of ``voters`` and a majority of
    ``voters_outgoing``. ``learners`` receive the log and do not vote; ``learners_next`` are outgoing voters that become
    learners when the joint configuration is left (Ongaro's dissertation, sections 4.2.2 and 4.3).
    """

    members: list[Member]
    voters: list[int]
    voters_outgoing: list[int] = []
    learners: list[int] = []
    learners_next: list[int] = []


class ControlEntry(msgspec.Struct, frozen=True):
    """Body of a log entry of kind CONTROL: one change of the replicated configuration."""

    currencies: list[Currency] = []
    rules_version: int = 0
    created_by: str = ""


class _StrictCurrency(Currency, frozen=True, forbid_unknown_fields=True):
    """A currency, and nothing else."""


class StrictControlEntry(ControlEntry, frozen=True, forbid_unknown_fields=True):
    """A control entry of which every field, on whatever level, is known here; see `decode_control_entry`."""

    currencies: list[_StrictCurrency] = []  # type: ignore[assignment]  # lists are invariant; these are never changed


_Message = TypeVar("_Message")


def encode_message(message: msgspec.Struct) -> bytes:
    """Encode a control message."""
    return msgspec.msgpack.encode(message)


def decode_message(body: Buffer, kind: type[_Message]) -> _Message:
    """Decode a control message. Raises `RemoteProtocolError` with what does not fit."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The last two reach us unwrapped: a string that is not UTF-8, and a body nested some thousand levels deep.
        raise RemoteProtocolError(f"the body is not a {kind.__name__}: {error}") from error


def decode_control_entry(body: Buffer) -> ControlEntry:
    """Decode the body of a control entry. Raises `RemoteProtocolError`, and `UnsupportedFormat` for unknown fields.

    A peer may pass over a field that it does not know; who must do all that an entry says may not.
    """
    control = decode_message(body, ControlEntry)
    try:
        decode_message(body, StrictControlEntry)
    except RemoteProtocolError as error:
        raise UnsupportedFormat(f"the control entry says more than is known here: {error}") from error
    return control
