"""The compiled way to events in segments: from a place that the sparse index knows, header by header."""

# ruff: noqa: PLR0917 - plain arrays as arguments are the point of a kernel

import mmap
from typing import Any, Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import load_word, store_word, xxh3_64
from bezant.engine.log.memory import bytes_at, will_need, words_at
from bezant.protocol.records import ENTRY_HEADER, ENTRY_HEADER_SIZE, EVENT_SIZE, SEGMENT_HEADER_SIZE, Bytes, Words

SOUGHT_ADDRESS: Final = 0
SOUGHT_END: Final = 1
SOUGHT_KNOWN: Final = 2
SOUGHT_COUNT: Final = 3
SOUGHT_FIRST: Final = 4
SOUGHT_BEHIND: Final = 5
SOUGHT_WORDS: Final = 6
"""A segment in which events lie: the numbers of its `Sought`, the number of the first of the events, and of the one
behind the last of them."""

SPARSE_DISTANCE: Final = 64 << 10
"""Bytes of log between two entries whose place is remembered: 24 bytes of memory for every 64 KiB of history."""
NEAR_BYTES: Final = 16 << 10
"""Bytes between two events that are asked of the disk together with them, which takes no longer than to ask twice."""

_FIELDS: Final[Any] = ENTRY_HEADER.fields
_CHECKED_FROM: Final = int(_FIELDS["durable_before"][1])
_FIRST_SEQUENCE_AT: Final = int(_FIELDS["first_sequence"][1])
_COUNT_AT: Final = int(_FIELDS["count"][1])
_EVENT_WORDS: Final = EVENT_SIZE // 8
_PAGE_MASK: Final = -mmap.PAGESIZE
_ENTRIES_BETWEEN_MAX: Final = SPARSE_DISTANCE // ENTRY_HEADER_SIZE
"""Entries between two that are remembered."""

if _CHECKED_FROM != 8 or _FIELDS["header_checksum"][1] != 0 or _FIELDS["body_size"][1] != _COUNT_AT + 4:
    raise AssertionError("the fields of an entry header are not where seeking reads them")


@inlined
def last_known(sequences: Words, sequence: int) -> Any:
    """The number of the last remembered entry that does not begin behind an event; 0 if all do."""
    low, high = np.int64(0), np.int64(len(sequences))
    while low < high:
        middle = (low + high) >> 1
        if sequences[middle] <= sequence:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)


@kernel
def locate_events(segments: Words, sequences: Words, starts: Words, places: Words) -> None:
    """Where to look for the events with these sequences (ascending) in segments (`SOUGHT_WORDS`).

    `starts` gets the offsets of entries that lie at or before theirs, less than 64 KiB and an entry away. `places` gets
    those of the events themselves where that is known without a look at any header, because the entry is the only one
    up to the next offset that is remembered, as large ones are; else 0.
    """
    for part in range(len(segments)):
        count = segments[part, SOUGHT_COUNT]
        if count == 0:
            continue
        known = words_at(segments[part, SOUGHT_KNOWN], 3 * count)
        indexes, firsts, offsets = known[:count], known[count : 2 * count], known[2 * count :]
        for number in range(segments[part, SOUGHT_FIRST], segments[part, SOUGHT_BEHIND]):
            entry = last_known(firsts, sequences[number])
            starts[number], places[number] = offsets[entry], 0
            if entry + 1 < count and indexes[entry + 1] - indexes[entry] == 1:
                past = max(sequences[number] - firsts[entry], 0)
                places[number] = offsets[entry] + ENTRY_HEADER_SIZE + past * EVENT_SIZE


