"""Durable entries by their index, as they lie in the segments: for whoever copies the log to another node.

What is read is verified, because an opening behind a checkpoint has not walked what lies before it: every header that
is passed, and every body that is handed out.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from bezant.engine.log.entry import EntryHeader, decode_header
from bezant.engine.log.history import History
from bezant.engine.log.segment import Segment
from bezant.protocol.errors import CorruptLog, LedgerError
from bezant.protocol.records import ENTRY_HEADER_SIZE, ENTRY_INDEX_FIRST, SEGMENT_HEADER_SIZE

PLACES_REMEMBERED_MAX: Final = 64
"""Entries whose places are remembered so that a reader that goes on where it stopped need not look for them."""


class Located(NamedTuple):
    """Where an entry lies, and its header."""

    segment: Segment
    offset: int
    header: EntryHeader

    @property
    def size(self) -> int:
        """Bytes of header and body."""
        return ENTRY_HEADER_SIZE + self.header.body_size


class Spans:
    """Finds and reads entries of a history by their indexes. Entries asked for must be durable."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._places: OrderedDict[int, tuple[Segment, int]] = OrderedDict()

    def walk(self, first_index: int, last_index: int) -> Iterator[Located]:
        """Every entry from one to another. Raises `CorruptLog` for a header that is not what it must be."""
        if not first_index >= ENTRY_INDEX_FIRST:
            raise LedgerError(f"no entry has the index {first_index}")
        segments = self._history.segments
        index, segment, offset = self._start_of(first_index)
        while index <= last_index:
            if offset == segment.end:
                segment, offset = segments[segment.number], SEGMENT_HEADER_SIZE
            located = Located(segment, offset, self._header(segment, offset, index))
            if index >= first_index:
                if index == first_index:
                    self.remember(index, segment, offset)
                yield located
            offset += located.size
            index += 1

    def read(self, first_index: int, last_index: int) -> list[memoryview]:
        """The bytes of entries, back to back; as many pieces as segments hold them, each a part of a mapping.

        A piece shows what becomes of the file: once entries are cut, zeros. Raises `CorruptLog`.
        """
        pieces: list[memoryview] = []
        start, end = 0, 0
        segment: Segment | None = None
        for located in self.walk(first_index, last_index):
            if located.segment is not segment:
                if segment is not None:
                    pieces.append(segment.view()[start:end])
                segment, start = located.segment, located.offset
            end = located.offset + located.size
            header, offset = located.header, located.offset
            if not self._history.is_whole(segment, offset, header, segment.view()[offset + ENTRY_HEADER_SIZE : end]):
                raise self._damaged(segment, offset, "an entry whose body fails its checksum", header.index)
        if segment is not None:
            pieces.append(segment.view()[start:end])
            self.remember(last_index + 1, segment, end)
        return pieces

    def remember(self, index: int, segment: Segment, offset: int) -> None:
        """Remember where an entry lies, or will, unless it is the first of the next segment."""
        self._places[index] = segment, offset
        self._places.move_to_end(index)
        if len(self._places) > PLACES_REMEMBERED_MAX:
            self._places.popitem(last=False)

    def forget(self) -> None:
        """Entries were cut: others may come to lie where they were."""
        self._places.clear()

    def _start_of(self, index: int) -> tuple[int, Segment, int]:
        """Index, segment and offset of an entry at or before the one with this index."""
        place = self._places.get(index)
        if place is not None:
            return index, *place
        segments = self._history.segments
        segment = segments[max(bisect_right(segments, index, key=_first_index) - 1, 0)]
        known, offset = segment.start_of(index)
        return known, segment, offset

    def _header(self, segment: Segment, offset: int, index: int) -> EntryHeader:
        view = segment.view()
        self._history.keep_mapped(segment)
        header = decode_header(view[offset : offset + ENTRY_HEADER_SIZE])
        if header is None:
            raise self._damaged(segment, offset, "no whole entry header", index)
        if header.index != index or header.log_id != segment.log_id:
            raise self._damaged(segment, offset, f"an entry with index {header.index}, or of another log", index)
        if offset + ENTRY_HEADER_SIZE + header.body_size > segment.end:
            raise self._damaged(segment, offset, "an entry that is larger than its place", index)
        return header

    @staticmethod
    def _damaged(segment: Segment, offset: int, problem: str, index: int) -> CorruptLog:
        return CorruptLog(
            f"{segment.name}, offset {offset}: found {problem} where the entry with index {index} is read back; what "
            "was durable is damaged now. Restore the file from a copy"
        )


def _first_index(segment: Segment) -> int:
    return segment.first_index
