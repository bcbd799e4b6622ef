"""The hash index behind accounts, ids and holds: sixteen bytes a slot, growing without a pause.

Open addressing with linear probing (Knuth, TAOCP volume 3, section 6.4, algorithm L). A slot is two words: the hash of
the key and a value above 0; 0 means empty, -1 that a key was removed here. The key itself is not stored: whoever asks
compares it with the record that the value names, and meets a wrong one only if 63 bits of hash collide. (Eight-byte
slots with a short tag would halve the memory, but a table of those cannot grow without reading every key back.)

Growth goes in three steps, each spread over the batches so that no single one takes long. *Prepare*: when the table
is half full, the next one is allocated and its pages are touched little by little; the operating system zeroes 2 MiB
at the first touch of a huge page, so random inserts into an untouched table took two seconds a batch. *Switch*: at
seven tenths it becomes the current table and the old one stays readable as ``previous``. *Migrate*: every batch moves
some of the old slots over, without the removed ones. The salts of the hash differ in every process, so that nobody
can choose keys that collide; nothing durable depends on the layout.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.protocol.records import Words

META_COUNT: Final = 0
META_REMOVED: Final = 1
META_SALT_1: Final = 2
META_SALT_2: Final = 3
META_SIZE: Final = 4

PREPARE_AT_PERCENT: Final = 50
"""Load at which the next table is allocated."""
SWITCH_AT_PERCENT: Final = 70
"""Load at which the next table takes over."""
PREPARE_SLOTS_PER_KEY: Final = 16
"""Slots of the next table touched a key inserted; 10 would do to be ready at the switch."""
MIGRATE_SLOTS_PER_KEY: Final = 4
"""Slots of the previous table moved a key inserted; 2 would do to be done before the next switch."""

_REMOVED: Final = -1
SLOT_BYTES: Final = 16
_PART_SLOTS: Final = 1 << 20
"""Slots whose keys are given out at a time: 16 MiB."""
_SLOTS_PER_PAGE: Final = 4096 // SLOT_BYTES


class IndexArrays(NamedTuple):
    """What kernels see of an index: tables of shape (capacity, 2). `previous` is empty unless a growth is under way.

    While it is, a key that has not moved is in `previous` alone, and one that has may be in both.
    """

    current: Words
    previous: Words
    meta: Words


@inlined
def find_slot(table: Words, hash_value: int, slot: int) -> int:
    """The first slot from `slot` on that holds this hash, or -1 when an empty one comes first."""
    mask = len(table) - 1
    slot &= mask
    while table[slot, 1] != 0:
        if table[slot, 0] == hash_value:
            return slot
        slot = (slot + 1) & mask
    return -1


@inlined
def insert_slot(table: Words, hash_value: int, value: int) -> None:
    """Put a value into a table that has room; whether the key is there already is the caller's business."""
    mask = len(table) - 1
    slot = hash_value & mask
    while table[slot, 1] > 0:
        slot = (slot + 1) & mask
    table[slot, 0] = hash_value
    table[slot, 1] = value


@inlined
def insert(index: IndexArrays, hash_value: int, value: int) -> None:
    """Add a key."""
    insert_slot(index.current, hash_value, value)
    index.meta[META_COUNT] += 1


@inlined
def replace_slot(table: Words, hash_value: int, value: int, new_value: int) -> bool:
    """Give a key of one table another value, or none (-1); False if it is not there with the old one."""
    slot = find_slot(table, hash_value, hash_value)
    while slot >= 0 and table[slot, 1] != value:
        slot = find_slot(table, hash_value, slot + 1)
    if slot < 0:
        return False
    table[slot, 1] = new_value
    if new_value < 0:
        table[slot, 0] = new_value
    return True


@inlined
def replace(index: IndexArrays, hash_value: int, value: int, new_value: int) -> bool:
    """Give a key another value, or none (-1); False if it is not there with the old one."""
    found = False
    for table in (index.current, index.previous):
        if len(table) != 0 and replace_slot(table, hash_value, value, new_value):
            found = True
    return found


@inlined
def remove(index: IndexArrays, hash_value: int, value: int) -> bool:
    """Remove a key; False if it is not there with this value."""
    if not replace(index, hash_value, value, _REMOVED):
        return False
    index.meta[META_REMOVED] += 1
    return True


@kernel
def migrate(current: Words, previous: Words, start: int, end: int) -> None:
    """Copy the slots from `start` to `end` of the previous table into the current one."""
    for slot in range(start, end):
        if previous[slot, 1] > 0:
            insert_slot(current, previous[slot, 0], previous[slot, 1])


