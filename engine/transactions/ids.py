"""Ids of the legs of a transfer between shards: derived from its try, so that whoever repeats a leg gives it the same.

    id = first 16 bytes of BLAKE3("bezant leg" | salt 8 | try id 16 | id of the account that pays 16 | leg 1)
         with the version and variant of a UUID (RFC 9562): version 7, and the first 48 bits of the try's id, if that is
         such a one, and so has its time there; else version 8

With the time in it a leg is known to be new without a search in ids of long ago. Whoever knows such an id cannot use it
up: the ledger keeps those of legs apart. But the salt is 0, and 74 bits are left beside the time: who may choose ids of
two transfers finds, with some 2**37 hashes, two whose legs have the same. Then the second transfer is refused, or
gets other ids for its decision (`legs.OTHER_IDS`), or, where it says all that the first one did, too, is paid for and
parked: it harms who has paid, and nobody else. Those who may ask for transactions may debit any account, and so gain
nothing by it either.
"""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import kernel
from bezant.engine.hashing import load_word, store_word
from bezant.engine.ids.times import uuid_time_ms
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
from bezant.protocol.records import Bytes, Records, Words
from bezant.protocol.transactions import Leg

_PREFIX: Final = np.frombuffer(b"bezant leg", np.uint8)
_SALT_AT: Final = len(_PREFIX)
_TRY_AT: Final = _SALT_AT + 8
_DEBIT_AT: Final = _TRY_AT + 16
_LEG_AT: Final = _DEBIT_AT + 16
_SIZE: Final = _LEG_AT + 1
_VERSION_SHIFT: Final = 52
_VERSION_MASK: Final = 0xF << _VERSION_SHIFT
_TIME_MASK: Final = (1 << 48) - 1
_TIME_VERSION: Final = 7
_OTHER_VERSION: Final = 8
_VARIANT: Final = 0x80
_VARIANT_MASK: Final = 0xC0
_HALF_MASK: Final = 0xFFFFFFFF

if _SIZE > BLOCK_SIZE:
    raise AssertionError("what an id is derived from is one block of BLAKE3")


@kernel
def derive_ids(tries: Words, debits: Words, legs: Words, salt: int, ids: Words, work: Words32, scratch: Bytes) -> None:
    """Write the id (int64 of shape (count, 2)) of a leg of each try, given by its id and the account that pays.

    `work` has LANES_WORDS words and `scratch` BLOCK_SIZE bytes.
    """
    scratch[:] = 0
    for index in range(len(_PREFIX)):
        scratch[index] = _PREFIX[index]
    store_word(scratch, _SALT_AT, salt)
    count = len(tries)
    for first in range(0, count, LANES):
        for lane in range(LANES):
            number = min(first + lane, count - 1)
            store_word(scratch, _TRY_AT, tries[number, 0])
            store_word(scratch, _TRY_AT + 8, tries[number, 1])
            store_word(scratch, _DEBIT_AT, debits[number, 0])
            store_word(scratch, _DEBIT_AT + 8, debits[number, 1])
            scratch[_LEG_AT] = legs[number]
            for index in range(BLOCK_SIZE // 8):
                word = np.uint64(load_word(scratch, 8 * index))
                work[MESSAGE + 2 * index * LANES + lane] = np.uint32(word & np.uint64(_HALF_MASK))
                work[MESSAGE + (2 * index + 1) * LANES + lane] = np.uint32(word >> np.uint64(32))
        begin(work, IV)
        compress(work, _SIZE, CHUNK_START | CHUNK_END | ROOT)
        for lane in range(min(LANES, count - first)):
            place, try_head = CHAIN + lane, tries[first + lane, 0]
            head = np.int64(work[place]) | np.int64(work[place + LANES]) << 32
            tail = np.int64(work[place + 2 * LANES]) | np.int64(work[place + 3 * LANES]) << 32
            version = _OTHER_VERSION
            if uuid_time_ms(try_head) != 0:
                version = _TIME_VERSION
                head = (head & ~_TIME_MASK) | (try_head & _TIME_MASK)
            ids[first + lane, 0] = (head & ~_VERSION_MASK) | (version << _VERSION_SHIFT)
            ids[first + lane, 1] = (tail & ~_VARIANT_MASK) | _VARIANT


def words_of(records: Records, field: str) -> Words:
    """An id of each record, as int64 of shape (count, 2)."""
    return np.stack([records[f"{field}_head"], records[f"{field}_tail"]], axis=1)


def derived_ids(tries: Records, legs: Leg | Words, *, salt: int = 0) -> npt.NDArray[np.int64]:
    """The ids (int64 of shape (count, 2)) of a leg, or one leg each, of these TRY_DEBITs (EVENT or COMMAND records)."""
    # A copy: what is broadcast is read-only, or not if it is one, and kernels know one type.
    names = np.array(np.broadcast_to(np.asarray(legs, np.int64), len(tries)))
    ids = np.empty((len(tries), 2), np.int64)
    work, scratch = np.zeros(LANES_WORDS, np.uint32), np.zeros(BLOCK_SIZE, np.uint8)
    derive_ids(words_of(tries, "id"), words_of(tries, "debit"), names, salt, ids, work, scratch)
    return ids
