"""Claim: each page shows what the API says, and the page for a transfer does it once."""

import json
import re
import time
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from ..conftest import WORLD, Bank, GatewayProcess, await_balance
from ..sharded import names_in_shards

ANSWER_LOST = "connectionreset"
LATE_S = 60


def fill(page: Page, debit: str, credit: str, amount: str, leg: int = 1) -> None:
    page.fill(f"#from_account-{leg}", debit)
    page.fill(f"#to_account-{leg}", credit)
    page.fill(f"#amount-{leg}", amount)


def balance(bank: Bank, name: str) -> str:
    told: str = bank.client.get(f"/v1/accounts/{name}", params={"currency": "EUR"}).json()["balance"]
    return told


def test_the_overview_shows_nodes_and_rates(gateway: GatewayProcess, page: Page, bank: Bank) -> None:
    page.goto(f"{gateway.url}/console")
    expect(page.locator("#health")).to_have_text("All well: 1 shard, 1 node")
    expect(page.locator("#freshness")).to_contain_text("live")
    expect(page.locator("#shards .badge").first).to_have_text("healthy")
    expect(page.get_by_role("table", name="Nodes of shard 0")).to_contain_text("leader")
    ann = bank.account("ann")
    assert bank.transfer(WORLD, ann, "1.00").status_code == 200
    expect(page.locator("#throughput")).to_have_text(re.compile(r"[1-9]"))
    expect(page.locator("#latency-p99")).to_have_text(re.compile(r"[0-9] (µs|ms|s)$"))
    assert page.locator(".plot .line").get_attribute("d")


