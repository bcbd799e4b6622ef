"""Claim: accounts can be opened, read as they are and as they were, listed and changed; so can holds."""

import time
from urllib.parse import quote

import httpx
import pytest

from .conftest import WORLD, Bank, problem


def held(bank: Bank, name: str, **query: str) -> tuple[str, str]:
    told = bank.client.get(f"/v1/accounts/{name}", params={"currency": "EUR"} | query)
    assert told.status_code == 200, told.text
    return told.json()["balance"], told.json()["held"]


def test_an_account_is_opened_and_read(bank: Bank) -> None:
    name = bank.name("ann")
    opened = bank.post("/v1/accounts", name=name, currency="EUR", limit="5.00", transaction_id="open ann")
    assert opened.status_code == 200
    assert opened.json()["balance"] == "0.00"
    told = bank.client.get(f"/v1/accounts/{name}", params={"currency": "EUR"}).json()
    assert told["limit"] == "5.00"
    assert (told["frozen"], told["closed"], told["as_of"]) == (False, False, None)
    assert bank.post("/v1/accounts", name=name, currency="EUR", limit="5.00", transaction_id="open ann").json()[
        "repeated"
    ]
    problem(bank.post("/v1/accounts", name=name, currency="EUR"), "ACCOUNT_EXISTS")
    problem(bank.client.get(f"/v1/accounts/{name}", params={"currency": "USD"}), "NOT_FOUND")
    problem(bank.client.get(f"/v1/accounts/{name}"), "REQUEST_INVALID")


@pytest.mark.parametrize("suffix", ["a/b", "//", "%2F", "?x=1&y", "#", "{tag}:x", "a+b", '"', "a/../b"])
def test_every_name_fits_in_a_path(bank: Bank, suffix: str) -> None:
    name = bank.account(suffix, "1.00")
    path = f"/v1/accounts/{quote(name, safe='')}"
    assert bank.client.get(path, params={"currency": "EUR"}).json()["name"] == name
    lines = bank.client.get(
        f"{path}/statement", params={"currency": "EUR", "wait_for": last_position(bank, name)}
    ).json()
    assert [line["kind"] for line in lines["events"]] == ["open", "transfer"]


def last_position(bank: Bank, name: str) -> str:
    path = f"/v1/accounts/{quote(name, safe='')}"
    return str(bank.client.get(path, params={"currency": "EUR"}).json()["last_position"])


def test_an_account_as_it_was(bank: Bank) -> None:
    ann = bank.account("ann")
    steps = [bank.transfer(WORLD, ann, "1.00").json() for _ in range(3)]
    for number, step in enumerate(steps, start=1):
        expected = (f"{number}.00", "0.00")
        assert held(bank, ann, position=step["position"], wait_for=steps[-1]["position"]) == expected
        assert held(bank, ann, at=step["time"], wait_for=steps[-1]["position"]) == expected
    before = bank.client.get(f"/v1/accounts/{ann}", params={"currency": "EUR", "at": "2001-01-01T00:00:00Z"})
    problem(before, "NOT_FOUND")


@pytest.mark.parametrize(
    "query",
    [
        {"at": "yesterday"},
        {"at": "2026-05-01T12:00:00"},
        {"at": "2026-13-01T12:00:00Z"},
        {"at": "9999-12-31T23:59:59Z"},
        {"position": "x"},
        {"position": str(2**64)},
        {"position": "1", "at": "2026-05-01T12:00:00Z"},
        {"currency": "eur"},
    ],
)
def test_a_moment_that_is_none_is_refused(bank: Bank, query: dict[str, str]) -> None:
    ann = bank.account("ann")
    problem(bank.client.get(f"/v1/accounts/{ann}", params={"currency": "EUR"} | query), "REQUEST_INVALID")


def test_all_accounts_are_listed_a_page_at_a_time(bank: Bank) -> None:
    ann = bank.account("ann")
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = bank.client.get("/v1/accounts", params={"cursor": cursor} if cursor else {}).json()
        names += [account["name"] for account in page["accounts"]]
        cursor = page["next"]
    assert {ann, WORLD} <= set(names)
    assert len(names) == len(set(names))
    problem(bank.client.get("/v1/accounts", params={"cursor": "nonsense"}), "REQUEST_INVALID")


def test_an_account_is_frozen_and_closed(bank: Bank) -> None:
    ann = bank.account("ann", "1.00")
    assert bank.post(f"/v1/accounts/{ann}/freeze", currency="EUR").status_code == 200
    problem(bank.transfer(ann, WORLD, "1.00"), "DEBIT_ACCOUNT_FROZEN")
    assert bank.post(f"/v1/accounts/{ann}/unfreeze", currency="EUR").status_code == 200
    problem(bank.post(f"/v1/accounts/{ann}/close", currency="EUR"), "ACCOUNT_NOT_EMPTY")
    assert bank.post(f"/v1/accounts/{ann}/limit", currency="EUR", limit="1.00").status_code == 200
    assert bank.transfer(ann, WORLD, "2.00").json()["from_balance"] == "-1.00"
    assert bank.transfer(WORLD, ann, "1.00").status_code == 200
    assert bank.post(f"/v1/accounts/{ann}/close", currency="EUR").status_code == 200
    assert bank.client.get(f"/v1/accounts/{ann}", params={"currency": "EUR"}).json()["closed"]


