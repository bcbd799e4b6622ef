"""Claim: before nodes that ask for tokens a client may do what its own token may, and nothing by the gateway's."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from bezant.cli.tokens import new_token
from bezant.net.gateway.settings import BODY_BYTES_MAX
from bezant.protocol.access import token_id_of

from .conftest import WARM_S, WORLD, Bank, GatewayProcess, problem
from .guarded import GuardedNode

TRANSFERS = "/v1/wallet/balance_transfer"
RATE = 20
BURST = 100
FLOOD_MAX = 50 * BURST
"""Requests that are more than a client's share, also if each takes a while, in which some of that comes back."""
LATE_S = 20
ODD_PATHS = [
    *("//v1/currencies", "/docs/../v1/currencies", "/docs/%2e%2e/v1/currencies", "/docs/..%2fv1/currencies"),
    *("/problems/../v1/currencies", "/health/../v1/currencies", "/v1/./currencies", "/v1%2fcurrencies", "/docs//etc"),
    *("/docs/..%2f..%2fprocess.py", "/docs/%2fetc%2fpasswd", "/docs/docs.js%00.html", "/docs/..%5cprocess.py"),
    *("/v1/currencies;/health", "/v1/currencies?/health", "/v1/accounts/%00", "/v1/accounts/..%2f..%2f..%2fetc"),
]


class Guarded:
    """The gateway before a node that asks for tokens."""

    def __init__(self, node: GuardedNode, gateway: GatewayProcess) -> None:
        self.node = node
        self.gateway = gateway

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(base_url=self.gateway.url, timeout=30, headers={"Authorization": f"Bearer {token}"})

    def raw(self, sent: bytes) -> bytes:
        """What a socket is answered that says so, until it is closed."""
        host, port = self.gateway.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=LATE_S) as opened:
            told = b""
            try:
                opened.sendall(sent)
                while data := opened.recv(1 << 16):
                    told += data
            except ConnectionError:
                pass
        return told


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    limits = ["--client-rate", str(RATE), "--client-burst", str(BURST)]
    with (
        GuardedNode(folder) as node,
        GatewayProcess(node.address, folder / "log", [*node.shown, *limits]) as gateway,
    ):
        both = Guarded(node, gateway)
        with both.client(node.admin) as client:
            bank = Bank(client, "guarded")
            assert bank.post("/v1/accounts", name=WORLD, currency="EUR", limit="unlimited").status_code == 200
            for name in ("a:ann", "b:bob"):
                assert bank.post("/v1/accounts", name=name, currency="EUR").status_code == 200
                assert bank.transfer(WORLD, name, "50.00").status_code == 200
            end_s = time.monotonic() + WARM_S
            while client.get("/v1/totals", headers={"Request-Timeout": "30"}).status_code != 200:
                assert time.monotonic() < end_s, "the reader has not compiled its kernels"
        yield both
        told = gateway.log()
        assert told == ""


def test_without_a_token_nothing_is_asked_of_the_ledger(guarded: Guarded) -> None:
    with httpx.Client(base_url=guarded.gateway.url) as client:
        for path in (
            "/v1/currencies",
            "/v1/accounts/ann",
            "/v1/accounts/ann/events",
            "/v1/cluster",
            "/metrics",
            "/nowhere",
        ):
            refused = client.get(path)
            problem(refused, "UNAUTHENTICATED")
            assert refused.headers["www-authenticate"] == 'Bearer realm="bezant"'
        problem(client.post(TRANSFERS, json={}), "UNAUTHENTICATED")
        for path in ("/health", "/ready", "/healthz", "/readyz", "/docs", "/openapi.json", "/problems"):
            assert client.get(path).status_code == 200, path
        for shown in ("Bearer", "Bearer x", "Basic eDp5", f"Bearer {new_token()[0]}"):
            problem(client.get("/v1/currencies", headers={"Authorization": shown}), "UNAUTHENTICATED")
        token = guarded.node.admin
        problem(client.get(f"/v1/currencies?access_token={token}"), "UNAUTHENTICATED")
        problem(client.post("/v1/currencies", data={"access_token": token}), "UNAUTHENTICATED")
        twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
        problem(client.get("/v1/currencies", headers=twice), "REQUEST_INVALID")


