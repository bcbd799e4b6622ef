"""One command, from its checks to its event: steps 1 to 5 of ``README.md`` in order."""

from typing import Any, Final

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.answers import answer_from, leave_undecided, write_outcome, write_refusal
from bezant.engine.ledger.checks import (
    CAPTURE,
    CLOSE,
    FORBID,
    FREEZE,
    HOLD,
    IMPORTED,
    OPEN,
    PLAN,
    RELEASE,
    SET_LIMIT,
    TRANSFER,
    TRANSFER_AVAILABLE,
    TRY_CREDIT,
    TRY_DEBIT,
    TRY_PART,
    UNFREEZE,
    check_command,
)
from bezant.engine.ledger.holds import open_holds
from bezant.engine.ledger.index import insert
from bezant.engine.ledger.lookups import (
    PROGRESS_BASE_SEQUENCE,
    PROGRESS_EVENTS,
    PROGRESS_EXTRA_FIRST,
    find_key,
    find_original,
    hash_of_key,
    is_transit,
    look_up_account,
    look_up_hold,
    names_hold,
    place_of,
    place_of_named,
)
from bezant.engine.ledger.rules import (
    execute_capture,
    execute_close,
    execute_freeze,
    execute_hold,
    execute_open,
    execute_release,
    execute_set_limit,
    execute_transfer,
    execute_transfer_available,
    show_accounts,
)
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_ENTRY_TIMESTAMP_NS,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    COUNTER_POSITION_BASE,
    COUNTER_RULES_VERSION,
    COUNTER_TRY_DEBITS,
    COUNTER_UNSETTLED,
    FATE_OPEN,
    FATE_REFUSED,
    FATE_UNUSED,
    SEQUENCE_MASK,
    LedgerArrays,
    Originals,
)
from bezant.engine.ledger.tries import execute_leg
from bezant.protocol.codes import ResultCode
from bezant.protocol.records import SEQUENCE_BITS, Records, Words

COMMAND_WORDS_COPIED: Final = 15
"""Words of a command that its event repeats; the sixteenth is reserved there and the result here."""

_COMMITTED: Final = int(ResultCode.COMMITTED)
_NOT_RISING: Final = int(ResultCode.IMPORTED_TIMESTAMP_NOT_RISING)
_IN_FUTURE: Final = int(ResultCode.IMPORTED_TIMESTAMP_IN_FUTURE)
_ACCOUNTS_FULL: Final = int(ResultCode.ACCOUNTS_FULL)
_HOLDS_FULL: Final = int(ResultCode.HOLDS_FULL)
_TRANSIT_UNKNOWN: Final = int(ResultCode.TRANSIT_UNKNOWN)
_ID_FORBIDDEN: Final = int(ResultCode.ID_FORBIDDEN)


@inlined
def find_used(
    arrays: LedgerArrays, command: Any, events: Records, originals: Originals, progress: Words
) -> tuple[int, int]:
    """(hash, value) of a command's id in the id index; see `find_key` for the value."""
    head, tail, place = command["id_head"], command["id_tail"], place_of(command["kind"], command["debit_head"])
    hash_value = hash_of_key(arrays, head, tail, place)
    return hash_value, find_key(arrays, head, tail, place, hash_value, events, originals, progress)


@called
def find_fate(arrays: LedgerArrays, command: Any, events: Records, originals: Originals, progress: Words) -> int:
    """Fate of the hold or try that a command names, if it is not open; minus a sequence: fetch that event first."""
    if not names_hold(command["kind"]):
        return 0
    head, tail, place = command["reference_head"], command["reference_tail"], place_of_named(arrays, command)
    if look_up_hold(arrays, head, tail, place) >= 0:
        return 0
    hash_value = hash_of_key(arrays, head, tail, place)
    value = find_key(arrays, head, tail, place, hash_value, events, originals, progress)
    if value < 0:
        return value
    if value == 0:
        return FATE_UNUSED
    fate, sequence = value >> SEQUENCE_BITS, value & SEQUENCE_MASK
    if fate != FATE_OPEN:
        return fate
    base = progress[PROGRESS_BASE_SEQUENCE]
    if sequence >= base:
        return fate_of_refused(events[sequence - base])
    return fate_of_refused(originals.events[find_original(originals, progress[PROGRESS_EXTRA_FIRST], sequence)])


