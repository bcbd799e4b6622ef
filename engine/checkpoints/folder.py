"""The folder ``checkpoints`` of a shard: which files are there, which count, and which may go."""

import re
import time
from typing import Final, NamedTuple

from bezant.engine.checkpoints.cuts import (
    CUTS_KEPT_MAX,
    CUTS_SHARE_OF_LOG,
    cut_name,
    cuts_to_keep,
    parse_cut_name,
)
from bezant.engine.checkpoints.file import Checkpoint, Manifest, read_checkpoint, read_manifest
from bezant.engine.ids.run import RUN_NAME, run_name
from bezant.engine.ids.run_set import RunSet, open_runs
from bezant.engine.log.storage import Directory, FolderLock
from bezant.protocol.errors import CorruptLog, DataFolderInUse, StorageError

FOLDER_NAME: Final = "checkpoints"
CHECKPOINTS_KEPT: Final = 2
"""The newest one, and the one before it in case that is damaged."""
LOCK_WAIT_S: Final = 10.0
"""Seconds that a start waits for the child of a node that has just died to notice it."""
_LOCK_POLL_S: Final = 0.05
CHECKPOINT_NAME: Final = re.compile(r"checkpoint-(\d{10,})", re.ASCII)


def checkpoint_name(index: int) -> str:
    """File name of the checkpoint behind the entry with this index."""
    return f"checkpoint-{index:010d}"


class Found(NamedTuple):
    """A checkpoint to start from, with its runs of ids open."""

    checkpoint: Checkpoint
    runs: RunSet


class CheckpointFolder:
    """The checkpoints of one shard. Only the holder of its lock may write."""

    def __init__(self, shard_directory: Directory) -> None:
        self.directory = shard_directory.subdirectory(FOLDER_NAME)
        self.damaged: list[str] = []
        self._manifests: dict[int, Manifest] = {}

    def lock(self) -> FolderLock:
        """Keep others from writing here. Raises `DataFolderInUse`."""
        self.directory.create()
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return self.directory.lock()
            except DataFolderInUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_POLL_S)

    def indexes(self) -> list[int]:
        """Indexes of the checkpoints, damaged ones too, ascending."""
        try:
            names = self.directory.names()
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for match in map(CHECKPOINT_NAME.fullmatch, names) if match is not None)

    def find_newest(self, shard: int, filter_bytes_max: int, salts: tuple[int, int] | None = None) -> Found | None:
        """The newest checkpoint that is whole, with its runs; what is wrong with newer ones is added to `damaged`.

        With `salts` only one whose ids are hashed with these counts.
        """
        for index in reversed(self.indexes()):
            try:
                checkpoint = read_checkpoint(self.directory, checkpoint_name(index))
                manifest = checkpoint.manifest
                if manifest.point.index != index or manifest.shard != shard:
                    raise CorruptLog(f"{checkpoint_name(index)} stands behind another entry, or is of another shard")
                if salts is not None and manifest.salts != salts:
                    raise CorruptLog(f"{checkpoint_name(index)} has ids hashed with other salts than the node's")
                runs = open_runs(self.directory, manifest.identity, manifest.runs, filter_bytes_max)
            except (StorageError, OSError) as error:
                self.damaged.append(str(error))
                continue
            self._manifests = {index: manifest, **self._read_older(index)}
            return Found(checkpoint, runs)
        return None

    def _read_older(self, index: int) -> dict[int, Manifest]:
        """Manifests of the checkpoints before an index, so that `clean` keeps what they need."""
        manifests = {}
        for older in (number for number in self.indexes() if number < index):
            try:
                manifests[older] = read_manifest(self.directory, checkpoint_name(older))
            except StorageError as error:
                self.damaged.append(str(error))
        return manifests

    def open_written(self, index: int, filter_bytes_max: int, known: RunSet) -> tuple[Manifest, RunSet]:
        """A checkpoint that another process has written, for one that has its state: manifest and runs. On any thread.

        `known` are runs that are open already.
        """
        manifest = read_manifest(self.directory, checkpoint_name(index))
        return manifest, open_runs(self.directory, manifest.identity, manifest.runs, filter_bytes_max, known)

    def newest_manifest(self) -> Manifest:
        """The manifest of the newest checkpoint. Raises `StorageError` if there is none, or it is damaged."""
        indexes = self.indexes()
        if not indexes:
            raise StorageError(f"{self.directory.path} holds no checkpoint")
        return read_manifest(self.directory, checkpoint_name(indexes[-1]))

    @property
    def newest_known(self) -> Manifest | None:
        """The manifest of the newest checkpoint that has been read or noted here; None if there is none."""
        return self._manifests[max(self._manifests)] if self._manifests else None

    def note_written(self, manifest: Manifest) -> None:
        """Take notice of a checkpoint that has just been written."""
        self._manifests[manifest.point.index] = manifest

    def clean(self, spared_runs: frozenset[int]) -> None:
        """Remove what no checkpoint to be kept needs. `spared_runs`: numbers of runs that the next one will list."""
        kept = sorted(self._manifests)[-CHECKPOINTS_KEPT:]
        needed = set(spared_runs).union(*({info.number for info in self._manifests[index].runs} for index in kept))
        names = {checkpoint_name(index) for index in kept} | {run_name(number) for number in needed}
        names |= self._keep_cuts(kept)
        for name in self.directory.names():
            is_ours = CHECKPOINT_NAME.fullmatch(name) or RUN_NAME.fullmatch(name) or parse_cut_name(name)
            if name not in names and is_ours:
                self.directory.remove(name)
        self._manifests = {index: self._manifests[index] for index in kept}

    def cuts(self) -> dict[int, str]:
        """Names of the cuts, damaged ones too, by the sequence of the last event before each."""
        try:
            names = self.directory.names()
        except FileNotFoundError:
            return {}
        return {cut[1]: name for name in names if (cut := parse_cut_name(name)) is not None}

    def _keep_cuts(self, kept: list[int]) -> set[str]:
        """Make cuts of checkpoints that are not kept, where they lie well; names of all cuts that are to stay."""
        if not kept:
            return set()
        point = self._manifests[kept[-1]].point
        file = self.directory.open(checkpoint_name(kept[-1]), writable=False)
        try:
            size_bytes = file.size()
        finally:
            file.close()
        places = self.cuts()
        leaving = {self._manifests[index].point.next_sequence - 1: index for index in self._manifests.keys() - kept}
        count_max = min(CUTS_KEPT_MAX, point.bytes_count // CUTS_SHARE_OF_LOG // size_bytes)
        chosen = cuts_to_keep({*places, *leaving}, point.next_sequence - 1, count_max)
        for sequence in sorted(chosen - places.keys()):
            places[sequence] = cut_name(leaving[sequence], sequence)
            self.directory.rename(checkpoint_name(leaving[sequence]), places[sequence])
        return {places[sequence] for sequence in chosen}
