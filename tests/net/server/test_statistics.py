"""Claim: a node tells what it did, how long it took and what waits, each thing counted once, and that of its stalls."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bezant.net.metrics.latencies import LOOP_LOOK_S, Latencies, LoopWatch
from bezant.net.server.statistics import Counters
from bezant.protocol.codes import ResultCode
from bezant.protocol.records import RESULT
from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram


def test_the_recent_longest_step_is_forgotten_once_told() -> None:
    counters = Counters()
    told = []
    for steps_s in ([], [0.5, 0.125], [], [0.25, 0.0625], [2.0]):
        for step_s in steps_s:
            counters.note_step(step_s)
        told.append(counters.take_longest_steps())
    assert told == [(0, 0), (0.5, 0.5), (0.5, 0), (0.5, 0.25), (2.0, 2.0)]


@pytest.mark.parametrize(
    ("nanoseconds", "place"),
    [
        (0, 0),
        (50_000, 0),
        (50_001, 1),
        (70_711, 1),
        (70_712, 2),
        (LATENCY_BOUNDS_NS[-1], 39),
        (LATENCY_BOUNDS_NS[-1] + 1, 40),
        (1 << 62, 40),
    ],
)
def test_a_time_belongs_to_the_class_whose_bound_it_does_not_exceed(nanoseconds: int, place: int) -> None:
    latencies = Latencies()
    latencies.observe(nanoseconds, 3)
    assert latencies.told() == Histogram([0] * place + [3], 3 * nanoseconds / 1e9)


def test_bounds_are_two_an_octave_and_reach_beyond_thirty_seconds() -> None:
    assert LATENCY_BOUNDS_NS[::2] == tuple(50_000 << number for number in range(20))
    assert LATENCY_BOUNDS_NS[-1] > 30_000_000_000


def test_results_are_told_by_what_became_of_the_commands() -> None:
    results = np.zeros(6, RESULT)
    results["code"][1:] = [
        ResultCode.INSUFFICIENT_FUNDS,
        ResultCode.INSUFFICIENT_FUNDS,
        ResultCode.DEADLINE_PASSED,
        0,
        ResultCode.STORAGE_FULL,
    ]
    counters = Counters()
    assert counters.results() == {"committed": 0, "refused": 0, "not_executed": 0}
    for _ in range(2):
        counters.note_results(results)
    counters.note_results(results[:1])
    assert counters.results() == {"committed": 5, "refused": 4, "not_executed": 4}


class FakeLoop:
    """A loop whose time is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Any:
        self.due.append((when_s, callback))
        return asyncio.TimerHandle(when_s, callback, (), self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        self.due.clear()


def test_a_loop_that_wakes_up_late_is_counted_by_how_late() -> None:
    loop, latencies = FakeLoop(), Latencies()
    watch = LoopWatch(loop, latencies)  # type: ignore[arg-type]
    watch.start()
    for late_s in (0.0, 0.25):
        ((due_s, look),) = loop.due
        assert due_s == pytest.approx(loop.now_s + LOOP_LOOK_S)
        loop.due.clear()
        loop.now_s = due_s + late_s
        look()
    told = latencies.told()
    assert (sum(told.counts), told.counts[0]) == (2, 1)
    assert told.sum_s == pytest.approx(0.25, abs=1e-6)
    assert watch.late_s == pytest.approx(0.25)
    watch.stop()
    assert loop.due == []
