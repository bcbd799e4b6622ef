"""A member: a replica and the Raft core, joined. One log is both the group's and the list of events.

    leader:    execute -> append in memory -> send to the others and write here -> quorum -> committed
    follower:  bytes of entries come -> append as they are -> write -> acknowledge; apply what is committed

The leader's ledger runs ahead of what is committed: it stands at the end of its log. A follower's ledger stands at or
behind what is committed. So a leader that lost its leadership may have executed what never came to be: when that is cut
off its log, `StateAbandoned` is raised, and the replica must be opened again.

A group of one is a leader from its first step, and what is durable is committed. No sockets, clocks or threads here:
messages leave through `send`, and whoever drives the member calls `tick` every TICK_S.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from typing_extensions import Buffer

from bezant.engine.log.entry import Entry
from bezant.engine.log.group import Group
from bezant.engine.log.vote import VoteFile
from bezant.engine.raft.core import Core
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import Accepted, Chance, CoreSettings, NotLeader, Output
from bezant.engine.raft.membership import NOBODY, MembershipChange
from bezant.engine.raft.roles import Role
from bezant.engine.replica import Executed, Replica
from bezant.engine.skimming import skim, split_span
from bezant.protocol.errors import BezantError, LedgerError, RemoteProtocolError, UsageError
from bezant.protocol.messages import Configuration
from bezant.protocol.messages import Member as MemberRecord
from bezant.protocol.raft_messages import Append, RaftMessage
from bezant.protocol.records import ENTRY_HEADER_SIZE, ENTRY_INDEX_FIRST, RULES_VERSION, Records, Words
from bezant.protocol.transfer_messages import PeerMessage

TICK_S: Final = 0.01
"""Seconds between two calls of `tick`; the times in `CoreSettings` are counted in these."""
RECEIVED_BYTES_MAX: Final = 64 << 20
"""Bytes of entries kept in memory until they are applied; those of a follower that is further behind are read again."""
APPLY_SPAN_BYTES: Final = 1 << 20
"""Bytes of entries that are read at a time to be applied."""
APPLY_EVENTS_MAX: Final = 8192
"""Events after which applying is left for the next step: some 2 ms."""
APPLY_EVENTS_MIN: Final = 128
"""Events that an entry counts for at least: each costs some 30 us."""

LEADERLESS_ELECTIONS: Final = 5
"""Elections' times without a leader after which even a member stands that lacks a part of the history."""

Send = Callable[[PeerMessage, Sequence[Buffer]], None]


class StateAbandoned(BezantError):  # noqa: N818 - it says what happened, as the other errors do
    """This ledger has executed what never was committed; open the replica again, from its checkpoint and its log."""


class Identity(NamedTuple):
    """Which member of which group a data folder is: its node id, and the random number that names the disk."""

    node_id: int
    incarnation: int


ALONE: Final = Identity(1, 1)
"""A data folder that belongs to no group: it is one by itself."""