async def test_a_socket_needs_a_token_too(guarded: Guarded) -> None:
    url = f"{guarded.gateway.url.replace('http', 'ws', 1)}/v1/accounts/a%3Aann/events"
    for headers in ({}, {"Authorization": f"Bearer {new_token()[0]}"}):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, additional_headers=headers)
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["www-authenticate"].startswith("Bearer")
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"{url}?access_token={guarded.node.admin}")
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {guarded.node.admin}"}) as socket:
        async with asyncio.timeout(LATE_S):
            await socket.ping()


def test_scopes_are_what_the_node_says(guarded: Guarded) -> None:
    reads, pays = guarded.node.create("reads", "--scopes", "read"), guarded.node.create("pays", "--scopes", "transfer")
    with guarded.client(reads) as client:
        bank = Bank(client, "reads")
        assert client.get("/v1/accounts/a:ann?currency=EUR").status_code == 200
        assert client.get("/v1/cluster").json()["shards"]
        assert client.get("/metrics").status_code == 200
        problem(bank.transfer("a:ann", "b:bob", "1.00"), "FORBIDDEN")
        problem(bank.post("/v1/accounts", name="c:cid", currency="EUR"), "FORBIDDEN")
        problem(client.post("/v1/currencies", json={"code": "XTS", "decimals": 2}), "FORBIDDEN")
    with guarded.client(pays) as client:
        bank = Bank(client, "pays")
        assert bank.transfer("a:ann", "b:bob", "1.00").status_code == 200
        for path in (
            "/v1/accounts/a:ann?currency=EUR",
            "/v1/accounts/a:ann/events",
            "/v1/cluster",
            "/metrics",
            "/v1/totals",
        ):
            problem(client.get(path), "FORBIDDEN")
        problem(client.get("/v1/cluster/stream"), "FORBIDDEN")
        problem(bank.post("/v1/accounts", name="d:dot", currency="EUR", limit="unlimited"), "FORBIDDEN")


def test_prefixes_are_what_the_node_says(guarded: Guarded) -> None:
    limited = guarded.node.create("limited", "--scopes", "transfer,read", "--prefix", "a:")
    with guarded.client(limited) as client:
        bank = Bank(client, "limited")
        assert bank.transfer("a:ann", "b:bob", "1.00").status_code == 200
        problem(bank.transfer("b:bob", "a:ann", "1.00"), "FORBIDDEN")
        assert client.get("/v1/accounts/a:ann?currency=EUR").status_code == 200
        problem(client.get("/v1/accounts/b:bob?currency=EUR"), "FORBIDDEN")
        problem(client.get("/v1/accounts/b%3Abob/events"), "FORBIDDEN")


def test_revoked_is_at_once_on_connections_that_there_are(guarded: Guarded) -> None:
    token = guarded.node.create("revoked", "--scopes", "transfer,read")
    with guarded.client(token) as client, guarded.client(token) as streaming:
        bank = Bank(client, "revoked")
        assert bank.transfer("a:ann", "b:bob", "1.00").status_code == 200
        with (
            streaming.stream("GET", "/v1/accounts/a:ann/events") as stream,
            streaming.stream("GET", "/v1/cluster/stream") as watching,
        ):
            lines = stream.iter_lines()
            next(lines)
            guarded.node.command("tokens", "revoke", token_id_of(token))
            problem(bank.transfer("a:ann", "b:bob", "1.00"), "UNAUTHENTICATED")
            problem(client.get("/v1/accounts/a:ann?currency=EUR"), "UNAUTHENTICATED")
            began_s = time.monotonic()
            for _ in lines:
                pass
            for _ in watching.iter_lines():
                pass
            assert time.monotonic() - began_s < LATE_S
        problem(streaming.get("/v1/accounts/a:ann/events"), "UNAUTHENTICATED")


async def test_revoked_is_at_once_on_sockets_too(guarded: Guarded) -> None:
    token = await asyncio.to_thread(guarded.node.create, "socket", "--scopes", "read")
    url = f"{guarded.gateway.url.replace('http', 'ws', 1)}/v1/accounts/a%3Aann/events"
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(url, additional_headers=headers) as opened:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(guarded.node.command, "tokens", "revoke", token_id_of(token))
        async with asyncio.timeout(LATE_S):
            await opened.wait_closed()
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url, additional_headers=headers)
    assert refused.value.response.status_code == 401


