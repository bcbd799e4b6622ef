"""Fixtures of the tests with real groups of nodes."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from bezant.net.server.warm import warm_kernels

from .nodes import Nodes


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on: one will do for who only asks."""
    return {"uvloop": uvloop.new_event_loop}


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
