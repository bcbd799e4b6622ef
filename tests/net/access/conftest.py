"""What the tests of access share: event loops, and an authority."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from .authority import Authority


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Nodes and commands run on uvloop, programs that connect on either."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs for the cluster."""
    return Authority(tmp_path / "certificates")
