"""Claim: slots move from one shard to another with their accounts and the ids that they have used, while serving."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

import bezant
from bezant.protocol.codes import ResultCode
from bezant.protocol.names import IdMaker

from ..server.node import WAIT_S
from .moving import MovingShards, open_accounts, slots_of
from .shards import CURRENCY, channel_of, names_of

DEADLINE_S = 5.0


@pytest.fixture
async def moving(tmp_path: Path) -> AsyncIterator[MovingShards]:
    started = MovingShards(tmp_path)
    await started.start()
    yield started
    await started.stop()


async def balances(wallet: bezant.Wallet, names: list[str]) -> list[int]:
    accounts = [await wallet.account(name, CURRENCY) for name in names]
    return [account.balance for account in accounts if account is not None]


async def settle(wallet: bezant.Wallet, names: list[str], expected: list[int]) -> None:
    """Return when all has arrived: a transfer is answered when it is decided."""
    async with asyncio.timeout(WAIT_S):
        while await balances(wallet, names) != expected:
            await asyncio.sleep(0.005)


async def test_accounts_move_with_their_ids(moving: MovingShards) -> None:
    async with moving.connect() as wallet:
        first, second = names_of(wallet, 0, 2)
        (far,) = names_of(wallet, 1, 1)
        await open_accounts(wallet, [first, second, far])
        ids = [os.urandom(16), IdMaker().make(), os.urandom(16)]
        paid = await wallet.transfer(first, second, "10.00", CURRENCY, id=ids[0])
        sent = await wallet.transfer(first, far, "5.00", CURRENCY, id=ids[1])
        refused = await wallet.transfer(first, second, "1000.00", CURRENCY, id=ids[2])
        assert (paid.committed, sent.committed, refused.committed) == (True, True, False)
        status = await moving.move_to_end(slots_of([first]), 0, 1)
        assert (status.phase, status.problem) == ("ended", "")
        assert await balances(wallet, [first, second, far]) == [8500, 11000, 10500]
        again = [
            await wallet.transfer(first, second, "10.00", CURRENCY, id=ids[0]),
            await wallet.transfer(first, far, "5.00", CURRENCY, id=ids[1]),
            await wallet.transfer(first, second, "1000.00", CURRENCY, id=ids[2]),
        ]
        for before, after in zip([paid, sent, refused], again, strict=True):
            assert (after.code, after.position, after.timestamp_ns) == (
                before.code,
                before.position,
                before.timestamp_ns,
            )
        assert await balances(wallet, [first, second, far]) == [8500, 11000, 10500]
        assert channel_of(wallet).slot_map.version == 2
        assert (await wallet.transfer(first, far, "1.00", CURRENCY)).committed
        assert (await wallet.transfer(first, second, "2.00", CURRENCY)).committed
        assert (await wallet.transfer(second, first, "4.00", CURRENCY)).committed
        await settle(wallet, [first, second, far], [8600, 10800, 10600])
    for node in moving.nodes:
        node.replica.ledger.check_invariants()


class Paid(NamedTuple):
    debit: str
    credit: str
    cents: int
    code: ResultCode | None
    position: int | None


class Book:
    """What clients were told."""

    def __init__(self) -> None:
        self.paid: dict[bytes, Paid] = {}

    def balances(self, names: list[str], funds: int) -> list[int]:
        left = dict.fromkeys(names, funds)
        for paid in self.paid.values():
            if paid.code is ResultCode.COMMITTED:
                left[paid.debit] -= paid.cents
                left[paid.credit] += paid.cents
        return list(left.values())


async def ask_again(wallet: bezant.Wallet, identifier: bytes, paid: Paid) -> None:
    amount = f"{paid.cents / 100:.2f}"
    again = await wallet.transfer(paid.debit, paid.credit, amount, CURRENCY, id=identifier, timeout_s=DEADLINE_S)
    assert (again.code, again.position, again.repeated) == (paid.code, paid.position, True)


async def load(wallet: bezant.Wallet, names: list[str], seed: int, stopping: asyncio.Event, book: Book) -> None:
    """Pay at random until told to stop; each transfer within a deadline, and now and then one that was paid before."""
    chance = random.Random(seed)
    while not stopping.is_set():
        debit, credit = chance.sample(names, 2)
        identifier, cents = os.urandom(16), chance.randrange(1, 300)
        result = await wallet.transfer(
            debit, credit, f"{cents / 100:.2f}", CURRENCY, id=identifier, timeout_s=DEADLINE_S
        )
        assert result.code in {ResultCode.COMMITTED, ResultCode.INSUFFICIENT_FUNDS}, result
        book.paid[identifier] = Paid(debit, credit, cents, result.code, result.position)
        if chance.random() < 0.3:
            known = chance.choice(list(book.paid))
            await ask_again(wallet, known, book.paid[known])


async def test_slots_move_there_and_back_under_load(moving: MovingShards) -> None:
    book, stopping = Book(), asyncio.Event()
    async with moving.connect() as wallet, moving.connect(1) as other:
        names = [*names_of(wallet, 0, 6), *names_of(wallet, 1, 6)]
        moved = names[2:6]
        await open_accounts(wallet, names)
        async with asyncio.TaskGroup() as tasks:
            for client in range(8):
                tasks.create_task(load(wallet if client % 2 else other, names, client, stopping, book))
            await asyncio.sleep(0.2)
            for source, target in ((0, 1), (1, 0), (0, 1)):
                status = await moving.move_to_end(slots_of(moved), source, target)
                assert (status.phase, status.problem) == ("ended", ""), status
                assert 0 < status.gap_ms < 2000
                await asyncio.sleep(0.2)
            stopping.set()
        expected = book.balances(names, 10_000)
        await settle(wallet, names, expected)
        assert len(book.paid) > 20
        for identifier, paid in book.paid.items():
            await ask_again(wallet, identifier, paid)
        assert await balances(wallet, names) == expected
    for node in moving.nodes:
        node.replica.ledger.check_invariants()
