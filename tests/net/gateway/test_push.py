"""Claim: whoever listens is told of every event once and in order, also after the connection was lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import websockets

from .conftest import WORLD, Bank, GatewayProcess, problem

WAIT_S = 30


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events of their lines."""
    fields: dict[str, Any] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields | {"data": json.loads(fields["data"])}
            fields = {}
        else:
            fields = {}


def listen(bank: Bank, name: str, count: int, **settings: Any) -> list[dict[str, Any]]:
    """The next so many events."""
    path = f"/v1/accounts/{quote(name, safe='')}/events"
    with bank.client.stream("GET", path, **settings) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"] == "text/event-stream"
        events = parsed(stream.iter_lines())
        return [next(events) for _ in range(count)]


def test_events_are_told_from_the_beginning_and_resumed(bank: Bank) -> None:
    ann = bank.account("a/b", "5.00")
    made = [bank.transfer(WORLD, ann, "1.00").json() for _ in range(4)]
    first = listen(bank, ann, 3, params={"currency": "EUR", "after": "0"})
    assert [event["event"] for event in first] == ["open", "transfer", "transfer"]
    assert first[2]["id"] == first[2]["data"]["position"] == made[0]["position"]
    assert first[2]["data"]["to_balance"] == "6.00"
    assert (first[2]["data"]["from_account"], first[2]["data"]["to_account"]) == (WORLD, ann)
    rest = listen(bank, ann, 3, params={"after": "0"}, headers={"Last-Event-ID": first[2]["id"]})
    assert [event["id"] for event in rest] == [step["position"] for step in made[1:]]


async def test_what_happens_is_told_at_once(bank: Bank, asynchronous: httpx.AsyncClient) -> None:
    ann, bob = bank.account("ann", "5.00"), bank.account("bob")
    async with asynchronous.stream("GET", f"/v1/accounts/{ann}/events") as stream:
        lines = aiter(stream.aiter_lines())
        assert await anext(lines) == "retry: 1000"
        for _ in range(3):
            made = (await asyncio.to_thread(bank.transfer, ann, bob, "1.00")).json()
            assert await next_id(lines) == made["position"]
            assert (await asyncio.to_thread(bank.transfer, WORLD, bob, "1.00")).status_code == 200


async def next_id(lines: AsyncIterator[str]) -> str:
    async with asyncio.timeout(WAIT_S):
        async for line in lines:
            if line.startswith("id: "):
                return line.removeprefix("id: ")
    raise AssertionError("the stream ended")


async def test_a_websocket_tells_the_same(bank: Bank, gateway: GatewayProcess) -> None:
    ann = bank.account("ann", "5.00")
    url = f"{gateway.url.replace('http', 'ws', 1)}/v1/accounts/{ann}/events"
    async with asyncio.timeout(WAIT_S), websockets.connect(f"{url}?after=0&currency=EUR") as socket:
        told = [json.loads(await socket.recv()) for _ in range(2)]
        assert [message["event"]["kind"] for message in told] == ["open", "transfer"]
        made = (await asyncio.to_thread(bank.transfer, WORLD, ann, "1.00")).json()
        assert json.loads(await socket.recv())["id"] == made["position"]
    async with asyncio.timeout(WAIT_S), websockets.connect(f"{url}?after={told[1]['id']}") as socket:
        assert json.loads(await socket.recv())["id"] == made["position"]


async def test_a_websocket_that_cannot_be_served_is_told_why(bank: Bank, gateway: GatewayProcess) -> None:
    url = f"{gateway.url.replace('http', 'ws', 1)}/v1/accounts/{bank.account('ann')}/events"
    async with asyncio.timeout(WAIT_S), websockets.connect(f"{url}?after=now") as socket:
        assert json.loads(await socket.recv())["code"] == "REQUEST_INVALID"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("after", ["now", "1.5", "1,", str(2**64), "1,2"])
def test_a_place_that_is_none_is_refused(bank: Bank, after: str) -> None:
    ann = bank.account("ann")
    problem(bank.client.get(f"/v1/accounts/{ann}/events", params={"after": after}), "REQUEST_INVALID")


def test_a_place_of_another_ledger_is_told_to_be_none_of_this(bank: Bank) -> None:
    """A reader may only be late, so it is waited for; then the answer says what there was to wait for."""
    ann, far = bank.account("ann"), str(10**12)
    hurried = {"Request-Timeout": "0.5"}
    for path, headers in (
        (f"/v1/accounts/{ann}/events", {"Last-Event-ID": far}),
        (f"/v1/events/{far}/receipt", hurried),
    ):
        told = problem(bank.client.get(path, headers=headers), "NO_ANSWER")
        assert f"what is at {far}: it is of another ledger" in told["detail"]


async def test_a_client_has_a_bounded_number_of_streams(bank: Bank, node: Any, tmp_path: Any) -> None:
    ann = bank.account("ann")
    with GatewayProcess(node.address, tmp_path / "log", ["--client-streams-max", "2"]) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=WAIT_S) as client:
            path = f"/v1/accounts/{ann}/events"
            async with client.stream("GET", path) as first, client.stream("GET", path) as second:
                assert (first.status_code, second.status_code) == (200, 200)
                problem(await client.get(path), "TOO_MANY_REQUESTS")
            async with asyncio.timeout(WAIT_S):
                while True:
                    async with client.stream("GET", path) as third:
                        if third.status_code == 200:
                            break
                    await asyncio.sleep(0.05)
            async with client.stream("GET", path) as last:
                assert last.status_code == 200
                stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
                assert [line async for line in last.aiter_lines()] == ["retry: 1000", ""]
                assert await stopping == 0
