"""What a member does with its leader's messages. Made anew with each term: what one proved does not count in another.

An acknowledgement says what is durable here and shown to be the leader's; so it is computed when it is sent and never
kept. A follower believes about its log only what an `Append` of this term has shown: commit indexes count up to there.
"""

from bezant.engine.raft.interface import Accepted
from bezant.engine.raft.searching import first_difference, known_term, last_index_of_term, term_in
from bezant.engine.raft.state import State
from bezant.protocol.errors import LedgerError
from bezant.protocol.messages import Configuration
from bezant.protocol.raft_messages import Append, AppendReply, Heartbeat, HeartbeatReply


class Following:
    """A follower within one term."""

    def __init__(self, state: State, rejoin_session: int) -> None:
        self._state = state
        self._rejoin_session = rejoin_session  # drawn at the start of a barred member; 0 of any other
        self._leader_id = 0
        self._session = 0
        # What is committed is in every later leader's log (the paper, 5.4.3).
        self._matched_index = state.commit_index
        self._acknowledged_index = 0
        self._bar_index = 0  # what a barred member must have before it votes; 0 while it has not been told

    def on_append(self, message: Append, configurations: tuple[tuple[int, Configuration], ...]) -> None:
        """Take what the log does not have; cut what contradicts it (the paper, figure 2: AppendEntries)."""
        state = self._state
        self._hear(message)
        if self._must_rejoin(message.session):
            self._report_loss()
            return
        if not self._is_committed(message) and state.log.term_at(message.prev_index) != message.prev_term:
            self._reject(message)
            return
        agreed_index = min(max(message.prev_index, state.commit_index), message.last_index)
        first_new = first_difference(state.log, agreed_index, message.runs, message.last_index)
        if first_new <= message.last_index:
            self._accept(first_new, message.last_index, configurations)
        self._matched_index = max(self._matched_index, message.last_index)
        self._learn_commit(message.commit_index)
        if self._acknowledgeable() >= message.last_index:
            self._acknowledge()

    def on_heartbeat(self, message: Heartbeat) -> None:
        """The leader is there."""
        state = self._state
        self._hear(message)
        if self._must_rejoin(message.session):
            self._report_loss()
        else:
            self._learn_commit(message.commit_index)
        state.messages.append(
            HeartbeatReply(
                state.node_id,
                message.sender,
                state.term,
                message.round,
                message.session,
                self._matched_index,
                state.hard_state.barred,
                state.log.history_index,
                state.may_lead,
            )
        )

    def on_durable(self) -> None:
        """More of the log is on disk."""
        if self._leader_id and self._acknowledgeable() > self._acknowledged_index:
            self._acknowledge()
        self._maybe_lift_bar()

    def on_installed(self, index: int) -> None:
        """The state through `index` came from the leader, in place of entries."""
        self._matched_index = max(self._matched_index, index)
        self.on_durable()

    def _hear(self, message: Append | Heartbeat) -> None:
        self._leader_id = message.sender
        if message.session != self._session:
            self._session = message.session
            self._acknowledged_index = 0

    def _is_committed(self, message: Append) -> bool:
        """Whether what the message builds on is committed here. Then it cannot contradict, and may begin before the
        first entry that is here."""
        index = self._state.commit_index
        if message.prev_index >= index:
            return False
        index = min(index, message.last_index)
        term, found = term_in(message, index), self._state.log.term_at(index)
        if found not in {term, None}:
            raise LedgerError(
                f"entry {index} is committed with the term {found}, but node {message.sender} leads with {term}: "
                "a member has lost what it had acknowledged or voted for"
            )
        return True

    def _accept(self, first_new: int, last_index: int, configurations: tuple[tuple[int, Configuration], ...]) -> None:
        state = self._state
        truncate_to = None
        if first_new <= state.log.last_index:
            truncate_to = first_new - 1
            state.truncate(truncate_to)
            self._acknowledged_index = min(self._acknowledged_index, truncate_to)
        for index, configuration in configurations:
            if index >= first_new:
                state.add_configuration(index, configuration)
        state.accepted = Accepted(truncate_to, first_new, last_index)

    def _reject(self, message: Append) -> None:
        """Say which entry may be the last in common: none of a later term than the leader has there can be (the paper,
        end of section 5.3, whole terms at a time)."""
        state = self._state
        hint = min(message.prev_index, state.log.last_index)
        hint = last_index_of_term(state.log, state.commit_index, hint, message.prev_term)
        self._send_reply(rejected=True, match_index=message.prev_index, hint_index=hint)

    def _acknowledgeable(self) -> int:
        """What is shown to be the leader's, and is on this disk."""
        return min(self._matched_index, self._state.durable_index)

    def _acknowledge(self) -> None:
        match_index = self._acknowledgeable()
        self._acknowledged_index = match_index
        self._send_reply(rejected=False, match_index=match_index, hint_index=0)

    def _send_reply(self, *, rejected: bool, match_index: int, hint_index: int, lost: int = 0) -> None:
        state = self._state
        hint_term = known_term(state.log, hint_index) if hint_index else 0
        reply = AppendReply(
            state.node_id,
            self._leader_id,
            state.term,
            rejected,
            match_index,
            hint_index,
            hint_term,
            self._session,
            lost,
        )
        state.messages.append(reply)

    def _believable(self, commit_index: int) -> int:
        """The leader speaks of its own log: only as far as it has shown this one to be the same."""
        return min(commit_index, self._matched_index)

    def _learn_commit(self, commit_index: int) -> None:
        self._state.commit(self._believable(commit_index))
        if self._bar_index == 0:
            self._bar_index = commit_index
        self._maybe_lift_bar()

    # A disk that lost what it had acknowledged: the leader may have counted that for a commit. So the leader must first
    # forget it, which shows in a session of the number that this member drew; and an index is caught up with only if
    # that leader has committed in its own term, or it could itself not know of all that was committed before it. It may
    # also have forgotten that it elected a later leader: so this one asks the others first, and tells of no commit (0)
    # before a quorum has answered (``leading.py``).

    def _must_rejoin(self, session: int) -> bool:
        return self._state.hard_state.barred and session != self._rejoin_session

    def _report_loss(self) -> None:
        self._bar_index = 0
        last_index = self._state.log.last_index
        self._send_reply(rejected=True, match_index=last_index, hint_index=last_index, lost=self._rejoin_session)

    def _maybe_lift_bar(self) -> None:
        if not self._state.hard_state.barred or not self._is_rejoined():
            return
        if 0 < self._bar_index <= self._acknowledgeable():
            if self._knows_all(self._bar_index):
                self._state.lift_bar()
            else:
                self._bar_index = 0  # the leader's next word will do; waiting for its latest might never end under load

    def _is_rejoined(self) -> bool:
        return self._session == self._rejoin_session

    def _knows_all(self, commit_index: int) -> bool:
        """Whether the leader that told this knew of everything that had been committed before its term."""
        return self._state.log.term_at(commit_index) == self._state.term
