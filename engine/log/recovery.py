"""What to believe of a log after a crash: walks every entry, and decides what damage means.

Where nothing but zeros follows in a segment, the walk goes on in the next one if that begins with anything. At the
first place where no next entry can be read, it stops with the index of the last good entry. What lies there decides:

| what lies there | watermark above the last good index, or anything in a later segment | decision |
| --- | --- | --- |
| zeros to the end of the segment | no | the end of the log |
| zeros to the end of the segment | yes | rot: refuse |
| anything else | no | torn tail: set aside, report, zero |
| anything else | yes | rot: refuse |

Watermarks are the control page and the `durable_before` of every whole header found behind the damage. Those are looked
for at every byte, because damage may leave no trace of where entries begin, and so also where a client chooses what is
there. What it cannot choose is a header: that has the `log_id`, which no client is told. Every header of a group says
that the groups before it were durable, and nothing more, so any one of them that is left vouches for those.

A later segment is written only after the one before it is durable, so anything there proves the rest: an entry whose
index is too high says that the segment before has lost its end. One case is a torn tail all the same: a segment that
ends in zeros, and behind it one that is not empty and has lost the sector with its first header.

An entry that is whole and of a kind, format or rules that are not known here is neither: a newer version wrote it, and
the log is refused. Nor is one that continues the chain with right checksums and says what cannot be: no crash makes it.

Where the control page has the intent of a cut, the log ends at the place that it names: what lies there is zeroed.

A walk that begins behind a checkpoint first requires the checkpoint's entry to be there, whole and the same, and then
decides by the same table.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.log.checking import find_nonsense, find_unknown
from bezant.engine.log.control import Watermark
from bezant.engine.log.entry import (
    HASH_NONE,
    Entry,
    EntryHeader,
    body_is_whole,
    decode_header,
    entry_hash,
    hash_in_place,
)
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import Segment
from bezant.engine.log.storage import Directory
from bezant.engine.log.terms import TermRuns
from bezant.protocol.errors import CorruptLog, StorageError, UnsupportedFormat
from bezant.protocol.records import (
    ENTRY_HEADER,
    ENTRY_HEADER_SIZE,
    ENTRY_INDEX_FIRST,
    SEGMENT_HEADER_SIZE,
    Bytes,
)

DURABLE_BY_CHECKPOINT: Final = "a checkpoint, which is only ever made of durable entries, proves that the log reached"
PART_SIZE: Final = 4 << 20
"""Bytes of a segment that are copied at a time, be it as large as it may."""
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
    """One walk over the entries of a log, in order: to the end, which is judged, or up to an index, again and again.

    `segments` may grow while it lasts: `find_more` is asked for another one (it adds it and says so) where those that
    are known end, by a walk up to an index. `next_index`, `previous_hash` and all that is called last are about the
    entry that was yielded last.
    """

    def __init__(
        self,
        segments: list[Segment],
        *,
        log_id: int,
        shard: int,
        watermark: Watermark,
        find_more: Callable[[], bool] | None = None,
    ) -> None:
        self._segments = segments
        self._at = 0
        self._log_id = log_id
        self._shard = shard
        self._watermark = watermark
        self._find_more = find_more
        self._torn: tuple[Segment, int] | None = None
        self._problem = ""
        self.next_index = ENTRY_INDEX_FIRST
        self.previous_hash = HASH_NONE
        self.last_header: EntryHeader | None = None
        self.last_segment = segments[0]
        self.last_offset = 0
        self.bytes_count = 0
        self.terms = TermRuns()

    def __iter__(self) -> Iterator[Entry]:
        """Yield every good entry. Raises `CorruptLog` at rot, `UnsupportedFormat` at what a newer version wrote."""
        while not self._is_cut_here():
            entry = self._take()
            if entry is not None:
                yield entry
            elif not self._goes_on():
                self._judge(self._segments[self._at], self._segments[self._at + 1 :])
                return
            else:
                self._go_on()

    def up_to(self, until_index: int) -> Iterator[Entry]:
        """Yield the entries up to this index, which are durable; what lies behind is not even looked at.

        May be called again, to go on. Raises `CorruptLog` if one is not there.
        """
        while self.next_index <= until_index:
            entry = self._take()
            if entry is not None:
                yield entry
            elif self._goes_on():
                self._go_on()
            else:
                why = f"the log is durable up to index {until_index}"
                raise CorruptLog(self._rot(self._segments[self._at], why))

    def _is_cut_here(self) -> bool:
        """Whether what follows counts no more, because a crash has interrupted its being cut off."""
        mark = self._watermark
        if not mark.cutting or self.next_index <= mark.durable_index:
            return False
        segment = self._segments[self._at]
        here = (self.next_index - 1, segment.number, segment.end)
        if here != (mark.durable_index, mark.durable_segment, mark.durable_offset):
            self._problem = "another place than that of the cut"
            raise CorruptLog(self._rot(segment, f"the log was being cut behind index {mark.durable_index}"))
        return True

    def begin_behind(self, start: ResumePoint) -> None:
        """Go on behind the entry of a checkpoint. Raises `CorruptLog` unless it is whole and where it was."""
        if start.log_id != self._log_id:
            raise CorruptLog(f"{self._segments[0].name}: the checkpoint is one of another log")
        for segment, summary in zip(self._segments, start.segments, strict=False):
            if summary.end > segment.size:
                why = f"{DURABLE_BY_CHECKPOINT} its offset {summary.end}"
                raise CorruptLog(f"{segment.name} has {segment.size} bytes; {why}")
            segment.restore(summary)
        self._at = start.segment_number - 1
        segment = self._segments[self._at]
        view = segment.view()
        encoded = bytes(view[start.entry_offset :][:ENTRY_HEADER_SIZE])
        header = decode_header(encoded)
        body = view[start.entry_offset + ENTRY_HEADER_SIZE : start.end_offset]
        self.next_index = start.index
        self._problem = self._find_problem(header, body, HASH_NONE if header is None else header.previous_hash)
        if not self._problem and entry_hash(encoded, body) != start.chain_hash:
            self._problem = "another entry than the checkpoint's"
        if header is None or self._problem:
            self._torn = (segment, start.entry_offset)
            raise CorruptLog(self._rot(segment, f"{DURABLE_BY_CHECKPOINT} that entry"))
        self.terms.restore(start.term_runs)
        self._note(segment, header, start.entry_offset, start.chain_hash)
        self.bytes_count = start.bytes_count

    @property
    def can_follow(self) -> bool:
        """Whether the walk goes up to an index, and then further."""
        return self._find_more is not None

    def resume_point(self) -> ResumePoint | None:
        """What an opening needs to begin behind the entry that was yielded last; None before the first."""
        header = self.last_header
        if header is None:
            return None
        end = self.last_offset + ENTRY_HEADER_SIZE + header.body_size
        number = self.last_segment.number
        before = self._segments[: number - 1]
        return ResumePoint(
            log_id=self._log_id,
            index=header.index,
            term=header.term,
            timestamp_ns=header.timestamp_ns,
            next_sequence=header.first_sequence + header.count,
            chain_hash=self.previous_hash,
            segment_number=number,
            entry_offset=self.last_offset,
            end_offset=end,
            bytes_count=self.bytes_count,
            term_runs=self.terms.up_to(header.index),
            segments=(*(segment.summary(segment.end) for segment in before), self.last_segment.summary(end)),
        )

    def _take(self) -> Entry | None:
        """The entry at the walk's place, which moves on behind it; None if no next entry can be read there."""
        segment = self._segments[self._at]
        offset = segment.end
        view = segment.view()
        body_at = offset + ENTRY_HEADER_SIZE
        encoded = bytes(view[offset:body_at])
        header = decode_header(encoded)
        end = body_at + (header.body_size if header is not None else 0)
        body = view[body_at:end]
        self._problem = self._find_problem(header, body, self.previous_hash)
        if header is None or self._problem:
            self._torn = (segment, offset) if np.any(segment.mapping()[offset:]) else None
            if self._torn is None:
                self._problem = "nothing but zeros"
            return None
        entry = Entry(header, encoded, body)
        self._check_known(segment, entry, offset)
        self._problem = find_nonsense(entry, self.terms.last_term)
        if self._problem:
            self._torn = (segment, offset)
            raise CorruptLog(self._rot(segment, "its checksums are right, so no crash has torn it"))
        segment.note_entry(header, offset)
        self._note(segment, header, offset, hash_in_place(view[offset:end]))
        return entry

    def _note(self, segment: Segment, header: EntryHeader, offset: int, chain_hash: bytes) -> None:
        self.previous_hash = chain_hash
        self.last_header = header
        self.terms.note(header.index, header.term)
        self.last_segment = segment
        self.last_offset = offset
        self.next_index = header.index + 1
        self.bytes_count += ENTRY_HEADER_SIZE + header.body_size

    def _goes_on(self) -> bool:
        """Whether, where no next entry can be read, the next segment has it."""
        if self._torn is not None:
            return False
        if self._at + 1 == len(self._segments) and not (self._find_more is not None and self._find_more()):
            return False
        return _begins(self._segments[self._at + 1])

    def _go_on(self) -> None:
        """Move on to the next segment."""
        segment, following = self._segments[self._at : self._at + 2]
        self._check_complete(segment, following)
        segment.unmap()
        self._at += 1

    def _find_problem(self, header: EntryHeader | None, body: memoryview, previous_hash: bytes) -> str:
        """What is wrong with an entry that should come next, in words; empty if nothing is."""
        if header is None:
            return "no whole entry header"
        if header.log_id != self._log_id or header.shard != self._shard:
            return "an entry of another log"
        if header.index != self.next_index:
            return f"an entry with index {header.index}"
        if header.previous_hash != previous_hash:
            return "an entry that does not continue the hash chain"
        if not body_is_whole(header, body):
            return "an entry whose body fails its checksum"
        return ""

    def _is_ours(self, header: EntryHeader) -> bool:
        return header.log_id == self._log_id and header.shard == self._shard

    def _check_known(self, segment: Segment, entry: Entry, offset: int) -> None:
        """Raise `UnsupportedFormat` for an entry that is whole and beyond this version."""
        unknown = find_unknown(entry)
        if unknown:
            raise UnsupportedFormat(
                f"{segment.name}, offset {offset}: entry {entry.header.index} has {unknown}, which this version of "
                "Bezant does not know: start the newer version that wrote it"
            )

    def _check_complete(self, segment: Segment, following: Segment) -> None:
        """Raise `CorruptLog` if the segment behind begins with an entry that has others before it."""
        header = decode_header(following.mapping()[SEGMENT_HEADER_SIZE:])
        if header is not None and self._is_ours(header) and header.index > self.next_index:
            why = f"{following.name} begins with the entry with index {header.index}, so this one was durable"
            raise CorruptLog(self._rot(segment, why))

    def _judge(self, segment: Segment, later: list[Segment]) -> None:
        """At the place where the walk stopped: is that the end, a torn tail, or rot?"""
        written = [other for other in later if np.any(other.mapping()[SEGMENT_HEADER_SIZE:])]
        if self._torn is None and written and written == later[:1]:
            segment = written.pop()
            self._torn = (segment, SEGMENT_HEADER_SIZE)
        if written:
            why = f"{written[0].name} behind it is not empty, so this one was durable"
            raise CorruptLog(self._rot(segment, why))
        known = self._watermark.durable_index
        if self._torn is not None:
            known = max(known, self._watermark_behind(*self._torn))
        if known >= self.next_index:
            raise CorruptLog(self._rot(segment, f"the log was durable up to index {known}"))

    def _watermark_behind(self, segment: Segment, offset: int) -> int:
        """The highest `durable_before` of the whole headers behind an offset.

        An index may be too high for the bytes before it: then the end of the segment before is lost, which is rot, too.
        """
        mapping = segment.mapping()
        highest = 0
        for place in _find_all(mapping, self._log_id.to_bytes(8, "little", signed=True), offset + _LOG_ID_AT):
            start = place - _LOG_ID_AT
            header = decode_header(mapping[start : start + ENTRY_HEADER_SIZE])
            if header is not None and self._is_ours(header) and header.durable_before < header.index:
                highest = max(highest, header.durable_before)
        return highest

    def _rot(self, segment: Segment, why: str) -> str:
        offset = self._torn[1] if self._torn is not None else segment.end
        return (
            f"{segment.name}, offset {offset}: found {self._problem} where the entry with index "
            f"{self.next_index} was expected; {why}. This is damage to durable data, not a crash: nothing was changed. "
            "Restore the file from a copy"
        )

    def set_torn_tail_aside(self, directory: Directory) -> tuple[int, str]:
        """Copy a torn tail to a file of its own, then zero it; returns its bytes and that file's name.

        Raises `StorageError`, having changed nothing, if there is no room for it.
        """
        if self._torn is None:
            return 0, ""
        segment, offset = self._torn
        size = self.torn_bytes
        try:
            name = copy_aside(directory, "torn", segment, offset, self.next_index)
        except StorageError as error:
            raise StorageError(
                f"{segment.name}, offset {offset}: a crash has left a torn tail of {size} bytes, which must be set "
                f"aside before the log goes on: {error}. Nothing was changed. Make room on the disk, and start again"
            ) from error
        file = segment.open_file()
        for place, part in _parts(segment.mapping(), offset, offset + size):
            file.write([bytes(len(part))], place)
        file.sync()
        return size, name

    def write_tail_again(self) -> None:
        """Make durable what was read behind the watermark, which may be in the page cache alone.

        A crash can come between a write and its sync; and after a sync that failed the kernel may hold pages that count
        as clean and are not on the disk, so that another sync alone would do nothing. All of that lies in the last
        segment, because a segment is written only after the sync of the one before it.
        """
        segment = self.last_segment
        start = self._watermark.durable_offset if self._watermark.durable_segment == segment.number else 0
        start = min(max(start, SEGMENT_HEADER_SIZE), segment.end)
        file = segment.open_file()
        for place, part in _parts(segment.mapping(), start, segment.end):
            file.write([part], place)
        file.sync()

    @property
    def torn_bytes(self) -> int:
        """Bytes of the torn tail, from its start to its last byte that is not zero."""
        if self._torn is None:
            return 0
        segment, offset = self._torn
        return written_bytes(segment, offset)


