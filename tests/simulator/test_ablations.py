"""Claim: without a safeguard the simulator finds a violation, within so many seeds."""

import pytest

from .ablations import ROWS, Row, search


@pytest.mark.parametrize("row", ROWS, ids=[row.switch_off.__name__ for row in ROWS])
def test_without_its_safeguard_a_seed_fails(row: Row) -> None:
    assert search(row, row.seeds) is not None
