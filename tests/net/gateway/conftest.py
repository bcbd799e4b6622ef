"""Fixtures of the gateway's tests: a real node with its reader, and a real gateway before it, once for all of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvloop

from bezant.cli.node_process import NodeProcess

from ..server.process import SMALL

READY = "listening on "
START_S = 60
STOP_S = 30
WARM_S = 180
WORLD = "world"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on."""
    return {"uvloop": uvloop.new_event_loop}


class GatewayProcess:
    """`bezant gateway` in a process of its own, on a free port; as a context manager it is never left running."""

    def __init__(self, connect: str, log: Path, options: Sequence[str] = ()) -> None:
        self._log = log.open("w+")
        command = [sys.executable, "-m", "bezant", "gateway", "--connect", connect, "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.url = ""

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        late = threading.Timer(START_S, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        assert line.startswith(READY), self.log()
        self.url = line.removeprefix(READY).strip()
        return self

    def log(self) -> str:
        """What it wrote to its standard error."""
        self._log.seek(0)
        return self._log.read()

    def stop(self) -> int:
        """Stop it as an operator would; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    @property
    def resident_bytes(self) -> int:
        """Memory that it has now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with a reader beside it."""
    with NodeProcess(tmp_path_factory.mktemp("node") / "data", arguments=SMALL) as process:
        yield process


@pytest.fixture(scope="session")
def gateway(node: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway before that node. None of its answers was a fault of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(node.address, folder / "log") as process:
        with httpx.Client(base_url=process.url, timeout=30) as client:
            opened = client.post(
                "/v1/accounts",
                json={"name": WORLD, "currency": "EUR", "limit": "unlimited", "transaction_id": "open world"},
            )
            assert opened.status_code == 200, opened.text
            end_s = time.monotonic() + WARM_S
            while client.get("/v1/totals", headers={"Request-Timeout": "30"}).status_code != 200:
                assert time.monotonic() < end_s, "the reader has not compiled its kernels"
        yield process
        assert process.log() == ""


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as opened:
        yield opened


@pytest.fixture
async def asynchronous(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as opened:
        yield opened


class Bank:
    """What tests do over and over: accounts of their own, with money in them."""

    def __init__(self, client: httpx.Client, prefix: str) -> None:
        self.client = client
        self._prefix = prefix
        self._count = 0

    def text(self) -> str:
        """A transaction id that nobody else uses."""
        self._count += 1
        return f"{self._prefix} {self._count}"

    def name(self, suffix: str) -> str:
        """The name of an account that nobody else has."""
        return f"{self._prefix}:{suffix}"

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Ask for something, with a fresh transaction id unless one is given."""
        return self.client.post(path, json={"transaction_id": self.text()} | body)

    def account(self, suffix: str, amount: str = "0.00") -> str:
        """An account with an amount of euros; its name."""
        name = self.name(suffix)
        assert self.post("/v1/accounts", name=name, currency="EUR").status_code == 200
        if amount != "0.00":
            assert self.transfer(WORLD, name, amount).status_code == 200
        return name

    def transfer(self, debit: str, credit: str, euros: str, **more: Any) -> httpx.Response:
        """A transfer of euros."""
        body = {"from_account": debit, "to_account": credit, "amount": euros, "currency": "EUR"}
        return self.post("/v1/wallet/balance_transfer", **(body | more))


def await_balance(bank: Bank, name: str, euros: str, deadline_s: float = 10.0) -> None:
    """Return when an account has so much."""
    end_s = time.monotonic() + deadline_s
    while (found := bank.client.get(f"/v1/accounts/{name}", params={"currency": "EUR"}).json()["balance"]) != euros:
        assert time.monotonic() < end_s, f"{name} has {found}"
        time.sleep(0.01)


@pytest.fixture
def bank(client: httpx.Client, request: pytest.FixtureRequest) -> Bank:
    return Bank(client, f"t{abs(hash(request.node.nodeid)) % 10**9}")


def problem(response: httpx.Response, code: str) -> dict[str, Any]:
    """The problem that an answer is, which must be of this kind and in the right form."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    told: dict[str, Any] = json.loads(response.content)
    assert told["code"] == code, told
    assert told["status"] == response.status_code
    assert told["type"] == f"/problems/{code}"
    assert told["title"]
    return told
