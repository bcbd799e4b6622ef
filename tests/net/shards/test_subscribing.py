"""Claim: of several shards a subscriber is told everything once, each shard's events in order, wherever it goes on."""

import asyncio
from pathlib import Path

import pytest

import bezant
from bezant.net.client.subscription import Subscription
from bezant.net.client.subscription_over_shards import (
    SubscriptionOverShards,
    advanced,
    after_in,
    read_token,
    write_token,
)
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import position_of, split_position

from .processes import WAIT_S, running
from .shards import CURRENCY, names_of

PAID = 20


def test_a_token_has_a_position_of_each_shard() -> None:
    first, second = position_of(0, 7), position_of(1, 9)
    token = write_token({1: second, 0: first})
    assert read_token(token) == {0: first, 1: second}
    assert read_token(advanced(token, position_of(1, 10))) == {0: first, 1: position_of(1, 10)}
    assert [after_in(token, shard) for shard in (0, 1, 2)] == [first, second, 0]
    assert [after_in(after, 1) for after in (None, 0, 5, write_token({1: 0}))] == [None, 0, 5, 0]
    for wrong in ("", "1,", "noon", f"{first},{first}"):
        with pytest.raises(UsageError):
            read_token(wrong)


async def take(subscription: bezant.Subscription | SubscriptionOverShards, count: int) -> list[bezant.Event]:
    events: list[bezant.Event] = []
    async with asyncio.timeout(WAIT_S):
        async for event in subscription:
            events.append(event)
            if len(events) == count:
                return events
    raise AssertionError("it ended")


def check_order(events: list[bezant.Event]) -> None:
    positions = [event.position for event in events]
    assert len(set(positions)) == len(positions)
    for shard in (0, 1):
        own = [position for position in positions if split_position(position)[0] == shard]
        assert own == sorted(own)


async def pay(wallet: bezant.Wallet, pairs: list[tuple[str, str]], first: int) -> set[bytes]:
    """In each shard by itself, so that each is one event."""
    paid = [await wallet.transfer(*pairs[number % 2], "0.01", CURRENCY, code=first + number) for number in range(PAID)]
    assert all(result.committed for result in paid)
    return {result.id for result in paid}


async def test_a_subscription_over_shards_goes_on_where_it_was(tmp_path: Path) -> None:
    async with running(tmp_path) as (shards, wallet):
        pairs = [tuple(names_of(wallet, shard, 2)) for shard in (0, 1)]
        names = [name for pair in pairs for name in pair]
        for name in names:
            assert (await wallet.open_account(name, CURRENCY, limit=bezant.UNLIMITED)).committed
        wanted = {"accounts": names, "currency": CURRENCY, "kinds": ["transfer"]}
        with pytest.raises(UsageError, match="a position is of one"):
            wallet.subscribe(**wanted, after=position_of(1, 3))
        assert isinstance(wallet.subscribe(accounts=pairs[0]), Subscription)

        first = wallet.subscribe(**wanted)
        async with first:
            assert isinstance(first, SubscriptionOverShards)
            ids = await pay(wallet, pairs, 0)
            events = await take(first, 7)
            token = first.position
        events += await take(wallet.subscribe(**wanted, after=token), PAID - 7)
        assert {event.id for event in events} == ids
        check_order(events)

        # From the beginning, and everything there is; a node is lost meanwhile, and comes back.
        everything = wallet.subscribe(after=0)
        begun = await take(everything, len(names) + 5)
        for node in shards.shards[1].nodes.values():
            node.kill()
        stopping = asyncio.Event()
        watching = asyncio.create_task(shards.watch(stopping))
        ids |= await pay(wallet, pairs, 100)
        begun += await take(everything, 2 * PAID - 5)
        assert {event.id for event in begun if event.kind == CommandKind.TRANSFER} == ids
        check_order(begun)
        await everything.close()

        # By a name, in each shard.
        named = wallet.subscribe(**wanted, after=0, name="mail")
        told = await take(named, 9)
        await named.acknowledge()
        await named.close()
        named = wallet.subscribe(**wanted, name="mail")
        told += await take(named, 2 * PAID - 9)
        assert {event.id for event in told} == ids
        check_order(told)
        stopping.set()
        await watching
