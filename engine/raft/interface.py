"""What goes into the core and what comes out of it, beside the messages of ``protocol/raft_messages.py``."""

from typing import NamedTuple, Protocol

import msgspec

from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.roles import Role
from bezant.protocol.errors import BezantError, UsageError
from bezant.protocol.messages import Configuration
from bezant.protocol.raft_messages import RaftMessage


class NotLeader(BezantError):  # noqa: N818 - it says what is the case, as the other errors do
    """Only the leader can do this, and this member is not the leader."""


class NotYet(UsageError):  # noqa: N818 - it says what is the case
    """Refused as things stand; the same may be granted a little later."""


class LogView(Protocol):
    """What the core reads of the log. Indexes begin at 1; the entry "0" before the first has the term 0."""

    @property
    def last_index(self) -> int:
        """The last entry written, durable or not; 0 if there is none."""

    @property
    def history_index(self) -> int:
        """The first entry that can be had, from an archive if need be; at most `first_index`."""

    @property
    def first_index(self) -> int:
        """The lowest entry that can be sent; 1 unless the beginning is archived or not there yet."""

    def term_at(self, index: int) -> int | None:
        """The term of an entry, also of the one before `first_index`; 0 of entry 0; None if it is not known."""

    def end_of_span(self, first_index: int, size_bytes_max: int) -> int:
        """The last entry of a span from `first_index` on that has an entry at least, and else at most so many bytes."""

    def size_of_span(self, first_index: int, last_index: int) -> int:
        """Bytes of the entries from one on up to another."""


class Chance(Protocol):
    """Where random numbers come from: `random.Random`, or a test."""

    def randrange(self, start: int, stop: int, /) -> int:
        """A number from `start` to `stop` - 1."""


class CoreSettings(msgspec.Struct, frozen=True):
    """Times are in ticks (the driver's, 10 ms each); sizes are per follower."""

    heartbeat_ticks: int = 5
    election_ticks_min: int = 30
    """Also how long a leader stays without hearing from a quorum, and how long a transfer of leadership may take."""
    election_ticks_max: int = 60
    messages_in_flight_max: int = 64
    bytes_in_flight_max: int = 16 << 20
    append_bytes_max: int = 4 << 20
    """Bytes of entries in one `Append`, at most, unless a single entry is longer."""
    reads_waiting_max: int = 65_536
    pre_vote: bool = True
    check_quorum: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_ticks_min <= self.election_ticks_max:
            raise UsageError("heartbeats must be more frequent than elections, and neither may be without pause")
        if min(self.messages_in_flight_max, self.append_bytes_max, self.reads_waiting_max) < 1:
            raise UsageError("a limit of nothing lets nothing through")


class Accepted(NamedTuple):
    """What to do with the entries of the `Append` just stepped: cut the log behind `truncate_to` if that is given, then
    write the message's entries first_index..last_index; those before first_index are there already."""

    truncate_to: int | None
    first_index: int
    last_index: int


class Output(msgspec.Struct, frozen=True):
    """What the driver has to do, in this order; `role`, `leader_id` (0: unknown), `term`, `commit_index` as of now."""

    role: Role
    leader_id: int
    term: int
    commit_index: int
    hard_state: HardState | None
    """Must be durable before anything else here is done."""
    accepted: Accepted | None
    messages: list[RaftMessage]
    became_leader: bool
    configuration_to_append: Configuration | None
    reads: list[tuple[int, int]]
    """(ticket, index): may be answered from a state that has applied the index."""
    reads_lost: list[int]
    snapshot_needed: list[int]


class MemberStatus(msgspec.Struct, frozen=True):
    """What the leader knows of a member; ``state`` is "probe", "replicate" or "snapshot", "self" for the leader."""

    node_id: int
    match_index: int
    next_index: int
    state: str
    in_flight: int
    recent_active: bool
    barred: bool
    """It would not vote, as far as the leader knows: it has lost or never had what it needs to."""
    first_index: int = 1
    """Its log has the entries from there on, as far as the leader knows."""


class CoreStatus(msgspec.Struct, frozen=True):
    """For ``members status``. ``members``: empty unless this member leads. ``transfer_to``: 0 unless it hands over."""

    role: Role
    term: int
    leader_id: int
    commit_index: int
    durable_index: int
    last_index: int
    barred: bool
    configuration: Configuration
    configuration_committed: bool
    transfer_to: int
    members: list[MemberStatus]
