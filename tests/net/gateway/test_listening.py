"""Claim: a gateway is reached from elsewhere by TLS and with tokens alone, unless forced, and knows its nodes."""

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bezant.cli.node_process import NodeProcess
from bezant.net.gateway import front as front_module
from bezant.net.gateway.settings import GatewaySettings
from bezant.protocol.errors import UsageError

from ..access.authority import Authority
from ..server.process import SMALL
from .conftest import GatewayProcess, problem
from .guarded import GuardedNode
from .test_hosts import Inside, front_over

LATE_S = 60
SOON_S = 0.05


def failed(connect: str, listen: str, *options: str) -> str:
    """What a gateway says that does not start."""
    command = [sys.executable, "-m", "bezant", "gateway", "--connect", connect, "--listen", listen, *options]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LATE_S)
    assert told.stdout == ""
    assert told.returncode != 0
    return told.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def private(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    """A node that asks for tokens, by TLS."""
    signed = authority.sign("node")
    options = (f"--tls-cert={signed.certificate}", f"--tls-key={signed.key}", "--no-reader")
    with GuardedNode(tmp_path_factory.mktemp("private"), options, ["--tls-ca", str(authority.file)]) as node:
        yield node


def test_a_gateway_serves_by_tls_before_nodes_that_do(
    authority: Authority, private: GuardedNode, tmp_path: Path
) -> None:
    signed = authority.sign("gateway")
    options = [*private.shown, "--listen-cert", str(signed.certificate), "--listen-key", str(signed.key)]
    token = private.create("client", "--scopes", "read")
    with GatewayProcess(private.address, tmp_path / "log", options) as gateway:
        assert gateway.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=authority.file)
        with httpx.Client(base_url=gateway.url, verify=trusting) as client:
            answer = client.get("/v1/currencies", headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
            problem(client.get("/v1/currencies"), "UNAUTHENTICATED")
        with httpx.Client(base_url=gateway.url) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get("/health")
        with httpx.Client(base_url=gateway.url.replace("https", "http")) as plain, pytest.raises(httpx.TransportError):
            plain.get("/health")
        old = ssl.create_default_context(cafile=authority.file)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with httpx.Client(base_url=gateway.url, verify=old) as late, pytest.raises(httpx.ConnectError):
            late.get("/health")
        assert gateway.log() == ""
        assert gateway.stop() == 0


def test_an_expired_certificate_is_not_taken(authority: Authority, private: GuardedNode, tmp_path: Path) -> None:
    signed = authority.sign("expired", expired=True)
    listen = ["--listen-cert", str(signed.certificate), "--listen-key", str(signed.key)]
    with GatewayProcess(private.address, tmp_path / "log", [*private.shown, *listen]) as gateway:
        trusting = ssl.create_default_context(cafile=authority.file)
        client = httpx.Client(base_url=gateway.url, verify=trusting)
        with client, pytest.raises(httpx.ConnectError, match="expired"):
            client.get("/health")
    node_files = (*SMALL, f"--tls-cert={signed.certificate}", f"--tls-key={signed.key}", "--no-reader")
    with NodeProcess(tmp_path / "data", arguments=node_files) as node:
        assert "expired" in failed(node.address, "127.0.0.1:0", "--tls-ca", str(authority.file))


def test_a_node_of_another_authority_is_not_trusted(private: GuardedNode, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "other")
    token = private.shown[-1]
    assert "certificate" in failed(private.address, "127.0.0.1:0", "--tls-ca", str(other.file), "--token-file", token)
    assert failed(private.address, "127.0.0.1:0", "--token-file", token), "it does not speak without TLS"


def test_a_gateway_is_no_node(authority: Authority, private: GuardedNode) -> None:
    signed = authority.sign("borrowed")
    files = ["--tls-cert", str(signed.certificate), "--tls-key", str(signed.key)]
    assert "certificate" in failed(private.address, "127.0.0.1:0", *private.shown, *files)


def test_it_is_reached_from_elsewhere_by_tls_and_with_tokens_alone(
    authority: Authority, private: GuardedNode, node: NodeProcess, tmp_path: Path
) -> None:
    signed = authority.sign("everywhere")
    files = ["--listen-cert", str(signed.certificate), "--listen-key", str(signed.key)]
    assert "--insecure-listen" in failed(private.address, "0.0.0.0:0", *private.shown)
    assert "nodes let everybody in" in failed(node.address, "0.0.0.0:0", *files)
    for connect, options in (
        (private.address, [*private.shown, *files]),
        (node.address, ["--insecure-listen"]),
    ):
        with GatewayProcess(connect, tmp_path / "log", [*options, "--listen", "0.0.0.0:0"]) as gateway:
            assert "://0.0.0.0:" in gateway.url


@pytest.mark.parametrize("given", [{"certificate": "a"}, {"key": "a"}])
def test_a_certificate_and_its_key_belong_together(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="belong together"):
        GatewaySettings(connect="127.0.0.1:1", **given)


def test_files_that_are_none_are_told(node: NodeProcess, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("nothing")
    told = failed(node.address, "127.0.0.1:0", "--listen-cert", str(nothing), "--listen-key", str(nothing))
    assert "cannot be used" in told


def test_a_handshake_that_does_not_come_keeps_nobody_out(
    authority: Authority, private: GuardedNode, tmp_path: Path
) -> None:
    signed = authority.sign("waiting")
    options = [*private.shown, "--listen-cert", str(signed.certificate), "--listen-key", str(signed.key)]
    with GatewayProcess(private.address, tmp_path / "log", options) as gateway:
        host, port = gateway.url.removeprefix("https://").split(":")
        silent = [socket.create_connection((host, int(port)), timeout=LATE_S) for _ in range(50)]
        with httpx.Client(base_url=gateway.url, verify=ssl.create_default_context(cafile=authority.file)) as client:
            assert client.get("/health").status_code == 200
        for one in silent:
            one.close()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/wallet/balance_transfer"), ("POST", "/v1/accounts"), ("DELETE", "/v1/accounts")]
)
async def test_a_body_that_does_not_come_is_not_waited_for(
    method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_module, "BODY_S_MAX", SOON_S)

    class Reading(Inside):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            with pytest.raises(front_module.ProblemRaised) as raised:
                while (await receive())["more_body"]:
                    pass
            await front_module.send_problem(send, raised.value.problem)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    waiting = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        return await asyncio.Event().wait()

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers}
    for body in (waiting, []):
        sent.clear()
        waiting = list(body)
        async with asyncio.timeout(LATE_S):
            await front_over(Reading())({**scope, "client": ("127.0.0.1", 1)}, receive, send)
        assert sent[0]["status"] == 408
