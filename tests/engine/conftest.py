"""What the tests of the engine share: sizes small enough to fill, and a clock that is turned by hand."""

from typing import Final

import pytest
from hypothesis import settings

from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings

# No time limit for one example: a busy machine is not a defect.
settings.register_profile("bezant", deadline=None)
settings.load_profile("bezant")

NOON_NS: Final = 1_800_000_000_000_000_000


class Clock:
    """A clock that stands still until it is told otherwise; nanoseconds."""

    def __init__(self) -> None:
        self.now_ns = NOON_NS

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def small() -> ReplicaSettings:
    """Settings with which a replica opens in milliseconds and fills a segment with 300 events."""
    return ReplicaSettings(
        segment_size=64 << 10,
        free_space_floor=0,
        accounts_max=1024,
        holds_max=200,
        ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
    )
