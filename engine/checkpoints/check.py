"""Compares checkpoints with the history that they were made from, while that is executed again, entry by entry.

A checkpoint that is not whole, or lacks a file of ids, is no failure of the history: a start passes over it. One that
is whole and says something else than the history is: whoever starts from it goes on from a wrong state.
"""

import secrets
from collections.abc import Iterable
from typing import Final

import numpy as np

from bezant.engine.checkpoints.file import Manifest, read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.ids.kernels import unpack_blocks
from bezant.engine.ids.merge import Merge
from bezant.engine.ids.run import ENTRIES_PER_BLOCK, ENTRIES_PER_CHUNK, RUN_IDS_MAX, RunIdentity, RunInfo
from bezant.engine.ids.run_set import Run
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.entry import Entry, entry_hash
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.records import Words

HOW_TO_REPAIR: Final = (
    "the history itself verifies up to there: stop the node, remove the folder `checkpoints` and start again"
)


class CheckpointCheck:
    """The checkpoints of a shard, each compared when its entry has been executed.

    `damaged` says what is wrong with those that a start would pass over; `compared` counts the others. Memory: the
    arrays of one checkpoint while it is read, and 8 MiB.
    """

    def __init__(self, folder: CheckpointFolder, shard: int) -> None:
        self.shard = shard
        self.damaged: list[str] = []
        self.compared = 0
        self._folder = folder
        self._manifests: dict[int, Manifest] = {}
        checked: set[RunInfo] = set()
        for index in folder.indexes():
            try:
                manifest = read_checkpoint(folder.directory, checkpoint_name(index)).manifest
                if (manifest.point.index, manifest.shard) != (index, shard):
                    raise CorruptLog(f"{checkpoint_name(index)} stands behind another entry, or is of another shard")
                for info in manifest.runs:
                    if info not in checked:
                        check_run(folder.directory, manifest.identity, info)
                        checked.add(info)
            except (StorageError, OSError) as error:
                self.damaged.append(str(error))
            else:
                self._manifests[index] = manifest

    @property
    def manifests(self) -> dict[int, Manifest]:
        """Those that are whole and have not been compared yet, by index."""
        return dict(self._manifests)

    @property
    def salts(self) -> tuple[int, int] | None:
        """What the ids of the newest checkpoint are hashed with, and a ledger's must be that they can be compared."""
        return self._manifests[max(self._manifests)].salts if self._manifests else None

    def note(self, ledger: Ledger, entry: Entry) -> None:
        """Compare the checkpoint behind an entry that has just been executed. Raises `CorruptLog`."""
        index = entry.header.index
        manifest = self._manifests.pop(index, None)
        if manifest is None:
            return
        point = manifest.point
        if (point.log_id, point.chain_hash) != (entry.header.log_id, entry_hash(entry.encoded, entry.body)):
            raise self._differs(index, f"was made of another history: its entry {index} is another one")
        if manifest.state_digest != ledger.digest():
            raise self._differs(index, f"has another state than the history leads to at entry {index}")
        is_newest = not self._manifests
        if is_newest and manifest.salts == ledger.salts and sum(info.count for info in manifest.runs) <= RUN_IDS_MAX:
            self._compare_ids(ledger, manifest)
        self.compared += 1

    def _compare_ids(self, ledger: Ledger, manifest: Manifest) -> None:
        """Compare all ids up to the checkpoint with those of the ledger, in whatever order both have them."""
        multipliers = np.array([secrets.randbits(63) * 2 + 1 for _ in range(4)], np.uint64)
        merge = Merge(self._folder.directory, manifest.identity, manifest.runs, 0)
        stored = _fingerprint(((part[:, 0], part[:, 1]) for part in merge.parts()), multipliers)
        if stored != _fingerprint(ledger.id_index.parts(), multipliers):
            raise self._differs(
                manifest.point.index, f"lists other ids than the history has up to entry {manifest.point.index}"
            )

    def finish(self, last_index: int) -> None:
        """No entry follows. Raises `CorruptLog` if a checkpoint stands behind one that is not there."""
        for index in self._manifests:
            path = self._folder.directory.path / checkpoint_name(index)
            raise CorruptLog(
                f"{path} was made when entry {index} was durable, and the history ends with entry {last_index}: its "
                "end is lost. Restore it from a copy"
            )

    def _differs(self, index: int, how: str) -> CorruptLog:
        path = self._folder.directory.path / checkpoint_name(index)
        return CorruptLog(f"{path} {how}: the checkpoint is wrong, not the history; {HOW_TO_REPAIR}")


def check_run(directory: Directory, identity: RunIdentity, info: RunInfo) -> None:
    """Check every byte of a run of ids. Raises `StorageError`."""
    run = Run.open(directory, identity, info, load_filter=True, at_random=False)
    entries = np.empty((ENTRIES_PER_CHUNK, 2), np.int64)
    for start in range(0, info.count, ENTRIES_PER_CHUNK):
        part = entries[: min(info.count - start, ENTRIES_PER_CHUNK)]
        damaged = unpack_blocks(run.data, run.words, info.number, start // ENTRIES_PER_BLOCK, part)
        if damaged >= 0:
            raise run.damaged(damaged)


def _fingerprint(parts: Iterable[tuple[Words, Words]], multipliers: np.ndarray) -> tuple[int, int]:
    """(count, sum of a hash of each) of hashes and values: the same for the same ones in any order.

    The multipliers are secret and new each time, so that nobody can prepare others that add up to the same.
    """
    count, total = 0, np.uint64(0)
    shift = np.uint64(32)
    with np.errstate(over="ignore"):
        for hashes, values in parts:
            mixed = hashes.astype(np.uint64) * multipliers[0]
            mixed = ((mixed ^ (mixed >> shift)) + values.astype(np.uint64)) * multipliers[1]
            mixed = (mixed ^ (mixed >> shift)) * multipliers[2]
            mixed = (mixed ^ (mixed >> shift)) * multipliers[3]
            total += (mixed ^ (mixed >> shift)).sum(dtype=np.uint64)
            count += len(hashes)
    return count, int(total)
