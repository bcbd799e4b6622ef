"""The compiled way to events in a segment: from a place that the sparse index knows, header by header."""

# ruff: noqa: PLR0917 - plain arrays as arguments are the point of a kernel

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.hashing import load_word, store_word, xxh3_64
from bezant.protocol.records import ENTRY_HEADER, ENTRY_HEADER_SIZE, EVENT_SIZE, SEGMENT_HEADER_SIZE, Bytes, Words

_FIELDS: Final[Any] = ENTRY_HEADER.fields
_CHECKED_FROM: Final = int(_FIELDS["durable_before"][1])
_FIRST_SEQUENCE_AT: Final = int(_FIELDS["first_sequence"][1])
_COUNT_AT: Final = int(_FIELDS["count"][1])
_EVENT_WORDS: Final = EVENT_SIZE // 8

if _CHECKED_FROM != 8 or _FIELDS["header_checksum"][1] != 0 or _FIELDS["body_size"][1] != _COUNT_AT + 4:
    raise AssertionError("the fields of an entry header are not where seeking reads them")


@kernel
def copy_events(segment: Bytes, sequences: Words, starts: Words, places: Words, found: Words, events: Bytes) -> Any:
    """Copy the events with these sequences (ascending) out of a segment, and say in which entries they lie.

    `segment` are its bytes up to the end of its last entry. `starts` has for each sequence the offset of an entry at or
    before its own, and `places` that of the event itself, or 0 to look for it header by header; `found` gets the offset
    of its entry. Returns how many were copied; if not all, `found` has for the
    next one the offset where the walk came to something that cannot be there. Headers that are passed are checked;
    bodies are for the caller to check, who then has the offsets of their entries.
    """
    offset: Any = np.int64(0)
    end = len(segment)
    for number in range(len(sequences)):
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
    """Compile or load the kernel before anybody waits for an event."""
    nothing = np.zeros(0, np.int64)
    segment = np.zeros(0, np.uint8)
    segment.flags.writeable = False  # as mappings are, which makes it another type to the compiler
    copy_events(segment, nothing, nothing, nothing, nothing, np.zeros(0, np.uint8))
