"""A group of peers whose messages a test delivers, loses, repeats and holds back by hand."""

from collections.abc import Callable, Iterable, Sequence

from bezant.engine.raft.core import Core
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import CoreSettings
from bezant.engine.raft.membership import NOBODY
from bezant.protocol.messages import Configuration
from bezant.protocol.raft_messages import RaftMessage

from .peers import Letter, Peer, memory_log
from .peers import configuration as configuration_of


class Group:
    """Voters 1..count. Messages wait in `wire`, in the order in which they were sent, until `deliver` is called."""

    def __init__(
        self,
        count: int = 3,
        *,
        settings: CoreSettings | None = None,
        core_type: type[Core] = Core,
        logs: dict[int, list[int]] | None = None,
        terms: dict[int, int] | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.configuration = configuration or configuration_of(list(range(1, count + 1)))
        self.settings = settings or CoreSettings()
        self.core_type = core_type
        self.peers: dict[int, Peer] = {}
        self.wire: list[Letter] = []
        self.cut: set[tuple[int, int]] = set()
        self.stopped: set[int] = set()
        for node in range(1, count + 1):
            self.add(node, self.configuration, (logs or {}).get(node, []), (terms or {}).get(node, 0))

    def __getitem__(self, node: int) -> Peer:
        return self.peers[node]

    def add(
        self, node: int, configuration: Configuration = NOBODY, log_terms: Sequence[int] = (), term: int = 0
    ) -> Peer:
        """Start a member that knows this configuration, in a term, with a log of entries of these terms."""
        peer = Peer(
            node,
            configuration,
            settings=self.settings,
            seed=7,
            log=memory_log(log_terms),
            hard_state=HardState(max([term, *log_terms]), 0, configuration is NOBODY),
            core_type=self.core_type,
        )
        self.peers[node] = peer
        return peer

    def isolate(self, *nodes: int) -> None:
        """Nothing passes between these nodes and the others, either way."""
        for node in nodes:
            for other in self.peers:
                if other not in nodes:
                    self.cut |= {(node, other), (other, node)}

    def heal(self) -> None:
        self.cut.clear()

    def collect(self) -> list[RaftMessage]:
        """Take what the peers want to send onto the wire; returns what is new there."""
        new: list[RaftMessage] = []
        for peer in self.peers.values():
            peer.settle()
            for letter in peer.outbox:
                pair = (letter.message.sender, letter.message.receiver)
                if pair not in self.cut and letter.message.receiver in self.peers:
                    self.wire.append(letter)
                    new.append(letter.message)
            peer.outbox.clear()
        return new

    def take(self, kind: type, receiver: int = 0) -> list[Letter]:
        """Take messages of a kind off the wire; they arrive when the test lets them."""
        self.collect()
        taken = [
            letter
            for letter in self.wire
            if isinstance(letter.message, kind) and receiver in {0, letter.message.receiver}
        ]
        self.wire = [letter for letter in self.wire if letter not in taken]
        return taken

    def deliver(self, lose: Callable[[RaftMessage], bool] | None = None, rounds: int = 10_000) -> None:
        """Deliver in order until nothing is on its way, except what `lose` says."""
        for _ in range(rounds):
            self.collect()
            if not self.wire:
                return
            letter = self.wire.pop(0)
            message = letter.message
            if message.receiver in self.stopped or (message.sender, message.receiver) in self.cut:
                continue
            if lose is None or not lose(message):
                self.peers[message.receiver].receive(letter)
        raise AssertionError("the members talk without end")

    def hand(self, letters: Iterable[Letter]) -> None:
        """Let held messages arrive."""
        for letter in letters:
            self.peers[letter.message.receiver].receive(letter)

    def tick(self, count: int = 1, lose: Callable[[RaftMessage], bool] | None = None) -> None:
        """Time passes for all, and all that is sent arrives."""
        for _ in range(count):
            for node, peer in self.peers.items():
                if node not in self.stopped:
                    peer.tick()
            self.deliver(lose)

    def leaders(self) -> list[int]:
        """The nodes that run and take themselves for leaders."""
        return [node for node, peer in self.peers.items() if peer.is_leader and node not in self.stopped]

    def commits(self) -> list[int]:
        return [peer.core.commit_index for peer in self.peers.values()]

    def elect(self, node: int) -> Peer:
        """Make a node the leader, if it is not."""
        if self.peers[node].is_leader:
            return self.peers[node]
        for peer in self.peers.values():
            peer.core.leader_lost()
        self.peers[node].core.campaign()
        self.deliver()
        if not self.peers[node].is_leader:
            raise AssertionError(f"node {node} was not elected")
        self.tick()
        return self.peers[node]

    def crash(self, node: int) -> None:
        """The process ends at once; what was not synced is gone."""
        self.stopped.add(node)
        self.peers[node].outbox.clear()

    def restart(self, node: int) -> Peer:
        self.stopped.discard(node)
        self.peers[node].start()
        return self.peers[node]
