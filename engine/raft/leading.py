"""What a leader does. Made when an election is won and thrown away with the leadership: nothing of it is left behind.

The leader sends ahead without waiting for answers, within a window per follower; its own disk is one voter among others
and counts by what is durable on it. Nothing is sent from here: `flush` puts what may go into the state's messages.
"""

from typing import NamedTuple

from bezant.engine.raft.interface import MemberStatus, NotYet
from bezant.engine.raft.membership import MembershipChange, changed, is_alone, is_joint, is_voter, left, node_ids
from bezant.engine.raft.progress import Mode, Progress
from bezant.engine.raft.quorum import is_quorum, quorum_value
from bezant.engine.raft.reads import Reads
from bezant.engine.raft.searching import known_term, last_index_of_term, term_runs
from bezant.engine.raft.state import State
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.messages import Configuration
from bezant.protocol.raft_messages import (
    TERM_RUNS_MAX,
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    TermRun,
    TimeoutNow,
)


class _Span(NamedTuple):
    """What one `Append` may bring, from an entry on."""

    first_index: int
    size_bytes_max: int
    last_index: int
    size_bytes: int
    prev_term: int
    runs: tuple[TermRun, ...]


class Leading:
    """A leader within its term."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.last_index = state.log.last_index  # what the driver has appended, durable or not
        # Until this is committed the leader does not know what is: then come reads and changes of members (the paper,
        # section 8), and only with it are entries of earlier terms committed (5.4.2). What is alone has no others to
        # agree with or to tell, so its log's present end does; any other needs an entry of its own term.
        self.settled_index = self.last_index + (not is_alone(state.configuration, state.node_id))
        self.is_finished = False  # must step down
        self.reads_ready: list[tuple[int, int]] = []
        self.snapshot_needed: list[int] = []
        self.configuration_to_append: Configuration | None = None
        self.transfer_to = 0
        self._transfer_ticks = 0
        self._reads = Reads()
        self._sessions = 0
        self._heartbeat_ticks = state.settings.heartbeat_ticks - 1  # the others should know by the next tick
        self._is_leave_asked = False
        self._has_news = False  # something may be sent to someone
        self._span: _Span | None = None  # found last in this `flush`: followers that are level are sent the same
        self._progress: dict[int, Progress] = {}
        self._update_members()
        self._maybe_commit()

    # Time.

    def on_tick(self) -> None:
        """Heartbeats, and what ends when nothing is heard."""
        state, settings = self._state, self._state.settings
        self._heartbeat_ticks += 1
        self._maybe_give_up_transfer()
        if self._heartbeat_ticks >= settings.heartbeat_ticks:
            self._send_heartbeats()
            if settings.check_quorum and not self._hears_quorum():
                self.is_finished = True
            return
        for progress in self._others():
            if progress.told_commit_index < min(state.commit_index, progress.match_index):
                # An idle follower learns of a commit within a tick; a busy one by the next Append.
                self._send_heartbeat(progress)

    def _hears_quorum(self) -> bool:
        """Whether a quorum was heard within an election's time (the dissertation, section 6.2)."""
        own = self._progress.get(self._state.node_id)
        if own is not None:
            own.heard_ticks = self._state.now_ticks
        heard = quorum_value(
            self._state.configuration, {node: item.heard_ticks for node, item in self._progress.items()}
        )
        return self._state.now_ticks - heard < self._state.settings.election_ticks_min

    # The log.

    def on_appended(self, last_index: int, configurations: tuple[tuple[int, Configuration], ...]) -> None:
        """The driver has appended entries of this term through `last_index`."""
        if last_index < self.last_index:
            raise LedgerError(f"a leader's log only grows: appended through {last_index}, before {self.last_index}")
        self.last_index = last_index
        self._has_news = True
        for index, configuration in configurations:
            if self._state.configuration_index > self._state.commit_index:
                raise LedgerError(f"a configuration at {index} while the one before it is not committed")
            self._state.add_configuration(index, configuration)
            self._is_leave_asked = False
            self._update_members()

    def on_durable(self) -> None:
        """More of the log is on the leader's own disk."""
        own = self._progress.get(self._state.node_id)
        if own is not None:
            own.match_index = self._state.durable_index
        self._maybe_commit()

    def on_append_reply(self, message: AppendReply) -> None:
        """A follower has entries, or does not have what an Append builds on."""
        progress = self._progress_of(message)
        if progress is None:
            return
        if message.lost:
            self._start_over(progress, message)
        elif message.rejected:
            if progress.reject(message.match_index, self._next_after(message)):
                self._has_news = True
        else:
            if message.match_index > self.last_index:
                raise LedgerError(
                    f"node {message.sender} acknowledges {message.match_index} of {self.last_index} entries"
                )
            progress.acknowledge(message.match_index, self._state.log.first_index)
            self._has_news = True
            self._maybe_commit()
            self._maybe_hand_over()

    def _next_after(self, message: AppendReply) -> int:
        """Where to look next: behind the last entry here that is not of a later term than the follower's hint."""
        log = self._state.log
        floor = min(log.first_index - 1, message.hint_index)
        return last_index_of_term(log, floor, message.hint_index, message.hint_term) + 1

    def _start_over(self, progress: Progress, message: AppendReply) -> None:
        """What a member had acknowledged is not there any more: it begins a session of its own (``following.py``).

        It may also have forgotten a vote, and all that it did for a later leader whom this one has not heard of. So the
        others are asked first: until a quorum of them has answered, it is told of no commit and counted for none."""
        started = Progress(message.sender, message.lost, 1, self._state.now_ticks)
        started.round = progress.round
        started.rejoin_round = self._reads.ask()
        started.become_probe(self._next_after(message))
        self._progress[message.sender] = started
        self._has_news = True
        self._send_heartbeats()
        self._on_answers()

    def _may_commit(self, index: int) -> bool:
        """An entry of an earlier term is only committed by one of this term behind it (the paper, figure 8)."""
        return index >= self.settled_index

    def _maybe_commit(self) -> None:
        state = self._state
        matches = {node: item.match_index for node, item in self._progress.items() if not item.rejoin_round}
        index = quorum_value(state.configuration, matches)
        if index <= state.commit_index or not self._may_commit(index):
            if state.commit_index >= self.settled_index:
                self._after_commit()
            return
        state.commit(index)
        self._after_commit()

    def _after_commit(self) -> None:
        """What waits for a configuration to be committed."""
        state = self._state
        if state.configuration_index > state.commit_index:
            return
        if is_joint(state.configuration):
            if not self._is_leave_asked:
                self._is_leave_asked = True
                self.configuration_to_append = left(state.configuration)
        elif state.node_id not in state.configuration.voters and not self.is_finished:
            # The dissertation, section 4.2.2: a leader that is no voter has led until here. The others should know.
            self._send_heartbeats()
            self.is_finished = True
            successor = self.best_successor()
            if successor:
                state.messages.append(TimeoutNow(state.node_id, successor, state.term))

    @property
    def is_settled(self) -> bool:
        """Whether the leader has committed in its term, and so knows all that is committed."""
        return self._state.commit_index >= self.settled_index

    # Sending.

    def flush(self) -> None:
        """Put what may go out now into the state's messages."""
        state = self._state
        if self._reads.wants_round and self.is_settled:
            self._reads.begin_round(state.commit_index)
            self._send_heartbeats()
            self._on_answers()
        if self._has_news:
            self._has_news = False
            for progress in self._others():
                self._send_entries(progress)
            self._span = None

    def _send_entries(self, progress: Progress) -> None:
        """As many as the member may get; see `Mode`."""
        settings = self._state.settings
        while progress.next_index <= self.last_index and progress.mode is not Mode.SNAPSHOT and not progress.is_paused:
            first = progress.next_index
            if self._needs_snapshot(progress):
                return
            room = settings.bytes_in_flight_max - progress.bytes_in_flight
            if len(progress.in_flight) >= settings.messages_in_flight_max or room <= 0:
                return
            span = self._find_span(first, min(room, settings.append_bytes_max))
            self._send_append(progress, span.prev_term, span.runs, span.last_index)
            if progress.mode is Mode.PROBE:
                progress.is_paused = True
            else:
                progress.note_sent(span.last_index, span.size_bytes)
        if progress.mode is Mode.PROBE and not progress.is_paused and not self._needs_snapshot(progress):
            self._send_empty(progress)
            progress.is_paused = True

    def _find_span(self, first: int, size_bytes_max: int) -> _Span:
        """The entries from one on that fit in an `Append`, of as many terms as it can tell. Only what is new is
        measured: the window of a follower that is far behind may have thousands of entries."""
        span, log = self._span, self._state.log
        if span is not None and (span.first_index, span.size_bytes_max) == (first, size_bytes_max):
            return span
        last = min(self.last_index, log.end_of_span(first, size_bytes_max))
        runs = term_runs(log, first, last, TERM_RUNS_MAX + 1)
        if len(runs) > TERM_RUNS_MAX:
            last, runs = runs[-1].first_index - 1, runs[:-1]
        if runs[-1].term > self._state.term:
            raise LedgerError(
                f"the log has entries of the term {runs[-1].term}, ahead of the leader's {self._state.term}"
            )
        size_bytes = log.size_of_span(first, last)
        self._span = _Span(first, size_bytes_max, last, size_bytes, known_term(log, first - 1), runs)
        return self._span

    def _needs_snapshot(self, progress: Progress) -> bool:
        log = self._state.log
        if progress.next_index >= log.first_index and log.term_at(progress.next_index - 1) is not None:
            return False
        progress.become_snapshot()
        self.snapshot_needed.append(progress.node_id)
        return True

    def _send_empty(self, progress: Progress) -> None:
        """An Append without entries: does the member have the entry before the next one?"""
        prev_index = progress.next_index - 1
        self._send_append(progress, known_term(self._state.log, prev_index), (), prev_index)

    def _send_append(self, progress: Progress, prev_term: int, runs: tuple[TermRun, ...], last_index: int) -> None:
        """The entries next_index..last_index, of these terms; none if they end before they begin."""
        state = self._state
        commit_index = self._tell_commit_index(progress)
        state.messages.append(
            Append(
                state.node_id,
                progress.node_id,
                state.term,
                progress.next_index - 1,
                prev_term,
                runs,
                last_index,
                commit_index,
                progress.session,
            )
        )

    def _tell_commit_index(self, progress: Progress) -> int:
        """What a message to the member says of it; 0 to one that would take itself for caught up with it."""
        progress.told_commit_index = self._state.commit_index
        return 0 if progress.rejoin_round else self._state.commit_index

    def _send_heartbeats(self) -> None:
        self._heartbeat_ticks = 0
        for progress in self._others():
            self._send_heartbeat(progress)

    def _send_heartbeat(self, progress: Progress) -> None:
        state = self._state
        commit_index = self._tell_commit_index(progress)
        state.messages.append(
            Heartbeat(state.node_id, progress.node_id, state.term, commit_index, self._reads.round, progress.session)
        )

    def on_heartbeat_reply(self, message: HeartbeatReply) -> None:
        """A member is there; if it lacks entries, or does not know that it has them, an Append without entries asks."""
        progress = self._progress_of(message)
        if progress is None:
            return
        progress.is_barred, progress.may_lead = message.is_barred, message.may_lead
        progress.first_index = message.first_index
        if message.round > progress.round and not message.is_barred:
            # Who may have forgotten a vote cannot tell that there is no later leader.
            progress.round = message.round
            self._on_answers()
        is_behind = progress.match_index < self.last_index or message.matched_index < progress.match_index
        if is_behind and progress.mode is not Mode.SNAPSHOT:
            self._ask(progress)

    def _ask(self, progress: Progress) -> None:
        """Prove or disprove that all sent has arrived: what was lost is rejected, however full the window is."""
        if self._needs_snapshot(progress):
            return
        if progress.mode is Mode.PROBE and not progress.is_paused:
            self._send_entries(progress)
        else:
            self._send_empty(progress)

    # Members.

    def _is_active(self, progress: Progress) -> bool:
        """Whether it was heard lately."""
        return self._state.now_ticks - progress.heard_ticks < self._state.settings.election_ticks_min

    def _others(self) -> list[Progress]:
        return [progress for node, progress in self._progress.items() if node != self._state.node_id]

    def _progress_of(self, message: AppendReply | HeartbeatReply) -> Progress | None:
        """The sender's, if this is about what it is now: a member that was removed and added again starts anew."""
        progress = self._progress.get(message.sender)
        if progress is None or not self._is_current(progress, message.session):
            return None
        progress.heard_ticks = self._state.now_ticks
        return progress

    def _is_current(self, progress: Progress, session: int) -> bool:
        return progress.session == session

    def _update_members(self) -> None:
        """Begin with new members, forget those that left; what is known of the others stands."""
        state = self._state
        known, self._progress = self._progress, {}
        for node in sorted(node_ids(state.configuration)):
            progress = known.get(node)
            if progress is None:
                self._sessions += 1
                progress = Progress(node, self._sessions, self.last_index + 1, state.now_ticks)
                if node == state.node_id:
                    progress.match_index = state.durable_index
            self._progress[node] = progress
        if self.transfer_to and not is_voter(state.configuration, self.transfer_to):
            self.transfer_to = 0
        self._on_answers()  # Nobody may be left to answer what was asked.

    def change_members(self, change: MembershipChange) -> Configuration:
        """The configuration to append. Raises `UsageError` if it makes no sense, or not now."""
        self._check_may_change()
        configuration = changed(self._state.configuration, change)
        for node in change.promote:
            self._check_caught_up(node)
        self._check_can_elect(configuration)
        return configuration

    def _check_may_change(self) -> None:
        """One change at a time, and none before this leader knows what its predecessors committed (the dissertation,
        section 4.1, and Ongaro's correction of 2015 on raft-dev)."""
        if self._state.configuration_index > self._state.commit_index or is_joint(self._state.configuration):
            raise NotYet("a change of members is under way: try again when it is done")
        if not self.is_settled:
            raise NotYet("the leader has not committed an entry in its term yet: try again")
        if self.transfer_to:
            raise NotYet("the leadership is being handed over: try again")

    def _check_caught_up(self, node_id: int) -> None:
        """A new voter that lacks much would hold up every commit (the dissertation, section 4.2.1)."""
        progress, state = self._progress.get(node_id), self._state
        if progress is not None and progress.mode is Mode.REPLICATE and progress.match_index >= self.settled_index:
            behind = max(progress.match_index + 1, state.log.first_index)
            if behind > self.last_index:
                return
            if state.log.end_of_span(behind, state.settings.bytes_in_flight_max) >= self.last_index:
                return
        raise NotYet(f"member {node_id} has not caught up: promote it when it has")

    def _check_can_elect(self, configuration: Configuration) -> None:
        """If this leader fails, those who are there and may vote must be able to elect the next one."""
        ready = {item.node_id for item in self._others() if self._is_active(item) and not item.is_barred}
        if not is_quorum(configuration, {self._state.node_id, *ready}):
            raise NotYet("too few of the voters there would be are up and ready to vote")

    def on_unreachable(self, node_id: int) -> None:
        """What was sent ahead may be lost."""
        progress = self._progress.get(node_id)
        if progress is not None and progress.mode is Mode.REPLICATE:
            progress.become_probe(progress.match_index + 1)
            progress.is_paused = True  # until it is heard again

    def begin_snapshot(self, node_id: int, index: int) -> None:
        """Send the state behind an entry to a member rather than entries."""
        progress = self._progress.get(node_id)
        if progress is not None and node_id != self._state.node_id and progress.mode is not Mode.SNAPSHOT:
            progress.become_snapshot(index)
            self.snapshot_needed.append(node_id)

    def on_snapshot_done(self, node_id: int, index: int | None) -> None:
        """The state through `index` was installed at a member; None if that failed, and it is tried again later."""
        progress = self._progress.get(node_id)
        if progress is None or progress.mode is not Mode.SNAPSHOT:
            return
        if index is None:
            progress.become_probe(progress.match_index + 1)
            progress.is_paused = True  # until its next answer to a heartbeat
        else:
            progress.become_probe(min(index, self.last_index) + 1)
            self._has_news = True

    # Reads.

    def add_read(self, ticket: int) -> bool:
        """Whether there is room for another read."""
        if len(self._reads) >= self._state.settings.reads_waiting_max:
            return False
        self._reads.add(ticket)
        return True

    def reads_lost(self) -> list[int]:
        """The reads that this leader will not answer."""
        return self._reads.lost()

    def _on_answers(self) -> None:
        """What a quorum has answered is settled: there was no later leader when it was asked."""
        rejoining = [item for item in self._progress.values() if item.rejoin_round]
        if not rejoining and not len(self._reads):
            return
        rounds = {node: item.round for node, item in self._progress.items()}
        rounds[self._state.node_id] = self._reads.round
        answered_round = quorum_value(self._state.configuration, rounds)
        self.reads_ready += self._reads.confirmed(answered_round)
        for progress in rejoining:
            if progress.rejoin_round <= answered_round:
                progress.rejoin_round = progress.told_commit_index = 0
                self._maybe_commit()

    # Handing over.

    def transfer(self, to: int) -> None:
        """Let `to` campaign as soon as it has the whole log (the dissertation, section 3.10)."""
        if to not in self._state.configuration.voters:
            raise UsageError(f"node {to} does not vote, so it cannot lead")
        if to == self._state.node_id:
            return
        if to != self.transfer_to:
            self.transfer_to = to
            self._transfer_ticks = 0
            self._has_news = True
            self._maybe_hand_over()

    def _has_all(self, progress: Progress) -> bool:
        return progress.match_index == self.last_index

    def _maybe_give_up_transfer(self) -> None:
        if self.transfer_to:
            self._transfer_ticks += 1
            if self._transfer_ticks >= self._state.settings.election_ticks_min:
                self.transfer_to = 0

    def best_successor(self) -> int:
        """The voter heard lately that has most of the log and may lead; 0 if there is none."""
        state = self._state
        found = [
            (item.match_index, -item.node_id)
            for item in self._others()
            if item.node_id in state.configuration.voters and self._is_active(item) and self._may_lead(item)
        ]
        return -max(found)[1] if found else 0

    def _may_lead(self, progress: Progress) -> bool:
        return progress.may_lead and not progress.is_barred

    def _maybe_hand_over(self) -> None:
        progress = self._progress.get(self.transfer_to)
        if progress is not None and self._has_all(progress):
            self._state.messages.append(TimeoutNow(self._state.node_id, self.transfer_to, self._state.term))

    def member_statuses(self) -> list[MemberStatus]:
        """One for each member, by node id."""
        state = self._state
        return [
            MemberStatus(
                item.node_id,
                item.match_index,
                item.next_index,
                "self" if item.node_id == state.node_id else item.mode.name.lower(),
                len(item.in_flight),
                item.node_id == state.node_id or self._is_active(item),
                item.node_id != state.node_id and item.is_barred,
                state.log.history_index if item.node_id == state.node_id else item.first_index,
            )
            for item in self._progress.values()
        ]
