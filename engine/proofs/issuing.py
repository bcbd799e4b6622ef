"""Gives receipts: keeps the tree as the log grows, signs heads, and puts together what somebody can check alone.

One thread takes entries in while others ask. A receipt can be given as soon as its event has been taken in, which is
as soon as it is committed and durable and its batch has been hashed: some milliseconds for whoever waits for it, and
some twenty before the newest head has it if nobody does.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np

from bezant.engine.log.entry import Entry, public_log_id
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.proofs.hashing import salt_of
from bezant.engine.proofs.keys import SigningKey
from bezant.engine.proofs.leaves import leaf_hashes, secret_of
from bezant.engine.proofs.store import StoredTree, load_tree, save_tree
from bezant.engine.proofs.tree import BLOCK_LEAVES, MerkleTree
from bezant.protocol.errors import CorruptLog, StorageError, UsageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.receipts import Receipt, TreeHead, encode_receipt
from bezant.protocol.records import EVENT, SEQUENCE_FIRST, Bytes, Records, Words, position_of, split_position

SAVE_EVENTS_MIN: Final = 1 << 20
"""Events after which the tree is saved at the earliest: hashing them again takes less than a second."""
SAVE_SHARE: Final = 16
"""And not before the history has grown by one of so many parts, so that a long one is not written again and again."""
PART_EVENTS_MIN: Final = 256
"""Events, on average, in an entry from which on entries are hashed one by one, and not put together first."""

ReadEvents = Callable[[Words], Records]


class Issuer:
    """See the module."""

    def __init__(
        self,
        read_events: ReadEvents,
        open_key: Callable[[], SigningKey],
        *,
        shard: int,
        log_id: int,
        stored: StoredTree | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`read_events` gives events that were taken in, ascending by sequence; `stored` is what to go on with.

        `open_key` is called once there is something to sign, and again if it raises.
        """
        self._read_events = read_events
        self._open_key = open_key
        self._shard = shard
        self._log_id = bytes.fromhex(public_log_id(log_id))
        self._secret = secret_of(log_id)
        self._clock_ns = clock_ns
        self._tree = MerkleTree(self._read_leaves, stored.blocks if stored is not None else None)
        if stored is not None:
            self._tree.append([stored.tail])
        self._lock = threading.Lock()
        self._head: TreeHead | None = None

    @property
    def size(self) -> int:
        """Events that receipts can be given for: those with sequences up to this one."""
        return self._tree.size

    @cached_property
    def _key(self) -> SigningKey:
        return self._open_key()

    @property
    def public_key(self) -> bytes:
        """The key that heads are signed with."""
        return self._key.public

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Take entries of the log in, in order and verified; what was taken in before is passed over.

        Raises `CorruptLog` if something is missing between.
        """
        parts: list[Records] = []
        first_sequence = next_sequence = self.size + SEQUENCE_FIRST
        for entry in entries:
            header = entry.header
            if header.kind != EntryKind.EVENTS or header.first_sequence + header.count <= next_sequence:
                continue
            if header.first_sequence > next_sequence:
                raise CorruptLog(f"entry {header.index} begins with event {header.first_sequence}, not {next_sequence}")
            parts.append(np.frombuffer(entry.body, EVENT)[next_sequence - header.first_sequence :])
            next_sequence = header.first_sequence + header.count
        if not parts:
            return
        if next_sequence - first_sequence < PART_EVENTS_MIN * len(parts):
            # As bytes: NumPy copies records field by field.
            parts = [np.concatenate([part.view(np.uint8) for part in parts]).view(EVENT)]
        hashes: list[Bytes] = []
        for part in parts:
            hashes.append(leaf_hashes(part, first_sequence, self._shard, self._secret))
            first_sequence += len(part)
        with self._lock:
            self._tree.append(hashes)

    def stored(self, point: ResumePoint) -> StoredTree:
        """The tree, to be saved, if it ends with this entry. Raises `StorageError`."""
        with self._lock:
            tree = StoredTree(point, self._tree.blocks(), self._tree.tail())
        if tree.size != point.next_sequence - 1:
            raise StorageError(f"a tree over {tree.size} events does not end at event {point.next_sequence - 1}")
        return tree

    # ---- what is given; raises `StorageError` if the key cannot be read or made ----

    def head(self) -> TreeHead:
        """The signed head over all events that were taken in; the same one until there are more."""
        with self._lock:
            return self._current_head()

    def _current_head(self) -> TreeHead:
        size = self._tree.size
        if self._head is None or self._head.size != size:
            self._head = self._key.sign(self._log_id, size, self._clock_ns(), self._tree.root(size))
        return self._head

    def receipt(self, position: int, extends_size: int = 0) -> bytes:
        """A receipt for the event at a position, perhaps with the proof that its history extends a shorter one.

        Raises `UsageError` for a position that is none, or a history that is longer.
        """
        sequence = self.sequence_of(position)
        if not 0 <= extends_size <= self.size:
            raise UsageError(f"a history of {extends_size} events is not the beginning of one of {self.size}")
        # Before nobody else can go on: what is in an archive may take long to come.
        event = self._read_events(np.array([sequence], np.int64)).tobytes()
        self._fetch_blocks(sequence, extends_size)
        with self._lock:
            head = self._current_head()
            receipt = Receipt(
                head=head,
                position=position,
                event=event,
                salt=salt_of(self._secret, sequence),
                path=tuple(self._tree.inclusion_path(sequence - SEQUENCE_FIRST, head.size)),
            )
            if extends_size:
                receipt = receipt._replace(
                    earlier_size=extends_size,
                    earlier_root=self._tree.root(extends_size),
                    earlier_path=tuple(self._tree.consistency_path(extends_size, head.size)),
                )
        return encode_receipt(receipt)

    def sequence_of(self, position: int) -> int:
        """The sequence of a position. Raises `UsageError` unless its event has been taken in."""
        shard, sequence = split_position(position)
        if shard != self._shard or not SEQUENCE_FIRST <= sequence <= self.size:
            raise UsageError(
                f"position {position} is none of this log, which has events up to position "
                f"{position_of(self._shard, self.size)} so far"
            )
        return sequence

    def consistency(self, old_size: int, size: int) -> list[bytes]:
        """The proof that the history over `size` events extends that over `old_size`. Raises `UsageError`."""
        if not 0 < old_size <= size <= self.size:
            raise UsageError(f"a proof from {old_size} to {size} events of a history of {self.size}")
        self._fetch_blocks(old_size, size)
        with self._lock:
            return self._tree.consistency_path(old_size, size)

    def _fetch_blocks(self, *sequences: int) -> None:
        """Have at hand what the hashes within the blocks of these events (0: of none) are made of again.

        Those behind the last complete block are in memory.
        """
        for sequence in sequences:
            first = (sequence - SEQUENCE_FIRST) // BLOCK_LEAVES * BLOCK_LEAVES + SEQUENCE_FIRST
            if sequence and first + BLOCK_LEAVES - 1 <= self.size:
                self._read_events(np.arange(first, first + BLOCK_LEAVES, dtype=np.int64))

    def _read_leaves(self, start: int, end: int) -> Bytes:
        first = start + SEQUENCE_FIRST
        events = self._read_events(np.arange(first, first + end - start, dtype=np.int64))
        return leaf_hashes(events, first, self._shard, self._secret)


class TreeFolder:
    """Where the tree is kept on disk, and when it is saved."""

    def __init__(self, directory: Directory, shard: int, log_id: int, on_notice: Callable[[str], None]) -> None:
        """`on_notice` is told of a tree that cannot be used and is made again."""
        self._directory = directory
        self._shard = shard
        self.loaded: StoredTree | None = None
        try:
            self.loaded = load_tree(directory, shard, log_id)
        except StorageError as error:
            on_notice(f"{error}; it is made again from the log")
        self._saved_size = self.loaded.size if self.loaded is not None else 0

    def is_due(self, issuer: Issuer, events_min: int = SAVE_EVENTS_MIN) -> bool:
        """Whether the tree has grown enough to be saved."""
        return issuer.size - self._saved_size >= max(events_min, issuer.size // SAVE_SHARE)

    def save(self, issuer: Issuer, point: ResumePoint | None) -> None:
        """Save the tree, which ends with this entry. Raises `StorageError`."""
        if point is not None:
            save_tree(self._directory, self._shard, issuer.stored(point))
            self._saved_size = issuer.size
