"""A log whose beginning is not there yet: its node began with the state of its group, and gets the history behind it.

The segments below a number may be missing; a file beside them says so, and what number. It is written before the first
of them is missed and removed when all have come, from the last one down. So any other gap is damage, as ever. What is
known of the missing ones comes from the checkpoint that the log is opened behind.
"""

import struct
from collections.abc import Sequence
from typing import Final

import xxhash

from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog
from bezant.protocol.records import LOG_FORMAT_VERSION

INCOMPLETE_NAME: Final = "incomplete"
_MARK: Final = struct.Struct("<8siiq")
_CHECKSUM: Final = struct.Struct("<Q")
_MAGIC: Final = b"BZNTINCO"


def mark_incomplete(directory: Directory, shard: int, first_segment: int) -> None:
    """Say, durably, that segments below this number may be missing. Raises `StorageError`."""
    mark = _MARK.pack(_MAGIC, LOG_FORMAT_VERSION, shard, first_segment)
    data = mark + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(mark))
    directory.write_file(INCOMPLETE_NAME, [data])


def first_segment_required(directory: Directory, shard: int) -> int:
    """The number below which segments may be missing; 1 if none may. Raises `CorruptLog`."""
    if INCOMPLETE_NAME not in directory.names():
        return 1
    file = directory.open(INCOMPLETE_NAME, writable=False)
    try:
        data = file.read(_MARK.size + _CHECKSUM.size, 0)
    finally:
        file.close()
    mark = data[: _MARK.size]
    if len(data) == _MARK.size + _CHECKSUM.size and data[_MARK.size :] == _CHECKSUM.pack(
        xxhash.xxh3_64_intdigest(mark)
    ):
        magic, version, of_shard, first_segment = _MARK.unpack(mark)
        if (magic, version, of_shard) == (_MAGIC, LOG_FORMAT_VERSION, shard) and first_segment >= 1:
            return int(first_segment)
    raise CorruptLog(f"{file.path}: it does not say, as it should, from where on the log is here")


def count_missing(numbers: Sequence[int], first_required: int) -> int:
    """How many segments at the beginning are not there, as they may be; -1 if another is missing.

    `first_required` must be asked for before the segments are listed: they may come meanwhile.
    """
    first = numbers[0] if numbers else 1
    is_whole = list(numbers) == list(range(first, first + len(numbers)))
    return first - 1 if is_whole and first <= first_required else -1
