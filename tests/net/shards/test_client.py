"""Claim: a client of several shards is used as one of a group is, and follows the slot map without losing a command."""

import asyncio
import os

import numpy as np
import pytest

import bezant
from bezant.net.client import sharding
from bezant.net.client.channel import CODE_UNKNOWN, DETAIL_UNSURE, OutcomeUnknown, certain_results
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, RequestTimedOut, UsageError
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, Records, id_words

from .shards import CURRENCY, Shards, channel_of, names_of

WRONG = int(ResultCode.WRONG_SHARD)
DEADLINE_S = 1.0
"""Within which a shard answers, however busy this machine is."""


async def open_all(wallet: bezant.Wallet, *names: str) -> None:
    results = await asyncio.gather(*(wallet.open_account(name, CURRENCY, limit=bezant.UNLIMITED) for name in names))
    assert all(result.committed for result in results)


def transfers(*pairs: tuple[str, str], amount: int = 1) -> Records:
    commands = np.zeros(len(pairs), COMMAND)
    for number, pair in enumerate(pairs):
        for field, identifier in zip(("debit", "credit"), pair, strict=True):
            head, tail = id_words(account_id(identifier, CURRENCY))
            commands[number][f"{field}_head"], commands[number][f"{field}_tail"] = head, tail
    commands["id_head"] = np.frombuffer(os.urandom(8 * len(pairs)), np.int64)
    commands["id_tail"] = 1
    commands["amount"] = amount
    commands["kind"] = CommandKind.TRANSFER
    return commands


async def balances(wallet: bezant.Wallet, *names: str) -> list[int]:
    accounts = await wallet.accounts_by_id([account_id(name, CURRENCY) for name in names])
    return [account.balance for account in accounts if account is not None]


@pytest.mark.parametrize("shard", [0, 1])
async def test_accounts_of_all_shards_are_reached_through_a_node_of_any(shards: Shards, shard: int) -> None:
    async with shards.connect(shard) as wallet:
        (a0, b0), (a1, b1) = names_of(wallet, 0, 2), names_of(wallet, 1, 2)
        await open_all(wallet, a0, a1, b1, b0)
        for debit, credit in ((a0, b0), (a1, b1), (b1, a1), (a1, b1)):
            assert (await wallet.transfer(debit, credit, "1.00", CURRENCY)).committed
        assert await balances(wallet, a0, a1, b0, b1) == [-100, -100, 100, 100]
        assert [account.name async for account in wallet.accounts()] == [a0, b0, a1, b1]
        assert wallet.welcome.shard == shard
        found = await wallet.event((await wallet.transfer(a1, b1, "1.00", CURRENCY)).id, a1, CURRENCY)
        assert found is not None
        assert found.amount == 100
    for node, names in zip(shards.nodes, ([a0, b0], [a1, b1]), strict=True):
        assert node.replica.ledger.account_count == len(names)


async def test_the_results_of_an_array_come_in_its_order(shards: Shards) -> None:
    async with shards.connect() as wallet:
        (a0, b0), (a1, b1) = names_of(wallet, 0, 2), names_of(wallet, 1, 2)
        await open_all(wallet, a0, a1, b0, b1)
        drawn = np.random.default_rng(3).integers(0, 3, 5000).tolist()
        pairs = [((a0, b0), (a1, b1), ("wallet:nobody", b0))[number] for number in drawn]
        results = await wallet.submit(transfers(*pairs, amount=7))
        unknown = int(ResultCode.DEBIT_ACCOUNT_UNKNOWN)
        assert results["code"].tolist() == [unknown if number == 2 else 0 for number in drawn]
        balance = {0: 0, 1: 0}
        for number, result in zip(drawn, results, strict=True):
            if number != 2:
                balance[number] += 7
                assert int(result["credit_balance"]) == balance[number]


