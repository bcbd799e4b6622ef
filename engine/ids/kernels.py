"""Compiled loops over runs of ids. ``run.py`` says what the bytes are."""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import called, inlined, kernel
from bezant.engine.hashing import mix_words, prefetch, xxh3_64
from bezant.protocol.records import SEQUENCE_BITS, Bytes, Words

_ENTRIES: Final = 255
_BLOCK_SIZE: Final = 4096
_CHECKSUM_SIZE: Final = 8
_BLOCK_WORDS: Final = 512
_FILTER_WORDS: Final = 8
_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1

_PART_SIZE: Final = 146
"""The kernels' XXH3 takes up to 240 bytes, so a block is hashed in 28 equal parts."""
if (_BLOCK_SIZE - _CHECKSUM_SIZE) % _PART_SIZE:
    raise AssertionError("the parts of a block leave bytes out")

_KEY: Final = 0x2545F4914F6CDD1D
_SALT_1: Final = 0x27D4EB2F165667C5
_SALT_2: Final = 0x1B873593CC9E2D51
"""Constants of the format. They are no secret, because hashes are made with salts that are."""

_PREFETCH_DISTANCE: Final = 24
_FENCE_WINDOW: Final = 64
"""Blocks on either side of where a hash is expected that are searched before all are; of a full run, half the hashes
lie within 22 of it and nearly all within 100."""

SEARCH_NEXT: Final = 0
SEARCH_FOUND: Final = 1
SEARCH_DAMAGED: Final = 2
SEARCH_PROGRESS_SIZE: Final = 3
"""What `search_blocks` reads and advances: the next candidate, entries found, the block that is damaged (-1: none)."""

MERGE_OUT: Final = 0
MERGE_HASH: Final = 1
MERGE_SEQUENCE: Final = 2
MERGE_PROGRESS_SIZE: Final = 3
"""What `merge_entries` reads and advances: entries in `out`, hash and sequence of the last one merged (-1: none)."""


# ---- blocks and filter ----


@called
def _block_checksum(data: Bytes, start: int, run: int, block: int) -> Any:
    """Checksum of the block at `start`, but for its first 8 bytes, and of where it belongs: its run and its number."""
    checksum = mix_words(run, block, 0, _SALT_1, _SALT_2)
    for part in range(start + _CHECKSUM_SIZE, start + _BLOCK_SIZE, _PART_SIZE):
        checksum = ((checksum << 1) | ((checksum >> 63) & 1)) ^ np.int64(xxh3_64(data, part, part + _PART_SIZE))
    return checksum


@inlined
def _filter_row(hash_value: int, rows: int) -> int:
    """The row of a hash. Rows are in the order of hashes, so that a sorted run fills them from front to back."""
    return ((hash_value >> 31) * rows) >> 32


@inlined
def _filter_bits(hash_value: int) -> Any:
    """Six bits for each of the eight words of its row: the bit there. They do not depend on the row."""
    return mix_words(hash_value, _KEY, 0, _SALT_1, _SALT_2)


@kernel
def pack_blocks(
    entries: Words, run: int, first_block: int, data: Bytes, words: Words, bloom: Words, fences: Words
) -> None:
    """Write sorted entries (count, 2) into blocks, the first of which is `first_block` of the run.

    `data` and `words` (blocks, 512) are the same bytes; the last block is padded. Hashes go into the filter `bloom`
    (rows, 8) as well, and the first of each block into `fences` (all blocks of the run).
    """
    for block in range((len(entries) + _ENTRIES - 1) // _ENTRIES):
        first = block * _ENTRIES
        count = min(len(entries) - first, _ENTRIES)
        fences[first_block + block] = entries[first, 0]
        for place in range(count):
            hash_value = entries[first + place, 0]
            words[block, 2 * place + 1] = hash_value
            words[block, 2 * place + 2] = entries[first + place, 1]
            row = _filter_row(hash_value, len(bloom))
            bits = _filter_bits(hash_value)
            for word in range(_FILTER_WORDS):
                bloom[row, word] |= np.int64(1) << ((bits >> (6 * word)) & 63)
        for word in range(2 * count + 1, _BLOCK_WORDS):
            words[block, word] = 0
        words[block, 0] = _block_checksum(data, block * _BLOCK_SIZE, run, first_block + block)


@kernel
def unpack_blocks(data: Bytes, words: Words, run: int, first_block: int, entries: Words) -> int:
    """Read entries (count, 2) from the blocks of a run from `first_block` on; the block that is damaged, or -1."""
    for first in range(0, len(entries), _ENTRIES):
        block = first_block + first // _ENTRIES
        if words[block, 0] != _block_checksum(data, block * _BLOCK_SIZE, run, block):
            return block
        for place in range(min(len(entries) - first, _ENTRIES)):
            entries[first + place, 0] = words[block, 2 * place + 1]
            entries[first + place, 1] = words[block, 2 * place + 2]
    return -1


# ---- find ----


@kernel
def filter_bits(hashes: Words, bits: Words) -> None:
    """What `pass_filter` needs of each hash, the same for every run."""
    for place in range(len(hashes)):
        bits[place] = _filter_bits(hashes[place])


@kernel
def pass_filter(hashes: Words, bits: Words, times_ms: Words, time_ms_max: int, bloom: Words, candidates: Words) -> int:
    """Numbers of the hashes that a run may have, by its filter and its latest time; how many there are."""
    rows = len(bloom)
    count = 0
    for place in range(len(hashes)):
        ahead = min(place + _PREFETCH_DISTANCE, len(hashes) - 1)
        prefetch(bloom, _filter_row(hashes[ahead], rows))
        row = _filter_row(hashes[place], rows)
        passes = int(times_ms[place] <= time_ms_max)
        for word in range(_FILTER_WORDS):
            passes &= bloom[row, word] >> ((bits[place] >> (6 * word)) & 63)
        # Without a branch: of those that a filter stops, the bits are set or not like a coin that is tossed.
        candidates[count] = place
        count += passes
    return count


@inlined
def _first_block(fences: Words, hash_value: int) -> int:
    """The first block that may have a hash: the one before the first fence that is not below it."""
    low, high = 0, len(fences)
    expected = ((hash_value >> 31) * len(fences)) >> 32
    below, above = expected - _FENCE_WINDOW, expected + _FENCE_WINDOW
    if below > 0 and fences[below] < hash_value:
        low = below
    if above < high and fences[above] >= hash_value:
        high = above
    while low < high:
        middle = (low + high) >> 1
        if fences[middle] < hash_value:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)