@called
def fate_of_refused(event: Any) -> int:
    """The fate of what an event tried in vain; 0 of an event that was no try at all."""
    is_try = event["kind"] in (TRY_DEBIT, TRY_CREDIT, TRY_PART) and event["result"] != _COMMITTED
    return FATE_REFUSED if is_try or event["kind"] == FORBID else FATE_OPEN


@called
def check_leg_executable(arrays: LedgerArrays, command: Any) -> int:
    """The code of what keeps a command of a kind from TRY_DEBIT on from being executed now, or COMMITTED."""
    kind = command["kind"]
    if kind != TRY_DEBIT and command["client_timestamp_ns"] >= arrays.counters[COUNTER_ENTRY_TIMESTAMP_NS]:
        return _IN_FUTURE  # No effect is dated before its cause.
    if kind == PLAN:
        return _COMMITTED
    if kind in (TRY_DEBIT, TRY_PART):
        if look_up_account(arrays, command["debit_head"], command["debit_tail"]) >= 0 and not is_transit(
            arrays, command["reference_head"], command["reference_tail"]
        ):
            return _TRANSIT_UNKNOWN
        decisions = arrays.counters[COUNTER_TRY_DEBITS] + arrays.counters[COUNTER_UNSETTLED]
        full = kind == TRY_DEBIT and decisions >= len(arrays.holds.unsettled)
        full = full or open_holds(arrays) >= len(arrays.holds.rows)
        return _HOLDS_FULL if full else _COMMITTED
    pays = is_transit(arrays, command["debit_head"], command["debit_tail"])
    if kind == TRY_CREDIT:
        if not pays:
            return _TRANSIT_UNKNOWN
        return _HOLDS_FULL if open_holds(arrays) >= len(arrays.holds.rows) else _COMMITTED
    if not pays and not is_transit(arrays, command["credit_head"], command["credit_tail"]):
        return _TRANSIT_UNKNOWN
    return _COMMITTED


@called
def check_executable(arrays: LedgerArrays, command: Any, last_timestamp_ns: int) -> int:
    """The code of what keeps a command from being executed now without using up its id, or COMMITTED."""
    if command["flags"] & IMPORTED != 0:
        if command["client_timestamp_ns"] >= arrays.counters[COUNTER_ENTRY_TIMESTAMP_NS]:
            return _IN_FUTURE
        if command["client_timestamp_ns"] <= last_timestamp_ns:
            return _NOT_RISING
    kind = command["kind"]
    full = kind == OPEN and arrays.counters[COUNTER_ACCOUNTS] >= len(arrays.rows)
    if full and look_up_account(arrays, command["debit_head"], command["debit_tail"]) < 0:
        return _ACCOUNTS_FULL
    if kind == HOLD and open_holds(arrays) >= len(arrays.holds.rows):
        return _HOLDS_FULL
    if kind >= TRY_DEBIT:
        return check_leg_executable(arrays, command)
    return _COMMITTED


@inlined
def begin_event(arrays: LedgerArrays, event: Any, number: int) -> int:
    """Give an event, whose command is written, its sequence and time; returns the sequence."""
    counters = arrays.counters
    sequence = counters[COUNTER_NEXT_SEQUENCE]
    counters[COUNTER_NEXT_SEQUENCE] = sequence + 1
    event["event_reserved"] = 0
    if event["flags"] & IMPORTED != 0:
        event["timestamp_ns"] = event["client_timestamp_ns"]
    else:
        event["timestamp_ns"] = counters[COUNTER_ENTRY_TIMESTAMP_NS] + number
    counters[COUNTER_LAST_TIMESTAMP_NS] = event["timestamp_ns"]
    return sequence


