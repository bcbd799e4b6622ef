"""Elections: one campaign, from its requests to its outcome, and whether a log is good enough for a vote."""

from bezant.engine.raft.interface import LogView
from bezant.engine.raft.quorum import can_be_quorum, is_quorum
from bezant.engine.raft.searching import known_term
from bezant.engine.raft.state import State
from bezant.protocol.raft_messages import VoteReply, VoteRequest


class Election:
    """A campaign within a term; thrown away with it. A pre-vote is about the next term and changes nothing."""

    def __init__(self, state: State, *, is_pre: bool) -> None:
        self._state = state
        self.is_pre = is_pre
        self._votes = {state.node_id: True}

    def requests(self, *, is_transfer: bool) -> list[VoteRequest]:
        """To all other voters, of both halves; none if this member decides alone."""
        state = self._state
        if self.is_won:
            return []
        last_index = state.log.last_index
        last_term = known_term(state.log, last_index)
        term = state.term + 1 if self.is_pre else state.term
        voters = {*state.configuration.voters, *state.configuration.voters_outgoing} - {state.node_id}
        return [
            VoteRequest(state.node_id, node, term, last_index, last_term, self.is_pre, is_transfer)
            for node in sorted(voters)
        ]

    def add(self, message: VoteReply) -> None:
        """A voter's first answer counts; one to another campaign does not."""
        if message.is_pre == self.is_pre and not (
            message.is_pre and message.granted and message.term != self._state.term + 1
        ):
            self._votes.setdefault(message.sender, message.granted)

    @property
    def is_won(self) -> bool:
        """Whether a quorum has granted its vote."""
        return is_quorum(self._state.configuration, {node for node, granted in self._votes.items() if granted})

    @property
    def is_lost(self) -> bool:
        """Whether so many have refused that it cannot be won."""
        refusing = {node for node, granted in self._votes.items() if not granted}
        return not can_be_quorum(self._state.configuration, refusing)


def is_up_to_date(log: LogView, message: VoteRequest) -> bool:
    """Whether a candidate's log has all that may be committed, as far as this one shows: a later last term wins,
    whatever the lengths (the paper, section 5.4.1)."""
    return (message.last_term, message.last_index) >= (known_term(log, log.last_index), log.last_index)
