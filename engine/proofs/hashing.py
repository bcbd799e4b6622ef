"""BLAKE3 of many leaves, or nodes, of the tree at a time: sixteen beside each other in the lanes of vector registers.

Source: the BLAKE3 paper, sections 2.2 (compression function) and 2.4 (modes): every input here is one chunk, of 1,024
bytes at most. The compiler makes vector instructions of the loops over lanes, because all words lie in one array and
all places in it are constants. (An event costs some 0.1 us, salt and nodes included; the package `blake3`, which has
one input at a time, needs five times as long for the leaf alone.)
"""

from typing import Any, Final

import blake3
import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import COMPILED, inlined, kernel
from bezant.protocol.receipts import LEAF_PREFIX, NODE_PREFIX, POSITION_SIZE, SALT_SIZE, hash_leaf, hash_node
from bezant.protocol.records import EVENT, EVENT_SIZE, Bytes, Records

if (LEAF_PREFIX, NODE_PREFIX) != (b"\0", b"\1"):
    raise AssertionError("the prefixes are not those that the kernels write")

HASH_SIZE: Final = 32
BLOCK_SIZE: Final = 64
Words32 = npt.NDArray[np.uint32]

_LANES: Final = 16
_EVENT_WORDS: Final = EVENT_SIZE // 4
_SALT_WORDS: Final = SALT_SIZE // 4
_MESSAGE: Final = 0
_CHAIN: Final = 16 * _LANES
_TEXT: Final = 24 * _LANES
_SALT: Final = _TEXT + _LANES
_BODY: Final = _SALT + _SALT_WORDS * _LANES
_POSITION: Final = _BODY + _EVENT_WORDS * _LANES
LEAF_SIZE: Final = 1 + SALT_SIZE + EVENT_SIZE + POSITION_SIZE
NODE_SIZE: Final = 1 + 2 * HASH_SIZE
_TEXT_WORDS: Final = 1 + -(-LEAF_SIZE // BLOCK_SIZE) * 16
_WORK_WORDS: Final = _TEXT + _TEXT_WORDS * _LANES
"""Words of all lanes: sixteen of the message, eight of the chaining value, and the text that is hashed. Of the text's
first word only the last byte counts, the prefix, so that what follows it begins with a word."""
_NODE_WORD: Final = NODE_PREFIX[0] << 24
_HALF: Final = 0xFFFFFFFF
_CHUNK_START: Final = 1
_CHUNK_END: Final = 2
_ROOT: Final = 8
_KEYED: Final = 16
_IV_0, _IV_1, _IV_2, _IV_3 = 0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A
_IV: Final = np.array([_IV_0, _IV_1, _IV_2, _IV_3, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32)


@inlined
def _mix(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:
    """The function G of the paper on one column or diagonal, with two words of the message."""
    a = np.uint32(a + b + x)
    d = np.uint32(d ^ a)
    d = np.uint32((d >> 16) | (d << 16))
    c = np.uint32(c + d)
    b = np.uint32(b ^ c)
    b = np.uint32((b >> 12) | (b << 20))
    a = np.uint32(a + b + y)
    d = np.uint32(d ^ a)
    d = np.uint32((d >> 8) | (d << 24))
    c = np.uint32(c + d)
    b = np.uint32(b ^ c)
    b = np.uint32((b >> 7) | (b << 25))
    return a, b, c, d


@inlined
def _round(v: Any, m: Any) -> Any:
    """One round: the state after it, from the state before it and the message in the order of this round."""
    v0, v4, v8, v12 = _mix(v[0], v[4], v[8], v[12], m[0], m[1])
    v1, v5, v9, v13 = _mix(v[1], v[5], v[9], v[13], m[2], m[3])
    v2, v6, v10, v14 = _mix(v[2], v[6], v[10], v[14], m[4], m[5])
    v3, v7, v11, v15 = _mix(v[3], v[7], v[11], v[15], m[6], m[7])
    v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[8], m[9])
    v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[10], m[11])
    v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[12], m[13])
    v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[14], m[15])
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15


@inlined
def _permute(m: Any) -> Any:
    """The message in the order of the next round."""
    return m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]


@inlined
def _load_8(work: Words32, place: int) -> Any:
    """Eight words of a lane."""
    return (
        work[place],
        work[place + _LANES],
        work[place + 2 * _LANES],
        work[place + 3 * _LANES],
        work[place + 4 * _LANES],
        work[place + 5 * _LANES],
        work[place + 6 * _LANES],
        work[place + 7 * _LANES],
    )


