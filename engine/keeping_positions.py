"""The leader's part in named positions: what is later than what is known becomes a control entry."""

from bezant.engine.positions import is_later
from bezant.engine.replica import Replica
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.frames import POSITION_NAMES_MAX
from bezant.protocol.messages import ControlEntry, encode_message
from bezant.protocol.records import ENTRIES_POSITIONS


def keep_positions(replica: Replica, positions: dict[str, int]) -> int:
    """Append positions by name that are later than those known; returns the index that must be committed.

    Where there is no room for all new names none of them is kept, and those that are known go on: one name too many,
    which a reader has remembered for itself, would hold up all others that it sends with it.

    Raises `UsageError` for what cannot be kept, `StorageError`.
    """
    ledger, shard = replica.ledger, replica.shard
    later = {name: position for name, position in positions.items() if is_later(ledger, shard, name, position)}
    if not later:
        return replica.log.last_index
    replica.check_ready(ENTRIES_POSITIONS)
    if len(ledger.positions.keys() | later.keys()) > POSITION_NAMES_MAX:
        later = {name: position for name, position in later.items() if name in ledger.positions}
        if not later:
            raise UsageError(f"positions are remembered under {POSITION_NAMES_MAX} names at most")
    control = ControlEntry(positions=later)
    if not replica.log.has_room(len(encode_message(control))):
        raise StorageError("the disk is at its free-space floor; no positions can be remembered now")
    replica.append_control(control)
    ledger.positions.update(later)
    return replica.log.last_index
