"""What the kernels of subscriptions work on: tables that grow, by doubling, when they are half full."""

import secrets
from typing import Final

import numpy as np

from bezant.net.reader.fan_out import (
    META_EVERYTHING,
    META_KEYS,
    META_SALT_1,
    META_SALT_2,
    META_WORDS,
    SUB_WORDS,
    Filters,
    add_accounts,
    move_slots,
    note_currencies,
    note_openings,
    remove_accounts,
)
from bezant.protocol.records import Words

SLOTS_MIN: Final = 1024
SUBSCRIPTIONS_TOTAL_MAX: Final = 16_384
"""Subscriptions of all clients of a reader together."""
FILTER_ENTRIES_MAX: Final = 4 << 20
"""Accounts in the filters of all subscriptions together, also of those that are still being sent: some 300 MiB."""


def _salts() -> Words:
    return np.array([secrets.randbits(63), secrets.randbits(63)], np.int64)


def _slots_for(keys: int) -> int:
    """Slots of a table that is at most half full with so many keys."""
    return max(SLOTS_MIN, 1 << (2 * keys - 1).bit_length()) if keys else SLOTS_MIN


class Currencies:
    """The currency of every account, 24 bytes a slot."""

    def __init__(self) -> None:
        self.salts = _salts()
        self.table: Words = np.zeros((SLOTS_MIN, 3), np.int64)
        self.count = 0

    def add(self, ids: Words, currencies: Words) -> None:
        """Add accounts (shape (count, 2)) with their currencies, as words of 8 bytes."""
        self._make_room(len(ids))
        self.count += note_currencies(ids, currencies, self.table, self.salts)

    def note_openings(self, events: Words) -> None:
        """Add the accounts that these events (shape (count, 24)) open."""
        self._make_room(len(events))
        self.count += note_openings(events, self.table, self.salts)

    def _make_room(self, count: int) -> None:
        slots = _slots_for(self.count + count)
        if slots > len(self.table):
            table: Words = np.zeros((slots, 3), np.int64)
            move_slots(self.table, table, self.salts, False)
            self.table = table


class SubscriptionTables:
    """Subscriptions by number, and their filters."""

    def __init__(self) -> None:
        salts = _salts()
        meta: Words = np.zeros(META_WORDS, np.int64)
        meta[META_SALT_1], meta[META_SALT_2] = salts
        self._salts = salts
        self.subs: Words = np.zeros((64, SUB_WORDS), np.int64)
        self.filters = Filters(
            np.zeros((SLOTS_MIN, 3), np.int64), np.zeros((SLOTS_MIN, 2), np.int64), np.zeros(64, np.int64), meta
        )
        self._free = list(range(len(self.subs) - 1, -1, -1))
        self.count = 0
        self._entries = 0

    def add(self, accounts: Words | None) -> int:
        """Make a subscription to these accounts (shape (count, 2)), or to all; returns its number. Its row is zeros."""
        if not self._free:
            size = len(self.subs)
            self.subs = np.concatenate([self.subs, np.zeros_like(self.subs)])
            self.filters = self.filters._replace(everything=np.resize(self.filters.everything, 2 * size))
            self._free = list(range(2 * size - 1, size - 1, -1))
        number = self._free.pop()
        self.subs[number] = 0
        self.count += 1
        if accounts is None:
            everything, meta = self.filters.everything, self.filters.meta
            everything[meta[META_EVERYTHING]] = number
            meta[META_EVERYTHING] += 1
        else:
            self._make_room(len(accounts))
            self._entries += len(accounts)
            add_accounts(self.filters, accounts, number)
        return number

    def remove(self, number: int, accounts: Words | None) -> None:
        """Remove a subscription that was added with these accounts."""
        self.subs[number] = 0
        if accounts is None:
            everything, meta = self.filters.everything, self.filters.meta
            meta[META_EVERYTHING] -= 1
            last = int(meta[META_EVERYTHING])
            place = int(np.flatnonzero(everything[: last + 1] == number)[0])
            everything[place] = everything[last]
        else:
            self._entries -= len(accounts)
            remove_accounts(self.filters, accounts, number)
        self._free.append(number)
        self.count -= 1

    def _make_room(self, count: int) -> None:
        filters = self.filters
        if self._entries + count >= len(filters.nodes):
            nodes: Words = np.zeros((max(2 * len(filters.nodes), len(filters.nodes) + count + 1), 2), np.int64)
            nodes[: len(filters.nodes)] = filters.nodes
            filters = filters._replace(nodes=nodes)
        keys = int(filters.meta[META_KEYS])
        if _slots_for(keys + count) > len(filters.slots):
            # Keys whose subscriptions have gone are left out, so the table may stay as large as it was.
            kept = int(np.count_nonzero(filters.slots[:, 2]))
            slots: Words = np.zeros((_slots_for(kept + count), 3), np.int64)
            filters.meta[META_KEYS] = move_slots(filters.slots, slots, self._salts, True)
            filters = filters._replace(slots=slots)
        self.filters = filters
