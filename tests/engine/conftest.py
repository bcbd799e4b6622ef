"""What the tests of the engine share: sizes small enough to fill, a clock that is turned by hand, and a group."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings

from .commands import opening_world

if TYPE_CHECKING:
    from .group import MemberGroup

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


@pytest.fixture
def group(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Iterator["MemberGroup"]:
    """The members of a group, real in all but the network, before anybody leads them."""
    from .group import MemberGroup  # which has clocks of this kind

    members = MemberGroup(tmp_path, small, clock)
    yield members
    members.close()


@pytest.fixture
def led(group: "MemberGroup") -> "MemberGroup":
    """The same when node 1 leads it, and every member has applied the openings of accounts."""
    group.elect(1)
    group.execute(opening_world("ann", "bob"))
    group.run(10)
    return group
