"""Claim: a transfer over HTTP is done once, whoever asks how often, and every refusal says what it is."""

import asyncio
import json
import uuid
from collections.abc import Iterator

import httpx
import pytest

from .conftest import WORLD, Bank, problem

PATH = "/v1/wallet/balance_transfer"


def test_a_transfer_answers_with_balances(bank: Bank) -> None:
    ann, bob = bank.account("ann", "100.00"), bank.account("bob")
    transaction_id = str(uuid.uuid4())
    answer = bank.transfer(ann, bob, "12.50", transaction_id=transaction_id)
    assert answer.status_code == 200
    told = answer.json()
    assert int(told.pop("position")) > 0
    assert told.pop("time").endswith("Z")
    assert told == {
        "status": "success",
        "transaction_id": transaction_id,
        "repeated": False,
        "amount": "12.50",
        "currency": "EUR",
        "from_balance": "87.50",
        "from_held": "0.00",
        "to_balance": "12.50",
        "to_held": "0.00",
    }


def test_the_same_again_is_the_same_answer_and_moves_nothing(bank: Bank) -> None:
    ann, bob = bank.account("ann", "100.00"), bank.account("bob")
    first = bank.transfer(ann, bob, "1.00", transaction_id="rent of May").json()
    assert bank.transfer(ann, bob, "2.00").json()["from_balance"] == "97.00"
    again = bank.transfer(ann, bob, "1.00", transaction_id="rent of May").json()
    assert again == first | {"repeated": True}
    assert bank.transfer(ann, bob, "2.00").json()["from_balance"] == "95.00"


@pytest.mark.parametrize(("field", "value"), [("amount", "1.01"), ("to_account", WORLD), ("code", 7)])
def test_other_content_under_the_same_id_is_a_conflict_that_names_the_field(
    bank: Bank, field: str, value: str | int
) -> None:
    ann, bob = bank.account("ann", "100.00"), bank.account("bob")
    assert bank.transfer(ann, bob, "1.00", transaction_id="once").status_code == 200
    told = problem(bank.transfer(ann, bob, "1.00", transaction_id="once", **{field: value}), "ID_CONFLICT")
    assert (told["status"], told["field"], told["retryable"]) == (409, field, False)


def test_a_refusal_is_for_ever_and_says_that_it_is_a_repeat(bank: Bank) -> None:
    ann, bob = bank.account("ann", "1.00"), bank.account("bob")
    first = problem(bank.transfer(ann, bob, "5.00", transaction_id="too much"), "INSUFFICIENT_FUNDS")
    assert (first["status"], first["result_code"], first["retryable"]) == (422, 309, False)
    assert bank.transfer(WORLD, ann, "10.00").status_code == 200
    again = problem(bank.transfer(ann, bob, "5.00", transaction_id="too much"), "INSUFFICIENT_FUNDS")
    assert again == first | {"repeated": True}


def test_an_idempotency_key_is_a_transaction_id(bank: Bank) -> None:
    ann = bank.account("ann")
    body = {"from_account": WORLD, "to_account": ann, "amount": "3.00", "currency": "EUR"}
    key = f"{ann} key"
    quoted = bank.client.post(PATH, json=body, headers={"Idempotency-Key": f'"{key}"'})
    assert (quoted.status_code, quoted.json()["transaction_id"]) == (200, key)
    for given in ({"transaction_id": key}, {"transaction_id": key, "key": key}, {"key": key}):
        headers = {"Idempotency-Key": given.pop("key")} if "key" in given else {}
        assert bank.client.post(PATH, json=body | given, headers=headers).json()["repeated"]
    differing = bank.client.post(PATH, json=body | {"transaction_id": "one"}, headers={"Idempotency-Key": "two"})
    assert problem(differing, "REQUEST_INVALID")["status"] == 400
    assert problem(bank.client.post(PATH, json=body), "REQUEST_INVALID")["status"] == 400


