"""Checkpoints of a simulated node, made by the class that the child process of a real one uses, at once."""

from collections import Counter

from bezant.engine.checkpoints.checkpointer import Checkpointer, Restored, restore_ledger
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.log.log import open_log
from bezant.engine.replica import Replica, shard_directory

from .disk import Disk


class InlineCheckpoints:
    """For one replica, until its node stops; it is given up with it, as a child process is."""

    def __init__(self, disk: Disk, replica: Replica, counts: Counter[str]) -> None:
        self._replica = replica
        self._directory = shard_directory(disk.root, replica.shard)
        self._folder = CheckpointFolder(self._directory)
        self._reader = open_log(self._directory, shard=replica.shard, writable=False)
        self._checkpointer: Checkpointer | None = None
        self._counts = counts

    def freeze_when_due(self) -> None:
        if self._replica.checkpoint_is_due:
            self._replica.freeze()

    def make_if_due(self) -> None:
        """Make and adopt the checkpoint of frozen ids, once all that they come from is committed and durable."""
        replica = self._replica
        index = replica.frozen_index
        if not index or index > min(replica.log.durable_index, replica.log.commit_index):
            return
        replica.settle_erasing(index)
        lock = self._folder.lock()
        checkpointer = self._checkpointer
        if checkpointer is None:
            restored = self._restore()
            checkpointer = self._checkpointer = Checkpointer(
                restored, self._reader, self._folder, shard=replica.shard, filter_bytes_max=0, free_space_floor=0
            )
            entries = self._reader.open(restored.point, index)
        else:
            entries = self._reader.follow(index)
        for entry in entries:
            checkpointer.take_in(entry)
        checkpointer.write()
        lock.release()
        replica.adopt(*replica.checkpoints.open_written(index, replica.settings.filter_bytes_max, replica.id_runs))
        self._counts["checkpoints made"] += 1

    def _restore(self) -> Restored:
        """The ledger goes on from checkpoint to checkpoint."""
        replica = self._replica
        return restore_ledger(
            self._folder,
            replica.settings.ledger_settings,
            self._reader.read_events,
            shard=replica.shard,
            filter_bytes_max=0,
            salts=replica.ledger.salts,
        )
