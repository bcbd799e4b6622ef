"""The rules of the ledger, compiled: commands in, events and results out, in place over plain arrays.

``README.md`` states the rules in words and in the order of the steps here. A kernel never calls back into Python:
when a command's id may repeat one of an earlier entry, `execute_batch` stops and names the sequence of the event that
it must see; `Ledger.execute` fetches it and calls again (`PROGRESS_NEEDED`).

Everything is int64. Sums are compared before they are formed, so nothing ever overflows.
"""

from typing import Any, Final

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import mix_words, prefetch
from bezant.engine.ledger.checks import IMPORTED, OPEN, TRANSFER, check_command
from bezant.engine.ledger.index import META_COUNT, META_SALT, find_slot, insert
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_CURRENCIES,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    COUNTER_POSITION_BASE,
    LedgerArrays,
    Originals,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import AccountFlag, CommandField, ResultFlag
from bezant.protocol.records import LIMIT_UNLIMITED, Records, Words

PROGRESS_NEXT: Final = 0
PROGRESS_EVENTS: Final = 1
PROGRESS_BASE_SEQUENCE: Final = 2
PROGRESS_NEEDED: Final = 3
PROGRESS_EXTRA_FIRST: Final = 4
PROGRESS_SIZE: Final = 5

PREFETCH_DISTANCE: Final = 12
"""How many commands ahead the kernel asks for memory."""
AMOUNT_MAX: Final = 2**63 - 1
SLOT_BITS_OF_HEAD: Final = 0xF0FF
"""The bits of an account id's head word that are its slot: byte 0 and the high half of byte 1."""
COMMAND_WORDS_COPIED: Final = 15
"""Words of a command that its event repeats; the sixteenth is reserved there and the result here."""

_FROZEN: Final = int(AccountFlag.FROZEN)
_CLOSED: Final = int(AccountFlag.CLOSED)
_HAS_INCOMING: Final = int(AccountFlag.HAS_INCOMING)
_REPEATED: Final = int(ResultFlag.REPEATED)
_UNLIMITED: Final = LIMIT_UNLIMITED

_COMMITTED: Final = int(ResultCode.COMMITTED)
_NOT_RISING: Final = int(ResultCode.IMPORTED_TIMESTAMP_NOT_RISING)
_IN_FUTURE: Final = int(ResultCode.IMPORTED_TIMESTAMP_IN_FUTURE)
_ACCOUNTS_FULL: Final = int(ResultCode.ACCOUNTS_FULL)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)
_CURRENCY_UNKNOWN: Final = int(ResultCode.CURRENCY_UNKNOWN)
_ACCOUNT_EXISTS: Final = int(ResultCode.ACCOUNT_EXISTS)
_DEBIT_UNKNOWN: Final = int(ResultCode.DEBIT_ACCOUNT_UNKNOWN)
_CREDIT_UNKNOWN: Final = int(ResultCode.CREDIT_ACCOUNT_UNKNOWN)
_CURRENCY_MISMATCH: Final = int(ResultCode.CURRENCY_MISMATCH)
_DEBIT_CLOSED: Final = int(ResultCode.DEBIT_ACCOUNT_CLOSED)
_CREDIT_CLOSED: Final = int(ResultCode.CREDIT_ACCOUNT_CLOSED)
_DEBIT_FROZEN: Final = int(ResultCode.DEBIT_ACCOUNT_FROZEN)
_CREDIT_FROZEN: Final = int(ResultCode.CREDIT_ACCOUNT_FROZEN)
_INSUFFICIENT: Final = int(ResultCode.INSUFFICIENT_FUNDS)
_OVERFLOW: Final = int(ResultCode.BALANCE_OVERFLOW)


# ---- look-ups ----


