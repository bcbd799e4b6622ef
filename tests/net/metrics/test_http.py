"""Claim: the pages are told to who asks by GET, and to nobody who takes too much, or too long, or is too many."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from bezant.net.metrics import http
from bezant.net.metrics.http import CONNECTIONS_MAX, HEAD_BYTES_MAX, Answer, Watchers, check_watchers, verdict
from bezant.protocol.errors import UsageError

PAGES = {
    "/a": lambda accept: Answer(200, "text/plain", f"accepts {accept}".encode()),
    "/bad": lambda _accept: verdict("it is ill"),
    "/healthz": lambda _accept: verdict(""),
    "/well": lambda _accept: verdict(""),
    "/bug": lambda _accept: Answer(200, "text/plain", str(1 // 0).encode()),
}


@pytest.fixture
async def place() -> AsyncIterator[tuple[str, int]]:
    watchers = Watchers(PAGES)
    server = await asyncio.get_running_loop().create_server(watchers.connection, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield host, port
    server.close()
    watchers.close()


async def rest_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What still comes until the other side ends the connection, however it does."""
    told = b""
    with suppress(ConnectionError):
        told = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return told


async def ask(place: tuple[str, int], request: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection(*place)
    writer.write(request)
    told = await rest_of(reader, writer)
    head, _, body = told.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    assert int(headers["content-length"]) == len(body)
    return int(status.split(" ")[1]), headers, body


async def test_a_page_is_told_and_the_connection_closed(place: tuple[str, int]) -> None:
    status, headers, body = await ask(place, b"GET /a?x=1 HTTP/1.1\r\nHost: x\r\naCCept: text/plain\r\n\r\n")
    assert (status, body, headers["content-type"]) == (200, b"accepts text/plain", "text/plain")
    assert (headers["connection"], headers["cache-control"]) == ("close", "no-store")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /b HTTP/1.1\r\n\r\n", 404),
        (b"GET /../a HTTP/1.1\r\n\r\n", 404),
        (b"POST /a HTTP/1.1\r\ncontent-length: 1\r\n\r\nx", 405),
        (b"get /a HTTP/1.1\r\n\r\n", 405),
        (b"GET /a\r\n\r\n", 400),
        (b"GET  /a HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nx: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"y" * (HEAD_BYTES_MAX + 1), 431),
        (b"GET /bad HTTP/1.1\r\n\r\n", 503),
        (b"GET /bug HTTP/1.1\r\n\r\n", 500),
    ],
)
async def test_anything_else_is_refused(place: tuple[str, int], request_: bytes, status: int) -> None:
    assert (await ask(place, request_))[0] == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (host, 200)
            for host in ("127.0.0.1:9420", "localhost", "[::1]:9420", "node-1:9420", "10.0.0.7", "LOCALHOST")
        ),
        *((host, 421) for host in ("evil.example", "evil.example:9420", "localhost.evil.example", "127.0.0.1.nip.io")),
        *((host, 421) for host in ("", "a b", "[evil]", "x@127.0.0.1", "127.0.0.1:x")),
    ],
)
async def test_a_page_of_a_stranger_is_told_nothing(place: tuple[str, int], host: str, status: int) -> None:
    told, _, body = await ask(place, f"GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert told == status
    assert (b"accepts" in body) == (status == 200)


async def test_two_hosts_are_one_too_many_and_probers_have_any(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = b"GET /a HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n\r\n"
    assert (await ask(place, both))[0] == 421
    assert (await ask(place, b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"))[0] == 200
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1.bank.example")
    assert (await ask(place, b"GET /a HTTP/1.1\r\nHost: node-1.bank.example:9420\r\n\r\n"))[0] == 200


async def test_a_verdict_says_why(place: tuple[str, int]) -> None:
    _, _, body = await ask(place, b"GET /bad HTTP/1.0\r\n\r\n")
    assert json.loads(body) == {"status": "unavailable", "reason": "it is ill"}
    _, _, body = await ask(place, b"GET /well HTTP/1.0\r\n\r\n")
    assert json.loads(body) == {"status": "ok"}


async def test_who_takes_too_long_is_cut_off(place: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTION_S_MAX", 0.05)
    reader, writer = await asyncio.open_connection(*place)
    writer.write(b"GET /a HTTP/1.1\r\n")
    assert await rest_of(reader, writer) == b""


async def test_who_comes_when_there_are_too_many_is_cut_off(place: tuple[str, int]) -> None:
    opened = [await asyncio.open_connection(*place) for _ in range(CONNECTIONS_MAX)]
    reader, writer = await asyncio.open_connection(*place)
    assert await rest_of(reader, writer) == b""
    for waiting, other in opened:
        other.write(b"GET /well HTTP/1.1\r\n\r\n")
        assert (await rest_of(waiting, other)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert (await ask(place, b"GET /well HTTP/1.1\r\n\r\n"))[0] == 200


def test_nobody_else_is_told_unless_that_was_asked_for() -> None:
    with socket.socket() as everywhere, socket.socket() as here:
        everywhere.bind(("0.0.0.0", 0))
        here.bind(("127.0.0.1", 0))
        check_watchers([here], insecure_listen=False)
        check_watchers([everywhere], insecure_listen=True)
        with pytest.raises(UsageError, match="--insecure-listen"):
            check_watchers([here, everywhere], insecure_listen=False)
