"""Claim: a webhook is told of everything, in order and signed, whatever becomes of the gateway or of those it tells."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bezant.cli.main import main
from bezant.cli.node_process import NodeProcess
from bezant.cli.tokens import new_token
from bezant.net.gateway.identity import id_of_text, text_of_id
from bezant.net.gateway.settings import GatewaySettings
from bezant.net.gateway.webhooks import routes, sending
from bezant.net.gateway.webhooks.hooks import networks_of
from bezant.net.gateway.webhooks.resolving import Resolver
from bezant.net.gateway.webhooks.sending import SendFailed, Way, check_address, is_public, place_of, target_of
from bezant.net.gateway.webhooks.store import FILE, DeadLetter, Hook, Store
from bezant.protocol.access import NoteAct, check_note, token_id_of
from bezant.protocol.errors import RequestRefused, UsageError
from bezant.protocol.frames import FrameError

from .conftest import WORLD, Bank, GatewayProcess, problem
from .guarded import GuardedNode
from .receiver import LATE_S, Heard, Receiver


def told_ids(*texts: str) -> list[str]:
    """What transaction ids are in events."""
    return [text_of_id(id_of_text(text)) for text in texts]


def verified(told: Heard, secret: str) -> bool:
    """Whether a message is signed, as the specification of Standard Webhooks says and by nothing of ours."""
    headers, body = told
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    signed = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in headers["webhook-signature"].split(" ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("webhooks")


OPTIONS = ["--webhook-allow", "127.0.0.0/8", "--webhook-attempts-max", "3", "--webhook-backoff", "0.05"]


@pytest.fixture(scope="module")
def hooking(gateway: GatewayProcess, node: NodeProcess, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway with webhooks, before the node of all tests."""
    with GatewayProcess(node.address, folder / "log", ["--webhooks", str(folder / "kept"), *OPTIONS]) as process:
        yield process


@pytest.fixture
def client(hooking: GatewayProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hooking.url, timeout=30) as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def made(client: httpx.Client, **asked: Any) -> tuple[str, str]:
    """A hook: where it is, and its secret."""
    answer = client.post("/v1/webhooks", json=asked)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return f"/v1/webhooks/{told['webhook']['id']}", told["secret"]


