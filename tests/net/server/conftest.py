"""Fixtures of the node's tests. They run on uvloop, as the node does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from bezant.engine.replica import ReplicaSettings
from bezant.net.server import (
    connection,
    coordinating,
    ending,
    failure,
    inbox,
    open_connections,
    reactor,
    syncing,
    transacting_steps,
)
from bezant.net.server.warm import warm_kernels
from bezant.protocol.records import LIMIT_UNLIMITED

from ...engine.commands import join
from ...engine.commands import opening as one_opening
from .books import NAMES, opening
from .node import LARGE_SETTINGS, SETTINGS, Client, Node, SlowDisk
from .two_shards import Network, Shard, fund

StartNode = Callable[..., Awaitable[Node]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Has the kernels compiled before any test waits for them."""
    warm_kernels()


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What would have ended the process, had it not been the test's own."""
    found: list[BaseException] = []
    monkeypatch.setattr(failure, "end_after_bug", found.append)
    monkeypatch.setattr(syncing, "end_after_bug", found.append)
    return found


@pytest.fixture
def loop_errors() -> list[dict[str, object]]:
    """What the event loop was told that nobody caught."""
    return []


@pytest.fixture
async def start_node(
    tmp_path: Path, bugs: list[BaseException], loop_errors: list[dict[str, object]]
) -> AsyncIterator[StartNode]:
    """Starts nodes, each in a folder of its own; they are stopped, and found in order, after the test."""
    nodes: list[Node] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))

    async def start(settings: ReplicaSettings = SETTINGS) -> Node:
        node = Node(tmp_path / f"data-{len(nodes)}", settings)
        nodes.append(node)
        await node.start()
        client = await node.connect()
        assert not (await client.execute(opening(*NAMES)))["code"].any()
        client.abort()
        return node

    yield start
    for node in nodes:
        await node.stop()
    assert bugs == []
    assert loop_errors == []


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    """A node with three accounts."""
    return await start_node()


@pytest.fixture
async def large_node(start_node: StartNode) -> Node:
    """The same, with segments that hold the largest batch."""
    return await start_node(LARGE_SETTINGS)


@pytest.fixture
async def client(node: Node) -> Client:
    """A client that has said hello to `node`."""
    return await node.connect()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    """A disk that writes when the test says so; released at first, and at the end, or no node would stop."""
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.release()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets bounds of the node by their names, wherever they are used: ``limits(WRITE_STALL_S_MAX=0.1)``."""

    def set_limits(**values: float) -> None:
        for name, value in values.items():
            modules = [module for module in (connection, inbox, open_connections, reactor) if hasattr(module, name)]
            assert modules, name
            for module in modules:
                monkeypatch.setattr(module, name, value)

    return set_limits


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """Two shards, whose accounts are open, and the network between them."""
    bugs: list[BaseException] = []
    for module in (failure, syncing, coordinating):
        monkeypatch.setattr(module, "end_after_bug", bugs.append)
    for module in (coordinating, ending, transacting_steps):
        monkeypatch.setattr(module, "ASK_AGAIN_S", 0.005)
    monkeypatch.setattr(coordinating, "SETTLE_S", 0.005)
    network = Network()
    for number in (0, 1):
        network.shards[number] = shard = Shard(tmp_path / str(number), number, network)
        opened = await shard.execute(
            join(one_opening(f"{{{shard.names[0]}}}", LIMIT_UNLIMITED), *map(one_opening, shard.names))
        )
        assert not opened["code"].any()
    yield network
    for shard in network.shards.values():
        await shard.reactor.stop(settled=False)
    assert bugs == []


@pytest.fixture
async def pair(network: Network) -> tuple[Shard, Shard]:
    """Two shards whose accounts have 100 each."""
    first, second = network.shards[0], network.shards[1]
    await fund(first)
    await fund(second)
    return first, second
