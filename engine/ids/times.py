"""The time in time-ordered ids (UUIDv7, RFC 9562, section 5.7): when it was made, if its maker can be believed."""

from bezant.engine.compiled import inlined, kernel
from bezant.protocol.records import Words


@inlined
def uuid_time_ms(head: int) -> int:
    """The time (milliseconds since 1970) in a UUIDv7 whose first 8 bytes are this little-endian word; 0 in others."""
    if (head >> 52) & 15 != 7:
        return 0
    time_ms = 0
    for byte in range(6):
        time_ms = (time_ms << 8) | ((head >> (8 * byte)) & 255)
    return time_ms


@kernel
def latest_time_ms(heads: Words) -> int:
    """The latest time in any of these ids, given as head words; 0 if none tells one."""
    latest = 0
    for head in heads:
        latest = max(latest, uuid_time_ms(head))
    return latest
