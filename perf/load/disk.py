"""Bytes that a data folder uses on the disk, leaving out the zeros that the log makes ahead of need."""

from pathlib import Path
from typing import Final

import numpy as np
import xxhash

from bezant.protocol.records import CONTROL_MAGIC, CONTROL_PAGE, CONTROL_PAGE_SIZE
from bezant.protocol.statistics import Statistics

_CONTROL_NAME: Final = "control"
_SEGMENT_PREFIX: Final = "segment-"
_UNFINISHED_SUFFIX: Final = ".new"
_CHECKSUM_SIZE: Final = 8


def bytes_in_use(data: str, statistics: Statistics) -> int:
    """Bytes that a node uses: of its data folder, or of its log by its own count if the folder cannot be seen ("")."""
    return used_bytes(Path(data)) if data else statistics.log_bytes


def used_bytes(data: Path) -> int:
    """Bytes used by a data folder whose log is at rest.

    Segments behind the last one in use count whole, with the rest that no entry fitted into; the last one counts up to
    the end of its entries; segments that wait for their turn do not count; all other files do.
    """
    return sum(_folder_bytes(folder) for folder in (data, *data.rglob("*")) if folder.is_dir())


def _folder_bytes(folder: Path) -> int:
    segment, offset = _end_of_log(folder / _CONTROL_NAME)
    total = 0
    for path in folder.iterdir():
        if not path.is_file() or path.name.endswith(_UNFINISHED_SUFFIX):
            continue
        size = path.stat().st_size
        if path.name.startswith(_SEGMENT_PREFIX):
            number = int(path.name.removeprefix(_SEGMENT_PREFIX))
            size = size if number < segment else offset if number == segment else 0
        total += size
    return total


def _end_of_log(control: Path) -> tuple[int, int]:
    """(segment number, offset in it) where the log ends, by the newest whole page of its control file."""
    if not control.is_file():
        return 0, 0
    content = control.read_bytes()
    newest = np.zeros((), CONTROL_PAGE)
    for start in range(0, len(content) - CONTROL_PAGE_SIZE + 1, CONTROL_PAGE_SIZE):
        raw = content[start : start + CONTROL_PAGE_SIZE]
        page = np.frombuffer(raw, CONTROL_PAGE)[0]
        whole = page["magic"] == CONTROL_MAGIC and page["checksum"] == xxhash.xxh3_64_intdigest(raw[_CHECKSUM_SIZE:])
        if whole and page["write_count"] > newest["write_count"]:
            newest = page
    return int(newest["durable_segment"]), int(newest["durable_offset"])
