"""A group: the entries that one sync makes durable, and how they reach the disk."""

from typing import NamedTuple

from typing_extensions import Buffer

from bezant.engine.log.entry import Entry
from bezant.engine.log.segment import Segment
from bezant.engine.log.storage import LogFile
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import ENTRY_HEADER_SIZE


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
        file: LogFile | None = None
        buffers: list[Buffer] = []
        start = 0
        for segment, offset, entry in self._placed:
            if segment.file is None:
                raise LedgerError(f"{segment.name} is closed and has an entry to write")
            if file is not segment.file:
                if file is not None:
                    file.write_durably(buffers, start)
                file, buffers, start = segment.file, [], offset
            buffers += (entry.encoded, entry.body)
        if file is not None:
            file.write_durably(buffers, start)
