"""What the simulator's tests share."""

from collections.abc import Iterator

import pytest

from bezant.engine.log.log import SEGMENT_SIZE_MIN
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings
from bezant.net.server.warm import warm_kernels

from .collecting import few_collections


@pytest.fixture(scope="session", autouse=True)
def compiled() -> Iterator[None]:
    """Has the kernels compiled before the first seed."""
    warm_kernels()
    with few_collections():
        yield


@pytest.fixture(scope="session")
def small() -> ReplicaSettings:
    """Settings with which a member opens in milliseconds."""
    return ReplicaSettings(
        segment_size=SEGMENT_SIZE_MIN,
        free_space_floor=0,
        accounts_max=64,
        holds_max=40,
        ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
    )
