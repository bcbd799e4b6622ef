"""How a leader takes a step of a move: a control entry, and what it does."""

from bezant.engine.replica import Replica
from bezant.protocol.errors import StorageError
from bezant.protocol.messages import ControlEntry, encode_message
from bezant.protocol.moves import MoveStep
from bezant.protocol.records import ENTRIES_MOVES


def take_step(replica: Replica, step: MoveStep) -> int:
    """Append a step; returns its index. Raises `UsageError` for one that cannot come next, `StorageError`."""
    replica.check_ready(ENTRIES_MOVES)
    replica.ledger.moves.check(step)
    control = ControlEntry(move=step)
    if not replica.log.has_room(len(encode_message(control))):
        raise StorageError("the disk is at its free-space floor; no slots can be moved now")
    replica.append_control(control)
    replica.ledger.moves.apply(step, replica.log.last_index)
    return replica.log.last_index
