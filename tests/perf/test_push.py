"""Claim: the benchmark of pushes runs to its end on tiny inputs, and finds what is missed, repeated or out of order."""

from pathlib import Path

import numpy as np

from bezant.perf.push.listeners import read_outcome
from bezant.perf.push.measuring import Loaded, PushSettings, compare, measure_push


def test_a_tiny_run_finds_no_fault(tmp_path: Path) -> None:
    settings = PushSettings(
        subscribers=5,
        rate=500,
        seconds=0.2,
        latency_rate=200,
        latency_transfers=20,
        latency_warm_transfers=5,
        directory=tmp_path,
    )
    said: list[str] = []
    report = measure_push(settings, said.append)
    assert report.faults == []
    assert report.fan_out.delivered == 2 * round(0.2 / 0.01) * 5
    assert report.latency.after_timestamp_ms_p99 >= report.latency.after_timestamp_ms_p50 > 0
    assert min(report.latency.reader_processor_us, report.fan_out.reader_processor_us) >= 0
    assert len(report.rows()) == 7
    assert said
    assert list(tmp_path.iterdir()) == []


def test_faults_are_counted() -> None:
    loaded = Loaded(1.0, np.array([3, 1, 2]), np.array([0, 0, 1]), np.array([1, 1, 0]))
    whole = np.array([1, 2, 3])
    assert compare(loaded, [whole, whole]) == (6, 0, 0, 0)
    assert compare(loaded, [np.array([1, 3, 2, 2]), np.array([1, 3])]) == (5, 1, 1, 1)


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "outcome"
    told = [np.array([1, -2]), np.zeros(0, np.int64), np.array([2**62])]
    path.write_bytes(b"".join(len(one).to_bytes(8, "little") + one.astype(np.int64).tobytes() for one in told))
    assert [one.tolist() for one in read_outcome(path)] == [one.tolist() for one in told]
