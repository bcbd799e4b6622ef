"""Ids of the legs of a transfer between shards: derived from its try, so that whoever repeats a leg gives it the same.

    id = first 16 bytes of BLAKE3("bezant leg" | salt 8 | try id 16 | id of the account that pays 16 | leg 1)
         with the version and variant of a UUID (RFC 9562): version 7, and the first 48 bits of the try's id, if that is
         such a one, and so has its time there; else version 8

With the time in it a leg is known to be new without a search in ids of long ago. Whoever knows such an id cannot use it
up: the ledger keeps those of legs apart. But the salt is 0, and 74 bits are left beside the time: who may choose ids of
two transfers or transactions finds, with some 2**37 hashes, two of whose legs some have the same. What that does:

- Decisions and ends (CONFIRM, CANCEL) get other ids (`legs.OTHER_IDS`), so that nothing stays reserved for anybody.
- A try that says anything else than the other one is refused with ID_CONFLICT.
- One that says all the same is taken for a repeat of the other's. Its own CONFIRM comes too late: of a transfer it is
  paid for and parked, which harms who has paid; a Saga fails, and gives back only what its own CONFIRM has moved.
- But if the ids of two legs are the same (`protocol/transactions.py`), so are those of all that follows from them: what
  one transaction does with its leg the other one takes for its own, and a Saga that fails gives it back. So leave the
  choice of ids to nobody who must not debit the account that is paid: who may ask for transactions may debit any
  account, and must not pass on ids that strangers have chosen, but derive its own from them with a key of its own.
"""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import kernel, quick
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
from bezant.protocol.errors import UsageError
from bezant.protocol.records import COMMAND, EVENT, Bytes, Records, Words
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
_ID: Final = 0
_DEBIT: Final = 2
_ONE_LEG: Final = {leg: np.array([leg], np.int64) for leg in Leg}

if _SIZE > BLOCK_SIZE:
    raise AssertionError("what an id is derived from is one block of BLAKE3")
for _layout in (COMMAND, EVENT):
    _places = [_layout.fields[f"{name}_head"][1] for name in ("id", "debit")] if _layout.fields else []
    if _places != [8 * _ID, 8 * _DEBIT]:
        raise AssertionError("the ids in a record are not where they are looked for")


@kernel
def derive_ids(tries: Words, legs: Words, salt: int, ids: Words, work: Words32, scratch: Bytes) -> None:
    """Write the id (int64 of shape (count, 2)) of a leg of each try, given by its words: a number of `Leg` each, or one
    for all.

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
            store_word(scratch, _TRY_AT, tries[number, _ID])
            store_word(scratch, _TRY_AT + 8, tries[number, _ID + 1])
            store_word(scratch, _DEBIT_AT, tries[number, _DEBIT])
            store_word(scratch, _DEBIT_AT + 8, tries[number, _DEBIT + 1])
            scratch[_LEG_AT] = legs[min(number, len(legs) - 1)]
            for index in range(BLOCK_SIZE // 8):
                word = np.uint64(load_word(scratch, 8 * index))
                work[MESSAGE + 2 * index * LANES + lane] = np.uint32(word & np.uint64(_HALF_MASK))
                work[MESSAGE + (2 * index + 1) * LANES + lane] = np.uint32(word >> np.uint64(32))
        begin(work, IV)
        compress(work, _SIZE, CHUNK_START | CHUNK_END | ROOT)
        for lane in range(min(LANES, count - first)):
            place, try_head = CHAIN + lane, tries[first + lane, _ID]
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


def words_of_records(records: Records) -> Words:
    """COMMAND or EVENT records as int64 of shape (count, 16 or 24): the same memory, if it is contiguous."""
    return np.ascontiguousarray(records).view(np.int64).reshape(len(records), records.dtype.itemsize // 8)


def joined(parts: Sequence[Records]) -> Records:
    """COMMAND or EVENT records, one after the other: one part at least, and all of one kind.

    As words, since NumPy joins records a field at a time, in a tenfold of the time if they are few.
    """
    records: Records = np.concatenate([words_of_records(part) for part in parts]).view(parts[0].dtype)
    return records[:, 0]


def derived_ids(tries: Records, legs: Leg | Words, *, salt: int = 0) -> npt.NDArray[np.int64]:
    """The ids (int64 of shape (count, 2)) of a leg, or one leg each, of these TRY_DEBITs (EVENT or COMMAND records)."""
    return derived_ids_of(words_of_records(tries), legs, salt)


def derived_ids_of(tries: Words, legs: Leg | Words, salt: int) -> npt.NDArray[np.int64]:
    """The same, of the words of records."""
    names = _ONE_LEG[legs] if isinstance(legs, Leg) else legs
    if len(names) not in (1, len(tries)):
        raise UsageError(f"{len(names)} legs of {len(tries)} tries")
    ids = np.empty((len(tries), 2), np.int64)
    work, scratch = np.empty(LANES_WORDS, np.uint32), np.empty(BLOCK_SIZE, np.uint8)
    quick(derive_ids)(tries, names, salt, ids, work, scratch)
    return ids