def test_one_token_that_floods_is_told_to_wait_and_another_is_served(guarded: Guarded) -> None:
    floods, calm = (guarded.node.create(name, "--scopes", "read") for name in ("floods", "calm"))
    with guarded.client(floods) as flooding, guarded.client(calm) as client:
        assert client.get("/v1/currencies").status_code == 200
        told = [flooding.get("/v1/currencies")]
        while told[-1].status_code == 200 and len(told) < FLOOD_MAX:
            told.append(flooding.get("/v1/currencies"))
        refused = told[-1]
        problem(refused, "TOO_MANY_REQUESTS")
        assert len(told) > BURST, "so many may come at once"
        assert "retry-after" in refused.headers
        assert [client.get("/v1/currencies").status_code for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("path", ODD_PATHS)
def test_no_path_leads_past_the_token(guarded: Guarded, path: str) -> None:
    told = guarded.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = int(told.split(b" ", 2)[1])
    assert status in {400, 401, 404}, told
    assert b"EUR" not in told
    assert b"root:" not in told
    assert b"import " not in told


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer \x00TOKEN",
        b"Bearer TOKEN\x00",
        b"Bearer TOKEN\rX-Other: 1",
        b"Bearer TOKEN\r\n\x00X: 1",
        b"Bearer TOKEN\r\nHost: elsewhere",
        b"Bearer TOKEN\r\nAuthorization: Bearer TOKEN",
        b"Bearer TOKEN\x0b",
        b"Bearer \xc3\xa9TOKEN",
        b"Bearer " + b"x" * (16 << 10),
        b"Bearer " + b"x" * (1 << 20),
    ],
)
def test_what_is_smuggled_into_the_header_is_refused(guarded: Guarded, value: bytes) -> None:
    shown = value.replace(b"TOKEN", guarded.node.admin.encode())
    head = b"GET /v1/currencies HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nConnection: close\r\n\r\n" % shown
    told = guarded.raw(head)
    assert told == b"" or told.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401")), told
    assert guarded.node.admin.encode() not in told


def test_a_token_is_a_token_whatever_comes_around_it(guarded: Guarded) -> None:
    head = "GET /v1/currencies HTTP/1.1\r\nhost: localhost\r\nAUTHORIZATION:  bearer  %s  \r\nconnection: close\r\n\r\n"
    assert guarded.raw((head % guarded.node.admin).encode()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 10 << 20])
def test_a_large_body_costs_nobody_without_a_token_anything(guarded: Guarded, size: int) -> None:
    with httpx.Client(base_url=guarded.gateway.url, timeout=30) as client:
        before = guarded.gateway.resident_bytes
        for _ in range(5):
            refused = client.post(TRANSFERS, content=b"x" * size, headers={"content-type": "application/json"})
            problem(refused, "UNAUTHENTICATED")
        assert guarded.gateway.resident_bytes - before < 5 * (4 << 20)


def test_a_gateway_without_a_token_of_its_own_says_so(guarded: Guarded) -> None:
    command = [sys.executable, "-m", "bezant", "gateway", "--connect", guarded.node.address, "--listen", "127.0.0.1:0"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LATE_S)
    assert (told.returncode, told.stdout) == (1, "")
    assert "--token-file" in told.stderr


def test_no_token_is_ever_written_down(guarded: Guarded) -> None:
    with guarded.client(guarded.node.admin) as client:
        assert client.get("/v1/currencies").status_code == 200
    command = Path(f"/proc/{guarded.gateway.process.pid}/cmdline").read_bytes()
    assert b"bezant_" not in command + guarded.gateway.log().encode()