async def test_commands_of_one_account_keep_their_order(shards: Shards) -> None:
    """Whether they go out alone or among those of other shards."""
    async with shards.connect() as wallet:
        (a0, b0), (a1, b1) = names_of(wallet, 0, 2), names_of(wallet, 1, 2)
        await open_all(wallet, a0, a1, b0, b1)
        channel = channel_of(wallet)
        asked = [
            channel.submit(transfers((a1, b1), (a0, b0)) if number % 2 else transfers((a0, b0))) for number in range(60)
        ]
        answers = await asyncio.gather(*asked)
        assert [int(rows["credit_balance"][-1]) for rows in answers] == list(range(1, 61))


async def test_what_a_slot_took_along_is_asked_for_where_it_went(shards: Shards) -> None:
    async with shards.connect() as wallet:
        names = names_of(wallet, 0, 3)
        await open_all(wallet, names[0])
        shards.move(names[1:], 1, 0, 1)
        await open_all(wallet, *names[1:])
        assert channel_of(wallet).slot_map.version == 2
        assert (await wallet.transfer(names[1], names[2], "1.00", CURRENCY)).committed
        assert [account.name async for account in wallet.accounts()] == names
        assert shards.nodes[1].replica.ledger.account_count == 2


async def test_a_look_up_follows_the_map(shards: Shards) -> None:
    async with shards.connect() as wallet:
        names = names_of(wallet, 0, 2)
        await open_all(wallet, *names)
        shards.move(names[1:], 1, 0, 1)
        found = await wallet.accounts_by_id([account_id(name, CURRENCY) for name in names])
        assert [account is not None for account in found] == [True, False]  # it was not taken along
        assert await wallet.event(os.urandom(16), names[1], CURRENCY) is None


async def test_commands_wait_for_a_node_that_has_not_heard_of_the_latest_map(shards: Shards) -> None:
    async with shards.connect() as wallet:
        (name,) = names_of(wallet, 0, 1)
        shards.move([name], 1, 0)
        opening = asyncio.create_task(wallet.open_account(name, CURRENCY))
        await asyncio.sleep(0.2)
        assert not opening.done()
        shards.tell(1)
        assert (await opening).committed
        assert shards.nodes[1].replica.ledger.account_count == 1


async def test_who_never_hears_of_it_costs_the_deadline_and_no_more(shards: Shards) -> None:
    async with shards.connect() as wallet:
        names = names_of(wallet, 0, 2)
        shards.move(names, 1, 0)
        result = await wallet.open_account(names[0], CURRENCY, timeout_s=DEADLINE_S)
        assert (result.code, result.committed) == (ResultCode.WRONG_SHARD, False)
        with pytest.raises(RequestTimedOut, match="no shard took the request before the deadline"):
            await wallet.account(names[0], CURRENCY, timeout_s=DEADLINE_S)
        shards.tell(1)
        assert (await wallet.open_account(names[0], CURRENCY, id=result.id)).committed


async def test_a_later_map_in_a_reply_is_fetched(shards: Shards) -> None:
    async with shards.connect() as wallet:
        (name,) = names_of(wallet, 0, 1)
        shards.move(names_of(wallet, 0, 2)[1:], 1, 0, 1)
        assert await wallet.account(name, CURRENCY) is None
        async with asyncio.timeout(5):
            while channel_of(wallet).slot_map.version == 1:
                await asyncio.sleep(0.01)


async def test_a_map_that_is_later_than_the_nodes_stays(shards: Shards) -> None:
    async with shards.connect() as wallet:
        (name,) = names_of(wallet, 1, 1)
        shards.move(names_of(wallet, 0, 1), 1, 0)
        channel = channel_of(wallet)
        async with asyncio.timeout(5):
            while channel.slot_map.version == 1:
                await wallet.currencies()
        assert await wallet.account(name, CURRENCY) is None  # of the shard that has not heard of it
        await asyncio.sleep(0.1)
        assert channel.slot_map.version == 2


# ---- chains ----


