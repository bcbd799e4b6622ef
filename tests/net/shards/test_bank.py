"""Claim: whatever is killed while money moves between shards of real nodes, none of it is lost, invented or stuck."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import bezant
from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.cli.node_process import WRITE_SIDE_COMMAND

WAIT_S = 90.0
CURRENCY = "EUR"
WALLETS = 16
FUNDS = 100_000
CLIENTS = 8
TRANSFERS = 60


def say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """Nobody listens."""


async def open_wallets(wallet: bezant.Wallet) -> list[str]:
    names = [f"wallet:{number}" for number in range(WALLETS)]
    await wallet.open_account("bank", CURRENCY, limit=bezant.UNLIMITED)
    for name in names:
        assert (await wallet.open_account(name, CURRENCY)).committed
        # The bank is in one of the shards, so half of this goes to the other one already.
        assert (await wallet.transfer("bank", name, f"{FUNDS / 100:.2f}", CURRENCY)).committed
    return names


async def pay(wallet: bezant.Wallet, names: list[str], seed: int, outcomes: Counter[str]) -> None:
    chance = random.Random(seed)
    for _ in range(TRANSFERS):
        debit, credit = chance.sample(names, 2)
        amount = f"{chance.randrange(1, 90_000) / 100:.2f}"
        result = await wallet.transfer(debit, credit, amount, CURRENCY, timeout_s=60)
        outcomes[str(result.outcome if result.committed else result.code)] += 1


async def kill_now_and_then(shards: LocalShards, stopping: asyncio.Event) -> None:
    for shard in (0, 1, 0):
        await asyncio.sleep(0.7)
        for node in shards.shards[shard].nodes.values():
            node.kill()
    stopping.set()


async def settled(wallet: bezant.Wallet, names: list[str]) -> list[bezant.Account]:
    """The accounts, when nothing is held or expected on any of them any more."""
    async with asyncio.timeout(WAIT_S):
        while True:
            accounts = [account for name in names if (account := await wallet.account(name, CURRENCY)) is not None]
            if len(accounts) == len(names) and not any(account.held or account.incoming for account in accounts):
                return accounts
            await asyncio.sleep(0.05)


def transactions(addresses: list[str]) -> dict[str, Any]:
    """What `bezant transactions` says, when all shards have settled what has ended."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        command = [sys.executable, "-m", "bezant", "transactions", "--json", "--connect", ",".join(addresses)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S).stdout)
        if not told["count"] or time.monotonic() > deadline_s:
            return dict(told)


async def test_money_is_conserved_while_shards_are_killed(tmp_path: Path) -> None:
    init_shards(tmp_path, Plan(2, 1, 0))
    outcomes: Counter[str] = Counter()
    async with LocalShards(tmp_path, say_nothing, command=WRITE_SIDE_COMMAND) as shards:
        stopping = asyncio.Event()
        watching = asyncio.create_task(shards.watch(stopping))
        async with bezant.connect(",".join(shards.addresses), timeout_s=60) as wallet:
            names = await open_wallets(wallet)
            killing = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(kill_now_and_then(shards, killing))
                for client in range(CLIENTS):
                    tasks.create_task(pay(wallet, names, client, outcomes))
            accounts = await settled(wallet, names)
            told = await asyncio.to_thread(transactions, shards.addresses)
            assert (told["in_flight"], told["transfers"], told["count"]) == ({}, [], 0)
            assert sum(account.balance for account in accounts) == WALLETS * FUNDS
            assert all(account.balance >= 0 for account in accounts)
            bank = await wallet.account("bank", CURRENCY)
            assert bank is not None
            assert bank.balance == -WALLETS * FUNDS
        stopping.set()
        await watching
        await shards.stop()
    assert killing.is_set()
    assert sum(outcomes.values()) == CLIENTS * TRANSFERS
    assert outcomes[str(bezant.Outcome.COMMITTED)] > CLIENTS * TRANSFERS // 4
