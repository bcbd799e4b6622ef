"""Claim: the state of a metadata group has the map, after a restart too, from the log and from a checkpoint alone."""

from pathlib import Path

import pytest

from bezant.engine.checkpoints.checkpointer import Checkpointer
from bezant.engine.placement.maps import first_map, with_slots_moved
from bezant.engine.placement.replacing import replace_map
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, Replica, ReplicaSettings, open_replica
from bezant.protocol.errors import UsageError
from bezant.protocol.placement import METADATA_SHARD, SlotMap

SETTINGS = ReplicaSettings(segment_size=1 << 20, accounts_max=64, holds_max=64, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)
FIRST = first_map({0: ["a:1"], 1: ["b:1"]})
SECOND = with_slots_moved(FIRST, range(100), 1)


def opened(folder: Path, shard: int = METADATA_SHARD) -> Replica:
    return open_replica(folder, shard=shard, settings=SETTINGS)


def reopened_map(folder: Path) -> SlotMap | None:
    replica = opened(folder)
    replica.close()
    return replica.slot_map


def put(replica: Replica, slot_map: SlotMap) -> SlotMap:
    found = replace_map(replica, slot_map.version - 1, slot_map)
    replica.write_group()
    return found


def test_the_map_in_force_is_the_last_that_followed(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    assert replica.slot_map is None
    assert put(replica, FIRST) == FIRST
    index = replica.log.last_index
    assert put(replica, FIRST) == FIRST  # asked again
    assert put(replica, SECOND) == SECOND
    assert replace_map(replica, 1, with_slots_moved(FIRST, [4095], 0)) == SECOND  # somebody else was first
    assert replica.log.last_index == index + 1
    replica.close()
    assert reopened_map(tmp_path) == SECOND


def test_a_map_that_was_expected_and_never_was_is_refused(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    with pytest.raises(UsageError, match="there is no slot map yet"):
        replace_map(replica, 1, SECOND)
    replica.close()


def test_no_other_group_keeps_a_map(tmp_path: Path) -> None:
    replica = opened(tmp_path, 0)
    with pytest.raises(UsageError, match="this group keeps no slot map"):
        replace_map(replica, 0, FIRST)
    assert replica.slot_map is None
    replica.close()


def test_a_checkpoint_has_the_map_of_the_entries_before_it(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    put(replica, FIRST)
    put(replica, SECOND)
    replica.close()
    replica = opened(tmp_path)
    folder = replica.checkpoints
    lock = folder.lock()
    checkpointer = Checkpointer(
        replica._restored,
        replica.log,
        folder,
        shard=METADATA_SHARD,
        filter_bytes_max=SETTINGS.filter_bytes_max,
        free_space_floor=0,
    )
    checkpointer.slot_map = replica.slot_map
    manifest = checkpointer.write()
    lock.release()
    replica.close()
    assert manifest.slot_map == SECOND
    again = opened(tmp_path)
    again.close()
    assert again.start_index == manifest.point.index
    assert again.slot_map == SECOND
