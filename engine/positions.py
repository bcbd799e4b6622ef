"""Positions that subscribers have acknowledged under names: a part of the state of a ledger, by control entries."""

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.errors import UsageError
from bezant.protocol.names import is_subscription_name
from bezant.protocol.records import POSITION_NONE, split_position


def is_later(ledger: Ledger, shard: int, name: str, position: int) -> bool:
    """Whether a position is one of this log, and later than what is known under a name.

    Raises `UsageError` for what is neither a name nor a position here.
    """
    if not is_subscription_name(name):
        raise UsageError(f"no subscription has the name {name!r}")
    of_shard, sequence = split_position(position)
    if position != POSITION_NONE and (of_shard != shard or not 0 <= sequence < ledger.next_sequence):
        raise UsageError(f"the position {position}, under {name!r}, is none of this log")
    known = ledger.positions.get(name)
    return known is None or sequence > split_position(known)[1]


def apply_positions(ledger: Ledger, shard: int, positions: dict[str, int]) -> None:
    """Take positions of the history in. Raises `UsageError` for any that no leader makes an entry of."""
    for name, position in positions.items():
        if not is_later(ledger, shard, name, position):
            raise UsageError(f"the position under {name!r} goes back")
        ledger.positions[name] = position
