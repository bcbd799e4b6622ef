"""The events of moves, executed: compiled, in place over the arrays of a ledger; ``README`` of the room in `__init__`.

An event of a move has no command: it says itself what is to be done, and whoever replays a history executes it again as
it stands. What the ledger adds (the time, balances after it, back-pointers) must come out the same.
"""

from typing import Any, Final

from bezant.engine.compiled import called, kernel
from bezant.engine.ledger.checks import HOLD
from bezant.engine.ledger.holds import drop_hold, make_hold
from bezant.engine.ledger.index import find_slot, insert, replace_slot
from bezant.engine.ledger.lookups import (
    hash_of_account,
    hash_of_key,
    look_up_account,
    look_up_hold,
    place_of,
)
from bezant.engine.ledger.rules import AMOUNT_MAX, find_currency, show_accounts, touch, touch_both, touch_debit
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    COUNTER_POSITION_BASE,
    SEQUENCE_MASK,
    LedgerArrays,
)
from bezant.protocol.kinds import COPY_OF, AccountFlag, CommandKind
from bezant.protocol.records import SEQUENCE_BITS, Records, Words

_MOVE_OPEN: Final = int(CommandKind.MOVE_OPEN)
_MOVE_IN: Final = int(CommandKind.MOVE_IN)
_MOVE_OUT: Final = int(CommandKind.MOVE_OUT)
_MOVE_HOLD_IN: Final = int(CommandKind.MOVE_HOLD_IN)
_MOVE_HOLD_OUT: Final = int(CommandKind.MOVE_HOLD_OUT)
_MOVED: Final = int(AccountFlag.MOVED)
_HAS_INCOMING: Final = int(AccountFlag.HAS_INCOMING)


@called
def take_copy(arrays: LedgerArrays, event: Any, sequence: int) -> bool:
    """Have an id found that another shard has seen used; or note what became of a hold whose id is known here."""
    place = place_of(event["kind"] - COPY_OF, event["debit_head"])
    hash_value = hash_of_key(arrays, event["id_head"], event["id_tail"], place)
    index, known = arrays.id_index, event["debit_previous"]
    fate: Any = event["event_reserved"]
    if known == 0:
        insert(index, hash_value, sequence | fate << SEQUENCE_BITS)
        return True
    value = known | fate << SEQUENCE_BITS
    # As `settle_hold`: always into the current table, too.
    if len(index.previous) != 0:
        replace_slot(index.previous, hash_value, known, value)
    if not replace_slot(index.current, hash_value, known, value):
        insert(index, hash_value, value)
    return True


@called
def open_moved(arrays: LedgerArrays, event: Any, words: Words, position: int) -> bool:
    """Add an account that comes, or have one back; the caller has made sure that there is room for one."""
    currency_number = find_currency(arrays, event["currency"])
    if currency_number < 0:
        return False
    number = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, number, -1)
    if number < 0:
        number = arrays.counters[COUNTER_ACCOUNTS]
        if number >= len(arrays.rows):
            return False
        arrays.counters[COUNTER_ACCOUNTS] = number + 1
        row, cold = arrays.rows[number], arrays.rows_cold[number]
        row["id_head"] = event["debit_head"]
        row["id_tail"] = event["debit_tail"]
        row["currency_number"] = currency_number
        cold["opened_position"] = position
        for index in range(6):
            cold["name"][index] = words[4 + index]
        insert(arrays.account_index, hash_of_account(arrays, row["id_head"], row["id_tail"]), number + 1)
    elif arrays.rows[number]["flags"] & _MOVED == 0:
        return False
    row = arrays.rows[number]
    row["limit"] = event["amount"]
    row["flags"] = event["code"]
    event["debit_previous"] = touch(row, position)
    event["effective_amount"] = event["amount"]
    return True