def awaited(client: httpx.Client, path: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end_s = time.monotonic() + LATE_S
    while True:
        told: dict[str, Any] = client.get(path).json()
        if is_so(told):
            return told
        assert time.monotonic() < end_s, told
        time.sleep(0.02)


def test_a_webhook_tells_why_its_messages_are_not_taken(bank: Bank, receiver: Receiver, capsys: Any) -> None:
    ann = bank.account("ann", "9.00")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    path, _ = made(bank.client, url=url, accounts=[ann])
    heard, _ = made(bank.client, url=receiver.url, accounts=[ann])
    assert bank.client.get(path).json()["failing"] is None
    assert bank.transfer(ann, WORLD, "1.00").status_code == 200
    told = awaited(bank.client, path, lambda told: told["failing"] is not None)
    assert "cannot be reached" in told["failing"]
    assert awaited(bank.client, heard, lambda told: told["delivered"] == 1)["failing"] is None
    assert main(["webhooks", "list", "--gateway", str(bank.client.base_url)]) == 0
    assert "failing: cannot be reached" in capsys.readouterr().out
    for one in (path, heard):
        assert bank.client.delete(one).status_code == 200


def test_what_happens_is_told_in_order_and_signed(bank: Bank, receiver: Receiver) -> None:
    ann, bob = bank.account("ann", "9.00"), bank.account("bob", "9.00")
    path, secret = made(bank.client, url=receiver.url + "/here?a=b", accounts=[ann], kinds=["transfer"], currency="EUR")
    for number in range(5):
        assert bank.transfer(ann, WORLD, "1.00", transaction_id=f"{ann} {number}").status_code == 200
        assert bank.transfer(bob, WORLD, "1.00").status_code == 200
    heard = receiver.await_heard(5)
    assert receiver.transfers() == told_ids(*(f"{ann} {number}" for number in range(5)))
    assert all(verified(told, secret) for told in heard)
    assert not verified((heard[0][0], heard[0][1] + b" "), secret)
    assert len({headers["webhook-id"] for headers, _ in heard}) == 5
    message = json.loads(heard[0][1])
    assert (message["type"], message["data"]["moved"], message["data"]["from_account"]) == ("transfer", "1.00", ann)
    told = awaited(bank.client, path, lambda told: told["delivered"] == 5)
    assert (told["disabled"], told["accounts"]) == (None, [ann])
    assert secret not in bank.client.get("/v1/webhooks").text
    assert bank.client.delete(path).status_code == 200
    problem(bank.client.get(path), "NOT_FOUND")
    assert bank.transfer(ann, WORLD, "1.00").status_code == 200
    time.sleep(0.3)
    assert len(receiver.heard) == 5


def test_what_is_not_taken_is_tried_again_given_up_and_told_later(bank: Bank, receiver: Receiver) -> None:
    ann = bank.account("ann", "9.00")
    path, secret = made(bank.client, url=receiver.url, accounts=[ann])
    receiver.answer = lambda _: 503 if len(receiver.heard) < 3 else 204
    assert bank.transfer(ann, WORLD, "1.00", transaction_id=f"{ann} 1").status_code == 200
    first = receiver.await_heard(3)
    assert len({headers["webhook-id"] for headers, _ in first}) == 1
    awaited(bank.client, path, lambda told: told["delivered"] == 1)
    receiver.answer = lambda _: 302
    assert bank.transfer(ann, WORLD, "1.00", transaction_id=f"{ann} 2").status_code == 200
    letters = awaited(bank.client, path + "/dead-letters", lambda told: bool(told["dead_letters"]))["dead_letters"]
    assert len(receiver.heard) == 6
    assert letters[0]["reason"] == "it answered 302"
    assert json.loads(letters[0]["body"])["data"]["transaction_id"] == told_ids(f"{ann} 2")[0]
    letter = f"{path}/dead-letters/{letters[0]['webhook_id']}"
    assert bank.client.post(f"{letter}/replay").json() == {
        "delivered": False,
        "status": 302,
        "failure": "it answered 302",
    }
    receiver.answer = lambda _: 200
    assert bank.client.post(f"{letter}/replay").json()["delivered"]
    assert receiver.heard[-1][0]["webhook-id"] == letters[0]["webhook_id"]
    assert verified(receiver.heard[-1], secret)
    assert bank.client.get(path + "/dead-letters").json() == {"dead_letters": []}
    problem(bank.client.post(f"{letter}/replay"), "NOT_FOUND")
    problem(bank.client.delete(letter), "NOT_FOUND")
    bank.client.delete(path)


def test_gone_disables_and_nothing_is_lost_until_it_is_enabled(bank: Bank, receiver: Receiver) -> None:
    ann = bank.account("ann", "9.00")
    path, _ = made(bank.client, url=receiver.url, accounts=[ann])
    receiver.answer = lambda _: 410
    for number in range(2):
        assert bank.transfer(ann, WORLD, "1.00", transaction_id=f"{ann} {number}").status_code == 200
    told = awaited(bank.client, path, lambda told: told["disabled"] is not None)
    assert "410" in told["disabled"]
    assert len(receiver.heard) == 1
    receiver.answer = lambda _: 204
    assert bank.client.post(f"{path}/enable").json()["disabled"] is None
    receiver.await_heard(3)
    assert receiver.transfers() == told_ids(f"{ann} 0", f"{ann} 0", f"{ann} 1")
    bank.client.delete(path)


def test_one_that_is_slow_keeps_no_other_waiting(bank: Bank, receiver: Receiver) -> None:
    ann = bank.account("ann", "9.00")
    released = threading.Event()
    with Receiver() as slow:
        slow.answer = lambda _: 204 if released.wait(LATE_S) else 500
        slow_path, _ = made(bank.client, url=slow.url, accounts=[ann])
        path, _ = made(bank.client, url=receiver.url, accounts=[ann])
        for _ in range(5):
            assert bank.transfer(ann, WORLD, "1.00").status_code == 200
        receiver.await_heard(5)
        assert len(slow.await_heard(1)) == 1
        released.set()
        slow.await_heard(5)
        bank.client.delete(slow_path)
    bank.client.delete(path)


def test_a_secret_is_replaced_without_a_gap(bank: Bank, receiver: Receiver) -> None:
    path, old = made(bank.client, url=receiver.url, accounts=["nobody"])
    new = bank.client.post(f"{path}/secret").json()["secret"]
    assert new != old
    assert bank.client.post(f"{path}/test").json() == {"delivered": True, "status": 204, "failure": None}
    assert verified(receiver.heard[0], old)
    assert verified(receiver.heard[0], new)
    assert json.loads(receiver.heard[0][1])["type"] == "webhook.test"
    bank.client.delete(path)


def test_what_is_no_address_is_refused(bank: Bank) -> None:
    for url in ("ftp://a.example/", "a.example", "https://u:p@a.example/", "https://a.example/#x", "https://a b/", ""):
        problem(bank.client.post("/v1/webhooks", json={"url": url}), "REQUEST_INVALID")
    problem(bank.client.post("/v1/webhooks", json={"url": "https://a.example", "kinds": ["x"]}), "REQUEST_INVALID")
    problem(bank.client.post("/v1/webhooks", json={"url": "https://a.example", "to": "x"}), "REQUEST_INVALID")
    path, _ = made(bank.client, url="http://10.0.0.1/", accounts=["nobody"])
    assert bank.client.post(f"{path}/test").json()["failure"].startswith("http is for addresses")
    bank.client.delete(path)
    path, _ = made(bank.client, url="https://169.254.169.254/latest", accounts=["nobody"])
    assert "not public" in bank.client.post(f"{path}/test").json()["failure"]
    bank.client.delete(path)


def test_a_gateway_that_is_killed_behind_a_delivery_repeats_it_and_loses_none(
    node: NodeProcess, hooking: GatewayProcess, tmp_path: Path, receiver: Receiver
) -> None:
    kept = tmp_path / "kept"
    options = ["--webhooks", str(kept), *OPTIONS]
    with GatewayProcess(node.address, tmp_path / "log", options) as first:
        client = httpx.Client(base_url=first.url, timeout=30)
        with client:
            bank = Bank(client, "killed")
            ann = bank.account("ann", "9.00")
            _, secret = made(client, url=receiver.url, accounts=[ann])

            def die(told: Heard) -> int:
                if len(receiver.heard) == 2:
                    first.process.kill()
                return 204

            receiver.answer = die
            assert bank.transfer(ann, WORLD, "1.00", transaction_id="killed a").status_code == 200
            receiver.await_heard(1)
        with httpx.Client(base_url=hooking.url, timeout=30) as client:
            others = Bank(client, "killed again")
            assert others.transfer(ann, WORLD, "1.00", transaction_id="killed b").status_code == 200
            receiver.await_heard(2)
            first.process.wait(LATE_S)
            assert others.transfer(ann, WORLD, "1.00", transaction_id="killed c").status_code == 200
    with GatewayProcess(node.address, tmp_path / "log", options) as second:
        receiver.await_heard(4)
        assert second.stop() == 0
    assert receiver.transfers()[-2:] == told_ids("killed b", "killed c")
    ids = {body: headers["webhook-id"] for headers, body in receiver.heard}
    assert len(ids) == 3, "the same is told under the same id"
    assert all(verified(told, secret) for told in receiver.heard)
    for file in (kept / FILE, kept / "lock"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_those_who_may_make_tokens_may_have_others_told(tmp_path: Path, receiver: Receiver) -> None:
    with GuardedNode(tmp_path) as guarded:
        reads = guarded.create("reads", "--scopes", "read,transfer")
        options = [*guarded.shown, "--webhooks", str(tmp_path / "kept"), *OPTIONS]
        with GatewayProcess(guarded.address, tmp_path / "log", options) as gateway:
            client = httpx.Client(base_url=gateway.url, timeout=30)
            with client:
                problem(client.get("/v1/webhooks"), "UNAUTHENTICATED")
                client.headers["Authorization"] = f"Bearer {reads}"
                problem(client.get("/v1/webhooks"), "FORBIDDEN")
                problem(client.post("/v1/webhooks", json={"url": receiver.url}), "FORBIDDEN")
                assert noted(guarded) == []
                client.headers["Authorization"] = f"Bearer {guarded.admin}"
                problem(client.delete("/v1/webhooks/wh_none"), "NOT_FOUND")
                assert noted(guarded) == []
                administer_and_look_into_the_log(guarded, client, receiver)
                path, _ = made(client, url=receiver.url)
                bank = Bank(client, "guarded")
                assert bank.post("/v1/accounts", name=WORLD, currency="EUR").status_code == 200
                receiver.await_heard(1)
                assert client.get(path).status_code == 200
                revoke_and_mend_the_gateways_own(guarded, gateway, client, path, receiver)


def noted(guarded: GuardedNode) -> list[str]:
    """What was administered beside the log, by whom: as the command says that lists acts."""
    line = [sys.executable, "-m", "bezant", "audit", "--data", str(guarded.folder / "data"), "--json"]
    told = subprocess.run(line, check=True, capture_output=True, text=True, timeout=LATE_S)
    acts = [json.loads(act) for act in told.stdout.splitlines()]
    return [f"{act['token_id']}: {act['what']}" for act in acts if act["operation"] == "NOTE_ACT"]


def administer_and_look_into_the_log(guarded: GuardedNode, client: httpx.Client, receiver: Receiver) -> None:
    """Whatever is done to a webhook is in the log, with whose token, and nothing of its address that may be secret."""
    token = guarded.create("hooks", "--scopes", "admin,read,transfer")
    own = {"Authorization": f"Bearer {token}"}
    host = receiver.url.removeprefix("http://").partition("/")[0]
    receiver.answer = lambda _: 500
    answer = client.post("/v1/webhooks", json={"url": f"{receiver.url}/h1dden/here?key=h1dden"}, headers=own).json()
    hook, secret = answer["webhook"]["id"], answer["secret"]
    path = f"/v1/webhooks/{hook}"
    opened = client.post("/v1/accounts", json={"name": "noted", "currency": "EUR", "transaction_id": "n"}, headers=own)
    assert opened.status_code == 200
    letters = awaited(client, f"{path}/dead-letters", lambda told: bool(told["dead_letters"]))["dead_letters"]
    message = letters[0]["webhook_id"]
    asked = [("POST", "/secret"), ("POST", "/enable"), ("POST", f"/dead-letters/{message}/replay")]
    for method, what in [*asked, ("DELETE", f"/dead-letters/{message}"), ("POST", "/test"), ("DELETE", "")]:
        assert client.request(method, path + what, headers=own).status_code == 200, what
        if what == "/secret":
            problem(client.delete(f"{path}/dead-letters/{'x' * 40}", headers=own), "NOT_FOUND")
    told = noted(guarded)
    who = token_id_of(token)
    assert told == [
        f"{who}: CREATE_WEBHOOK {hook} to {host}",
        f"{who}: ROTATE_WEBHOOK_SECRET {hook} to {host}",
        f"{who}: ENABLE_WEBHOOK {hook} to {host}",
        f"{who}: REPLAY_DEAD_LETTER {hook} {message} to {host}",
        f"{who}: DELETE_DEAD_LETTER {hook} {message} to {host}",
        f"{who}: DELETE_WEBHOOK {hook} to {host}",
    ]
    assert "h1dden" not in str(told)
    assert secret not in str(told)
    receiver.answer = lambda _: 204
    receiver.heard.clear()


def test_what_cannot_be_noted_is_not_done() -> None:
    """Whatever keeps it from being noted: nothing of a hook is changed then."""
    done: list[str] = []
    hook = Hook(id="wh_1", url="https://a.example/x", made_ns=1, secret=b"s", position="7")

    class Kept:
        def find(self, _hook: str) -> Hook:
            return hook

        async def find_dead(self, _hook: str, message: str) -> DeadLetter:
            return DeadLetter(message, 1, "why", b"{}")

        def __getattr__(self, name: str) -> Any:
            async def do(*_arguments: object) -> None:
                done.append(name)

            return do

    class Refused:
        async def check_may_administer(self) -> None:
            return

        async def note(self, operation: str, what: str) -> None:
            done.append(f"{operation} {what}")
            raise RequestRefused(FrameError.OVERLOADED, "no room")

    class Subscription:
        position = 7

        async def begin(self) -> None:
            return

        async def close(self) -> None:
            return

    async def ask() -> None:
        wallet = SimpleNamespace(subscribe=lambda **_: Subscription())
        question = SimpleNamespace(ledger=Refused(), wallet=wallet, timeout_s=5.0)
        with pytest.raises(RequestRefused):
            made = routes.MakeWebhook(url="https://b.example/x")
            await routes.create_webhook.fn(question=question, webhooks=Kept(), data=made)
        for route in (routes.delete_webhook, routes.rotate_secret, routes.enable_webhook):
            with pytest.raises(RequestRefused):
                await route.fn(ledger=Refused(), webhooks=Kept(), hook="wh_1")
        for route in (routes.replay_dead_letter, routes.delete_dead_letter):
            with pytest.raises(RequestRefused):
                await route.fn(ledger=Refused(), webhooks=Kept(), hook="wh_1", message="m")

    asyncio.run(ask())
    created, _, place = done.pop(0).rpartition(" to ")
    assert created.startswith("CREATE_WEBHOOK wh_")
    assert place == "b.example:443"
    assert done == [
        "DELETE_WEBHOOK wh_1 to a.example:443",
        "ROTATE_WEBHOOK_SECRET wh_1 to a.example:443",
        "ENABLE_WEBHOOK wh_1 to a.example:443",
        "REPLAY_DEAD_LETTER wh_1 m to a.example:443",
        "DELETE_DEAD_LETTER wh_1 m to a.example:443",
    ]


@pytest.mark.parametrize("is_full", [False, True])
def test_what_was_noted_and_fails_is_noted_as_that(caplog: pytest.LogCaptureFixture, is_full: bool) -> None:
    told: list[str] = []

    class Kept:
        def find(self, _hook: str) -> Hook:
            return Hook(id="wh_1", url=f"https://{'a.' * 126}a/x", made_ns=1, secret=b"s")

        async def enable(self, _hook: str) -> Hook:
            raise sqlite3.OperationalError("disk\nis full" + "!" * 400)

    class Noting:
        async def check_may_administer(self) -> None:
            return

        async def note(self, operation: str, what: str) -> None:
            check_note(NoteAct(operation, what))
            if told and is_full:
                raise RequestRefused(FrameError.OVERLOADED, "no room")
            told.append(what)

    with pytest.raises(sqlite3.OperationalError):
        asyncio.run(routes.enable_webhook.fn(ledger=Noting(), webhooks=Kept(), hook="wh_1"))
    first = f"wh_1 to {'a.' * 126}a:443"
    assert told[0] == first
    if is_full:
        assert "the audit lacks that ENABLE_WEBHOOK wh_1" in caplog.text
    else:
        assert told[1].startswith(f"{first} - failed: disk is full!!!")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://shop.example/hooks/secret?key=secret", "shop.example:443"),
        ("http://SHOP.example:8080", "shop.example:8080"),
        ("https://[2001:db8::1]:1/x", "[2001:db8::1]:1"),
        (f"https://trusted.example.{'a.' * 200}evil.example/", f"{'a.' * 200}evil.example"[-253:] + ":443"),
    ],
)
def test_the_audit_has_of_an_address_where_it_is(url: str, place: str) -> None:
    assert place_of(url) == place


