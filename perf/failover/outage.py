"""How long nobody was answered, as clients saw it, out of the times of their answers."""

from typing import Any, Final

import numpy as np

from bezant.perf.failover.book import Answers
from bezant.protocol.codes import ResultCode
from bezant.protocol.records import Words

GAP_MIN_MS: Final = 50.0
"""Time without an answer that counts as downtime. A busy machine has such gaps by itself, so those that a trial's time
touches are told apart from the others."""
_NS_PER_MS: Final = 1e6
_YEAR_S: Final = 365.25 * 86_400
_TARGET: Final = 0.9999


def success_times_ns(answers: Answers) -> Words:
    """When transfers were answered as committed, in order."""
    times: Words = np.sort(answers["answered_ns"][answers["code"] == ResultCode.COMMITTED])
    return times


def longest_gap_ms(times_ns: Words, begin_ns: int, end_ns: int) -> float:
    """The longest time between two answers, or without any, of that part of it that lies between two moments."""
    inside = times_ns[(times_ns >= begin_ns) & (times_ns <= end_ns)]
    return float(np.diff(inside, prepend=begin_ns, append=end_ns).max()) / _NS_PER_MS


def first_answer_ms(answers: Answers, fault_ns: int) -> float | None:
    """From a fault to the first answer to what was asked after it; None if there is none."""
    since = answers[(answers["sent_ns"] >= fault_ns) & (answers["code"] == ResultCode.COMMITTED)]
    return float(since["answered_ns"].min() - fault_ns) / _NS_PER_MS if len(since) else None


def downtime_s(times_ns: Words, trials_ns: list[tuple[int, int]]) -> tuple[float, float]:
    """Seconds in gaps of GAP_MIN_MS or more between two answers: those that touch the time of a trial, and all."""
    gaps_ms = np.diff(times_ns) / _NS_PER_MS
    is_long = gaps_ms >= GAP_MIN_MS
    begins_ns, ends_ns = times_ns[:-1][is_long], times_ns[1:][is_long]
    is_tried = np.zeros(len(begins_ns), np.bool_)
    for begin_ns, end_ns in trials_ns:
        is_tried |= (begins_ns < end_ns) & (ends_ns > begin_ns)
    return float(gaps_ms[is_long][is_tried].sum()) / 1e3, float(gaps_ms[is_long].sum()) / 1e3


def percentiles(values: list[float]) -> dict[str, float | None]:
    """The median, the 90th percentile and the maximum; values that were measured, none between two."""
    if not values:
        return {"p50": None, "p90": None, "max": None}
    p50, p90 = np.percentile(values, [50, 90], method="inverted_cdf")
    return {"p50": round(float(p50), 1), "p90": round(float(p90), 1), "max": round(max(values), 1)}


def availability(answers: Answers, trials_ns: list[tuple[int, int]]) -> dict[str, Any]:
    """The share of the time in which somebody was answered, that of the requests that were, and what follows.

    `trials_ns`: the begin and the end of each trial. ``availability`` takes off the gaps that these touch,
    ``availability_with_all_gaps`` also those that nobody but the machine has made. A year has 31,557,600 s; 99.99 % of
    it leave 3,155.76 s. Divided by the seconds that a fault takes on average, that is how many such faults a year may
    have.
    """
    times_ns = success_times_ns(answers)
    seconds = float(times_ns[-1] - times_ns[0]) / 1e9 if len(times_ns) > 1 else 0.0
    faults = len(trials_ns)
    down_s, all_s = downtime_s(times_ns, trials_ns)
    each_s = down_s / faults if faults else 0.0
    budget_s = _YEAR_S * (1 - _TARGET)
    faults_a_year = budget_s / each_s if each_s else None
    told = "there was no downtime"
    if faults_a_year is not None:
        told = (
            f"{faults} faults in {seconds:.0f} s took {down_s:.2f} s, {1e3 * each_s:.0f} ms each; 99.99 % of a year of "
            f"{_YEAR_S:.0f} s leave {budget_s:.0f} s, which is {faults_a_year:.0f} such faults a year, or one every "
            f"{_YEAR_S / faults_a_year / 3600:.1f} hours"
        )
    return {
        "seconds": round(seconds, 3),
        "downtime_s": round(down_s, 3),
        "downtime_with_all_gaps_s": round(all_s, 3),
        "downtime_s_per_fault": round(each_s, 4),
        "availability": round(1 - down_s / seconds, 6) if seconds else None,
        "availability_with_all_gaps": round(1 - all_s / seconds, 6) if seconds else None,
        "requests_answered": round(len(times_ns) / len(answers), 6) if len(answers) else None,
        "faults_per_year_at_9999": round(faults_a_year, 1) if faults_a_year is not None else None,
        "hours_between_faults_at_9999": round(_YEAR_S / faults_a_year / 3600, 2) if faults_a_year else None,
        "arithmetic": told,
    }
