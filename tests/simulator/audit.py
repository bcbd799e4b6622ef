"""The end of a seed: is every answer explained by the canonical history, and by when it was asked for and given?"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.lookups import SLOT_BITS_OF_HEAD
from bezant.engine.replay import replay_entry
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.records import ACCOUNT, EVENT, RESULT, split_position

from .checks import Committed
from .clients import Operation, Told
from .frames import Outcome, rows_of
from .schedule import Violation

WITHOUT_EVENT = frozenset(
    {
        ResultCode.ID_CONFLICT,
        ResultCode.HOLDS_FULL,
        ResultCode.ACCOUNTS_FULL,
        ResultCode.CHAIN_REPEATED_IN_PART,
        ResultCode.CHAIN_MEMBER_NOT_EXECUTED,
        ResultCode.STORAGE_FULL,
    }
)
"""What these clients may be told that leaves no trace in the history. A batch and all holds that are due before it may
be more than a segment has room for: these nodes have the smallest there are."""

_meaning = itemgetter("debit_head", "debit_tail", "credit_head", "credit_tail", "amount", "kind", "flags")
_FORBID, _EXPIRE, _MOVE_OPEN = int(CommandKind.FORBID), int(CommandKind.EXPIRE), int(CommandKind.MOVE_OPEN)

Key = tuple[int, int, int]


class Executed(NamedTuple):
    """Where an id was used up."""

    index: int  # type: ignore[assignment]
    sequence: int
    event: Any


class Audit:
    """Executes the canonical history once more, on a ledger of its own, and compares it with what clients were told."""

    without_event: frozenset[ResultCode] = WITHOUT_EVENT

    def __init__(
        self, history: list[Committed], counts: Counter[str], settings: tuple[int, int], *, shard: int = 0
    ) -> None:
        self._history = history
        self._counts = counts
        self._committed_us = [item.at_us for item in history]
        self._executed: dict[Key, Executed] = {}
        self._given_up: dict[Key, list[int]] = {}
        """Of the operations that give up an id, how many entries were committed when each was first sent: which of them
        was executed nobody can tell."""
        self._ledger = Ledger(
            shard=shard, accounts_max=settings[0], holds_max=settings[1], ids_capacity_initial=1 << 12
        )
        self._ledger.replaying = True

    def run(self, operations: Iterable[Operation]) -> str:
        """Raise `Violation` for what cannot be; returns the digest of the state at the end."""
        operations = list(operations)
        reads: dict[int, list[tuple[Operation, Told]]] = {}
        for operation, told in self._reads_of(operations):
            reads.setdefault(told.answer.index, []).append((operation, told))
        for number, item in enumerate(self._history, 1):
            replay_entry(self._ledger, item.entry)
            self._note_ids(number, item)
            for operation, told in reads.pop(number, ()):
                self._check_read(operation, told)
        if reads:
            raise Violation(f"reads were answered at {sorted(reads)}, and {len(self._history)} entries are committed")
        self._ledger.check_invariants()
        for operation in operations:
            for command in operation.rows:
                if command["kind"] == _FORBID and operation.sent:
                    self._given_up.setdefault(_key(command), []).append(operation.sent[0][1])
        for operation in operations:
            self._check_operation(operation)
        return self._ledger.digest()

    def _reads_of(self, operations: Iterable[Operation]) -> Iterable[tuple[Operation, Told]]:
        for operation in operations:
            if not len(operation.commands):
                yield from ((operation, told) for told in operation.told)

    def _note_ids(self, number: int, item: Committed) -> None:
        header = item.entry.header
        if header.kind != EntryKind.EVENTS:
            return
        for place, event in enumerate(rows_of(np.frombuffer(item.entry.body, EVENT))):
            if event["kind"] == _EXPIRE or event["kind"] >= _MOVE_OPEN:
                continue
            key = _key(event)
            if key in self._executed:
                raise Violation(f"id {key} was executed twice: in entries {self._executed[key].index} and {number}")
            self._executed[key] = Executed(number, header.first_sequence + place, event)

    def _is_same(self, event: Any, command: Any) -> bool:
        return _is_same(event, command)

    def _check_operation(self, operation: Operation) -> None:
        if len(operation.commands) and operation.refused.issuperset(range(len(operation.sent))):
            for command in operation.rows:
                executed = self._executed.get(_key(command))
                is_only = command["kind"] != _FORBID or len(self._given_up.get(_key(command), ())) == 1
                if executed is not None and is_only and self._is_same(executed.event, command):
                    raise Violation(f"client {operation.client}: {_key(command)} was refused everywhere and executed")
        for told in operation.told:
            if told.answer.outcome is Outcome.DONE and len(operation.commands):
                self._check_results(operation, told)

    def _check_results(self, operation: Operation, told: Told) -> None:
        results = rows_of(np.frombuffer(told.answer.body, RESULT))
        for command, result in zip(operation.rows, results, strict=True):
            row, key = CODE_ROW[result["code"]], _key(command)
            executed = self._executed.get(key)
            what = f"client {operation.client}, id {key}, told {row.code.name} at {told.at_us} us"
            if not row.leaves_event:
                if row.code not in self.without_event:
                    raise Violation(f"{what}: nothing explains that")
                if row.code is ResultCode.ID_CONFLICT:
                    self._check_conflict(what, command, executed, told)
                continue
            if executed is None:
                raise Violation(f"{what}: it is not in the history")
            self._check_outcome(what, command, result, executed)
            self._check_time(what, operation, told, executed, key)
            self._counts["answers explained"] += 1

    def _check_conflict(self, what: str, command: Any, executed: Executed | None, told: Told) -> None:
        if executed is None or executed.index > told.commits_known or self._is_same(executed.event, command):
            raise Violation(f"{what}: no other command has that id")

    def _check_outcome(self, what: str, command: Any, result: Any, executed: Executed) -> None:
        event = executed.event
        if event["result"] != result["code"] or not self._is_same(event, command):
            raise Violation(f"{what}: the history says {event['result']}")
        if split_position(result["position"])[1] != executed.sequence:
            raise Violation(f"{what}: the history has it at {executed.sequence}, not {result['position']}")
        for name in ("timestamp_ns", "effective_amount", "debit_balance", "credit_balance", "debit_held"):
            if result[name] != event[name]:
                raise Violation(f"{what}: {name} is {result[name]}, and {event[name]} in the history")

    def _check_time(self, what: str, operation: Operation, told: Told, executed: Executed, key: Key) -> None:
        """Committed not before it was asked for, by this client or by one that gave up the same id before, and not
        after it was answered."""
        first_asked = self._given_up.get(key, ()) if executed.event["kind"] == _FORBID else ()
        if executed.index <= min((operation.sent[0][1], *first_asked)):
            raise Violation(f"{what}: entry {executed.index} was committed before it was first sent")
        if executed.index > told.commits_known:
            raise Violation(f"{what}: entry {executed.index} was not committed then")

    def _sent(self, operation: Operation, told: Told) -> tuple[int, int]:
        """When what was told was asked for, and how many entries were committed then."""
        return operation.sent[told.sending]

    def _check_read(self, operation: Operation, told: Told) -> None:
        """A look-up sees all that was committed when it was sent, and nothing that was not when it was answered."""
        what = f"client {operation.client}, a look-up answered by node {told.node} at {told.at_us} us"
        index = told.answer.index
        sent_us, committed = self._sent(operation, told)
        if index < committed:
            raise Violation(f"{what} and sent at {sent_us} us saw {index} entries; {committed} were committed by then")
        if index > bisect_right(self._committed_us, told.at_us):
            raise Violation(f"{what} saw entry {index}, which was not committed")
        accounts = np.frombuffer(told.answer.body, ACCOUNT)
        if self._ledger.lookup_accounts(operation.keys).tobytes() != accounts.tobytes():
            raise Violation(f"{what} is not what the accounts were behind entry {index}")
        self._counts["reads explained"] += 1


def _key(record: Any) -> Key:
    """What uses an id up: the id, per slot of the debit account."""
    return record["id_head"], record["id_tail"], record["debit_head"] & SLOT_BITS_OF_HEAD


def _is_same(event: Any, command: Any) -> bool:
    """Whether an event is that command's."""
    return bool(_meaning(event) == _meaning(command))