def new_table(capacity: int) -> Words:
    """An empty table."""
    return np.zeros((capacity, 2), np.int64)


def _touch_pages(table: Words, start: int, end: int) -> None:
    """Write a zero into every page of a part of a table that is zero, so that the operating system gives it memory."""
    table[start:end:_SLOTS_PER_PAGE] = 0


class Index:
    """An index and its growth."""

    def __init__(self, capacity: int, salts: tuple[int, int]) -> None:
        """`capacity` (slots) is a power of two; `salts` (two int64) go into every hash."""
        if capacity < 2 or capacity & (capacity - 1):
            raise ValueError(f"the capacity of an index is a power of two, not {capacity}")
        meta = np.zeros(META_SIZE, np.int64)
        meta[META_SALT_1], meta[META_SALT_2] = salts
        self.arrays = IndexArrays(new_table(capacity), new_table(0), meta)
        _touch_pages(self.arrays.current, 0, capacity)
        self._next = new_table(0)
        self._touched = 0
        self._migrated = 0
        self._quiet_below = capacity * PREPARE_AT_PERCENT // 100

    @property
    def key_count(self) -> int:
        """Keys that are there, give or take those removed while the index grew."""
        return int(self.arrays.meta[META_COUNT] - self.arrays.meta[META_REMOVED])

    @property
    def bytes_count(self) -> int:
        """Memory of the tables."""
        return self.arrays.current.nbytes + self.arrays.previous.nbytes + self._next.nbytes

    def parts(self) -> Iterator[tuple[Words, Words]]:
        """Hashes and values of all keys (int64), each key once, in parts; the index must not change meanwhile."""
        for table in self.tables():
            for start in range(0, len(table), _PART_SLOTS):
                part = table[start : start + _PART_SLOTS]
                used = np.flatnonzero(part[:, 1] > 0)
                yield part[used, 0], part[used, 1]

    def tables(self) -> tuple[Words, Words]:
        """All slots (hash, value) in which a key may be; those with a value above 0 have one, each key once."""
        return self.arrays.current, self.arrays.previous[self._migrated :]

    def make_room(self, keys: int, keys_max: int | None = None) -> None:
        """Make sure that `keys_max` (else `keys`) more find room, and do the share of growing that `keys` cost."""
        keys_max = keys if keys_max is None else keys_max
        if int(self.arrays.meta[META_COUNT]) + keys_max < self._quiet_below:
            return
        if len(self.arrays.previous):
            self._migrate(keys * MIGRATE_SLOTS_PER_KEY)
        arrays = self.arrays
        capacity = len(arrays.current)
        percent = 100 * (int(arrays.meta[META_COUNT]) + keys_max) // capacity
        if percent < PREPARE_AT_PERCENT:
            if not len(arrays.previous):
                self._quiet_below = capacity * PREPARE_AT_PERCENT // 100
            return
        self._prepare(keys)
        if percent >= SWITCH_AT_PERCENT:
            self._switch(keys_max)

    def _prepare(self, keys: int) -> None:
        """Allocate the next table, twice the size unless most keys were removed, and touch a part of it."""
        capacity = len(self.arrays.current)
        if not len(self._next):
            self._next = new_table(2 * capacity if 4 * self.key_count >= capacity else capacity)
            self._quiet_below = 0
            self._touched = 0
        end = min(self._touched + keys * PREPARE_SLOTS_PER_KEY, len(self._next))
        _touch_pages(self._next, self._touched, end)
        self._touched = end

    def _migrate(self, slots: int) -> None:
        current, previous, meta = self.arrays
        end = min(self._migrated + slots, len(previous))
        migrate(current, previous, self._migrated, end)
        self._migrated = end
        if end == len(previous):
            self.arrays = IndexArrays(current, new_table(0), meta)

    def _switch(self, keys: int) -> None:
        """Make the next table the current one; a batch that is large beside the table may need more than double."""
        if len(self.arrays.previous):
            self._migrate(len(self.arrays.previous))
        count = self.key_count + keys
        capacity = len(self._next)
        while 100 * count // capacity >= SWITCH_AT_PERCENT:
            capacity *= 2
        table = self._next if capacity == len(self._next) else new_table(capacity)
        meta = self.arrays.meta
        meta[META_COUNT] -= meta[META_REMOVED]
        meta[META_REMOVED] = 0
        self.arrays = IndexArrays(table, self.arrays.current, meta)
        self._next = new_table(0)
        self._quiet_below = 0
        self._migrated = 0
