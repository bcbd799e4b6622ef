"""The kernel: a batch of commands in, events and results out, in place over plain arrays.

``README.md`` states the rules in words and in the order of the steps here; ``rules.py`` has what each kind does. A
kernel never calls back into Python: when a command's id or hold may be that of an earlier entry, `execute_batch` stops
and names the sequence of the event that it must see; `Ledger.execute` fetches it and calls again. It stops before a
command or chain has had any effect.

Everything is int64. Events and results are written where the caller wants them; nothing is allocated.
"""

from typing import Any, Final

from bezant.engine.compiled import called, inlined, kernel
from bezant.engine.hashing import prefetch
from bezant.engine.ledger.answers import write_refusal
from bezant.engine.ledger.chain import chain_end, execute_chain, refuse_chain
from bezant.engine.ledger.checks import (
    EXPIRE,
    LINKED,
)
from bezant.engine.ledger.command import COMMAND_WORDS_COPIED, begin_event, execute_command
from bezant.engine.ledger.lookups import (
    PROGRESS_EVENTS,
    PROGRESS_NEEDED,
    PROGRESS_NEXT,
    hash_of_account,
    hash_of_key,
    place_of,
)
from bezant.engine.ledger.rules import (
    execute_expire,
)
from bezant.engine.ledger.state import (
    COUNTER_ENTRY_TIMESTAMP_NS,
    COUNTER_HEAP,
    COUNTER_POSITION_BASE,
    EXPIRES_PER_ENTRY_MAX,
    LedgerArrays,
    Originals,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.records import Records, Words

PREFETCH_DISTANCE: Final = 16
"""How many commands ahead the kernel asks for what it will look up in the indexes."""
PREFETCH_ROWS_DISTANCE: Final = 8
"""How many commands ahead it asks for the accounts, whose rows it then finds in the index."""

_CHAIN_UNTERMINATED: Final = int(ResultCode.CHAIN_UNTERMINATED)


@called
def expire_holds(arrays: LedgerArrays, events: Records, event_words: Words, progress: Words) -> None:
    """Expire the holds that are due, in the order (deadline, sequence), before any command; a bounded number."""
    while arrays.counters[COUNTER_HEAP] > 0 and progress[PROGRESS_EVENTS] < EXPIRES_PER_ENTRY_MAX:
        hold_row = arrays.holds.heap[0]
        if arrays.holds.rows[hold_row]["deadline_ns"] > arrays.counters[COUNTER_ENTRY_TIMESTAMP_NS]:
            return
        number = progress[PROGRESS_EVENTS]
        progress[PROGRESS_EVENTS] = number + 1
        event, words = events[number], event_words[number]
        for word in range(COMMAND_WORDS_COPIED + 1):
            words[word] = 0
        event["kind"] = EXPIRE
        sequence = begin_event(arrays, event, number)
        execute_expire(arrays, event, hold_row, arrays.counters[COUNTER_POSITION_BASE] + sequence)


@inlined
def prefetch_for(arrays: LedgerArrays, command: Any) -> None:
    """Start to load what a later command will look up: memory answers in 100 ns, a transfer is done in that time."""
    ids = arrays.id_index.current
    place = place_of(command["kind"], command["debit_head"])
    hash_value = hash_of_key(arrays, command["id_head"], command["id_tail"], place)
    prefetch(ids, hash_value & (len(ids) - 1))
    older_ids = arrays.id_index.previous
    if len(older_ids) != 0:
        prefetch(older_ids, hash_value & (len(older_ids) - 1))
    accounts = arrays.account_index.current
    mask = len(accounts) - 1
    prefetch(accounts, hash_of_account(arrays, command["debit_head"], command["debit_tail"]) & mask)
    prefetch(accounts, hash_of_account(arrays, command["credit_head"], command["credit_tail"]) & mask)


@inlined
def prefetch_row(arrays: LedgerArrays, head: int, tail: int) -> None:
    """Start to load the row of an account, if it is where it would be in an index without collisions."""
    table = arrays.account_index.current
    hash_value = hash_of_account(arrays, head, tail)
    slot = hash_value & (len(table) - 1)
    if table[slot, 0] == hash_value and table[slot, 1] > 0:
        prefetch(arrays.row_words, table[slot, 1] - 1)


@inlined
def prefetch_rows(arrays: LedgerArrays, command: Any) -> None:
    """Start to load the accounts of a later command, whose places in the index have been loaded meanwhile."""
    prefetch_row(arrays, command["debit_head"], command["debit_tail"])
    prefetch_row(arrays, command["credit_head"], command["credit_tail"])


@kernel
def execute_batch(
    arrays: LedgerArrays,
    commands: Records,
    command_words: Words,
    preset: Words,
    events: Records,
    event_words: Words,
    results: Records,
    originals: Originals,
    progress: Words,
) -> None:
    """Execute commands from ``progress[PROGRESS_NEXT]`` on, until the end or until an event must be fetched.

    `preset` is empty, or has for each command a code that refuses it unseen (0: execute it). A batch holds the
    commands of several frames: whoever joined them has marked a chain that does not end in its own frame as
    CHAIN_UNTERMINATED there, so that it takes none of the next frame's commands with it. The ``_words`` arrays are
    views of the record arrays as int64 of shape (count, 16) and (count, 24). `events` has room for an event a command
    and EXPIRES_PER_ENTRY_MAX more.
    """
    count = len(commands)
    if progress[PROGRESS_NEEDED] == 0:
        expire_holds(arrays, events, event_words, progress)
    progress[PROGRESS_NEEDED] = 0
    number = progress[PROGRESS_NEXT]
    while number < count:
        if number + PREFETCH_DISTANCE < count:
            prefetch_for(arrays, commands[number + PREFETCH_DISTANCE])
        if number + PREFETCH_ROWS_DISTANCE < count:
            prefetch_rows(arrays, commands[number + PREFETCH_ROWS_DISTANCE])
        end = number + 1
        needed = 0
        refused = len(preset) != 0 and preset[number] != 0
        if refused and preset[number] == _CHAIN_UNTERMINATED:
            write_refusal(results[number], _CHAIN_UNTERMINATED, 0, 0)
        elif commands[number]["flags"] & LINKED != 0:
            end = chain_end(commands, number)
            if end < 0:
                refuse_chain(results, number, count, 0, 0, -1, _CHAIN_UNTERMINATED)
                break
            needed = execute_chain(
                arrays,
                commands,
                command_words,
                preset,
                number,
                end,
                events,
                event_words,
                results,
                originals,
                progress,
            )
        elif refused:
            write_refusal(results[number], preset[number], 0, 0)
        else:
            needed = execute_command(
                arrays, commands, command_words, number, events, event_words, results, originals, progress
            )
        if needed != 0:
            progress[PROGRESS_NEXT] = number
            progress[PROGRESS_NEEDED] = needed
            return
        number = end
    progress[PROGRESS_NEXT] = count
