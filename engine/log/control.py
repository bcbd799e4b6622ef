"""The control file: two pages, written in turn after each sync, that say how far the log is durable.

A page is written without syncing it (a sync of its own would double the cost of every group); it is synced at a clean
stop. So it outlives a killed process as it was, and a power loss perhaps in an older state, never a wrong one: a torn
page fails its checksum and the other one counts.
"""

import struct
from typing import Final, NamedTuple

import xxhash

from bezant.engine.log.checking import check_format
from bezant.engine.log.storage import Directory
from bezant.protocol.records import CONTROL_MAGIC, CONTROL_PAGE_SIZE, LOG_FORMAT_VERSION

CONTROL_NAME: Final = "control"
_PAGE: Final = struct.Struct("<Q8siiqqqqqqiiq")
_CHECKSUM: Final = struct.Struct("<Q")


class Watermark(NamedTuple):
    """What a control page says; fields as in `CONTROL_PAGE`."""

    write_count: int = 0
    durable_index: int = 0
    durable_sequence: int = 0
    durable_segment: int = 0
    durable_offset: int = 0
    clean_stop: int = 0
    cutting: int = 0
    commit_index: int = 0

    def is_clean_stop_at(self, index: int) -> bool:
        """Whether the node stopped cleanly behind this entry, the last one that was found.

        A power cut may leave the page of an earlier stop, and entries behind it.
        """
        return bool(self.clean_stop) and self.durable_index == index


class ControlFile:
    """Reads and writes the watermark of one log."""

    def __init__(self, directory: Directory, *, shard: int, log_id: int, writable: bool) -> None:
        self._shard = shard
        self._log_id = log_id
        self._file = directory.open(CONTROL_NAME, writable=writable)
        self._page = bytearray(CONTROL_PAGE_SIZE)

    @staticmethod
    def create(directory: Directory) -> None:
        """Make an empty control file, durably."""
        directory.create_file(CONTROL_NAME, 2 * CONTROL_PAGE_SIZE)

    @staticmethod
    def was_written(directory: Directory) -> bool:
        """Whether there is a control file that was ever written to, by whatever version."""
        if CONTROL_NAME not in directory.names():
            return False
        file = directory.open(CONTROL_NAME, writable=False)
        try:
            return any(file.read(file.size(), 0))
        finally:
            file.close()

    def read(self) -> Watermark:
        """The newest whole page of this log; all zeros if there is none. Raises `UnsupportedFormat`."""
        newest = Watermark()
        for number in range(2):
            page = self._file.read(CONTROL_PAGE_SIZE, number * CONTROL_PAGE_SIZE)
            if len(page) != CONTROL_PAGE_SIZE:
                continue
            checksum, magic, version, shard, log_id, *rest = _PAGE.unpack_from(page)
            if magic != CONTROL_MAGIC or xxhash.xxh3_64_intdigest(page[_CHECKSUM.size :]) != checksum:
                continue
            check_format(version, str(self._file.path))
            if log_id == self._log_id and shard == self._shard and rest[0] > newest.write_count:
                newest = Watermark(*rest)
        return newest

    def write(self, watermark: Watermark) -> None:
        """Write a watermark over the older page."""
        page = self._page
        _PAGE.pack_into(page, 0, 0, CONTROL_MAGIC, LOG_FORMAT_VERSION, self._shard, self._log_id, *watermark)
        _CHECKSUM.pack_into(page, 0, xxhash.xxh3_64_intdigest(memoryview(page)[_CHECKSUM.size :]))
        self._file.write([page], watermark.write_count % 2 * CONTROL_PAGE_SIZE)

    def sync(self) -> None:
        """Make what was written durable."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
