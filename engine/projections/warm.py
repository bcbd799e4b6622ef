"""Compiles the kernels of this room before anybody waits for them."""

import numpy as np

from bezant.engine.ids.warm import warm_ids
from bezant.engine.log.seeking import warm_seeking
from bezant.engine.projections.kernels import bit_of_code, find_accounts, take_events
from bezant.engine.projections.layout import CHANGE_WORDS, SUMMARY_WORDS, TOTAL_WORDS, BlockArrays
from bezant.engine.projections.lists import find_differing, find_last, find_range, make_lists
from bezant.engine.projections.merging import merge_spans
from bezant.engine.projections.span import Lists, Span
from bezant.engine.projections.tables import Tables
from bezant.protocol.records import EVENT, Words


def warm_projections() -> None:
    """Run each kernel once over nothing, with arrays of the types that they will get. Seconds without a cache."""
    warm_ids()
    warm_seeking()
    tables = Tables((1, 2))
    events = np.zeros(1, EVENT)
    events.flags.writeable = False
    data = events.view(np.uint8)
    block = BlockArrays(
        _words(),
        _words(),
        _words(),
        np.zeros((1, CHANGE_WORDS), np.int64),
        _words(),
        np.zeros(1, np.uint32),
        _words(SUMMARY_WORDS),
    )
    take_events(tables.make_room(1), block, events, events.view(np.int64).reshape(1, -1), data, 0, 0, 0, 1, 1)
    find_accounts(tables.arrays, np.zeros((1, 2), np.int64), _words())
    bit_of_code(0)
    make_lists(_words(0), _words(), _words(), _words(), _words(), np.zeros(0, np.int32))
    lists = Lists(
        _words(),
        _words(2),
        _words(),
        np.zeros(0, np.int32),
        np.zeros(1, np.uint32),
        _words(),
        np.zeros((1, SUMMARY_WORDS), np.int64),
        np.zeros((0, TOTAL_WORDS), np.int64),
        np.zeros((1, CHANGE_WORDS), np.int64),
    )
    for array in lists:
        array.flags.writeable = False
    find_last(lists.keys, lists.starts, lists.before, lists.postings, 0, 1, _words(), _words(), _words())
    find_range(lists.keys, lists.starts, lists.postings, 0, 0, 0, _words(2))
    find_differing(data, lists.checksums, _words(0), 0, 1)
    span = Span(0, 1, 1, 0, lists)
    merge_spans([span, span._replace(first_sequence=2)])
    tables.restore_span(span)


def _words(count: int = 1) -> Words:
    return np.zeros(count, np.int64)
