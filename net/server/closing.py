"""CLOSE_TIME: a leader sees to it that nothing is dated at a time or before any more, past what clients ask for."""

from collections.abc import Callable
from typing import Final

from bezant.engine.closing import close_time, time_now
from bezant.engine.raft.interface import NotYet
from bezant.engine.replica import Replica
from bezant.protocol.errors import UsageError
from bezant.protocol.history_messages import CloseTime
from bezant.protocol.messages import decode_message, encode_message

CLOSE_AHEAD_S_MAX: Final = 1.0
"""Seconds that a time may be ahead of the clock to be asked for again: clocks differ, and it will have come soon."""


def closing_of(replica: Replica, body: bytes) -> Callable[[], bytes]:
    """What answers CLOSE_TIME, for a leader.

    Raises `RemoteProtocolError` for a body that does not fit, `UsageError` for a time that has not come yet: one to be
    asked for again (`NotYet`) if it is about to.
    """
    time_ns = decode_message(body, CloseTime).time_ns
    ahead_s = (time_ns - time_now(replica)) / 1e9
    if ahead_s > 0:
        kind = NotYet if ahead_s <= CLOSE_AHEAD_S_MAX else UsageError
        raise kind(
            f"the time asked for lies {ahead_s:.3f} s in the future of shard {replica.shard}: what will be then is not "
            "known yet"
        )
    return lambda: encode_message(close_time(replica, time_ns))