def test_a_transfer_by_keyboard_alone(gateway: GatewayProcess, page: Page, bank: Bank) -> None:
    ann, bob = bank.account("ann", "5.00"), bank.account("bob")
    page.goto(f"{gateway.url}/console")
    expect(page.locator("#freshness")).to_contain_text("live")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("4")
    expect(page.get_by_role("heading", name="Make a transfer")).to_be_visible()
    page.keyboard.press("/")
    for text in (ann, bob, "1.25"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#result h2")).to_have_text("Done")
    expect(page.locator("#next")).to_be_focused()
    expect(page.locator("#result tbody tr")).to_have_count(2)
    expect(page.locator("#result tbody")).to_contain_text("3.75 EUR")
    expect(page.locator("#announcement")).to_contain_text("Done")
    assert (balance(bank, ann), balance(bank, bob)) == ("3.75", "1.25")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_transfer_whose_answer_is_lost_is_done_once(gateway: GatewayProcess, page: Page, bank: Bank) -> None:
    ann, bob = bank.account("ann", "5.00"), bank.account("bob")
    asked: list[dict[str, str]] = []

    def lose_the_first(route: Route) -> None:
        asked.append(json.loads(route.request.post_data or ""))
        answer = route.fetch()
        if len(asked) == 1:
            route.abort(ANSWER_LOST)
        else:
            route.fulfill(response=answer)

    page.route("**/v1/wallet/balance_transfer", lose_the_first)
    page.goto(f"{gateway.url}/console#/transfer")
    fill(page, ann, bob, "2.00")
    page.get_by_role("button", name="Review").click()
    page.locator("#confirm").click()
    expect(page.locator("#result h2")).to_have_text("Not known yet")
    page.locator("#again").click()
    expect(page.locator("#result h2")).to_have_text("Done before")
    assert asked[0] == asked[1]
    assert (balance(bank, ann), balance(bank, bob)) == ("3.00", "2.00")
    page.locator("#next").click()
    fill(page, ann, bob, "9.00")
    page.get_by_role("button", name="Review").click()
    page.locator("#confirm").click()
    expect(page.locator("#result h2")).to_have_text("Insufficient funds")
    assert asked[2]["transaction_id"] != asked[0]["transaction_id"]


@pytest.mark.parametrize(
    ("amount", "told"),
    [("1.555", "EUR has 2 decimals"), ("0.00", "more than nothing"), ("1e3", "a number"), ("-1", "a number")],
)
def test_a_form_is_checked_before_it_is_sent(
    gateway: GatewayProcess, page: Page, bank: Bank, amount: str, told: str
) -> None:
    with page.expect_response("**/v1/currencies"):
        page.goto(f"{gateway.url}/console#/transfer")
    fill(page, "one", "two", amount)
    page.get_by_role("button", name="Review").click()
    expect(page.locator("#amount-1")).to_be_focused()
    expect(page.locator("#amount-1-wrong")).to_contain_text(told)
    expect(page.locator("#confirm")).to_have_count(0)


def test_amounts_beyond_what_numbers_hold_stay_exact(gateway: GatewayProcess, page: Page, bank: Bank) -> None:
    ann = bank.account("rich")
    amount = "90071992547409.93"  # in cents, 2**53 + 1
    page.goto(f"{gateway.url}/console#/transfer")
    fill(page, WORLD, ann, amount)
    page.get_by_role("button", name="Review").click()
    page.locator("#confirm").click()
    expect(page.locator("#result tbody tr").nth(1)).to_contain_text("90\u202f071\u202f992\u202f547\u202f409.93 EUR")
    page.goto(f"{gateway.url}/console#/account/{ann}/EUR")
    expect(page.locator("#available")).to_have_text("90\u202f071\u202f992\u202f547\u202f409.93")
    assert bank.transfer(ann, WORLD, amount).status_code == 200
    expect(page.locator("#available")).to_have_text("0.00")


def test_a_transfer_across_shards_step_by_step(shards: tuple[GatewayProcess, Bank], page: Page) -> None:
    process, bank = shards
    seen: dict[int, str] = {}
    number = 0
    while len(seen) < 2:  # an account in each shard
        number += 1
        name = f"wallet:{number}"
        opened = bank.post("/v1/accounts", name=name, currency="EUR").json()
        seen.setdefault(int(opened["position"]) >> 52, name)
    for name in seen.values():
        assert bank.transfer(WORLD, name, "10.00").status_code == 200
        while balance(bank, name) != "10.00":  # it is decided, and not always there yet
            time.sleep(0.05)
    ann, bob = seen[0], seen[1]
    page.goto(f"{process.url}/console#/transfer")
    fill(page, ann, bob, "4.00")
    page.get_by_role("button", name="Review").click()
    page.locator("#confirm").click()
    expect(page.locator("#result h2")).to_have_text("Done")
    expect(page.locator("#result tbody tr").first).to_contain_text("6.00 EUR")
    page.locator("#result .note a").click()
    expect(page.locator("#story .badge").first).to_have_text("Confirmed")
    steps = page.locator("#steps tr").evaluate_all("rows => rows.map(row => [row.dataset.kind, row.dataset.shard])")
    assert steps[0] == ["try_debit", "0"]
    assert sorted(map(tuple, steps)) == [("confirm", "0"), ("confirm", "1"), ("try_credit", "1"), ("try_debit", "0")]
    expect(page.locator(".lanes > li")).to_have_count(2)

    page.goto(f"{process.url}/console#/transfer")
    fill(page, bob, ann, "1.00")
    page.get_by_role("button", name="Add another leg").click()
    fill(page, bob, WORLD, "2.00", leg=2)
    page.get_by_role("button", name="Review").click()
    page.locator("#confirm").click()
    expect(page.locator("#result h2")).to_have_text("Done")
    expect(page.locator("#result tbody tr")).to_have_count(3)
    page.locator("#result .note a").click()
    expect(page.locator("#story .badge").first).to_have_text("Confirmed")
    expect(page.locator("#steps tr[data-kind=confirm]")).to_have_count(4)
    expect(page.locator("#kind")).to_have_text("TC/C")
    expect(page.locator("#legs tr[data-phase=confirmed]")).to_have_count(2)


def test_a_saga_is_called_one_and_shows_what_it_gave_back(shards: tuple[GatewayProcess, Bank], page: Page) -> None:
    process, bank = shards
    ann, bob = names_in_shards(bank, "saga")
    assert bank.transfer(WORLD, ann, "10.00").status_code == 200
    await_balance(bank, ann, "10.00")  # It is told when it is decided, and may be on its way.
    text = bank.text()
    legs = [
        {"from_account": ann, "to_account": payee, "amount": "1.00", "currency": "EUR"} for payee in (bob, "nobody")
    ]
    refused = bank.post("/v1/transactions", legs=legs, mode="saga", answer_when="applied", transaction_id=text)
    assert refused.status_code == 404, refused.text
    page.goto(f"{process.url}/console#/transaction/{quote(text)}")
    expect(page.locator("#kind")).to_have_text("Saga")
    expect(page.locator("#story .badge").first).to_have_text("Cancelled: Credit account unknown")
    expect(page.locator("#steps")).to_contain_text("Give back: reserve at the receiver")
    expect(page.locator("#legs tr").nth(1)).to_have_attribute("data-phase", "refused")


def test_a_token_is_sent_with_every_request_and_kept_in_its_tab(
    gateway: GatewayProcess, context: BrowserContext, page: Page
) -> None:
    token = "secret of a clerk"
    page.goto(f"{gateway.url}/console")
    expect(page.locator("#freshness")).to_contain_text("live")
    page.keyboard.press("k")
    page.keyboard.type(token)
    sent: list[str | None] = []
    page.on("request", lambda request: sent.append(request.headers.get("authorization")))
    page.keyboard.press("Enter")
    expect(page.locator("#token-button")).to_have_text("Token ✓")
    page.keyboard.press("4")
    expect(page.get_by_role("heading", name="Make a transfer")).to_be_visible()
    end_s = time.monotonic() + LATE_S
    while len(sent) < 2:
        assert time.monotonic() < end_s
        page.wait_for_timeout(20)
    page.wait_for_timeout(200)
    assert set(sent) == {f"Bearer {token}"}
    kept = page.evaluate("[Object.values(localStorage), document.cookie, location.href, Object.values(sessionStorage)]")
    assert token not in json.dumps(kept[:3])
    assert kept[3] == [token]
    other = context.new_page()
    other.goto(f"{gateway.url}/console")
    expect(other.locator("#token-button")).to_have_text("Token")
    page.keyboard.press("k")
    page.get_by_role("button", name="Forget").click()
    expect(page.locator("#token-button")).to_have_text("Token")
    assert page.evaluate("sessionStorage.length") == 0


def test_names_are_text(gateway: GatewayProcess, page: Page, bank: Bank) -> None:
    names = ["<svg/onload=alert(1)>", '"><img/src=x/onerror=alert(2)>']
    for name in names:
        opened = bank.post("/v1/accounts", name=name, currency="EUR")
        assert opened.status_code == 200
        assert bank.transfer(WORLD, name, "1.00").status_code == 200
    assert bank.transfer(names[0], names[1], "0.50").status_code == 200
    for name in names:
        page.goto(f"{gateway.url}/console#/account")
        page.fill("#account-name", name)
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#account-title")).to_have_text(name)
        expect(page.locator("#statement tr")).to_have_count(3)
    expect(page.locator("#statement")).to_contain_text(names[0])
    assert page.locator("main svg[onload], main img").count() == 0


def test_what_the_console_is_made_of(gateway: GatewayProcess) -> None:
    answer = httpx.get(f"{gateway.url}/console")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|style=| on[a-z]+=", answer.text)
    assert httpx.get(f"{gateway.url}/console/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for path in ("/console", "/docs"):
        assert httpx.get(gateway.url + path).headers["content-type"] == "text/html; charset=utf-8"
    assert httpx.get(f"{gateway.url}/docs/docs.css").headers["content-type"] == "text/css; charset=utf-8"
    for path in ("/console/absent.js", "/console/..%2fdocs.js"):
        assert httpx.get(gateway.url + path).status_code == 404