async def test_a_chain_in_one_shard_is_executed_there(shards: Shards) -> None:
    async with shards.connect() as wallet:
        a1, b1, c1 = names_of(wallet, 1, 3)
        await open_all(wallet, a1, b1)
        chain = [
            wallet.command.open_account(c1, CURRENCY),
            wallet.command.transfer(a1, c1, "2.00", CURRENCY),
            wallet.command.transfer(c1, b1, "1.00", CURRENCY),
        ]
        assert all(result.committed for result in await wallet.linked(chain))
        assert await balances(wallet, a1, b1, c1) == [-200, 100, 100]


@pytest.mark.parametrize(("debit", "credit"), [((0, 0), (1, 1)), ((0, 0), (0, 1)), ((1, 0), (1, 1))])
async def test_a_chain_over_two_shards_points_to_what_can_do_it(
    shards: Shards, debit: tuple[int, int], credit: tuple[int, int]
) -> None:
    async with shards.connect() as wallet:
        names = [names_of(wallet, shard, 2) for shard in (0, 1)]
        chain = [
            wallet.command.transfer(names[debit[0]][0], names[debit[1]][1], "1.00", CURRENCY),
            wallet.command.transfer(names[credit[0]][0], names[credit[1]][1], "1.00", CURRENCY),
        ]
        with pytest.raises(UsageError, match=r"takes its chain into another shard.*transaction\(\)"):
            await wallet.linked(chain)
        array = transfers((names[debit[0]][0], names[debit[1]][1]), (names[credit[0]][0], names[credit[1]][1]))
        array["flags"][0] = CommandFlag.LINKED
        with pytest.raises(UsageError, match=r"command [12] takes its chain into another shard"):
            await wallet.submit(array)


async def test_a_chain_whose_slots_have_moved_goes_as_a_whole(shards: Shards) -> None:
    async with shards.connect() as wallet:
        names = names_of(wallet, 0, 3)
        shards.move(names, 1, 0, 1)
        chain = [wallet.command.open_account(name, CURRENCY) for name in names]
        assert all(result.committed for result in await wallet.linked(chain))
        assert shards.nodes[1].replica.ledger.account_count == 3


async def test_a_chain_that_a_move_has_torn_is_not_executed(shards: Shards) -> None:
    """It was whole when it was asked; its rows say that they were not executed."""
    async with shards.connect() as wallet:
        names = names_of(wallet, 0, 2)
        shards.move(names[1:], 1, 0, 1)
        chain = [wallet.command.open_account(name, CURRENCY) for name in names]
        results = await wallet.linked(chain, timeout_s=DEADLINE_S)
        assert {result.code for result in results} == {ResultCode.WRONG_SHARD}
        assert [node.replica.ledger.account_count for node in shards.nodes] == [0, 0]


# ---- a shard that is away ----


async def test_one_shard_that_is_away_costs_its_own_commands_alone(shards: Shards) -> None:
    async with shards.connect() as wallet:
        (a0, b0), (a1, b1) = names_of(wallet, 0, 2), names_of(wallet, 1, 2)
        await open_all(wallet, a0, b0)
        await shards.nodes[1].stop()
        with pytest.raises(OutcomeUnknown) as caught:
            await wallet.submit(transfers((a0, b0), (a1, b1), (a0, b0)), timeout_s=0.5)
        assert caught.value.results["code"].tolist() == [0, CODE_UNKNOWN, 0]
        assert caught.value.unknown.tolist() == [False, True, False]
        with pytest.raises(ConnectionFailed):
            await wallet.account(a1, CURRENCY, timeout_s=0.2)
        assert await balances(wallet, b0) == [2]


async def test_currencies_are_registered_in_every_shard(shards: Shards) -> None:
    async with shards.connect() as wallet:
        await wallet.register_currency("POINTS", 0)
        a0, a1 = names_of(wallet, 0, 1) + names_of(wallet, 1, 1)
        for name in (a0, a1):
            assert (await wallet.open_account(name, "POINTS")).committed


