"""How many frames the load generator keeps prepared or unanswered, and what it therefore refuses to do."""

from typing import Final

from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FRAME_HEADER_SIZE
from bezant.protocol.records import COMMAND_SIZE

RING_SIZE_MAX: Final = 64 << 20
"""Bytes of frames that are prepared or unanswered at one time."""
SLOT_COUNT_MAX: Final = 1 << 17
"""More frames ahead than this help nothing: it is a tenth of a second's need at a million frames a second."""


def frame_size(batch: int) -> int:
    """Bytes of a frame of so many transfers."""
    return FRAME_HEADER_SIZE + batch * COMMAND_SIZE


def slots_max(batch: int) -> int:
    """How many frames of so many transfers are kept at most; a power of two."""
    return min(SLOT_COUNT_MAX, power_of_two_below(RING_SIZE_MAX // frame_size(batch)))


def check_in_flight(frames_in_flight: int, batch: int) -> None:
    """Raise `UsageError` if so many frames in flight leave no room to prepare as many others."""
    kept = slots_max(batch) // 2
    if frames_in_flight > kept:
        raise UsageError(
            f"{frames_in_flight} frames of {frame_size(batch)} bytes in flight are too many for the load generator: "
            f"it keeps at most {kept} of that size; lower --clients, --inflight or --batch"
        )


def power_of_two_below(number: int) -> int:
    """The greatest power of two that is not above `number`, and 1 for what is below 1."""
    return 1 << max(number, 1).bit_length() - 1


def power_of_two_above(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
