"""Claim: what happened can be read a page at a time, as of one moment, and proven."""

import asyncio
from typing import Any

import pytest

import bezant
from bezant.cli.node_process import NodeProcess
from bezant.net.gateway.history import EVENTS_OF_ID_MAX
from bezant.net.gateway.identity import id_of_text
from bezant.protocol.codes import ResultCode
from bezant.protocol.names import account_id, slot_of

from .conftest import WORLD, Bank, problem


def pages(bank: Bank, path: str, **query: Any) -> list[dict[str, Any]]:
    """All pages of an answer."""
    found = [bank.client.get(path, params=query).json()]
    while found[-1]["next"] is not None:
        answer = bank.client.get(path, params=query | {"cursor": found[-1]["next"]})
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_a_statement_has_pages_as_of_one_moment(bank: Bank, reverse: bool) -> None:
    ann = bank.account("ann")
    made = [bank.transfer(WORLD, ann, "1.00").json() for _ in range(7)]
    path = f"/v1/accounts/{ann}/statement"
    query = {"currency": "EUR", "limit": 3, "reverse": reverse, "wait_for": made[-1]["position"]}
    first = bank.client.get(path, params=query).json()
    assert bank.transfer(WORLD, ann, "1.00").status_code == 200
    found = [first]
    while found[-1]["next"] is not None:
        found.append(bank.client.get(path, params=query | {"cursor": found[-1]["next"]}).json())
    assert [len(page["events"]) for page in found] == [3, 3, 2]
    assert len({str(page["as_of"]) for page in found}) == 1
    lines = [line for page in found for line in page["events"]]
    if reverse:
        lines.reverse()
    assert [line["kind"] for line in lines] == ["open"] + ["transfer"] * 7
    assert [line["position"] for line in lines[1:]] == [step["position"] for step in made]
    assert [line["to_balance"] for line in lines[1:]] == [f"{number}.00" for number in range(1, 8)]
    assert {line["from_account"] for line in lines[1:]} == {WORLD}
    assert {line["to_account"] for line in lines[1:]} == {ann}


def test_a_statement_within_a_range(bank: Bank) -> None:
    ann = bank.account("ann")
    made = [bank.transfer(WORLD, ann, "1.00").json() for _ in range(5)]
    path = f"/v1/accounts/{ann}/statement"
    query = {"from": made[1]["time"], "to": made[4]["time"], "limit": 2, "wait_for": made[-1]["position"]}
    found = pages(bank, path, currency="EUR", **query)
    assert [line["position"] for page in found for line in page["events"]] == [step["position"] for step in made[1:4]]


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "k8DAwA", "%ff" * 60, "é"])
def test_a_cursor_that_is_none_is_refused(bank: Bank, cursor: str) -> None:
    ann = bank.account("ann")
    answer = bank.client.get(f"/v1/accounts/{ann}/statement", params={"currency": "EUR", "cursor": cursor})
    problem(answer, "REQUEST_INVALID")


def test_transfers_are_found(bank: Bank) -> None:
    ann = bank.account("ann")
    made = [bank.transfer(WORLD, ann, "1.00", code=number).json() for number in (5, 6, 5)]
    refused = problem(bank.transfer(ann, WORLD, "9.00", code=5), "INSUFFICIENT_FUNDS")
    query: dict[str, Any] = {"account": ann, "currency": "EUR", "code": 5, "wait_for": refused["position"], "limit": 1}
    found = pages(bank, "/v1/transfers", **query)
    assert [line["position"] for page in found for line in page["events"]] == [made[0]["position"], made[2]["position"]]
    found = pages(bank, "/v1/transfers", **query, refused=True, kind="transfer")
    assert [line["result"] for page in found for line in page["events"]] == ["COMMITTED"] * 2 + ["INSUFFICIENT_FUNDS"]
    problem(bank.client.get("/v1/transfers", params={"account": ann}), "REQUEST_INVALID")
    problem(bank.client.get("/v1/transfers", params={"kind": "theft"}), "REQUEST_INVALID")


