"""Claim: maps divide the slots evenly at first, and each change makes the one map that follows."""

import numpy as np
import pytest

from bezant.engine.placement.maps import first_map, may_replace, slot_counts, with_shard, with_slots_moved
from bezant.protocol.errors import UsageError
from bezant.protocol.placement import SLOT_COUNT, ShardPlace, owners_of

TWO = first_map({1: ["b:1"], 0: ["a:1", "a:2"]})


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 1000, SLOT_COUNT - 1])
def test_the_first_map_is_an_even_split_in_runs(count: int) -> None:
    found = first_map({shard: [f"a:{shard}"] for shard in range(count)})
    assert found.version == 1
    counts = slot_counts(found)
    assert sum(counts.values()) == SLOT_COUNT
    assert max(counts.values()) - min(counts.values()) <= 1
    assert np.all(np.diff(owners_of(found).astype(int)) >= 0)


def test_the_first_map_takes_any_numbers_in_any_order() -> None:
    assert TWO.shards == [ShardPlace(0, ["a:1", "a:2"]), ShardPlace(1, ["b:1"])]
    assert slot_counts(TWO) == {0: 2048, 1: 2048}
    assert set(owners_of(first_map({4094: ["a:1"]})).tolist()) == {4094}


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        ({}, "among 1 to 4095 shards, not 0"),
        ({shard: [f"a:{shard}"] for shard in range(SLOT_COUNT)}, "not 4096"),
        ({4095: ["a:1"]}, "0 to 4094, not 4095"),
        ({1 << 20: ["a:1"]}, "0 to 4094, not 1048576"),
        ({0: []}, "1 to 15 addresses"),
        ({0: ["a:1"], 1: ["a:1"]}, "an address stands in a slot map twice"),
    ],
)
def test_what_cannot_be_shards_is_told(addresses: dict[int, list[str]], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        first_map(addresses)


def test_slots_move_and_all_others_stay() -> None:
    moved = with_slots_moved(TWO, [0, 5, 5, 4095], 1)
    assert moved.version == 2
    expected = owners_of(TWO).copy()
    expected[[0, 5, 4095]] = 1
    assert owners_of(moved).tolist() == expected.tolist()
    assert moved.shards == TWO.shards


@pytest.mark.parametrize(("slots", "shard", "why"), [([], 1, "slots"), ([4096], 1, "slots"), ([1], 2, "no shard 2")])
def test_a_move_that_cannot_be_is_told(slots: list[int], shard: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        with_slots_moved(TWO, slots, shard)


def test_a_shard_is_added_without_slots_or_reached_elsewhere() -> None:
    added = with_shard(TWO, 5, ["c:1"])
    assert (added.version, slot_counts(added)) == (2, {0: 2048, 1: 2048, 5: 0})
    elsewhere = with_shard(added, 0, ["d:1"])
    assert (elsewhere.version, elsewhere.shards[0]) == (3, ShardPlace(0, ["d:1"]))
    assert elsewhere.slots == TWO.slots
    with pytest.raises(UsageError, match="twice"):
        with_shard(TWO, 5, ["a:1"])


def test_a_map_takes_the_place_of_the_one_that_was_expected_alone() -> None:
    second = with_shard(TWO, 2, ["c:1"])
    third = with_shard(second, 3, ["d:1"])
    assert may_replace(None, 0, TWO)
    assert may_replace(TWO, 1, second)
    assert not may_replace(None, 1, second)
    assert not may_replace(second, 1, second)
    assert not may_replace(third, 1, second)
    assert not may_replace(TWO, 0, TWO)
    for expected in (0, 2, 3):
        with pytest.raises(UsageError, match=f"follows version {expected} has version {expected + 1}, not 2"):
            may_replace(TWO, expected, second)
