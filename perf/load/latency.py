"""Latencies as a histogram of fixed size: any number of measurements in 320 KB, each to within 0.1 %.

A duration falls into a bucket by its leading 11 bits, so that the width of a bucket is at most 1/1024 of what lies in
it; below 2048 ns a bucket is one nanosecond. Merging and weighting (a frame of 8,189 transfers is 8,189 latencies) are
additions, and nothing is allocated or sorted while a load runs.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from bezant.engine.compiled import kernel
from bezant.protocol.records import Words

_PRECISION_BITS: Final = 10
_FINE_COUNT: Final = 2 << _PRECISION_BITS
_SHIFT_MAX: Final = 36
"""Durations of (2 << 46) ns, some 39 hours, and more fall into the last bucket."""

BUCKET_COUNT: Final = (_SHIFT_MAX << _PRECISION_BITS) + _FINE_COUNT

PERCENTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@kernel
def record_latency(histogram: Words, latency_ns: int, weight: int) -> None:
    """Count a duration in nanoseconds `weight` times, in a histogram that `new_histogram` made."""
    shift = 0
    while latency_ns >> shift >= _FINE_COUNT and shift < _SHIFT_MAX:
        shift += 1
    bucket = (shift << _PRECISION_BITS) + min(latency_ns >> shift, _FINE_COUNT - 1)
    histogram[bucket] += weight


@kernel
def record_latencies(histogram: Words, latencies_ns: Words) -> None:
    """Count every duration of an array once."""
    for index in range(latencies_ns.shape[0]):
        record_latency(histogram, latencies_ns[index], 1)


def new_histogram() -> Words:
    """An empty histogram."""
    return np.zeros(BUCKET_COUNT, np.int64)


def bucket_middle_ns(bucket: int) -> float:
    """The duration in the middle of a bucket, in nanoseconds."""
    if bucket < _FINE_COUNT:
        return float(bucket)
    shift = (bucket >> _PRECISION_BITS) - 1
    floor_ns = (bucket - (shift << _PRECISION_BITS)) << shift
    return floor_ns + (1 << shift) / 2


def percentiles_us(histogram: Words, max_ns: int) -> dict[str, float | None]:
    """The percentiles of `PERCENTILES` and the maximum, in microseconds; None for each when nothing was recorded."""
    cumulative = np.cumsum(histogram)
    total = int(cumulative[-1])
    if total == 0:
        return {**dict.fromkeys(PERCENTILES), "max": None}
    found: dict[str, float | None] = {}
    for name, share in PERCENTILES.items():
        bucket = int(np.searchsorted(cumulative, max(1, int(np.ceil(total * share)))))
        found[name] = round(min(bucket_middle_ns(bucket), max_ns) / 1000, 3)
    found["max"] = round(max_ns / 1000, 3)
    return found
