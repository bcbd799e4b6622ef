"""Claim: pages of strangers ask nothing, whatever name they gave to this machine; an answer says how to be read."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from bezant.net.gateway.asking import Ledger
from bezant.net.gateway.authorizing import Ledgers
from bezant.net.gateway.bodies import AccountName, Amount, CurrencyCode, Limit
from bezant.net.gateway.front import Front
from bezant.net.gateway.process import ANSWER_HEADERS
from bezant.net.gateway.settings import GatewaySettings
from bezant.protocol.errors import UsageError

Headers = list[tuple[bytes, bytes]]
EVENTS = "/v1/accounts/ann/events"


class Inside:
    """What stands behind the front: keeps each request until told, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1
        await self.may_answer.wait()
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}", "more_body": False})
        else:
            await send({"type": "websocket.accept"})


async def opened(token: str) -> Ledger:
    assert not token, "nobody shows a token"
    return cast(Ledger, SimpleNamespace(is_over=False))


def front_over(inside: Inside, **settings: Any) -> Front:
    ledger = cast(Ledger, SimpleNamespace())
    ledgers = Ledgers(ledger, opened)
    return Front(inside, ledgers, GatewaySettings(connect="127.0.0.1:1", **settings))


async def asked(front: Front, headers: Headers, path: str = "/v1/currencies", kind: str = "http") -> Any:
    """The status and the code of a problem; or the type of the first message over a socket."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read of a question")

    scope = {"type": kind, "method": "GET", "path": path.replace("%2F", "/"), "raw_path": path.encode()}
    await front({**scope, "headers": headers, "client": ("127.0.0.1", 1)}, receive, send)
    if kind != "http":
        return sent[0]["type"]
    return sent[0]["status"], json.loads(sent[1]["body"]).get("code")


@pytest.mark.parametrize(
    "host", [b"localhost:8080", b"LOCALHOST", b"127.0.0.1", b"127.1.2.3:80", b"[::1]:8080", b"Wallet.Example:443"]
)
async def test_own_names_are_answered(host: bytes) -> None:
    front = front_over(Inside(), hosts=("wallet.example",))
    assert await asked(front, [(b"host", host)]) == (200, None)
    assert await asked(front, [(b"host", host), (b"origin", b"http://" + host)]) == (200, None)
    assert await asked(front, [(b"host", host)], EVENTS, "websocket") == "websocket.accept"


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example",
        b"10.0.0.1",
        b"localhost@evil",
        b"[::1",
        b"localhost:x",
        b"",
        b"[::1]x",
    ],
)
@pytest.mark.parametrize("path", ["/v1/currencies", "/docs"])
async def test_a_request_for_another_host_is_refused(host: bytes, path: str) -> None:
    inside = Inside()
    front = front_over(inside)
    assert await asked(front, [(b"host", host)], path) == (421, "HOST_UNKNOWN")
    assert await asked(front, [(b"host", host)], EVENTS, "websocket") == "websocket.close"
    assert inside.count == 0


async def test_a_request_names_one_host() -> None:
    front = front_over(Inside())
    assert await asked(front, []) == (421, "HOST_UNKNOWN")
    twice = [(b"host", b"localhost"), (b"host", b"evil.example")]
    assert await asked(front, twice) == (400, "REQUEST_INVALID")


@pytest.mark.parametrize(
    "origin", [b"http://evil.example", b"null", b"http://localhost:9999", b"http://127.0.0.1:8080"]
)
async def test_a_page_of_another_origin_is_refused_but_for_what_is_the_same_for_all(origin: bytes) -> None:
    inside = Inside()
    front = front_over(inside)
    headers = [(b"host", b"localhost:8080"), (b"origin", origin)]
    assert await asked(front, headers) == (403, "ORIGIN_FOREIGN")
    assert await asked(front, headers, EVENTS, "websocket") == "websocket.close"
    assert inside.count == 0
    assert await asked(front, headers, "/docs/docs.js") == (200, None)
    assert await asked(front, headers, "/openapi.json") == (200, None)
    assert await asked(front, headers, "/docsecret") == (403, "ORIGIN_FOREIGN")


@pytest.mark.parametrize("name", ["", "a b", "http://wallet.example", "wallet.example:443", "a/b"])
def test_a_name_that_is_none_is_told_at_the_start(name: str) -> None:
    with pytest.raises(UsageError):
        GatewaySettings(connect="127.0.0.1:1", hosts=(name,))


@pytest.mark.parametrize(
    ("path", "stays"),
    [
        (EVENTS, False),
        ("/v1/accounts/a%2Fb/events", False),
        ("/v1/transfers/events", True),
        ("/v1/accounts/ann%2Fevents", True),
        ("/v1/accounts/events", True),
    ],
)
async def test_all_but_streams_of_events_are_counted_while_they_are_worked_on(path: str, stays: bool) -> None:
    inside = Inside()
    front = front_over(inside)
    await asked(front, [(b"host", b"localhost")])
    inside.may_answer.clear()
    asking = asyncio.create_task(asked(front, [(b"host", b"localhost")], path))
    await asyncio.sleep(0)
    assert (inside.count, front.admission.count) == (2, int(stays))
    inside.may_answer.set()
    assert await asking == (200, None)
    assert front.admission.count == 0


def test_every_answer_says_how_it_may_be_used() -> None:
    headers = dict(ANSWER_HEADERS)
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(("kind", "text"), [(AccountName, "a"), (CurrencyCode, "EUR"), (Amount, "1.0"), (Limit, "1")])
def test_what_ends_with_a_line_feed_is_no_name_and_no_amount(kind: Any, text: str) -> None:
    assert msgspec.convert(text, kind) == text
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text + "\n", kind)