class Member:
    """See the module. All calls from one thread."""

    def __init__(
        self,
        replica: Replica,
        vote_file: VoteFile | None,
        *,
        identity: Identity = ALONE,
        settings: CoreSettings | None = None,
        chance: Chance,
    ) -> None:
        """`vote_file` may be None for a replica that is a group by itself: nobody else counts its votes."""
        self.replica = replica
        self.identity = identity
        self.send: Send = _nobody_listens
        self.settle_group: Callable[[], None] = _no_group
        """Waits for the group that is being written, if there is one, and has it finished."""
        self.on_configuration: Callable[[Configuration], None] = _nobody_asks
        self._vote_file = vote_file
        self._received: deque[Entry] = deque()
        self._received_bytes = 0
        self._read: list[Entry] = []
        self._told_index = 0
        self._truncation_count = 0
        self._skimmed: Sequence[Entry] = ()
        self._is_preparing = False
        self._has_begun = False
        self._disk_hangs = False
        self._leaderless_ticks = 0
        self._leaderless_ticks_max = 0
        self.snapshot_needed: list[int] = []
        """Members that should get the state of this leader; whoever sends it empties the list."""
        self.role = Role.FOLLOWER
        self.leader_id = 0
        self.term = 0
        self.committed_index = 0
        self.reads_confirmed: list[tuple[int, int]] = []
        """(ticket, index) of reads that may be answered; whoever takes them empties the list."""
        self.reads_lost: list[int] = []
        log = replica.log
        hard_state = self._read_hard_state(log.term_at(log.last_index) or 0)
        replica.ledger.replaying = True
        configurations = replica.configurations or [(0, _alone(identity) if log.last_index else NOBODY)]
        self.configuration = configurations[-1][1]
        self._blank_terms: dict[int, int] = {}
        settings = _with_room(settings or CoreSettings(), replica.settings.segment_size)
        self._leaderless_ticks_max = LEADERLESS_ELECTIONS * settings.election_ticks_max
        self.core = Core(
            node_id=identity.node_id,
            hard_state=hard_state,
            log=log,
            durable_index=log.durable_index,
            configurations=configurations,
            commit_index=replica.applied_index,
            settings=settings,
            random=chance,
        )
        self.note_blank(identity.node_id, self.core.term)
        if self.is_alone:
            self.core.campaign()
            self._absorb()
            while not self.is_leader and self.work():
                pass

    def _read_hard_state(self, last_term: int) -> HardState:
        """What is written, but not below the last entry's term: the first entry of a group comes from nobody's term."""
        if self._vote_file is None:
            return HardState(last_term)
        hard_state = self._vote_file.read()
        if hard_state.term < last_term:
            hard_state = HardState(last_term, 0, hard_state.barred)
            self._vote_file.write(hard_state)
        return hard_state

    @property
    def is_alone(self) -> bool:
        """Whether this node is the group."""
        return self.configuration.voters == [self.identity.node_id] and len(self.configuration.members) <= 1

    # ---- a blank disk ----

    @property
    def is_blank(self) -> bool:
        """Whether this disk holds no more than what a group begins with."""
        return self.replica.log.last_index <= ENTRY_INDEX_FIRST

    def note_blank(self, node_id: int, term: int) -> None:
        """A node has said that its disk is blank, and its term.

        If all first members have, since this one has started, then it has forgotten no entry: whoever led when it
        acknowledged one would hold that one. A vote it may have forgotten: in a term that the candidate still knows,
        or that others have told since; so not above all that were heard of."""
        self._blank_terms[node_id] = term
        is_first_member = self.core.configuration_index == ENTRY_INDEX_FIRST
        if is_first_member and self.is_blank and self._blank_terms.keys() >= set(self.configuration.voters):
            self.core.lift_bar(max(self.core.term, *self._blank_terms.values()) + 1)
        self._absorb()

    # ---- a log without its beginning ----

    @property
    def is_leader(self) -> bool:
        """Whether commands can be executed here.

        False also of a leader that has not applied all of its log yet, and of one that lacks a part of the history:
        that one replicates what there is, and hands over.
        """
        return self._has_begun and self.replica.log.is_complete

    def _consider_campaigning(self) -> None:
        """Who cannot write should not lead, nor who could not look up what was long ago, unless nobody else does."""
        self._leaderless_ticks = 0 if self.leader_id else self._leaderless_ticks + 1
        is_patient = self._leaderless_ticks < self._leaderless_ticks_max and self.role is not Role.LEADER
        self.core.may_campaign = not self._disk_hangs and (self.replica.log.is_complete or not is_patient)

    def begin_snapshot(self, node_id: int, index: int) -> None:
        """Send a member no entries until it has the state behind one, or `snapshot_done`."""
        self.core.begin_snapshot(node_id, index)
        self._absorb()

    def snapshot_done(self, node_id: int, index: int | None) -> None:
        """A member has the state behind an entry; None: it does not get it now."""
        self.core.snapshot_done(node_id, index)
        self._absorb()

    def wants_snapshot(self, index: int, term: int) -> bool:
        """Whether the state behind an entry of that term would be of use here."""
        wants = self.core.wants_snapshot(index, term)
        self._absorb()
        return wants

    # ---- what comes in ----

    def tick(self) -> None:
        """Let TICK_S pass."""
        self._consider_campaigning()
        self.core.tick()
        self._absorb()

    def receive(self, message: RaftMessage, payload: memoryview) -> None:
        """Take a message of another member, with the bytes of its entries.

        Raises `RemoteProtocolError` for one that cannot be, before anything has changed, and `StateAbandoned`.
        """
        configurations: tuple[tuple[int, Configuration], ...] = ()
        if isinstance(message, Append) and message.last_index > message.prev_index:
            log = self.replica.log
            if not log.has_room(len(payload) - ENTRY_HEADER_SIZE):
                return  # It is sent again, when there may be room.
            skimmed = skim(payload, message)
            configurations, self._skimmed = skimmed.configurations, skimmed.entries
            if message.prev_index < log.last_index:
                self.settle_group()  # What is being written may be cut.
        elif len(payload):
            raise RemoteProtocolError(f"{len(payload)} bytes beside a message that has no entries")
        self.core.step(message, configurations)
        self._absorb()

    def unreachable(self, node_id: int) -> None:
        """The connection to a member was lost: what was on its way may be."""
        self.core.unreachable(node_id)
        self._absorb()

    # ---- the leader's part ----

    def execute(self, commands: Records, preset: Words, floor_ns: int = 0) -> Executed:
        """Execute commands; see `Replica.execute`. Nothing of it may be told before it is committed."""
        self._require_leader()
        executed = self.replica.execute(commands, preset, floor_ns)
        self.note_appended()
        return executed

    def note_appended(self) -> None:
        """Have what the leader's replica has appended sent to the others."""
        if self.replica.log.last_index > self._told_index:
            self._told_index = self.replica.log.last_index
            self.core.appended(self._told_index)
            self._absorb()

    @property
    def leader_address(self) -> str:
        """Where clients reach the leader; empty if that is not known."""
        members = self.configuration.members
        return next((member.client_address for member in members if member.node_id == self.leader_id), "")

    @property
    def is_handing_over(self) -> bool:
        """Whether nothing should be executed for a moment, so that another member can take over the leadership."""
        return self.core.transfer_to != 0

    def change_membership(self, change: MembershipChange) -> int:
        """Begin a change; returns the index that is to be committed. Raises `UsageError`, `NotLeader`."""
        self._require_leader()
        self._append_configuration(self.core.change_membership(change))
        return self.replica.log.last_index

    def find_unready(self, version: int, known: Mapping[int, int]) -> str:
        """Why no entry that takes this ENTRIES_VERSION may be made: a voter that would not know it; "" if all do.

        `known` has that of each of the others, as far as is known.
        """
        for node_id in sorted({*self.configuration.voters, *self.configuration.voters_outgoing}):
            if node_id != self.identity.node_id and known.get(node_id, 0) < version:
                told = "has not said whether it knows" if node_id not in known else "is of a version that does not know"
                return f"node {node_id} {told} this: it can be done when every voter does"
        return ""

    def switch_rules(self, version: int, supported: Mapping[int, int]) -> int:
        """Switch to later rules; `supported` has the latest that each of the others can execute, as far as is known.

        Returns the index that is to be committed. Raises `UsageError` while a voter could not go on, `NotLeader`.
        """
        self._require_leader()
        for node_id in sorted({*self.configuration.voters, *self.configuration.voters_outgoing}):
            latest = RULES_VERSION if node_id == self.identity.node_id else supported.get(node_id, 0)
            if latest < version:
                known = f"executes rules up to {latest}" if latest else "has not said which rules it can execute"
                raise UsageError(f"node {node_id} {known}: rules {version} are switched on when every voter can")
        index = self.replica.switch_rules(version)
        self.note_appended()
        return index

    def transfer_leadership(self, node_id: int = 0) -> int:
        """Begin to hand over to a voter, or to the one that is best for it (0). Returns which.

        Raises `UsageError`, `NotLeader`.
        """
        successor = self.core.transfer_leadership(node_id)
        self._absorb()
        return successor

    def leader_lost(self) -> None:
        """A hint that the leader is gone."""
        self.core.leader_lost()
        self._absorb()

    def request_read(self) -> int:
        """A ticket that comes back in `reads_confirmed` when this node has turned out to be the leader still."""
        self._require_leader()
        ticket = self.core.request_read()
        self._absorb()
        return ticket

    def note_disk(self, *, hangs: bool) -> None:
        """Take notice that the disk takes too long, or no longer: who cannot write should not lead."""
        if hangs == self._disk_hangs:
            return
        self._disk_hangs = hangs
        self._consider_campaigning()
        if hangs and not self.is_alone:
            self.core.step_down()
            self._absorb()

    def _require_leader(self) -> None:
        if not self.is_leader:
            raise NotLeader("this node does not lead its group")

    # ---- what is due ----

    @property
    def has_work(self) -> bool:
        """Whether `work` would do something."""
        if self.replica.stalled_index:
            return False
        return self._is_preparing or self.replica.applied_index < self.committed_index

    def work(self) -> bool:
        """Apply some of what is committed, or of the whole log if this node is about to lead; True if there is more."""
        limit = self.replica.log.last_index if self._is_preparing else self.committed_index
        events = 0
        while self.replica.applied_index < limit:
            if events >= APPLY_EVENTS_MAX:
                return True
            entry = self._next_entry()
            if not self.replica.apply(entry):
                self._maybe_step_down()
                return False  # There is room again when a checkpoint has been made.
            events += max(entry.header.count, APPLY_EVENTS_MIN)
        self._maybe_erase()
        if self._is_preparing:
            self._begin_to_lead()
        return False

    def _maybe_erase(self) -> None:
        """Begin to erase what is superseded by what is committed, and durable here."""
        if self.replica.erasing.waiting:
            self.replica.erasing.begin(min(self.committed_index, self.replica.durable_index))

    def _maybe_step_down(self) -> None:
        """Do not hold a leadership that can begin only when more of the history has come."""
        if self.replica.stalled_index and self._is_preparing:
            self.core.step_down()
            self._absorb()

    def _next_entry(self) -> Entry:
        """The entry to be applied next: as it came, or read from the log if this member is further behind."""
        index = self.replica.applied_index + 1
        received = self._received
        while received and received[0].header.index < index:
            self._drop_oldest()
        if received and received[0].header.index == index:
            return received[0]
        if not self._read or self._read[-1].header.index < index:
            log = self.replica.log
            self._read = split_span(log.read_encoded(index, log.end_of_span(index, APPLY_SPAN_BYTES)))
        return self._read[index - self._read[0].header.index]

    def _keep_received(self, entries: Sequence[Entry]) -> None:
        """Keep the entries that were appended last, which are to be applied soon."""
        self._received.extend(entries)
        self._received_bytes += sum(entry.header.body_size for entry in entries)
        while self._received_bytes > RECEIVED_BYTES_MAX:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._received_bytes -= self._received.popleft().header.body_size

    def _forget_entries(self) -> None:
        self._received.clear()
        self._received_bytes = 0
        self._read = []

    def _begin_to_lead(self) -> None:
        """All of the log is applied: append the first entry of the term, with which all before it is committed."""
        self._is_preparing, self._has_begun = False, True
        self._forget_entries()
        self.replica.ledger.replaying = False
        if not self.is_alone:
            self.replica.append_first_of_term()
            self.note_appended()

    # ---- durability ----

    def begin_group(self) -> Group | None:
        """What is to be written next; see `Log.begin_group`."""
        self._truncation_count = self.core.truncation_count
        return self.replica.begin_group()

    def finish_group(self, group: Group) -> None:
        """Take notice that a group is durable."""
        self.replica.finish_group(group)
        self.core.durable(group.last_header.index, group.last_header.term, self._truncation_count)
        self._absorb()

    # ---- what comes out of the core ----

    def _absorb(self) -> None:
        """Do what the core has decided."""
        output = self.core.take_output()
        if output.hard_state is not None and self._vote_file is not None:
            self._vote_file.write(output.hard_state)
        self._note_role(output)
        if output.accepted is not None:
            self._write_accepted(output.accepted)
        self.committed_index = self.replica.log.commit_index = output.commit_index
        self._maybe_erase()
        self._send_all(output.messages)
        self.reads_confirmed += output.reads
        self.reads_lost += output.reads_lost
        self.snapshot_needed += output.snapshot_needed
        if output.configuration_to_append is not None:
            self._append_configuration(output.configuration_to_append)
        self._note_configuration()

    def _send_all(self, messages: Sequence[RaftMessage]) -> None:
        """Send messages, with the entries that belong to them: level followers get the same ones, read once."""
        span: tuple[int, int] | None = None
        buffers: Sequence[Buffer] = ()
        for message in messages:
            if isinstance(message, Append) and message.last_index > message.prev_index:
                if span != (message.prev_index, message.last_index):
                    span = message.prev_index, message.last_index
                    buffers = self.replica.log.read_encoded(message.prev_index + 1, message.last_index)
                self.send(message, buffers)
            else:
                self.send(message, ())

    def _note_role(self, output: Output) -> None:
        self.role, self.term, self.leader_id = output.role, output.term, output.leader_id
        if output.role is not Role.LEADER and (self._has_begun or self._is_preparing):
            self._has_begun = self._is_preparing = False
            self.replica.ledger.replaying = True
        if output.became_leader:
            self._is_preparing = True
            self.replica.log.term = output.term
            self._told_index = self.replica.log.last_index

    def _write_accepted(self, accepted: Accepted) -> None:
        """Cut the log where it contradicts the leader's, and append the entries of the last message that are new."""
        log = self.replica.log
        if accepted.truncate_to is not None:
            log.truncate(accepted.truncate_to)
            self._forget_entries()
            if accepted.truncate_to < self.replica.applied_index:
                raise StateAbandoned(
                    f"entries {accepted.truncate_to + 1} to {self.replica.applied_index} were executed here and never "
                    "committed"
                )
        skimmed, self._skimmed = self._skimmed, ()
        entries = skimmed[accepted.first_index - skimmed[0].header.index :]
        log.append_received(entries)
        if entries[-1].header.index != accepted.last_index:
            raise LedgerError(f"entry {accepted.last_index} was accepted, and the log ends with {log.last_index}")
        self._keep_received(entries)

    def _append_configuration(self, configuration: Configuration) -> None:
        self._told_index = self.replica.append_configuration(configuration)
        self.core.appended(self._told_index, ((self._told_index, configuration),))
        self._absorb()

    def _note_configuration(self) -> None:
        configuration = self.core.configuration
        if configuration is not self.configuration:
            self.configuration = configuration
            self.on_configuration(configuration)

    def close(self) -> None:
        """Close the replica and the vote file. May be called again."""
        self.replica.close()
        if self._vote_file is not None:
            self._vote_file.close()


def _with_room(settings: CoreSettings, segment_size: int) -> CoreSettings:
    """An `Append` must find room at a follower in one segment, and nodes have segments of one size as a rule."""
    append_bytes_max = min(settings.append_bytes_max, segment_size // 2)
    return msgspec.structs.replace(settings, append_bytes_max=append_bytes_max)


def _alone(identity: Identity) -> Configuration:
    return Configuration([MemberRecord(identity.node_id, identity.incarnation, "", "")], [identity.node_id])


def _no_group() -> None:
    """Without anybody who writes groups in the background there is never one to wait for."""


def _nobody_listens(message: PeerMessage, buffers: Sequence[Buffer]) -> None:
    """There is nobody to send to yet; what is lost is sent again."""


def _nobody_asks(configuration: Configuration) -> None:
    """Nobody wants to know of changes yet."""