def written_bytes(segment: Segment, offset: int) -> int:
    """Bytes of a segment from an offset to the last one that is not zero."""
    mapping = segment.mapping()
    for start in reversed(range(offset, len(mapping), PART_SIZE)):
        backwards = mapping[start : start + PART_SIZE][::-1] != 0
        if np.any(backwards):
            return start - offset + len(backwards) - int(np.argmax(backwards))
    return 0


def copy_aside(directory: Directory, kind: str, segment: Segment, offset: int, next_index: int) -> str:
    """Copy what a segment has from an offset on to a file of its own, durably; returns its name.

    Raises `StorageError`, having left nothing behind.
    """
    name = unused_name(directory, f"{kind}-{segment.number:010d}-{offset}-{next_index}")
    end = offset + written_bytes(segment, offset)
    directory.write_file(name, (part for _, part in _parts(segment.mapping(), offset, end)))
    return name


def _begins(segment: Segment) -> bool:
    """Whether anything lies where the first header of a segment would."""
    return bool(np.any(segment.mapping()[SEGMENT_HEADER_SIZE:][:ENTRY_HEADER_SIZE]))


def _parts(mapping: Bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Copies of all bytes between two offsets, a bounded number at a time, each with its offset."""
    for place in range(start, end, PART_SIZE):
        yield place, mapping[place : min(place + PART_SIZE, end)].tobytes()


def _find_all(mapping: Bytes, pattern: bytes, start: int) -> Iterator[int]:
    """Offsets from `start` on at which a pattern lies; the parts searched overlap by all of it but a byte."""
    for part_at in range(start, len(mapping), PART_SIZE):
        part = mapping[part_at : part_at + PART_SIZE + len(pattern) - 1].tobytes()
        place = part.find(pattern)
        while place >= 0:
            yield part_at + place
            place = part.find(pattern, place + 1)


def unused_name(directory: Directory, wanted: str) -> str:
    """A name that no file has: what was set aside at the same place after an earlier crash stays."""
    names = frozenset(directory.names())
    name, number = wanted, 1
    while name in names:
        number += 1
        name = f"{wanted}-{number}"
    return name
