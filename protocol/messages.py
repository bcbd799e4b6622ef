"""Control messages: msgpack bodies of frames that are too rare to be records, as msgspec structs.

Fields may be added at the end with a default; none is ever renamed or given another meaning.
"""

from typing import Final, Literal, TypeVar

import msgspec
from typing_extensions import Buffer

from bezant.protocol.access import Act, StrictAct, StrictTokenChange, TokenChange
from bezant.protocol.errors import RemoteProtocolError, UnsupportedFormat
from bezant.protocol.moves import MoveStep, StrictMoveStep
from bezant.protocol.placement import SlotMap, StrictSlotMap

MEMBERS_MAX: Final = 15
"""Members of a group, voters and others; more would make every answer slower and protect nobody."""
NODE_ID_MAX: Final = 2**31 - 1
INCARNATION_MAX: Final = 2**63 - 1


class Hello(msgspec.Struct, frozen=True):
    """First frame of a client."""

    client: str
    protocol_version: int
    token: str = ""


class Welcome(msgspec.Struct, frozen=True):
    """The node's answer to `Hello`: who it is and what it takes.

    ``leader`` is the client address, "host:port", of the node that executes commands: empty if none is known; on a
    node with ``node_id`` 0, which is alone, it says nothing. ``members`` are the client addresses of all nodes of the
    group. A node leads if ``leader`` is its own client address. ``reader`` is where the node's reader listens, "" if it
    has none; a host of zeros (0.0.0.0 or [::]) stands for the one at which the node was reached. ``map_version``: of
    the slot map that the node knows; 0 if its group is the only one, which has every slot.
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
    reader: str = ""
    map_version: int = 0


class PeerHello(msgspec.Struct, frozen=True):
    """First frame of a node to another of its group, and the answer: who it is, and whom it takes the other for.

    A (node id, incarnation) names one disk: the incarnation is drawn when a data folder is made. ``run_id`` is drawn at
    each start of the process. ``blank``: its disk holds nothing but what a group begins with. ``term``: the latest that
    it knows. ``entries_version``: which entries it knows, beyond those that all
    do: see ENTRIES_VERSION. ``proof``: that it has the token of the cluster; empty without one.
    """

    log_id: str
    node_id: int
    incarnation: int
    receiver: int
    receiver_incarnation: int
    protocol_version: int
    log_format_version: int
    rules_version_max: int
    clock_ns: int
    server: str
    run_id: int = 0
    blank: bool = False
    term: int = 0
    entries_version: int = 0
    proof: bytes = b""


class ErrorMessage(msgspec.Struct, frozen=True):
    """Body of an ERROR frame; ``code`` is a `FrameError`. ``leader`` and ``map_version`` are as in `Welcome`."""

    code: int
    message: str
    leader: str = ""
    map_version: int = 0


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


class Subscribe(msgspec.Struct, frozen=True):
    """Asks a reader for committed events, those there are and those to come, that match all of what is given.

    ``accounts``: ids of 16 bytes each, back to back; an event matches that touches one of them; none: all accounts.
    ``kinds``: numbers of command kinds; none: all. ``refused``: also events of commands that were refused. ``after``:
    the position to begin behind, 0 for the beginning; nil: behind what was acknowledged under ``name``, else from now
    on. ``log_id``: the log that the position is of, "" if that is not known. ``more``: this frame has accounts alone,
    and another frame with the same request id follows.
    """

    accounts: bytes = b""
    currency: str = ""
    kinds: list[int] = []
    refused: bool = False
    after: int | None = None
    log_id: str = ""
    name: str = ""
    more: bool = False


class Subscribed(msgspec.Struct, frozen=True):
    """The reply to `Subscribe`: events behind ``after`` follow. ``last_position``: the last one that is committed."""

    after: int
    last_position: int


class Unsubscribe(msgspec.Struct, frozen=True):
    """Ends the subscription that was asked for on this connection under ``subscription``, a request id."""

    subscription: int


class Acknowledge(msgspec.Struct, frozen=True):
    """Has a reader remember, under a name, that everything up to a position has been dealt with."""

    name: str
    position: int
    log_id: str = ""


class KeepPositions(msgspec.Struct, frozen=True):
    """Has the leader make positions that were acknowledged under names a part of what is replicated.

    The reply is empty. A position that lies before what is known already changes nothing.
    """

    positions: dict[str, int]
    log_id: str = ""


class Member(msgspec.Struct, frozen=True):
    """A node of a group, on one disk.

    ``node_id`` (1 to NODE_ID_MAX) is chosen by the operator, ``incarnation`` (1 to INCARNATION_MAX) is drawn when the
    data folder is initialised: a folder that is wiped and initialised again is another disk. Addresses are "host:port";
    "" is one that nobody can reach.
    """

    node_id: int
    incarnation: int
    peer_address: str
    client_address: str

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that no node has."""
        if not 1 <= self.node_id <= NODE_ID_MAX:
            raise ValueError(f"the id of a node is 1 to {NODE_ID_MAX}, not {self.node_id}")
        if not 1 <= self.incarnation <= INCARNATION_MAX:
            raise ValueError(f"the incarnation of a node is 1 to {INCARNATION_MAX}, not {self.incarnation}")


