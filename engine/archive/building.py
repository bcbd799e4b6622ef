"""Makes a data folder of the files of a snapshot, beside the place where it is to be, and moves it there when it is
proven: executing what lies behind the checkpoint must lead to the digest and the hash that the snapshot has.

A folder of a node alone goes on from there. That of a member of a group has acknowledged entries that it may not have
any more, and voted: it comes back with the vote barred, as a disk that was repaired does, and votes again when a leader
has let it catch up with all that it may ever have acknowledged.
"""

import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import blake3

from bezant.engine.archive.forgetting import forget
from bezant.engine.archive.manifest import SnapshotManifest, StoredFile
from bezant.engine.archive.source import FILTER_BYTES_MAX, State, execute_to
from bezant.engine.checkpoints.check import check_run
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.log.control import ControlFile
from bezant.engine.log.entry import public_log_id
from bezant.engine.log.storage import Directory, FolderLock
from bezant.engine.log.vote import open_vote_file
from bezant.engine.node_file import NODE_NAME, read_node_file
from bezant.engine.raft.hard_state import HardState
from bezant.engine.replica import shard_directory
from bezant.engine.snapshots.installing import begin_log
from bezant.engine.snapshots.making import FileMaker
from bezant.protocol.errors import CorruptLog, StorageError, UsageError

UNFINISHED_SUFFIX: Final = ".restoring"
"""Ends the name of a folder that is being made."""
_ZEROS: Final = bytes(1 << 20)


class FileBuilder:
    """One file of a snapshot, of parts as they come; nothing counts before `finish` has found it to be right."""

    def __init__(self, directory: Directory, stored: StoredFile) -> None:
        folder, _, name = stored.name.rpartition("/")
        directory = directory.subdirectory(folder) if folder else directory
        directory.create()
        self._stored = stored
        self._file = FileMaker(directory, name)
        self._hash = blake3.blake3()
        self._size_bytes = 0

    def add(self, part: bytes) -> None:
        """Write a part behind the others. Raises `CorruptLog` for more than there should be, `StorageError`."""
        self._size_bytes += len(part)
        if self._size_bytes > self._stored.size_bytes:
            raise CorruptLog(f"{self._stored.name}: what was kept is longer than {self._stored.size_bytes} bytes")
        self._hash.update(part)
        self._file.add(part)

    def finish(self) -> None:
        """Have the file be there, durably. Raises `CorruptLog` if it is not the one that was kept."""
        stored = self._stored
        if self._size_bytes != stored.size_bytes or self._hash.hexdigest() != stored.digest:
            raise CorruptLog(f"{stored.name}: what was kept is damaged: its checksum is another one than when it was")
        rest = stored.full_size_bytes - stored.size_bytes
        for start in range(0, rest, len(_ZEROS)):
            self._file.add(_ZEROS[: rest - start])
        self._file.finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.discard()


