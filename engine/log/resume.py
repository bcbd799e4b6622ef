"""Where a log is gone on with behind a checkpoint: what must be known of all that lies before, so as not to walk it."""

from array import array
from typing import Final

import msgspec

from bezant.engine.log.entry import HASH_SIZE
from bezant.engine.log.terms import are_term_runs
from bezant.protocol.records import ENTRY_HEADER_SIZE, ENTRY_INDEX_FIRST, SEGMENT_HEADER_SIZE

_WORD_SIZE: Final = 8


class SegmentSummary(msgspec.Struct, frozen=True):
    """What is known of a segment: where its entries end (offset), and its sparse index.

    `indexes`, `sequences` and `offsets` are int64, little-endian: index, first sequence and offset of an entry every
    64 KiB. A segment without entries has none of them.
    """

    number: int
    end: int
    indexes: bytes
    sequences: bytes
    offsets: bytes

    def __post_init__(self) -> None:
        """Raises ValueError for what no segment can be like."""
        if self.number < 1 or self.end < SEGMENT_HEADER_SIZE:
            raise ValueError(f"segment {self.number} cannot end at offset {self.end}")
        sizes = {len(self.indexes), len(self.sequences), len(self.offsets)}
        if len(sizes) != 1 or len(self.offsets) % _WORD_SIZE:
            raise ValueError(f"segment {self.number} has as many indexes and sequences as offsets, of 8 bytes each")
        if bool(self.offsets) != (self.end > SEGMENT_HEADER_SIZE):
            raise ValueError(f"segment {self.number} has an index if it has entries")
        offsets = array("q", self.offsets)
        if offsets and not SEGMENT_HEADER_SIZE <= min(offsets) <= max(offsets) < self.end:
            raise ValueError(f"the index of segment {self.number} speaks of offsets that are not in it")


class ResumePoint(msgspec.Struct, frozen=True):
    """A durable entry of a log, and what an opening needs to begin behind it. Stored as MessagePack.

    Offsets are bytes within the segment's file; `next_sequence` is that of the first event behind the entry, and
    `chain_hash` the hash of the entry (32 bytes); `bytes_count` are the bytes of all entries up to it. `term_runs` are
    (index of its first entry, term) of each term. `segments` are those with the history up to there, the last one as
    far as it goes: 24 bytes for every 64 KiB of log.
    """

    log_id: int
    index: int
    term: int
    timestamp_ns: int
    next_sequence: int
    chain_hash: bytes
    segment_number: int
    entry_offset: int
    end_offset: int
    bytes_count: int
    term_runs: tuple[tuple[int, int], ...]
    segments: tuple[SegmentSummary, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for what no log can be like."""
        if self.index < ENTRY_INDEX_FIRST or self.next_sequence < 1 or len(self.chain_hash) != HASH_SIZE:
            raise ValueError(f"no log goes on behind index {self.index} with sequence {self.next_sequence}")
        if not are_term_runs(self.term_runs, self.index, self.term):
            raise ValueError(f"no log has the terms {self.term_runs} up to index {self.index} of term {self.term}")
        if [summary.number for summary in self.segments] != list(range(1, self.segment_number + 1)):
            raise ValueError(f"the segments up to number {self.segment_number} are described, each in its place")
        if not SEGMENT_HEADER_SIZE <= self.entry_offset <= self.end_offset - ENTRY_HEADER_SIZE:
            raise ValueError(f"no entry lies between the offsets {self.entry_offset} and {self.end_offset}")
        if self.end_offset != self.segments[-1].end:
            raise ValueError("the last segment is described up to the end of the entry")
