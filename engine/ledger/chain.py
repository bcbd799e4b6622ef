"""A linked chain: every command of it, or none. All that can refuse it without a trace is checked before any effect."""

from typing import Final

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.answers import answer_from, write_outcome, write_refusal
from bezant.engine.ledger.checks import (
    HOLD,
    IMPORTED,
    LINKED,
    OPEN,
    TRY_DEBIT,
    check_command,
)
from bezant.engine.ledger.command import append_event, check_executable, find_fate, find_used, show_refused
from bezant.engine.ledger.holds import open_holds
from bezant.engine.ledger.lookups import (
    PROGRESS_BASE_SEQUENCE,
    PROGRESS_EVENTS,
    has_key,
    hash_of_key,
    look_up_account,
    place_of,
)
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_ENTRY_TIMESTAMP_NS,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_POSITION_BASE,
    COUNTER_RULES_VERSION,
    LedgerArrays,
    Originals,
)
from bezant.engine.ledger.undo import begin_chain, let_stand, take_back
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX
from bezant.protocol.records import Records, Words

_COMMITTED: Final = int(ResultCode.COMMITTED)
_KIND_UNKNOWN: Final = int(ResultCode.KIND_UNKNOWN)
_CHAIN_TOO_LONG: Final = int(ResultCode.CHAIN_TOO_LONG)
_CHAIN_REPEATED_IN_PART: Final = int(ResultCode.CHAIN_REPEATED_IN_PART)
_CHAIN_MEMBER_NOT_EXECUTED: Final = int(ResultCode.CHAIN_MEMBER_NOT_EXECUTED)
_CHAIN_MEMBER_REFUSED: Final = int(ResultCode.CHAIN_MEMBER_REFUSED)
_ACCOUNTS_FULL: Final = int(ResultCode.ACCOUNTS_FULL)
_HOLDS_FULL: Final = int(ResultCode.HOLDS_FULL)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)


@inlined
def chain_end(commands: Records, first: int) -> int:
    """Number behind the last command of the chain that starts at `first`, or -1 if it does not end."""
    number = first
    while number < len(commands):
        if commands[number]["flags"] & LINKED == 0:
            return number + 1
        number += 1
    return -1


@called
def refuse_chain(results: Records, first: int, end: int, code: int, detail: int, culprit: int, others: int) -> None:
    """Refuse a chain without a trace: the culprit (-1: none) with its code, the others with theirs."""
    for number in range(first, end):
        if number == culprit:
            write_refusal(results[number], code, detail, 0)
        else:
            write_refusal(results[number], others, 0, 0)


@inlined
def same_id_before(commands: Records, first: int, number: int) -> bool:
    """Whether an earlier command of the chain has the same id."""
    command = commands[number]
    place = place_of(command["kind"], command["debit_head"])
    for other in range(first, number):
        if has_key(commands[other], command["id_head"], command["id_tail"], place):
            return True
    return False


@called
def check_chain_commands(
    arrays: LedgerArrays, commands: Records, command_words: Words, results: Records, first: int, end: int
) -> bool:
    """Refuse a chain that has a malformed command or names an id twice; True if it has neither."""
    for number in range(first, end):
        rules_version = arrays.counters[COUNTER_RULES_VERSION]
        code, detail = check_command(commands, command_words, number, rules_version, arrays.scratch)
        if code == _COMMITTED and commands[number]["kind"] >= TRY_DEBIT:
            code = _KIND_UNKNOWN  # Not even as the last one, which is linked to none: nothing would take a leg back.
        if code != _COMMITTED:
            refuse_chain(results, first, end, code, detail, number, _CHAIN_MEMBER_NOT_EXECUTED)
            return False
        if same_id_before(commands, first, number):
            refuse_chain(results, first, end, 0, 0, -1, _CHAIN_REPEATED_IN_PART)
            return False
    return True


@called
def answer_repeated_chain(
    arrays: LedgerArrays,
    commands: Records,
    results: Records,
    first: int,
    end: int,
    events: Records,
    originals: Originals,
    progress: Words,
) -> int:
    """Answer a chain of which some id is in use: -1 if none is, 0 if it is answered, else a sequence to fetch."""
    known_count = 0
    for number in range(first, end):
        _, known = find_used(arrays, commands[number], events, originals, progress)
        if known < 0:
            return -known
        if known > 0:
            known_count += 1
    if known_count == 0:
        return -1
    same = known_count == end - first
    for number in range(first, end):
        if same:
            _, known = find_used(arrays, commands[number], events, originals, progress)
            same = answer_from(arrays, commands[number], results[number], known, events, originals, progress)
            if not same:
                refuse_chain(
                    results,
                    first,
                    end,
                    _ID_CONFLICT,
                    results[number]["detail"],
                    number,
                    _CHAIN_REPEATED_IN_PART,
                )
                return 0
    if not same:
        refuse_chain(results, first, end, 0, 0, -1, _CHAIN_REPEATED_IN_PART)
    return 0


