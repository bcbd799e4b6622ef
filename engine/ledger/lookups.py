"""Compiled look-ups in a ledger's state: accounts by id, events by idempotency key, open holds by id."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import called, inlined, kernel
from bezant.engine.hashing import mix_words
from bezant.engine.ledger.checks import CANCEL, CAPTURE, CONFIRM, PART, RELEASE, TRY_CREDIT, TRY_DEBIT
from bezant.engine.ledger.index import META_SALT_1, META_SALT_2, IndexArrays, find_slot
from bezant.engine.ledger.state import FATE_NO_CREDIT, FATE_NO_DEBIT, SEQUENCE_MASK, LedgerArrays, Originals
from bezant.protocol.kinds import AccountFlag
from bezant.protocol.records import SEQUENCE_BITS, Records, Words

SLOT_BITS_OF_HEAD: Final = 0xF0FF
"""The bits of an account id's head word that are its slot: byte 0 and the high half of byte 1."""
PLACE_OF_LEGS: Final = 1 << 16
"""The bit of a place that keeps the ids of legs apart from those that clients choose."""
_TRANSIT: Final = int(AccountFlag.TRANSIT)

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
def place_of(kind: int, debit_head: int) -> int:
    """Where an id is used up: in the slot of the debit account; and the ids of kinds behind TRY_DEBIT, which anyone can
    compute, apart from all others, so that nobody else can use them up."""
    return debit_head & SLOT_BITS_OF_HEAD | (kind > TRY_DEBIT) * PLACE_OF_LEGS


@inlined
def hash_of_key(arrays: LedgerArrays, head: int, tail: int, place: int) -> int:
    """Hash of an idempotency key: an id and the place that it is used up in."""
    meta = arrays.id_index.meta
    return mix_words(head, tail, place, meta[META_SALT_1], meta[META_SALT_2])


@called
def look_up_account(arrays: LedgerArrays, head: int, tail: int) -> int:
    """`find_account` as a call, for whom inlining would only cost time to compile."""
    return find_account(arrays, head, tail)


@inlined
def names_hold(kind: int) -> bool:
    """Whether commands of this kind have a hold or try as reference."""
    return kind in (CAPTURE, RELEASE, CONFIRM, CANCEL)


@inlined
def is_transit(arrays: LedgerArrays, head: int, tail: int) -> bool:
    """Whether an id is that of a transit account."""
    row = look_up_account(arrays, head, tail)
    return row >= 0 and arrays.rows[row]["flags"] & _TRANSIT != 0


@called
def place_of_named(arrays: LedgerArrays, command: Any) -> int:
    """Where the id of the hold or try is used up that a command names: a try that a transit account pays is a leg."""
    place = command["debit_head"] & SLOT_BITS_OF_HEAD
    if command["kind"] in (CONFIRM, CANCEL):
        is_part = command["flags"] & PART != 0
        if is_part or is_transit(arrays, command["debit_head"], command["debit_tail"]):
            place |= PLACE_OF_LEGS
    return place


@inlined
def has_key(event: Any, head: int, tail: int, place: int) -> bool:
    """Whether an event (or command) has this idempotency key."""
    return (
        event["id_head"] == head and event["id_tail"] == tail and place_of(event["kind"], event["debit_head"]) == place
    )


@called
def uses_key(event: Any, fate: int, head: int, tail: int, place: int) -> bool:
    """Whether an event, found with a fate, has used up this key: with its own id, or as a CANCEL with that of a try."""
    if fate != FATE_NO_DEBIT and fate != FATE_NO_CREDIT:
        return has_key(event, head, tail, place)
    own_place = event["debit_head"] & SLOT_BITS_OF_HEAD | (fate == FATE_NO_CREDIT) * PLACE_OF_LEGS
    return event["reference_head"] == head and event["reference_tail"] == tail and own_place == place


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
    place: int,
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
                if uses_key(events[sequence - base], value >> SEQUENCE_BITS, head, tail, place):
                    return value
            else:
                original = find_original(originals, progress[PROGRESS_EXTRA_FIRST], sequence)
                if original < 0:
                    return -sequence
                if uses_key(originals.events[original], value >> SEQUENCE_BITS, head, tail, place):
                    return value
            slot = find_slot(table, hash_value, slot + 1)
    return 0


@inlined
def find_hold(arrays: LedgerArrays, head: int, tail: int, place: int) -> int:
    """Row number of an open hold or try by its key, or -1."""
    holds = arrays.holds
    hash_value = hash_of_key(arrays, head, tail, place)
    for table in (holds.index.current, holds.index.previous):
        if len(table) == 0:
            continue
        slot = find_slot(table, hash_value, hash_value)
        while slot >= 0:
            row = table[slot, 1] - 1
            hold = holds.rows[row]
            debit_head = arrays.rows[hold["debit_row"]]["id_head"]
            if hold["id_head"] == head and hold["id_tail"] == tail and place_of(hold["kind"], debit_head) == place:
                return row
            slot = find_slot(table, hash_value, slot + 1)
    return -1


