"""How a run is made: sorted entries in, the chunks of a file out.

Entries come and go in parts of `BLOCKS_PER_CHUNK` blocks, so that whoever makes a large run holds its filter, its
fences and one chunk in memory, and can do something else between two of them.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import xxhash

from bezant.engine.ids.kernels import pack_blocks
from bezant.engine.ids.layout import (
    BLOCK_SIZE,
    ENTRIES_PER_BLOCK,
    FILTER_ROW_SIZE,
    RUN_IDS_MAX,
    Identity,
    Page,
    RunInfo,
    encode_page,
    filter_rows,
    run_name,
)
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import SEQUENCE_BITS, Words

BLOCKS_PER_CHUNK: Final = 1024
"""Blocks that are packed and written at a time: 4 MiB."""
CHUNK_SIZE: Final = BLOCKS_PER_CHUNK * BLOCK_SIZE
ENTRIES_PER_CHUNK: Final = BLOCKS_PER_CHUNK * ENTRIES_PER_BLOCK
_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1


class RunBuilder:
    """Makes the chunks of one run; `info` says what came of it when they have been taken."""

    def __init__(self, identity: Identity, number: int, count_max: int, time_ms_max: int) -> None:
        """For `count_max` entries at most."""
        self.info: RunInfo | None = None
        self._identity = identity
        self._number = number
        self._time_ms_max = time_ms_max
        self._filter = np.zeros((filter_rows(count_max), FILTER_ROW_SIZE // 8), np.int64)
        self._fences = np.zeros(-(-count_max // ENTRIES_PER_BLOCK), np.int64)

    def chunks(self, parts: Iterable[Words]) -> Iterator[memoryview]:
        """The file, from sorted parts of its entries, (count, 2), all of them but the last of `ENTRIES_PER_CHUNK`.

        A chunk is overwritten when the next one is asked for.
        """
        data = np.empty(CHUNK_SIZE, np.uint8)
        words = data.view(np.int64).reshape(BLOCKS_PER_CHUNK, BLOCK_SIZE // 8)
        count = blocks = sequence_greatest = 0
        sequence_least = 1 << SEQUENCE_BITS
        for part in parts:
            pack_blocks(part, self._number, blocks, data, words, self._filter, self._fences)
            packed = -(-len(part) // ENTRIES_PER_BLOCK)
            count, blocks = count + len(part), blocks + packed
            sequences = part[:, 1] & _SEQUENCE_MASK
            sequence_least = min(sequence_least, int(sequences.min()))
            sequence_greatest = max(sequence_greatest, int(sequences.max()))
            yield data[: packed * BLOCK_SIZE].data
        filter_hasher, fences_hasher = xxhash.xxh3_64(), xxhash.xxh3_64()
        yield from _hashed(self._filter, filter_hasher)
        yield from _hashed(self._fences[:blocks], fences_hasher)
        page = Page(
            *self._identity[:2],
            self._identity.salt_fingerprint,
            self._number,
            count,
            blocks,
            self._filter.nbytes,
            sequence_least if count else 0,
            sequence_greatest,
            self._time_ms_max,
            filter_hasher.intdigest(),
            fences_hasher.intdigest(),
        )
        encoded, checksum = encode_page(page)
        yield memoryview(encoded)
        self.info = page.info(checksum)


def write_run(
    directory: Directory, identity: Identity, number: int, hashes: Words, values: Words, *, time_ms_max: int
) -> RunInfo:
    """Make a run of keys in any order, durably. `time_ms_max` is the latest time that any key tells, 0 if none does.

    Two equal entries count as one. Raises `StorageError`, and `LedgerError` for entries that cannot be.
    """
    order = np.argsort(hashes)
    ordered = hashes[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        order = np.lexsort((values & _SEQUENCE_MASK, hashes))
        order = order[_is_first(hashes[order], values[order])]
        ordered = hashes[order]
    if len(order) > RUN_IDS_MAX or (len(order) and (ordered[0] < 0 or (values & _SEQUENCE_MASK).min() <= 0)):
        raise LedgerError(f"{len(order)} ids, of which some have no hash or no sequence, are no run")
    builder = RunBuilder(identity, number, len(order), time_ms_max)
    directory.write_file(run_name(number), builder.chunks(_parts(ordered, values, order)))
    return finished_info(builder)


def finished_info(builder: RunBuilder) -> RunInfo:
    """What came of a run whose file has been made."""
    if builder.info is None:
        raise LedgerError("a file of ids was finished before its last page was made")
    return builder.info


def _is_first(hashes: Words, values: Words) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which sorted entries differ from the one before; the same hash and sequence with another fate cannot be."""
    first = np.ones(len(hashes), np.bool_)
    first[1:] = (hashes[1:] != hashes[:-1]) | (values[1:] != values[:-1])
    sequences = values & _SEQUENCE_MASK
    if bool(((hashes[1:] == hashes[:-1]) & (sequences[1:] == sequences[:-1]) & first[1:]).any()):
        raise LedgerError("the ids for one file have the same sequence twice, with different fates")
    return first


def _parts(ordered: Words, values: Words, order: Words) -> Iterator[Words]:
    entries = np.empty((min(len(order), ENTRIES_PER_CHUNK), 2), np.int64)
    for start in range(0, len(order), ENTRIES_PER_CHUNK):
        chosen = order[start : start + ENTRIES_PER_CHUNK]
        entries[: len(chosen), 0] = ordered[start : start + len(chosen)]
        entries[: len(chosen), 1] = values[chosen]
        yield entries[: len(chosen)]


def _hashed(array: Words, hasher: xxhash.xxh3_64) -> Iterator[memoryview]:
    """The bytes of an array in pieces of `CHUNK_SIZE`, each of them hashed."""
    data = array.reshape(-1).view(np.uint8)
    for start in range(0, len(data), CHUNK_SIZE):
        piece = data[start : start + CHUNK_SIZE]
        hasher.update(piece.data)
        yield piece.data
