"""Entries on their way to the disk: those that wait, and the group that one sync makes durable."""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from bezant.engine.log.entry import Entry, with_durable_before
from bezant.engine.log.segment import Segment
from bezant.engine.log.storage import PAGE_SIZE
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import ENTRY_HEADER_SIZE

_ZEROS: Final = memoryview(bytes(PAGE_SIZE))
_segment_of: Final = attrgetter("segment")


class Placed(NamedTuple):
    """An entry, and the segment and the offset in it that it is for."""

    segment: Segment
    offset: int
    entry: Entry


class Group:
    """Entries that one sync makes durable."""

    def __init__(self, placed: list[Placed]) -> None:
        self._placed = placed
        self.last_header = placed[-1].entry.header
        self.last_segment = placed[-1].segment
        self.end = placed[-1].offset + ENTRY_HEADER_SIZE + self.last_header.body_size
        self.bytes_count = sum(ENTRY_HEADER_SIZE + item.entry.header.body_size for item in placed)

    def write_and_sync(self) -> None:
        """Write all entries and return when they are durable; a segment is synced before the next is written.

        Raises OSError; the process must then end, because what the page cache says can no longer be believed.
        """
        for segment, items in groupby(self._placed, key=_segment_of):
            placed = list(items)
            if segment.file is None:
                raise LedgerError(f"{segment.name} is closed and has an entry to write")
            buffers = [part for item in placed for part in (item.entry.encoded, item.entry.body)]
            segment.file.write_durably([*buffers, _rest_of_page(placed[-1])], placed[0].offset)


def _rest_of_page(last: Placed) -> memoryview:
    """The zeros that lie behind an entry in its last page: one that is not in the page cache, and is not written whole,
    would be read from the disk first. None in the last page of a segment, so that nothing is written there but entries:
    where files may not grow to that size any more, those that are there can still be filled."""
    end = last.offset + ENTRY_HEADER_SIZE + last.entry.header.body_size
    size = -end % PAGE_SIZE
    return _ZEROS[: size if end + size < last.segment.size else 0]


class Waiting:
    """The entries that are in memory because they are not durable yet, in order: a group under way, and those behind.

    They are as few as whoever appends lets wait; each is held once, and its body is not copied.
    """

    def __init__(self) -> None:
        self.unwritten: list[Placed] = []
        self.writing: list[Placed] = []

    def __iter__(self) -> Iterator[Placed]:
        yield from self.writing
        yield from self.unwritten

    def begin_group(self, durable_index: int) -> Group | None:
        """Everything that is not written, stamped; None if there is nothing or a group is under way.

        Every header of a group says up to where the log is durable when it is handed out, whatever it said before: an
        entry may have been appended while the group before was being synced, or be of a leader, whose disk it is not.
        """
        if self.writing or not self.unwritten:
            return None
        self.writing = [
            placed
            if placed.entry.header.durable_before == durable_index
            else Placed(placed.segment, placed.offset, with_durable_before(placed.entry, durable_index))
            for placed in self.unwritten
        ]
        self.unwritten = []
        return Group(self.writing)

    def finish_group(self) -> None:
        """The group under way is durable."""
        self.writing = []

    def find(self, index: int) -> Placed | None:
        """The entry with this index, if it is among these."""
        for part in (self.writing, self.unwritten):
            if part and part[0].entry.header.index <= index <= part[-1].entry.header.index:
                return part[index - part[0].entry.header.index]
        return None

    def since(self, index: int) -> Iterator[Placed]:
        """Those with this index and behind."""
        for part in (self.writing, self.unwritten):
            if part:
                yield from part[max(index - part[0].entry.header.index, 0) :]

    def cut(self, index: int) -> None:
        """Drop the unwritten entries above an index."""
        while self.unwritten and self.unwritten[-1].entry.header.index > index:
            self.unwritten.pop()
