"""The Merkle tree over all events (RFC 9162, section 2.1), which only ever grows at its end.

In memory are the hashes of all complete subtrees of 256 leaves and of larger powers of two, half a byte an event, and
the leaves behind the last of those; what lies within 256 leaves is made again from events when a proof needs it.
"""

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from bezant.engine.proofs.hashing import HASH_SIZE, hash_nodes
from bezant.protocol.errors import LedgerError
from bezant.protocol.receipts import EMPTY_ROOT, hash_node
from bezant.protocol.records import Bytes

BLOCK_LEVEL: Final = 8
BLOCK_LEAVES: Final = 1 << BLOCK_LEVEL

ReadLeaves = Callable[[int, int], Bytes]
"""Gives the hashes of the leaves from one number on up to before another."""


class MerkleTree:
    """See the module. Leaves are numbered from 0."""

    def __init__(self, read_leaves: ReadLeaves, blocks: Bytes | None = None) -> None:
        """Begin empty or, with the hashes (count, 32) of the first blocks of 256 leaves, behind those."""
        self._read_leaves = read_leaves
        self._levels: list[bytearray] = []
        self._tail = np.zeros((0, HASH_SIZE), np.uint8)
        if blocks is not None:
            self._add_blocks(blocks)

    @property
    def block_count(self) -> int:
        """Complete blocks of 256 leaves."""
        return len(self._levels[0]) // HASH_SIZE if self._levels else 0

    @property
    def size(self) -> int:
        """Leaves."""
        return self.block_count * BLOCK_LEAVES + len(self._tail)

    def append(self, parts: Iterable[Bytes]) -> None:
        """Add leaves by their hashes (count, 32), in parts that follow one another."""
        hashes = np.concatenate([self._tail, *parts])
        count = len(hashes) // BLOCK_LEAVES
        self._tail = hashes[count * BLOCK_LEAVES :].copy()
        blocks = hashes[: count * BLOCK_LEAVES]
        for _ in range(BLOCK_LEVEL):
            blocks = hash_nodes(blocks)
        self._add_blocks(blocks)

    def _add_blocks(self, nodes: Bytes) -> None:
        """Add complete blocks by their hashes (count, 32), and all nodes above that they complete."""
        level = 0
        while len(nodes):
            if level == len(self._levels):
                self._levels.append(bytearray())
            kept = self._levels[level]
            first_pair = len(kept) // HASH_SIZE // 2
            kept += nodes.tobytes()
            pairs = bytes(kept[2 * first_pair * HASH_SIZE :])
            nodes = hash_nodes(np.frombuffer(pairs, np.uint8).reshape(-1, HASH_SIZE))
            level += 1

    def blocks(self) -> Bytes:
        """Hashes (count, 32) of the complete blocks."""
        data = bytes(self._levels[0]) if self._levels else b""
        return np.frombuffer(data, np.uint8).reshape(-1, HASH_SIZE)

    def tail(self) -> Bytes:
        """Hashes (count, 32) of the leaves behind the last complete block."""
        return self._tail

    # ---- proofs; sizes and numbers must be those of leaves that are there ----

    def root(self, size: int) -> bytes:
        """MTH (section 2.1.1) of the first `size` leaves."""
        self._check(size)
        return EMPTY_ROOT if size == 0 else self._hash_of(0, size)

    def inclusion_path(self, number: int, size: int) -> list[bytes]:
        """PATH (section 2.1.3.1): from a leaf to the root of the first `size` leaves."""
        self._check(size)
        if not 0 <= number < size:
            raise LedgerError(f"leaf {number} of a tree of {size}")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + largest_power_below(end - start)
            if number < middle:
                path.append(self._hash_of(middle, end))
                end = middle
            else:
                path.append(self._hash_of(start, middle))
                start = middle
        return path[::-1]

    def consistency_path(self, old_size: int, size: int) -> list[bytes]:
        """PROOF (section 2.1.4.1): that the tree of `size` leaves has that of its first `old_size` as its beginning."""
        self._check(size)
        if not 0 < old_size <= size:
            raise LedgerError(f"the first {old_size} leaves of a tree of {size}")
        path: list[bytes] = []
        start, end = 0, size
        while old_size != end:
            middle = start + largest_power_below(end - start)
            if old_size <= middle:
                path.append(self._hash_of(middle, end))
                end = middle
            else:
                path.append(self._hash_of(start, middle))
                start = middle
        if start:
            path.append(self._hash_of(start, end))
        return path[::-1]

    def _check(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise LedgerError(f"the first {size} leaves of a tree that has {self.size}")

    def _hash_of(self, start: int, end: int) -> bytes:
        """MTH of the leaves from `start` on up to before `end`, where a node of the tree begins."""
        count = end - start
        power = 1 << (count.bit_length() - 1)
        if power != count:
            middle = start + largest_power_below(count)
            return hash_node(self._hash_of(start, middle), self._hash_of(middle, end))
        level = power.bit_length() - 1
        if level >= BLOCK_LEVEL:
            at = (start >> level) * HASH_SIZE
            return bytes(self._levels[level - BLOCK_LEVEL][at : at + HASH_SIZE])
        hashes = self._leaves(start, end)
        while len(hashes) > 1:
            hashes = hash_nodes(hashes)
        return bytes(hashes[0])

    def _leaves(self, start: int, end: int) -> Bytes:
        behind = self.block_count * BLOCK_LEAVES
        return self._tail[start - behind : end - behind] if start >= behind else self._read_leaves(start, end)


def largest_power_below(count: int) -> int:
    """The largest power of two that is less than a count of at least two."""
    return 1 << ((count - 1).bit_length() - 1)
