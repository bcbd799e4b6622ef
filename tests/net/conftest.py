"""The engine in the caller's own process runs on whatever event loop the caller has: its tests, on both."""

import asyncio
from collections.abc import Callable

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loops that pytest-asyncio runs the tests of this folder on; folders below name their own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
