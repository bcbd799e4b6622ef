"""Fixtures of the tests with real groups of nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bezant.net.server.warm import warm_kernels

from .nodes import Nodes


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Has the kernels compiled before any node waits for them."""
    warm_kernels()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes that are initialised and not started; none runs on after the test."""
    made = Nodes(tmp_path)
    try:
        yield made
    finally:
        made.close()