@called
def move_balance(arrays: LedgerArrays, event: Any, position: int) -> bool:
    """Take a whole balance, of whatever sign, from the debit account to the credit account: one is in transit."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    if debit_row < 0 or credit_row < 0:
        return False
    debit, credit, amount = arrays.rows[debit_row], arrays.rows[credit_row], event["amount"]
    if event["kind"] == _MOVE_OUT:
        if debit["balance"] != amount or debit["held"] != 0 or debit["flags"] & (_MOVED | _HAS_INCOMING) != 0:
            return False
        debit["flags"] = debit["flags"] | _MOVED
    if amount > 0 and (debit["balance"] < amount - AMOUNT_MAX or credit["balance"] > AMOUNT_MAX - amount):
        return False
    if amount < 0 and (debit["balance"] > AMOUNT_MAX + amount or credit["balance"] < -AMOUNT_MAX - amount):
        return False
    debit["balance"] -= amount
    credit["balance"] += amount
    touch_both(arrays, event, debit_row, credit_row, position, amount)
    return True


@called
def move_hold(arrays: LedgerArrays, event: Any, position: int) -> bool:
    """Have a hold that was open in another shard open here, or one from here no more."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    if debit_row < 0 or credit_row < 0:
        return False
    show_accounts(arrays, event, debit_row, credit_row)
    place, amount = place_of(HOLD, event["debit_head"]), event["amount"]
    row = arrays.rows[debit_row]
    if event["kind"] == _MOVE_HOLD_IN:
        head, tail = event["id_head"], event["id_tail"]
        if row["held"] > AMOUNT_MAX - amount:
            return False
        hash_value = hash_of_key(arrays, head, tail, place)
        deadline_ns, sequence = event["client_timestamp_ns"], event["reference_head"]
        make_hold(arrays, head, tail, hash_value, sequence, amount, deadline_ns, debit_row, credit_row, HOLD)
        row["held"] += amount
    else:
        number = look_up_hold(arrays, event["reference_head"], event["reference_tail"], place)
        if number < 0 or arrays.holds.rows[number]["remaining"] != amount or arrays.holds.rows[number]["kind"] != HOLD:
            return False
        row["held"] -= amount
        drop_hold(arrays, number)
    touch_debit(arrays, event, debit_row, position, amount)
    return True


@kernel
def execute_moves(arrays: LedgerArrays, events: Records, event_words: Words, timestamp_ns: int) -> int:
    """Execute events of moves as one entry at one time; the number of the first that cannot be, or -1."""
    counters = arrays.counters
    for number in range(len(events)):
        event = events[number]
        kind = event["kind"]
        sequence = counters[COUNTER_NEXT_SEQUENCE]
        position = counters[COUNTER_POSITION_BASE] + sequence
        event["timestamp_ns"] = timestamp_ns + number
        if kind > COPY_OF:
            done = take_copy(arrays, event, sequence)
        elif kind == _MOVE_OPEN:
            done = open_moved(arrays, event, event_words[number], position)
        elif kind in (_MOVE_IN, _MOVE_OUT):
            done = move_balance(arrays, event, position)
        elif kind in (_MOVE_HOLD_IN, _MOVE_HOLD_OUT):
            done = move_hold(arrays, event, position)
        else:
            done = False
        if not done:
            return number
        counters[COUNTER_NEXT_SEQUENCE] = sequence + 1
        counters[COUNTER_LAST_TIMESTAMP_NS] = event["timestamp_ns"]
    return -1


@kernel
def find_fates(arrays: LedgerArrays, events: Records, sequences: Words, hashes: Words, fates: Words) -> None:
    """The fates of what events (no copies) with these sequences made, by their ids in memory; -1: not there.

    Also writes the hashes of their ids.
    """
    for number in range(len(events)):
        event = events[number]
        place = place_of(event["kind"], event["debit_head"])
        hash_value = hash_of_key(arrays, event["id_head"], event["id_tail"], place)
        hashes[number] = hash_value
        fates[number] = -1
        for table in (arrays.id_index.current, arrays.id_index.previous):
            slot = find_slot(table, hash_value, hash_value) if len(table) != 0 else -1
            while slot >= 0 and fates[number] < 0:
                if table[slot, 1] & SEQUENCE_MASK == sequences[number]:
                    fates[number] = table[slot, 1] >> SEQUENCE_BITS
                slot = find_slot(table, hash_value, slot + 1)