@inlined
def execute_kind(
    arrays: LedgerArrays, event: Any, event_words: Words, fate: int, hash_value: int, sequence: int
) -> int:
    """Do what the event's command asks; returns the code."""
    position = arrays.counters[COUNTER_POSITION_BASE] + sequence
    kind = event["kind"]
    if kind == TRANSFER:
        return execute_transfer(arrays, event, position)
    if kind == HOLD:
        return execute_hold(arrays, event, hash_value, sequence, position)
    if kind == CAPTURE:
        return execute_capture(arrays, event, fate, position)
    if kind == RELEASE:
        return execute_release(arrays, event, fate, position)
    if kind >= TRY_DEBIT:
        return execute_leg(arrays, event, fate, hash_value, sequence, position)
    return execute_rare_kind(arrays, event, event_words, position)


@called
def execute_rare_kind(arrays: LedgerArrays, event: Any, event_words: Words, position: int) -> int:
    """The kinds that are not worth inlining."""
    kind = event["kind"]
    if kind == OPEN:
        return execute_open(arrays, event, event_words, position)
    if kind == SET_LIMIT:
        return execute_set_limit(arrays, event, position)
    if kind == TRANSFER_AVAILABLE:
        return execute_transfer_available(arrays, event, position)
    if kind in (FREEZE, UNFREEZE):
        return execute_freeze(arrays, event, position)
    if kind == CLOSE:
        return execute_close(arrays, event, position)
    show_refused(arrays, event)
    return _ID_FORBIDDEN


@inlined
def append_event(
    arrays: LedgerArrays,
    command_words: Words,
    fate: int,
    hash_value: int,
    events: Records,
    event_words: Words,
    refuse_with: int,
    progress: Words,
) -> int:
    """Execute a command, or refuse it with a code, as the next event of the entry; returns the code."""
    number = progress[PROGRESS_EVENTS]
    progress[PROGRESS_EVENTS] = number + 1
    event, words = events[number], event_words[number]
    for word in range(COMMAND_WORDS_COPIED):
        words[word] = command_words[word]
    sequence = begin_event(arrays, event, number)
    if refuse_with != 0:
        show_refused(arrays, event)
        code = refuse_with
    else:
        code = execute_kind(arrays, event, words, fate, hash_value, sequence)
    event["result"] = code
    insert(arrays.id_index, hash_value, sequence)
    return code


@called
def show_refused(arrays: LedgerArrays, event: Any) -> None:
    """Show the accounts of an event that was refused for another's sake, as they are now."""
    kind = event["kind"]
    debit_row = credit_row = -1
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    if kind in (TRANSFER, HOLD, CAPTURE, TRANSFER_AVAILABLE):
        credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    show_accounts(arrays, event, debit_row, credit_row)


@inlined
def execute_command(
    arrays: LedgerArrays,
    commands: Records,
    command_words: Words,
    number: int,
    events: Records,
    event_words: Words,
    results: Records,
    originals: Originals,
    progress: Words,
) -> int:
    """Execute one command that is in no chain; returns 0, or the sequence of an event that must be fetched first."""
    command, result = commands[number], results[number]
    rules_version = arrays.counters[COUNTER_RULES_VERSION]
    code, detail = check_command(commands, command_words, number, rules_version, arrays.scratch)
    if code != _COMMITTED:
        write_refusal(result, code, detail, 0)
        return 0
    hash_value, known = find_used(arrays, command, events, originals, progress)
    if known < 0:
        return -known
    if known > 0:
        answer_from(arrays, command, result, known, events, originals, progress)
        return 0
    fate, code = 0, _COMMITTED
    is_plain = command["kind"] == TRANSFER and command["flags"] == 0
    if not is_plain:
        fate = find_fate(arrays, command, events, originals, progress)
        if fate < 0:
            return -fate
        code = check_executable(arrays, command, arrays.counters[COUNTER_LAST_TIMESTAMP_NS])
    if code != _COMMITTED:
        write_refusal(result, code, 0, 0)
        return 0
    event_number = progress[PROGRESS_EVENTS]
    append_event(arrays, command_words[number], fate, hash_value, events, event_words, 0, progress)
    position = arrays.counters[COUNTER_POSITION_BASE] + progress[PROGRESS_BASE_SEQUENCE] + event_number
    write_outcome(result, events[event_number], position, 0)
    if not is_plain:
        leave_undecided(result, command["kind"])
    return 0
