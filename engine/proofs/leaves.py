"""What a leaf of the tree is made of: an event, its position, and a salt that only the members of the group can make.

The secret behind the salts must be the same on all members of a group, stay for ever, and be told to nobody. All of
this is true of the number of the log (`bezant.engine.log.entry.public_log_id`), out of whose 61 random bits the secret
is derived by a function that takes a fifth of a second and 64 MiB (scrypt, RFC 7914): whoever has a salt and tries out
all numbers needs some billions of years of a processor.
"""

import hashlib
from functools import lru_cache
from typing import Final

from bezant.engine.proofs.hashing import hash_leaves
from bezant.protocol.records import Bytes, Records, position_of

SECRET_SIZE: Final = 32
_SCRYPT_COST: Final = 1 << 16
_SCRYPT_BLOCK: Final = 8
_SCRYPT_MEMORY_BYTES_MAX: Final = 96 << 20
_SECRET_CONTEXT: Final = b"bezant: the salts of receipts"


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


def leaf_hashes(events: Records, first_sequence: int, shard: int, secret: bytes) -> Bytes:
    """Hashes (count, 32) of the leaves of EVENT records that follow one another."""
    return hash_leaves(events, first_sequence, position_of(shard, first_sequence), secret)