class Configuration(msgspec.Struct, frozen=True):
    """Who belongs to a group and who votes: body of a log entry of kind CONFIGURATION. The lists hold node ids.

    It is joint if ``voters_outgoing`` is not empty: then a quorum is a majority of ``voters`` and a majority of
    ``voters_outgoing``, each counted by itself (Ongaro's dissertation, 4.3). ``learners`` receive all and never vote;
    ``learners_next`` are outgoing voters that become learners when the joint configuration is left.
    """

    members: list[Member]
    voters: list[int]
    voters_outgoing: list[int] = []
    learners: list[int] = []
    learners_next: list[int] = []

    def __post_init__(self) -> None:
        """Raises ValueError, in words, for what no group can work with."""
        fault = _fault_of_members(self.members) or self._fault_of_lists()
        if fault:
            raise ValueError(fault)

    def _fault_of_lists(self) -> str:
        """Why the lists do not fit together; "" if they do."""
        lists = (self.voters, self.voters_outgoing, self.learners, self.learners_next)
        if twice := next((again for found in lists if (again := _repeated(found))), None):
            return f"node {twice} is twice in one list of a configuration"
        voters, outgoing, learners, learners_next = (frozenset(found) for found in lists)
        known = {member.node_id for member in self.members}
        named = voters | outgoing | learners
        faults = (
            (named - known, "is in a list, and not among the members"),
            (known - named, "is a member, and in no list"),
            (learners & (voters | outgoing), "is a voter and a learner at once"),
            (learners_next - outgoing, "is to become a learner, and is no outgoing voter"),
            (learners_next & voters, "is to become a learner, and is to stay a voter"),
        )
        told = (f"node {min(nodes)} {fault}" for nodes, fault in faults if nodes)
        return next(told, "") if voters else "a group needs a voter"


def _fault_of_members(members: list[Member]) -> str:
    """Why they cannot be the members of one group; "" if they can."""
    if len(members) > MEMBERS_MAX:
        return f"a group has {MEMBERS_MAX} members at most, not {len(members)}"
    if twice := _repeated([member.node_id for member in members]):
        return f"two members have the node id {twice}"
    addresses = [address for member in members for address in (member.peer_address, member.client_address) if address]
    if again := _repeated(addresses):
        return f"the address {again} is given twice"
    return ""


_Item = TypeVar("_Item", int, str)


def _repeated(items: list[_Item]) -> _Item | None:
    """The first item that comes a second time; None if none does."""
    return next((item for number, item in enumerate(items) if item in items[:number]), None)


class MemberStatus(msgspec.Struct, frozen=True):
    """A member as the node that was asked sees it; what it does not know is 0, "" or None.

    ``lag_*``: how much of the leader's log it has not acknowledged. ``history_percent``: how much of the history is on
    its disk. ``clock_offset_ns``: its clock less that of the node that was asked.
    """

    node_id: int
    incarnation: int
    peer_address: str
    client_address: str
    role: Literal["leader", "follower", "candidate", "unknown"]
    voting: Literal["voter", "learner", "leaving", "none"]
    term: int = 0
    match_index: int = 0
    last_index: int = 0
    commit_index: int = 0
    active: bool = False
    lag_entries: int | None = None
    lag_bytes: int | None = None
    history_percent: float | None = None
    clock_offset_ns: int | None = None
    problem: str = ""


