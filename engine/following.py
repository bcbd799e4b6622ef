"""A log that another process writes, opened to read, and followed as far as that process has published.

Works on the folder of a running node, whatever its role, and on a folder at rest. What is taken is verified: checksums
and the chain of hashes, entry by entry. One thread takes; any others may read events back meanwhile.
"""

import threading
from pathlib import Path
from typing import Final

from bezant.engine.log.control import ControlFile
from bezant.engine.log.entry import Entry, public_log_id
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import read_segment_header, segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.publication import Publication
from bezant.protocol.errors import ArchiveUnavailable, HistoryIncomplete, StorageError
from bezant.protocol.records import ENTRY_HEADER_SIZE, Records, Words

BATCH_BYTES_MAX: Final = 2 << 20
"""Bytes of entries after which a batch is full: verifying them takes some 2 ms."""
BATCH_ENTRIES_MAX: Final = 256
"""Entries in a batch: each costs some 20 us, however small it is."""


class Follower:
    """See the module. Made by `open_follower`."""

    def __init__(self, directory: Directory, shard: int, log_id: int) -> None:
        self.shard = shard
        self.log_id = log_id
        self.log: Log = open_log(directory, shard=shard, writable=False)
        """Use nothing of it but `resume_point`: events are read back with `read_events`, entries with `read_entry`."""
        self.publication = Publication(Path(directory.path), log_id)
        self.applied_index = 0
        """The last entry that was taken, or that the following began behind."""
        self._reading = threading.Lock()
        self._directory = directory
        self._published_index = self._index_at_rest()
        self._is_open = False

    @property
    def public_id(self) -> str:
        """Which log this is, for anyone to know."""
        return public_log_id(self.log_id)

    @property
    def published_index(self) -> int:
        """How far may be read now. Never less than before: what is committed stays."""
        self._published_index = max(self._published_index, self.publication.index)
        return self._published_index

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event that was taken, or that the following began behind."""
        return self.log.durable_sequence

    def _index_at_rest(self) -> int:
        """What the control page knows to be committed and durable: of a folder whose node stopped, everything."""
        control = ControlFile(self._directory, shard=self.shard, log_id=self.log_id, writable=False)
        try:
            watermark = control.read()
        finally:
            control.close()
        return min(watermark.durable_index, watermark.commit_index)

    def begin(self, start: ResumePoint | None = None) -> None:
        """Begin behind this entry, or at the first. To be called once, before all else, and again if the archive could
        not be had. Raises `CorruptLog`, `ArchiveUnavailable`, `HistoryIncomplete`."""
        self._is_open = True
        self.applied_index = 0 if start is None else start.index
        for _ in self.log.open(start, self.applied_index):
            raise StorageError("an entry came from before the place where the log was to be followed from")

    def take(self, bytes_max: int = BATCH_BYTES_MAX) -> list[Entry]:
        """The next entries that are published, in order; none if there is nothing new.

        Bodies are parts of the mapped files. Raises `CorruptLog`, `UnsupportedFormat`, `StorageError`; after
        `ArchiveUnavailable` it can be called again.
        """
        entries: list[Entry] = []
        size_bytes, until_index = 0, self.published_index
        try:
            for entry in self.log.follow(until_index):
                entries.append(entry)
                size_bytes += ENTRY_HEADER_SIZE + entry.header.body_size
                if size_bytes >= bytes_max or len(entries) == BATCH_ENTRIES_MAX:
                    break
        except (ArchiveUnavailable, HistoryIncomplete):
            if not entries:  # Or they would be lost; the next call raises it again.
                raise
        if entries:
            self.applied_index = entries[-1].header.index
            for _ in self.log.follow(self.applied_index):  # nothing; it makes the last entry one that can be read back
                raise StorageError("an entry came that was taken before")
        return entries

    def read_events(self, sequences: Words, check_bodies: bool = True) -> Records:
        """Events up to `last_sequence`, as `Log.read_events` gives them. Of several threads one at a time is served,
        but nobody waits while another has an archived segment fetched."""
        self.log.fetch_archived(sequences)
        with self._reading:
            return self.log.read_events(sequences, check_bodies)

    def is_archived(self, sequence: int) -> bool:
        """Whether an event, as far as is known, has left the disk for an archive: to read it may take long."""
        segments = self.log.segments
        count = min(len(self.log.archive.segments), len(segments) - 1)
        return 0 < sequence < segments[count].first_sequence if count > 0 else False

    def read_entry(self, index: int) -> Entry:
        """A copy of an entry that was taken, verified. Served as `read_events` are; raises as `Log.read_entry`."""
        self.log.fetch_archived_entry(index)
        with self._reading:
            return self.log.read_entry(index)

    def close(self) -> None:
        """Let go of the files."""
        self.publication.close()
        self.log.close()


def open_follower(directory: Directory, shard: int = 0) -> Follower | None:
    """Follow the log in the folder of a shard; None if there is none yet. Raises `CorruptLog`, `StorageError`."""
    numbers = segment_numbers(directory) if directory.path.is_dir() else []
    if not numbers:
        return None
    # The last one does not leave for an archive meanwhile.
    return Follower(directory, shard, read_segment_header(directory, numbers[-1]).log_id)
