"""Compiled: taking events in, a batch at a time. ``layout.py`` says what is written where."""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import called, inlined, kernel
from bezant.engine.hashing import mix_words, prefetch, xxh3_64
from bezant.engine.ledger.index import META_SALT_1, META_SALT_2, IndexArrays, find_slot, insert, remove
from bezant.engine.projections.layout import (
    ACCOUNT_CURRENCY,
    ACCOUNT_HEAD,
    ACCOUNT_NAME,
    ACCOUNT_OPENED,
    ACCOUNT_TAIL,
    CHANGE_ACCOUNT,
    CHANGE_AFTER,
    CHANGE_BEFORE,
    CHANGE_HEAD,
    CHANGE_HOLD,
    CHANGE_SEQUENCE,
    CHANGE_TAIL,
    COUNTER_ACCOUNTS,
    COUNTER_CHANGES,
    COUNTER_CURRENCIES,
    COUNTER_HOLDS_FREE,
    COUNTER_HOLDS_TOP,
    COUNTER_IDS,
    COUNTER_POSTINGS,
    COUNTER_TIMES,
    HOLD_ACCOUNT,
    HOLD_HASH,
    HOLD_HEAD,
    HOLD_REMAINING,
    HOLD_SEQUENCE,
    HOLD_TAIL,
    LIST_ALL,
    LIST_BITS,
    LIST_FLAGS,
    LIST_HOLDS,
    LIST_LIMIT,
    POSTING_SHIFT,
    SUMMARY_CODES,
    SUMMARY_COUNT,
    SUMMARY_CURRENCIES,
    SUMMARY_KINDS,
    TOTAL_CLOSED,
    TOTAL_HELD,
    TOTAL_MOVED,
    TOTAL_MOVES,
    TOTAL_OPENED,
    TOTAL_POSITIVE,
    BlockArrays,
    TableArrays,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import COPY_OF, CommandFlag, CommandKind
from bezant.protocol.records import EVENT_SIZE, Bytes, Records, Words

_COMMITTED: Final = int(ResultCode.COMMITTED)
_OPEN: Final = int(CommandKind.OPEN)
_TRANSFER: Final = int(CommandKind.TRANSFER)
_TRANSFER_AVAILABLE: Final = int(CommandKind.TRANSFER_AVAILABLE)
_SET_LIMIT: Final = int(CommandKind.SET_LIMIT)
_HOLD: Final = int(CommandKind.HOLD)
_CAPTURE: Final = int(CommandKind.CAPTURE)
_RELEASE: Final = int(CommandKind.RELEASE)
_EXPIRE: Final = int(CommandKind.EXPIRE)
_CLOSE: Final = int(CommandKind.CLOSE)
_TRY_DEBIT: Final = int(CommandKind.TRY_DEBIT)
_TRY_CREDIT: Final = int(CommandKind.TRY_CREDIT)
_TRY_PART: Final = int(CommandKind.TRY_PART)
_CONFIRM: Final = int(CommandKind.CONFIRM)
_CANCEL: Final = int(CommandKind.CANCEL)
_MOVE_OPEN: Final = int(CommandKind.MOVE_OPEN)
_MOVE_IN: Final = int(CommandKind.MOVE_IN)
_MOVE_OUT: Final = int(CommandKind.MOVE_OUT)
_MOVE_HOLD_IN: Final = int(CommandKind.MOVE_HOLD_IN)
_KEEP_OPEN: Final = int(CommandFlag.KEEP_OPEN)

_NAME_WORD: Final = 4
"""The word of an OPEN at which the name begins: byte 32."""
_PREFETCH_DISTANCE: Final = 16
_ROWS_PREFETCH_DISTANCE: Final = 8
"""Events between when a slot of the index, or behind that the account it leads to, is asked for and when it is used."""
_HALF: Final = 0xFFFFFFFF
_SLOT_OF_HEAD: Final = 0xF0FF

TAKEN: Final = 0
ACCOUNT_UNKNOWN: Final = 1
HOLD_UNKNOWN: Final = 2
"""What `take_events` found wrong with an event of the history."""


# ---- look-ups ----


@inlined
def hash_of(index: IndexArrays, head: int, tail: int, extra: int) -> Any:
    """Hash of an id under the salts of an index."""
    return mix_words(head, tail, extra, index.meta[META_SALT_1], index.meta[META_SALT_2])


@called
def find_account(tables: TableArrays, head: int, tail: int) -> Any:
    """Number of an account, or -1."""
    index = tables.account_index
    hash_value = hash_of(index, head, tail, 0)
    for table in (index.current, index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            number = table[slot, 1] - 1
            # Who asks by an older view has the index that accounts were added to since, and not the rows of those.
            if number < len(tables.accounts) and (
                tables.accounts[number, ACCOUNT_HEAD] == head and tables.accounts[number, ACCOUNT_TAIL] == tail
            ):
                return number
            slot = find_slot(table, hash_value, slot + 1)
    return -1


@called
def find_hold(tables: TableArrays, head: int, tail: int, account: int, hash_value: int) -> Any:
    """Row of an open hold of an account, or -1."""
    index = tables.hold_index
    for table in (index.current, index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            row = table[slot, 1] - 1
            hold = tables.holds[row]
            if hold[HOLD_HEAD] == head and hold[HOLD_TAIL] == tail and hold[HOLD_ACCOUNT] == account:
                return row
            slot = find_slot(table, hash_value, slot + 1)
    return -1


@kernel
def find_accounts(tables: TableArrays, ids: Words, numbers: Words) -> None:
    """Numbers of the accounts with these ids (count, 2); -1 where there is none."""
    for place in range(len(ids)):
        numbers[place] = find_account(tables, ids[place, 0], ids[place, 1])


# ---- what an event changes ----


@inlined
def add_posting(tables: TableArrays, block: BlockArrays, account: int, which: int, place: int) -> None:
    """Note that an event belongs to a list of an account."""
    count = tables.counters[COUNTER_POSTINGS]
    block.postings[count] = ((account << LIST_BITS | which) << POSTING_SHIFT) | place
    tables.counters[COUNTER_POSTINGS] = count + 1


@inlined
def add_id(tables: TableArrays, block: BlockArrays, head: int, tail: int, sequence: int) -> None:
    """Note that an event has an id, or refers to it."""
    count = tables.counters[COUNTER_IDS]
    block.hashes[count] = hash_of(tables.account_index, head, tail, 1)
    block.values[count] = sequence
    tables.counters[COUNTER_IDS] = count + 1


@inlined
def add_amount(total: Words, word: int, amount: int) -> None:
    """Add an amount to a sum of two words."""
    low = total[word + 1] + (amount & _HALF)
    total[word] += (amount >> 32) + (low >> 32)
    total[word + 1] = low & _HALF


@inlined
def add_positive(total: Words, before: int, after: int) -> None:
    """A balance changes: so does the sum of those above zero."""
    add_amount(total, TOTAL_POSITIVE, max(after, 0))
    add_amount(total, TOTAL_POSITIVE, -max(before, 0))


@called
def open_account(tables: TableArrays, event: Any, words: Words, sequence: int) -> Any:
    """Add an account; its number, or -1 if its currency is not known."""
    counters = tables.counters
    currency = 0
    while currency < counters[COUNTER_CURRENCIES] and tables.currencies[currency] != event["currency"]:
        currency += 1
    if currency == counters[COUNTER_CURRENCIES]:
        return -1
    number = counters[COUNTER_ACCOUNTS]
    counters[COUNTER_ACCOUNTS] = number + 1
    row = tables.accounts[number]
    row[ACCOUNT_HEAD] = event["debit_head"]
    row[ACCOUNT_TAIL] = event["debit_tail"]
    row[ACCOUNT_CURRENCY] = currency
    row[ACCOUNT_OPENED] = sequence
    for word in range(6):
        row[ACCOUNT_NAME + word] = words[_NAME_WORD + word]
    insert(tables.account_index, hash_of(tables.account_index, row[ACCOUNT_HEAD], row[ACCOUNT_TAIL], 0), number + 1)
    tables.totals[currency, TOTAL_OPENED] += 1
    return number


@called
def make_hold(tables: TableArrays, head: int, tail: int, account: int, sequence: int, remaining: int) -> None:
    """Add an open hold."""
    counters = tables.counters
    if counters[COUNTER_HOLDS_FREE] > 0:
        counters[COUNTER_HOLDS_FREE] -= 1
        row = tables.holds_free[counters[COUNTER_HOLDS_FREE]]
    else:
        row = counters[COUNTER_HOLDS_TOP]
        counters[COUNTER_HOLDS_TOP] += 1
    hash_value = hash_of(tables.hold_index, head, tail, account)
    hold = tables.holds[row]
    hold[HOLD_HEAD] = head
    hold[HOLD_TAIL] = tail
    hold[HOLD_ACCOUNT] = account
    hold[HOLD_SEQUENCE] = sequence
    hold[HOLD_REMAINING] = remaining
    hold[HOLD_HASH] = hash_value
    insert(tables.hold_index, hash_value, row + 1)


@called
def change_hold(tables: TableArrays, row: int, remaining: int) -> None:
    """Let an amount of a hold remain; with 0 it is open no more."""
    hold = tables.holds[row]
    hold[HOLD_REMAINING] = remaining
    if remaining == 0:
        remove(tables.hold_index, hold[HOLD_HASH], row + 1)
        hold[HOLD_SEQUENCE] = 0
        tables.holds_free[tables.counters[COUNTER_HOLDS_FREE]] = row
        tables.counters[COUNTER_HOLDS_FREE] += 1


@called
def take_hold_event(tables: TableArrays, block: BlockArrays, event: Any, account: int, sequence: int) -> bool:
    """What an event does to a hold or try, which it makes, changes or ends; False if that is not open."""
    kind = event["kind"]
    if kind in (_HOLD, _TRY_DEBIT, _TRY_CREDIT, _TRY_PART, _MOVE_HOLD_IN):
        head, tail = event["id_head"], event["id_tail"]
        hold_sequence, before, after = sequence, 0, event["amount"]
        make_hold(tables, head, tail, account, sequence, after)
    else:
        head, tail = event["reference_head"], event["reference_tail"]
        row = find_hold(tables, head, tail, account, hash_of(tables.hold_index, head, tail, account))
        if row < 0:
            return False
        hold_sequence, before = tables.holds[row, HOLD_SEQUENCE], tables.holds[row, HOLD_REMAINING]
        after = 0
        if kind == _CAPTURE and event["flags"] & _KEEP_OPEN != 0:
            after = before - event["effective_amount"]
        change_hold(tables, row, after)
    count = tables.counters[COUNTER_CHANGES]
    change = block.changes[count]
    change[CHANGE_SEQUENCE] = sequence
    change[CHANGE_HOLD] = hold_sequence
    change[CHANGE_BEFORE] = before
    change[CHANGE_AFTER] = after
    change[CHANGE_ACCOUNT] = account
    change[CHANGE_HEAD] = head
    change[CHANGE_TAIL] = tail
    tables.counters[COUNTER_CHANGES] = count + 1
    add_amount(tables.totals[tables.accounts[account, ACCOUNT_CURRENCY]], TOTAL_HELD, after - before)
    return True


@inlined
def take_move(tables: TableArrays, block: BlockArrays, event: Any, debit: int, place: int) -> bool:
    """What a move of money does besides to the debit account; False if there is no credit account."""
    credit = find_account(tables, event["credit_head"], event["credit_tail"])
    if credit < 0:
        return False
    add_posting(tables, block, credit, LIST_ALL, place)
    amount = event["effective_amount"]
    total = tables.totals[tables.accounts[debit, ACCOUNT_CURRENCY]]
    total[TOTAL_MOVES] += 1
    add_amount(total, TOTAL_MOVED, amount)
    add_positive(total, event["debit_balance"] + amount, event["debit_balance"])
    add_positive(total, event["credit_balance"] - amount, event["credit_balance"])
    return True


@called
def take_leg(tables: TableArrays, block: BlockArrays, event: Any, debit: int, place: int, sequence: int) -> int:
    """What an event of a kind from TRY_DEBIT on did: it says itself which accounts it touched."""
    if event["debit_previous"] == 0:
        return TAKEN  # a PLAN, or a CANCEL that found nothing
    if debit < 0:
        return ACCOUNT_UNKNOWN
    add_posting(tables, block, debit, LIST_ALL, place)
    add_posting(tables, block, debit, LIST_HOLDS, place)
    if event["kind"] == _CONFIRM:
        if not take_move(tables, block, event, debit, place):
            return ACCOUNT_UNKNOWN
    elif event["credit_previous"] != 0:
        credit = find_account(tables, event["credit_head"], event["credit_tail"])
        if credit < 0:
            return ACCOUNT_UNKNOWN
        add_posting(tables, block, credit, LIST_ALL, place)
    return TAKEN if take_hold_event(tables, block, event, debit, sequence) else HOLD_UNKNOWN


@called
def take_balance(tables: TableArrays, block: BlockArrays, event: Any, debit: int, place: int) -> int:
    """A balance that comes from another shard or goes there: it is no money that anybody has moved."""
    credit = find_account(tables, event["credit_head"], event["credit_tail"])
    if credit < 0:
        return ACCOUNT_UNKNOWN
    add_posting(tables, block, debit, LIST_ALL, place)
    add_posting(tables, block, credit, LIST_ALL, place)
    amount = event["effective_amount"]
    total = tables.totals[tables.accounts[debit, ACCOUNT_CURRENCY]]
    add_positive(total, event["debit_balance"] + amount, event["debit_balance"])
    add_positive(total, event["credit_balance"] - amount, event["credit_balance"])
    return TAKEN


@called
def take_moved(
    tables: TableArrays, block: BlockArrays, event: Any, words: Words, debit: int, place: int, sequence: int
) -> int:
    """What an event of a move of slots did. A copy of another shard's event is no news."""
    kind = event["kind"]
    if kind > COPY_OF:
        return TAKEN
    if kind == _MOVE_OPEN:
        if debit < 0:
            debit = open_account(tables, event, words, sequence)
            if debit < 0:
                return ACCOUNT_UNKNOWN
            # It was opened in another shard, and counts there.
            tables.totals[tables.accounts[debit, ACCOUNT_CURRENCY], TOTAL_OPENED] -= 1
        for which in (LIST_ALL, LIST_LIMIT, LIST_FLAGS):
            add_posting(tables, block, debit, which, place)
        return TAKEN
    if debit < 0:
        return ACCOUNT_UNKNOWN
    if kind in (_MOVE_IN, _MOVE_OUT):
        return take_balance(tables, block, event, debit, place)
    add_posting(tables, block, debit, LIST_ALL, place)
    add_posting(tables, block, debit, LIST_HOLDS, place)
    return TAKEN if take_hold_event(tables, block, event, debit, sequence) else HOLD_UNKNOWN


@called
def take_between_shards(
    tables: TableArrays, block: BlockArrays, event: Any, words: Words, debit: int, place: int, sequence: int
) -> int:
    """What an event did that has to do with another shard."""
    if event["kind"] >= _MOVE_OPEN:
        return take_moved(tables, block, event, words, debit, place, sequence)
    return take_leg(tables, block, event, debit, place, sequence)


@inlined
def take_committed(
    tables: TableArrays, block: BlockArrays, event: Any, words: Words, debit: int, place: int, sequence: int
) -> int:
    """What an event did that was not refused. The debit account is known, but for an OPEN."""
    kind = event["kind"]
    if kind >= _TRY_DEBIT:
        return take_between_shards(tables, block, event, words, debit, place, sequence)
    if kind == _OPEN:
        debit = open_account(tables, event, words, sequence)
    if debit < 0:
        return ACCOUNT_UNKNOWN
    add_posting(tables, block, debit, LIST_ALL, place)
    if kind in (_TRANSFER, _TRANSFER_AVAILABLE, _CAPTURE) and not take_move(tables, block, event, debit, place):
        return ACCOUNT_UNKNOWN
    if kind in (_TRANSFER, _TRANSFER_AVAILABLE):
        return TAKEN
    if kind in (_HOLD, _CAPTURE, _RELEASE, _EXPIRE):
        add_posting(tables, block, debit, LIST_HOLDS, place)
        return TAKEN if take_hold_event(tables, block, event, debit, sequence) else HOLD_UNKNOWN
    add_posting(tables, block, debit, LIST_LIMIT if kind in (_OPEN, _SET_LIMIT) else LIST_FLAGS, place)
    if kind == _CLOSE:
        tables.totals[tables.accounts[debit, ACCOUNT_CURRENCY], TOTAL_CLOSED] += 1
    return TAKEN


@inlined
def code_bit(code: int) -> Any:
    """The bit that stands for a code in a summary."""
    return mix_words(code, 0x2545F4914F6CDD1D, 0, 0x27D4EB2F165667C5, 0x1B873593CC9E2D51) & 63


@kernel
def bit_of_code(code: int) -> Any:
    """`code_bit`, for whoever asks a summary."""
    return code_bit(code)


@inlined
def prefetch_account(tables: TableArrays, head: int, tail: int, is_slot_there: bool) -> None:
    """Have the slot of an account fetched or, once that is there, the account."""
    index = tables.account_index
    slot = hash_of(index, head, tail, 0) & (len(index.current) - 1)
    if not is_slot_there:
        prefetch(index.current, slot)
    elif index.current[slot, 1] > 0:
        prefetch(tables.accounts, index.current[slot, 1] - 1)


@kernel
def take_events(
    tables: TableArrays,
    block: BlockArrays,
    events: Records,
    words: Words,
    data: Bytes,
    start: int,
    end: int,
    place: int,
    sequence: int,
    time_distance: int,
) -> int:
    """Take in the events from `start` to `end` of an entry; the number of one that cannot be, or `end`.

    `words` (count, 24) and `data` are the same bytes as `events`. The first has number `place` in its block and this
    `sequence`. Every `time_distance` events the time is noted.
    """
    counters, summary = tables.counters, block.summary
    for number in range(start, end):
        if number + _PREFETCH_DISTANCE < end:
            ahead = events[number + _PREFETCH_DISTANCE]
            prefetch_account(tables, ahead["debit_head"], ahead["debit_tail"], False)
            prefetch_account(tables, ahead["credit_head"], ahead["credit_tail"], False)
            ahead = events[number + _ROWS_PREFETCH_DISTANCE]
            prefetch_account(tables, ahead["debit_head"], ahead["debit_tail"], True)
            prefetch_account(tables, ahead["credit_head"], ahead["credit_tail"], True)
        event = events[number]
        block.checksums[place] = np.int64(xxh3_64(data, number * EVENT_SIZE, (number + 1) * EVENT_SIZE)) & _HALF
        if place % time_distance == 0:
            block.times[counters[COUNTER_TIMES]] = event["timestamp_ns"]
            counters[COUNTER_TIMES] += 1
        kind = event["kind"]
        if kind < COPY_OF and (event["id_head"] != 0 or event["id_tail"] != 0):
            add_id(tables, block, event["id_head"], event["id_tail"], sequence)
        debit = -1
        if kind != _OPEN or event["result"] != _COMMITTED:
            debit = find_account(tables, event["debit_head"], event["debit_tail"])
        if event["result"] == _COMMITTED:
            if kind in (_CAPTURE, _RELEASE, _EXPIRE, _CONFIRM, _CANCEL):
                add_id(tables, block, event["reference_head"], event["reference_tail"], sequence)
            problem = take_committed(tables, block, event, words[number], debit, place, sequence)
            if problem != TAKEN:
                return -number - 1
            if kind == _OPEN or (kind == _MOVE_OPEN and debit < 0):
                debit = counters[COUNTER_ACCOUNTS] - 1
        summary[SUMMARY_COUNT] += 1
        summary[SUMMARY_KINDS] |= np.int64(1) << (kind & 63)
        summary[SUMMARY_CODES] |= np.int64(1) << code_bit(event["code"])
        if debit >= 0:
            summary[SUMMARY_CURRENCIES] |= np.int64(1) << (tables.accounts[debit, ACCOUNT_CURRENCY] & 63)
        place += 1
        sequence += 1
    return end


@kernel
def restore_accounts(tables: TableArrays, start: int, end: int) -> None:
    """Enter accounts whose rows have been read back into the index."""
    for number in range(start, end):
        row = tables.accounts[number]
        insert(tables.account_index, hash_of(tables.account_index, row[ACCOUNT_HEAD], row[ACCOUNT_TAIL], 0), number + 1)


@kernel
def restore_holds(tables: TableArrays, changes: Words) -> int:
    """Do again what events did to holds (`CHANGE_WORDS`); how many changes were taken, all if they fit together."""
    for number in range(len(changes)):
        change = changes[number]
        head, tail, account = change[CHANGE_HEAD], change[CHANGE_TAIL], change[CHANGE_ACCOUNT]
        if change[CHANGE_SEQUENCE] == change[CHANGE_HOLD]:
            make_hold(tables, head, tail, account, change[CHANGE_HOLD], change[CHANGE_AFTER])
            continue
        row = find_hold(tables, head, tail, account, hash_of(tables.hold_index, head, tail, account))
        if row < 0 or tables.holds[row, HOLD_REMAINING] != change[CHANGE_BEFORE]:
            return number
        change_hold(tables, row, change[CHANGE_AFTER])
    return len(changes)
