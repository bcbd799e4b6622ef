"""Fixtures of the reader's tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

import bezant
from bezant.cli import node_process
from bezant.net.client.wallet import Wallet

from ..server.process import SMALL, NodeProcess, running

WAIT_S = 120.0


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    """A node with a reader beside it."""
    async with running(tmp_path / "data", reader=True) as process:
        yield process


@pytest.fixture
async def wallet(node: NodeProcess) -> AsyncIterator[Wallet]:
    async with bezant.connect("{}:{}".format(*node.address), timeout_s=WAIT_S) as opened:
        yield opened


def readers_of(node: node_process.NodeProcess) -> list[int]:
    """Process ids of the readers that a node has now."""
    found = []
    for number in Path(f"/proc/{node.process_id}/task/{node.process_id}/children").read_text().split():
        try:
            if b"bezant.net.reader.child" in Path(f"/proc/{number}/cmdline").read_bytes():
                found.append(int(number))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[node_process.NodeProcess]:
    """A node with a reader beside it, for those tests of a file that do not disturb each other: to start both takes
    longer than most of them."""
    with node_process.NodeProcess(tmp_path_factory.mktemp("shared") / "data", arguments=SMALL) as process:
        yield process


@pytest.fixture
async def shared_wallet(shared_node: node_process.NodeProcess) -> AsyncIterator[Wallet]:
    async with bezant.connect(shared_node.address, timeout_s=WAIT_S) as opened:
        yield opened
