"""Claim: what is too large, too much or too late is refused with words, and a late outcome can be settled."""

import json
import re
from pathlib import Path

import httpx
import pytest

from bezant.cli.node_process import NodeProcess
from bezant.net.gateway.settings import BODY_BYTES_MAX

from ..server.process import SMALL
from .conftest import WORLD, Bank, GatewayProcess, problem

TRANSFERS = "/v1/wallet/balance_transfer"


@pytest.mark.parametrize("path", [TRANSFERS, "/v1/accounts"])
@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 10 << 20])
def test_a_large_body_is_refused(client: httpx.Client, path: str, size: int) -> None:
    headers = {"content-type": "application/json"}
    problem(client.post(path, content=b"x" * size, headers=headers), "BODY_TOO_LARGE")


def test_a_client_that_asks_too_much_is_told_when_to_come_back(node: NodeProcess, tmp_path: Path) -> None:
    options = ["--client-rate", "0.01", "--client-burst", "2"]  # None is due again soon, however slow this is.
    with (
        GatewayProcess(node.address, tmp_path / "log", options) as gateway,
        httpx.Client(base_url=gateway.url, timeout=30) as client,
    ):
        answers = [client.get("/health") for _ in range(3)]
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    problem(answers[2], "TOO_MANY_REQUESTS")
    assert int(answers[2].headers["retry-after"]) >= 1


def test_without_an_answer_the_outcome_is_unknown_and_the_same_again_tells(tmp_path: Path) -> None:
    with (
        NodeProcess(tmp_path / "data", arguments=(*SMALL, "--no-reader")) as node,
        GatewayProcess(node.address, tmp_path / "log") as gateway,
        httpx.Client(base_url=gateway.url) as client,
    ):
        bank = Bank(client, "late")
        assert bank.post("/v1/accounts", name=WORLD, currency="EUR", limit="unlimited").status_code == 200
        ann = bank.account("ann")
        body = {"transaction_id": "late", "from_account": WORLD, "to_account": ann, "amount": "1.00"}
        body |= {"currency": "EUR"}
        node.pause()
        late = client.post(TRANSFERS, json=body, headers={"Request-Timeout": "0.2"})
        told = problem(late, "OUTCOME_UNKNOWN")
        assert (told["status"], told["retryable"], told["transaction_id"]) == (504, True, "late")
        problem(client.get("/ready", headers={"Request-Timeout": "0.2"}), "NO_ANSWER")
        node.resume()
        again = client.post(TRANSFERS, json=body)
        assert (again.status_code, again.json()["to_balance"]) == (200, "1.00")
        assert bank.transfer(WORLD, ann, "1.00").json()["to_balance"] == "2.00"


def test_the_page_and_the_description_come_from_here_alone(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    posted = described["paths"][TRANSFERS]["post"]
    assert {"400", "404", "409", "413", "415", "422", "429", "503", "504"} <= set(posted["responses"])
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(name).status_code == 200, name
    text = page.text + client.get("/docs/docs.js").text + client.get("/docs/docs.css").text
    assert "://" not in text
    # In the description there are only an example of somebody else's address, and what those begin with.
    assert set(re.findall(r"\w+://[\w.]*", json.dumps(described))) <= {"https://shop.example", "https://", "http://"}
    assert all(name.startswith("#/") for name in re.findall(r'"\$ref": "([^"]*)"', json.dumps(described)))
    problem(client.get("/docs/secret"), "NOT_FOUND")
