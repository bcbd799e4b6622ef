"""Claim: `bezant shards move` moves what was asked, and no more than it takes."""

import argparse

import numpy as np
import pytest

from bezant.cli.shards_move import plan, plan_even, slots_of_text
from bezant.engine.placement.maps import first_map, with_shard, with_slots_moved
from bezant.protocol.placement import SLOT_COUNT, owners_of

TWO = first_map({0: ["a:1"], 1: ["b:1"]})


@pytest.mark.parametrize(
    ("text", "slots"),
    [("7", [7]), ("0-3", [0, 1, 2, 3]), ("9,0-1,1", [0, 1, 9]), ("4095", [4095])],
)
def test_slots_are_read(text: str, slots: list[int]) -> None:
    assert slots_of_text(text) == slots


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "4096", "0-4096", "1,,2", "1;2"])
def test_what_is_no_set_of_slots_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        slots_of_text(text)


def test_each_shard_that_has_some_of_them_moves_its_own() -> None:
    three = with_slots_moved(with_shard(TWO, 2, ["c:1"]), [5], 2)
    assert plan(three, [4, 5, 6, 4000], 2) == [(0, 2, [4, 6]), (1, 2, [4000])]
    assert plan(TWO, [4], 0) == []


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_even_moves_no_more_than_it_takes(shards: int) -> None:
    slot_map = TWO
    for shard in range(2, shards):
        slot_map = with_shard(slot_map, shard, [f"s{shard}:1"])
    slot_map = with_slots_moved(slot_map, range(3000), 0)
    owners = owners_of(slot_map).copy()
    planned = plan_even(slot_map)
    for source, to, slots in planned:
        assert (owners[slots] == source).all()
        owners[slots] = to
    counts = np.bincount(owners, minlength=max(shards, 2))
    assert counts.max() - counts.min() <= 1
    assert not {source for source, _, _ in planned} & {to for _, to, _ in planned}  # None of it moves in vain.
    assert plan_even(with_slots_moved(slot_map, range(SLOT_COUNT), 0))[0][0] == 0
