"""Recovery's walk over a log, for a report: it also tells the place where it stopped, and what lay there."""

import errno
import os
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.entry import Entry
from bezant.engine.log.recovery import Walk
from bezant.engine.log.segment import Segment
from bezant.engine.replay import apply_control, check_header
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT, SEQUENCE_FIRST

_CHUNK_SIZE: Final = 4 << 20


class Stop(NamedTuple):
    """Where a walk could not go on: what lay there, which index should have, and what proves that it was durable."""

    segment: str
    offset: int
    problem: str
    entry_index: int
    proof: str = ""


class _Registry(Ledger):
    """What control entries say; how far the history is it is told, as it executes nothing."""

    sequence_told = SEQUENCE_FIRST

    @property
    def next_sequence(self) -> int:
        """Sequence of the next event."""
        return self.sequence_told


class Sequel:
    """What must come next in a history, by headers and control entries alone: commands are not executed."""

    def __init__(self, shard: int) -> None:
        self._last_timestamp_ns = 0
        self._registry = _Registry(accounts_max=1, holds_max=1, ids_capacity_initial=2, shard=shard)

    def take_in(self, entry: Entry) -> None:
        """Check an entry as a replay does, and go on behind it. Raises `CorruptLog`, `UnsupportedFormat`."""
        header = entry.header
        check_header(header, self._registry.next_sequence, self._last_timestamp_ns, self._registry.rules_version)
        if header.kind == EntryKind.CONTROL:
            apply_control(self._registry, entry)
        elif header.kind == EntryKind.EVENTS:
            self._last_timestamp_ns = int(np.frombuffer(entry.body, EVENT)[-1]["timestamp_ns"])
            self._registry.sequence_told += header.count


def holds_data(path: Path, start: int) -> bool:
    """Whether anything but zeros lies in a file from an offset on; holes, however large, are not read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        while start < size:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            for offset in range(start, end, _CHUNK_SIZE):
                if any(os.pread(descriptor, min(_CHUNK_SIZE, end - offset), offset)):
                    return True
            start = end
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data behind the offset
            raise
    finally:
        os.close(descriptor)
    return False


class ExaminingWalk(Walk):
    """A walk that also remembers where it stopped; all decisions are those of `Walk`."""

    refused: Stop | None = None

    @property
    def torn(self) -> Stop | None:
        """Where the torn tail begins, if the walk found one."""
        if self._torn is None:
            return None
        segment, offset = self._torn
        return Stop(segment.name, offset, self._problem, self.next_index)

    def _rot(self, segment: Segment, why: str) -> str:
        offset = self._torn[1] if self._torn is not None else segment.end
        self.refused = Stop(segment.name, offset, self._problem, self.next_index, why)
        return super()._rot(segment, why)

    def _check_known(self, segment: Segment, entry: Entry, offset: int) -> None:
        self.refused = Stop(segment.name, offset, "an entry that is not known here", entry.header.index)
        super()._check_known(segment, entry, offset)
        self.refused = None
