"""What a leaf of the tree is made of: an event, its position, and a salt that only the members of the group can make.

The secret behind the salts must be the same on all members of a group, stay for ever, and be told to nobody. All of
this is true of the number of the log (`bezant.engine.log.entry.public_log_id`), out of whose 61 random bits the secret
is derived by a function that takes a fifth of a second and 64 MiB (scrypt, RFC 7914): whoever has a salt and tries out
all numbers needs some billions of years of a processor.
"""

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np

from bezant.engine.proofs.hashing import BLOCK_SIZE, hash_rows
from bezant.protocol.receipts import LEAF_PREFIX, NODE_PREFIX, POSITION_SIZE, SALT_SIZE
from bezant.protocol.records import EVENT_SIZE, Bytes, Records, position_of

SECRET_SIZE: Final = 32
LEAVES_PER_STEP: Final = 2048
"""Leaves that are put together and hashed at a time: half a megabyte."""
_SCRYPT_COST: Final = 1 << 16
_SCRYPT_BLOCK: Final = 8
_SCRYPT_MEMORY_BYTES_MAX: Final = 96 << 20
_SECRET_CONTEXT: Final = b"bezant: the salts of receipts"
_LEAF_SIZE: Final = 1 + SALT_SIZE + EVENT_SIZE + POSITION_SIZE
_NODE_SIZE: Final = 1 + 2 * 32


@lru_cache(maxsize=8)
def secret_of(log_id: int) -> bytes:
    """The secret behind the salts of a log."""
    return hashlib.scrypt(
        log_id.to_bytes(8, "little", signed=True),
        salt=_SECRET_CONTEXT,
        n=_SCRYPT_COST,
        r=_SCRYPT_BLOCK,
        p=1,
        maxmem=_SCRYPT_MEMORY_BYTES_MAX,
        dklen=SECRET_SIZE,
    )


def salts_of(secret: bytes, first_sequence: int, count: int) -> Bytes:
    """Salts (count, 16) of events: BLAKE3 of the sequence (8 bytes, little-endian), keyed with the secret."""
    rows = np.zeros((count, BLOCK_SIZE), np.uint8)
    rows.view(np.int64)[:, 0] = np.arange(first_sequence, first_sequence + count)
    return hash_rows(rows, 8, secret)[:, :SALT_SIZE]


def leaf_hashes(events: Records, first_sequence: int, shard: int, secret: bytes) -> Bytes:
    """Hashes (count, 32) of the leaves of EVENT records that follow one another."""
    hashes = [
        _hash_some(events[start : start + LEAVES_PER_STEP], first_sequence + start, shard, secret)
        for start in range(0, len(events), LEAVES_PER_STEP)
    ]
    return np.concatenate(hashes) if hashes else np.zeros((0, 32), np.uint8)


def _hash_some(events: Records, first_sequence: int, shard: int, secret: bytes) -> Bytes:
    count = len(events)
    rows = np.zeros((count, -(-_LEAF_SIZE // BLOCK_SIZE) * BLOCK_SIZE), np.uint8)
    rows[:, 0] = LEAF_PREFIX[0]
    event_at, position_at = 1 + SALT_SIZE, 1 + SALT_SIZE + EVENT_SIZE
    rows[:, 1:event_at] = salts_of(secret, first_sequence, count)
    rows[:, event_at:position_at] = np.ascontiguousarray(events).view(np.uint8).reshape(count, EVENT_SIZE)
    first = position_of(shard, first_sequence)
    positions = np.arange(first, first + count, dtype=np.int64)
    rows[:, position_at:_LEAF_SIZE] = positions.view(np.uint8).reshape(count, POSITION_SIZE)
    return hash_rows(rows, _LEAF_SIZE)


def parent_hashes(hashes: Bytes) -> Bytes:
    """Hashes (count // 2, 32) of the nodes above pairs of hashes (count, 32)."""
    count = len(hashes) // 2
    rows = np.zeros((count, 2 * BLOCK_SIZE), np.uint8)
    rows[:, 0] = NODE_PREFIX[0]
    rows[:, 1:_NODE_SIZE] = np.ascontiguousarray(hashes[: 2 * count]).reshape(count, 64)
    return hash_rows(rows, _NODE_SIZE)