class FolderBuilder:
    """A data folder that is being made of a snapshot."""

    def __init__(
        self,
        data: Path,
        manifest: SnapshotManifest,
        *,
        with_history: bool,
        as_lost_node: bool,
        free_space_floor: int,
    ) -> None:
        """Raises `UsageError` for a place or a way that cannot be, `StorageError` if there is no room, and its kinds.

        `as_lost_node`: the member whose folder the snapshot is of has lost it for ever.
        """
        self.files = [*manifest.files, *(manifest.history if with_history else [])]
        self._data = data
        self._manifest = manifest
        self._free_space_floor = free_space_floor
        self._first_segment = 1 if with_history else manifest.first_segment
        _check_way(manifest, as_lost_node=as_lost_node)
        if with_history and not manifest.has_history:
            raise UsageError("this snapshot was made without the history before its state: restore it without")
        _check_place(data)
        # Resolved, so that the place that is given may be a link to where the folder is to be.
        self._path = data.resolve()
        made = Directory(self._path.with_name(self._path.name + UNFINISHED_SUFFIX))
        made.create()
        self._made = made
        self._lock: FolderLock = made.lock()
        try:
            self._clear()
            size_bytes, free_bytes = sum(file.full_size_bytes for file in self.files), made.free_bytes()
            if free_bytes < size_bytes + free_space_floor:
                raise StorageError(
                    f"{data.parent}: {free_bytes} bytes are free; the snapshot needs {size_bytes} and "
                    f"{free_space_floor} must stay free. Make room on the disk"
                )
            self._directory = shard_directory(made, manifest.shard)
            self._directory.create()
        except BaseException:
            self.discard()
            raise

    def _clear(self) -> None:
        """Remove what an attempt that was interrupted has left."""
        for path in self._made.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def begin_file(self, stored: StoredFile) -> FileBuilder:
        """Begin with one of `files`."""
        return FileBuilder(self._directory, stored)

    def finish(self, kept: AbstractSet[int] | None = None) -> int:
        """Prove all of it, and have the data folder be there, without the metadata of entries that are none of those
        with these indexes; of how many subjects that was. Raises `CorruptLog`, `StorageError`."""
        manifest, directory, shard = self._manifest, self._directory, self._manifest.shard
        ControlFile.create(directory)
        folder = CheckpointFolder(directory)
        found = folder.find_newest(shard, FILTER_BYTES_MAX)
        name = "" if found is None else checkpoint_name(found.checkpoint.manifest.point.index)
        if name != manifest.checkpoint:
            raise CorruptLog(f"the snapshot has no whole checkpoint {manifest.checkpoint}: {'; '.join(folder.damaged)}")
        if found is not None:
            for info in found.checkpoint.manifest.runs:
                check_run(folder.directory, found.checkpoint.manifest.identity, info)
        if self._first_segment > 1 and found is not None:
            begin_log(directory, shard, found.checkpoint.manifest.point, self._first_segment)
        state = execute_to(directory, shard, manifest.index, found)
        point = state.point
        if public_log_id(point.log_id) != manifest.log_id:
            raise CorruptLog("the snapshot is put together of files of different logs")
        if (point.chain_hash.hex(), state.state_digest) != (manifest.chain_hash, manifest.state_digest):
            raise CorruptLog(
                f"the snapshot leads to the digest {state.state_digest} at entry {point.index}, and not to "
                f"{manifest.state_digest}, which its folder had there"
            )
        begin_log(directory, shard, point, self._first_segment)
        self._write_identity(point.term)
        count = self._forget(state, kept)
        self._move()
        return count

    def _forget(self, state: State, kept: AbstractSet[int] | None) -> int:
        if not len(state.metadata):
            return 0
        self._lock.release()  # It becomes that of whoever goes on with the log.
        shard, is_member = self._manifest.shard, bool(self._manifest.node_file)
        count = forget(self._made, shard, state, kept, is_member=is_member, free_space_floor=self._free_space_floor)
        self._lock = self._made.lock()
        return count

    def _write_identity(self, term: int) -> None:
        if not self._manifest.node_file:
            return
        vote_file = open_vote_file(self._directory, shard=self._manifest.shard, log_is_empty=True)
        try:
            vote_file.write(HardState(term=term, barred=True))
        finally:
            vote_file.close()
        self._made.write_file(NODE_NAME, [self._manifest.node_file.encode()])
        if read_node_file(self._made.path) is None:
            raise CorruptLog("the node file of the snapshot is not one")

    def _move(self) -> None:
        _check_place(self._data)
        Directory(self._path.parent).rename(self._made.path.name, self._path.name)
        self._lock.release()

    def discard(self) -> None:
        """Leave nothing behind of a folder that is not finished."""
        shutil.rmtree(self._made.path, ignore_errors=True)
        self._lock.release()


def _check_place(data: Path) -> None:
    """Raise `UsageError` unless a folder is empty or not there."""
    try:
        found = sorted(path.name for path in data.iterdir()) if data.exists() else []
    except OSError as error:
        raise StorageError(f"{data}: cannot be looked at: {error.strerror}") from error
    if found:
        raise UsageError(
            f"{data} is not empty ({found[0]!r} is in it): a snapshot is restored to a folder that is empty or not "
            "there, and never over a log that is there"
        )


def _check_way(manifest: SnapshotManifest, *, as_lost_node: bool) -> None:
    if manifest.node_file and not as_lost_node:
        raise UsageError(
            "this snapshot is of a member of a group. If the group lives, let a blank disk join, which gets the state "
            "from it: bezant init --join. If the disk of that member is lost for ever, and with it a majority: "
            "--as-lost-node"
        )
    if as_lost_node and not manifest.node_file:
        raise UsageError("this snapshot is of a node alone, which has no group to come back to: without --as-lost-node")
