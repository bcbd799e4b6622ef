"""Times that travel between shards: no effect is dated before its cause, whatever the clocks say.

A leg has in `client_timestamp_ns` the time of the event that it follows from, in another shard, and the entry that
executes it a later one. So a time that all shards have left behind cuts through all their histories at once: what it
shows of one shard it shows with all that this rests on in the others.
"""

from typing import Final

from bezant.protocol.errors import UsageError
from bezant.protocol.records import Records

AHEAD_S_MAX: Final = 3600
"""Seconds that another shard's time may be ahead of the clock. It carries the time here along, and holds fall due early
by as much; of a time further ahead than that a clock must be wrong."""
_AHEAD_NS_MAX: Final = AHEAD_S_MAX * 10**9


def floor_of(commands: Records) -> int:
    """The time (ns) that whatever executes these legs (COMMAND records) has to be dated after; 0 for none."""
    return int(commands["client_timestamp_ns"].max(initial=0))


def is_too_far_ahead(time_ns: int, clock_ns: int) -> bool:
    """Whether a time of another shard is further ahead of the clock than AHEAD_S_MAX."""
    return time_ns > latest_time_ns(clock_ns)


def latest_time_ns(clock_ns: int) -> int:
    """The latest time of another shard that is not."""
    return clock_ns + _AHEAD_NS_MAX


def check_floor(commands: Records, clock_ns: int) -> None:
    """Raise `UsageError` for legs of another shard that nothing here may be dated after."""
    if is_too_far_ahead(floor_of(commands), clock_ns):
        raise UsageError(
            f"the time of the shard that asks is over {AHEAD_S_MAX} s ahead of this node's clock: one of the two "
            "clocks is wrong. Nothing of this has been executed"
        )
