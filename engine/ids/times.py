"""The time inside a time-ordered id (UUID version 7, RFC 9562 section 5.7)."""

from bezant.engine.compiled import inlined, kernel
from bezant.protocol.records import Words


@inlined
def uuid_time_ms(head: int) -> int:
    """Milliseconds since 1970 of a UUIDv7 by the little-endian word of its first eight bytes; 0 for any other id."""
    if (head >> 52) & 0xF != 7:
        return 0
    time_ms = 0
    for number in range(6):
        time_ms = time_ms << 8 | (head >> 8 * number) & 0xFF
    return time_ms


@kernel
def latest_time_ms(heads: Words) -> int:
    """The latest time in these ids (int64 of shape (count,)); 0 if none has one."""
    latest = 0
    for number in range(len(heads)):
        latest = max(latest, uuid_time_ms(heads[number]))
    return latest
