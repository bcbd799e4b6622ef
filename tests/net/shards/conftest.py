"""Fixtures of tests with several shards in one process, each a node of its own behind a socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bezant.net.server.warm import warm_kernels

from .shards import Shards, compiled_for


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def compiled() -> dict[str, list[Any]]:
    """Has the kernels compiled before any test waits for them; tells for which types, as `compiled_for` does."""
    warm_kernels()
    return compiled_for()


@pytest.fixture
async def shards(tmp_path: Path) -> AsyncIterator[Shards]:
    """Two shards, of one node each."""
    started = Shards(tmp_path)
    await started.start()
    yield started
    await started.stop()
