"""Claim: a name server that is silent holds up those who want that name, for a bounded time, and nobody else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bezant.net.gateway.webhooks import resolving, sending
from bezant.net.gateway.webhooks.resolving import Resolver
from bezant.net.gateway.webhooks.sending import SendFailed, target_of


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names that were asked about; those that begin with "slow" are answered when the test ends."""
    asked: list[str] = []
    ended = threading.Event()

    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        if host.startswith("slow"):
            ended.wait(30)
        if host.startswith("none"):
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    ended.set()


async def test_a_silent_name_stops_neither_other_names_nor_other_threads(
    monkeypatch: pytest.MonkeyPatch, server: list[str]
) -> None:
    monkeypatch.setattr(resolving, "LOOKUP_S_MAX", 0.2)
    resolver = Resolver()
    slow = [asyncio.create_task(resolver.look_up("slow.example")) for _ in range(100)]
    await asyncio.sleep(0.05)
    assert str((await resolver.look_up("quick.example"))[0]) == "127.0.0.1"
    assert await asyncio.get_running_loop().run_in_executor(None, lambda: 7) == 7
    failures = await asyncio.gather(*slow, return_exceptions=True)
    assert {type(failure) for failure in failures} == {TimeoutError}
    assert server == ["slow.example", "quick.example"]
    with pytest.raises(SendFailed, match="within"):
        await sending.resolve(target_of("https://slow.example"), (), resolver)
    assert server.count("slow.example") == 1, "one name takes one thread"


async def test_names_are_looked_up_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, server: list[str]) -> None:
    monkeypatch.setattr(resolving, "LOOKUPS_MAX", 2)
    monkeypatch.setattr(resolving, "LOOKUP_S_MAX", 0.1)
    resolver = Resolver()
    names = ["slow.1", "slow.2", "quick.example"]
    failures = await asyncio.gather(*(resolver.look_up(name) for name in names), return_exceptions=True)
    assert [type(failure) for failure in failures] == [TimeoutError] * 3
    assert sorted(server) == ["slow.1", "slow.2"]  # By a thread each.


async def test_a_name_that_leads_nowhere_is_asked_about_again(server: list[str]) -> None:
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(SendFailed, match="nowhere"):
            await sending.resolve(target_of("https://none.example"), (), resolver)
    assert server == ["none.example"] * 2


async def test_a_receiver_that_has_gone_before_it_is_told_has_closed_the_connection() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        await writer.wait_closed()
        with pytest.raises(SendFailed, match="closed without an answer"):
            await sending._ask(reader, writer, target_of("http://127.0.0.1/"), [], b"{}")
