"""Claim: what may leave the disk is decided by what a start needs, by age, and without ever leaving a gap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.archive.dropping import KEEP_MIN, droppable

SIX = [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("sealed", "starts", "gone", "keep", "expected"),
    [
        (SIX, [7], 0, 2, [1, 2, 3, 4]),
        (SIX, [7], 0, 4, [1, 2]),
        (SIX, [7], 0, 6, []),
        (SIX, [7], 0, 100, []),
        (SIX, [7], 0, 1, [1, 2, 3, 4]),  # two stay, whatever is asked for
        (SIX, [], 0, 2, []),  # a start reads all of it
        (SIX, [3], 0, 2, [1, 2]),
        (SIX, [3, 7], 0, 2, [1, 2]),  # a start may fall back on the older one
        (SIX, [1], 0, 2, []),
        ([3, 4, 5, 6], [7], 2, 2, [3, 4]),
        ([4, 5, 6, 7, 8], [9], 2, 2, []),  # the third is neither here nor gone
        ([1, 2, 4, 5, 6, 7], [9], 0, 2, [1, 2]),
        ([2, 3, 4, 5, 6], [9], 2, 2, [3, 4]),  # the second is about to go
        ([], [9], 3, 2, []),
        ([1], [9], 0, 2, []),
    ],
)
def test_the_decision(sealed: list[int], starts: list[int], gone: int, keep: int, expected: list[int]) -> None:
    assert droppable(sealed, starts, gone, keep) == expected


@given(
    st.sets(st.integers(1, 20)).map(sorted),
    st.lists(st.integers(1, 22), max_size=3),
    st.integers(0, 10),
    st.integers(1, 25),
)
def test_nothing_goes_that_is_needed(sealed: list[int], starts: list[int], gone: int, keep: int) -> None:
    found = droppable(sealed, starts, gone, keep)
    assert found == list(range(gone + 1, gone + 1 + len(found)))
    assert set(found) <= set(sealed)
    assert not found or starts
    assert all(number < start for number in found for start in starts)
    assert not set(found) & set(sealed[-max(keep, KEEP_MIN) :])
    end = found[-1] + 1 if found else gone + 1
    stays = end in sealed and not any(end >= start for start in starts) and bool(starts)
    assert not stays or end in sealed[-max(keep, KEEP_MIN) :]  # and all goes that may
