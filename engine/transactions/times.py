"""Times that travel between shards: no effect is dated before its cause, whatever the clocks say.

A leg has in `client_timestamp_ns` the time of the event that it follows from, in another shard, and the entry that
executes it a later one. So a time that all shards have left behind cuts through all their histories at once: what it
shows of one shard it shows with all that this rests on in the others.
"""

from typing import Final

import numpy as np

from bezant.engine.compiled import kernel, quick
from bezant.engine.transactions.ids import words_of_records
from bezant.protocol.errors import UsageError
from bezant.protocol.records import COMMAND, Records, Words

AHEAD_S_MAX: Final = 3600
"""Seconds that another shard's time may be ahead of the clock. It carries the time here along, and holds fall due early
by as much; of a time further ahead than that a clock must be wrong."""
_AHEAD_NS_MAX: Final = AHEAD_S_MAX * 10**9
_CLIENT_TIMESTAMP_AT: Final = 88
_CLIENT_TIMESTAMP: Final = _CLIENT_TIMESTAMP_AT // 8

if COMMAND.fields is None or COMMAND.fields["client_timestamp_ns"][1] != _CLIENT_TIMESTAMP_AT:
    raise AssertionError("the time in a command is not where it is looked for")


@kernel
def latest_of(command_words: Words) -> int:
    """The latest of the times (ns) that legs have from other shards; 0 for none."""
    latest = np.int64(0)
    for number in range(len(command_words)):
        latest = max(latest, command_words[number, _CLIENT_TIMESTAMP])
    return int(latest)


def floor_of(commands: Records) -> int:
    """The time (ns) that whatever executes these legs (COMMAND records) has to be dated after; 0 for none."""
    return int(quick(latest_of)(words_of_records(commands)))


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
