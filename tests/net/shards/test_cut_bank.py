"""Claim: whatever is cut or killed while money moves both ways between shards of several nodes, none of it is lost,
invented or stuck; and whatever past time is asked for meanwhile, there was all of it."""

import asyncio
import os
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import bezant
from bezant.engine.verify import verify
from bezant.engine.verifying.over_shards import verify_over_shards
from bezant.net.client.history import CurrencySums
from bezant.perf.failover.network import CLIENTS

from .cabled import OTHER_SHARD, TOKEN, CabledShard, running
from .shards import CURRENCY, names_of
from .test_bank import Told, settled, transactions

WALLETS = 4
"""In each shard."""
FUNDS = 1_000_000
TOTAL = 2 * WALLETS * FUNDS
PAYERS = 4
PAYERS_OF_SEVERAL = 2
WAIT_S = 60.0
TEST_S_MAX = 150.0
PAUSE_S = 0.005
MORE = 60
LONGER_THAN_A_TRY_S = 3.3
LOOKS_MIN = 20
"""At totals, while things are cut and killed."""
CODES = {bezant.ResultCode.COMMITTED, bezant.ResultCode.SHARD_UNREACHABLE, bezant.ResultCode.CREDIT_ACCOUNT_UNKNOWN}
Legs = Sequence[tuple[str, str, int]]


class Asked(NamedTuple):
    """What a client has asked for, and been told."""

    id: bytes
    legs: Legs
    mode: str
    result: bezant.Result | bezant.TransactionResult


class Clients:
    """Those who pay, until they are told to stop, and what they were told."""

    def __init__(self, wallet: bezant.Wallet, names: list[str]) -> None:
        self.wallet = wallet
        self.names = names
        self.told = Told()
        self.asked: list[Asked] = []
        self.stopping = asyncio.Event()

    async def ask(self, identifier: bytes, legs: Legs, mode: str) -> bezant.Result | bezant.TransactionResult:
        if not mode:
            ((debit, credit, cents),) = legs
            amount = f"{cents / 100:.2f}"
            return await self.wallet.transfer(debit, credit, amount, CURRENCY, id=identifier, timeout_s=WAIT_S)
        asked = [(debit, credit, f"{cents / 100:.2f}", CURRENCY) for debit, credit, cents in legs]
        return await self.wallet.transaction(asked, mode=mode, id=identifier, timeout_s=WAIT_S)

    async def pay(self, seed: int, *, several: bool) -> None:
        """So little at a time that nobody has spent what a saga has to take back."""
        chance = random.Random(seed)
        while not self.stopping.is_set():
            payees = [*self.names, "nobody:1"] if several and chance.random() < 0.2 else self.names
            pairs = [(chance.choice(self.names), chance.choice(payees)) for _ in range(4 if several else 1)]
            legs = [(debit, credit, chance.randrange(1, 500)) for debit, credit in pairs if debit != credit]
            if legs:
                identifier, mode = os.urandom(16), chance.choice(["tcc", "saga"]) if several else ""
                result = await self.ask(identifier, legs, mode)
                assert result.code in CODES, result
                self.told.note(result, *legs)
                self.asked.append(Asked(identifier, legs, mode, result))
            await asyncio.sleep(PAUSE_S)

    async def paid_more(self) -> None:
        """Return when so many more have been told of something, as they are soon after all is well."""
        count = len(self.asked) + MORE
        async with asyncio.timeout(WAIT_S):
            while len(self.asked) < count:
                await asyncio.sleep(0.02)

    async def ask_again(self) -> None:
        """All that was told is what has happened, and nothing happens by asking."""
        for first in range(0, len(self.asked), 500):
            part = self.asked[first : first + 500]
            again = await asyncio.gather(*(self.ask(one.id, one.legs, one.mode) for one in part))
            for one, result in zip(part, again, strict=True):
                assert result.repeated, one
                assert result.code == one.result.code, one
                if isinstance(result, bezant.Result) and isinstance(one.result, bezant.Result):
                    assert result.position == one.result.position


