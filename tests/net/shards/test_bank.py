"""Claim: whatever is killed while money moves between shards of real nodes, none of it is lost, invented or stuck."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import bezant
from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.cli.node_process import WRITE_SIDE_COMMAND

from .processes import SMALL, verified

Paying = Callable[[bezant.Wallet, list[str], int, "Told"], Coroutine[Any, Any, None]]
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


class Told:
    """What clients were told: outcomes, and by how much that changes the balances."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()

    def note(self, result: bezant.Result | bezant.TransactionResult, *legs: tuple[str, str, int]) -> None:
        self.outcomes[str(result.outcome if result.committed else result.code)] += 1
        for debit, credit, cents in legs if result.committed else ():
            self.moved[debit] -= cents
            self.moved[credit] += cents


async def pay(wallet: bezant.Wallet, names: list[str], seed: int, told: Told) -> None:
    chance = random.Random(seed)
    for _ in range(TRANSFERS):
        debit, credit = chance.sample(names, 2)
        cents = chance.randrange(1, 90_000)
        result = await wallet.transfer(debit, credit, f"{cents / 100:.2f}", CURRENCY, timeout_s=60)
        told.note(result, (debit, credit, cents))


async def pay_several(wallet: bezant.Wallet, names: list[str], seed: int, told: Told) -> None:
    """So little at a time that nobody has spent what a saga has to take back; some of it cannot be done."""
    chance = random.Random(seed)
    for number in range(TRANSFERS // 3):
        payees = [*names, "nobody:1"] if number % 3 == 0 else names
        pairs = [(chance.choice(names), chance.choice(payees)) for _ in range(chance.randrange(2, 7))]
        legs = [(debit, credit, chance.randrange(1, 200)) for debit, credit in pairs if debit != credit]
        if not legs:
            continue
        asked = [(debit, credit, f"{cents / 100:.2f}", CURRENCY) for debit, credit, cents in legs]
        mode = chance.choice(["tcc", "saga"])
        told.note(await wallet.transaction(asked, mode=mode, timeout_s=60, await_applied=number % 2 == 0), *legs)


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


@pytest.mark.parametrize("paying", [pay, pay_several])
async def test_money_is_conserved_while_shards_are_killed(tmp_path: Path, paying: Paying) -> None:
    init_shards(tmp_path, Plan(2, 1, 0))
    told = Told()
    async with LocalShards(tmp_path, say_nothing, arguments=SMALL, command=WRITE_SIDE_COMMAND) as shards:
        stopping = asyncio.Event()
        watching = asyncio.create_task(shards.watch(stopping))
        async with bezant.connect(",".join(shards.addresses), timeout_s=60) as wallet:
            names = await open_wallets(wallet)
            killing = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(kill_now_and_then(shards, killing))
                for client in range(CLIENTS):
                    tasks.create_task(paying(wallet, names, client, told))
            accounts = await settled(wallet, names)
            left = await asyncio.to_thread(transactions, shards.addresses)
            assert (left["in_flight"], left["transfers"], left["transactions"], left["count"]) == ({}, [], [], 0)
            accounts = await settled(wallet, names)
            assert [account.balance - FUNDS for account in accounts] == [told.moved[name] for name in names]
            assert sum(account.balance for account in accounts) == WALLETS * FUNDS
            assert all(account.balance >= 0 for account in accounts)
            bank = await wallet.account("bank", CURRENCY)
            assert bank is not None
            assert bank.balance == -WALLETS * FUNDS
        stopping.set()
        await watching
        await shards.stop()
    report = verified(tmp_path)
    assert (report.open, [flight.amount for flight in report.in_flight]) == (0, [0])
    assert report.transfers >= report.confirmed > 0
    assert killing.is_set()
    assert str(None) not in told.outcomes
    assert told.outcomes[str(bezant.Outcome.COMMITTED)] > told.outcomes.total() // 4
    assert told.outcomes.total() > CLIENTS * TRANSFERS // 4
