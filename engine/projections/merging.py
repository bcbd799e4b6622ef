"""Large spans out of small ones: neighbours become one, a tier at a time.

A span of tier n has come of up to FAN_IN of tier n - 1, so that an index entry is written once a tier, and a history of
any length is a few dozen files: at most FAN_IN - 1 in each tier, and any number of the largest.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from bezant.engine.projections.lists import add_lengths, append_lists
from bezant.engine.projections.span import Lists, Span, SpanInfo
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import Words

FAN_IN: Final = 8
SPAN_EVENTS_MAX: Final = 1 << 24
"""Events of the largest span: a merge has its result in memory, some 40 bytes an event."""


def tier_of(event_count: int, seal_events: int, fan_in: int = FAN_IN) -> int:
    """How often spans of `seal_events` were merged to one of so many events."""
    tier = 0
    while event_count >= seal_events * fan_in:
        event_count //= fan_in
        tier += 1
    return tier


def plan_merge(infos: Sequence[SpanInfo], seal_events: int, fan_in: int = FAN_IN) -> list[SpanInfo]:
    """The spans, of all that there are in the order of events, to merge next; none if all is well."""
    start = 0
    while start < len(infos):
        tier = tier_of(infos[start].event_count, seal_events, fan_in)
        end = start
        while end < len(infos) and tier_of(infos[end].event_count, seal_events, fan_in) == tier:
            end += 1
        if end - start >= fan_in:
            chosen = list(infos[start : start + fan_in])
            if sum(info.event_count for info in chosen) <= SPAN_EVENTS_MAX:
                return chosen
        start = end
    return []


def merge_spans(spans: Sequence[Span]) -> Span:
    """One span, in memory, out of neighbours in the order of events."""
    for left, right in pairwise(spans):
        if left.last_sequence + 1 != right.first_sequence:
            raise LedgerError(f"spans that end at {left.last_sequence} and begin at {right.first_sequence} are merged")
    first_sequence = spans[0].first_sequence
    keys = _union([span.lists.keys for span in spans])
    ends = np.zeros(len(keys) + 1, np.int64)
    for span in spans:
        add_lengths(span.lists.keys, span.lists.starts, keys, ends)
    starts = np.cumsum(ends)
    filled, before = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    postings = np.empty(int(starts[-1]), np.int32)
    for span in spans:
        append_lists(
            span.lists.keys,
            span.lists.starts,
            span.lists.before,
            span.lists.postings,
            span.first_sequence - first_sequence,
            keys,
            starts,
            filled,
            before,
            postings,
        )
    rest = (np.concatenate(arrays) for arrays in list(zip(*(span.lists[4:] for span in spans), strict=True)))
    lists = Lists(keys, starts, before, postings, *rest)
    return Span(0, first_sequence, sum(span.event_count for span in spans), spans[-1].timestamp_ns, lists)


def _union(parts: Sequence[Words]) -> Words:
    """All keys, ascending, each once. (A sort of them all is thirty times as fast as NumPy's own union.)"""
    keys = np.sort(np.concatenate(parts))
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first]
