"""Metadata as a reader tells it: which entry has that of a subject, kept in memory; contents are read from the log.

Nothing of it is written down, so that what is erased in the log is nowhere else: a start takes the table from the
newest checkpoint of the node, and the rest from the entries behind.
"""

import threading
from collections.abc import Callable, Sequence

from bezant.engine.checkpoints.file import read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry, public_log_id
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.metadata.table import MetadataTable
from bezant.net.reader.projecting import Awaits
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.metadata import GetMetadata, Metadata, blob_content, check_subject, decode_blob


class MetadataProjection:
    """The table as one of what a reader keeps (`bezant.net.reader.projecting.Projection`)."""

    def __init__(self, directory: Directory, shard: int, log_id: int) -> None:
        """`directory` is that of the log."""
        self._directory = directory
        self._shard = shard
        self._log_id = log_id
        self._lock = threading.Lock()
        self._table = MetadataTable()
        self._applied_index = 0
        self._follower: Follower | None = None
        self._is_level = False

    # ---- the thread that feeds ----

    def start(self) -> ResumePoint | None:
        """The newest checkpoint that is whole; what is damaged, or has just gone, is passed over."""
        folder = CheckpointFolder(self._directory)
        for index in reversed(folder.indexes()):
            try:
                checkpoint = read_checkpoint(folder.directory, checkpoint_name(index))
            except (StorageError, OSError):
                continue
            point = checkpoint.manifest.point
            if (checkpoint.manifest.shard, point.log_id) == (self._shard, self._log_id):
                self._table.restore(checkpoint.image.metadata)
                self._applied_index = point.index
                return point
        return None

    def begin(self, follower: Follower) -> None:
        """The log is open: contents are read through it."""
        self._follower = follower

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Take entries in. Raises `CorruptLog`."""
        for entry in entries:
            if entry.header.kind == EntryKind.BLOB:
                self._take_blob(entry)
        if entries:
            self._applied_index = entries[-1].header.index

    def _take_blob(self, entry: Entry) -> None:
        try:
            blob = decode_blob(entry.body)
        except RemoteProtocolError as error:
            raise CorruptLog(f"entry {entry.header.index} cannot be read: {error}") from error
        with self._lock:
            self._table.note(blob.subject_kind, blob.subject, 0 if blob.is_erasure else entry.header.index)

    def rest(self) -> None:
        """Everything published has been taken in."""
        self._is_level = True

    def close(self) -> None:
        """There is nothing to let go of."""

    # ---- any thread ----

    @property
    def public_id(self) -> str:
        """Which log this is, for anyone to know."""
        return public_log_id(self._log_id)

    def find(self, subject_kind: int, subject: bytes, wait_for: int) -> Metadata:
        """The metadata of a subject, as of the entry `wait_for` or a later one.

        Raises `Awaits` if that has not come, `StorageError` while those before are being read, and `CorruptLog`.
        """
        follower = self._follower
        if follower is None or not self._is_level:
            raise StorageError(f"metadata is known up to version {self._applied_index} here so far; try again later")
        if wait_for > self._applied_index:
            raise Awaits(index=wait_for)
        with self._lock:
            index = self._table.index_of(subject_kind, subject)
        if not index:
            return Metadata()
        try:
            content = blob_content(bytes(follower.read_entry(index).body))
        except RemoteProtocolError as error:
            # Erased between being verified and being copied; asked again, it is superseded.
            raise StorageError(f"{error}; try again later") from error
        return Metadata() if content is None else Metadata(index, content)


class MetadataQueries:
    """Answers GET_METADATA; on any thread."""

    def __init__(self, projection: MetadataProjection) -> None:
        self._projection = projection

    def by_operation(self) -> dict[int, Callable[[bytes, int], bytes]]:
        """The queries, as a reader lists them."""
        return {Operation.GET_METADATA: self.metadata}

    def metadata(self, body: bytes, published_index: int) -> bytes:
        """Answer GET_METADATA. Raises `RemoteProtocolError`, `UsageError`, `Awaits`, `StorageError`."""
        asked = decode_message(body, GetMetadata)
        check_subject(asked.subject_kind, asked.subject)
        if asked.log_id and asked.log_id != self._projection.public_id:
            raise UsageError(f"the position is one of log {asked.log_id}, and this is log {self._projection.public_id}")
        wait_for = max(asked.wait_for, published_index)
        return encode_message(self._projection.find(asked.subject_kind, asked.subject, wait_for))
