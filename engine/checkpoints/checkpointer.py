"""Makes the next checkpoint out of the last one and the entries since, by executing them again.

That is a second, independent execution of every command: an event that comes out different is found here.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np

from bezant.engine.checkpoints.file import Manifest, write_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.checkpoints.run_list import RUN_NUMBER_FIRST, RunList
from bezant.engine.ids.run import RunIdentity, write_run
from bezant.engine.ids.run_set import RunSet, open_runs
from bezant.engine.ledger.cold import latest_time_ms_of_events
from bezant.engine.ledger.image import IMAGE_TRY
from bezant.engine.ledger.ledger import FetchEvents, Ledger
from bezant.engine.ledger.state import ROW, ROW_COLD, UNSETTLED
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.replay import read_configuration, replay_entry
from bezant.protocol.errors import LedgerError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT

ACCOUNT_BYTES: Final = ROW.itemsize + ROW_COLD.itemsize
HOLD_BYTES: Final = IMAGE_TRY.itemsize
ID_BYTES: Final = 20
"""Bytes of a run for each id: 16, and its share of filter, fences and checksums."""
CHECKPOINT_BYTES_MIN: Final = 1 << 20


class LedgerSettings(msgspec.Struct, frozen=True):
    """Sizes of a ledger with bounded ids: accounts, open holds, slots of a table of ids."""

    accounts_max: int
    holds_max: int
    generation_capacity: int


class Restored(NamedTuple):
    """A ledger as the newest checkpoint has it, or a new one; and that checkpoint."""

    ledger: Ledger
    runs: RunSet
    manifest: Manifest | None

    @property
    def point(self) -> ResumePoint | None:
        """Where the log goes on; None: at its beginning."""
        return None if self.manifest is None else self.manifest.point


def restore_ledger(
    folder: CheckpointFolder,
    settings: LedgerSettings,
    fetch_events: FetchEvents,
    *,
    shard: int,
    filter_bytes_max: int,
    salts: tuple[int, int] | None = None,
) -> Restored:
    """Build a ledger from the newest checkpoint that is whole, and has these `salts` if there are any given.

    Raises `StorageError` if there is no room for what a checkpoint has.
    """
    found = folder.find_newest(shard, filter_bytes_max, salts)
    ledger = Ledger(
        shard=shard,
        accounts_max=settings.accounts_max,
        holds_max=settings.holds_max,
        generation_capacity=settings.generation_capacity,
        salts=salts if found is None else found.checkpoint.manifest.salts,
        fetch_events=fetch_events,
    )
    if found is None:
        return Restored(ledger, RunSet(()), None)
    ledger.restore(found.checkpoint.image)
    ledger.cold_ids = found.runs
    return Restored(ledger, found.runs, found.checkpoint.manifest)


class Checkpointer:
    """Takes entries into a ledger, and writes a checkpoint when told. The folder's lock is the caller's to hold."""

    def __init__(
        self,
        restored: Restored,
        log: Log,
        folder: CheckpointFolder,
        *,
        shard: int,
        filter_bytes_max: int,
        free_space_floor: int,
    ) -> None:
        """`free_space_floor`: bytes that must stay free on the disk, as for the log."""
        manifest = restored.manifest
        self.ledger = restored.ledger
        self.runs = restored.runs
        self._log = log
        self._folder = folder
        self._shard = shard
        self._filter_bytes_max = filter_bytes_max
        self._free_space_floor = free_space_floor
        self._list = RunList(
            folder.directory,
            () if manifest is None else manifest.runs,
            RUN_NUMBER_FIRST if manifest is None else manifest.run_number_next,
        )
        self._time_ms_max = 0
        self._configuration = None if manifest is None else manifest.configuration
        self.slot_map = None if manifest is None else manifest.slot_map
        self.ledger.replaying = True

    def take_in(self, entry: Entry) -> None:
        """Execute an entry of the history again. Raises `CorruptLog` if something else comes out."""
        self.slot_map = replay_entry(self.ledger, entry) or self.slot_map
        configuration = read_configuration(entry)
        if configuration is not None:
            self._configuration = (entry.header.index, configuration)
        if entry.header.kind == EntryKind.EVENTS:
            self._time_ms_max = max(self._time_ms_max, latest_time_ms_of_events(np.frombuffer(entry.body, EVENT)))

    def write(self) -> Manifest:
        """Write the checkpoint behind the last entry taken in. Raises `StorageError`, and may then be tried again."""
        point = self._log.resume_point()
        if point is None or point.next_sequence != self.ledger.next_sequence:
            raise LedgerError("a checkpoint stands behind the last entry that its ledger has taken in")
        directory, identity = self._folder.directory, self._identity()
        self._check_space()
        hashes, values = self.ledger.generations.items()
        if len(hashes):
            number = self._list.take_number()
            self._list.add(write_run(directory, identity, number, hashes, values, self._time_ms_max))
            # It counts from here on: were the rest to fail, the next try must not write these ids again.
            self.ledger.generations.clear()
            self._time_ms_max = 0
        self.runs = open_runs(directory, identity, self._list.infos, self._filter_bytes_max, self.runs)
        self.ledger.cold_ids = self.runs
        image = self.ledger.image()
        manifest = write_checkpoint(
            directory,
            checkpoint_name(point.index),
            image,
            shard=self._shard,
            point=point,
            salts=self.ledger.salts,
            runs=self._list.infos,
            run_number_next=self._list.number_next,
            state_digest=self.ledger.digest(image),
            configuration=self._configuration,
            slot_map=self.slot_map,
        )
        self._folder.note_written(manifest)
        self._folder.clean(self._list.numbers)
        return manifest

    def _check_space(self) -> None:
        """Raise `StorageError` if a checkpoint might take what must stay free."""
        size = ACCOUNT_BYTES * self.ledger.account_count + HOLD_BYTES * self.ledger.hold_count
        size += UNSETTLED.itemsize * self.ledger.unsettled_count
        size += ID_BYTES * self.ledger.generations.key_count + CHECKPOINT_BYTES_MIN
        free = self._folder.directory.free_bytes()
        if free < size + self._free_space_floor:
            raise StorageError(
                f"{self._folder.directory.path}: {free} bytes are free; a checkpoint needs {size} and "
                f"{self._free_space_floor} must stay free. Make room on the disk; the node goes on by itself"
            )

    def merge_step(self) -> bool:
        """Do a little of the merging of runs that is due; False if none is. The next checkpoint lists what came out."""
        return self._list.merge_step(self._identity())

    def close(self) -> None:
        """Give up what is under way."""
        self._list.close()

    def _identity(self) -> RunIdentity:
        return RunIdentity(self._shard, self._log.log_id, *self.ledger.salts)
