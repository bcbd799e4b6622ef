"""Fixtures of the client's tests. They run on asyncio's event loop, which most callers have.

What touches sockets and timers itself runs on uvloop, too: its transports are others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest
import uvloop

from bezant.net.client.connection import TcpChannel

from .group import Group, Opener
from .scripted import WAIT_S, ScriptedServer

ON_BOTH: Final = "test_connection.py"


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loops that pytest-asyncio runs a test on."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return loops | {"uvloop": uvloop.new_event_loop} if item.path.name == ON_BOTH else loops


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """A started server, stopped after the test."""
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    """Three started nodes of which the first leads, stopped after the test."""
    started = Group()
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def open_channel(group: Group) -> AsyncIterator[Opener]:
    """Opens channels that are closed after the test; by default to all nodes of the group, in order."""
    opened: list[TcpChannel] = []

    async def open_one(addresses: str | None = None, timeout_s: float = WAIT_S) -> TcpChannel:
        opened.append(await TcpChannel.open(group.text if addresses is None else addresses, timeout_s))
        return opened[-1]

    yield lambda *arguments, **options: asyncio.ensure_future(open_one(*arguments, **options))
    for channel in opened:
        await channel.close()
