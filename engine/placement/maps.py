"""Slot maps: the first one, changed ones, and what may follow what. Pure.

Every changed map has the next version, so that of two changes made at the same time one is refused.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from bezant.protocol.errors import UsageError
from bezant.protocol.placement import SLOT_COUNT, ShardPlace, SlotMap, owners_of


def first_map(addresses: Mapping[int, Sequence[str]]) -> SlotMap:
    """The first map over shards, each with the client addresses of its members: as even a split as there can be.

    Each shard has one run of slots, in the order of the numbers; the lengths of two differ by one at most. Raises
    `UsageError` for no shards, or for one that cannot be.
    """
    numbers = sorted(addresses)
    if not 1 <= len(numbers) <= SLOT_COUNT - 1:
        raise UsageError(f"slots are divided among 1 to {SLOT_COUNT - 1} shards, not {len(numbers)}")
    try:
        places = [ShardPlace(number, list(addresses[number])) for number in numbers]
        owners = np.asarray(numbers, "<u2")[np.arange(SLOT_COUNT) * len(numbers) // SLOT_COUNT]
        return SlotMap(1, owners.tobytes(), places)
    except ValueError as error:
        raise UsageError(str(error)) from error


def with_slots_moved(slot_map: SlotMap, slots: Iterable[int], shard: int) -> SlotMap:
    """The map that follows, in which these slots belong to `shard`. Raises `UsageError`."""
    owners = owners_of(slot_map).copy()
    moved = sorted(set(slots))
    if not moved or not 0 <= moved[0] <= moved[-1] < SLOT_COUNT:
        raise UsageError(f"slots have numbers from 0 to {SLOT_COUNT - 1}")
    if shard not in {place.shard for place in slot_map.shards}:
        raise UsageError(f"the slot map names no shard {shard}: add it first")
    owners[moved] = shard
    return msgspec.structs.replace(slot_map, version=slot_map.version + 1, slots=owners.tobytes())


def with_shard(slot_map: SlotMap, shard: int, addresses: Sequence[str]) -> SlotMap:
    """The map that follows, in which `shard` is reached at these addresses; one that is new has no slots yet.

    Raises `UsageError`.
    """
    try:
        places = {place.shard: place for place in slot_map.shards} | {shard: ShardPlace(shard, list(addresses))}
        shards = [place for _, place in sorted(places.items())]
        return msgspec.structs.replace(slot_map, version=slot_map.version + 1, shards=shards)
    except ValueError as error:
        raise UsageError(str(error)) from error


def slot_counts(slot_map: SlotMap) -> dict[int, int]:
    """How many slots each shard of the map has, by its number."""
    counts = np.bincount(owners_of(slot_map), minlength=SLOT_COUNT)
    return {place.shard: int(counts[place.shard]) for place in slot_map.shards}


def may_replace(found: SlotMap | None, expected_version: int, wanted: SlotMap) -> bool:
    """Whether `wanted` takes the place of the map that is in force. Raises `UsageError` for a version that is not next.

    False: the map in force is another than was expected, or is `wanted` already.
    """
    if wanted.version != expected_version + 1:
        raise UsageError(
            f"a map that follows version {expected_version} has version {expected_version + 1}, not {wanted.version}"
        )
    return (0 if found is None else found.version) == expected_version
