"""What to believe of a log after a crash: walks every entry, and decides what damage means.

At the first place where no next entry can be read, the walk stops with the index of the last good entry. What follows
from that place on decides:

| what lies there | watermark above the last good index, or entries in a later segment | decision |
| --- | --- | --- |
| zeros to the end of the segment | no | the end of the log |
| zeros to the end of the segment | yes | rot: refuse |
| anything else | no | torn tail: set aside, report, zero |
| anything else | yes | rot: refuse |

Watermarks are the control page and the `durable_before` of every whole header found behind the damage. A later segment
is written only after the one before it is durable, so an entry there proves the rest.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.log.control import Watermark
from bezant.engine.log.entry import HASH_NONE, Entry, EntryHeader, body_is_whole, decode_header, entry_hash
from bezant.engine.log.segment import Segment
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog
from bezant.protocol.records import ENTRY_HEADER, ENTRY_HEADER_SIZE, ENTRY_INDEX_FIRST, SEGMENT_HEADER_SIZE, Bytes

_LOG_ID_AT: Final = 104
if ENTRY_HEADER.fields is None or ENTRY_HEADER.fields["log_id"][1] != _LOG_ID_AT:
    raise AssertionError("the log id is not where recovery looks for it")


class RecoveryReport(NamedTuple):
    """What opening a log found."""

    entries: int
    clean_stop: bool
    torn_bytes: int
    torn_file: str


class Walk:
    """One walk over all entries of a log, in order. Iterate it to the end, then `finish` it."""

    def __init__(self, segments: list[Segment], *, log_id: int, shard: int, watermark: Watermark) -> None:
        self._segments = segments
        self._log_id = log_id
        self._shard = shard
        self._watermark = watermark
        self._torn: tuple[Segment, int] | None = None
        self._problem = ""
        self.next_index = ENTRY_INDEX_FIRST
        self.previous_hash = HASH_NONE
        self.last_header: EntryHeader | None = None
        self.last_segment = segments[0]

    def __iter__(self) -> Iterator[Entry]:
        """Yield every good entry. Raises `CorruptLog` at rot."""
        for number, segment in enumerate(self._segments):
            yield from self._walk_segment(segment)
            later = self._segments[number + 1 :]
            if not later or not self._holds_entry(later[0]):
                self._judge(segment, later)
                return
            if self._torn is not None:
                raise CorruptLog(self._rot(segment, "later segments have entries, so this one was durable"))

    def _walk_segment(self, segment: Segment) -> Iterator[Entry]:
        mapping = segment.mapping()
        offset = SEGMENT_HEADER_SIZE
        self.last_segment = segment
        while True:
            header = decode_header(mapping[offset : offset + ENTRY_HEADER_SIZE])
            body = mapping[offset + ENTRY_HEADER_SIZE :][: header.body_size if header else 0]
            self._problem = self._find_problem(header, body)
            if header is None or self._problem:
                if np.any(mapping[offset:]):
                    self._torn = (segment, offset)
                return
            encoded = mapping[offset : offset + ENTRY_HEADER_SIZE].tobytes()
            yield Entry(header, encoded, body.data)
            segment.note_entry(header, offset)
            self.previous_hash = entry_hash(encoded, body.data)
            self.last_header = header
            self.next_index = header.index + 1
            offset = segment.end

    def _find_problem(self, header: EntryHeader | None, body: Bytes) -> str:
        """What is wrong with the entry at the walk's place, in words; empty if nothing is."""
        if header is None:
            return "no whole entry header"
        if header.log_id != self._log_id or header.shard != self._shard:
            return "an entry of another log"
        if header.index != self.next_index:
            return f"an entry with index {header.index}"
        if header.previous_hash != self.previous_hash:
            return "an entry that does not continue the hash chain"
        if not body_is_whole(header, body):
            return "an entry whose body fails its checksum"
        return ""

    def _holds_entry(self, segment: Segment) -> bool:
        return decode_header(segment.mapping()[SEGMENT_HEADER_SIZE:][:ENTRY_HEADER_SIZE]) is not None

    def _judge(self, segment: Segment, later: list[Segment]) -> None:
        """At the place where the walk stopped: is that the end, a torn tail, or rot?"""
        for other in later:
            if np.any(other.mapping()[SEGMENT_HEADER_SIZE:]):
                raise CorruptLog(self._rot(other, "a segment behind the end of the log is not empty"))
        known = self._watermark.durable_index
        if self._torn is not None:
            known = max(known, self._watermark_behind(*self._torn))
        if known >= self.next_index:
            raise CorruptLog(self._rot(segment, f"the log was durable up to index {known}"))

    def _watermark_behind(self, segment: Segment, offset: int) -> int:
        """The highest `durable_before` of the whole headers behind an offset."""
        data = segment.mapping()[offset:].tobytes()
        pattern = self._log_id.to_bytes(8, "little", signed=True)
        highest = 0
        place = data.find(pattern)
        while place >= 0:
            start = offset + place - _LOG_ID_AT
            if start >= offset:
                header = decode_header(segment.mapping()[start : start + ENTRY_HEADER_SIZE])
                if header is not None and header.log_id == self._log_id:
                    highest = max(highest, header.durable_before)
            place = data.find(pattern, place + 1)
        return highest

    def _rot(self, segment: Segment, why: str) -> str:
        offset = self._torn[1] if self._torn is not None else segment.end
        return (
            f"{segment.name}, offset {offset}: found {self._problem or 'nothing'} where the entry with index "
            f"{self.next_index} was expected; {why}. This is damage to durable data, not a crash: nothing was changed. "
            "Restore the file from a copy"
        )

    def set_torn_tail_aside(self, directory: Directory) -> tuple[int, str]:
        """Copy a torn tail to a file of its own, then zero it; returns its bytes and that file's name."""
        if self._torn is None:
            return 0, ""
        segment, offset = self._torn
        data = segment.mapping()[offset:]
        size = int(np.flatnonzero(data)[-1]) + 1
        name = f"torn-{segment.number:010d}-{offset}-{self.next_index}"
        directory.create_file(name, size, data[:size].tobytes())
        if segment.file is None:
            raise CorruptLog(f"{segment.name}: a torn tail of {size} bytes, and the log is open for reading only")
        segment.file.write([bytes(size)], offset)
        segment.file.sync()
        return size, name

    @property
    def torn_bytes(self) -> int:
        """Bytes of the torn tail, from its start to its last byte that is not zero."""
        if self._torn is None:
            return 0
        segment, offset = self._torn
        return int(np.flatnonzero(segment.mapping()[offset:])[-1]) + 1
