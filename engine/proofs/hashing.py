"""BLAKE3 of many leaves, or nodes, of the tree at a time: sixteen beside each other in the lanes of vector registers.

Source: the BLAKE3 paper, sections 2.2 (compression function) and 2.4 (modes): every input here is one chunk, of 1,024
bytes at most. The compiler makes vector instructions of the loops over lanes, because all words lie in one array and
all places in it are constants. (An event costs some 0.1 us, salt and nodes included; the package `blake3`, which has
one input at a time, needs five times as long for the leaf alone.)
"""

from typing import Final

import blake3
import numpy as np

from bezant.engine.compiled import COMPILED, inlined, kernel
from bezant.engine.lanes import (
    BLOCK_SIZE,
    CHAIN,
    CHUNK_END,
    CHUNK_START,
    IV,
    LANES,
    LANES_WORDS,
    MESSAGE,
    ROOT,
    Words32,
    begin,
    compress,
)
from bezant.protocol.receipts import LEAF_PREFIX, NODE_PREFIX, POSITION_SIZE, SALT_SIZE, hash_leaf, hash_node
from bezant.protocol.records import EVENT, EVENT_SIZE, Bytes, Records

if (LEAF_PREFIX, NODE_PREFIX) != (b"\0", b"\1"):
    raise AssertionError("the prefixes are not those that the kernels write")

HASH_SIZE: Final = 32

_EVENT_WORDS: Final = EVENT_SIZE // 4
_SALT_WORDS: Final = SALT_SIZE // 4
_TEXT: Final = LANES_WORDS
_SALT: Final = _TEXT + LANES
_BODY: Final = _SALT + _SALT_WORDS * LANES
_POSITION: Final = _BODY + _EVENT_WORDS * LANES
LEAF_SIZE: Final = 1 + SALT_SIZE + EVENT_SIZE + POSITION_SIZE
NODE_SIZE: Final = 1 + 2 * HASH_SIZE
_TEXT_WORDS: Final = 1 + -(-LEAF_SIZE // BLOCK_SIZE) * 16
_WORK_WORDS: Final = _TEXT + _TEXT_WORDS * LANES
"""Words of all lanes: sixteen of the message, eight of the chaining value, and the text that is hashed. Of the text's
first word only the last byte counts, the prefix, so that what follows it begins with a word."""
_NODE_WORD: Final = NODE_PREFIX[0] << 24
_HALF: Final = 0xFFFFFFFF
_KEYED: Final = 16


@inlined
def _hash_text(work: Words32, size: int) -> None:
    """Hash the first `size` bytes of the texts of all lanes, which have a byte before their words."""
    blocks = (size + BLOCK_SIZE - 1) // BLOCK_SIZE
    begin(work, IV)
    for block in range(blocks):
        start = _TEXT + block * 16 * LANES
        for place in range(16 * LANES):
            word, after = work[start + place], work[start + place + LANES]
            work[MESSAGE + place] = np.uint32((word >> 24) | (after << 8))
        flags = CHUNK_START if block == 0 else 0
        if block == blocks - 1:
            flags |= CHUNK_END | ROOT
        compress(work, min(size - block * BLOCK_SIZE, BLOCK_SIZE), flags)


@inlined
def _give(work: Words32, hashes: Words32, first: int) -> None:
    """Write the hashes of the lanes behind one another, as many as there is room for."""
    for lane in range(min(LANES, len(hashes) - first)):
        for word in range(8):
            hashes[first + lane, word] = work[CHAIN + word * LANES + lane]


@kernel
def _hash_leaves(
    events: Words32, first_sequence: int, first_position: int, secret: Words32, work: Words32, hashes: Words32
) -> None:
    """Hashes of the leaves of events (count, 48): byte 0, salt, event, position. `work` is zeros."""
    for first in range(0, len(events), LANES):
        work[MESSAGE : MESSAGE + 16 * LANES] = 0
        for lane in range(LANES):
            sequence, position = first_sequence + first + lane, first_position + first + lane
            work[MESSAGE + lane] = sequence & _HALF
            work[MESSAGE + LANES + lane] = sequence >> 32 & _HALF
            work[_POSITION + lane] = position & _HALF
            work[_POSITION + LANES + lane] = position >> 32 & _HALF
            row = min(first + lane, len(events) - 1)
            for word in range(_EVENT_WORDS):
                work[_BODY + word * LANES + lane] = events[row, word]
        begin(work, secret)
        compress(work, 8, CHUNK_START | CHUNK_END | ROOT | _KEYED)
        for place in range(_SALT_WORDS * LANES):
            work[_SALT + place] = work[CHAIN + place]
        _hash_text(work, LEAF_SIZE)
        _give(work, hashes, first)


@kernel
def _hash_nodes(pairs: Words32, work: Words32, hashes: Words32) -> None:
    """Hashes of the nodes above pairs of hashes (count, 16): byte 1, left hash, right hash. `work` is zeros."""
    for lane in range(LANES):
        work[_TEXT + lane] = _NODE_WORD
    for first in range(0, len(pairs), LANES):
        for lane in range(LANES):
            row = min(first + lane, len(pairs) - 1)
            for word in range(16):
                work[_SALT + word * LANES + lane] = pairs[row, word]
        _hash_text(work, NODE_SIZE)
        _give(work, hashes, first)


def hash_leaves(events: Records, first_sequence: int, first_position: int, secret: bytes) -> Bytes:
    """Hashes (count, 32) of the leaves of EVENT records that follow one another; `secret` makes their salts."""
    found = np.empty((len(events), HASH_SIZE), np.uint8)
    if COMPILED and len(events):
        words = np.ascontiguousarray(events).view(np.uint32).reshape(-1, _EVENT_WORDS)
        words.flags.writeable = False  # kernels know one type
        key = np.frombuffer(secret, np.uint32)
        _hash_leaves(
            words, first_sequence, first_position, key, np.zeros(_WORK_WORDS, np.uint32), found.view(np.uint32)
        )
        return found
    for number in range(len(events)):
        salt = salt_of(secret, first_sequence + number)
        found[number] = np.frombuffer(hash_leaf(salt, events[number].tobytes(), first_position + number), np.uint8)
    return found


def hash_nodes(hashes: Bytes) -> Bytes:
    """Hashes (count // 2, 32) of the nodes above pairs of hashes (count, 32)."""
    count = len(hashes) // 2
    found = np.empty((count, HASH_SIZE), np.uint8)
    if COMPILED and count:
        words = np.ascontiguousarray(hashes[: 2 * count]).view(np.uint32).reshape(count, 16)
        words.flags.writeable = False  # kernels know one type
        _hash_nodes(words, np.zeros(_WORK_WORDS, np.uint32), found.view(np.uint32))
        return found
    for number in range(count):
        left, right = hashes[2 * number].tobytes(), hashes[2 * number + 1].tobytes()
        found[number] = np.frombuffer(hash_node(left, right), np.uint8)
    return found


def salt_of(secret: bytes, sequence: int) -> bytes:
    """The salt of an event: BLAKE3 of the sequence (8 bytes, little-endian), keyed with the secret."""
    return blake3.blake3(sequence.to_bytes(8, "little"), key=secret).digest(length=SALT_SIZE)


def warm_hashing() -> None:
    """Compile or load the kernels before anybody waits for them."""
    hash_leaves(np.zeros(1, EVENT), 1, 1, bytes(HASH_SIZE))
    hash_nodes(np.zeros((2, HASH_SIZE), np.uint8))
