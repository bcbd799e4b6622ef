"""Fixtures of the transport's tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import uvloop

from .group import Node, Stranger, until

ON_BOTH: Final = "test_transport.py"


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loops that pytest-asyncio runs a test on: that of nodes, and in one file asyncio's as well."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    return loops | {"asyncio": asyncio.new_event_loop} if item.path.name == ON_BOTH else loops


def open_sockets() -> set[str]:
    """Every TCP socket that this process has open; event loops have others of their own."""
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(entry.readlink()))
        except FileNotFoundError:
            continue  # the one that lists the folder
    lines = [line for kind in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{kind}").read_text().splitlines()]
    return links & {f"socket:[{line.split()[9]}]" for line in lines}


@pytest.fixture
def loop_errors() -> list[BaseException]:
    """What the event loop was told that nobody caught; a test that expects some takes them out."""
    return []


@pytest.fixture
async def make_node(loop_errors: list[BaseException]) -> AsyncIterator[Callable[..., Node]]:
    """Makes nodes; after the test they are stopped, and nothing of them is left: no socket, no task, no error."""
    nodes: list[Node] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: loop_errors.append(context.get("exception") or RuntimeError(context["message"]))
    )
    before = open_sockets()

    def make(*arguments: int, **options: object) -> Node:
        node = Node(*arguments, **options)  # type: ignore[arg-type]
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        await node.stop()
    await until(lambda: open_sockets() <= before)
    assert [task for task in asyncio.all_tasks() if "bezant" in task.get_name()] == []
    assert loop_errors == []


@pytest.fixture
async def pair(make_node: Callable[..., Node]) -> tuple[Node, Node]:
    """Nodes 1 and 2, connected both ways."""
    first, second = make_node(1), make_node(2)
    for node, other in ((first, second), (second, first)):
        node.join({other.node_id: other.address}, {1: 1001, 2: 1002})
        await node.listen()
    await until(lambda: first.transport.is_up(2) and second.transport.is_up(1))
    return first, second


@pytest.fixture
async def listener(make_node: Callable[..., Node]) -> Node:
    """Node 1, which knows of a node 2 and does not dial it."""
    node = make_node(1)
    node.join({2: ""}, {2: 1002})
    await node.listen()
    return node


@pytest.fixture
async def connect(make_node: object) -> AsyncIterator[Callable[[Node], Awaitable[Stranger]]]:
    """Connects bare sockets to nodes, and closes them after the test."""
    strangers: list[Stranger] = []

    async def to(node: Node) -> Stranger:
        strangers.append(await Stranger.connect(node))
        return strangers[-1]

    yield to
    for stranger in strangers:
        await stranger.close()