def test_a_hold_is_captured_in_parts_and_released(bank: Bank) -> None:
    ann, shop = bank.account("ann", "100.00"), bank.account("shop")
    pair = {"from_account": ann, "to_account": shop, "currency": "EUR"}
    made = bank.post("/v1/holds", **pair, amount="30.00", transaction_id="hotel")
    assert (made.status_code, made.json()["from_held"]) == (200, "30.00")
    listed = bank.client.get(
        f"/v1/accounts/{ann}/holds", params={"currency": "EUR", "wait_for": made.json()["position"]}
    ).json()
    assert ([hold["remaining"] for hold in listed["holds"]], listed["complete"]) == (["30.00"], True)
    captured = bank.post("/v1/holds/hotel/capture", **pair, amount="10.00", keep_open=True).json()
    assert (captured["from_held"], captured["to_balance"]) == ("20.00", "10.00")
    problem(bank.post("/v1/holds/hotel/capture", **pair, amount="20.01"), "CAPTURE_EXCEEDS_HOLD")
    released = bank.post("/v1/holds/hotel/release", from_account=ann, currency="EUR").json()
    assert (released["from_held"], released["to_balance"]) == ("0.00", None)
    problem(bank.post("/v1/holds/hotel/release", from_account=ann, currency="EUR"), "HOLD_RELEASED")
    problem(bank.post("/v1/holds/other/capture", **pair), "HOLD_UNKNOWN")
    assert held(bank, ann) == ("90.00", "0.00")


def test_more_holds_than_a_page_has(bank: Bank) -> None:
    ann, shop = bank.account("ann", "100.00"), bank.account("shop")
    pair = {"from_account": ann, "to_account": shop, "currency": "EUR"}
    texts = [bank.text() for _ in range(5)]
    made = [bank.post("/v1/holds", **pair, amount="1.00", transaction_id=text).json() for text in texts]
    path = f"/v1/accounts/{ann}/holds"
    query = {"currency": "EUR", "limit": 2, "wait_for": made[-1]["position"]}
    page = bank.client.get(path, params=query).json()
    # What happens between pages is on none of them.
    assert bank.post(f"/v1/holds/{texts[-1]}/release", from_account=ann, currency="EUR").status_code == 200
    later = bank.post("/v1/holds", **pair, amount="9.00").json()
    told, sizes = [hold["made_by"]["position"] for hold in page["holds"]], [len(page["holds"])]
    while page["next"]:
        assert not page["complete"]
        as_of = page["as_of"]
        query |= {"cursor": page["next"], "wait_for": later["position"]}
        page = bank.client.get(path, params=query).json()
        assert page["as_of"] == as_of
        told += [hold["made_by"]["position"] for hold in page["holds"]]
        sizes.append(len(page["holds"]))
    assert (told, sizes, page["complete"]) == ([hold["position"] for hold in made], [2, 2, 1], True)
    query = {"currency": "EUR", "wait_for": later["position"]}
    now = bank.client.get(path, params=query).json()
    assert ([hold["remaining"] for hold in now["holds"]], now["next"]) == ([*["1.00"] * 4, "9.00"], None)
    for cursor in ("nonsense", bank.client.get("/v1/accounts").json()["next"]):
        problem(bank.client.get(path, params={"currency": "EUR", "cursor": cursor}), "REQUEST_INVALID")


def test_a_hold_expires(bank: Bank) -> None:
    ann, shop = bank.account("ann", "100.00"), bank.account("shop")
    pair = {"from_account": ann, "to_account": shop, "currency": "EUR"}
    assert bank.post("/v1/holds", **pair, amount="30.00", expires_in_ms=50, transaction_id="soon").status_code == 200
    time.sleep(0.1)
    problem(bank.post("/v1/holds/soon/capture", **pair), "HOLD_EXPIRED")


def test_a_transaction_is_done_as_a_whole_or_not_at_all(bank: Bank) -> None:
    ann, bob, shop = bank.account("ann", "10.00"), bank.account("bob", "10.00"), bank.account("shop")

    def leg(debit: str, credit: str, amount: str) -> dict[str, str]:
        return {"from_account": debit, "to_account": credit, "amount": amount, "currency": "EUR"}

    done = bank.post("/v1/transactions", legs=[leg(ann, shop, "4.00"), leg(bob, shop, "5.00")], transaction_id="dinner")
    assert done.json() == {"status": "success", "transaction_id": "dinner", "repeated": False, "applied": True}
    again = bank.post(
        "/v1/transactions", legs=[leg(ann, shop, "4.00"), leg(bob, shop, "5.00")], transaction_id="dinner"
    )
    assert again.json()["repeated"]
    refused = bank.post("/v1/transactions", legs=[leg(ann, shop, "1.00"), leg(bob, shop, "5.01")], mode="saga")
    told = problem(refused, "INSUFFICIENT_FUNDS")
    assert told["leg"] == 1
    assert [held(bank, name)[0] for name in (ann, bob, shop)] == ["6.00", "5.00", "9.00"]
    for body in (
        {"legs": []},
        {"legs": [leg(ann, shop, "1.00")], "mode": "2pc"},
        {"legs": [leg(ann, shop, "1.00")] * 257},
    ):
        problem(bank.post("/v1/transactions", **body), "REQUEST_INVALID")


def test_currencies_are_listed_and_registered(client: httpx.Client) -> None:
    listed = client.get("/v1/currencies").json()["currencies"]
    assert {"code": "EUR", "decimals": 2} in listed
    for _ in range(2):
        registered = client.post("/v1/currencies", json={"code": "POINTS", "decimals": 0})
        assert {"code": "POINTS", "decimals": 0} in registered.json()["currencies"]
    problem(client.post("/v1/currencies", json={"code": "POINTS", "decimals": 1}), "NODE_DECLINED")


def test_it_is_there_and_ready(client: httpx.Client) -> None:
    assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}
