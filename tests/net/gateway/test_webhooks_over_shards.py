"""Claim: a webhook is told of what happens in all shards, nothing lost and each event under one id however often it is
told, whenever the gateway is killed; and by TLS it tells nobody but whom an authority vouches for."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bezant.net.gateway.webhooks.hooks import receivers_context
from bezant.protocol.errors import UsageError
from bezant.protocol.records import split_position

from ..access.authority import Authority
from .conftest import WORLD, Bank, GatewayProcess
from .receiver import Heard, Receiver
from .sharded import Sharded, names_in_shards, open_world

EVENTS_OF_EACH = 40
SHARDS = 2


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharded]:
    with Sharded(tmp_path_factory.mktemp("webhooks-shards")) as up:
        yield up


def hooking(sharded: Sharded, folder: Path, authority: Authority) -> GatewayProcess:
    options = ["--webhooks", str(folder / "kept"), "--webhook-allow", "127.0.0.0/8", "--webhook-allow", "::1/128"]
    options += ["--webhook-backoff", "0.05", "--webhook-ca", str(authority.file)]
    return GatewayProcess(sharded.addresses, folder / "log", options)


def told(heard: list[Heard]) -> tuple[list[int], dict[int, str]]:
    """The positions that a receiver was told of, in order, and the id of the message of each, always the same one."""
    positions: list[int] = []
    messages: dict[int, str] = {}
    for headers, body in heard:
        position = int(json.loads(body)["data"]["position"])
        positions.append(position)
        assert messages.setdefault(position, headers["webhook-id"]) == headers["webhook-id"]
    return positions, messages


def positions_of(client: httpx.Client, name: str, deadline_s: float = 60.0) -> set[int]:
    """Where the history has what was paid to an account, once it has all of it: readers follow, and money comes behind
    the answer."""
    end_s = time.monotonic() + deadline_s
    while True:
        asked = client.get(f"/v1/accounts/{name}/statement", params={"currency": "EUR", "limit": 1000})
        events = [event for event in asked.json()["events"] if event["kind"] != "open"]
        if sum(event["kind"] in {"transfer", "confirm"} for event in events) == EVENTS_OF_EACH:
            return {int(event["position"]) for event in events}
        assert time.monotonic() < end_s, events
        time.sleep(0.01)


def test_nothing_is_lost_of_two_shards_when_the_gateway_is_killed(sharded: Sharded, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    gate = threading.Event()
    with Receiver(authority.sign("receiver", host="localhost")) as receiver:
        with (
            hooking(sharded, tmp_path, authority) as process,
            httpx.Client(base_url=process.url, timeout=30) as client,
        ):
            bank = Bank(client, "hooked")
            open_world(bank)
            names = names_in_shards(bank, "told")
            made = client.post("/v1/webhooks", json={"url": receiver.url, "accounts": list(names)})
            assert made.status_code == 200, made.text
            position = made.json()["webhook"]["position"]
            assert len(position.split(",")) == SHARDS
            for number in range(EVENTS_OF_EACH // 2):
                for name in names:
                    assert bank.transfer(WORLD, name, "1.00").status_code == 200
                if number == 5:
                    receiver.await_heard(4)
                    # Told, and perhaps not written down yet: the next gateway tells it again.
                    receiver.answer = lambda _heard: 204 + 0 * gate.wait(0.05)
            process.process.kill()
            process.process.wait()
        with hooking(sharded, tmp_path, authority) as process, httpx.Client(base_url=process.url, timeout=30) as client:
            bank = Bank(client, "hooked again")
            for _ in range(EVENTS_OF_EACH // 2):
                for name in names:
                    assert bank.transfer(WORLD, name, "1.00").status_code == 200
            expected = {position for name in names for position in positions_of(client, name)}
            gate.set()
            assert {split_position(position)[0] for position in expected} == {0, 1}
            heard = receiver.await_heard(0)
            while set(told(heard)[0]) < expected:
                heard = receiver.await_heard(len(heard) + 1)
            positions, _ = told(receiver.heard)
    assert set(positions) == expected
    for shard in range(SHARDS):
        own = [position for position in positions if split_position(position)[0] == shard]
        back = [behind for before, behind in itertools.pairwise(own) if behind <= before]
        # In order; what was told of a shard without being written down is told once more from there on.
        assert len(back) <= 1
        assert len(own) - len(set(own)) <= 1


def test_a_receiver_that_nobody_vouches_for_is_told_nothing(sharded: Sharded, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "authority"), Authority(tmp_path / "other")
    signed = {
        "unknown": other.sign("receiver", host="localhost"),
        "named otherwise": authority.sign("elsewhere", host="elsewhere.example"),
        "expired": authority.sign("late", host="localhost", expired=True),
    }
    with hooking(sharded, tmp_path, authority) as process, httpx.Client(base_url=process.url, timeout=30) as client:
        for what, certificate in signed.items():
            with Receiver(certificate) as receiver:
                made = client.post("/v1/webhooks", json={"url": receiver.url, "accounts": ["nobody"]}).json()
                attempt = client.post(f"/v1/webhooks/{made['webhook']['id']}/test").json()
                assert not attempt["delivered"], what
                assert "private" in attempt["failure"], attempt
                assert receiver.heard == []
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for file in (nothing, tmp_path / "absent.pem"):
        with pytest.raises(UsageError, match="no certificates of authorities"):
            receivers_context(str(file))
