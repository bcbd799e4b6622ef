"""Compiled: lists of events by list key, made from postings, merged, and searched.

The lists of a run of events: ``keys`` ascending, each once; ``starts`` (one more than keys) where each key's list lies
in ``postings``, which are numbers of events counted from the first of the run, ascending within a list; ``before``, how
many events the list of that key has in earlier runs (counted for the list of all events of an account alone).
"""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from typing import Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import xxh3_64
from bezant.engine.projections.layout import LIST_ALL, LIST_BITS, POSTING_SHIFT, Checksums, Halves
from bezant.protocol.records import EVENT_SIZE, Bytes, Words

_LIST: Final = (1 << LIST_BITS) - 1


@kernel
def make_lists(
    sorted_postings: Words, counts: Words, keys: Words, starts: Words, before: Words, postings: Halves
) -> int:
    """Make lists of the sorted postings of a block; how many keys they have.

    `counts` has for each account how many events touched it before.
    """
    key_count, last = 0, np.int64(-1)
    place_mask = (np.int64(1) << POSTING_SHIFT) - 1
    for number in range(len(sorted_postings)):
        posting = sorted_postings[number]
        key = posting >> POSTING_SHIFT
        if key != last:
            last = key
            keys[key_count] = key
            starts[key_count] = number
            before[key_count] = counts[key >> LIST_BITS] if key & _LIST == LIST_ALL else 0
            key_count += 1
        postings[number] = posting & place_mask
    starts[key_count] = len(sorted_postings)
    return key_count


@kernel
def add_counts(keys: Words, starts: Words, before: Words, counts: Words) -> None:
    """Bring the number of events of each account up to the end of a run."""
    for number in range(len(keys)):
        if keys[number] & _LIST == LIST_ALL:
            counts[keys[number] >> LIST_BITS] = before[number] + starts[number + 1] - starts[number]


# ---- merge ----


@kernel
def add_lengths(keys: Words, starts: Words, merged_keys: Words, ends: Words) -> None:
    """Add the length of each list to that of the merged one, ``ends[n + 1]`` for key n."""
    place = 0
    for number in range(len(keys)):
        while merged_keys[place] != keys[number]:
            place += 1
        ends[place + 1] += starts[number + 1] - starts[number]


@kernel
def append_lists(
    keys: Words,
    starts: Words,
    before: Words,
    postings: Halves,
    offset: int,
    merged_keys: Words,
    merged_starts: Words,
    filled: Words,
    merged_before: Words,
    merged_postings: Halves,
) -> None:
    """Put lists behind those of earlier runs. `offset` is how far this run begins behind the first of them."""
    place = 0
    for number in range(len(keys)):
        while merged_keys[place] != keys[number]:
            place += 1
        if filled[place] == 0:
            merged_before[place] = before[number]
        target = merged_starts[place] + filled[place]
        for source in range(starts[number], starts[number + 1]):
            merged_postings[target] = postings[source] + offset
            target += 1
        filled[place] += starts[number + 1] - starts[number]


# ---- search ----


@inlined
def key_place(keys: Words, key: int) -> int:
    """The place of a key, or -1."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(keys) and keys[low] == key else -1


@inlined
def first_above(postings: Halves, low: int, high: int, bound: int) -> int:
    """The place of the first posting above a bound, or `high`."""
    while low < high:
        middle = (low + high) >> 1
        if postings[middle] <= bound:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def find_last(
    keys: Words,
    starts: Words,
    before: Words,
    postings: Halves,
    bound: int,
    first_sequence: int,
    wanted: Words,
    found: Words,
    counts: Words,
) -> int:
    """For each wanted key that is not `found` (0) yet, the sequence of its last event that is at most `bound` events
    behind the first of the run; and how many its list has up to that. Returns how many were found."""
    hits = 0
    for number in range(len(wanted)):
        if found[number] != 0:
            continue
        place = key_place(keys, wanted[number])
        if place < 0:
            continue
        end = first_above(postings, starts[place], starts[place + 1], bound)
        if end > starts[place]:
            found[number] = first_sequence + postings[end - 1]
            counts[number] = before[place] + end - starts[place]
            hits += 1
    return hits


@kernel
def find_range(keys: Words, starts: Words, postings: Halves, key: int, low: int, high: int, places: Words) -> None:
    """Where in `postings` the events of a key lie that are from `low` to `high` events behind the first; `places` gets
    the first and the one behind the last."""
    place = key_place(keys, key)
    places[0] = places[1] = 0
    if place >= 0:
        places[0] = first_above(postings, starts[place], starts[place + 1], low - 1)
        places[1] = first_above(postings, starts[place], starts[place + 1], high)


@kernel
def find_differing(events: Bytes, checksums: Checksums, sequences: Words, start: int, first_sequence: int) -> int:
    """Check events (192 bytes each, with these sequences, ascending) from one on against the checksums of a run: how
    many of those that are in the run are as they were, up to the first that is not."""
    for number in range(start, len(sequences)):
        place = sequences[number] - first_sequence
        if place >= len(checksums):
            return number - start
        checksum = xxh3_64(events, number * EVENT_SIZE, (number + 1) * EVENT_SIZE)
        if np.int64(checksum) & 0xFFFFFFFF != np.int64(checksums[place]):
            return number - start
    return len(sequences) - start
