"""How far a log goes, and which currencies it registers: a walk over the headers of its entries, the bodies unread.

It says what to expect before a pass over the history begins. That pass verifies everything, this does not: an answer
here is a promise of what the pass will find, and the pass fails if it is not kept.
"""

from typing import NamedTuple

import numpy as np

from bezant.engine.following import open_follower
from bezant.engine.log.entry import body_is_whole, decode_header, public_log_id
from bezant.engine.log.segment import segment_name
from bezant.engine.log.segment_folder import SegmentFolder
from bezant.engine.log.storage import Directory
from bezant.engine.tables.seeding import find_checkpoint
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import ENTRY_HEADER_SIZE, EVENT, EVENT_SIZE, SEGMENT_HEADER_SIZE


class Survey(NamedTuple):
    """What was published of a log when it was looked at."""

    public_id: str
    last_index: int
    """Index of the last entry; 0 if there is none."""
    last_sequence: int
    """Sequence of the last event; 0 if there is none."""
    last_timestamp_ns: int
    """Its time; 0 if there is none."""
    currencies: dict[str, int]
    """Decimals by code, in the order of registration."""


def survey(directory: Directory, shard: int) -> Survey:
    """Look at the log in the folder of a shard. Raises `StorageError` if there is none, `CorruptLog`."""
    follower = open_follower(directory, shard)
    if follower is None:
        raise StorageError(f"{directory.path}: there is no log yet")
    log_id, until_index = follower.log_id, follower.published_index
    follower.close()
    index, sequence, timestamp_ns = 0, 0, 0
    currencies: dict[str, int] = {}
    folder = SegmentFolder(directory, shard)
    numbers, first, first_offset = folder.numbers(), 1, SEGMENT_HEADER_SIZE
    # Nothing is fetched from an archive for what a checkpoint knows as well.
    checkpoint = find_checkpoint(directory, until_index) if folder.archive.segments else None
    if checkpoint is not None:
        point, image = checkpoint.manifest.point, checkpoint.image
        index, sequence, timestamp_ns = point.index, image.next_sequence - 1, image.last_timestamp_ns
        first, first_offset = point.segment_number, point.end_offset
        currencies.update(image.currencies)
    for number in numbers[first - 1 :]:
        if index == until_index:
            break
        view = folder.make_segment(folder.header(number)).view()
        offset = first_offset if number == first else SEGMENT_HEADER_SIZE
        while index < until_index:
            header = decode_header(view[offset : offset + ENTRY_HEADER_SIZE])
            if header is None:
                break  # behind the last entry of the segment, or damage, which shows below
            body_at, offset = offset + ENTRY_HEADER_SIZE, offset + ENTRY_HEADER_SIZE + header.body_size
            if header.index != index + 1 or header.log_id != log_id or offset > len(view):
                raise CorruptLog(
                    f"{segment_name(number)}, offset {body_at - ENTRY_HEADER_SIZE}: entry {index + 1} "
                    "was expected and is not there. Restore the file from a copy"
                )
            index = header.index
            if header.kind == EntryKind.EVENTS and header.count:
                sequence = header.first_sequence + header.count - 1
                (last,) = np.frombuffer(view[offset - EVENT_SIZE : offset], EVENT)
                timestamp_ns = int(last["timestamp_ns"])
            elif header.kind == EntryKind.CONTROL:
                body = view[body_at:offset]
                if not body_is_whole(header, body):
                    raise CorruptLog(f"{segment_name(number)}, offset {body_at}: entry {index} fails its checksum")
                currencies.update({known.code: known.decimals for known in decode_control_entry(body).currencies})
    if index != until_index:
        raise CorruptLog(
            f"{directory.path}: entry {index + 1} of {until_index} is not where it must be; see bezant doctor"
        )
    return Survey(public_log_id(log_id), index, sequence, timestamp_ns, currencies)