def revoke_and_mend_the_gateways_own(
    guarded: GuardedNode, gateway: GatewayProcess, client: httpx.Client, path: str, receiver: Receiver
) -> None:
    """Its own token is revoked: that is told, and what happens meanwhile is told to webhooks when it has another."""
    file = guarded.folder / "gateway"
    guarded.command("tokens", "revoke", token_id_of(file.read_text().strip()))
    awaited(client, "/readyz", lambda told: "its token does not count" in told.get("reason", ""))
    metrics = client.get("/metrics").text
    assert "bezant_gateway_token_refused 1" in metrics
    assert 'bezant_gateway_webhooks{state="behind"} 1' in metrics
    assert gateway.log().count("let this gateway in no more") == 1
    opened = Bank(client, "meanwhile").post("/v1/accounts", name="meanwhile", currency="EUR")
    assert opened.status_code == 200, "whoever has a token is served"
    file.unlink()
    guarded.create("gateway", "--scopes", "read")
    awaited(client, "/readyz", lambda told: told["status"] == "ok")
    receiver.await_heard(2)
    awaited(client, path, lambda told: told["delivered"] == 2)
    metrics = client.get("/metrics").text
    assert "bezant_gateway_token_refused 0" in metrics
    assert 'bezant_gateway_webhooks{state="told"} 1' in metrics
    assert client.get("/v1/cluster").json()["shards"]
    assert "in again" in gateway.log()


