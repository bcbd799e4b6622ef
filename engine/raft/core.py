"""The core of Raft: what a member does with messages and ticks. Pure; begin here.

    core = Core(node_id=..., hard_state=..., log=..., durable_index=..., configurations=[(index, configuration), ...],
                commit_index=..., settings=CoreSettings(), random=random.Random(...))

``configurations``: that of the commit index and all behind it, rising; none if the disk has no log yet.

Into it, from one thread:

    tick()                                   every 10 ms
    step(message, configurations=())         a message from a member; for an `Append`, (index, configuration) of each
                                             configuration among its entries. Raises RemoteProtocolError if it is not
                                             for this member
    appended(last_index, configurations=())  leader: entries of the current term were appended through last_index
    durable(index, term, truncation_count)   the log is synced through `index`, an entry of that term;
                                             ``truncation_count`` is what this attribute was when the sync BEGAN
    campaign()                               ask for votes now; a sole voter wins at once
    leader_lost()                            a hint that the leader is gone (its connection broke): ask soon
    lift_bar(term_min)                       the driver knows that a barred disk has lost nothing
    step_down()                              give up the leadership, to the best successor (a disk that fails)
    request_read() -> ticket                 leader. Raises NotLeader
    transfer_leadership(to=0) -> node_id     leader; 0: to the best successor. Raises NotLeader, UsageError
    change_membership(change) -> Configuration   leader; the driver appends it and says so with `appended`.
                                             Raises NotLeader, UsageError
    unreachable(node_id), begin_snapshot(node_id, index), snapshot_done(node_id, index | None)      leader
    wants_snapshot(index, term) -> bool, then installed(index, term, configuration)          follower
    status() -> CoreStatus;  role, term, commit_index, configuration, is_alone
    may_campaign = False                     while this member should not lead (a disk that hangs); it still votes
    transfer_to                              not 0: the driver should append nothing, or the transfer may not finish

Out of it, after any of these: take_output() -> Output. Its driver must keep these rules:

1. Do what an `Output` says in the order of its fields. `hard_state` is durable before anything else is done.
2. After a `step` that accepts entries (`Output.accepted`), cut and write the log before the next call; `LogView` must
   show it at once, durable or not. `accepted` always speaks of the message just stepped.
3. An `Append` among the messages gets the bytes of its entries before the next call; the log may be cut later.
4. `durable` is called for every sync that ends, also a leader's; the cut of a log is durable when the call that cuts it
   returns. Only what was durable is acknowledged, so nothing is lost by calling it late.
5. `became_leader`: append an entry of the term (and call `appended`) once the state machine has reached the log's end.
   A member that `is_alone` needs none: it has committed what is on its disk.
6. `configuration_to_append`: append it and call ``appended(index, ((index, configuration),))``.
7. Only what is at or below `commit_index` is answered, and applied for good.

Failures: `LedgerError` means that a rule of Raft is broken here or that another member lost what it had promised; the
member must stop. Time, loss, order and repetition of messages never cause one.
"""

from collections.abc import Callable
from typing import Any, Final

