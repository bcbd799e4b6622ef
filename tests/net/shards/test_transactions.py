"""Claim: a client has several transfers done as a whole, whichever shards they are in, and learns what became of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import bezant
from bezant.engine.compiled import COMPILED
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.shard_links import ShardLinks

from .shards import CURRENCY, Shards, compiled_for, names_of

LEGS = 100


@pytest.fixture
async def paying(shards: Shards) -> AsyncIterator[tuple[Shards, bezant.Wallet]]:
    """Shards whose leaders carry on what goes between them, and a client."""
    all_links = []
    for node in shards.nodes:
        reactor = node.reactor
        assert reactor.placing is not None
        links = ShardLinks(reactor.placing.addresses_of)
        all_links.append(links)
        reactor.coordinator = Coordinator(reactor.member, reactor.placing, links, reactor.legs, reactor.schedule)
    async with shards.connect() as wallet:
        yield shards, wallet
    for links in all_links:
        await links.close()


async def open_accounts(wallet: bezant.Wallet, payer: str, names: list[str]) -> None:
    await wallet.open_account(payer, CURRENCY, limit=bezant.UNLIMITED)
    for name in names:
        assert (await wallet.open_account(name, CURRENCY)).committed


async def balances(wallet: bezant.Wallet, names: list[str]) -> list[int]:
    accounts = [await wallet.account(name, CURRENCY) for name in names]
    return [account.balance for account in accounts if account is not None]


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
async def test_nobody_waits_for_a_compiler(
    paying: tuple[Shards, bezant.Wallet], compiled: dict[str, list[Any]]
) -> None:
    """One transfer, several at once, one that is asked for again, and both ways of a transaction."""
    _, wallet = paying
    payer, first = names_of(wallet, 0, 2)
    second, unknown = names_of(wallet, 1, 2)
    await open_accounts(wallet, payer, [first, second])
    paid = await wallet.transfer(payer, second, "1.00", CURRENCY)
    assert (await wallet.transfer(payer, second, "1.00", CURRENCY, id=paid.id)).repeated
    several = await asyncio.gather(*(wallet.transfer(payer, second, "1.00", CURRENCY) for _ in range(9)))
    assert all(result.committed for result in several)
    legs = [(payer, name, "5.00", CURRENCY) for name in (first, second, unknown)]
    for mode in ("tcc", "saga"):
        assert not (await wallet.transaction(legs, mode=mode, await_applied=True)).committed
        assert (await wallet.transaction(legs[:2], mode=mode, await_applied=True)).committed
    # Some seconds at the first transfer of all would be longer than a client waits.
    assert compiled_for() == compiled


@pytest.mark.parametrize("mode", ["tcc", "saga"])
async def test_a_payout_to_a_hundred_wallets(paying: tuple[Shards, bezant.Wallet], mode: str) -> None:
    _, wallet = paying
    payer, *names = names_of(wallet, 0, LEGS // 2 + 1) + names_of(wallet, 1, LEGS // 2)
    await open_accounts(wallet, payer, names)
    legs = [(payer, name, f"{number}.00", CURRENCY) for number, name in enumerate(names, start=1)]
    paid = await wallet.transaction(legs, mode=mode, await_applied=True)
    assert (paid.committed, paid.applied, paid.repeated, paid.leg) == (True, True, False, None)
    assert await balances(wallet, names) == [100 * number for number in range(1, LEGS + 1)]
    again = await wallet.transaction(legs, mode=mode, await_applied=True, id=paid.id)
    assert (again.committed, again.applied, again.repeated) == (True, True, True)
    assert await balances(wallet, [payer]) == [-100 * LEGS * (LEGS + 1) // 2]
    other = await wallet.transaction([*legs[:-1], (payer, names[-1], "7.00", CURRENCY)], mode=mode, id=paid.id)
    assert (other.code, other.leg) == (bezant.ResultCode.ID_CONFLICT, LEGS - 1)
    assert other.conflict_field is not None
    assert other.conflict_field.name == "AMOUNT"


@pytest.mark.parametrize("mode", ["tcc", "saga"])
async def test_one_leg_that_is_refused_refuses_all(paying: tuple[Shards, bezant.Wallet], mode: str) -> None:
    _, wallet = paying
    payer, first = names_of(wallet, 0, 2)
    second, unknown = names_of(wallet, 1, 2)
    await open_accounts(wallet, payer, [first, second])
    legs = [(payer, name, "5.00", CURRENCY) for name in (first, second, unknown)]
    paid = await wallet.transaction(legs, mode=mode, await_applied=True)
    assert (paid.outcome, paid.code) == (bezant.Outcome.REJECTED, bezant.ResultCode.CREDIT_ACCOUNT_UNKNOWN)
    assert (paid.leg, paid.applied) == (2, True)
    assert await balances(wallet, [payer, first, second]) == [0, 0, 0]
    settled = await wallet.resolve(paid.id, payer, CURRENCY)
    assert settled.code == bezant.ResultCode.CREDIT_ACCOUNT_UNKNOWN


async def test_a_client_with_an_old_map_finds_who_coordinates(paying: tuple[Shards, bezant.Wallet]) -> None:
    shards, wallet = paying
    payer, payee = names_of(wallet, 0, 2)
    shards.move([payer, payee], 1, 0, 1)
    async with shards.connect() as newer:
        await open_accounts(newer, payer, [payee])
    paid = await wallet.transaction([(payer, payee, "1.00", CURRENCY), (payer, payee, "2.00", CURRENCY)])
    assert paid.committed
    assert shards.nodes[1].reactor.replica.ledger.next_sequence > 3
