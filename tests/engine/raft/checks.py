"""What Raft promises, checked after each step by what a driver sees: who leads, what is written, committed and sent."""

from bezant.protocol.raft_messages import AppendReply, VoteReply

from .peers import Entry, Letter, Peer


class Violation(AssertionError):
    """A promise of Raft does not hold."""


class Checks:
    """What has been true once and must stay true, over all members and restarts."""

    def __init__(self) -> None:
        self.committed: dict[int, Entry] = {}
        self.commit_index = 0
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int, int], int] = {}
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self.seen_commit: dict[int, int] = {}
        self.seen_term: dict[int, int] = {}

    def forget(self, node: int) -> None:
        """The node is another disk now."""
        self.seen_commit.pop(node, None)
        self.seen_term.pop(node, None)

    def restarted(self, peer: Peer) -> None:
        """What a member knew of the commit index was not durable."""
        self.seen_commit[peer.node_id] = min(self.seen_commit.get(peer.node_id, 0), peer.core.commit_index)

    def look(self, peer: Peer, incarnation: int) -> None:
        """Check all that has changed at a member."""
        node = peer.node_id
        if peer.core.term < self.seen_term.get(node, 0):
            raise Violation(f"node {node} went back to term {peer.core.term}")
        self.seen_term[node] = peer.core.term
        self._check_written(peer)
        self._check_committed(peer)
        self._check_won(peer)
        for letter in peer.outbox:
            self._check_sent(peer, letter, incarnation)

    def _check_written(self, peer: Peer) -> None:
        """Log matching: an entry of one index and term is the same everywhere, and so is the one before it."""
        node, log = peer.node_id, peer.log
        for index, entry in peer.written:
            if log.offset < index <= log.last_index and log.entry(index) == entry:
                before = log.term_at(index - 1) or 0
                known = self.entries.setdefault((index, entry.term), (entry, before))
                if known != (entry, before):
                    raise Violation(f"node {node}: entry {index} of term {entry.term} is {entry} and {known}")
        peer.written.clear()

    def _check_committed(self, peer: Peer) -> None:
        """What is committed anywhere is committed everywhere, for ever."""
        node, core, log = peer.node_id, peer.core, peer.log
        seen = self.seen_commit.get(node, 0)
        if core.commit_index < seen:
            raise Violation(f"node {node} uncommitted {core.commit_index + 1} to {seen}")
        if core.commit_index > log.last_index:
            raise Violation(f"node {node} committed {core.commit_index} of {log.last_index}")
        for index in range(max(seen, log.offset) + 1, core.commit_index + 1):
            entry = log.entry(index)
            if self.committed.setdefault(index, entry) != entry:
                raise Violation(f"node {node}: committed {index} is {entry} and {self.committed[index]}")
        self.seen_commit[node] = core.commit_index
        self.commit_index = max(self.commit_index, core.commit_index)

    def _check_won(self, peer: Peer) -> None:
        """One leader a term, and leader completeness."""
        node, log = peer.node_id, peer.log
        for term in peer.elections_won:
            if self.leaders.setdefault(term, node) != node:
                raise Violation(f"nodes {node} and {self.leaders[term]} both lead term {term}")
            for index, entry in self.committed.items():
                if index > log.offset and (index > log.last_index or log.entry(index) != entry):
                    raise Violation(f"node {node} leads term {term} without the committed entry {index}")
        peer.elections_won.clear()

    def _check_sent(self, peer: Peer, letter: Letter, incarnation: int) -> None:
        message = letter.message
        if isinstance(message, AppendReply) and not message.rejected and message.match_index > peer.durable_index:
            raise Violation(f"node {peer.node_id} acknowledged {message.match_index} with {peer.durable_index} durable")
        if isinstance(message, VoteReply) and message.granted and not message.is_pre:
            key = (peer.node_id, incarnation, message.term)
            if self.votes.setdefault(key, message.receiver) != message.receiver:
                raise Violation(f"node {peer.node_id} voted twice in term {message.term}")
            if peer.hard_state.term < message.term or peer.hard_state.barred:
                raise Violation(f"node {peer.node_id} told of a vote that is not durable")
