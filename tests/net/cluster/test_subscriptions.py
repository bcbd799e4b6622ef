"""Claim: a subscriber of a real group misses nothing and is told nothing twice when nodes fail, leaders or others."""

import asyncio
import json
import sys

import pytest

import bezant
from bezant.net.client.link import welcome_at

from .nodes import Nodes, move, open_books

WAIT_S = 60.0


async def pay(wallet: "bezant.Wallet", count: int) -> list[int]:
    """Positions of transfers that are committed, asked again until they are known to be."""
    positions = []
    for _ in range(count):
        identifier = None
        while True:
            result = await wallet.transfer("wallet:ann", "wallet:bob", "1.00", "EUR", id=identifier, timeout_s=20.0)
            identifier = result.id
            if result.outcome is not bezant.Outcome.UNKNOWN:
                break
        assert result.committed
        positions.append(result.position or 0)
    return positions


@pytest.fixture
def nodes(nodes: Nodes) -> Nodes:
    """Nodes that have readers."""
    nodes.have_readers = True
    return nodes


async def patient(nodes: Nodes) -> None:
    """Return when all nodes are ready; each has a reader to start as well."""
    for node in nodes.running.values():
        await node.ready(2 * WAIT_S)


async def take(subscription: "bezant.Subscription", count: int) -> list[int]:
    async with asyncio.timeout(WAIT_S):
        return [(await anext(subscription)).position for _ in range(count)]


async def telling(nodes: Nodes, subscription: "bezant.Subscription") -> int:
    """The node whose reader tells a subscriber."""
    for number in nodes.running:
        if (await welcome_at(nodes.places[number][1], WAIT_S)).reader == subscription.address:
            return number
    raise AssertionError(f"no node has the reader at {subscription.address}")


async def leading(nodes: Nodes, _: "bezant.Subscription") -> int:
    return await nodes.leader(WAIT_S)


async def test_a_subscriber_goes_on_when_the_node_that_tells_it_and_a_leader_are_killed(nodes: Nodes) -> None:
    nodes.start()
    await patient(nodes)
    async with nodes.connect(timeout_s=20.0) as wallet:
        await open_books(wallet)
        async with wallet.subscribe(accounts=["wallet:bob"], currency="EUR") as subscription:
            paid = await pay(wallet, 50)
            for which in (telling, leading):
                await patient(nodes)
                killed = await which(nodes, subscription)
                nodes.kill(killed)
                paid += await pay(wallet, 50)
                nodes.start(killed)
            assert await take(subscription, len(paid)) == paid
            assert subscription.statistics().connections >= 2


async def test_readers_of_followers_tell_the_same(nodes: Nodes) -> None:
    """Each from the beginning: by a wallet that knows one node alone and so asks its reader."""
    nodes.start()
    await patient(nodes)
    async with nodes.connect(timeout_s=20.0) as wallet:
        await open_books(wallet)
        last = (await pay(wallet, 20))[-1]
        told = []
        for number in nodes.running:
            subscription = wallet.subscribe(after=0, lost_s_max=WAIT_S)
            subscription._addresses = lambda only=number: [nodes.places[only][1]]
            events = []
            async with asyncio.timeout(WAIT_S):
                async for event in subscription:
                    events.append(event)
                    if event.position == last:
                        break
            await subscription.close()
            told.append(events)
        assert told[0] == told[1] == told[2]
        assert len(told[0]) == 22


async def test_a_reader_that_is_behind_is_left_for_another(nodes: Nodes) -> None:
    """A client that comes from a reader which was further is told BEHIND by one whose node is cut off, and goes on."""
    nodes.start()
    await patient(nodes)
    async with nodes.connect(timeout_s=20.0) as wallet:
        await open_books(wallet)
        leader = await nodes.leader()
        cut_off = next(number for number in nodes.running if number != leader)
        async with wallet.subscribe(accounts=["wallet:bob"], currency="EUR", after=0) as subscription:
            await pay(wallet, 1)
        nodes.running[cut_off].pause()
        try:
            last = (await pay(wallet, 5))[-1]
        finally:
            nodes.running[cut_off].resume()
        others = [nodes.places[number][1] for number in nodes.running]
        subscription = wallet.subscribe(accounts=["wallet:bob"], currency="EUR", after=last, lost_s_max=WAIT_S)
        subscription._addresses = lambda: others
        await subscription.begin()
        paid = await pay(wallet, 3)
        assert await take(subscription, 3) == paid
        await subscription.close()


async def test_watch_on_the_command_line_goes_on_when_the_leader_is_killed(nodes: Nodes) -> None:
    nodes.start()
    await patient(nodes)
    async with nodes.connect(timeout_s=20.0) as wallet:
        await open_books(wallet)
        watching = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bezant", "watch", "wallet:bob", "--currency", "EUR", "--json", "--count", "30", "--timeout", "60"),
            *("--kind", "transfer", "--after", "0", "--connect", ",".join(nodes.addresses)),
            stdout=asyncio.subprocess.PIPE,
        )
        paid = await pay(wallet, 15)
        nodes.kill(await nodes.leader())
        await move(wallet)
        paid += await pay(wallet, 14)
        out, _ = await asyncio.wait_for(watching.communicate(), WAIT_S)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["position"] for line in lines][:15] == paid[:15]
    assert len(lines) == 30
    assert [line["credit_balance"] for line in lines] == [f"{number}.00" for number in range(1, 31)]