@inlined
def find_account(arrays: LedgerArrays, head: int, tail: int) -> int:
    """Row number of an account, or -1."""
    index = arrays.account_index
    hash_value = mix_words(head, tail, index.meta[META_SALT])
    for table in (index.current, index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            row = table[slot, 1] - 1
            if arrays.rows[row]["id_head"] == head and arrays.rows[row]["id_tail"] == tail:
                return row
            slot = find_slot(table, hash_value, slot + 1)
    return -1


@inlined
def hash_of_id(arrays: LedgerArrays, command: Any) -> int:
    """Hash of a command's idempotency key: its id and the slot of its debit account."""
    salt = arrays.id_index.meta[META_SALT] ^ ((command["debit_head"] & SLOT_BITS_OF_HEAD) << 40)
    return mix_words(command["id_head"], command["id_tail"], salt)


@inlined
def same_key(event: Any, command: Any) -> bool:
    """Whether an event and a command have the same idempotency key."""
    return (
        event["id_head"] == command["id_head"]
        and event["id_tail"] == command["id_tail"]
        and (event["debit_head"] ^ command["debit_head"]) & SLOT_BITS_OF_HEAD == 0
    )


@inlined
def find_original(originals: Originals, extra_first: int, command_number: int, sequence: int) -> int:
    """Number in `originals` of the event with this sequence, or -1 if it has not been fetched."""
    if len(originals.of_command) != 0:
        candidate = originals.of_command[command_number]
        if candidate >= 0 and originals.sequences[candidate] == sequence:
            return candidate
    for candidate in range(extra_first, len(originals.sequences)):
        if originals.sequences[candidate] == sequence:
            return candidate
    return -1


@inlined
def first_candidate(arrays: LedgerArrays, hash_value: int) -> int:
    """Sequence of the first event whose id has this hash, or 0."""
    index = arrays.id_index
    for table in (index.current, index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        if slot >= 0:
            return table[slot, 1]
    return 0


@kernel
def first_candidates(arrays: LedgerArrays, commands: Records, start: int, sequences: Words) -> None:
    """For the commands from `start` on, the sequence of the first event that each may repeat, or 0."""
    for number in range(start, len(commands)):
        sequences[number] = first_candidate(arrays, hash_of_id(arrays, commands[number]))


@inlined
def find_id(
    arrays: LedgerArrays,
    commands: Records,
    number: int,
    hash_value: int,
    events: Records,
    originals: Originals,
    progress: Words,
) -> int:
    """Sequence of the event that used a command's id; 0 if none did; minus a sequence that must be fetched first."""
    base = progress[PROGRESS_BASE_SEQUENCE]
    index = arrays.id_index
    command = commands[number]
    for table in (index.current, index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            sequence = table[slot, 1]
            if sequence >= base:
                if same_key(events[sequence - base], command):
                    return sequence
            else:
                original = find_original(originals, progress[PROGRESS_EXTRA_FIRST], number, sequence)
                if original < 0:
                    return -sequence
                if same_key(originals.events[original], command):
                    return sequence
            slot = find_slot(table, hash_value, slot + 1)
    return 0


# ---- results ----


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
def first_difference(event: Any, command: Any) -> int:
    """The first field (`CommandField`) in which a command differs from the one that an event carries, or 0."""
    if event["kind"] != command["kind"]:
        return CommandField.KIND.value
    if event["flags"] != command["flags"]:
        return CommandField.FLAGS.value
    if event["debit_head"] != command["debit_head"] or event["debit_tail"] != command["debit_tail"]:
        return CommandField.DEBIT.value
    if event["credit_head"] != command["credit_head"] or event["credit_tail"] != command["credit_tail"]:
        return CommandField.CREDIT.value
    if event["amount"] != command["amount"]:
        return CommandField.AMOUNT.value
    if event["reference_head"] != command["reference_head"] or event["reference_tail"] != command["reference_tail"]:
        return CommandField.REFERENCE.value
    if event["user_data_head"] != command["user_data_head"] or event["user_data_tail"] != command["user_data_tail"]:
        return CommandField.USER_DATA.value
    if event["code"] != command["code"]:
        return CommandField.CODE.value
    if event["timeout_ms"] != command["timeout_ms"]:
        return CommandField.TIMEOUT_MS.value
    if event["currency"] != command["currency"]:
        return CommandField.CURRENCY.value
    if event["client_timestamp_ns"] != command["client_timestamp_ns"]:
        return CommandField.CLIENT_TIMESTAMP_NS.value
    return 0


# ---- the kinds ----


@inlined
def show_accounts(arrays: LedgerArrays, event: Any, debit_row: int, credit_row: int) -> None:
    """Write the balances of both accounts, as they are now, into an event that has no effect yet."""
    event["effective_amount"] = 0
    event["debit_previous"] = 0
    event["credit_previous"] = 0
    event["debit_balance"] = 0
    event["debit_held"] = 0
    event["credit_balance"] = 0
    event["credit_held"] = 0
    if debit_row >= 0:
        event["debit_balance"] = arrays.rows[debit_row]["balance"]
        event["debit_held"] = arrays.rows[debit_row]["held"]
    if credit_row >= 0:
        event["credit_balance"] = arrays.rows[credit_row]["balance"]
        event["credit_held"] = arrays.rows[credit_row]["held"]


@inlined
def touch(row: Any, position: int) -> int:
    """Make an event the last one of an account; returns the position of the one before it."""
    previous = row["last_position"]
    row["last_position"] = position
    row["event_count"] += 1
    return previous


@inlined
def check_debit(row: Any, amount: int) -> int:
    """Whether an amount can leave an account: COMMITTED, INSUFFICIENT_FUNDS or BALANCE_OVERFLOW."""
    available = row["balance"] - row["held"]
    limit = row["limit"]
    if available < amount - AMOUNT_MAX:
        return _OVERFLOW if limit == _UNLIMITED else _INSUFFICIENT
    if limit != _UNLIMITED and available - amount < -limit:
        return _INSUFFICIENT
    return _COMMITTED


@inlined
def check_credit(arrays: LedgerArrays, number: int, amount: int) -> int:
    """Whether an amount can be added to an account: COMMITTED or BALANCE_OVERFLOW."""
    row = arrays.rows[number]
    reserved = row["balance"]
    if row["flags"] & _HAS_INCOMING != 0:
        reserved += arrays.rows_cold[number]["incoming"]
    return _OVERFLOW if reserved > AMOUNT_MAX - amount else _COMMITTED


@inlined
def check_transfer(arrays: LedgerArrays, debit_row: int, credit_row: int, amount: int) -> int:
    """The code of a transfer between two rows (-1: unknown account)."""
    if debit_row < 0:
        return _DEBIT_UNKNOWN
    if credit_row < 0:
        return _CREDIT_UNKNOWN
    debit, credit = arrays.rows[debit_row], arrays.rows[credit_row]
    if debit["currency_number"] != credit["currency_number"]:
        return _CURRENCY_MISMATCH
    if (debit["flags"] | credit["flags"]) & (_CLOSED | _FROZEN) != 0:
        if debit["flags"] & _CLOSED != 0:
            return _DEBIT_CLOSED
        if credit["flags"] & _CLOSED != 0:
            return _CREDIT_CLOSED
        return _DEBIT_FROZEN if debit["flags"] & _FROZEN != 0 else _CREDIT_FROZEN
    code = check_debit(debit, amount)
    if code != _COMMITTED:
        return code
    return check_credit(arrays, credit_row, amount)


@inlined
def execute_transfer(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Move an amount from one account to another."""
    debit_row = find_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = find_account(arrays, event["credit_head"], event["credit_tail"])
    amount = event["amount"]
    code = check_transfer(arrays, debit_row, credit_row, amount)
    if code != _COMMITTED:
        show_accounts(arrays, event, debit_row, credit_row)
        return code
    debit, credit = arrays.rows[debit_row], arrays.rows[credit_row]
    debit["balance"] -= amount
    credit["balance"] += amount
    event["effective_amount"] = amount
    event["debit_balance"] = debit["balance"]
    event["debit_held"] = debit["held"]
    event["credit_balance"] = credit["balance"]
    event["credit_held"] = credit["held"]
    event["debit_previous"] = touch(debit, position)
    event["credit_previous"] = touch(credit, position)
    return _COMMITTED


@inlined
def execute_set_limit(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Replace the limit of an account."""
    number = find_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, number, -1)
    if number < 0:
        return _DEBIT_UNKNOWN
    row = arrays.rows[number]
    if row["flags"] & _CLOSED != 0:
        return _DEBIT_CLOSED
    row["limit"] = event["amount"]
    event["effective_amount"] = event["amount"]
    event["debit_previous"] = touch(row, position)
    return _COMMITTED


@inlined
def find_currency(arrays: LedgerArrays, word: int) -> int:
    """Number of a registered currency, or -1. Only an OPEN asks, so a walk over the registry will do."""
    for number in range(arrays.counters[COUNTER_CURRENCIES]):
        if arrays.currencies[number] == word:
            return number
    return -1


@inlined
def execute_open(arrays: LedgerArrays, event: Any, words: Words, position: int) -> int:
    """Add an account; the caller has made sure that there is room for one."""
    number = find_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, number, -1)
    currency_number = find_currency(arrays, event["currency"])
    if currency_number < 0:
        return _CURRENCY_UNKNOWN
    if number >= 0:
        return _ACCOUNT_EXISTS
    number = arrays.counters[COUNTER_ACCOUNTS]
    arrays.counters[COUNTER_ACCOUNTS] = number + 1
    row, cold = arrays.rows[number], arrays.rows_cold[number]
    row["id_head"] = event["debit_head"]
    row["id_tail"] = event["debit_tail"]
    row["limit"] = event["amount"]
    row["currency_number"] = currency_number
    row["last_position"] = position
    row["event_count"] = 1
    cold["opened_position"] = position
    for index in range(6):
        cold["name"][index] = words[4 + index]
    event["effective_amount"] = event["amount"]
    accounts = arrays.account_index
    insert(accounts.current, mix_words(row["id_head"], row["id_tail"], accounts.meta[META_SALT]), number + 1)
    accounts.meta[META_COUNT] += 1
    return _COMMITTED


# ---- the batch ----


@inlined
def has_room(arrays: LedgerArrays, command: Any) -> bool:
    """False for an OPEN of a new account when the table is full."""
    if command["kind"] != OPEN or arrays.counters[COUNTER_ACCOUNTS] < len(arrays.rows):
        return True
    return find_account(arrays, command["debit_head"], command["debit_tail"]) >= 0


@inlined
def check_time(arrays: LedgerArrays, command: Any, entry_timestamp_ns: int) -> int:
    """The code of what is wrong with the time of an imported command, or COMMITTED."""
    if command["flags"] & IMPORTED == 0:
        return _COMMITTED
    if command["client_timestamp_ns"] >= entry_timestamp_ns:
        return _IN_FUTURE
    if command["client_timestamp_ns"] <= arrays.counters[COUNTER_LAST_TIMESTAMP_NS]:
        return _NOT_RISING
    return _COMMITTED


@inlined
def answer_known(
    event: Any,
    command: Any,
    result: Any,
    position: int,
) -> None:
    """Answer a command whose id is in use: the first outcome, or a conflict that names the field."""
    field = first_difference(event, command)
    if field == 0:
        write_outcome(result, event, position, _REPEATED)
    else:
        write_refusal(result, _ID_CONFLICT, field, position)


@inlined
def append_event(
    arrays: LedgerArrays,
    command_words: Words,
    entry_timestamp_ns: int,
    hash_value: int,
    event: Any,
    event_words: Words,
    number: int,
) -> int:
    """Execute a command that has passed every check that leaves no event; returns the event's position."""
    counters = arrays.counters
    sequence = counters[COUNTER_NEXT_SEQUENCE]
    counters[COUNTER_NEXT_SEQUENCE] = sequence + 1
    position = counters[COUNTER_POSITION_BASE] + sequence
    for word in range(COMMAND_WORDS_COPIED):
        event_words[word] = command_words[word]
    event["event_reserved"] = 0
    if event["flags"] & IMPORTED != 0:
        event["timestamp_ns"] = event["client_timestamp_ns"]
    else:
        event["timestamp_ns"] = entry_timestamp_ns + number
    counters[COUNTER_LAST_TIMESTAMP_NS] = event["timestamp_ns"]
    if event["kind"] == TRANSFER:
        event["result"] = execute_transfer(arrays, event, position)
    elif event["kind"] == OPEN:
        event["result"] = execute_open(arrays, event, event_words, position)
    else:
        event["result"] = execute_set_limit(arrays, event, position)
    insert(arrays.id_index.current, hash_value, sequence)
    arrays.id_index.meta[META_COUNT] += 1
    return position


@inlined
def execute_command(
    arrays: LedgerArrays,
    commands: Records,
    command_words: Words,
    number: int,
    entry_timestamp_ns: int,
    events: Records,
    event_words: Words,
    results: Records,
    originals: Originals,
    progress: Words,
) -> int:
    """Execute one command; returns 0, or the sequence of an event that must be fetched first."""
    command, result = commands[number], results[number]
    code, detail = check_command(commands, command_words, number, arrays.scratch)
    if code != _COMMITTED:
        write_refusal(result, code, detail, 0)
        return 0
    hash_value = hash_of_id(arrays, command)
    known = find_id(arrays, commands, number, hash_value, events, originals, progress)
    if known < 0:
        return -known
    base = progress[PROGRESS_BASE_SEQUENCE]
    if known > 0:
        position = arrays.counters[COUNTER_POSITION_BASE] + known
        if known >= base:
            answer_known(events[known - base], command, result, position)
        else:
            original = find_original(originals, progress[PROGRESS_EXTRA_FIRST], number, known)
            answer_known(originals.events[original], command, result, position)
        return 0
    code = check_time(arrays, command, entry_timestamp_ns)
    if code == _COMMITTED and not has_room(arrays, command):
        code = _ACCOUNTS_FULL
    if code != _COMMITTED:
        write_refusal(result, code, 0, 0)
        return 0
    event_number = progress[PROGRESS_EVENTS]
    progress[PROGRESS_EVENTS] = event_number + 1
    position = append_event(
        arrays,
        command_words[number],
        entry_timestamp_ns,
        hash_value,
        events[event_number],
        event_words[event_number],
        event_number,
    )
    write_outcome(result, events[event_number], position, 0)
    return 0


@inlined
def prefetch_for(arrays: LedgerArrays, command: Any) -> None:
    """Start to load what a later command will look up: memory answers in 100 ns, a transfer is done in that time."""
    ids = arrays.id_index.current
    prefetch(ids, hash_of_id(arrays, command) & (len(ids) - 1))
    accounts, salt = arrays.account_index.current, arrays.account_index.meta[META_SALT]
    mask = len(accounts) - 1
    prefetch(accounts, mix_words(command["debit_head"], command["debit_tail"], salt) & mask)
    prefetch(accounts, mix_words(command["credit_head"], command["credit_tail"], salt) & mask)


@kernel
def execute_batch(
    arrays: LedgerArrays,
    commands: Records,
    command_words: Words,
    preset: Words,
    entry_timestamp_ns: int,
    events: Records,
    event_words: Words,
    results: Records,
    originals: Originals,
    progress: Words,
) -> None:
    """Execute commands from ``progress[PROGRESS_NEXT]`` on, until the end or until an event must be fetched.

    `preset` is empty, or has for each command a code that refuses it unseen (0: execute it). The ``_words`` arrays are
    views of the record arrays as int64 of shape (count, 16) and (count, 24).
    """
    progress[PROGRESS_NEEDED] = 0
    count = len(commands)
    for number in range(progress[PROGRESS_NEXT], count):
        if number + PREFETCH_DISTANCE < count:
            prefetch_for(arrays, commands[number + PREFETCH_DISTANCE])
        if len(preset) != 0 and preset[number] != 0:
            write_refusal(results[number], preset[number], 0, 0)
            continue
        needed = execute_command(
            arrays,
            commands,
            command_words,
            number,
            entry_timestamp_ns,
            events,
            event_words,
            results,
            originals,
            progress,
        )
        if needed != 0:
            progress[PROGRESS_NEXT] = number
            progress[PROGRESS_NEEDED] = needed
            return
    progress[PROGRESS_NEXT] = count
