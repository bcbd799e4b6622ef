"""Open holds: made, changed, closed; and found in the order in which they fall due.

A hold that is closed leaves its row; what became of it, its fate, stays with its id in the id index, so a second
capture is told the truth for ever at no cost in memory. The heap is a binary one (CLRS, chapter 6) of row numbers, in
the order (deadline, sequence); each row knows its place in it, so that a capture takes it out in logarithmic time.

Inside a chain a closed hold keeps its row, marked with its fate, until the chain stands (`settle_hold`) or falls.
"""

from typing import Any

import numpy as np

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.index import insert, remove, replace_slot
from bezant.engine.ledger.state import (
    COUNTER_HEAP,
    COUNTER_HOLDS_FREE,
    COUNTER_HOLDS_TOP,
    FATE_OPEN,
    LedgerArrays,
)
from bezant.protocol.records import SEQUENCE_BITS, Records, Words


@inlined
def due_before(rows: Records, left: int, right: int) -> bool:
    """Whether a hold falls due before another."""
    if rows[left]["deadline_ns"] != rows[right]["deadline_ns"]:
        return rows[left]["deadline_ns"] < rows[right]["deadline_ns"]
    return rows[left]["sequence"] < rows[right]["sequence"]


@inlined
def put_in_heap(rows: Records, heap: Words, place: int, number: int) -> None:
    """Write a row number into a place of the heap."""
    heap[place] = number
    rows[number]["heap_place"] = place


@inlined
def rise(rows: Records, heap: Words, place: int) -> None:
    """Move the hold at a place up until none above it is due later."""
    number = heap[place]
    while place > 0:
        parent = (place - 1) >> 1
        if not due_before(rows, number, heap[parent]):
            break
        put_in_heap(rows, heap, place, heap[parent])
        place = parent
    put_in_heap(rows, heap, place, number)


@inlined
def sink(rows: Records, heap: Words, place: int, count: int) -> None:
    """Move the hold at a place down until none below it is due sooner."""
    number = heap[place]
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and due_before(rows, heap[child + 1], heap[child]):
            child += 1
        if not due_before(rows, heap[child], number):
            break
        put_in_heap(rows, heap, place, heap[child])
        place = child
    put_in_heap(rows, heap, place, number)


@called
def leave_heap(arrays: LedgerArrays, place: int) -> None:
    """Take the hold at a place out of the heap."""
    rows, heap = arrays.holds.rows, arrays.holds.heap
    last = arrays.counters[COUNTER_HEAP] - 1
    arrays.counters[COUNTER_HEAP] = last
    if place != last:
        moved = heap[last]
        put_in_heap(rows, heap, place, moved)
        rise(rows, heap, place)
        sink(rows, heap, rows[moved]["heap_place"], last)


@inlined
def open_holds(arrays: LedgerArrays) -> int:
    """How many holds and tries are open."""
    return arrays.counters[COUNTER_HOLDS_TOP] - arrays.counters[COUNTER_HOLDS_FREE]


@called
def make_hold(
    arrays: LedgerArrays,
    head: int,
    tail: int,
    hash_value: int,
    sequence: int,
    amount: int,
    deadline_ns: int,
    debit_row: int,
    credit_row: int,
    kind: int,
) -> int:
    """Add an open hold or try, made by a command of this kind; there must be room. Returns its row number."""
    counters, holds = arrays.counters, arrays.holds
    if counters[COUNTER_HOLDS_FREE] > 0:
        counters[COUNTER_HOLDS_FREE] -= 1
        number = holds.free[counters[COUNTER_HOLDS_FREE]]
    else:
        number = counters[COUNTER_HOLDS_TOP]
        counters[COUNTER_HOLDS_TOP] += 1
    hold = holds.rows[number]
    hold["id_head"] = head
    hold["id_tail"] = tail
    hold["hash"] = hash_value
    hold["sequence"] = sequence
    hold["remaining"] = amount
    hold["deadline_ns"] = deadline_ns
    hold["debit_row"] = debit_row
    hold["credit_row"] = credit_row
    hold["fate"] = FATE_OPEN
    hold["kind"] = kind
    hold["heap_place"] = -1
    if deadline_ns != 0:
        place = counters[COUNTER_HEAP]
        counters[COUNTER_HEAP] += 1
        holds.heap[place] = number
        rise(holds.rows, holds.heap, place)
    insert(holds.index, hash_value, number + 1)
    return number


@called
def drop_hold(arrays: LedgerArrays, number: int) -> None:
    """Free the row of a hold, whatever became of it."""
    hold = arrays.holds.rows[number]
    if hold["heap_place"] >= 0:
        leave_heap(arrays, hold["heap_place"])
    remove(arrays.holds.index, hold["hash"], number + 1)
    hold["sequence"] = 0
    hold["heap_place"] = -1
    arrays.holds.free[arrays.counters[COUNTER_HOLDS_FREE]] = number
    arrays.counters[COUNTER_HOLDS_FREE] += 1


@called
def settle_hold(arrays: LedgerArrays, number: int) -> None:
    """Write the fate of a closed hold beside its id, where it stays, and free its row.

    Always into the current table, too: the previous one may be frozen, and on disk as it was.
    """
    hold = arrays.holds.rows[number]
    index = arrays.id_index
    fate: Any = np.int64(hold["fate"])
    value = hold["sequence"] | fate << SEQUENCE_BITS
    if len(index.previous) != 0:
        replace_slot(index.previous, hold["hash"], hold["sequence"], value)
    if not replace_slot(index.current, hold["hash"], hold["sequence"], value):
        insert(index, hold["hash"], value)
    drop_hold(arrays, number)