@inlined
def _first_entry(words: Words, block: int, count: int, hash_value: int) -> int:
    """The first entry of a block with this hash or a greater one; `count` if there is none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if words[block, 2 * middle + 1] < hash_value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def search_blocks(
    hashes: Words,
    candidates: Words,
    fences: Words,
    data: Bytes,
    words: Words,
    run: int,
    entry_count: int,
    found: Words,
    progress: Words,
) -> bool:
    """Copy all entries of the candidates' hashes to `found` (room, 2); True when through, False when `found` is full.

    A block is believed only when its checksum is right: else False, and the block in `progress`. A candidate whose
    entries do not all find room is left for the next call.
    """
    for number in range(progress[SEARCH_NEXT], len(candidates)):
        hash_value = hashes[candidates[number]]
        count = progress[SEARCH_FOUND]
        first = _first_block(fences, hash_value)
        block = first
        while block < len(fences) and (block == first or fences[block] == hash_value):
            if words[block, 0] != _block_checksum(data, block * _BLOCK_SIZE, run, block):
                progress[SEARCH_DAMAGED] = block
                return False
            in_block = min(entry_count - block * _ENTRIES, _ENTRIES)
            place = _first_entry(words, block, in_block, hash_value)
            while place < in_block and words[block, 2 * place + 1] == hash_value:
                if count == len(found):
                    return False
                found[count, 0] = hash_value
                found[count, 1] = words[block, 2 * place + 2]
                count += 1
                place += 1
            block += 1
        progress[SEARCH_FOUND] = count
        progress[SEARCH_NEXT] = number + 1
    return True


# ---- merge ----


@kernel
def merge_entries(inputs: Words, places: Words, ends: Words, finished: Words, out: Words, progress: Words) -> bool:
    """Merge sorted entries of runs, `inputs` (runs, room, 2), newest first, to `out` (room, 2); True when it is full.

    Of each run those from its place to its end. When those of a run are used up, more have to come (False), unless it
    is `finished`; False as well when all are. Of entries with the same hash and sequence the first run's is kept.
    """
    while progress[MERGE_OUT] < len(out):
        best = -1
        for run in range(len(inputs)):
            if places[run] == ends[run]:
                if finished[run] == 0:
                    return False
            elif best < 0 or _is_before(inputs, run, places[run], best, places[best]):
                best = run
        if best < 0:
            return False
        hash_value = inputs[best, places[best], 0]
        value = inputs[best, places[best], 1]
        places[best] += 1
        sequence = value & _SEQUENCE_MASK
        if hash_value != progress[MERGE_HASH] or sequence != progress[MERGE_SEQUENCE]:
            progress[MERGE_HASH] = hash_value
            progress[MERGE_SEQUENCE] = sequence
            out[progress[MERGE_OUT], 0] = hash_value
            out[progress[MERGE_OUT], 1] = value
            progress[MERGE_OUT] += 1
    return True


@inlined
def _is_before(inputs: Words, run: int, place: int, other_run: int, other_place: int) -> bool:
    """Whether an entry comes before another one by (hash, sequence)."""
    hash_value, other = inputs[run, place, 0], inputs[other_run, other_place, 0]
    if hash_value != other:
        return hash_value < other
    return inputs[run, place, 1] & _SEQUENCE_MASK < inputs[other_run, other_place, 1] & _SEQUENCE_MASK
