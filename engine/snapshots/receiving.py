"""The member's side: copies the state that it was offered, and verifies all of it before anything counts.

    checkpoint -> runs of ids -> entries of its segment -> verified -> ready to be installed

A part whose checksum is wrong is refused and asked for again, from where the file is whole. When the leader falls
silent, or another one offers something else, what has arrived is given up; the same offer again goes on where it was.
"""

import enum
from collections import deque
from collections.abc import Callable
from typing import Final

from bezant.engine.checkpoints.check import check_run
from bezant.engine.checkpoints.checkpointer import LedgerSettings
from bezant.engine.checkpoints.file import Manifest, read_checkpoint
from bezant.engine.checkpoints.folder import checkpoint_name
from bezant.engine.ids.run import run_name
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.segment import SEGMENT_SIZE_MAX, SegmentHeader
from bezant.engine.log.storage import Directory
from bezant.engine.snapshots.entries import EntriesFetch
from bezant.engine.snapshots.jobs import Jobs
from bezant.engine.snapshots.making import FileMaker, SegmentMaker
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.records import SEGMENT_HEADER_SIZE
from bezant.protocol.transfer_messages import PART_SIZE_MAX, PARTS_ASKED_MAX, PartReply, SnapshotOffer, checksum_of

BYTES_PER_TICK: Final = 1 << 20
"""Bytes of files that are asked for in a tick, at most: 100 MB/s."""
RETRY_TICKS: Final = 50
"""Ticks without a part after which it is asked for again."""
SILENCES_MAX: Final = 10
"""Questions in a row that nobody has answered, after which it is given up."""
CORRUPT_PARTS_MAX: Final = 10
"""Parts with a wrong checksum after which it is given up."""


class Phase(enum.IntEnum):
    """What is being done."""

    FILES = 0
    ENTRIES = 1
    VERIFYING = 2
    READY = 3


class Facts:
    """What a state must be like to fit this node, and how large its own files and tables are."""

    def __init__(
        self, log_id: int, shard: int, segment_size: int, ledger: LedgerSettings, free_space_floor: int
    ) -> None:
        self.log_id = log_id
        self.shard = shard
        self.segment_size = segment_size
        self.ledger = ledger
        self.free_space_floor = free_space_floor


