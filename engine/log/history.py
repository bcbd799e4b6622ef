"""The reading half of a log: any event by its sequence, verified, through a bounded number of mapped segments.

What is read back was perhaps never checked since this process began, because an opening behind a checkpoint does not
walk the history before it. So every header that is passed and the body of every entry that is read from must match its
checksum; entries that were verified lately are not hashed again. Whoever has checksums of the events themselves reads
them without that, and where their places are known without headers.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from bezant.engine.compiled import quick
from bezant.engine.log.entry import EntryHeader, body_is_whole, decode_header
from bezant.engine.log.seeking import SOUGHT_FIRST, ask_for, copy_events, find_ways, locate_events
from bezant.engine.log.segment import Segment, Sought
from bezant.protocol.errors import CorruptLog, LedgerError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import ENTRY_HEADER_SIZE, EVENT, EVENT_SIZE, Records, Words

SEGMENTS_MAPPED_MAX: Final = 64
"""Segments mapped at one time for reading history; each mapping holds a file descriptor."""
ENTRIES_VERIFIED_MAX: Final = 4096
"""Entries that are remembered as verified, so that many look-ups into a large one hash it once."""
SCATTERED_MAX: Final = 4096
"""Events that are asked of the disk at a time at most, before any of them is read."""
SCATTERED_FROM: Final = 64
"""Events among which there is one that is wanted, on average, from where on they are asked of the disk first: each lies
in pages of its own then."""
REMEMBERED_FROM_SIZE: Final = 4096
"""Bytes of a body from which on its entry is remembered; a smaller one is hashed faster than it is looked up."""


class History:
    """Segments in order, and the events in them up to `last_sequence`."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.last_sequence = 0
        self._mapped: OrderedDict[int, Segment] = OrderedDict()
        self._verified: OrderedDict[tuple[int, int, int], None] = OrderedDict()

    def read_events(self, sequences: Words, check_bodies: bool = True) -> Records:
        """EVENT records with these sequences (ascending).

        Without `check_bodies` it is for the caller to check the events: a whole entry is hashed to check one of them.
        For one thread at a time.
        Raises `LedgerError` for those that are not there, `CorruptLog` for what is damaged, `ArchiveUnavailable`.
        """
        events = np.zeros(len(sequences), EVENT)
        if not len(sequences):
            return events
        for sequence in (int(sequences[0]), int(sequences[-1])):
            if not 0 < sequence <= self.last_sequence:
                raise LedgerError(f"no entry has the event with sequence {sequence}")
        sequences = np.ascontiguousarray(sequences, np.int64)
        parts = list(self.split(sequences))
        for first in range(0, len(parts), SEGMENTS_MAPPED_MAX):
            self._read_from(parts[first : first + SEGMENTS_MAPPED_MAX], sequences, events, check_bodies)
        return events

    def split(self, sequences: Words) -> Iterator[tuple[Segment, int, int]]:
        """(segment, start, end): which of some sequences (ascending) lie in the same segment, a segment at a time."""
        if not len(sequences):
            return
        segments = self.segments
        first, last = (bisect_right(segments, int(sequences[at]), key=_first_sequence) for at in (0, -1))
        within = segments[max(first - 1, 0) : max(last, 1)]
        if len(within) == 1:
            yield within[0], 0, len(sequences)
            return
        ends = np.searchsorted(sequences, np.array([segment.first_sequence for segment in within[1:]], np.int64))
        start = 0
        for segment, end in zip(within, [*ends.tolist(), len(sequences)], strict=True):
            if end > start:
                yield segment, start, end
            start = end

    def _read_from(
        self, parts: Sequence[tuple[Segment, int, int]], sequences: Words, events: Records, check_bodies: bool
    ) -> None:
        """Fill in the events that lie in some segments."""
        held: list[Sought] = []  # until all is copied
        rows: list[tuple[int, ...]] = []
        for segment, start, end in parts:
            sought = segment.sought()
            self.keep_mapped(segment)
            held.append(sought)
            rows.append((*sought[:SOUGHT_FIRST], start, end))
        segments = np.array(rows, np.int64)
        starts, places, found = np.zeros((3, len(sequences)), np.int64)
        quick(locate_events)(segments, sequences, starts, places)
        if check_bodies:
            places[:] = 0  # All headers on the way are looked at, too.
        elif _are_scattered(sequences):
            # Of one after the other each would be waited for by itself.
            ways = np.empty((2 * len(sequences), 2), np.int64)
            quick(ask_for)(ways[: quick(find_ways)(segments, sequences, places, ways)])
        copied = quick(copy_events)(segments, sequences, starts, places, found, events.view(np.uint8))
        if copied < len(sequences):
            segment = next(segment for segment, _, end in parts if copied < end)
            raise CorruptLog(
                f"{segment.name}, offset {found[copied]}: found no whole entry header on the way to the event with "
                f"sequence {sequences[copied]}; what was durable is damaged now. Restore the file from a copy"
            )
        for segment, start, end in parts if check_bodies else ():
            offset = 0
            for place in found[start:end].tolist():
                if place != offset:
                    offset = place
                    self._verify(segment, offset)

    def _verify(self, segment: Segment, offset: int) -> None:
        """Raise `CorruptLog` unless an entry that has events is as it was written."""
        view, body_at, problem = segment.view(), offset + ENTRY_HEADER_SIZE, ""
        header = decode_header(view[offset:body_at])
        if header is None:
            problem = "no whole entry header"
        elif header.log_id != segment.log_id or header.kind != EntryKind.EVENTS:
            problem = "an entry of another log or kind"
        elif header.body_size != header.count * EVENT_SIZE:
            problem = f"an entry of {header.count} events in {header.body_size} bytes"
        elif not self.is_whole(segment, offset, header, view[body_at : body_at + header.body_size]):
            problem = "an entry whose body fails its checksum"
        if problem:
            raise CorruptLog(
                f"{segment.name}, offset {offset}: found {problem} where events are read back; what was durable is "
                "damaged now. Restore the file from a copy"
            )

    def is_whole(self, segment: Segment, offset: int, header: EntryHeader, body: memoryview) -> bool:
        """Whether the body of the entry at an offset matches its checksum, or did lately.

        Once a segment is unmapped its pages may go, and are then read again from a disk that may have changed them.
        """
        if header.body_size < REMEMBERED_FROM_SIZE:
            return body_is_whole(header, body)
        place = (segment.number, segment.mapped_count, offset)
        if place not in self._verified:
            if not body_is_whole(header, body):
                return False
            self._verified[place] = None
            if len(self._verified) > ENTRIES_VERIFIED_MAX:
                self._verified.popitem(last=False)
        self._verified.move_to_end(place)
        return True

    def cut(self, last_sequence: int) -> None:
        """Entries behind this event were cut: others may come to lie where they were verified."""
        self.last_sequence = last_sequence
        self._verified.clear()

    def keep_mapped(self, segment: Segment) -> None:
        """Remember that a segment was read; unmap the one that was not for longest if there are too many."""
        self._mapped[segment.number] = segment
        self._mapped.move_to_end(segment.number)
        if len(self._mapped) > SEGMENTS_MAPPED_MAX:
            _, oldest = self._mapped.popitem(last=False)
            oldest.unmap()


def _are_scattered(sequences: Words) -> bool:
    """Whether events are few and lie apart, as those of an account do."""
    return len(sequences) <= SCATTERED_MAX and int(sequences[-1] - sequences[0]) >= SCATTERED_FROM * len(sequences)


def _first_sequence(segment: Segment) -> int:
    return segment.first_sequence
