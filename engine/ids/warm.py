"""Compiles the kernels of this room before anybody waits for them."""

import numpy as np

from bezant.engine.ids.kernels import (
    MERGE_PROGRESS_SIZE,
    SEARCH_PROGRESS_SIZE,
    filter_bits,
    merge_entries,
    pack_blocks,
    pass_filter,
    search_blocks,
    unpack_blocks,
)
from bezant.engine.ids.run import BLOCK_SIZE, FILTER_ROW_SIZE
from bezant.engine.ids.times import latest_time_ms


def warm_ids() -> None:
    """Run each kernel once on a block that is thrown away, with arrays as they will come: blocks are read-only."""
    data = np.zeros(BLOCK_SIZE, np.uint8)
    words = data.view(np.int64).reshape(1, BLOCK_SIZE // 8)
    bloom = np.zeros((1, FILTER_ROW_SIZE // 8), np.int64)
    one, other, entries = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones((1, 2), np.int64)
    pack_blocks(entries, 1, 0, data, words, bloom, one)
    filter_bits(one, other)
    candidates = np.zeros(1, np.int64)
    pass_filter(one, other, np.zeros(1, np.int64), 0, bloom, candidates)
    data.flags.writeable = False
    words.flags.writeable = False
    search_blocks(one, candidates, one, data, words, 1, 1, entries, np.zeros(SEARCH_PROGRESS_SIZE, np.int64))
    unpack_blocks(data, words, 1, 0, entries)
    places, ends, finished = np.zeros((3, 1), np.int64)
    merge_entries(
        entries.reshape(1, 1, 2), places, ends, finished, entries.copy(), np.zeros(MERGE_PROGRESS_SIZE, np.int64)
    )
    latest_time_ms(one)
