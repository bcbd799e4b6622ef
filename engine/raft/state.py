"""What all parts of the core share: the hard state, the indexes, the configurations, and what waits to go out."""

import msgspec

from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import Accepted, CoreSettings, LogView
from bezant.protocol.errors import LedgerError
from bezant.protocol.messages import Configuration
from bezant.protocol.raft_messages import RaftMessage


class State:
    """Mutable, and owned by one `Core`."""

    def __init__(
        self,
        node_id: int,
        hard_state: HardState,
        log: LogView,
        settings: CoreSettings,
        configurations: list[tuple[int, Configuration]],
    ) -> None:
        self.node_id = node_id
        self.hard_state = hard_state  # only ever replaced by a later one: `term` never falls
        self.hard_state_changed = False
        self.term = hard_state.term
        self.log = log
        self.settings = settings
        self.commit_index = 0  # a quorum holds the log through here; never falls, never above the log's end
        self.durable_index = 0  # on this disk, as the log reads now; falls only when the log is cut
        self.truncation_count = (
            0  # how often the log was cut or replaced: a sync begun before says nothing of what is now
        )
        self.configurations = list(configurations)  # (index, configuration), rising; the last is in force
        self.may_lead = True
        self.now_ticks = 0
        self.messages: list[RaftMessage] = []
        self.accepted: Accepted | None = None

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the latest in the log, committed or not."""
        return self.configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """Where the configuration in force stands in the log."""
        return self.configurations[-1][0]

    def set_hard_state(self, *, term: int, voted_for: int, barred: bool) -> None:
        """Change what must survive; it goes out before any message does."""
        if term < self.term or (term == self.term and self.hard_state.voted_for not in {0, voted_for}):
            raise LedgerError(
                f"a vote of term {self.term} cannot be taken back: {self.hard_state} to {term}, {voted_for}"
            )
        self.hard_state = HardState(term, voted_for, barred)
        self.term = term
        self.hard_state_changed = True

    def lift_bar(self) -> None:
        """This disk has again all that it may ever have acknowledged."""
        self.hard_state = msgspec.structs.replace(self.hard_state, barred=False)
        self.hard_state_changed = True

    def commit(self, index: int) -> None:
        """Everything through `index` is decided; nothing if it was before."""
        if index <= self.commit_index:
            return
        self.commit_index = index
        while len(self.configurations) > 1 and self.configurations[1][0] <= index:
            del self.configurations[0]

    def add_configuration(self, index: int, configuration: Configuration) -> None:
        """An entry with a configuration stands in the log: it is in force from now on."""
        if index <= self.configuration_index:
            raise LedgerError(f"a configuration at {index}, behind the one at {self.configuration_index}")
        self.configurations.append((index, configuration))

    def truncate(self, index: int) -> None:
        """The log is cut behind `index`: what was durable, and what was in force, there is no more."""
        if index < self.commit_index:
            raise LedgerError(
                f"told to cut the log behind {index}, but it is committed through {self.commit_index}: "
                "a member has lost what it had acknowledged or voted for"
            )
        self.durable_index = min(self.durable_index, index)
        self.truncation_count += 1
        while self.configuration_index > index:
            if len(self.configurations) == 1:
                raise LedgerError(f"the log is cut behind {index}, and no configuration before that is known")
            self.configurations.pop()
