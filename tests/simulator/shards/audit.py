"""The end of a seed in one shard: what clients were told of transfers to others is what was decided."""

from collections.abc import Mapping
from typing import Any

from bezant.engine.transactions.ids import Leg
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import split_position

from ..audit import WITHOUT_EVENT, Audit, Executed, _is_same
from ..schedule import Violation
from .books import COMMITTED, Transfer

COMPARED = ("debit_head", "debit_tail", "credit_head", "credit_tail", "amount", "flags")


class ShardAudit(Audit):
    """See the module."""

    without_event = WITHOUT_EVENT | {ResultCode.WRONG_SHARD, ResultCode.TRANSIT_UNKNOWN}

    def __init__(self, *arguments: Any, transfers: Mapping[tuple[int, int], Transfer], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._shard = settings["shard"]
        self._transfers = transfers

    def _is_same(self, event: Any, command: Any) -> bool:
        if int(event["kind"]) == CommandKind.TRY_DEBIT and int(command["kind"]) == CommandKind.TRANSFER:
            return all(int(event[name]) == int(command[name]) for name in COMPARED)
        return _is_same(event, command)

    def _check_outcome(self, what: str, command: Any, result: Any, executed: Executed) -> None:
        if int(executed.event["kind"]) != CommandKind.TRY_DEBIT or int(executed.event["result"]) != COMMITTED:
            super()._check_outcome(what, command, result, executed)
            return
        if not self._is_same(executed.event, command):
            raise Violation(f"{what}: its id was another's")
        transfer = self._transfers[self._shard, executed.sequence]
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
