"""The compression function of BLAKE3 on many inputs at a time: sixteen, in the lanes of vector registers.

Source: the BLAKE3 paper, section 2.2. The compiler makes vector instructions of the loops over lanes, because all words
lie in one array and all places in it are constants.

The working memory is one array of uint32. Of a lane, word `w` of the message is at ``MESSAGE + w * LANES + lane``, and
word `w` of the chaining value at ``CHAIN + w * LANES + lane``; from `LANES_WORDS` on it is the caller's.
"""

# ruff: noqa: PLR0917 - plain words as arguments are the point of a kernel

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import inlined

Words32 = npt.NDArray[np.uint32]

BLOCK_SIZE: Final = 64
LANES: Final = 16
MESSAGE: Final = 0
CHAIN: Final = 16 * LANES
LANES_WORDS: Final = 24 * LANES
CHUNK_START: Final = 1
CHUNK_END: Final = 2
ROOT: Final = 8
_IV_0, _IV_1, _IV_2, _IV_3 = 0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A
IV: Final = np.array([_IV_0, _IV_1, _IV_2, _IV_3, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32)


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
        work[place + LANES],
        work[place + 2 * LANES],
        work[place + 3 * LANES],
        work[place + 4 * LANES],
        work[place + 5 * LANES],
        work[place + 6 * LANES],
        work[place + 7 * LANES],
    )


@inlined
def compress(work: Words32, size: int, flags: int) -> None:
    """The compression function on the message and the chaining values of all lanes, which it replaces.

    Written so that all of it is in registers, and without an inner loop, which would keep the compiler from making
    vectors of this one.
    """
    for lane in range(LANES):
        m = _load_8(work, MESSAGE + lane) + _load_8(work, MESSAGE + 8 * LANES + lane)
        start = (np.uint32(_IV_0), np.uint32(_IV_1), np.uint32(_IV_2), np.uint32(_IV_3))
        last = (np.uint32(0), np.uint32(0), np.uint32(size), np.uint32(flags))
        v = _load_8(work, CHAIN + lane) + start + last
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
        work[CHAIN + lane] = v[0] ^ v[8]
        work[CHAIN + LANES + lane] = v[1] ^ v[9]
        work[CHAIN + 2 * LANES + lane] = v[2] ^ v[10]
        work[CHAIN + 3 * LANES + lane] = v[3] ^ v[11]
        work[CHAIN + 4 * LANES + lane] = v[4] ^ v[12]
        work[CHAIN + 5 * LANES + lane] = v[5] ^ v[13]
        work[CHAIN + 6 * LANES + lane] = v[6] ^ v[14]
        work[CHAIN + 7 * LANES + lane] = v[7] ^ v[15]


@inlined
def begin(work: Words32, key: Words32) -> None:
    """Give all lanes the chaining value that the first block of a hash has."""
    for word in range(8):
        for lane in range(LANES):
            work[CHAIN + word * LANES + lane] = key[word]
