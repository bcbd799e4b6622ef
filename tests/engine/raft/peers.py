"""A member without a disk or a network: the core, a log in memory, and a driver that keeps the core's rules.

What is not synced is lost in a crash. Entries have a payload, so that two entries of one index and term can be told
apart if they are not the same, which Raft must never let happen.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from bezant.engine.raft.core import Core
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import CoreSettings, Output
from bezant.engine.raft.roles import Role
from bezant.protocol.messages import Configuration, Member
from bezant.protocol.raft_messages import Append, RaftMessage

ENTRY_SIZE = 100


def configuration(
    voters: list[int], outgoing: Sequence[int] = (), learners: Sequence[int] = (), learners_next: Sequence[int] = ()
) -> Configuration:
    """A configuration of members whose addresses do not matter."""
    nodes = sorted({*voters, *outgoing, *learners})
    return Configuration([member(node) for node in nodes], voters, [*outgoing], [*learners], [*learners_next])


def member(node: int) -> Member:
    """A member without addresses, on its first disk."""
    return Member(node, 1, "", "")


class Entry(NamedTuple):
    """An entry of the log; payload 0 is the first one of a leader."""

    term: int
    payload: int = 0
    configuration: Configuration | None = None


class Letter(NamedTuple):
    """A message and the entries beside it."""

    message: RaftMessage
    entries: tuple[Entry, ...] = ()


class MemoryLog:
    """A `LogView`: entries behind a snapshot at `offset`."""

    def __init__(self, entries: list[Entry] | None = None, offset: int = 0, offset_term: int = 0) -> None:
        self.entries = entries or []
        self.offset = offset
        self.offset_term = offset_term
        self.archived_index = offset
        self.measured_entries = 0  # whose sizes were asked for

    @property
    def last_index(self) -> int:
        return self.offset + len(self.entries)

    @property
    def history_index(self) -> int:
        return self.first_index

    @property
    def first_index(self) -> int:
        return self.archived_index + 1

    def term_at(self, index: int) -> int | None:
        if index == self.offset:
            return self.offset_term
        if self.offset < index <= self.last_index:
            return self.entries[index - self.offset - 1].term
        return None

    def end_of_span(self, first_index: int, size_bytes_max: int) -> int:
        return min(first_index + max(size_bytes_max // ENTRY_SIZE, 1) - 1, self.last_index)

    def size_of_span(self, first_index: int, last_index: int) -> int:
        self.measured_entries += last_index - first_index + 1
        return ENTRY_SIZE * (last_index - first_index + 1)

    def entry(self, index: int) -> Entry:
        return self.entries[index - self.offset - 1]

    def span(self, first_index: int, last_index: int) -> tuple[Entry, ...]:
        return tuple(self.entries[first_index - self.offset - 1 : last_index - self.offset])

    def truncate(self, index: int) -> None:
        del self.entries[index - self.offset :]

    def configurations(self, base: Configuration) -> list[tuple[int, Configuration]]:
        found = [
            (self.offset + number, entry.configuration)
            for number, entry in enumerate(self.entries, 1)
            if entry.configuration is not None
        ]
        return [(self.offset, base), *found]


def memory_log(terms: Sequence[int]) -> MemoryLog:
    """A log of entries of these terms; those of one index and term are the same in all logs made here."""
    return MemoryLog([Entry(term, -(1_000 * index + term)) for index, term in enumerate(terms, 1)])


class Peer:
    """A member and what survives its crashes: `hard_state`, and the log through `durable_index`."""

    def __init__(
        self,
        node_id: int,
        base: Configuration,
        *,
        settings: CoreSettings | None = None,
        seed: int = 0,
        log: MemoryLog | None = None,
        hard_state: HardState | None = None,
        core_type: type[Core] = Core,
        syncs_itself: bool = True,
    ) -> None:
        self.node_id = node_id
        self.base = base  # the configuration at the log's offset
        self.log = log or MemoryLog()
        self.hard_state = hard_state or HardState()
        self.durable_index = self.log.last_index
        self.syncs_itself = syncs_itself
        self.settings = settings or CoreSettings()
        self.outbox: list[Letter] = []
        self.reads: dict[int, int] = {}
        self.reads_lost: list[int] = []
        self.snapshots_wanted: list[int] = []
        self.elections_won: list[int] = []
        self.written: list[tuple[int, Entry]] = []
        self.hard_states: list[HardState] = []
        self.commit_hint = self.log.offset
        self._random = random.Random(seed * 1_000 + node_id)
        self._core_type = core_type
        self._payload = node_id * 1_000_000
        self.core: Core
        self.start()

    def start(self) -> None:
        """Begin from what is on disk."""
        self.log.truncate(self.durable_index)
        self.outbox.clear()
        self.core = self._core_type(
            node_id=self.node_id,
            hard_state=self.hard_state,
            log=self.log,
            durable_index=self.durable_index,
            configurations=self.log.configurations(self.base),
            commit_index=min(self.commit_hint, self.durable_index),
            settings=self.settings,
            random=self._random,
        )

    @property
    def is_leader(self) -> bool:
        return self.core.role is Role.LEADER

    def settle(self, entries: tuple[Entry, ...] = (), first_index: int = 0) -> None:
        """Do what the core wants done, until it wants nothing more. `entries` came with the message just stepped."""
        while True:
            output = self.core.take_output()
            self._do(output, entries, first_index)
            wrote = bool(output.accepted or output.became_leader or output.configuration_to_append)
            if self.syncs_itself and self.durable_index < self.log.last_index:
                self.sync()
            elif not (wrote or output.messages):
                return

    def _do(self, output: Output, entries: tuple[Entry, ...], first_index: int) -> None:
        if output.hard_state is not None:
            self.hard_state = output.hard_state
            self.hard_states.append(output.hard_state)
        if output.accepted is not None:
            if output.accepted.truncate_to is not None:
                self.log.truncate(output.accepted.truncate_to)
                self.durable_index = min(self.durable_index, output.accepted.truncate_to)
            self._write(list(entries[output.accepted.first_index - first_index :]))
        for message in output.messages:
            beside: tuple[Entry, ...] = ()
            if isinstance(message, Append):
                beside = self.log.span(message.prev_index + 1, message.last_index)
            self.outbox.append(Letter(message, beside))
        if output.became_leader:
            self.elections_won.append(output.term)
            if output.role is Role.LEADER:
                self._append(Entry(output.term))
        if output.configuration_to_append is not None:
            self._append(Entry(output.term, 0, output.configuration_to_append))
        self.reads.update(output.reads)
        self.reads_lost += output.reads_lost
        self.snapshots_wanted += output.snapshot_needed

    def _write(self, entries: list[Entry]) -> None:
        self.written += enumerate(entries, self.log.last_index + 1)
        self.log.entries += entries

    def _append(self, entry: Entry) -> None:
        self._write([entry])
        index = self.log.last_index
        self.core.appended(index, ((index, entry.configuration),) if entry.configuration is not None else ())

    def propose(self, count: int = 1) -> int:
        """The leader executes commands; returns the last index."""
        for _ in range(count):
            self._payload += 1
            self._write([Entry(self.core.term, self._payload)])
        self.core.appended(self.log.last_index)
        self.settle()
        return self.log.last_index

    def change(self, configuration: Configuration) -> int:
        """Append a configuration that the core has made; returns its index."""
        self._append(Entry(self.core.term, 0, configuration))
        index = self.log.last_index
        self.settle()
        return index

    def begin_sync(self) -> tuple[int, int, int]:
        """What is written now will be durable when this sync ends."""
        index = self.log.last_index
        return index, self.log.term_at(index) or 0, self.core.truncation_count

    def end_sync(self, begun: tuple[int, int, int]) -> None:
        """The sync ends; what it wrote is on disk unless the log was cut since."""
        index, term, truncation_count = begun
        if truncation_count == self.core.truncation_count:
            self.durable_index = max(self.durable_index, index)
        self.core.durable(index, term, truncation_count)

    def sync(self) -> None:
        """Sync at once."""
        self.end_sync(self.begin_sync())

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.core.tick()
            self.settle()

    def receive(self, letter: Letter) -> None:
        message = letter.message
        configurations: tuple[tuple[int, Configuration], ...] = ()
        first_index = 0
        if isinstance(message, Append):
            first_index = message.prev_index + 1
            configurations = tuple(
                (index, entry.configuration)
                for index, entry in enumerate(letter.entries, first_index)
                if entry.configuration is not None
            )
        self.core.step(message, configurations)
        self.settle(letter.entries, first_index)

    def install(self, index: int, term: int, configuration: Configuration) -> bool:
        """Take a snapshot if it is wanted."""
        if not self.core.wants_snapshot(index, term):
            return False
        self.log.entries = []
        self.log.offset = self.log.archived_index = index
        self.log.offset_term = term
        self.base = configuration
        self.durable_index = self.commit_hint = index
        self.core.installed(index, term, configuration)
        self.settle()
        return True

    def terms(self) -> list[int]:
        """The terms of the log's entries, for tests to compare."""
        return [entry.term for entry in self.log.entries]
