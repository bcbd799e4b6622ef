"""Segments made ahead of need, by a helper thread, so that nobody waits for zeros to reach the disk."""

from concurrent.futures import Future
from typing import Final

from bezant.engine.log.segment import Segment, SegmentHeader, create_segment
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import StorageError

SEGMENTS_PREPARED: Final = 2
"""Empty segments kept ready behind the one that is being written."""


class PreparedSegments:
    """The empty segments behind the one that is being written, and the thread that makes more of them."""

    def __init__(self, directory: Directory, *, shard: int, segment_size: int, free_space_floor: int) -> None:
        self._directory = directory
        self._shard = shard
        self._segment_size = segment_size
        self._free_space_floor = free_space_floor
        self._maker = directory.helper("bezant-segments")
        self._making: Future[Segment] | None = None
        self._leaving: Future[None] | None = None
        self._log_id = 0
        self._next_number = 0
        self.ready: list[Segment] = []

    def start(self, log_id: int, ready: list[Segment], next_number: int) -> None:
        """Begin with those that are there; the next one to be made gets this number."""
        self._log_id = log_id
        self._next_number = next_number
        self.ready = ready
        self.prepare()

    def have(self, size: int) -> bool:
        """Whether one with room for so many bytes is ready, waiting for it if none is.

        An attempt that was begun earlier may have failed for want of room that was made since: then there is one more.
        """
        begun_earlier = self._making is not None
        if not self.ready:
            self._collect(wait=True)
        if not self.ready and begun_earlier:
            self._collect(wait=True)
        return bool(self.ready) and self.ready[0].room >= size

    def take(self, size: int) -> Segment:
        """The next segment. Raises `StorageError` if none has room for so many bytes."""
        if not self.have(size):
            raise StorageError(f"{self._directory.path}: no segment has room for an entry of {size} bytes")
        return self.ready.pop(0)

    def give_back(self, segments: list[Segment]) -> None:
        """Have segments again that were taken, and are empty again: the last ones that were, in order."""
        self.ready[:0] = segments

    def prepare(self) -> None:
        """Have the helper thread make the next segment, unless enough are ready or one is being made."""
        self._collect(wait=False)
        if self._making is None and len(self.ready) < SEGMENTS_PREPARED:
            header = SegmentHeader(self._shard, self._log_id, self._next_number, self._segment_size)
            self._making = self._maker.submit(self._make, header)

    def _make(self, header: SegmentHeader) -> Segment:
        free = self._directory.free_bytes()
        if free < header.segment_size + self._free_space_floor:
            raise StorageError(
                f"{self._directory.path}: {free} bytes are free; a segment needs {header.segment_size} and "
                f"{self._free_space_floor} must stay free. Make room on the disk; the node goes on by itself"
            )
        create_segment(self._directory, header)
        segment = Segment(self._directory, header)
        segment.open_file()
        return segment

    def _collect(self, *, wait: bool) -> None:
        """Take over the segment that the helper thread has made."""
        if wait and self._making is None:
            self.prepare()
        making = self._making
        if making is None or not (wait or making.done()):
            return
        self._making = None
        error = making.exception()
        if error is None:
            self.ready.append(making.result())
            self._next_number += 1
        elif not isinstance(error, StorageError):
            raise error

    def leave_cache(self, segment: Segment) -> None:
        """Have the page cache forget a segment, when there is time for that."""
        leaving, self._leaving = self._leaving, self._maker.submit(segment.leave_cache)
        if leaving is not None and leaving.done():
            error = leaving.exception()
            if error is not None and not isinstance(error, OSError):  # Advice that was not taken costs only memory.
                raise error

    def close(self) -> None:
        """Wait for the helper thread, and close all files."""
        self._maker.shutdown(wait=True)
        self._collect(wait=False)
        for segment in self.ready:
            segment.close()
            segment.unmap()