@inlined
def _compress(work: Words32, size: int, flags: int) -> None:
    """The compression function on the message and the chaining values of all lanes, which it replaces.

    Written so that all of it is in registers, and without an inner loop, which would keep the compiler from making
    vectors of this one.
    """
    for lane in range(_LANES):
        m = _load_8(work, _MESSAGE + lane) + _load_8(work, _MESSAGE + 8 * _LANES + lane)
        start = (np.uint32(_IV_0), np.uint32(_IV_1), np.uint32(_IV_2), np.uint32(_IV_3))
        last = (np.uint32(0), np.uint32(0), np.uint32(size), np.uint32(flags))
        v = _load_8(work, _CHAIN + lane) + start + last
        v = _round(v, m)
        m = _permute(m)
        v = _round(v, m)
        m = _permute(m)
        v = _round(v, m)
        m = _permute(m)
        v = _round(v, m)
        m = _permute(m)
        v = _round(v, m)
        m = _permute(m)
        v = _round(v, m)
        v = _round(v, _permute(m))
        work[_CHAIN + lane] = v[0] ^ v[8]
        work[_CHAIN + _LANES + lane] = v[1] ^ v[9]
        work[_CHAIN + 2 * _LANES + lane] = v[2] ^ v[10]
        work[_CHAIN + 3 * _LANES + lane] = v[3] ^ v[11]
        work[_CHAIN + 4 * _LANES + lane] = v[4] ^ v[12]
        work[_CHAIN + 5 * _LANES + lane] = v[5] ^ v[13]
        work[_CHAIN + 6 * _LANES + lane] = v[6] ^ v[14]
        work[_CHAIN + 7 * _LANES + lane] = v[7] ^ v[15]


@inlined
def _begin(work: Words32, key: Words32) -> None:
    """Give all lanes the chaining value that the first block of a hash has."""
    for word in range(8):
        for lane in range(_LANES):
            work[_CHAIN + word * _LANES + lane] = key[word]


@inlined
def _hash_text(work: Words32, size: int) -> None:
    """Hash the first `size` bytes of the texts of all lanes, which have a byte before their words."""
    blocks = (size + BLOCK_SIZE - 1) // BLOCK_SIZE
    _begin(work, _IV)
    for block in range(blocks):
        start = _TEXT + block * 16 * _LANES
        for place in range(16 * _LANES):
            word, after = work[start + place], work[start + place + _LANES]
            work[_MESSAGE + place] = np.uint32((word >> 24) | (after << 8))
        flags = _CHUNK_START if block == 0 else 0
        if block == blocks - 1:
            flags |= _CHUNK_END | _ROOT
        _compress(work, min(size - block * BLOCK_SIZE, BLOCK_SIZE), flags)


@inlined
def _give(work: Words32, hashes: Words32, first: int) -> None:
    """Write the hashes of the lanes behind one another, as many as there is room for."""
    for lane in range(min(_LANES, len(hashes) - first)):
        for word in range(8):
            hashes[first + lane, word] = work[_CHAIN + word * _LANES + lane]


@kernel
def _hash_leaves(
    events: Words32, first_sequence: int, first_position: int, secret: Words32, work: Words32, hashes: Words32
) -> None:
    """Hashes of the leaves of events (count, 48): byte 0, salt, event, position. `work` is zeros."""
    for first in range(0, len(events), _LANES):
        work[_MESSAGE : _MESSAGE + 16 * _LANES] = 0
        for lane in range(_LANES):
            sequence, position = first_sequence + first + lane, first_position + first + lane
            work[_MESSAGE + lane] = sequence & _HALF
            work[_MESSAGE + _LANES + lane] = sequence >> 32 & _HALF
            work[_POSITION + lane] = position & _HALF
            work[_POSITION + _LANES + lane] = position >> 32 & _HALF
            row = min(first + lane, len(events) - 1)
            for word in range(_EVENT_WORDS):
                work[_BODY + word * _LANES + lane] = events[row, word]
        _begin(work, secret)
        _compress(work, 8, _CHUNK_START | _CHUNK_END | _ROOT | _KEYED)
        for place in range(_SALT_WORDS * _LANES):
            work[_SALT + place] = work[_CHAIN + place]
        _hash_text(work, LEAF_SIZE)
        _give(work, hashes, first)


@kernel
def _hash_nodes(pairs: Words32, work: Words32, hashes: Words32) -> None:
    """Hashes of the nodes above pairs of hashes (count, 16): byte 1, left hash, right hash. `work` is zeros."""
    for lane in range(_LANES):
        work[_TEXT + lane] = _NODE_WORD
    for first in range(0, len(pairs), _LANES):
        for lane in range(_LANES):
            row = min(first + lane, len(pairs) - 1)
            for word in range(16):
                work[_SALT + word * _LANES + lane] = pairs[row, word]
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