def test_a_transfer_by_its_id_and_its_receipt(bank: Bank) -> None:
    ann = bank.account("ann")
    made = bank.transfer(WORLD, ann, "1.00", transaction_id="a/b c").json()
    found = bank.client.get("/v1/transfers/a%2Fb%20c", params={"wait_for": made["position"]}).json()
    assert [line["position"] for line in found["events"]] == [made["position"]]
    receipt = bank.client.get(f"/v1/events/{made['position']}/receipt")
    assert receipt.headers["content-type"] == "application/octet-stream"
    assert bezant.check_receipt(receipt.content).position == int(made["position"])
    problem(bank.client.get("/v1/transfers/nobody-used-this"), "NOT_FOUND")
    problem(bank.client.get("/v1/events/x/receipt"), "REQUEST_INVALID")


def test_the_events_of_an_id_have_pages_until_there_are_none(bank: Bank, node: NodeProcess) -> None:
    """Whoever pays may have used it: here more of them than a page has."""
    count = EVENTS_OF_ID_MAX + 50
    ids = [id_of_text(text) for text in ("of many", "of one")]
    # An id is used once in each slot, so they all pay from another one.
    names = (f"many:{number}" for number in range(2 * count))
    payers = list({slot_of(account_id(name, "EUR")): name for name in names}.values())[:count]
    assert len(payers) == count

    async def pay() -> int:
        async with bezant.connect(node.address) as wallet:
            await asyncio.gather(*(wallet.open_account(name, "EUR", limit=bezant.UNLIMITED) for name in payers))
            done = await asyncio.gather(*(wallet.transfer(name, WORLD, "1.00", "EUR", id=ids[0]) for name in payers))
            assert {result.code for result in done} == {ResultCode.COMMITTED}
            await wallet.transfer(payers[0], WORLD, "1.00", "EUR", id=ids[1])
            return max(result.position or 0 for result in done)

    wait_for = asyncio.run(pay())
    found = pages(bank, "/v1/transfers/of many", wait_for=wait_for)
    assert [len(page["events"]) for page in found] == [EVENTS_OF_ID_MAX, 50]
    told = [line["from_account"] for page in found for line in page["events"]]
    assert sorted(told) == sorted(payers)
    assert len({str(page["as_of"]) for page in found}) == 1
    (alone,) = pages(bank, "/v1/transfers/of one", wait_for=wait_for)
    assert [line["from_account"] for line in alone["events"]] == payers[:1]
    problem(bank.client.get("/v1/transfers/of one", params={"cursor": "AAAA"}), "REQUEST_INVALID")


def test_totals_add_up(bank: Bank) -> None:
    ann = bank.account("ann", "3.00")
    position = bank.client.get(f"/v1/accounts/{ann}", params={"currency": "EUR"}).json()["last_position"]
    (euros,) = (
        sums
        for sums in bank.client.get("/v1/totals", params={"wait_for": position}).json()["currencies"]
        if sums["currency"] == "EUR"
    )
    assert float(euros["positive"]) + float(euros["negative"]) + float(euros["in_flight"]) == 0
    assert float(euros["positive"]) >= 3


def test_an_outcome_is_settled(bank: Bank) -> None:
    ann = bank.account("ann", "3.00")
    body = {"from_account": ann, "currency": "EUR"}
    made = bank.transfer(ann, WORLD, "1.00", transaction_id="done").json()
    told = bank.client.post("/v1/transfers/done/resolve", json=body).json()
    assert told == {"transaction_id": "done", "executed": True, "result": "COMMITTED", "position": made["position"]}
    told = bank.client.post("/v1/transfers/never/resolve", json=body).json()
    assert (told["executed"], told["result"]) == (False, "ID_FORBIDDEN")
    problem(bank.transfer(ann, WORLD, "1.00", transaction_id="never"), "ID_FORBIDDEN")
