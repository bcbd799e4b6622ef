"""Legs of transactions between shards, in a lane of their own through the reactor.

What coordinators have done, that of this node and those of other shards, must not wait for clients: a client's batch
that waits for another shard's answer would keep that shard's question waiting, and both would wait for ever. So these
commands collect here, are executed before those of clients, and are answered as soon as they are committed.

Bounds: legs come from coordinators, each of which carries on no more than its own clients' batches (`reactor.py`).
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bezant.engine.compiled import quick
from bezant.engine.member import Member
from bezant.engine.replica import BATCH_COMMANDS_MAX
from bezant.engine.transactions.ids import joined
from bezant.engine.transactions.times import floor_of
from bezant.net.server.flight_kernels import has_repeats
from bezant.net.server.moved_legs import preset_of_moved
from bezant.protocol.errors import CorruptLog, StorageError, UsageError
from bezant.protocol.records import Records, Words

if TYPE_CHECKING:
    from bezant.net.server.placing import Placing

_NO_PRESET: Final = np.zeros(0, np.int64)

Respond = Callable[[Records | Exception], None]


class Legs(NamedTuple):
    """Commands of one coordinator that are executed together, and who gets their results."""

    commands: Records
    respond: Respond


class _Executed(NamedTuple):
    """Legs in the log, not to be answered before it is committed up to `index`."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    read_ticket: int
    results: Records
    parts: list[Legs]


class _Asked(NamedTuple):
    """An answer that is told when the log is committed up to `index`, by a node that still led when it was made."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    read_ticket: int
    answer: bytes
    respond: Callable[[bytes | Exception], None]


class LegsLane:
    """See the module. All methods on the loop."""

    def __init__(self, member: Member, placing: Callable[[], "Placing | None"] = lambda: None) -> None:
        """`placing`: what this node goes by, if its group is one of several."""
        self._member = member
        self._placing = placing
        self._collected: deque[Legs] = deque()
        self._executed: deque[_Executed] = deque()
        self._questions: deque[tuple[Callable[[], bytes], Callable[[bytes | Exception], None]]] = deque()
        self._asked: deque[_Asked] = deque()
        self.command_count = 0
        """Commands that are not executed yet."""
        self.watch: Callable[[Records], None] | None = None
        """Sees all commands that are added, while somebody wants to know."""

    def add(self, commands: Records, respond: Respond) -> None:
        """Add up to BATCH_COMMANDS_MAX commands, which must not change until they are answered."""
        self._collected.append(Legs(commands, respond))
        if self.watch is not None:
            self.watch(commands)
        self.command_count += len(commands)

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits for it."""
        return not (self._collected or self._executed or self._questions or self._asked)

    @property
    def awaits_commit(self) -> bool:
        """Whether somebody waits for what has been executed, or answered, to be committed."""
        return bool(self._executed or self._asked)

    @property
    def next_count(self) -> int:
        """Commands that `execute` would take."""
        return min(self.command_count, BATCH_COMMANDS_MAX)

    def execute(self) -> int:
        """Execute what was added first, as much as a batch may have; returns the number of events."""
        parts, count = [], 0
        while self._collected and count + len(self._collected[0].commands) <= BATCH_COMMANDS_MAX:
            parts.append(self._collected.popleft())
            count += len(parts[-1].commands)
        self.command_count -= count
        commands = parts[0].commands if len(parts) == 1 else joined([part.commands for part in parts])
        executed = self._member.execute(commands, self._preset(commands), floor_of(commands))
        # Repeats may rest on what is in the log and not committed yet, so `last_index` counts, whatever was appended.
        # And nothing that is committed later shows that this node still led when it repeated what became of a try: its
        # successor may have taken that back.
        index = self._member.replica.log.last_index
        ticket = self._ticket() if quick(has_repeats)(executed.results) else 0
        self._executed.append(_Executed(index, ticket, executed.results, parts))
        return executed.event_count

    def _preset(self, commands: Records) -> Words:
        """What is refused because its slot has left, since it was added or since it was planned."""
        placing = self._placing()
        return _NO_PRESET if placing is None else preset_of_moved(placing, self._member.replica.ledger, commands)

    def ask(self, answer: Callable[[], bytes], respond: Callable[[bytes | Exception], None]) -> None:
        """Have `answer` called as a look-up, which sees all that has been executed."""
        self._questions.append((answer, respond))

    def answer(self) -> None:
        """Make the answers to what has been asked; what cannot be done is told at once."""
        while self._questions:
            answer, respond = self._questions.popleft()
            try:
                told = answer()
            except CorruptLog:
                raise
            except (StorageError, UsageError) as error:
                respond(error)
                continue
            self._member.note_appended()
            self._asked.append(_Asked(self._member.replica.log.last_index, self._ticket(), told, respond))

    def _ticket(self) -> int:
        return 0 if self._member.is_alone else self._member.request_read()

    def reply(self, committed_index: int, confirmed_ticket: int) -> None:
        """Answer everything that has been committed, and is known to have been answered by a leader."""
        while self._asked and self._asked[0].index <= committed_index:
            if self._asked[0].read_ticket > confirmed_ticket:
                break
            asked = self._asked.popleft()
            asked.respond(asked.answer)
        while self._executed and self._executed[0].index <= committed_index:
            if self._executed[0].read_ticket > confirmed_ticket:
                break
            _, _, results, parts = self._executed.popleft()
            first = 0
            for part in parts:
                end = first + len(part.commands)
                part.respond(results[first:end])
                first = end

    def refuse(self, not_executed: Exception, unknown: Exception) -> None:
        """Answer everybody that this node does not lead any more, and whether it has executed what they asked for."""
        executed, self._executed = self._executed, deque()
        collected, self._collected = self._collected, deque()
        self.command_count = 0
        for _, respond_question in self._questions:
            respond_question(not_executed)
        for asked in self._asked:
            asked.respond(not_executed)
        self._questions.clear()
        self._asked.clear()
        for batch in executed:
            for part in batch.parts:
                part.respond(unknown)
        for part in collected:
            part.respond(not_executed)
