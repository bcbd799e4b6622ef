"""A log cut on the disk: zeros where its last entries were, because a file that may be mapped is never shortened."""

from collections.abc import Sequence
from typing import Final

from bezant.engine.log.segment import Segment
from bezant.protocol.records import SEGMENT_HEADER_SIZE

ZEROS: Final = bytes(4 << 20)
"""Written at a time."""


def zero_behind(segment: Segment, offset: int, later: Sequence[Segment], *, to_the_end: bool) -> None:
    """Write zeros from an offset of a segment on, and in all later ones, the last first; return when they are durable.

    Up to where the segments are known to have entries, or `to_the_end` of the files: who finishes what another process
    has begun cannot tell by what it reads, for the kernel may show zeros that are not on the disk.
    """
    for other in reversed(later):
        _zero(other, SEGMENT_HEADER_SIZE, other.size if to_the_end else other.end)
    _zero(segment, offset, segment.size if to_the_end else segment.end)


def _zero(segment: Segment, start: int, end: int) -> None:
    file = segment.open_file()
    for place in range(start, end, len(ZEROS)):
        file.write([memoryview(ZEROS)[: end - place]], place)
    file.sync()
