"""Results: the answer to one command, from its event, from the first one that used its id, or without any."""

from typing import Any, Final

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.checks import FORBID, TRANSFER, TRY_CREDIT, TRY_DEBIT, TRY_PART
from bezant.engine.ledger.lookups import (
    PROGRESS_BASE_SEQUENCE,
    PROGRESS_EXTRA_FIRST,
    find_original,
)
from bezant.engine.ledger.state import (
    COUNTER_POSITION_BASE,
    FATE_CANCELLED,
    FATE_NO_CREDIT,
    FATE_NO_DEBIT,
    SEQUENCE_MASK,
    LedgerArrays,
    Originals,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandField, ResultFlag
from bezant.protocol.records import SEQUENCE_BITS, Records, Words

_COMMITTED: Final = int(ResultCode.COMMITTED)
_UNDECIDED: Final = int(ResultCode.UNDECIDED)
_ID_FORBIDDEN: Final = int(ResultCode.ID_FORBIDDEN)
_REPEATED: Final = int(ResultFlag.REPEATED)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)


@inlined
def write_refusal(result: Any, code: int, detail: int, position: int) -> None:
    """A result without an event of its own: malformed, not executed, or a conflict with the event at `position`."""
    result["code"] = code
    result["flags"] = 0
    result["detail"] = detail
    result["position"] = position
    result["timestamp_ns"] = 0
    result["effective_amount"] = 0
    result["debit_balance"] = 0
    result["debit_held"] = 0
    result["credit_balance"] = 0
    result["credit_held"] = 0


@inlined
def write_outcome(result: Any, event: Any, position: int, flags: int) -> None:
    """The result that an event gives, the first time or (REPEATED) again."""
    result["code"] = event["result"]
    result["flags"] = flags
    result["detail"] = 0
    result["position"] = position
    result["timestamp_ns"] = event["timestamp_ns"]
    result["effective_amount"] = event["effective_amount"]
    result["debit_balance"] = event["debit_balance"]
    result["debit_held"] = event["debit_held"]
    result["credit_balance"] = event["credit_balance"]
    result["credit_held"] = event["credit_held"]


@inlined
def leave_undecided(result: Any, kind: int) -> None:
    """What became of a TRY_DEBIT is not told by its event: money has moved only when it is confirmed."""
    if kind == TRY_DEBIT and result["code"] == _COMMITTED:
        result["code"] = _UNDECIDED


@called
def first_difference(event: Any, command: Any) -> int:
    """The first field (`CommandField`) in which a command differs from the one that an event carries, or 0.

    A TRANSFER and a TRY_DEBIT are what a client asked for in the same words: which of the two it became, and through
    which transit account, depends on where the accounts lay then. The time of a leg is that of what it follows from,
    which is another one if its coordinator was lost before that was committed.
    """
    is_transfer = event["kind"] in (TRANSFER, TRY_DEBIT) and command["kind"] in (TRANSFER, TRY_DEBIT)
    if event["kind"] != command["kind"] and not is_transfer:
        return CommandField.KIND.value
    if event["flags"] != command["flags"]:
        return CommandField.FLAGS.value
    if event["debit_head"] != command["debit_head"] or event["debit_tail"] != command["debit_tail"]:
        return CommandField.DEBIT.value
    if event["credit_head"] != command["credit_head"] or event["credit_tail"] != command["credit_tail"]:
        return CommandField.CREDIT.value
    if event["amount"] != command["amount"]:
        return CommandField.AMOUNT.value
    if not is_transfer and (
        event["reference_head"] != command["reference_head"] or event["reference_tail"] != command["reference_tail"]
    ):
        return CommandField.REFERENCE.value
    if event["user_data_head"] != command["user_data_head"] or event["user_data_tail"] != command["user_data_tail"]:
        return CommandField.USER_DATA.value
    if event["code"] != command["code"]:
        return CommandField.CODE.value
    if event["timeout_ms"] != command["timeout_ms"]:
        return CommandField.TIMEOUT_MS.value
    if event["currency"] != command["currency"]:
        return CommandField.CURRENCY.value
    is_leg = event["kind"] > TRY_DEBIT
    if not is_leg and event["client_timestamp_ns"] != command["client_timestamp_ns"]:
        return CommandField.CLIENT_TIMESTAMP_NS.value
    return 0


@called
def answer_known(event: Any, fate: int, command: Any, result: Any, position: int) -> bool:
    """Answer a command whose id is in use: the first outcome (True), or a conflict that names the field (False).

    An id that was resolved, or given up by a CANCEL, answers with its outcome whatever the content. A leg that was
    cancelled is given up, too: whoever repeats it must not take it for one that stands.
    """
    if fate in (FATE_NO_DEBIT, FATE_NO_CREDIT):
        write_outcome(result, event, position, _REPEATED)
        result["code"] = _ID_FORBIDDEN
        return True
    field = 0
    if command["kind"] != FORBID and event["kind"] != FORBID:
        field = first_difference(event, command)
    if field != 0:
        write_refusal(result, _ID_CONFLICT, field, position)
        return False
    write_outcome(result, event, position, _REPEATED)
    leave_undecided(result, event["kind"])
    if event["kind"] in (TRY_CREDIT, TRY_PART) and fate == FATE_CANCELLED:
        result["code"] = _ID_FORBIDDEN
    return True


@inlined
def answer_from(
    arrays: LedgerArrays,
    command: Any,
    result: Any,
    known: int,
    events: Records,
    originals: Originals,
    progress: Words,
) -> bool:
    """Find the event that used a command's id, and answer from it."""
    sequence, fate = known & SEQUENCE_MASK, known >> SEQUENCE_BITS
    position = arrays.counters[COUNTER_POSITION_BASE] + sequence
    base = progress[PROGRESS_BASE_SEQUENCE]
    if sequence >= base:
        return answer_known(events[sequence - base], fate, command, result, position)
    original = find_original(originals, progress[PROGRESS_EXTRA_FIRST], sequence)
    return answer_known(originals.events[original], fate, command, result, position)