@called
def check_chain_executable(arrays: LedgerArrays, commands: Records, results: Records, first: int, end: int) -> bool:
    """Refuse a chain of which a command cannot be executed now; True if all can."""
    last_timestamp_ns = arrays.counters[COUNTER_LAST_TIMESTAMP_NS]
    opens = holds = 0
    for number in range(first, end):
        command = commands[number]
        code = check_executable(arrays, command, last_timestamp_ns)
        if command["kind"] == OPEN and look_up_account(arrays, command["debit_head"], command["debit_tail"]) < 0:
            opens += 1
        holds += command["kind"] == HOLD
        if code == _COMMITTED and arrays.counters[COUNTER_ACCOUNTS] + opens > len(arrays.rows) and opens > 0:
            code = _ACCOUNTS_FULL
        if code == _COMMITTED and holds > 0 and open_holds(arrays) + holds > len(arrays.holds.rows):
            code = _HOLDS_FULL
        if code != _COMMITTED:
            refuse_chain(results, first, end, code, 0, number, _CHAIN_MEMBER_NOT_EXECUTED)
            return False
        if command["flags"] & IMPORTED != 0:
            last_timestamp_ns = command["client_timestamp_ns"]
        else:
            last_timestamp_ns = arrays.counters[COUNTER_ENTRY_TIMESTAMP_NS]
    return True


@called
def run_chain(
    arrays: LedgerArrays,
    commands: Records,
    command_words: Words,
    results: Records,
    first: int,
    end: int,
    events: Records,
    event_words: Words,
    originals: Originals,
    progress: Words,
) -> None:
    """Execute a chain that nothing but the state can refuse: every command of it, or none."""
    first_event = progress[PROGRESS_EVENTS]
    culprit = -1
    begin_chain(arrays)
    for number in range(first, end):
        command = commands[number]
        place = place_of(command["kind"], command["debit_head"])
        hash_value = hash_of_key(arrays, command["id_head"], command["id_tail"], place)
        fate = find_fate(arrays, command, events, originals, progress)
        code = append_event(arrays, command_words[number], fate, hash_value, events, event_words, 0, progress)
        if code != _COMMITTED:
            culprit = number
            break
    if culprit < 0:
        let_stand(arrays)
    else:
        take_back(arrays)
        for number in range(first, culprit + 1):
            event = events[first_event + number - first]
            if number != culprit:
                event["result"] = _CHAIN_MEMBER_REFUSED
            show_refused(arrays, event)
        for number in range(culprit + 1, end):
            command = commands[number]
            place = place_of(command["kind"], command["debit_head"])
            hash_value = hash_of_key(arrays, command["id_head"], command["id_tail"], place)
            append_event(
                arrays, command_words[number], 0, hash_value, events, event_words, _CHAIN_MEMBER_REFUSED, progress
            )
    base = arrays.counters[COUNTER_POSITION_BASE] + progress[PROGRESS_BASE_SEQUENCE]
    for number in range(first, end):
        event_number = first_event + number - first
        write_outcome(results[number], events[event_number], base + event_number, 0)


@called
def execute_chain(
    arrays: LedgerArrays,
    commands: Records,
    command_words: Words,
    preset: Words,
    first: int,
    end: int,
    events: Records,
    event_words: Words,
    results: Records,
    originals: Originals,
    progress: Words,
) -> int:
    """Execute the commands from `first` to `end` as one; returns 0 or the sequence of an event to fetch first."""
    if len(preset) != 0:
        for number in range(first, end):
            if preset[number] != 0:
                refuse_chain(results, first, end, 0, 0, -1, preset[number])
                return 0
    if end - first > CHAIN_COMMANDS_MAX:
        refuse_chain(results, first, end, 0, 0, -1, _CHAIN_TOO_LONG)
        return 0
    if not check_chain_commands(arrays, commands, command_words, results, first, end):
        return 0
    needed = answer_repeated_chain(arrays, commands, results, first, end, events, originals, progress)
    if needed >= 0:
        return needed
    for number in range(first, end):
        fate = find_fate(arrays, commands[number], events, originals, progress)
        if fate < 0:
            return -fate
    if check_chain_executable(arrays, commands, results, first, end):
        run_chain(arrays, commands, command_words, results, first, end, events, event_words, originals, progress)
    return 0
