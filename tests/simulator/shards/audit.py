"""The end of a seed in one shard: what clients were told of transfers to others is what was decided."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import REASON_MAX, CommandKind, ResultFlag
from bezant.protocol.records import split_position
from bezant.protocol.transactions import Leg

from ..audit import WITHOUT_EVENT, Audit, Executed, Key, _is_same
from ..clients import Operation, Told
from ..schedule import Violation
from .books import COMMITTED, Books
from .parts import Parts
from .wanderers import FIRST_NUMBER, Wanderer, gives_up, shard_of_node

COMPARED = ("debit_head", "debit_tail", "credit_head", "credit_tail", "amount", "flags")


class ShardAudit(Audit):
    """See the module."""

    without_event = WITHOUT_EVENT | {ResultCode.WRONG_SHARD, ResultCode.TRANSIT_UNKNOWN}

    def __init__(self, *arguments: Any, books: Books, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._shard = settings["shard"]
        self._books = books
        self.wanderers: Sequence[Wanderer] = ()

    @property
    def executed(self) -> dict[Key, Executed]:
        """Where each id was used up."""
        return self._executed

    def committed_us(self, index: int) -> int:
        """When an entry was first known to be committed."""
        return self._committed_us[index - 1]

    # ---- accounts of slots that move ----

    def _reads_of(self, operations: Iterable[Operation]) -> Iterable[tuple[Operation, Told]]:
        yield from super()._reads_of(operations)
        for wanderer in self.wanderers:
            for operation, told in super()._reads_of(wanderer.history):
                if shard_of_node(told.node) == self._shard:
                    yield operation, told

    def _sent(self, operation: Operation, told: Told) -> tuple[int, int]:
        if operation.client < FIRST_NUMBER:
            return super()._sent(operation, told)
        sent_us, _ = operation.sent[told.sending]
        return sent_us, bisect_left(self._committed_us, sent_us)

    def _check_read(self, operation: Operation, told: Told) -> None:
        super()._check_read(operation, told)
        if operation.client < FIRST_NUMBER:
            return
        wanderer = self.wanderers[operation.client - FIRST_NUMBER]
        owner = int(self._ledger.moves.owners[wanderer.slot])
        if (wanderer.home if owner < 0 else owner) != self._shard:
            raise Violation(f"shard {self._shard} answers a look-up in slot {wanderer.slot}, which {owner} has")
        self._counts["reads in slots that move explained"] += 1

    # ---- transfers and transactions ----

    def _is_same(self, event: Any, command: Any) -> bool:
        if int(event["kind"]) == CommandKind.TRY_DEBIT and int(command["kind"]) == CommandKind.TRANSFER:
            return all(int(event[name]) == int(command[name]) for name in COMPARED)
        return _is_same(event, command)

    def _check_time(self, what: str, operation: Operation, told: Told, executed: Executed, key: Key) -> None:
        if gives_up(operation.rows[0], executed):
            if executed.index > told.commits_known:
                raise Violation(f"{what}: entry {executed.index} was not committed then")
            return
        super()._check_time(what, operation, told, executed, key)

    def _check_outcome(self, what: str, command: Any, result: Any, executed: Executed) -> None:
        if int(executed.event["kind"]) != CommandKind.TRY_DEBIT or int(executed.event["result"]) != COMMITTED:
            if gives_up(command, executed):
                self._check_refused(what, result, executed)
            else:
                super()._check_outcome(what, command, result, executed)
            return
        parts = self._books.parts.by_place.get((self._shard, executed.sequence))
        if parts is not None:
            self._check_part(what, parts, result)
            return
        if not self._is_same(executed.event, command):
            raise Violation(f"{what}: its id was another's")
        transfer = self._books.transfers[self._shard, executed.sequence]
        leg = Leg.CONFIRM_DEBIT if int(result["code"]) == COMMITTED else Leg.CANCEL_DEBIT
        if not transfer.has(leg):
            raise Violation(f"{what}: {transfer}")
        _, sequence, event = transfer.events[leg]
        reason = int(event["timeout_ms"])
        told = int(ResultCode.SHARD_UNREACHABLE) if reason in range(100, 200) else reason
        if int(result["code"]) != told:
            raise Violation(f"{what}: it was decided with {reason}")
        if split_position(int(result["position"]))[1] != sequence:
            raise Violation(f"{what}: it was decided at {sequence}, not {int(result['position'])}")
        for name in ("timestamp_ns", "debit_balance", "debit_held"):
            if int(result[name]) != int(event[name]):
                raise Violation(f"{what}: {name} is {result[name]}, and {event[name]} in the history")
        self._counts["answers about transfers between shards explained"] += 1

    def _check_refused(self, what: str, result: Any, executed: Executed) -> None:
        """What was told of a transaction that was refused at once to who gave it up."""
        place = split_position(int(result["position"]))[1]
        if (int(result["code"]), place) != (int(executed.event["result"]), executed.sequence):
            raise Violation(f"{what}: the history says {int(executed.event['result'])}, at {executed.sequence}")

    def _check_part(self, what: str, parts: Parts, result: Any) -> None:
        """What was told of a transaction of several legs to who gave it up."""
        decision = parts.decision
        if decision is None:
            raise Violation(f"{what}: it is not decided: {parts}")
        reason = 0 if decision.is_confirm else int(decision.event["timeout_ms"]) & REASON_MAX
        if int(result["code"]) != reason or not int(result["flags"]) & ResultFlag.REPEATED:
            raise Violation(f"{what}: {parts} was decided with {reason}")
        if split_position(int(result["position"]))[1] != decision.sequence:
            raise Violation(f"{what}: it was decided at {decision.sequence}, not {int(result['position'])}")
        self._counts["answers about transactions given up explained"] += 1