@called
def look_up_hold(arrays: LedgerArrays, head: int, tail: int, place: int) -> int:
    """`find_hold` as a call."""
    return find_hold(arrays, head, tail, place)


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


@inlined
def first_candidate(index: IndexArrays, hash_value: int) -> int:
    """Value of the first slot with this hash; 0: none."""
    value, _ = nth_candidate(index.current, hash_value, 0)
    if value == 0:
        value, _ = nth_candidate(index.previous, hash_value, 0)
    return value


@called
def candidate_of_named(arrays: LedgerArrays, command: Any, skips_open: bool) -> int:
    """The value for the hold or try that a command names; 0: none, or one that is open and to be passed over."""
    if not names_hold(command["kind"]):
        return 0
    head, tail, place = command["reference_head"], command["reference_tail"], place_of_named(arrays, command)
    if skips_open and find_hold(arrays, head, tail, place) >= 0:
        return 0
    return first_candidate(arrays.id_index, hash_of_key(arrays, head, tail, place))


@kernel
def find_candidates(arrays: LedgerArrays, commands: Records, start: int, skip: int, values: Words) -> None:
    """For the commands from `start` on, the value (sequence and fate) of an event whose key has the same hash, or 0.

    Keys that differ can have the same hash: `skip` says how many to pass over.
    """
    index = arrays.id_index
    for number in range(start, len(commands)):
        command = commands[number]
        place = place_of(command["kind"], command["debit_head"])
        hash_value = hash_of_key(arrays, command["id_head"], command["id_tail"], place)
        value, left = nth_candidate(index.current, hash_value, skip)
        if value == 0:
            value, left = nth_candidate(index.previous, hash_value, left)
        values[number] = value


@kernel
def find_named(arrays: LedgerArrays, commands: Records, start: int, skips_open: bool, values: Words) -> None:
    """The same for the holds and tries that commands name, perhaps without those that are open.

    As long as a hold is open nobody needs its event; but the batch itself may close it.
    """
    for number in range(start, len(commands)):
        values[number] = candidate_of_named(arrays, commands[number], skips_open)


@kernel
def find_wanted(arrays: LedgerArrays, commands: Records, start: int, skips_open: bool, base: int, wanted: Words) -> int:
    """Sequences, below `base`, of the events that `find_candidates` and `find_named` find from `start` on; how many.

    There may be repeated ones among them; `wanted` has room for two a command.
    """
    index, count = arrays.id_index, 0
    for number in range(start, len(commands)):
        command = commands[number]
        place = place_of(command["kind"], command["debit_head"])
        hash_value = hash_of_key(arrays, command["id_head"], command["id_tail"], place)
        sequence = first_candidate(index, hash_value) & SEQUENCE_MASK
        if 0 < sequence < base:
            wanted[count] = sequence
            count += 1
        sequence = candidate_of_named(arrays, command, skips_open) & SEQUENCE_MASK
        if 0 < sequence < base:
            wanted[count] = sequence
            count += 1
    return count


@kernel
def find_used_keys(events: Records, values: Words, keys: Records, used: npt.NDArray[np.bool_]) -> None:
    """Whether each event, found with a value, has used up the id of a command of the same number."""
    for number in range(len(events)):
        key = keys[number]
        place = place_of(key["kind"], key["debit_head"])
        fate = values[number] >> SEQUENCE_BITS
        used[number] = uses_key(events[number], fate, key["id_head"], key["id_tail"], place)


@called
def knows_key(arrays: LedgerArrays, head: int, tail: int, place: int, sequence: int) -> bool:
    """Whether the id index has this key with this sequence."""
    hash_value = hash_of_key(arrays, head, tail, place)
    for table in (arrays.id_index.current, arrays.id_index.previous):
        slot = find_slot(table, hash_value, hash_value) if len(table) != 0 else -1
        while slot >= 0:
            if table[slot, 1] & SEQUENCE_MASK == sequence:
                return True
            slot = find_slot(table, hash_value, slot + 1)
    return False


@kernel
def first_foreign(arrays: LedgerArrays, events: Records, sequences: Words) -> int:
    """Number of the first event that the id index does not know under its key and sequence, or -1.

    A CANCEL may be known by the key of the try that it forbade alone.
    """
    for number in range(len(events)):
        event, sequence = events[number], sequences[number]
        found = knows_key(
            arrays, event["id_head"], event["id_tail"], place_of(event["kind"], event["debit_head"]), sequence
        )
        if not found and event["kind"] == CANCEL:
            for kind in (TRY_DEBIT, TRY_CREDIT):
                place = place_of(kind, event["debit_head"])
                if knows_key(arrays, event["reference_head"], event["reference_tail"], place, sequence):
                    found = True
        if not found:
            return number
    return -1
