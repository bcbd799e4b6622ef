"""Compiled look-ups in a ledger's state: accounts by id, events by idempotency key, open holds by id."""

from typing import Any, Final

from bezant.engine.compiled import called, inlined, kernel
from bezant.engine.hashing import mix_words
from bezant.engine.ledger.checks import CAPTURE, RELEASE
from bezant.engine.ledger.index import META_SALT_1, META_SALT_2, find_slot
from bezant.engine.ledger.state import SEQUENCE_MASK, LedgerArrays, Originals
from bezant.protocol.records import Records, Words

SLOT_BITS_OF_HEAD: Final = 0xF0FF
"""The bits of an account id's head word that are its slot: byte 0 and the high half of byte 1."""

PROGRESS_NEXT: Final = 0
PROGRESS_EVENTS: Final = 1
PROGRESS_BASE_SEQUENCE: Final = 2
PROGRESS_NEEDED: Final = 3
PROGRESS_EXTRA_FIRST: Final = 4
PROGRESS_SIZE: Final = 5
"""What `execute_batch` reads and advances: the next command, events written, the sequence of the first of them, the
sequence of an event that must be fetched before it can go on (0: none), the first of those fetched singly."""


@inlined
def hash_of_account(arrays: LedgerArrays, head: int, tail: int) -> int:
    """Hash of an account id."""
    meta = arrays.account_index.meta
    return mix_words(head, tail, 0, meta[META_SALT_1], meta[META_SALT_2])


@inlined
def find_account(arrays: LedgerArrays, head: int, tail: int) -> int:
    """Row number of an account, or -1."""
    index = arrays.account_index
    hash_value = hash_of_account(arrays, head, tail)
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
def hash_of_key(arrays: LedgerArrays, head: int, tail: int, debit_head: int) -> int:
    """Hash of an idempotency key: an id and the slot of the debit account."""
    meta = arrays.id_index.meta
    return mix_words(head, tail, debit_head & SLOT_BITS_OF_HEAD, meta[META_SALT_1], meta[META_SALT_2])


@called
def look_up_account(arrays: LedgerArrays, head: int, tail: int) -> int:
    """`find_account` as a call, for whom inlining would only cost time to compile."""
    return find_account(arrays, head, tail)


@inlined
def has_key(event: Any, head: int, tail: int, debit_head: int) -> bool:
    """Whether an event has this idempotency key."""
    return (
        event["id_head"] == head
        and event["id_tail"] == tail
        and (event["debit_head"] ^ debit_head) & SLOT_BITS_OF_HEAD == 0
    )


@inlined
def find_original(originals: Originals, extra_first: int, sequence: int) -> int:
    """Number in `originals` of the event with this sequence, or -1 if it has not been fetched."""
    low, high = 0, extra_first
    while low < high:
        middle = (low + high) >> 1
        if originals.sequences[middle] < sequence:
            low = middle + 1
        else:
            high = middle
    if low < extra_first and originals.sequences[low] == sequence:
        return low
    for candidate in range(extra_first, len(originals.sequences)):
        if originals.sequences[candidate] == sequence:
            return candidate
    return -1