@kernel
def find_ways(segments: Words, sequences: Words, places: Words, ways: Words) -> Any:
    """Where the pages are that events lie in, given what `locate_events` says, and the headers on the way where their
    places are not known: `ways` gets addresses and sizes, two at most for each event. Returns how many."""
    filled = 0
    for part in range(len(segments)):
        address, count = segments[part, SOUGHT_ADDRESS], segments[part, SOUGHT_COUNT]
        known = words_at(segments[part, SOUGHT_KNOWN], 3 * count)
        indexes, firsts, offsets = known[:count], known[count : 2 * count], known[2 * count :]
        behind = np.int64(-NEAR_BYTES - 1)
        for number in range(segments[part, SOUGHT_FIRST], segments[part, SOUGHT_BEHIND]):
            begin, end = places[number], places[number] + EVENT_SIZE
            header, headers_end = begin, end
            if begin == 0 and count > 0:
                entry = last_known(firsts, sequences[number])
                header, entries, limit = offsets[entry], _ENTRIES_BETWEEN_MAX, segments[part, SOUGHT_END]
                if entry + 1 < count:
                    entries, limit = indexes[entry + 1] - indexes[entry], offsets[entry + 1]
                # Every entry on the way may put a header before the event.
                begin = header + ENTRY_HEADER_SIZE + max(sequences[number] - firsts[entry], 0) * EVENT_SIZE
                end = min(begin + (entries - 1) * ENTRY_HEADER_SIZE + EVENT_SIZE, limit)
                headers_end = min(header + SPARSE_DISTANCE, end)
            for start, stop in ((header, headers_end), (begin, end)):
                if start > behind + NEAR_BYTES:
                    ways[filled, 0] = address + (start & _PAGE_MASK)
                    filled, behind = filled + 1, stop
                behind = max(behind, stop)
                ways[filled - 1, 1] = address + behind - ways[filled - 1, 0]
    return filled


@kernel
def ask_for(ways: Words) -> None:
    """Have pages read from the disk, given their addresses and sizes; does not wait.

    A page that is waited for without having been asked for comes with all around it, which may be megabytes.
    """
    for number in range(len(ways)):
        will_need(ways[number, 0], ways[number, 1])


@kernel
def copy_events(segments: Words, sequences: Words, starts: Words, places: Words, found: Words, events: Bytes) -> Any:
    """Copy the events with these sequences (ascending) out of segments (`SOUGHT_WORDS`), and say in which entries they
    lie.

    `starts` has for each sequence the offset of an entry at or before its own, and `places` that of the event itself,
    or 0 to look for it header by header; `found` gets the offset of its entry. Returns how many were copied; if not
    all, `found` has for the next one the offset where the walk came to something that cannot be there. Headers that
    are passed are checked; bodies are for the caller to check, who then has the offsets of their entries.
    """
    for part in range(len(segments)):
        offset: Any = np.int64(0)
        end = segments[part, SOUGHT_END]
        segment = bytes_at(segments[part, SOUGHT_ADDRESS], end)
        for number in range(segments[part, SOUGHT_FIRST], segments[part, SOUGHT_BEHIND]):
            sequence = sequences[number]
            offset = max(offset, starts[number])
            found[number] = offset
            source = places[number]
            while source <= 0:
                found[number] = offset
                if offset < SEGMENT_HEADER_SIZE or offset > end - ENTRY_HEADER_SIZE:
                    return number
                checksum = xxh3_64(segment, offset + _CHECKED_FROM, offset + ENTRY_HEADER_SIZE)
                if np.uint64(load_word(segment, offset)) != checksum:
                    return number
                # As unsigned words, so that a size below zero is one that is too large.
                sizes = np.uint64(load_word(segment, offset + _COUNT_AT))
                count = np.int64(sizes & np.uint64(0xFFFFFFFF))
                body_size = np.int64(sizes >> np.uint64(32))
                if body_size > end - ENTRY_HEADER_SIZE - offset:
                    return number
                past = sequence - np.int64(np.uint64(load_word(segment, offset + _FIRST_SEQUENCE_AT)))
                if past >= count:
                    offset += ENTRY_HEADER_SIZE + body_size
                    continue
                if past < 0 or (past + 1) * EVENT_SIZE > body_size:
                    return number
                source = offset + ENTRY_HEADER_SIZE + past * EVENT_SIZE
            if source > end - EVENT_SIZE:
                return number
            for word in range(_EVENT_WORDS):
                store_word(events, number * EVENT_SIZE + 8 * word, load_word(segment, source + 8 * word))
    return len(sequences)


def warm_seeking() -> None:
    """Compile or load the kernels before anybody waits for an event."""
    nothing = np.zeros(0, np.int64)
    copy_events(np.zeros((0, SOUGHT_WORDS), np.int64), nothing, nothing, nothing, nothing, np.zeros(0, np.uint8))
    locate_events(np.zeros((0, SOUGHT_WORDS), np.int64), nothing, nothing, nothing)
    find_ways(np.zeros((0, SOUGHT_WORDS), np.int64), nothing, nothing, np.zeros((0, 2), np.int64))
    ask_for(np.zeros((0, 2), np.int64))
