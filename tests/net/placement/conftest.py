"""Fixtures of the placement stores' tests: on uvloop, as nodes are."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from bezant.net.server.warm import warm_kernels

from .zookeeper_server import CannotBeHad, ZooKeeperServer


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Has the kernels compiled before any test waits for them."""
    warm_kernels()


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """A real server. Its tests are skipped where no Java, or no server, can be had."""
    pytest.importorskip("kazoo", reason="the extra `zookeeper` is not installed")
    try:
        server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"))
    except CannotBeHad as error:
        pytest.skip(str(error))
    with server:
        yield server
