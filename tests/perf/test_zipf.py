"""Claim: accounts are drawn by Zipf's law, by a table whose shares are exactly those of the law."""

import numpy as np
import pytest

from bezant.engine.compiled import kernel
from bezant.perf.load.ring import seed_word
from bezant.perf.load.zipf import pick, zipf_table

CHI_SQUARE_99_DEGREES_999_PERMILLE = 148.2
"""What 999 of 1000 samples of a law with 100 outcomes stay below."""


@kernel
def draw_ranks(table, random, counts, how_many):
    for _ in range(how_many):
        counts[pick(table, random)] += 1


def law(count: int, exponent: float) -> np.ndarray:
    weights = np.array([rank**-exponent for rank in range(1, count + 1)])
    return weights / weights.sum()


def shares_of(table: np.ndarray) -> np.ndarray:
    """The chance of every rank, from the table alone: its own part of its place, and its parts of others'."""
    own = (table >> 32) / (1 << 31)
    shares = own.copy()
    np.add.at(shares, table & 0xFFFFFFFF, 1 - own)
    return shares / len(table)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.1, 4.0])
@pytest.mark.parametrize("count", [2, 3, 100, 10_007])
def test_the_table_holds_the_law(count: int, exponent: float) -> None:
    np.testing.assert_allclose(shares_of(zipf_table(count, exponent)), law(count, exponent), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("exponent", [0.0, 1.1])
def test_draws_follow_the_law(exponent: float) -> None:
    counts, how_many = np.zeros(100, np.int64), 1_000_000 // 10
    draw_ranks(zipf_table(100, exponent), np.array([seed_word(1)], np.int64), counts, how_many)
    expected = law(100, exponent) * how_many
    assert counts.sum() == how_many
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE_99_DEGREES_999_PERMILLE
