"""Claim: cuts lie evenly, there are enough of them and never too many, and none that is thrown away is missed later."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.checkpoints.cuts import CUTS_KEPT_MAX, cut_name, cuts_to_keep, parse_cut_name


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.integers(0, CUTS_KEPT_MAX))
def test_cuts_as_a_history_grows_are_those_of_somebody_who_has_kept_all(steps: list[int], count_max: int) -> None:
    everything: set[int] = set()
    kept: set[int] = set()
    last = 0
    for step in steps:
        everything.add(last + step)
        last += step
        kept = cuts_to_keep(kept | {last}, last, count_max)
        assert len(kept) <= count_max
        assert kept == cuts_to_keep(everything, last, count_max)


def test_steady_checkpoints_leave_half_as_many_cuts_as_allowed_at_least() -> None:
    kept: set[int] = set()
    for number in range(1, 5000):
        kept = cuts_to_keep(kept | {number * 3_000_000}, number * 3_000_000, CUTS_KEPT_MAX)
        places = [0, *sorted(kept), number * 3_000_000]
        widest = max(after - before for before, after in pairwise(places))
        assert widest <= max(number * 3_000_000 / (CUTS_KEPT_MAX / 4), 6_000_000)
        if number > CUTS_KEPT_MAX:
            assert len(kept) >= CUTS_KEPT_MAX // 2 - 1


def test_names() -> None:
    assert parse_cut_name(cut_name(12, 345)) == (12, 345)
    for name in ("cut-12-345", "cut-0000000012", "cut-0000000012-345.unfinished", "checkpoint-0000000012"):
        assert parse_cut_name(name) is None
