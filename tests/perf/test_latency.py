"""Claim: the histogram finds every percentile to within 0.1 %, whatever the durations."""

import numpy as np
import pytest

from bezant.perf.load.latency import (
    BUCKET_COUNT,
    PERCENTILES,
    bucket_middle_ns,
    new_histogram,
    percentiles_us,
    record_latencies,
    record_latency,
)


@pytest.mark.parametrize(
    "latency_ns", [0, 1, 2, 1023, 1024, 2047, 2048, 2049, 4095, 4096, 99_999, 10**6, 10**9 + 7, 3_600 * 10**9]
)
def test_a_bucket_is_as_narrow_as_it_says(latency_ns: int) -> None:
    histogram = new_histogram()
    record_latency(histogram, latency_ns, 3)
    bucket = int(np.flatnonzero(histogram)[0])
    assert histogram.sum() == histogram[bucket] == 3
    assert abs(bucket_middle_ns(bucket) - latency_ns) <= latency_ns / 1024


def test_buckets_rise_without_a_gap() -> None:
    middles = [bucket_middle_ns(bucket) for bucket in range(BUCKET_COUNT)]
    assert middles == sorted(set(middles))


def test_a_day_and_more_falls_into_the_last_bucket() -> None:
    histogram = new_histogram()
    record_latency(histogram, 1 << 62, 1)
    assert histogram[-1] == 1


def test_percentiles_are_those_of_the_sorted_durations() -> None:
    durations = np.random.default_rng(1).lognormal(12, 2, 20_000).astype(np.int64)
    histogram = new_histogram()
    record_latencies(histogram, durations)
    found = percentiles_us(histogram, int(durations.max()))
    for name, share in PERCENTILES.items():
        expected_us = np.quantile(durations, share, method="inverted_cdf") / 1000
        assert found[name] == pytest.approx(expected_us, rel=0.001, abs=0.001)
    assert found["max"] == pytest.approx(durations.max() / 1000, abs=0.001)


def test_a_frame_weighs_as_many_as_its_transfers() -> None:
    histogram = new_histogram()
    record_latency(histogram, 1000, 10)
    record_latency(histogram, 2000, 1)
    assert percentiles_us(histogram, 2000)["p90"] == 1.0
    assert percentiles_us(histogram, 2000)["p99"] == 2.0


def test_nothing_recorded_has_no_percentiles() -> None:
    assert set(percentiles_us(new_histogram(), 0).values()) == {None}
