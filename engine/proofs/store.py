"""The tree on disk: one file, written anew each time the history has grown by a share, so that a crash costs little.

    magic, format, size of the description | description: msgpack | hashes of blocks | hashes of leaves | checksum

The description names the log, the shard and the entry (`ResumePoint`) that the tree ends with; the checksum is XXH3-64
of all before it. A file that is damaged, or of another log, is as good as none: the tree is made again from the log.
"""

import struct
from typing import Final, NamedTuple

import msgspec
import numpy as np
import xxhash

from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.proofs.hashing import HASH_SIZE
from bezant.engine.proofs.tree import BLOCK_LEAVES
from bezant.protocol.errors import StorageError
from bezant.protocol.records import Bytes

TREE_NAME: Final = "tree"
_MAGIC: Final = b"BZTREE\0\1"
_HEADER: Final = struct.Struct("<8sq")
_CHECKSUM: Final = struct.Struct("<Q")


class _Description(msgspec.Struct, frozen=True):
    """What the file is of."""

    shard: int
    point: ResumePoint
    block_count: int


class StoredTree(NamedTuple):
    """The tree up to an entry: the hashes (count, 32) of its blocks, and of the leaves behind the last one."""

    point: ResumePoint
    blocks: Bytes
    tail: Bytes

    @property
    def size(self) -> int:
        """Leaves."""
        return len(self.blocks) * BLOCK_LEAVES + len(self.tail)


def save_tree(directory: Directory, shard: int, tree: StoredTree) -> None:
    """Write the tree durably, in place of the one before. Raises `StorageError`."""
    directory.create()
    description = msgspec.msgpack.encode(_Description(shard, tree.point, len(tree.blocks)))
    chunks = [
        _HEADER.pack(_MAGIC, len(description)),
        description,
        np.ascontiguousarray(tree.blocks).data.cast("B") if len(tree.blocks) else b"",
        np.ascontiguousarray(tree.tail).data.cast("B") if len(tree.tail) else b"",
    ]
    hasher = xxhash.xxh3_64()
    for chunk in chunks:
        hasher.update(chunk)
    directory.write_file(TREE_NAME, [*chunks, _CHECKSUM.pack(hasher.intdigest())])


def load_tree(directory: Directory, shard: int, log_id: int) -> StoredTree | None:
    """The tree that was saved; None if there is none. Raises `StorageError` for one that cannot be used."""
    try:
        file = directory.open(TREE_NAME, writable=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{directory.path / TREE_NAME}: {error.strerror}") from error
    try:
        data = file.read(file.size(), 0)
    finally:
        file.close()
    tree = _decode(data, shard, log_id)
    if tree is None:
        raise StorageError(f"{directory.path / TREE_NAME} is damaged, or of another log")
    return tree


def _decode(data: bytes, shard: int, log_id: int) -> StoredTree | None:
    if len(data) < _HEADER.size + _CHECKSUM.size:
        return None
    magic, size = _HEADER.unpack_from(data)
    end = len(data) - _CHECKSUM.size
    if magic != _MAGIC or xxhash.xxh3_64_intdigest(memoryview(data)[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        return None
    hashes_at = _HEADER.size + size
    try:
        description = msgspec.msgpack.decode(data[_HEADER.size : hashes_at], type=_Description)
    except msgspec.DecodeError:
        return None
    hashes = np.frombuffer(data[hashes_at:end], np.uint8)
    if (description.shard, description.point.log_id) != (shard, log_id) or len(hashes) % HASH_SIZE:
        return None
    hashes = hashes.reshape(-1, HASH_SIZE)
    tree = StoredTree(description.point, hashes[: description.block_count], hashes[description.block_count :])
    is_whole = len(tree.tail) < BLOCK_LEAVES and tree.size == description.point.next_sequence - 1
    return tree if is_whole else None