from bezant.engine.raft.following import Following
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import Chance, CoreSettings, CoreStatus, LogView, NotLeader, Output
from bezant.engine.raft.leading import Leading
from bezant.engine.raft.membership import NOBODY, MembershipChange, is_alone, is_voter
from bezant.engine.raft.roles import Role, next_role
from bezant.engine.raft.state import State
from bezant.engine.raft.voting import Election, is_up_to_date
from bezant.protocol.errors import LedgerError, RemoteProtocolError, UsageError
from bezant.protocol.messages import Configuration
from bezant.protocol.raft_messages import (
    SESSION_MAX,
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    RaftMessage,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

Configurations = tuple[tuple[int, Configuration], ...]
_REJOIN_SESSION_MIN: Final = 1 << 40
"""A leader counts its sessions from 1, so that they stay below those that members draw."""


class Core:
    """One member of a group."""

    def __init__(
        self,
        *,
        node_id: int,
        hard_state: HardState,
        log: LogView,
        durable_index: int,
        configurations: list[tuple[int, Configuration]],
        commit_index: int,
        settings: CoreSettings,
        random: Chance,
    ) -> None:
        if not commit_index <= log.last_index or not durable_index <= log.last_index:
            raise LedgerError(
                f"committed {commit_index}, durable {durable_index}, but the log ends at {log.last_index}"
            )
        self._state = State(node_id, hard_state, log, settings, configurations or [(0, NOBODY)])
        self._state.commit(commit_index)
        self._state.durable_index = durable_index
        self._settings = settings
        self._random = random
        self._role = Role.FOLLOWER
        self._leader_id = 0
        self._election: Election | None = None
        self._leading: Leading | None = None
        self._rejoin_session = random.randrange(_REJOIN_SESSION_MIN, SESSION_MAX) if hard_state.barred else 0
        self._following = Following(self._state, self._rejoin_session)
        self._ticket = 0
        self._reads_lost: list[int] = []
        self._has_won = False
        self._election_ticks = 0
        self._timeout_ticks = 0
        self._reset_election_timer()
        self._handlers: dict[type, Callable[[Any, Configurations], None]] = {
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            Heartbeat: self._on_heartbeat,
            HeartbeatReply: self._on_heartbeat_reply,
            VoteRequest: self._on_vote_request,
            VoteReply: self._on_vote_reply,
            TimeoutNow: self._on_timeout_now,
        }

    # What the driver may look at.

    @property
    def may_campaign(self) -> bool:
        """Whether this member should lead, if it is elected. The others are told, so that none hands over to it."""
        return self._state.may_lead

    @may_campaign.setter
    def may_campaign(self, may: bool) -> None:
        self._state.may_lead = may

    @property
    def role(self) -> Role:
        """What this member is."""
        return self._role

    @property
    def term(self) -> int:
        """The latest term that this member has seen."""
        return self._state.term

    @property
    def commit_index(self) -> int:
        """Through here the log is decided, as far as this member knows."""
        return self._state.commit_index

    @property
    def is_barred(self) -> bool:
        """Whether this member does not vote, because its disk may have lost what it had acknowledged."""
        return self._state.hard_state.barred

    @property
    def truncation_count(self) -> int:
        """Note it when a sync begins, and give it to `durable`."""
        return self._state.truncation_count

    @property
    def transfer_to(self) -> int:
        """The member that the leadership is being handed to; 0 if there is none."""
        return self._leading.transfer_to if self._leading is not None else 0

    @property
    def is_alone(self) -> bool:
        """Whether the group has no other member, not even a learner."""
        return is_alone(self._state.configuration, self._state.node_id)

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the latest in the log."""
        return self._state.configuration

    @property
    def configuration_index(self) -> int:
        """The entry that the configuration in force is from; 0 if there is none."""
        return self._state.configuration_index

    def status(self) -> CoreStatus:
        """For operators; nothing of it is to be relied on by the time it is read."""
        state = self._state
        return CoreStatus(
            self._role,
            state.term,
            self._leader_id,
            state.commit_index,
            state.durable_index,
            state.log.last_index,
            state.hard_state.barred,
            state.configuration,
            state.configuration_index <= state.commit_index,
            self.transfer_to,
            self._leading.member_statuses() if self._leading is not None else [],
        )

    # What the driver tells.

    def tick(self) -> None:
        """One unit of time has passed."""
        self._check_taken()
        self._state.now_ticks += 1
        if self._leading is not None:
            self._leading.on_tick()
            self._finish_leading()
            return
        self._election_ticks += 1
        if self._election_ticks >= self._timeout_ticks:
            self._reset_election_timer()
            if not self._may_campaign():
                self._leader_id = 0  # It is not heard any more, even if this member does nothing about that.
            self.campaign()

    def step(self, message: RaftMessage, configurations: Configurations = ()) -> None:
        """Take a message."""
        self._check_taken()
        state = self._state
        if message.receiver != state.node_id:
            raise RemoteProtocolError(
                f"node {state.node_id} got a message from {message.sender} for {message.receiver}"
            )
        if message.term > state.term:
            if not self._on_later_term(message):
                return
        elif message.term < state.term:
            self._on_earlier_term(message)
            return
        self._handlers[type(message)](message, configurations)
        self._finish_leading()

    def appended(self, last_index: int, configurations: Configurations = ()) -> None:
        """Leader: the log has grown by entries of this term."""
        if self._leading is None:
            raise LedgerError(f"a {self._role.name} appends nothing by itself")
        self._leading.on_appended(last_index, configurations)

    def durable(self, index: int, term: int, truncation_count: int) -> None:
        """A sync has ended. One that began before the log was cut may speak of entries that are not there any more,
        even if others of the same index and term have come in their place."""
        state = self._state
        if not self._is_current_sync(index, term, truncation_count) or index <= state.durable_index:
            return
        state.durable_index = index
        if self._leading is not None:
            self._leading.on_durable()
            self._finish_leading()
        else:
            self._following.on_durable()

    def _is_current_sync(self, index: int, term: int, truncation_count: int) -> bool:
        return truncation_count == self._state.truncation_count and self._state.log.term_at(index) == term

    def campaign(self) -> None:
        """Stand for election, if this member may."""
        if self._leading is None and self._may_campaign():
            self._ask_for_votes(is_pre=self._settings.pre_vote)

    def leader_lost(self) -> None:
        """The leader seems to be gone. Nothing happens if a majority still hears it."""
        if self._leading is None and self._leader_id:
            self._leader_id = 0
            self._election_ticks = 0
            self._timeout_ticks = self._random.randrange(1, 2 * self._settings.heartbeat_ticks)

    def lift_bar(self, term_min: int) -> None:
        """This disk has lost no entry after all, and no vote of `term_min` or later: nobody else had any."""
        if self._state.hard_state.barred:
            self._state.lift_bar()
            if self._state.term < term_min:
                self._advance_term(term_min, voted_for=0)
                self._become_follower(0)

    def step_down(self) -> None:
        """Lead no more, and let the best successor campaign at once. Nothing if this member does not lead."""
        if self._leading is not None:
            successor = self._leading.best_successor()
            if successor:
                self._state.messages.append(TimeoutNow(self._state.node_id, successor, self._state.term))
            self._become_follower(0)

    def request_read(self) -> int:
        """A ticket that comes back in `Output.reads` or `Output.reads_lost`."""
        leading = self._leader()
        self._ticket += 1
        if not leading.add_read(self._ticket):
            self._reads_lost.append(self._ticket)
        return self._ticket

    def transfer_leadership(self, to: int = 0) -> int:
        """Begin to hand over; it is given up after one election's time. Returns the node."""
        leading = self._leader()
        to = to or leading.best_successor()
        if not to:
            raise UsageError("there is no other voter that could lead")
        leading.transfer(to)
        return to

    def change_membership(self, change: MembershipChange) -> Configuration:
        """The configuration for the driver to append before anything else is done."""
        return self._leader().change_members(change)

    def unreachable(self, node_id: int) -> None:
        """Messages to a member may have been lost."""
        if self._leading is not None:
            self._leading.on_unreachable(node_id)

    def begin_snapshot(self, node_id: int, index: int = 0) -> None:
        """The driver would rather send its state, behind an entry, than so many entries: no more are sent until that is
        done, or the node has the entry; `Output.snapshot_needed` will name the node."""
        if self._leading is not None:
            self._leading.begin_snapshot(node_id, index)

    def snapshot_done(self, node_id: int, index: int | None) -> None:
        """A member has installed the state through `index`; None if it has not."""
        if self._leading is not None:
            self._leading.on_snapshot_done(node_id, index)

    def wants_snapshot(self, index: int, term: int) -> bool:
        """Whether a state through `index` is of use here: it is not old, and the log does not have its entry."""
        if self._leading is not None or index <= self._state.commit_index:
            return False
        if self._state.log.term_at(index) == term:
            # Committed entries that are here already need only be applied.
            self._state.commit(index)
            return False
        return True

    def installed(self, index: int, term: int, configuration: Configuration) -> None:
        """The driver has put a state in the place of the whole log, durably: `LogView` ends with `index`."""
        state = self._state
        if self._leading is not None or index <= state.commit_index:
            raise LedgerError(
                f"a state through {index} was installed over what is committed through {state.commit_index}"
            )
        if state.log.last_index != index or state.log.term_at(index) != term:
            raise LedgerError(f"a state through {index} of term {term} was installed, but the log ends otherwise")
        state.truncation_count += 1
        state.durable_index = index
        state.configurations = [(index, configuration)]
        state.commit(index)
        self._following.on_installed(index)

    def take_output(self) -> Output:
        """What there is to do now; it is told once."""
        state, leading = self._state, self._leading
        reads: list[tuple[int, int]] = []
        snapshot_needed: list[int] = []
        configuration = None
        if leading is not None:
            leading.flush()
            reads, leading.reads_ready = leading.reads_ready, []
            snapshot_needed, leading.snapshot_needed = leading.snapshot_needed, []
            configuration, leading.configuration_to_append = leading.configuration_to_append, None
        hard_state = state.hard_state if state.hard_state_changed else None
        output = Output(
            self._role,
            self._leader_id,
            state.term,
            state.commit_index,
            hard_state,
            state.accepted,
            state.messages,
            self._has_won,
            configuration,
            reads,
            self._reads_lost,
            snapshot_needed,
        )
        state.hard_state_changed = self._has_won = False
        state.accepted = None
        state.messages = []
        self._reads_lost = []
        return output

    # Terms and roles.

    def _on_later_term(self, message: RaftMessage) -> bool:
        """Whether to go on with a message of a later term than ours. Such a term is taken over, but not because of a
        vote that is only asked for in advance, nor while there is a leader (the dissertation, 4.2.3 and 9.6)."""
        if type(message) is VoteRequest:
            if self._is_in_lease() and not message.is_transfer:
                return False
            if message.is_pre:
                return True
        if type(message) is VoteReply and message.is_pre and message.granted:
            return True
        self._advance_term(message.term, voted_for=0)
        self._become_follower(0)
        return True

    def _on_earlier_term(self, message: RaftMessage) -> None:
        """Tell those who would otherwise wait for ever what the term is now: a leader that was cut off, and a member
        that cannot win and would not campaign in earnest."""
        state = self._state
        if isinstance(message, Append | Heartbeat):
            reply = AppendReply(state.node_id, message.sender, state.term, True, 0, 0, 0, 0)
            state.messages.append(reply)
        elif type(message) is VoteRequest and message.is_pre:
            state.messages.append(VoteReply(state.node_id, message.sender, state.term, True, False))

    def _is_in_lease(self) -> bool:
        """Whether a leader was heard so lately that an election would only disrupt."""
        if not self._settings.check_quorum or not self._leader_id:
            return False
        return self._leading is not None or self._election_ticks < self._settings.election_ticks_min

    def _advance_term(self, term: int, voted_for: int) -> None:
        """The only way into another term; it is a later one, and whatever was begun in the old one ends."""
        if term <= self._state.term:
            raise LedgerError(f"the term cannot go from {self._state.term} to {term}")
        self._state.set_hard_state(term=term, voted_for=voted_for, barred=self._state.hard_state.barred)
        self._following = Following(self._state, self._rejoin_session)

    def _become_follower(self, leader_id: int) -> None:
        if self._leading is not None:
            self._reads_lost += [ticket for ticket, _ in self._leading.reads_ready] + self._leading.reads_lost()
            self._leading = None
            self._following = Following(self._state, self._rejoin_session)
        self._role = next_role(self._role, Role.FOLLOWER)
        self._leader_id = leader_id
        self._election = None
        self._has_won = False
        self._reset_election_timer()

    def _become_leader(self) -> None:
        self._role = next_role(self._role, Role.LEADER)
        self._leader_id = self._state.node_id
        self._election = None
        self._has_won = True
        self._leading = Leading(self._state)

    def _finish_leading(self) -> None:
        if self._leading is not None and self._leading.is_finished:
            self._become_follower(0)

    def _reset_election_timer(self) -> None:
        settings = self._settings
        self._election_ticks = 0
        self._timeout_ticks = self._random.randrange(settings.election_ticks_min, settings.election_ticks_max + 1)

    def _leader(self) -> Leading:
        if self._leading is None:
            raise NotLeader(f"node {self._state.node_id} does not lead; the leader is {self._leader_id or 'not known'}")
        return self._leading

    def _check_taken(self) -> None:
        if self._state.accepted is not None:
            raise LedgerError("entries were accepted and not written yet: the log is not what the core takes it for")

    # Elections.

    def _may_campaign(self) -> bool:
        """Voters only, and none whose disk may have lost what it acknowledged.

        A voter that an uncommitted entry of its own log makes a non-voter may be the only one with a log so long that
        the others cannot win without it; it stands, and does not count itself (the dissertation, section 4.2.2).
        """
        state = self._state
        if not self.may_campaign or state.hard_state.barred:
            return False
        return any(is_voter(configuration, state.node_id) for _, configuration in state.configurations)

    def _ask_for_votes(self, *, is_pre: bool, is_transfer: bool = False) -> None:
        state = self._state
        self._role = next_role(self._role, Role.PRE_CANDIDATE if is_pre else Role.CANDIDATE)
        self._leader_id = 0
        self._reset_election_timer()
        if not is_pre:
            self._advance_term(state.term + 1, voted_for=state.node_id)
        self._election = Election(state, is_pre=is_pre)
        state.messages += self._election.requests(is_transfer=is_transfer)
        self._end_election()

    def _on_vote_request(self, message: VoteRequest, _: Configurations) -> None:
        state = self._state
        granted = self._grants(message)
        if granted and not message.is_pre:
            state.set_hard_state(term=state.term, voted_for=message.sender, barred=False)
            self._election_ticks = 0
        # A refusal carries the term that is in the candidate's way, so that it can go beyond it.
        term = message.term if granted else state.term
        state.messages.append(VoteReply(state.node_id, message.sender, term, message.is_pre, granted))

    def _grants(self, message: VoteRequest) -> bool:
        """The paper, 5.2 and 5.4.1. Whether this member votes by its own configuration does not matter: the candidate's
        may be the later one."""
        state = self._state
        if state.hard_state.barred:
            return False
        voted_for = state.hard_state.voted_for
        may_vote = message.term > state.term or voted_for == message.sender or not (voted_for or self._leader_id)
        return may_vote and is_up_to_date(state.log, message)

    def _on_vote_reply(self, message: VoteReply, _: Configurations) -> None:
        if self._election is not None:
            self._election.add(message)
            self._end_election()

    def _end_election(self) -> None:
        """As soon as it is decided; a won pre-vote is followed by the vote."""
        election = self._election
        if election is None:
            return
        if not election.is_won:
            if election.is_lost:
                self._become_follower(0)
        elif election.is_pre:
            self._ask_for_votes(is_pre=False)
        else:
            self._become_leader()

    def _on_timeout_now(self, message: TimeoutNow, _: Configurations) -> None:
        if self._leading is None and self._may_campaign():
            self._ask_for_votes(is_pre=False, is_transfer=True)

    # A leader's messages, and the answers to them.

    def _follow(self, leader_id: int) -> None:
        if self._leading is not None or self._leader_id not in {0, leader_id}:
            raise LedgerError(
                f"nodes {self._leader_id} and {leader_id} both lead term {self._state.term}: a member has lost its vote"
            )
        if self._role is not Role.FOLLOWER or not self._leader_id:
            self._become_follower(leader_id)
        self._election_ticks = 0

    def _on_append(self, message: Append, configurations: Configurations) -> None:
        self._follow(message.sender)
        self._following.on_append(message, configurations)

    def _on_heartbeat(self, message: Heartbeat, _: Configurations) -> None:
        self._follow(message.sender)
        self._following.on_heartbeat(message)

    def _on_append_reply(self, message: AppendReply, _: Configurations) -> None:
        if self._leading is not None:
            self._leading.on_append_reply(message)

    def _on_heartbeat_reply(self, message: HeartbeatReply, _: Configurations) -> None:
        if self._leading is not None:
            self._leading.on_heartbeat_reply(message)