class Receiver:
    """One state that is being copied. `ask_part` takes (run, offset, size), `ask_entries` (first, last index)."""

    def __init__(
        self,
        offer: SnapshotOffer,
        directory: Directory,
        facts: Facts,
        jobs: Jobs,
        *,
        ask_part: Callable[[int, int, int], None],
        ask_entries: Callable[[int, int], None],
    ) -> None:
        """`directory` is empty, and nobody else's. Raises `StorageError` if there is no room on the disk."""
        self.offer = offer
        self.phase = Phase.FILES
        self.corrupt_parts = 0
        self._directory = directory
        self._facts = facts
        self._jobs = jobs
        self._ask_part = ask_part
        self._ask_entries = ask_entries
        self._manifest: Manifest | None = None
        self._waiting: deque[tuple[int, str, int]] = deque()
        self._entries: EntriesFetch | None = None
        self._silent_ticks = self._silences = 0
        self._check_room(offer.size)
        self._begin_file(0, checkpoint_name(offer.index), offer.size)

    def _check_room(self, size: int) -> None:
        free, floor = self._directory.free_bytes(), self._facts.free_space_floor
        if free < size + floor:
            raise StorageError(
                f"{self._directory.path}: {free} bytes are free; the state of the group needs {size} and {floor} must "
                "stay free. Make room on the disk"
            )

    def _begin_file(self, run: int, name: str, size: int) -> None:
        self._run, self._size, self._name = run, size, name
        self._offset = self._asked = 0
        self._file: FileMaker | None = FileMaker(self._directory, name)

    @property
    def manifest(self) -> Manifest:
        """That of the checkpoint, once it has come. Raises `StorageError` before."""
        if self._manifest is None:
            raise StorageError("the checkpoint has not come yet")
        return self._manifest

    # ---- time ----

    def on_tick(self) -> None:
        """Go on. Raises `StorageError` and its kinds, `RemoteProtocolError`: then it must be discarded."""
        self._jobs.poll()
        if self.phase is Phase.FILES:
            self._on_tick_of_files()
        elif self.phase is Phase.ENTRIES and self._entries is not None:
            self._entries.on_tick(may_ask=True)
            self._check_silences(self._entries.silences)
            if self._entries.is_refused:
                raise StorageError("the leader does not have the entries before its own state")
            if self._entries.is_done:
                self.phase = Phase.VERIFYING
                self._jobs.add(self._verify)
        elif self.phase is Phase.VERIFYING and self._jobs.is_idle:
            self.phase = Phase.READY

    def _check_silences(self, silences: int) -> None:
        if silences > SILENCES_MAX:
            raise StorageError("the leader does not answer any more")

    def _on_tick_of_files(self) -> None:
        if self._offset == self._size:
            if self._jobs.is_idle:
                self._next_file()
            return
        self._silent_ticks += 1
        if self._silent_ticks > RETRY_TICKS:
            self._silent_ticks, self._silences = 0, self._silences + 1
            self._check_silences(self._silences)
            self._asked = self._offset
        if self._asked == self._offset and self._jobs.has_room:
            size = min(self._size - self._offset, PARTS_ASKED_MAX * PART_SIZE_MAX, BYTES_PER_TICK)
            self._asked = self._offset + size
            self._ask_part(self._run, self._offset, size)

    def _next_file(self) -> None:
        """A file has come, durably: begin with the next one, or with the entries when there is none."""
        self._file = None
        if self._run == 0:
            self._jobs.add(self._read_manifest)
            self._run, self._offset = -1, self._size
        elif self._waiting:
            self._begin_file(*self._waiting.popleft())
        else:
            self._entries = EntriesFetch(self._begin_segment(), self._jobs, self._ask_entries)
            self.phase = Phase.ENTRIES

    def _read_manifest(self) -> None:
        """Check the checkpoint, and learn what else there is to copy."""
        manifest, offer, facts = read_checkpoint(self._directory, self._name).manifest, self.offer, self._facts
        point = manifest.point
        if (manifest.shard, point.log_id) != (facts.shard, facts.log_id):
            raise CorruptLog("the state is one of another group's log")
        if (point.index, point.term) != (offer.index, offer.index_term) or not point.segments[-1].offsets:
            raise CorruptLog(f"the state is not the one behind entry {offer.index} of term {offer.index_term}")
        self._check_room(sum(info.size_bytes for info in manifest.runs) + self._segment_header(manifest).segment_size)
        self._waiting.extend((info.number, run_name(info.number), info.size_bytes) for info in manifest.runs)
        self._manifest = manifest

    def _segment_header(self, manifest: Manifest) -> SegmentHeader:
        return segment_header(self._facts, manifest.point.segment_number, manifest.point.end_offset)

    def _begin_segment(self) -> SegmentMaker:
        point, header = self.manifest.point, self._segment_header(self.manifest)
        return SegmentMaker(
            self._directory, header, point.segments[-1], last_index=point.index, last_hash=point.chain_hash
        )

    def _verify(self) -> None:
        """Check all of the state: every byte of the runs, and that the ledger is the one that the leader had."""
        manifest, settings = self.manifest, self._facts.ledger
        for info in manifest.runs:
            check_run(self._directory, manifest.identity, info)
        checkpoint = read_checkpoint(self._directory, checkpoint_name(self.offer.index))
        ledger = Ledger(
            shard=self._facts.shard,
            accounts_max=settings.accounts_max,
            holds_max=settings.holds_max,
            salts=manifest.salts,
        )
        ledger.restore(checkpoint.image)
        if ledger.digest() != manifest.state_digest:
            raise CorruptLog(f"the state behind entry {self.offer.index} is another one than its digest says")

    # ---- what comes ----

    def on_part(self, message: PartReply, part: memoryview) -> None:
        """A part of a file has come. Raises as `on_tick`."""
        if self.phase is not Phase.FILES or (message.run, message.offset) != (self._run, self._offset):
            return
        if not len(part):
            raise StorageError("the leader does not have this state any more")
        if self._file is None or self._offset in {self._size, self._asked}:
            return  # It was not asked for: whoever sends it does not keep to the pace that this node can hold.
        if checksum_of(part) != message.checksum or len(part) > self._size - self._offset:
            self._note_corrupt()
            return
        self._silent_ticks = self._silences = 0
        self._jobs.add(self._file.add, part)
        self._offset += len(part)
        if self._offset == self._size:
            self._jobs.add(self._file.finish)

    def _note_corrupt(self) -> None:
        """Ask again from where the file is whole, if that happens seldom."""
        self.corrupt_parts += 1
        if self.corrupt_parts > CORRUPT_PARTS_MAX:
            raise StorageError(f"{self.corrupt_parts} parts of the state came damaged")
        self._asked = self._offset

    def on_entries(self, first_index: int, entries: memoryview) -> None:
        """Entries have come. Raises as `on_tick`."""
        if self.phase is Phase.ENTRIES and self._entries is not None:
            self._entries.on_reply(first_index, entries)

    def discard(self) -> None:
        """Give it up; what lies in the folder may be removed."""
        self._jobs.drop()
        if self._entries is not None:
            self._entries.discard()
        elif self._file is not None:
            self._file.discard()
            self._file = None


def segment_header(facts: Facts, number: int, end: int) -> SegmentHeader:
    """That of a segment as large as this node makes them, or as large as its entries require."""
    size = max(facts.segment_size, end + -end % SEGMENT_HEADER_SIZE)
    if size > SEGMENT_SIZE_MAX:
        raise CorruptLog(f"segment {number} would have {size} bytes; one has {SEGMENT_SIZE_MAX} at most")
    return SegmentHeader(facts.shard, facts.log_id, number, size)
