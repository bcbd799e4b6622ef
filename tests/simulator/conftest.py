"""What the simulator's tests share."""

import pytest

from bezant.net.server.warm import warm_kernels


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Has the kernels compiled before the first seed."""
    warm_kernels()
