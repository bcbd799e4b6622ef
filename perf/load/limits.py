"""How many frames the load generator keeps prepared or unanswered, and what it therefore refuses to do."""

from typing import Final

from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FRAME_HEADER_SIZE
from bezant.protocol.records import COMMAND_SIZE

RING_SIZE_MAX: Final = 64 << 20
"""Bytes of frames that are prepared or unanswered at one time."""
_GRANULE_SIZE: Final = 64 << 10
MIXED_BATCH_MIN: Final = 8
"""Commands of a frame into which one of every part fits: a chain of 4, a hold, a capture and a refusal."""
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


def granule_frames(batch: int, slots: int) -> int:
    """How many frames of a ring are built and freed together: a power of two."""
    return min(slots, max(1, power_of_two_below(_GRANULE_SIZE // frame_size(batch))))


def mixed_slots(frames_in_flight: int, batch: int) -> int:
    """Slots of the ring of a mixed load: no more than it needs, because a hold is captured that many frames later."""
    slots = slots_max(batch)
    return min(slots, power_of_two_above(max(2 * frames_in_flight, 4 * granule_frames(batch, slots))))


def check_mixed(commands: int, batch: int, frames_in_flight: int) -> None:
    """Raise `UsageError` if a mixed load is too small to have all its parts."""
    if batch < MIXED_BATCH_MIN:
        raise UsageError(f"--load mixed takes a --batch of {MIXED_BATCH_MIN} or more, so that chains fit in")
    least = (mixed_slots(frames_in_flight, batch) + 1) * batch
    if commands < least:
        raise UsageError(
            f"--load mixed takes {least} --transfers or more with these settings, so that holds can be captured"
        )


def power_of_two_below(number: int) -> int:
    """The greatest power of two that is not above `number`, and 1 for what is below 1."""
    return 1 << max(number, 1).bit_length() - 1


def power_of_two_above(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
