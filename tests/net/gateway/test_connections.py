"""Claim: whoever writes slowly, or does not read, or has too much to say, has the connection for a bounded time."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from bezant.net.gateway import connections
from bezant.net.gateway.connections import HEAD_BYTES_MAX, with_limit

CONNECTIONS_MAX = 10
SOON_S = 0.3
LATE_S = 20
TRICKLE_S = 0.05
LARGE_BYTES = 64 << 20


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once with 415, or with a body at /large that no buffer takes; waits for the body at /body."""
    if scope["path"] == "/body":
        while (await receive())["more_body"]:
            pass
    size = LARGE_BYTES if scope["path"] == "/large" else 2
    await send({"type": "http.response.start", "status": 415, "headers": [(b"content-length", b"%d" % size)]})
    for start in range(0, size, 1 << 16):
        part = min(1 << 16, size - start)
        await send({"type": "http.response.body", "body": b"x" * part, "more_body": start + part < size})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    for name in ("HEAD_S_MAX", "WRITE_S_MAX", "LINGER_S_MAX"):
        monkeypatch.setattr(connections, name, SOON_S)
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=with_limit(CONNECTIONS_MAX), lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([bound])
    yield int(bound.getsockname()[1])
    await server.shutdown([bound])


async def trickled(port: int, first: bytes, rest: bytes) -> bytes:
    """What a client is told that sends something, and then a bit more all the time until it is cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(TRICKLE_S)
            writer.write(rest)

    going = asyncio.create_task(go_on())
    told = b""
    try:
        async with asyncio.timeout(LATE_S):
            while data := await reader.read(1 << 16):
                told += data
    except ConnectionError:
        pass
    finally:
        going.cancel()
        writer.transport.abort()
    return told


async def test_a_head_that_does_not_end_is_not_waited_for(port: int) -> None:
    assert await trickled(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n") == b""


async def test_line_feeds_between_requests_keep_no_connection(port: int) -> None:
    told = await trickled(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n")
    assert told.startswith(b"HTTP/1.1 415")


async def test_a_body_that_does_not_end_after_its_answer_ends_the_connection(port: int) -> None:
    told = await trickled(port, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nx", b"x")
    assert told.startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_head_that_is_too_large_is_cut_off(port: int, in_pieces: bool) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * HEAD_BYTES_MAX
    assert await trickled(port, head + (b"" if in_pieces else b"\r\n\r\n"), b"x") == b""


async def test_a_client_that_does_not_read_is_cut_off(port: int) -> None:
    loop = asyncio.get_running_loop()
    client = socket.create_connection(("127.0.0.1", port))
    with client:
        client.setblocking(False)
        await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(3 * SOON_S)
        size = 0
        async with asyncio.timeout(LATE_S):
            try:
                while data := await loop.sock_recv(client, 1 << 20):
                    size += len(data)
            except ConnectionError:
                pass
    assert size < LARGE_BYTES


async def test_a_connection_goes_on_after_an_answer_before_the_end_of_a_body(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(LATE_S):
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 415")
            assert await reader.readexactly(2) == b"xx"
            writer.write(b"cd")
        await asyncio.sleep(3 * SOON_S)
        writer.write(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 415")
    writer.transport.abort()


async def status_from(port: int, address: str) -> tuple[bytes, asyncio.StreamWriter]:
    """What is answered to somebody at an address, who stays connected; "" if that is nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return await reader.readuntil(b"\r\n"), writer
    except (ConnectionError, asyncio.IncompleteReadError):
        return b"", writer


async def test_one_address_keeps_no_other_out(port: int) -> None:
    async with asyncio.timeout(LATE_S):
        crowd = [await status_from(port, "127.0.0.1") for _ in range(CONNECTIONS_MAX)]
        assert [bool(status) for status, _ in crowd] == [True] * 5 + [False] * 5
        status, other = await status_from(port, "127.0.0.2")
        assert status.startswith(b"HTTP/1.1 415")
        for _, writer in [*crowd, (status, other)]:
            writer.transport.abort()
        status = b""
        while not status:
            await asyncio.sleep(TRICKLE_S)
            status, other = await status_from(port, "127.0.0.1")
            other.transport.abort()