async def test_closing_ends_it(shards: Shards) -> None:
    wallet = await shards.connect()
    channel = channel_of(wallet)
    await wallet.close()
    await wallet.close()
    with pytest.raises(UsageError, match="closed"):
        await channel.request(bezant.protocol.frames.Operation.PING, b"")
    with pytest.raises(UsageError, match="closed"):
        await channel.submit(transfers(("a", "b")))


# ---- what one shard alone can answer ----


async def test_a_position_of_no_shard_is_told(shards: Shards) -> None:
    async with shards.connect() as wallet:
        with pytest.raises(UsageError, match="of no shard of this ledger"):
            await wallet.receipts.receipt(7 << 52 | 1)


def test_rows_are_sent_again_with_all_of_their_chain() -> None:
    commands = np.zeros(7, COMMAND)
    commands["flags"][[1, 2, 5]] = CommandFlag.LINKED
    results = np.zeros(7, bezant.protocol.records.RESULT)
    results["code"][[2, 4]] = WRONG
    assert sharding._refused(commands, results).tolist() == [1, 2, 3, 4]


# ---- what is unsure ----


def rows(*codes: int) -> Records:
    results = np.zeros(len(codes), bezant.protocol.records.RESULT)
    results["code"] = codes
    return results


def test_who_follows_the_map_asks_on_where_a_slot_went() -> None:
    """An answer to a second sending, after a first one that may have been executed."""
    commands = np.zeros(3, COMMAND)
    answered = rows(0, WRONG, WRONG)
    assert certain_results(commands, answered, follows_map=True)["detail"].tolist() == [0, DETAIL_UNSURE, DETAIL_UNSURE]
    with pytest.raises(OutcomeUnknown) as caught:
        certain_results(commands, answered)
    assert caught.value.results["code"].tolist() == [0, CODE_UNKNOWN, CODE_UNKNOWN]
    late = rows(int(ResultCode.DEADLINE_PASSED), WRONG, 0)
    with pytest.raises(OutcomeUnknown) as caught:
        certain_results(commands, late, follows_map=True)
    assert caught.value.results["code"].tolist() == [CODE_UNKNOWN, WRONG, 0]
    assert caught.value.results["detail"].tolist() == [0, DETAIL_UNSURE, 0]


async def test_what_was_unsure_is_settled_by_the_shard_that_has_it_now(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shards.connect() as wallet:
        (a0, b0) = names_of(wallet, 0, 2)
        shards.move([a0, b0], 1, 0, 1)
        channel = channel_of(wallet)
        once = channel._submit_once
        calls: list[int] = []

        async def unsure_at_first(commands: Records, seconds: float) -> Records:
            calls.append(len(commands))
            results = await once(commands, seconds)
            return certain_results(commands, results, follows_map=True) if len(calls) == 1 else results

        monkeypatch.setattr(channel, "_submit_once", unsure_at_first)
        results = await wallet.submit(transfers((a0, b0), ("wallet:x", "wallet:y")))
        unknown = int(ResultCode.DEBIT_ACCOUNT_UNKNOWN)
        assert results["code"].tolist() == [unknown, unknown]
        assert not results["detail"].any()
        assert len(calls) == 2


async def test_what_stays_unsure_is_unknown(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shards.connect() as wallet:
        (a0, b0), (a1, b1) = names_of(wallet, 0, 2), names_of(wallet, 1, 2)
        await open_all(wallet, a1, b1)
        shards.move([a0, b0], 1, 0)  # shard 1 never hears of it
        channel = channel_of(wallet)
        once = channel._submit_once

        async def unsure(commands: Records, seconds: float) -> Records:
            return certain_results(commands, await once(commands, seconds), follows_map=True)

        monkeypatch.setattr(channel, "_submit_once", unsure)
        with pytest.raises(OutcomeUnknown, match="no shard took its commands in time") as caught:
            await wallet.submit(transfers((a0, b0), (a1, b1)), timeout_s=DEADLINE_S)
        assert caught.value.results["code"].tolist() == [CODE_UNKNOWN, 0]
        assert not caught.value.results["detail"].any()
