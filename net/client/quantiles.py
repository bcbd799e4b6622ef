"""Quantiles of times that were counted by class, and what was counted between two readings."""

from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram

_NS_PER_MS = 1_000_000


def between(before: Histogram, after: Histogram) -> Histogram:
    """What was observed after one reading and before another; all of the later one if the counting began anew."""
    earlier = before.counts + [0] * (len(after.counts) - len(before.counts))
    counts = [count - known for count, known in zip(after.counts, earlier, strict=False)]
    if len(earlier) > len(after.counts) or any(count < 0 for count in counts):
        return after
    return Histogram(counts, max(after.sum_s - before.sum_s, 0.0))


def merged(first: Histogram, second: Histogram) -> Histogram:
    """Both together."""
    longer, shorter = sorted((first.counts, second.counts), key=len, reverse=True)
    counts = [count + other for count, other in zip(longer, shorter, strict=False)] + longer[len(shorter) :]
    return Histogram(counts, first.sum_s + second.sum_s)


def quantile_ms(histogram: Histogram, share: float) -> float | None:
    """The time that this share (0 to 1) of all did not exceed, in milliseconds; None if there were none.

    Within a class times are taken as evenly spread, so it is off by 20 % at most; what is beyond all bounds is told as
    the last of them.
    """
    wanted, passed = share * sum(histogram.counts), 0
    if not any(histogram.counts):
        return None
    for number, count in enumerate(histogram.counts[: len(LATENCY_BOUNDS_NS)]):
        if count and passed + count >= wanted:
            low = LATENCY_BOUNDS_NS[number - 1] if number else 0
            return (low + (LATENCY_BOUNDS_NS[number] - low) * (wanted - passed) / count) / _NS_PER_MS
        passed += count
    return LATENCY_BOUNDS_NS[-1] / _NS_PER_MS