class MembersStatus(msgspec.Struct, frozen=True):
    """The group as one node sees it; complete if that node leads. ``leader`` is a node id, 0 if none is known."""

    node_id: int
    leader: int
    term: int
    commit_index: int
    members: list[MemberStatus]
    joint: bool = False
    problem: str = ""


class ChangeMembers(msgspec.Struct, frozen=True):
    """Asks the leader for one change of its group, or to hand its leadership to ``node_id``.

    Incarnation and addresses are those of the new member of an "add", a learner at first, and else not given. With
    ``expected_term`` the change is refused in any other term.
    """

    action: Literal["add", "remove", "promote", "demote", "transfer"]
    node_id: int
    incarnation: int = 0
    peer_address: str = ""
    client_address: str = ""
    expected_term: int = 0


class MembersChanged(msgspec.Struct, frozen=True):
    """The reply to `ChangeMembers`, when the change is committed and the configuration is not joint any more.

    ``index`` is that of the entry that holds it; 0 if nothing had to be changed. ``remark``: what to know about it.
    """

    leader: int
    term: int
    index: int
    configuration: Configuration
    remark: str = ""


class GroupFacts(msgspec.Struct, frozen=True):
    """The reply to JOIN: what a member must know to receive the log.

    ``log_id`` is the number in every header of the log, ``index`` that of the entry which ``configuration`` is from.
    """

    log_id: int
    shard: int
    index: int
    configuration: Configuration


class ControlEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of a log entry of kind CONTROL: one change of the replicated state that is no event.

    ``configuration``, in the first entry only: the group that the log begins with; None is one node alone.
    ``slot_map``, in the log of a metadata group only: the map from here on. ``settled``: int64 sequences of TRY_DEBITs
    whose other shards know what was decided. ``positions``: what was acknowledged under names, never less than before.
    ``move``: how far a move of slots is. ``token``: one that there is from now on, or is revoked. ``act``: what an
    administrator asked for, and whether it was done.
    What says nothing is left out, so that an entry without a later field can be read by versions that do not know that
    field.
    """

    currencies: list[Currency] = []
    rules_version: int = 0
    created_by: str = ""
    configuration: Configuration | None = None
    slot_map: SlotMap | None = None
    settled: bytes = b""
    positions: dict[str, int] = {}
    move: MoveStep | None = None
    token: TokenChange | None = None
    act: Act | None = None


class _StrictCurrency(Currency, frozen=True, forbid_unknown_fields=True):
    """A currency, and nothing else."""


class _StrictMember(Member, frozen=True, forbid_unknown_fields=True):
    """A member, and nothing else."""


class StrictConfiguration(Configuration, frozen=True, forbid_unknown_fields=True):
    """A configuration of which every field, on whatever level, is known here; see `decode_configuration`."""

    members: list[_StrictMember]  # type: ignore[assignment]  # lists are invariant; these are never changed


class StrictControlEntry(ControlEntry, frozen=True, forbid_unknown_fields=True):
    """A control entry of which every field, on whatever level, is known here; see `decode_control_entry`."""

    currencies: list[_StrictCurrency] = []  # type: ignore[assignment]  # as above
    configuration: StrictConfiguration | None = None
    slot_map: StrictSlotMap | None = None
    move: StrictMoveStep | None = None
    token: StrictTokenChange | None = None
    act: StrictAct | None = None


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
    return _decode_whole(body, ControlEntry, StrictControlEntry, "control")


def decode_configuration(body: Buffer) -> Configuration:
    """Decode the body of a configuration entry. Raises as `decode_control_entry` does, and for the same reason."""
    return _decode_whole(body, Configuration, StrictConfiguration, "configuration")


def _decode_whole(body: Buffer, kind: type[_Message], strict: type[_Message], name: str) -> _Message:
    message = decode_message(body, kind)
    try:
        decode_message(body, strict)
    except RemoteProtocolError as error:
        raise UnsupportedFormat(f"the {name} entry says more than is known here: {error}") from error
    return message
