"""Ids of the legs of a transfer between shards: derived from its try, so that whoever repeats a leg gives it the same.

    id = first 16 bytes of BLAKE3("bezant leg" | salt 8 | try id 16 | id of the account that pays 16 | leg 1)
         with the version and variant of a UUID (RFC 9562): version 7, and the first 48 bits of the try's id, if that is
         such a one, and so has its time there; else version 8

With the time in it a leg is known to be new without a search in ids of long ago. The salt is a secret of all shards
together: whoever does not know it cannot look for two tries whose legs have the same id. (And whoever knows such an id
cannot use it up: the ledger keeps those of legs apart.)
"""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from enum import IntEnum, unique
from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import SCRATCH_SIZE, blake3_words, store_word
from bezant.engine.ids.times import uuid_time_ms
from bezant.protocol.records import Bytes, Records, Words


@unique
class Leg(IntEnum):
    """What follows a try, or comes with it: numbers that go into ids."""

    TRY_CREDIT = 1
    CONFIRM_DEBIT = 2
    CONFIRM_CREDIT = 3
    CANCEL_DEBIT = 4
    CANCEL_CREDIT = 5
    CANCEL_ORPHAN = 6
    """Of a TRY_CREDIT, and derived from that: its own shard has taken it back."""
    GIVE_BACK = 7
    PLAN = 8


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

if _SIZE > 64:
    raise AssertionError("what an id is derived from is one block of BLAKE3")


@inlined
def prepare_scratch(scratch: Bytes, salt: int) -> None:
    """Write what all ids are derived from into SCRATCH_SIZE bytes, for `derive_id`."""
    for index in range(_SIZE, 64):
        scratch[index] = 0
    for index in range(len(_PREFIX)):
        scratch[index] = _PREFIX[index]
    store_word(scratch, _SALT_AT, salt)


@inlined
def derive_id(
    scratch: Bytes, try_head: int, try_tail: int, debit_head: int, debit_tail: int, leg: int
) -> tuple[int, int]:
    """The id of a leg of a try, given by its id and the account that pays."""
    store_word(scratch, _TRY_AT, try_head)
    store_word(scratch, _TRY_AT + 8, try_tail)
    store_word(scratch, _DEBIT_AT, debit_head)
    store_word(scratch, _DEBIT_AT + 8, debit_tail)
    scratch[_LEG_AT] = leg
    head, tail = blake3_words(scratch, _SIZE)
    version = _OTHER_VERSION
    if uuid_time_ms(try_head) != 0:
        version = _TIME_VERSION
        head = (head & ~_TIME_MASK) | (try_head & _TIME_MASK)
    return (head & ~_VERSION_MASK) | (version << _VERSION_SHIFT), (tail & ~_VARIANT_MASK) | _VARIANT


@kernel
def derive_ids(tries: Words, debits: Words, leg: int, salt: int, ids: Words, scratch: Bytes) -> None:
    """Write the ids of a leg (int64 of shape (count, 2)) of tries, given by their ids and the accounts that pay."""
    prepare_scratch(scratch, salt)
    for number in range(len(tries)):
        try_head, try_tail = tries[number, 0], tries[number, 1]
        ids[number, 0], ids[number, 1] = derive_id(
            scratch, try_head, try_tail, debits[number, 0], debits[number, 1], leg
        )


def words_of(records: Records, field: str) -> Words:
    """An id of each record, as int64 of shape (count, 2)."""
    return np.stack([records[f"{field}_head"], records[f"{field}_tail"]], axis=1)


def derived_ids(tries: Records, leg: Leg, *, salt: int = 0) -> npt.NDArray[np.int64]:
    """The ids (int64 of shape (count, 2)) of a leg of these TRY_DEBITs (EVENT or COMMAND records)."""
    ids = np.empty((len(tries), 2), np.int64)
    derive_ids(words_of(tries, "id"), words_of(tries, "debit"), int(leg), salt, ids, np.zeros(SCRATCH_SIZE, np.uint8))
    return ids