@inlined
def find_key(
    arrays: LedgerArrays,
    head: int,
    tail: int,
    debit_head: int,
    hash_value: int,
    events: Records,
    originals: Originals,
    progress: Words,
) -> int:
    """Value (sequence and fate) of the id index for a key; 0: not in use; minus a sequence: fetch that event first."""
    base = progress[PROGRESS_BASE_SEQUENCE]
    index = arrays.id_index
    for table in (index.current, index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            value = table[slot, 1]
            sequence = value & SEQUENCE_MASK
            if sequence >= base:
                if has_key(events[sequence - base], head, tail, debit_head):
                    return value
            else:
                original = find_original(originals, progress[PROGRESS_EXTRA_FIRST], sequence)
                if original < 0:
                    return -sequence
                if has_key(originals.events[original], head, tail, debit_head):
                    return value
            slot = find_slot(table, hash_value, slot + 1)
    return 0


@inlined
def find_hold(arrays: LedgerArrays, head: int, tail: int, debit_head: int) -> int:
    """Row number of an open hold by its key, or -1."""
    holds = arrays.holds
    hash_value = hash_of_key(arrays, head, tail, debit_head)
    for table in (holds.index.current, holds.index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            row = table[slot, 1] - 1
            hold = holds.rows[row]
            if hold["id_head"] == head and hold["id_tail"] == tail:
                hold_slot = arrays.rows[hold["debit_row"]]["id_head"]
                if (hold_slot ^ debit_head) & SLOT_BITS_OF_HEAD == 0:
                    return row
            slot = find_slot(table, hash_value, slot + 1)
    return -1


@called
def look_up_hold(arrays: LedgerArrays, head: int, tail: int, debit_head: int) -> int:
    """`find_hold` as a call."""
    return find_hold(arrays, head, tail, debit_head)


@kernel
def find_rows(arrays: LedgerArrays, ids: Words, numbers: Words) -> None:
    """Row numbers (-1: unknown) of account ids of shape (count, 2)."""
    for index in range(len(ids)):
        numbers[index] = find_account(arrays, ids[index, 0], ids[index, 1])


@inlined
def nth_candidate(table: Words, hash_value: int, skip: int) -> tuple[int, int]:
    """(value, how many are still to skip) of the slot with this hash behind so many others; value 0: none."""
    slot = find_slot(table, hash_value, hash_value) if len(table) != 0 else -1
    while slot >= 0 and skip > 0:
        slot = find_slot(table, hash_value, slot + 1)
        skip -= 1
    return (table[slot, 1] if slot >= 0 else 0), skip


@kernel
def find_candidates(arrays: LedgerArrays, commands: Records, start: int, skip: int, sequences: Words) -> None:
    """For the commands from `start` on, the sequence of an event whose key has the same hash, or 0.

    Keys that differ can have the same hash: `skip` says how many to pass over.
    """
    index = arrays.id_index
    for number in range(start, len(commands)):
        command = commands[number]
        hash_value = hash_of_key(arrays, command["id_head"], command["id_tail"], command["debit_head"])
        value, left = nth_candidate(index.current, hash_value, skip)
        if value == 0:
            value, left = nth_candidate(index.previous, hash_value, left)
        sequences[number] = value & SEQUENCE_MASK


@kernel
def find_named(arrays: LedgerArrays, commands: Records, start: int, skips_open: bool, sequences: Words) -> None:
    """The same for the holds that captures and releases name, perhaps without those that are open.

    As long as a hold is open nobody needs its event; but the batch itself may close it.
    """
    index = arrays.id_index
    for number in range(start, len(commands)):
        sequences[number] = 0
        command = commands[number]
        head, tail, debit_head = command["reference_head"], command["reference_tail"], command["debit_head"]
        if command["kind"] not in (CAPTURE, RELEASE) or (skips_open and find_hold(arrays, head, tail, debit_head) >= 0):
            continue
        hash_value = hash_of_key(arrays, head, tail, debit_head)
        value, _ = nth_candidate(index.current, hash_value, 0)
        if value == 0:
            value, _ = nth_candidate(index.previous, hash_value, 0)
        sequences[number] = value & SEQUENCE_MASK


@kernel
def first_foreign(arrays: LedgerArrays, events: Records, sequences: Words) -> int:
    """Number of the first event that the id index does not know under its key and sequence, or -1."""
    index = arrays.id_index
    for number in range(len(events)):
        event = events[number]
        hash_value = hash_of_key(arrays, event["id_head"], event["id_tail"], event["debit_head"])
        found = False
        for table in (index.current, index.previous):
            slot = find_slot(table, hash_value, hash_value) if len(table) != 0 else -1
            while slot >= 0:
                found = found or table[slot, 1] & SEQUENCE_MASK == sequences[number]
                slot = find_slot(table, hash_value, slot + 1)
        if not found:
            return number
    return -1