def test_the_command_line_does_the_same(hooking: GatewayProcess, receiver: Receiver) -> None:
    def command(*words: str, status: int = 0) -> str:
        line = [sys.executable, "-m", "bezant", "webhooks", *words, "--gateway", hooking.url]
        told = subprocess.run(line, check=False, capture_output=True, text=True, timeout=LATE_S)
        assert told.returncode == status, told.stderr
        return told.stdout if status == 0 else told.stdout + told.stderr

    hook, secret = command("create", receiver.url, "--account", "nobody", "--kind", "transfer").split()
    assert json.loads(command("test", hook))["delivered"]
    assert verified(receiver.heard[0], secret)
    assert command("rotate-secret", hook).split()[0] == hook
    assert receiver.url in command("list")
    assert json.loads(command("show", hook))["accounts"] == ["nobody"]
    assert json.loads(command("dead-letters", hook)) == {"dead_letters": []}
    assert "NOT_FOUND" in command("replay", hook, "msg", status=1)
    receiver.answer = lambda _: 500
    assert "500" in command("test", hook, status=1)
    command("delete", hook)
    assert "NOT_FOUND" in command("show", hook, status=1)
    line = [sys.executable, "-m", "bezant", "webhooks", "list", "--gateway", "http://192.0.2.1:8080"]
    environment = os.environ | {"BEZANT_TOKEN": new_token()[0]}
    told = subprocess.run(line, check=False, capture_output=True, text=True, timeout=LATE_S, env=environment)
    assert (told.returncode, "in clear" in told.stderr) == (1, True)


