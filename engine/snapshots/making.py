"""Files made of what another member sends, a part at a time, on a helper thread: each is there when all of it is."""

from collections import deque
from typing import Final

from typing_extensions import Buffer

from bezant.engine.log.entry import decode_header, entry_hash
from bezant.engine.log.receiving import LogEnd, split_entries
from bezant.engine.log.resume import SegmentSummary
from bezant.engine.log.segment import Segment, SegmentHeader, encode_segment_header, segment_name
from bezant.engine.log.storage import Directory
from bezant.engine.metadata.kept import IsWanted, leave_out
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.records import ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE

_ZEROS: Final = memoryview(bytes(1 << 20))


class FileMaker:
    """One file, written as its parts come. It has its name, and is durable, after `finish`."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._parts: deque[Buffer | None] = deque()
        self._steps = directory.write_file_stepwise(name, iter(self._parts.popleft, None))

    def add(self, part: Buffer) -> None:
        """Write a part behind the others. Raises `StorageError`."""
        self._parts.append(part)
        next(self._steps)

    def finish(self) -> None:
        """Have the file be there. Raises `StorageError`."""
        self._parts.append(None)
        for _ in self._steps:
            pass

    def discard(self) -> None:
        """Leave nothing behind."""
        self._steps.close()


class SegmentMaker:
    """A segment with the entries `first_index` to `last_index`, laid out as the summary says.

    Nothing that arrives is believed: each entry must be whole, continue the one before it, and the last one have
    `last_hash`; then so must all be what they were where the hash is from.
    """

    def __init__(
        self,
        directory: Directory,
        header: SegmentHeader,
        summary: SegmentSummary,
        *,
        last_index: int,
        last_hash: bytes,
        is_wanted: IsWanted | None = None,
    ) -> None:
        """`summary` must have an entry. What is not wanted of metadata is left out; None: all of it is as it comes."""
        self._segment = Segment(directory, header)
        self._segment.restore(summary)
        self.first_index = self.next_index = self._segment.first_index
        self.last_index = last_index
        self._segment.cut(SEGMENT_HEADER_SIZE)
        self._summary = summary
        self._last_hash = last_hash
        self._is_wanted = is_wanted
        self._end: LogEnd | None = None
        self._header = header
        self._file = FileMaker(directory, segment_name(header.segment_number))
        self._file.add(encode_segment_header(header))

    @property
    def is_full(self) -> bool:
        """Whether all entries are there."""
        return self.next_index > self.last_index

    def add(self, entries: memoryview) -> None:
        """Take entries that come next. Raises `RemoteProtocolError`, `UnsupportedFormat`, `StorageError`."""
        received = split_entries(entries, self._end or self._before(entries))
        if not received or received[-1].header.index > self.last_index:
            raise RemoteProtocolError(f"entries up to {self.last_index} were asked for, and not what came")
        last = received[-1]
        for entry in received:
            self._segment.note_entry(entry.header, self._segment.end)
        if self._segment.end > self._summary.end:
            raise RemoteProtocolError(f"the entries up to {last.header.index} are larger than their place")
        self._file.add(entries if self._is_wanted is None else leave_out(entries, received, self._is_wanted))
        self._end = LogEnd(
            log_id=self._header.log_id,
            shard=self._header.shard,
            last_index=last.header.index,
            last_term=last.header.term,
            next_sequence=last.header.first_sequence + last.header.count,
            last_timestamp_ns=last.header.timestamp_ns,
            chain_hash=entry_hash(last.encoded, last.body),
        )
        self.next_index = last.header.index + 1

    def _before(self, entries: memoryview) -> LogEnd:
        """What must have come before the first entry; whether that is right only the hash of the last one can tell."""
        first = decode_header(entries[:ENTRY_HEADER_SIZE])
        if first is None:
            raise RemoteProtocolError(f"no whole header where entry {self.first_index} was expected")
        return LogEnd(
            log_id=self._header.log_id,
            shard=self._header.shard,
            last_index=self.first_index - 1,
            last_term=0,
            next_sequence=first.first_sequence,
            last_timestamp_ns=first.timestamp_ns - 1,
            chain_hash=first.previous_hash,
        )

    def finish(self) -> None:
        """Have the segment be there. Raises `RemoteProtocolError` if it is not the one that is wanted."""
        end = self._end
        if end is None or not self.is_full or end.chain_hash != self._last_hash:
            raise RemoteProtocolError(
                f"the entries {self.first_index} to {self.last_index} are whole, and not those that are wanted"
            )
        if self._segment.summary(self._segment.end) != self._summary:
            raise RemoteProtocolError(
                f"the entries {self.first_index} to {self.last_index} do not lie where they should"
            )
        rest = self._header.segment_size - self._segment.end
        for start in range(0, rest, len(_ZEROS)):
            self._file.add(_ZEROS[: rest - start])
        self._file.finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.discard()
