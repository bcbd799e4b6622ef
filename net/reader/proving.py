"""Keeps the tree of a reader over all events, and answers with heads, receipts and proofs."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.proofs.hashing import warm_hashing
from bezant.engine.proofs.issuing import SAVE_EVENTS_MIN, Issuer, TreeFolder
from bezant.engine.proofs.keys import open_key
from bezant.engine.proofs.offline import TREE_FOLDER
from bezant.net.reader.projecting import Awaits, read_taken
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.receipts import AskConsistency, AskReceipt, ConsistencyProof, SignedTreeHead
from bezant.protocol.records import SEQUENCE_FIRST, split_position

SAVE_AT_END_EVENTS_MIN = 1 << 14
"""Events that the tree must have grown by to be saved when the reader ends."""

_log = logging.getLogger("bezant")


class ProofProjection:
    """The tree as one of what a reader keeps (`bezant.net.reader.projecting.Projection`)."""

    def __init__(self, folder: Path, shard: int, log_id: int) -> None:
        """`folder` is that of the reader, within that of the shard, within the data folder, which has the key."""
        self.shard = shard
        self._log_id = log_id
        self._directory = Directory(folder / TREE_FOLDER)
        self._data_directory = folder.parent.parent
        self._tree_folder: TreeFolder | None = None
        self._follower: Follower | None = None
        self._issuer: Issuer | None = None
        self._is_level = False

    # ---- the thread that feeds ----

    def start(self) -> ResumePoint | None:
        """Load what was saved of the tree; what is damaged is said, and made anew."""

        def tell(notice: str) -> None:
            _log.warning("bezant: %s", notice)

        self._tree_folder = TreeFolder(self._directory, self.shard, self._log_id, tell)
        loaded = self._tree_folder.loaded
        return None if loaded is None else loaded.point

    def begin(self, follower: Follower) -> None:
        """The log is open."""
        warm_hashing()
        self._follower = follower
        self._issuer = Issuer(
            read_taken(follower),
            lambda: open_key(self._data_directory),
            shard=self.shard,
            log_id=self._log_id,
            stored=None if self._tree_folder is None else self._tree_folder.loaded,
        )

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Take entries in. Raises `CorruptLog`, `StorageError`."""
        self.issuer.take_in(entries)
        self._maybe_save(SAVE_EVENTS_MIN)

    def rest(self) -> None:
        """Everything published has been taken in."""
        self._is_level = True
        self._maybe_save(SAVE_EVENTS_MIN)

    def close(self) -> None:
        """Save what has come since the last time, if that is worth it."""
        if self._issuer is not None:
            self._maybe_save(SAVE_AT_END_EVENTS_MIN)

    def _maybe_save(self, events_min: int) -> None:
        folder, follower = self._tree_folder, self._follower
        if folder is None or follower is None or not folder.is_due(self.issuer, events_min):
            return
        point = follower.log.resume_point()
        # Otherwise another projection has failed before this one could take the last batch in.
        if point is not None and point.next_sequence - 1 == self.issuer.size:
            folder.save(self.issuer, point)

    # ---- any thread ----

    @property
    def issuer(self) -> Issuer:
        """Gives receipts. Raises `StorageError` while the log is not open."""
        if self._issuer is None:
            raise StorageError("the history is being opened; try again later")
        return self._issuer

    def await_event(self, sequence: int) -> None:
        """Raise `Awaits` if an event has not come yet, `StorageError` while those before are being read."""
        size = self.issuer.size
        if sequence > size:
            if not self._is_level:
                raise StorageError(f"the history is being read, up to event {size} so far; try again later")
            raise Awaits(sequence=sequence)


class ProofQueries:
    """Answers; see `bezant.net.reader.queries.HistoryQueries`."""

    def __init__(self, proofs: ProofProjection) -> None:
        self._proofs = proofs

    def by_operation(self) -> dict[int, Callable[[bytes, int], bytes]]:
        """The queries, as a reader lists them."""
        return {
            Operation.TREE_HEAD: self.head,
            Operation.RECEIPT: self.receipt,
            Operation.CONSISTENCY: self.consistency,
        }

    def head(self, _body: bytes, _published_index: int) -> bytes:
        """Answer TREE_HEAD."""
        return encode_message(SignedTreeHead(*self._proofs.issuer.head()))

    def receipt(self, body: bytes, _published_index: int) -> bytes:
        """Answer RECEIPT."""
        asked = decode_message(body, AskReceipt)
        issuer = self._proofs.issuer
        shard, sequence = split_position(asked.position)
        if shard == self._proofs.shard and sequence >= SEQUENCE_FIRST:
            self._proofs.await_event(max(sequence, asked.extends_size))
        return issuer.receipt(asked.position, asked.extends_size)

    def consistency(self, body: bytes, _published_index: int) -> bytes:
        """Answer CONSISTENCY."""
        asked = decode_message(body, AskConsistency)
        if asked.old_size > asked.size:
            raise UsageError(f"a history of {asked.size} events does not extend one of {asked.old_size}")
        self._proofs.await_event(asked.size)
        return encode_message(ConsistencyProof(self._proofs.issuer.consistency(asked.old_size, asked.size)))
