"""Claim: what became of a transaction is told leg by leg, whichever shards it was in, by ids alone; and to a token that
is limited to accounts only what is about them."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bezant.net.client.tracing import Phase, SideState

from .conftest import WORLD, Bank, GatewayProcess, problem
from .guarded import create_token
from .sharded import Sharded, names_in_shards, open_world

SETTLED_S = 30
NOT_YET = (401, 503, 504)
MODES = ("tcc", "saga")


class Ledger:
    """A gateway before two shards that ask for tokens, as the administrator and as others see it."""

    def __init__(self, sharded: Sharded, gateway: GatewayProcess, bank: Bank) -> None:
        self.sharded = sharded
        self.gateway = gateway
        self.bank = bank

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(base_url=self.gateway.url, timeout=30, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp("transactions")
    with Sharded(folder, guarded=True) as up:
        token = create_token(up.addresses, up.file, folder / "gateway", "--scopes", "read")
        assert token
        with (
            GatewayProcess(up.addresses, folder / "log", ["--token-file", str(folder / "gateway")]) as gateway,
            httpx.Client(base_url=gateway.url, timeout=30, headers={"Authorization": f"Bearer {up.token}"}) as client,
        ):
            bank = Bank(client, "legs")
            open_world(bank)
            yield Ledger(up, gateway, bank)
            assert gateway.log() == ""


def asked(client: httpx.Client, transaction_id: str, **query: str) -> httpx.Response:
    """The answer, once there is one: a reader may be behind on a machine that is busy, or not know a new token yet."""
    end_s = time.monotonic() + SETTLED_S
    while True:
        answer = client.get(f"/v1/transactions/{transaction_id}", params=query)
        if answer.status_code not in NOT_YET:
            return answer
        assert time.monotonic() < end_s, answer.text


def told(bank: Bank, transaction_id: str, **query: str) -> dict[str, Any]:
    """What became of a transaction, once that is settled."""
    end_s = time.monotonic() + SETTLED_S
    while True:
        answer = asked(bank.client, transaction_id, **query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        if body["ended"] is not None:
            return body
        assert time.monotonic() < end_s, body


def sides(body: dict[str, Any]) -> list[tuple[str, int | None, str]]:
    """Of each leg both accounts: their names, shards, and how far they are."""
    return [
        (side["account"], side["shard"], side["status"])
        for leg in body["legs"]
        for side in (leg["debit"], leg["credit"])
        if side is not None
    ]


def kinds(side: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in side["events"]]


def funded(bank: Bank, name: str, amount: str = "10.00") -> None:
    end_s = time.monotonic() + SETTLED_S
    assert bank.transfer(WORLD, name, amount).status_code == 200
    while bank.client.get(f"/v1/accounts/{name}", params={"currency": "EUR"}).json()["balance"] != amount:
        assert time.monotonic() < end_s


def leg(payer: str, payee: str, amount: str) -> dict[str, str]:
    return {"from_account": payer, "to_account": payee, "amount": amount, "currency": "EUR"}


def test_a_transfer_between_shards_has_two_sides(ledger: Ledger) -> None:
    bank = ledger.bank
    ann, bob = names_in_shards(bank, "transfer")
    funded(bank, ann)
    # Of the same amount at the same time: what is told is told by ids.
    texts = [bank.text() for _ in range(3)]
    for text in texts:
        assert bank.transfer(ann, bob, "2.00", transaction_id=text).status_code == 200
    seen = set()
    for text in texts:
        body = told(bank, text)
        assert (body["kind"], body["phase"], body["result"], body["refused_leg"]) == (
            "tcc",
            "confirmed",
            "COMMITTED",
            None,
        )
        assert body["shards"] == [0, 1]
        assert sides(body) == [(ann, 0, "done"), (bob, 1, "done")]
        (only,) = body["legs"]
        assert (only["from_account"], only["to_account"], only["amount"], only["currency"], only["phase"]) == (
            *(ann, bob, "2.00", "EUR"),
            "confirmed",
        )
        assert kinds(only["debit"]) == ["try_debit", "confirm"]
        assert kinds(only["credit"]) == ["try_credit", "confirm"]
        assert body["begun"] == only["debit"]["events"][0]["time"]
        assert body["ended"] == only["credit"]["time"] == only["credit"]["events"][-1]["time"]
        seen |= {event["position"] for side in ("debit", "credit") for event in only[side]["events"]}
    assert len(seen) == 12


@pytest.mark.parametrize("mode", MODES)
def test_legs_of_a_transaction(ledger: Ledger, mode: str) -> None:
    bank = ledger.bank
    ann, bob = names_in_shards(bank, f"{mode}:done")
    funded(bank, ann)
    text = bank.text()
    legs = [leg(ann, bob, "3.00"), leg(ann, WORLD, "1.00"), leg(WORLD, bob, "0.25")]
    done = bank.post("/v1/transactions", legs=legs, mode=mode, answer_when="applied", transaction_id=text)
    assert done.status_code == 200, done.text
    body = told(bank, text)
    assert (body["kind"], body["phase"], body["result"]) == (mode, "confirmed", "COMMITTED")
    assert [(one["number"], one["from_account"], one["to_account"], one["amount"]) for one in body["legs"]] == [
        (number, one["from_account"], one["to_account"], one["amount"]) for number, one in enumerate(legs)
    ]
    assert {status for _, _, status in sides(body)} == {"done"}
    assert {one["phase"] for one in body["legs"]} == {"confirmed"}
    assert {account: shard for account, shard, _ in sides(body)} | {WORLD: 0} == {ann: 0, bob: 1, WORLD: 0}
    assert kinds(body["legs"][1]["debit"]) == ["try_part", "confirm"]


@pytest.mark.parametrize("mode", MODES)
def test_a_leg_that_is_refused(ledger: Ledger, mode: str) -> None:
    bank = ledger.bank
    ann, bob = names_in_shards(bank, f"{mode}:refused")
    funded(bank, ann)
    text = bank.text()
    nobody = bank.name(f"{mode}:nobody")
    legs = [leg(ann, bob, "3.00"), leg(ann, bob, "2.00"), leg(ann, nobody, "1.00")]
    done = bank.post("/v1/transactions", legs=legs, mode=mode, answer_when="applied", transaction_id=text)
    refused = problem(done, "CREDIT_ACCOUNT_UNKNOWN")
    assert refused["leg"] == 2
    body = told(bank, text)
    assert (body["kind"], body["phase"], body["result"], body["refused_leg"]) == (
        *(mode, "cancelled", "CREDIT_ACCOUNT_UNKNOWN"),
        2,
    )
    assert [one["phase"] for one in body["legs"]] == ["cancelled", "cancelled", "refused"]
    assert body["legs"][0]["debit"]["status"] == "cancelled"
    assert body["legs"][2]["credit"]["status"] == "refused"
    if mode == "saga":
        given_back = body["legs"][0]["credit"]
        assert given_back["status"] == "given_back"
        assert kinds(given_back) == ["try_credit", "confirm", "try_part", "confirm"]
        assert kinds(body["legs"][1]["debit"]) == ["try_part", "confirm", "try_credit", "confirm"]
    assert bank.client.get(f"/v1/accounts/{bob}", params={"currency": "EUR"}).json()["balance"] == "0.00"


def test_what_is_refused_at_once_was_never_tried_elsewhere(ledger: Ledger) -> None:
    bank = ledger.bank
    ann, bob = names_in_shards(bank, "poor")
    text = bank.text()
    problem(bank.transfer(ann, bob, "2.00", transaction_id=text), "INSUFFICIENT_FUNDS")
    body = told(bank, text)
    assert (body["phase"], body["result"], body["refused_leg"]) == ("refused", "INSUFFICIENT_FUNDS", 0)
    assert [status for _, _, status in sides(body)] == ["refused", "waiting"]


def test_a_token_that_is_limited_sees_what_is_its_own(ledger: Ledger) -> None:
    bank = ledger.bank
    ann, bob = names_in_shards(bank, "limited")
    eve, _ = names_in_shards(bank, "near")  # in the shard of ann, whose history knows her name
    funded(bank, ann)
    several, single, near = bank.text(), bank.text(), bank.text()
    legs = [leg(ann, bob, "3.00"), leg(WORLD, bob, "1.00"), leg(WORLD, ann, "0.50")]
    done = bank.post("/v1/transactions", legs=legs, answer_when="applied", transaction_id=several)
    assert done.status_code == 200, done.text
    assert bank.transfer(ann, bob, "1.00", transaction_id=single).status_code == 200
    assert bank.transfer(ann, eve, "0.25", transaction_id=near).status_code == 200
    for text in (several, single, near):
        told(bank, text)
    seen = {}
    for name in (ann, bob, eve):
        token = create_token(
            *(ledger.sharded.addresses, ledger.sharded.file, ledger.sharded.file.parent / name),
            *("--scopes", "read", "--prefix", name),
        )
        with ledger.client(token) as client:
            seen[name] = [asked(client, text) for text in (several, single, near)]
            problem(client.get("/v1/transfers"), "FORBIDDEN")
            problem(client.get(f"/v1/accounts/{name}/statement", params={"currency": "EUR"}), "FORBIDDEN")
            problem(client.get(f"/v1/transactions/{bank.text()}"), "NOT_FOUND")
            if name == bob:
                named = [asked(client, text, to_account=bob, currency="EUR") for text in (several, single, near)]
                # To name others' account tells nothing of it.
                problem(asked(client, near, to_account=eve, currency="EUR"), "FORBIDDEN")
                problem(client.get(f"/v1/transactions/{single}", params={"to_account": bob}), "REQUEST_INVALID")
    # Nobody in the shard of who pays knows bob if he is not named, and eve has nothing to do with the others.
    for answer in (*seen[bob], *seen[eve][:2], named[2]):
        problem(answer, "NOT_FOUND")
    for name, answer in [(ann, answer) for answer in seen[ann]] + [
        (eve, seen[eve][2]),
        *((bob, one) for one in named[:2]),
    ]:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["phase"], body["result"]) == ("confirmed", "COMMITTED")
        assert {account for account, _, _ in sides(body)} == {name}
        assert not [other for other in (ann, bob, eve, WORLD) if other != name and other in answer.text]
        for one in body["legs"]:
            for event in [event for side in (one["debit"], one["credit"]) if side for event in side["events"]]:
                ours, hidden = ("from", "to") if event["from_account"] == name else ("to", "from")
                assert event[f"{ours}_balance"] is not None
                assert event[f"{hidden}_account"] is event[f"{hidden}_balance"] is event[f"{hidden}_held"] is None
    assert [one["number"] for one in named[0].json()["legs"]] == [0, 1]
    assert [kinds(one["credit"]) for one in named[0].json()["legs"]] == [["try_credit", "confirm"]] * 2
    assert [one["number"] for one in seen[ann][0].json()["legs"]] == [0, 2]
    assert [one["credit"] is None for one in seen[ann][0].json()["legs"]] == [True, False]


def test_within_one_shard(bank: Bank) -> None:
    ann, bob = bank.account("ann"), bank.account("bob")
    text, several, refused = bank.text(), bank.text(), bank.text()
    position = bank.transfer(WORLD, ann, "5.00", transaction_id=text).json()["position"]
    body = told(bank, text, wait_for=position)
    assert (body["kind"], body["phase"], body["shards"]) == ("direct", "confirmed", [0])
    assert sides(body) == [(WORLD, 0, "done"), (ann, 0, "done")]
    assert body["legs"][0]["debit"]["events"] == body["legs"][0]["credit"]["events"]
    legs = [leg(ann, bob, "1.00"), leg(ann, bob, "2.00"), leg(bob, ann, "0.50")]
    assert bank.post("/v1/transactions", legs=legs, transaction_id=several).status_code == 200
    body = told(bank, several)
    assert [(one["amount"], one["phase"]) for one in body["legs"]] == [
        *(("1.00", "confirmed"), ("2.00", "confirmed")),
        ("0.50", "confirmed"),
    ]
    legs[1] = leg(ann, bob, "90.00")
    problem(bank.post("/v1/transactions", legs=legs, transaction_id=refused), "INSUFFICIENT_FUNDS")
    body = told(bank, refused)
    assert (body["phase"], body["result"], body["refused_leg"]) == ("refused", "INSUFFICIENT_FUNDS", 1)
    assert [one["phase"] for one in body["legs"]] == ["cancelled", "refused", "cancelled"]


def test_an_id_that_several_accounts_have_used(bank: Bank) -> None:
    ann, bob = bank.account("ann", "1.00"), bank.account("bob", "1.00")
    text = bank.text()
    for payer in (ann, bob):
        assert bank.transfer(payer, WORLD, "0.50", transaction_id=text).status_code == 200
    path = f"/v1/transactions/{text}"
    refused = problem(bank.client.get(path), "REQUEST_INVALID")
    assert "2 accounts" in refused["detail"]
    assert told(bank, text, from_account=bob, currency="EUR")["legs"][0]["from_account"] == bob
    problem(bank.client.get(path, params={"from_account": bob}), "REQUEST_INVALID")
    problem(bank.client.get(path, params={"from_account": WORLD, "currency": "EUR"}), "NOT_FOUND")


def test_what_is_no_transaction(bank: Bank) -> None:
    opened = bank.post("/v1/accounts", name=bank.name("fresh"), currency="EUR", transaction_id="opens one")
    assert opened.status_code == 200
    problem(bank.client.get("/v1/transactions/opens%20one"), "NOT_FOUND")
    problem(bank.client.get("/v1/transactions/nobody-used-this"), "NOT_FOUND")


def test_what_is_described_is_what_there_is(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    operation = described["paths"]["/v1/transactions/{transaction_id}"]["get"]
    assert operation["operationId"] == "get_transaction"
    schemas = described["components"]["schemas"]
    assert set(schemas["Phase"]["enum"]) == {one.value for one in Phase}
    assert set(schemas["SideState"]["enum"]) == {one.value for one in SideState}
    assert schemas["TransactionBody"]["properties"]["phase"]["examples"] == ["confirmed"]
