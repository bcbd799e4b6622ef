"""Claim: a wallet's subscription tells everything in order, once, whatever ends meanwhile: reader, node, connection."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import bezant
from bezant.cli.node_process import NodeProcess as SharedNode
from bezant.cli.ports import free_addresses
from bezant.net.client import subscription as subscription_module
from bezant.net.client.subscription import Subscription, reader_address
from bezant.net.client.wallet import Wallet
from bezant.protocol.errors import ConnectionFailed, InvalidAmountOrName, RequestRefused, UsageError
from bezant.protocol.frames import FILTER_ACCOUNTS_MAX, FrameError
from bezant.protocol.kinds import CommandKind

from ..server.process import NodeProcess, running
from ..server.test_reading import children
from .conftest import WAIT_S


@pytest.fixture
async def books(wallet: Wallet) -> Wallet:
    """A wallet with three accounts."""
    assert (await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)).committed
    for name in ("ann", "bob"):
        assert (await wallet.open_account(name, "EUR")).committed
    return wallet


async def pay(wallet: Wallet, count: int = 1, credit: str = "ann") -> list[int]:
    """Positions of transfers that are committed."""
    results = await asyncio.gather(*(wallet.transfer("world", credit, "1.00", "EUR") for _ in range(count)))
    assert all(result.committed for result in results)
    return sorted(result.position or 0 for result in results)


async def positions(subscription: Subscription, count: int) -> list[int]:
    async with asyncio.timeout(WAIT_S):
        return [(await anext(subscription)).position for _ in range(count)]


@pytest.fixture(scope="module")
def opened(shared_node: SharedNode) -> SharedNode:
    """The node that many of these tests share, with the same accounts. What others did before is behind them: they ask
    for what comes from now on, and each by a name of its own."""
    with bezant.connect_blocking(shared_node.address, timeout_s=WAIT_S) as wallet:
        assert wallet.open_account("world", "EUR", limit=bezant.UNLIMITED).committed
        for name in ("ann", "bob"):
            assert wallet.open_account(name, "EUR").committed
    return shared_node


@pytest.fixture
def shared_books(opened: SharedNode, shared_wallet: Wallet) -> Wallet:
    return shared_wallet


async def kill_reader(node: NodeProcess) -> None:
    async with asyncio.timeout(WAIT_S):
        while not (found := children(node)):
            await asyncio.sleep(0.02)
    os.kill(found[0], signal.SIGKILL)


async def test_everything_that_an_event_says(books: Wallet) -> None:
    subscription = books.subscribe(accounts=["ann"], currency="EUR", after=0)
    assert subscription.position is None
    (position,) = await pay(books)
    opened, paid = [await anext(subscription) for _ in range(2)]
    assert (opened.kind, opened.name) == (CommandKind.OPEN, "ann")
    assert (paid.kind, paid.position, paid.currency) == (CommandKind.TRANSFER, position, "EUR")
    assert (paid.amount_text, paid.credit_balance_text, paid.committed) == ("1.00", "1.00", True)
    assert paid == await _looked_up(books, paid)
    assert subscription.position == position
    assert subscription.statistics() == (2, 0, 1)
    await subscription.close()


async def _looked_up(wallet: Wallet, event: bezant.Event) -> bezant.Event | None:
    import msgspec

    found = await wallet.event(event.id, "world", "EUR")
    return None if found is None else msgspec.structs.replace(found, currency="EUR")


async def test_filters(books: Wallet) -> None:
    hold = await books.hold("world", "bob", "2.00", "EUR")
    refused = await books.transfer("bob", "ann", "99.00", "EUR")
    (paid,) = await pay(books)

    async def told(**wanted: object) -> list[int]:
        async with books.subscribe(after=0, **wanted) as subscription:  # type: ignore[arg-type]
            found: list[int] = []
            reached: int | None = None
            async with asyncio.timeout(WAIT_S):
                while reached != paid:
                    await subscription._take()  # events, or progress
                    reached = subscription.position
                    while subscription._events:
                        found.append(reached := (await anext(subscription)).position)
            return found

    assert await told(kinds=["hold"]) == [hold.position]
    assert await told(kinds=["hold", CommandKind.TRANSFER], accounts=[("ann", "EUR")]) == [paid]
    assert await told(accounts=["bob"], refused=True, kinds=["transfer"]) == [refused.position]
    assert len(await told(accounts=["bob"])) == 2  # opened, held
    assert await told(currency="USD") == []
    assert len(await told()) == 5


async def test_now_begins_when_it_is_entered(shared_books: Wallet) -> None:
    await pay(shared_books)
    async with shared_books.subscribe(accounts=["ann"], currency="EUR") as subscription:
        paid = await pay(shared_books, 5)
        assert await positions(subscription, 5) == paid
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)


async def test_what_cannot_be_asked(shared_books: Wallet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kind 'gift'"):
        shared_books.subscribe(kinds=["gift"])
    with pytest.raises(UsageError, match="no spaces"):
        shared_books.subscribe(name="two words")
    with pytest.raises(UsageError, match="at most"):
        await anext(shared_books.subscribe(accounts=[bytes([1]) * 16] * (FILTER_ACCOUNTS_MAX + 1)))
    with pytest.raises(InvalidAmountOrName, match="not registered"):
        await anext(shared_books.subscribe(currency="XYZ"))
    with pytest.raises(RequestRefused, match="another shard") as refused:
        await shared_books.subscribe(after=2**60).begin()
    assert refused.value.code == FrameError.REQUEST_REFUSED
    with pytest.raises(UsageError, match="has a name"):
        await shared_books.subscribe().acknowledge()
    async with bezant.open(tmp_path / "embedded") as embedded:
        with pytest.raises(UsageError, match="run a node"):
            embedded.subscribe()


async def test_a_position_ahead_of_all_is_refused_in_the_end(shared_books: Wallet) -> None:
    await shared_books.subscribe().begin()
    with pytest.raises(RequestRefused, match="events ahead") as refused:
        await shared_books.subscribe(after=1_000_000, lost_s_max=0.1).begin()
    assert refused.value.code == FrameError.BEHIND


async def test_a_reader_that_is_killed_under_load_costs_nothing(books: Wallet, node: NodeProcess) -> None:
    async with books.subscribe(accounts=["ann"], currency="EUR") as subscription:
        paid: list[int] = []
        for round_number in range(6):
            paid += await pay(books, 200)
            if round_number in (1, 3):
                await kill_reader(node)
        assert await positions(subscription, len(paid)) == paid
        assert subscription.statistics().connections >= 2


async def test_a_node_that_is_killed_and_started_again_costs_nothing(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    options = ["--listen", address]
    async with (
        running(tmp_path / "data", reader=True, options=options) as node,
        bezant.connect(address, timeout_s=WAIT_S) as wallet,
    ):
        await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
        await wallet.open_account("ann", "EUR")
        subscription = wallet.subscribe(accounts=["ann"], currency="EUR")
        await subscription.begin()
        paid = await pay(wallet, 100)
        await node.end(signal.SIGKILL)
        async with running(tmp_path / "data", reader=True, options=options):
            paid += await pay(wallet, 100)
            assert await positions(subscription, len(paid)) == paid


async def test_a_caller_that_does_not_take_is_told_all_when_it_does(shared_books: Wallet, monkeypatch) -> None:
    monkeypatch.setattr(subscription_module, "QUEUE_BYTES_MAX", 64 << 10)
    async with shared_books.subscribe(accounts=["ann"], currency="EUR") as subscription:
        paid: list[int] = []
        for _ in range(40):
            paid += await pay(shared_books, 500)
        assert subscription.statistics().waiting < 20_000
        assert await positions(subscription, len(paid)) == paid


async def test_a_name_goes_on_where_it_was_acknowledged(shared_books: Wallet) -> None:
    async with shared_books.subscribe(accounts=["ann"], currency="EUR", name="mail") as subscription:
        paid = await pay(shared_books, 10)
        assert await positions(subscription, 4) == paid[:4]
        await subscription.acknowledge()
        assert await positions(subscription, 2) == paid[4:6]
    async with shared_books.subscribe(accounts=["ann"], currency="EUR", name="mail") as subscription:
        assert await positions(subscription, 6) == paid[4:]


async def test_without_a_reader_it_says_so(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "data") as node,
        bezant.connect("{}:{}".format(*node.address), timeout_s=WAIT_S) as wallet,
    ):
        with pytest.raises(ConnectionFailed, match="has no reader"):
            await anext(wallet.subscribe(lost_s_max=0.2))


@pytest.fixture
async def blocking(opened: SharedNode) -> AsyncIterator[bezant.BlockingWallet]:
    made = await asyncio.to_thread(bezant.connect_blocking, opened.address, timeout_s=WAIT_S)
    yield made
    await asyncio.to_thread(made.close)


async def test_without_await(blocking: bezant.BlockingWallet) -> None:
    def work() -> None:
        with blocking.subscribe(accounts=["ann"], currency="EUR", name="letters") as subscription:
            paid = [blocking.transfer("world", "ann", "1.00", "EUR").position for _ in range(5)]
            assert [next(subscription).position for _ in paid] == paid
            assert subscription.position == paid[-1]
            subscription.acknowledge()
        assert list(subscription) == []

    await asyncio.to_thread(work)


@pytest.mark.parametrize(
    ("told", "node", "address"),
    [
        ("", "a:1", ""),
        ("10.0.0.1:5", "a:1", "10.0.0.1:5"),
        ("0.0.0.0:5", "a:1", "a:5"),
        ("[::]:5", "[fe80::1]:1", "[fe80::1]:5"),
        ("[::1]:5", "a:1", "[::1]:5"),
    ],
)
def test_where_a_reader_is(told: str, node: str, address: str) -> None:
    assert reader_address(told, node) == address
