"""How the leader of a metadata group replaces the slot map, which is a part of its replicated state."""

from bezant.engine.placement.maps import may_replace
from bezant.engine.replica import Replica
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.messages import ControlEntry, encode_message
from bezant.protocol.placement import METADATA_SHARD, SlotMap


def replace_map(replica: Replica, expected_version: int, wanted: SlotMap) -> SlotMap:
    """Put a slot map in the place of the one that has this version (0: there is none); returns the map in force.

    That one may be told when the log is durable up to its last index. Raises `UsageError` outside of a metadata group,
    and for a map that cannot follow; `StorageError` if there is no room.
    """
    if replica.shard != METADATA_SHARD:
        raise UsageError("this group keeps no slot map: ask the metadata group")
    if may_replace(replica.slot_map, expected_version, wanted):
        control = ControlEntry(slot_map=wanted)
        if not replica.log.has_room(len(encode_message(control))):
            raise StorageError("the disk is at its free-space floor; the slot map cannot be replaced now")
        replica.append_control(control)
        replica.slot_map = wanted
    if replica.slot_map is None:
        raise UsageError("there is no slot map yet, and so none with the version that was expected")
    return replica.slot_map
