"""Closes a time: sees to it that nothing in a log can be dated at or before it any more, whoever leads from now on.

Time in a log only rises, so an entry behind that time is enough, and where there is none an empty one is appended. What
was at such a time can be told for good; at the same time of several shards that is one consistent state, since no
effect is dated before its cause (`engine/transactions/times.py`).

The exception are imports, which say themselves when their events were: after all that the log has executed, and perhaps
before a time that has been closed.
"""

from bezant.engine.replica import Replica
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.history_messages import TimeClosed
from bezant.protocol.messages import ControlEntry
from bezant.protocol.records import EVENT_SIZE, position_of


def time_now(replica: Replica) -> int:
    """The time (ns) of a log: that of its clock, or of what it has carried along from clocks that were ahead."""
    return max(replica.clock_ns, replica.last_timestamp_ns)


def close_time(replica: Replica, time_ns: int) -> TimeClosed:
    """Close a time that is not ahead of `time_now`, for a leader; to be told when all its log is committed.

    Raises `UsageError` for a time that is, `StorageError` while the disk has no room.
    """
    if time_ns > time_now(replica):
        raise UsageError(f"the time {time_ns} ns has not come yet")
    if replica.last_timestamp_ns < time_ns:
        if not replica.log.has_room(EVENT_SIZE):
            raise StorageError("the disk is at its free-space floor; no time can be closed now")
        replica.append_control(ControlEntry())
    ledger = replica.ledger
    last = position_of(replica.shard, ledger.next_sequence - 1)
    return TimeClosed(time_now(replica), last, ledger.last_timestamp_ns)