async def fund(wallet: bezant.Wallet) -> list[str]:
    names = names_of(wallet, 0, WALLETS) + names_of(wallet, 1, WALLETS)
    await wallet.open_account("bank", CURRENCY, limit=bezant.UNLIMITED)
    for name in names:
        assert (await wallet.open_account(name, CURRENCY)).committed
        assert (await wallet.transfer("bank", name, f"{FUNDS / 100:.2f}", CURRENCY)).committed
    return names


async def totals(wallet: bezant.Wallet, at: int | None = None) -> tuple[int, CurrencySums]:
    then = await wallet.history.totals(at=at)
    (sums,) = then.currencies
    assert sums.positive + sums.in_flight == TOTAL, (then.as_of, sums)
    return then.as_of.timestamp_ns, sums


async def look(wallet: bezant.Wallet, funded_ns: int, seen: list[tuple[int, CurrencySums]]) -> None:
    """Until cancelled: now, and at any time since the wallets were funded."""
    chance = random.Random(7)
    while True:
        past_ns = chance.randrange(funded_ns, max(time.time_ns() - 20_000_000, funded_ns + 1))
        seen.append(await totals(wallet, chance.choice([None, past_ns])))
        await asyncio.sleep(PAUSE_S)


async def cut_and_kill(clients: Clients, first: CabledShard, second: CabledShard) -> None:
    """A node that was killed is back after a second or two: what is cut meanwhile is cut while it starts."""
    both = (first, second)
    await clients.paid_more()
    await cut_for(LONGER_THAN_A_TRY_S, both, OTHER_SHARD)
    await clients.paid_more()
    first.kill()
    await cut_for(1.0, [second], CLIENTS, OTHER_SHARD)
    await clients.paid_more()
    second.kill()
    await cut_for(1.5, both, OTHER_SHARD)
    await clients.paid_more()
    await cut_for(0.5, [first], OTHER_SHARD)  # It hears the other one, which does not hear it.
    first.kill()
    await clients.paid_more()


async def cut_for(seconds: float, shards: Iterable[CabledShard], *diallers: int) -> None:
    for shard in shards:
        shard.cut_off(*diallers)
    await asyncio.sleep(seconds)
    for shard in shards:
        shard.cut_off()


async def test_all_money_is_there_at_any_time_whatever_is_cut_or_killed(tmp_path: Path) -> None:
    async with asyncio.timeout(TEST_S_MAX), running(tmp_path) as shards:
        addresses = [shard.address for shard in shards]
        async with bezant.connect(",".join(addresses), timeout_s=WAIT_S, token=TOKEN) as wallet:
            names = await fund(wallet)
            clients, seen = Clients(wallet, names), [await totals(wallet)]
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(look(wallet, seen[0][0], seen))
                for seed in range(PAYERS + PAYERS_OF_SEVERAL):
                    tasks.create_task(clients.pay(seed, several=seed >= PAYERS))
                await cut_and_kill(clients, *shards)
                looks = len(seen)
                clients.stopping.set()
                looking.cancel()
            accounts = await settled(wallet, names)
            left = await asyncio.to_thread(transactions, addresses)
            assert (left["in_flight"], left["transfers"], left["transactions"], left["count"]) == ({}, [], [], 0)
            await clients.ask_again()
            accounts = await settled(wallet, names)
            moved = clients.told.moved
            assert [account.balance - FUNDS for account in accounts] == [moved[name] for name in names]
            for moment_ns, sums in seen[::10]:
                assert await totals(wallet, moment_ns) == (moment_ns, sums)
    folders = {number: shard.data for number, shard in enumerate(shards)}
    for folder in folders.values():
        verify(folder)
    report = verify_over_shards(folders)
    assert (report.open, [flight.amount for flight in report.in_flight]) == (0, [0])
    assert report.confirmed > 0
    assert looks >= LOOKS_MIN
    outcomes = clients.told.outcomes
    assert outcomes[str(bezant.ResultCode.SHARD_UNREACHABLE)] > 0
    assert outcomes[str(bezant.Outcome.COMMITTED)] > outcomes.total() // 4