EVERYBODY = "RTAPrt"
BODY_OF_TRANSFER = {"amount": "0.01", "currency": "EUR"}
PAYS = BODY_OF_TRANSFER | {"from_account": "a:ann", "to_account": "b:bob"}
IS_PAID = BODY_OF_TRANSFER | {"from_account": "b:bob", "to_account": "a:ann"}
OPENS = {"currency": "EUR", "name": "a:new"}
HOOK = "/v1/webhooks/wh_x"
MATRIX: list[tuple[str, str, str, dict[str, Any] | None]] = [
    ("R", "GET", "/v1/accounts", None),
    ("Rr", "GET", "/v1/accounts/a:ann?currency=EUR", None),
    ("R", "GET", "/v1/accounts/b:bob?currency=EUR", None),
    ("R", "GET", "/v1/accounts/a:ann/statement?currency=EUR", None),
    ("R", "GET", "/v1/accounts/a:ann/holds?currency=EUR", None),
    ("R", "GET", "/v1/accounts/a:ann/events?currency=EUR", None),
    ("R", "GET", "/v1/transfers?account=a:ann&currency=EUR", None),
    ("Rr", "GET", "/v1/transfers/nobody", None),
    ("R", "GET", "/v1/totals", None),
    (EVERYBODY, "GET", "/v1/currencies", None),
    ("RAP", "GET", "/v1/cluster", None),
    ("RAP", "GET", "/v1/cluster/stream", None),
    ("RAP", "GET", "/metrics", None),
    ("Tt", "POST", TRANSFERS, PAYS),
    ("T", "POST", TRANSFERS, IS_PAID),
    ("TAt", "POST", "/v1/accounts", OPENS),
    ("TA", "POST", "/v1/accounts", OPENS | {"name": "c:new"}),
    ("A", "POST", "/v1/accounts", OPENS | {"name": "a:rich", "limit": "5.00"}),
    ("A", "POST", "/v1/accounts/a:none/freeze?currency=EUR", {"currency": "EUR"}),
    ("A", "POST", "/v1/currencies", {"code": "XTS", "decimals": 2}),
    ("A", "GET", "/v1/webhooks", None),
    ("A", "POST", "/v1/webhooks", {"url": "https://a.example"}),
    ("A", "GET", HOOK, None),
    ("A", "DELETE", HOOK, None),
    ("A", "POST", f"{HOOK}/test", None),
    ("A", "POST", f"{HOOK}/secret", None),
    ("A", "POST", f"{HOOK}/enable", None),
    ("A", "GET", f"{HOOK}/dead-letters", None),
    ("A", "POST", f"{HOOK}/dead-letters/m/replay", None),
    ("A", "DELETE", f"{HOOK}/dead-letters/m", None),
]
"""Who may ask what: those with the scope read, transfer, admin or peer and, small, those limited to a prefix."""


def test_every_route_is_for_the_scopes_that_it_takes(guarded: Guarded) -> None:
    options = {
        "R": ["--scopes", "read"],
        "T": ["--scopes", "transfer"],
        "A": ["--scopes", "admin"],
        "P": ["--scopes", "peer"],
        "r": ["--scopes", "read", "--prefix", "a:"],
        "t": ["--scopes", "transfer", "--prefix", "a:"],
    }
    told: dict[tuple[str, str, str], bool] = {}
    wanted: dict[tuple[str, str, str], bool] = {}
    for who, words in options.items():
        with guarded.client(guarded.node.create(f"matrix {who}{who.islower()}", *words)) as client:
            client.headers["Request-Timeout"] = "30"
            for number, (may, method, path, body) in enumerate(MATRIX):
                asked: dict[str, Any] = {}
                if body is not None:
                    has_id = not {"url", "decimals"} & body.keys()
                    asked["json"] = body | ({"transaction_id": f"{who} {number}"} if has_id else {})
                with client.stream(method, path, **asked) as answer:
                    key = (who, method, f"{path} {body or ''}")
                    wanted[key] = who in may
                    told[key] = answer.status_code != 403
                    if answer.status_code != 200:
                        code = json.loads(answer.read())["code"]
                        assert (code == "FORBIDDEN") == (answer.status_code == 403), key
                        unclear = {
                            "UNAUTHENTICATED",
                            "TOO_MANY_REQUESTS",
                            "INTERNAL_ERROR",
                            "NO_ANSWER",
                            "OUTCOME_UNKNOWN",
                        }
                        assert code not in unclear, (key, code)
    assert told == wanted


def test_nobody_who_administers_is_limited_to_prefixes(guarded: Guarded) -> None:
    """So whoever sees webhooks and tokens at all may see all."""
    for scope in ("admin", "peer", "read,admin"):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            guarded.node.create(f"limited {scope}", "--scopes", scope, "--prefix", "a:")
        assert "not limited to accounts" in refused.value.stderr
