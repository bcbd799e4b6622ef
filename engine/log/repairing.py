"""A log that is damaged is cut before the damage, when there are others to get the rest from.

Nothing is thrown away: what lies behind the last whole entry is set aside under other names. The cut itself is left as
an intent in the control page, like any other, and made by the next opening; a repair that is interrupted leaves a log
that is refused as before, and can be repaired again.

Whoever calls this must see to it first, durably, that this disk does not vote: it is about to lose what was durable.
"""

from typing import Final, NamedTuple

import msgspec

from bezant.engine.log.archived import ArchivedSegments, write_archived
from bezant.engine.log.control import CONTROL_NAME, ControlFile, Watermark
from bezant.engine.log.recovery import Walk, copy_aside, unused_name, written_bytes
from bezant.engine.log.segment import Segment, segment_name, segment_numbers
from bezant.engine.log.segment_folder import SegmentFolder
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog

KIND: Final = "rot"
"""Begins the names of what is set aside."""


class Repaired(NamedTuple):
    """The last entry that is left, 0 if none is, and the names of the files that hold what was behind it."""

    last_index: int
    set_aside: list[str]


def last_whole_entry(directory: Directory, shard: int) -> Walk | None:
    """A walk that has stopped behind the last entry that continues the log; None if not even a segment can be read.

    Raises `UnsupportedFormat` at what a newer version wrote.
    """
    segments: list[Segment] = []
    folder = SegmentFolder(directory, shard)
    for number in folder.numbers():
        try:
            header = folder.header(number)
        except CorruptLog:
            break
        if number != len(segments) + 1 or header.shard != shard or (segments and header.log_id != segments[0].log_id):
            break
        segments.append(folder.make_segment(header))
    if not segments:
        return None
    walk = Walk(segments, log_id=segments[0].log_id, shard=shard, watermark=Watermark())
    try:
        for _ in walk:
            pass
    except CorruptLog:
        pass  # It says where, and that is where the walk has stopped.
    return walk


def cut_damage(directory: Directory, shard: int, walk: Walk | None) -> Repaired:
    """Set aside all that lies behind a walk, and leave the intent to cut it. A segment in which the log ends then, and
    which has left for an archive, comes back. Raises `ArchiveUnavailable`, `StorageError`."""
    kept = 0 if walk is None else walk.last_segment.number
    set_aside = [
        _rename_aside(directory, segment_name(number))
        for number in reversed(segment_numbers(directory))
        if number > kept
    ]
    if walk is None:
        # The log begins anew, and must not look like one that has lost its segments.
        if CONTROL_NAME in directory.names():
            set_aside.append(_rename_aside(directory, CONTROL_NAME))
        return Repaired(0, set_aside)
    segment, header = walk.last_segment, walk.last_header
    _bring_back(directory, shard, segment.number)
    if written_bytes(segment, segment.end):
        set_aside.append(copy_aside(directory, KIND, segment, segment.end, walk.next_index))
    _leave_intent(directory, shard, walk, 0 if header is None else header.first_sequence + header.count - 1)
    segment.unmap()
    return Repaired(walk.next_index - 1, set_aside)


def _bring_back(directory: Directory, shard: int, number: int) -> None:
    """Have the file of a segment here, and not named as one that has left: entries will follow in it.

    The file comes first: without it the mark would leave a gap. A crash between the two is repaired again.
    """
    archive = ArchivedSegments(directory, shard)
    try:
        mark = archive.load()
        if mark is None or number > len(mark.segments):
            return
        archived = None if segment_name(number) in directory.names() else archive.open(number)
        if archived is not None:
            try:
                directory.write_file(segment_name(number), [archived.map().data])
            finally:
                archived.close()
        write_archived(directory, msgspec.structs.replace(mark, segments=mark.segments[: number - 1]))
    finally:
        archive.close()


def _rename_aside(directory: Directory, name: str) -> str:
    aside = unused_name(directory, f"{KIND}-{name}")
    directory.rename(name, aside)
    return aside


def _leave_intent(directory: Directory, shard: int, walk: Walk, last_sequence: int) -> None:
    segment, last_index = walk.last_segment, walk.next_index - 1
    if CONTROL_NAME not in directory.names():
        ControlFile.create(directory)
    control = ControlFile(directory, shard=shard, log_id=segment.log_id, writable=True)
    try:
        before = control.read()
        control.write(
            Watermark(
                before.write_count + 1,
                last_index,
                last_sequence,
                segment.number,
                segment.end,
                cutting=1,
                commit_index=min(before.commit_index, last_index),
            )
        )
        control.sync()
    finally:
        control.close()
