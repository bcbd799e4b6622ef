"""Claim: what was at a time is one consistent state over all shards, and stays what it was.

Real nodes with readers. Money moves all the while between two shards; whatever time is asked for, in the wallets and in
flight there is as much as there ever was.
"""

import asyncio
import random
import time
from pathlib import Path

import pytest

import bezant
from bezant.net.client.history import CurrencySums
from bezant.protocol.errors import RequestRefused, UsageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id

from .processes import WAIT_S, running
from .shards import CURRENCY, names_of

WALLETS = 4
FUNDS = 10_000


async def fund(wallet: bezant.Wallet) -> list[str]:
    """Wallets in both shards, funded by a bank in one of them."""
    names = names_of(wallet, 0, WALLETS) + names_of(wallet, 1, WALLETS)
    await wallet.open_account("bank", CURRENCY, limit=bezant.UNLIMITED)
    for name in names:
        assert (await wallet.open_account(name, CURRENCY)).committed
        assert (await wallet.transfer("bank", name, f"{FUNDS / 100:.2f}", CURRENCY)).committed
    return names


async def pay(wallet: bezant.Wallet, names: list[str], seed: int, stopping: asyncio.Event) -> None:
    chance = random.Random(seed)
    while not stopping.is_set():
        debit, credit = chance.sample(names, 2)
        await wallet.transfer(debit, credit, f"{chance.randrange(1, 3000) / 100:.2f}", CURRENCY)


async def check_totals(wallet: bezant.Wallet, at: int | None = None) -> tuple[int, CurrencySums]:
    then = await wallet.history.totals(at=at)
    (sums,) = then.currencies
    assert then.as_of.position == 0
    assert at in (None, then.as_of.timestamp_ns)
    assert sums.in_flight >= 0
    assert sums.positive + sums.in_flight == 2 * WALLETS * FUNDS == -sums.negative
    return then.as_of.timestamp_ns, sums


async def test_what_was_at_a_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, wallet):
        before_ns = time.time_ns()
        names = await fund(wallet)
        funded_ns = (await check_totals(wallet))[0]
        ids = [account_id(name, CURRENCY) for name in names]
        stopping = asyncio.Event()
        paying = [asyncio.create_task(pay(wallet, names, seed, stopping)) for seed in range(4)]
        seen: list[tuple[int, CurrencySums, list[int]]] = []
        for number in range(12):
            moment_ns, sums = await check_totals(
                wallet, None if number % 2 else max(time.time_ns() - 20_000_000, funded_ns)
            )
            accounts = (await wallet.history.accounts(ids, at=moment_ns)).accounts
            balances = [account.balance for account in accounts if account is not None]
            assert sum(balances) + sums.in_flight == 2 * WALLETS * FUNDS
            assert sum(account.held for account in accounts if account is not None) == sums.held
            seen.append((moment_ns, sums, balances))
        stopping.set()
        await asyncio.gather(*paying)
        # Now as then, from an idle ledger; one by one as all together.
        for moment_ns, sums, balances in seen:
            assert (await check_totals(wallet, moment_ns))[1] == sums
            for name, balance in zip(names, balances, strict=True):
                as_of, account = await wallet.history.account(name, CURRENCY, at=moment_ns)
                assert account is not None
                assert (account.balance, as_of.timestamp_ns <= moment_ns) == (balance, True)
        await give_each_something(wallet, names)
        await check_what_has_just_been(wallet, names)
        await check_lines(wallet, names)
        await check_refusals(wallet, names, before_ns)


async def give_each_something(wallet: bezant.Wallet, names: list[str]) -> None:
    """Of what the richest has: those who were drawn to pay may have nothing left."""
    ids = [account_id(name, CURRENCY) for name in names]
    balances = [account.balance for account in await wallet.accounts_by_id(ids) if account is not None]
    richest = names[balances.index(max(balances))]
    for name in names:
        if name != richest:
            assert (await wallet.transfer(richest, name, "1.00", CURRENCY)).committed


async def check_what_has_just_been(wallet: bezant.Wallet, names: list[str]) -> None:
    """Now is after all that anybody has been told; also where nothing has happened for a while.

    Nobody pays those who pay: what is on its way to them would arrive between the answer and the question.
    """
    async with asyncio.timeout(WAIT_S):
        while (await check_totals(wallet))[1].in_flight:
            await asyncio.sleep(0.05)
    for debit, credit in ((names[0], names[-1]), (names[-2], names[1])):
        result = await wallet.transfer(debit, credit, "0.01", CURRENCY)
        then = await wallet.history.accounts([account_id(name, CURRENCY) for name in names])
        assert then.as_of.timestamp_ns >= result.timestamp_ns
        account = then.accounts[names.index(debit)]
        assert account is not None
        assert account.balance == result.debit_balance


async def check_lines(wallet: bezant.Wallet, names: list[str]) -> None:
    result = await wallet.transfer(names[0], names[-1], "0.05", CURRENCY)
    found = await wallet.history.transfer(result.id)
    assert [event.kind for event in found] == [CommandKind.TRY_DEBIT, CommandKind.CONFIRM]
    for reverse in (False, True):
        lines = [event.timestamp_ns async for event in wallet.history.transfers(currency=CURRENCY, reverse=reverse)]
        assert lines == sorted(lines, reverse=reverse)
        few = [event.timestamp_ns async for event in wallet.history.transfers(reverse=reverse, limit=7)]
        assert few == lines[:7]
    await wallet.hold(names[0], names[1], "0.07", CURRENCY)
    await wallet.hold(names[-1], names[-2], "0.08", CURRENCY)
    holds = [hold.remaining async for hold in wallet.history.holds() if hold.event.kind == CommandKind.HOLD]
    assert holds == [7, 8]
    first, second = [hold.event.position async for hold in wallet.history.holds()]
    assert [hold async for hold in wallet.history.holds(account=(names[-1], CURRENCY), after=second)] == []
    with pytest.raises(UsageError, match="name an account"):
        await anext(wallet.history.holds(after=first))


async def check_refusals(wallet: bezant.Wallet, names: list[str], before_ns: int) -> None:
    ids = [account_id(name, CURRENCY) for name in names]
    assert (await wallet.history.accounts(ids, at=before_ns)).accounts == [None] * len(ids)
    assert (await wallet.history.totals(at=before_ns)).currencies == []
    position = (await wallet.transfer(names[0], names[1], "0.01", CURRENCY)).position
    for asked in (wallet.history.totals(position=position), wallet.history.accounts(ids, position=position)):
        with pytest.raises(UsageError, match="a position is of one"):
            await asked
    assert (await wallet.history.account(names[0], CURRENCY, position=position))[1] is not None
    for ask in (wallet.history.totals, lambda at: wallet.history.account(names[0], CURRENCY, at=at)):
        with pytest.raises(RequestRefused, match="in the future of shard"):
            await ask(at=time.time_ns() + 60 * 10**9)
