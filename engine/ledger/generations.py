"""The id index of a ledger whose older ids lie on disk: two tables of one fixed size, however long the history.

Ids go into the current table. When it has enough of them for a checkpoint it is *frozen*: it stays readable as
``previous``, and a table of zeros takes its place. Once a checkpoint holds the frozen ids on disk they are *dropped*;
their table is zeroed again little by little, batch by batch, and waits for its next turn.

The fate of a hold is written beside its id in whichever tables have it, and always into the current one, because a
frozen table may be on disk already: what is newest is found first, in the tables as on disk.
"""

from typing import Final

import numpy as np

from bezant.engine.ledger.index import (
    META_COUNT,
    META_SALT_1,
    META_SALT_2,
    META_SIZE,
    IndexArrays,
    new_table,
)
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import Words

FULL_PERCENT: Final = 80
"""Load above which a table takes no more keys: look-ups would become slow, and the last free slot must never go."""
CLEAR_SLOTS_PER_BATCH: Final = 1 << 16
"""Slots of the spare table, 1 MiB, zeroed a batch."""
CLEAR_SLOTS_PER_KEY: Final = 8
"""Slots zeroed a key inserted besides: it is ready when an eighth of its capacity has come in."""
CLEAR_SLOTS_AT_ONCE_MAX: Final = 1 << 19
"""Slots, 8 MiB, that may be left to zero when a table is frozen: some 3 ms."""


class Generations:
    """The tables, with the interface of `Index` as far as a ledger uses it."""

    def __init__(self, capacity: int, salts: tuple[int, int]) -> None:
        """`capacity` (slots of each table) is a power of two; `salts` (two int64) go into every hash."""
        if capacity < 2 or capacity & (capacity - 1):
            raise ValueError(f"the capacity of an index is a power of two, not {capacity}")
        meta = np.zeros(META_SIZE, np.int64)
        meta[META_SALT_1], meta[META_SALT_2] = salts
        self.arrays = IndexArrays(new_table(capacity), new_table(0), meta)
        self.arrays.current[:] = 0  # The operating system gives memory at the first touch: now, and not in a batch.
        self._capacity = capacity
        self._spare = new_table(capacity)
        self._cleared = 0

    @property
    def key_count(self) -> int:
        """Keys in the current table."""
        return int(self.arrays.meta[META_COUNT])

    @property
    def bytes_count(self) -> int:
        """Memory of the tables."""
        return 2 * self.arrays.current.nbytes

    @property
    def frozen(self) -> bool:
        """Whether a table waits to be dropped."""
        return len(self.arrays.previous) > 0

    @property
    def can_freeze(self) -> bool:
        """Whether a table of zeros is as good as ready, and none is frozen."""
        return not self.frozen and self._capacity - self._cleared <= CLEAR_SLOTS_AT_ONCE_MAX

    def has_room(self, keys: int) -> bool:
        """Whether so many more keys may be inserted."""
        return 100 * (self.key_count + keys) <= FULL_PERCENT * self._capacity

    def make_room(self, keys: int, keys_max: int | None = None) -> None:
        """Make sure that `keys_max` (else `keys`) more find room, and zero some of the spare table."""
        keys_max = keys if keys_max is None else keys_max
        if not self.has_room(keys_max):
            raise LedgerError(
                f"the table of ids has {self.key_count} of at most {FULL_PERCENT * self._capacity // 100} ids and no "
                f"room for {keys_max} more; whoever drives a ledger asks `has_room_for_ids` first"
            )
        if not self.frozen and self._cleared < self._capacity:
            self._clear(CLEAR_SLOTS_PER_BATCH + CLEAR_SLOTS_PER_KEY * keys)

    def freeze(self) -> None:
        """Freeze the current table and go on in the spare one."""
        if self.frozen:
            raise LedgerError("the ids frozen before have not been dropped yet")
        self._clear(self._capacity - self._cleared)
        table = self._spare
        self._spare = new_table(0)
        self._cleared = 0
        self._set_tables(table, self.arrays.current)
        self.arrays.meta[META_COUNT] = 0

    def drop(self) -> None:
        """Drop the frozen table: its ids lie on disk."""
        if not self.frozen:
            raise LedgerError("no ids have been frozen that could be dropped")
        self._spare = self.arrays.previous
        self._set_tables(self.arrays.current, new_table(0))

    def clear(self) -> None:
        """Drop the ids of the current table, which lie on disk."""
        self.freeze()
        self.drop()

    def items(self) -> tuple[Words, Words]:
        """Hashes and values of the current table (int64, in the order of its slots)."""
        current = self.arrays.current
        used = np.flatnonzero(current[:, 1])
        return current[used, 0], current[used, 1]

    def _set_tables(self, current: Words, previous: Words) -> None:
        self.arrays = IndexArrays(current, previous, self.arrays.meta)

    def _clear(self, slots: int) -> None:
        end = min(self._cleared + slots, self._capacity)
        self._spare[self._cleared : end] = 0
        self._cleared = end
