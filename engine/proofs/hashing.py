"""BLAKE3 of many short inputs of one size at a time, sixteen beside each other in the lanes of vector registers.

Source: the BLAKE3 paper, sections 2.2 (compression function) and 2.4 (modes): every input here is one chunk, of 1,024
bytes at most. The compiler makes vector instructions of the loops over lanes, because all words lie in one array and
all places in it are constants.
"""

from typing import Final

import blake3
import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import COMPILED, inlined, kernel
from bezant.protocol.records import Bytes

HASH_SIZE: Final = 32
BLOCK_SIZE: Final = 64
Words32 = npt.NDArray[np.uint32]

_LANES: Final = 16
_MESSAGE: Final = 16 * _LANES
_SPARE: Final = 32 * _LANES
_CHAIN: Final = 48 * _LANES
_WORK_WORDS: Final = 56 * _LANES
"""Sixteen words of state, of message, and of message in the order of the next round; eight of the chaining value."""
_CHUNK_START: Final = 1
_CHUNK_END: Final = 2
_ROOT: Final = 8
_KEYED: Final = 16
_IV: Final = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32
)
_PERMUTATION: Final = np.array([2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8], np.int64)


@inlined
def _mix(work: Words32, a: int, b: int, c: int, d: int, x: int) -> None:
    """The function G of the paper on one column or diagonal of all lanes, with two words of the message from `x` on."""
    for lane in range(_LANES):
        va, vb = work[a * _LANES + lane], work[b * _LANES + lane]
        vc, vd = work[c * _LANES + lane], work[d * _LANES + lane]
        va = np.uint32(va + vb + work[_MESSAGE + x * _LANES + lane])
        vd = np.uint32(vd ^ va)
        vd = np.uint32((vd >> 16) | (vd << 16))
        vc = np.uint32(vc + vd)
        vb = np.uint32(vb ^ vc)
        vb = np.uint32((vb >> 12) | (vb << 20))
        va = np.uint32(va + vb + work[_MESSAGE + (x + 1) * _LANES + lane])
        vd = np.uint32(vd ^ va)
        vd = np.uint32((vd >> 8) | (vd << 24))
        vc = np.uint32(vc + vd)
        vb = np.uint32(vb ^ vc)
        vb = np.uint32((vb >> 7) | (vb << 25))
        work[a * _LANES + lane], work[b * _LANES + lane] = va, vb
        work[c * _LANES + lane], work[d * _LANES + lane] = vc, vd


@inlined
def _permute(work: Words32) -> None:
    """Bring the message into the order of the next round."""
    for lane in range(16 * _LANES):
        work[_SPARE + lane] = work[_MESSAGE + lane]
    for word in range(16):
        source = _SPARE + _PERMUTATION[word] * _LANES
        for lane in range(_LANES):
            work[_MESSAGE + word * _LANES + lane] = work[source + lane]


@inlined
def _compress(work: Words32, size: int, flags: int) -> None:
    """The compression function on the message and the chaining values of all lanes, which it replaces."""
    for lane in range(8 * _LANES):
        work[lane] = work[_CHAIN + lane]
    for word in range(4):
        for lane in range(_LANES):
            work[(8 + word) * _LANES + lane] = _IV[word]
    for lane in range(_LANES):
        work[12 * _LANES + lane] = 0
        work[13 * _LANES + lane] = 0
        work[14 * _LANES + lane] = size
        work[15 * _LANES + lane] = flags
    for number in range(7):
        if number != 0:
            _permute(work)
        _mix(work, 0, 4, 8, 12, 0)
        _mix(work, 1, 5, 9, 13, 2)
        _mix(work, 2, 6, 10, 14, 4)
        _mix(work, 3, 7, 11, 15, 6)
        _mix(work, 0, 5, 10, 15, 8)
        _mix(work, 1, 6, 11, 12, 10)
        _mix(work, 2, 7, 8, 13, 12)
        _mix(work, 3, 4, 9, 14, 14)
    for lane in range(8 * _LANES):
        work[_CHAIN + lane] = work[lane] ^ work[8 * _LANES + lane]


@kernel
def _hash_rows(rows: Words32, size: int, key: Words32, flags: int, work: Words32, hashes: Words32) -> None:
    """BLAKE3 of each row (count, words): of its first `size` bytes, behind which it has zeros up to a whole block."""
    count = len(rows)
    blocks = max((size + BLOCK_SIZE - 1) // BLOCK_SIZE, 1)
    for first in range(0, count, _LANES):
        for word in range(8):
            for lane in range(_LANES):
                work[_CHAIN + word * _LANES + lane] = key[word]
        for block in range(blocks):
            for lane in range(_LANES):
                row = min(first + lane, count - 1)
                for word in range(16):
                    work[_MESSAGE + word * _LANES + lane] = rows[row, block * 16 + word]
            of_block = flags | (_CHUNK_START if block == 0 else 0)
            if block == blocks - 1:
                of_block |= _CHUNK_END | _ROOT
            _compress(work, min(size - block * BLOCK_SIZE, BLOCK_SIZE), of_block)
        for lane in range(min(_LANES, count - first)):
            for word in range(8):
                hashes[first + lane, word] = work[_CHAIN + word * _LANES + lane]


def hash_rows(rows: Bytes, size: int, key: bytes | None = None) -> Bytes:
    """BLAKE3 (count, 32) of the first `size` bytes of each row (count, whole blocks); the rest of the row is zeros.

    `key` (32 bytes): in keyed mode.
    """
    if not COMPILED:
        hashes = [(blake3.blake3(row[:size], key=key) if key else blake3.blake3(row[:size])).digest() for row in rows]
        return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(rows), HASH_SIZE)
    found = np.empty((len(rows), HASH_SIZE), np.uint8)
    if len(rows):
        words = _IV if key is None else np.frombuffer(key, np.uint32).copy()
        work = np.empty(_WORK_WORDS, np.uint32)
        _hash_rows(rows.view(np.uint32), size, words, 0 if key is None else _KEYED, work, found.view(np.uint32))
    return found