def test_a_gateway_without_a_folder_keeps_none(gateway: GatewayProcess) -> None:
    problem(httpx.get(f"{gateway.url}/v1/webhooks"), "NOT_FOUND")


def test_a_folder_is_held_by_one_and_remembers(tmp_path: Path) -> None:
    hook = Hook(id="a", url="https://a.example", made_ns=1, secret=b"s", position="7", accounts=("x",))
    store = Store(tmp_path)
    store.put(hook)
    store.bury(hook, "m", "why", b"{}")
    store.bury(hook, "m", "why", b"{}")
    with pytest.raises(UsageError, match="another gateway"):
        Store(tmp_path)
    store.close()
    again = Store(tmp_path)
    assert again.hooks() == [hook]
    assert [(letter.message, letter.reason) for letter in again.dead("a")] == [("m", "why")]
    assert again.dead_count("a") == 1
    again.delete("a")
    assert (again.hooks(), again.dead("a")) == ([], [])
    again.close()
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    with pytest.raises(UsageError, match="cannot be kept"):
        Store(nowhere)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
        ),
        *("255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"),
        *("2002:a00:1::1", "fd00:ec2::254", "240.0.0.1"),
    ],
)
def test_addresses_that_are_not_public_are_not_reached(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(SendFailed, match="not public"):
        check_address(target_of("https://a.example"), ipaddress.ip_address(address), ())


def test_what_is_public_or_allowed_is_reached() -> None:
    public, private = ipaddress.ip_address("93.184.215.14"), ipaddress.ip_address("::ffff:10.1.2.3")
    check_address(target_of("https://a.example"), public, ())
    with pytest.raises(SendFailed, match="http"):
        check_address(target_of("http://a.example"), public, ())
    check_address(target_of("http://a.example"), private, networks_of(("10.1.0.0/16",)))
    with pytest.raises(UsageError):
        networks_of(("10.1.0.1/16",))
    with pytest.raises(UsageError):
        GatewaySettings(connect="127.0.0.1:1", webhook_attempts_max=0)


async def test_a_name_that_also_leads_inside_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", ("93.184.215.14", 443)), (0, 0, 0, "", ("10.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(SendFailed, match="not public"):
        await sending.resolve(target_of("https://a.example"), (), Resolver())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 ",
        b"HTTP/1.1 evil \x1b[2K\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
)
async def test_an_answer_that_is_none_is_a_failure(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(SendFailed) as failed:
        await sending.send(f"http://127.0.0.1:{port}/", [], b"{}", Way(networks_of(("127.0.0.0/8",)), None, Resolver()))
    server.close()
    await server.wait_closed()
    assert len(str(failed.value)) < 100
    assert "evil" not in str(failed.value)
