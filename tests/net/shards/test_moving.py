"""Claim: slots move from one shard to another with their accounts and the ids that they have used, while serving."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import bezant
from bezant.protocol.names import IdMaker

from ..server.node import WAIT_S
from .moving import MovingShards, open_accounts, slots_of
from .shards import CURRENCY, channel_of, names_of


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
