"""Claim: how long nobody was answered is what the times of the answers say, and availability follows from it."""

import numpy as np
import pytest

from bezant.perf.failover.book import ANSWER, UNKNOWN, Answers
from bezant.perf.failover.outage import (
    availability,
    downtime_s,
    first_answer_ms,
    longest_gap_ms,
    percentiles,
    success_times_ns,
)

MS = 1_000_000


def answered(*times_ms: float, sent_ms: float = 0.0, code: int = 0) -> Answers:
    answers = np.zeros(len(times_ms), ANSWER)
    answers["answered_ns"] = [int(time_ms * MS) for time_ms in times_ms]
    answers["sent_ns"] = int(sent_ms * MS)
    answers["code"] = code
    return answers


@pytest.mark.parametrize(
    ("times_ms", "begin_ms", "end_ms", "gap_ms"),
    [
        ((10, 20, 500, 510), 0, 600, 480),
        ((10, 20, 500, 510), 100, 600, 400),
        ((10, 20), 0, 600, 580),
        ((10, 550), 20, 500, 480),
        ((), 100, 300, 200),
    ],
)
def test_the_longest_gap_is_between_two_answers_or_the_ends(
    times_ms: tuple[float, ...], begin_ms: float, end_ms: float, gap_ms: float
) -> None:
    assert longest_gap_ms(success_times_ns(answered(*times_ms)), begin_ms * MS, end_ms * MS) == gap_ms


def test_only_success_is_an_answer() -> None:
    answers = np.concatenate([answered(10, 30), answered(20, code=UNKNOWN), answered(25, code=300)])
    assert success_times_ns(answers).tolist() == [10 * MS, 30 * MS]


def test_the_first_answer_is_to_what_was_asked_after_the_fault() -> None:
    answers = np.concatenate([answered(101, sent_ms=99), answered(450, 460, sent_ms=101)])
    assert first_answer_ms(answers, 100 * MS) == 350
    assert first_answer_ms(answers, 102 * MS) is None


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([10.0, 20.0, 30.0, 40.0]) == {"p50": 20.0, "p90": 40.0, "max": 40.0}
    assert percentiles([]) == {"p50": None, "p90": None, "max": None}


def test_availability_is_the_time_with_answers() -> None:
    # An answer every 10 ms for 60 s, but for 600 ms once.
    times = [10 * number for number in range(6001) if not 1000 < 10 * number < 1600]
    answers = answered(*times)
    trials = [(1100 * MS, 1200 * MS)]
    assert downtime_s(success_times_ns(answers), trials) == pytest.approx((0.6, 0.6))
    told = availability(answers, trials)
    assert (told["seconds"], told["downtime_s"], told["availability"]) == (60.0, 0.6, 0.99)
    assert told["requests_answered"] == 1.0
    # 0.01 % of 365.25 days are 3155.76 s.
    assert told["faults_per_year_at_9999"] == pytest.approx(3155.76 / 0.6, abs=0.1)
    assert told["hours_between_faults_at_9999"] == pytest.approx(8766 / 5259.6, abs=0.01)
    assert "one every 1.7 hours" in told["arithmetic"]


def test_without_downtime_there_is_no_bound() -> None:
    told = availability(answered(*range(0, 1000, 10)), [(0, MS), (2 * MS, 3 * MS), (4 * MS, 5 * MS)])
    assert (told["availability"], told["faults_per_year_at_9999"]) == (1.0, None)


def test_gaps_that_no_fault_has_made_are_told_apart() -> None:
    # 600 ms without an answer because of a fault, and 300 ms because the machine was busy.
    times = [10 * n for n in range(6001) if not 1000 < 10 * n < 1600 and not 30_000 < 10 * n < 30_300]
    told = availability(answered(*times), [(1100 * MS, 1700 * MS)])
    assert (told["downtime_s"], told["downtime_with_all_gaps_s"]) == (0.6, 0.9)
    assert (told["availability"], told["availability_with_all_gaps"]) == (0.99, 0.985)
    assert told["downtime_s_per_fault"] == 0.6