def test_a_uuid_is_the_same_id_in_all_its_forms(bank: Bank) -> None:
    ann = bank.account("ann")
    identifier = uuid.uuid4()
    assert not bank.transfer(WORLD, ann, "1.00", transaction_id=str(identifier)).json()["repeated"]
    for text in (str(identifier).upper(), identifier.hex):
        assert bank.transfer(WORLD, ann, "1.00", transaction_id=text).json()["repeated"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"amount": "1.001"}, "REQUEST_INVALID"),
        ({"amount": "-1.00"}, "REQUEST_INVALID"),
        ({"amount": "1e3"}, "REQUEST_INVALID"),
        ({"amount": "1.00\n"}, "REQUEST_INVALID"),
        ({"amount": 1}, "REQUEST_INVALID"),
        ({"amount": "99999999999999999999"}, "REQUEST_INVALID"),
        ({"amount": "0.00"}, "AMOUNT_NOT_POSITIVE"),
        ({"to_account": WORLD}, "ACCOUNTS_EQUAL"),
        ({"to_account": "nobody"}, "CREDIT_ACCOUNT_UNKNOWN"),
        ({"from_account": "nobody"}, "DEBIT_ACCOUNT_UNKNOWN"),
        ({"from_account": "two words"}, "REQUEST_INVALID"),
        ({"from_account": "n" * 49}, "REQUEST_INVALID"),
        ({"currency": "eur"}, "REQUEST_INVALID"),
        ({"currency": "NOCOIN"}, "CURRENCY_NOT_REGISTERED"),
        ({"currency": "USD"}, "DEBIT_ACCOUNT_UNKNOWN"),
        ({"transaction_id": ""}, "REQUEST_INVALID"),
        ({"transaction_id": "x" * 256}, "REQUEST_INVALID"),
        ({"transaction_id": "0" * 32}, "ID_INVALID"),
        ({"transaction_id": None}, "REQUEST_INVALID"),
        ({"comment": "an unknown member"}, "REQUEST_INVALID"),
        ({"code": 2**31}, "REQUEST_INVALID"),
    ],
)
def test_what_is_not_done_says_why(bank: Bank, changed: dict[str, object], code: str) -> None:
    ann = bank.account("ann")
    base: dict[str, object] = {"transaction_id": bank.text(), "from_account": WORLD, "to_account": ann}
    body = base | {"amount": "1.00", "currency": "EUR"} | changed
    problem(bank.client.post(PATH, json=body), code)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{" * 5000, b'{"amount": 1}'])
def test_a_body_that_is_none_is_told_the_same_by_both_ways_in(bank: Bank, body: bytes) -> None:
    headers = {"content-type": "application/json"}

    def in_parts() -> Iterator[bytes]:
        yield body[:1]
        yield body[1:]

    whole = bank.client.post(PATH, content=body, headers=headers)
    parted = bank.client.post(PATH, content=in_parts(), headers=headers)
    assert problem(whole, "REQUEST_INVALID")["status"] == 400
    assert problem(parted, "REQUEST_INVALID")["status"] == 400


def test_a_body_in_parts_gets_the_same_answer(bank: Bank) -> None:
    ann = bank.account("ann")
    body = {
        "transaction_id": bank.text(),
        "from_account": WORLD,
        "to_account": ann,
        "amount": "1.00",
        "currency": "EUR",
    }
    encoded = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    first = bank.client.post(PATH, content=encoded, headers=headers)
    again = bank.client.post(PATH, content=iter([encoded[:10], encoded[10:]]), headers=headers)
    assert first.headers["content-type"] == again.headers["content-type"]
    assert again.json() == first.json() | {"repeated": True}
    body["amount"] = "2.00"
    encoded = json.dumps(body).encode()
    whole = bank.client.post(PATH, content=encoded, headers=headers)
    parted = bank.client.post(PATH, content=iter([encoded[:10], encoded[10:]]), headers=headers)
    assert problem(whole, "ID_CONFLICT") == problem(parted, "ID_CONFLICT")


async def test_hundreds_at_once_are_all_done_once(bank: Bank, asynchronous: httpx.AsyncClient) -> None:
    ann, bob = bank.account("ann", "100.00"), bank.account("bob")
    texts = [bank.text() for _ in range(80)]
    body = {"from_account": ann, "to_account": bob, "amount": "0.10", "currency": "EUR"}
    waiting = texts * 4

    async def ask() -> list[httpx.Response]:
        answered = []
        while waiting:
            answered.append(await asynchronous.post(PATH, json=body | {"transaction_id": waiting.pop()}))
        return answered

    answers = [answer for part in await asyncio.gather(*(ask() for _ in range(32))) for answer in part]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(not answer.json()["repeated"] for answer in answers) == 80
    assert len({answer.json()["position"] for answer in answers}) == 80
    assert bank.transfer(ann, bob, "0.10").json()["from_balance"] == "91.90"


@pytest.mark.parametrize("asked", ["soon", "-1", "0.01", "nan", ""])
def test_a_deadline_is_a_number_of_seconds(bank: Bank, asked: str) -> None:
    ann = bank.account("ann")
    body = {
        "transaction_id": bank.text(),
        "from_account": WORLD,
        "to_account": ann,
        "amount": "1.00",
        "currency": "EUR",
    }
    refused = bank.client.post(PATH, json=body, headers={"Request-Timeout": asked})
    assert problem(refused, "REQUEST_INVALID")["status"] == 400
    done = bank.client.post(PATH, json=body, headers={"Request-Timeout": "3.7"})
    assert (done.status_code, done.json()["repeated"]) == (200, False)
