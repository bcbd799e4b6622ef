"""Ids that are no longer in memory: which keys of a batch to ask the disk for, and taking in what it knows.

Before a batch is executed every key that may have been used long ago is looked for on disk, and what is found is put
back into the id index (*recalled*); the kernel then meets it there like any other. A key is that of a command's own
id, or that of the hold or try which it names, unless that is open and so in memory.
"""

from typing import Final, NamedTuple, Protocol

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.ids.times import uuid_time_ms
from bezant.engine.ledger.checks import EXPIRE
from bezant.engine.ledger.index import IndexArrays, find_slot, insert
from bezant.engine.ledger.lookups import find_hold, hash_of_key, names_hold, place_of, place_of_named
from bezant.engine.ledger.state import SEQUENCE_MASK, LedgerArrays
from bezant.protocol.records import Records, Words

KEYS_PER_COMMAND_MAX: Final = 2
"""Keys that one command can have looked up: its own, and that of the hold it names."""


class ColdIds(Protocol):
    """Ids on disk, by the hash of their key."""

    @property
    def time_ms_max(self) -> int:
        """The latest time in a time-ordered id (UUIDv7) among them."""
        ...

    def find(self, hashes: Words, times_ms: Words, count: int) -> tuple[Words, Words]:
        """(hashes, values) of all entries that have one of the first `count` hashes, the newest value a sequence.

        ``times_ms[i]`` above 0 is the time in the id itself: what was written before cannot have it.
        """
        ...


class KeySpace(NamedTuple):
    """Working memory: hashes of keys to look for and the times in their ids, int64 of shape (count,)."""

    hashes: Words
    times_ms: Words


def new_key_space(commands: int) -> KeySpace:
    """Working memory for so many commands."""
    count = commands * KEYS_PER_COMMAND_MAX
    return KeySpace(np.empty(count, np.int64), np.empty(count, np.int64))


@kernel
def gather_keys(
    arrays: LedgerArrays, commands: Records, with_ids: bool, time_ms_max: int, hashes: Words, times_ms: Words
) -> int:
    """Collect the keys that may lie on disk; returns their number.

    An id whose own time is after `time_ms_max` is on no disk. Without `with_ids` only holds that are named count: in a
    history every command's own id was new.
    """
    count = 0
    for number in range(len(commands)):
        command = commands[number]
        if with_ids:
            time_ms = uuid_time_ms(command["id_head"])
            if time_ms == 0 or time_ms <= time_ms_max:
                place = place_of(command["kind"], command["debit_head"])
                hashes[count] = hash_of_key(arrays, command["id_head"], command["id_tail"], place)
                times_ms[count] = time_ms
                count += 1
        if names_hold(command["kind"]):
            head, tail = command["reference_head"], command["reference_tail"]
            time_ms = uuid_time_ms(head)
            if time_ms == 0 or time_ms <= time_ms_max:
                place = place_of_named(arrays, command)
                if find_hold(arrays, head, tail, place) < 0:
                    hashes[count] = hash_of_key(arrays, head, tail, place)
                    times_ms[count] = time_ms
                    count += 1
    return count


@kernel
def latest_time_ms_of_events(events: Records) -> int:
    """The latest time in the ids that events (EVENT) use, and in those of holds and tries that they end; 0 if none has
    one."""
    latest = 0
    for number in range(len(events)):
        event = events[number]
        latest = max(latest, uuid_time_ms(event["id_head"]))
        if names_hold(event["kind"]) or event["kind"] == EXPIRE:
            latest = max(latest, uuid_time_ms(event["reference_head"]))
    return latest


@inlined
def has_sequence(table: Words, hash_value: int, sequence: int) -> bool:
    """Whether a table has this hash with this sequence, whatever the fate."""
    if len(table) == 0:
        return False
    slot = find_slot(table, hash_value, hash_value)
    while slot >= 0:
        if table[slot, 1] & SEQUENCE_MASK == sequence:
            return True
        slot = find_slot(table, hash_value, slot + 1)
    return False


@kernel
def recall(index: IndexArrays, hashes: Words, values: Words) -> None:
    """Put what the disk knows into the index, unless it is there: what memory says of it is newer."""
    for number in range(len(hashes)):
        hash_value, sequence = hashes[number], values[number] & SEQUENCE_MASK
        known = has_sequence(index.current, hash_value, sequence) or has_sequence(index.previous, hash_value, sequence)
        if not known:
            insert(index, hash_value, values[number])
