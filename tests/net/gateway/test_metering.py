"""Claim: the gateway counts its answers by route and status, names no account, and is probed without tokens."""

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bezant.net.gateway import metering
from bezant.net.gateway.metering import Meter, Metered
from bezant.net.metrics.exposition import OPENMETRICS
from bezant.protocol.errors import ConnectionFailed

from .conftest import WORLD, Bank

Counts = dict[tuple[str, str, str], float]


def counts_in(text: str) -> Counts:
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "bezant_gateway_requests"]
    return {
        (one.labels["method"], one.labels["route"], one.labels["status"]): one.value
        for one in family.samples
        if one.name.endswith("_total")
    }


def metrics_of(client: httpx.Client) -> str:
    answer = client.get("/metrics", headers={"Accept": OPENMETRICS})
    assert (answer.status_code, answer.headers["content-type"]) == (200, OPENMETRICS)
    return answer.text


def test_answers_are_counted_by_route_and_status(bank: Bank) -> None:
    account = bank.account("counted", "3.00")
    before = counts_in(metrics_of(bank.client))
    for path, count in ((f"/v1/accounts/{account}", 3), ("/nowhere/at/all", 2), (f"/v1/accounts/{account}/no", 1)):
        for _ in range(count):
            bank.client.get(path, params={"currency": "EUR"})
    assert bank.transfer(WORLD, account, "1.00").status_code == 200
    assert bank.transfer(account, WORLD, "99.00").status_code == 422
    bank.client.request("PURGE", "/v1/totals")
    text = metrics_of(bank.client)
    after = counts_in(text)
    risen = {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}
    assert risen == {
        ("GET", "/v1/accounts/{name}", "200"): 3,
        ("GET", "other", "404"): 3,
        ("POST", "/v1/wallet/balance_transfer", "200"): 1,
        ("POST", "/v1/wallet/balance_transfer", "422"): 1,
        ("other", "other", "405"): 1,
        ("GET", "/metrics", "200"): 1,
    }
    assert account not in text


def test_metrics_are_for_those_who_ask_by_its_name(client: httpx.Client) -> None:
    assert client.get("/metrics", headers={"Host": "elsewhere.example"}).status_code == 421
    assert client.get("/metrics", headers={"Origin": "http://elsewhere.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probers_are_told_by_whatever_name_they_ask(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers={"Host": "10.0.0.7:8080"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


class FakeWallet:
    """Answers pings, or does not."""

    def __init__(self) -> None:
        self.pings = 0
        self.is_refused = False
        self.failure: Exception | None = None

    async def ping(self, *, timeout_s: float) -> None:
        self.pings += 1
        if self.failure is not None:
            raise self.failure


async def ask(application: Metered, path: str, method: str = "GET") -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    await application({"type": "http", "method": method, "path": path}, receive, send)
    return sent


async def nobody(_scope: Any, _receive: Any, _send: Any) -> None:
    """An application that answers nothing."""


async def test_a_gateway_is_not_ready_while_no_node_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    wallet: Any = FakeWallet()
    application = Metered(nobody, Meter(wallet))
    first = await asyncio.gather(*(ask(application, "/readyz") for _ in range(5)))
    assert [sent[0]["status"] for sent in first] == [200] * 5
    assert wallet.pings == 1
    monkeypatch.setattr(metering, "FRESH_S", -1.0)
    wallet.failure = ConnectionFailed("the node at secret:1 cannot be reached")
    start, body = await ask(application, "/readyz")
    assert (start["status"], body["body"]) == (503, b'{"status":"unavailable","reason":"no node answers"}')
    assert (await ask(application, "/healthz"))[0]["status"] == 200
    wallet.failure, wallet.is_refused = None, True
    start, body = await ask(application, "/readyz")
    assert (start["status"], b"its token does not count" in body["body"]) == (503, True)


async def test_a_loop_that_was_held_up_is_not_healthy() -> None:
    meter = Meter(FakeWallet())
    meter.loop_watch.late_s = 1.5
    assert (await ask(Metered(nobody, meter), "/healthz"))[0]["status"] == 503


async def test_what_ends_without_an_answer_is_counted_as_such() -> None:
    meter = Meter(FakeWallet())
    await ask(Metered(nobody, meter), "/v1/x")
    assert [sample.labels["status"] for sample in meter.families()[0].samples] == ["gone"]
    assert meter.in_flight == 0
