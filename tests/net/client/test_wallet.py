"""Claim: a wallet says what people mean, over real sockets, and its results say what the node answered."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

import bezant
from bezant.net.client import lookups
from bezant.net.client.commands import ID_SIZE
from bezant.net.client.wallet import Wallet
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import (
    ConnectionFailed,
    InvalidAmountOrName,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
    UsageError,
)
from bezant.protocol.frames import BATCH_COUNT_MAX, FrameError, Operation
from bezant.protocol.kinds import CommandField, CommandFlag, CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import ACCOUNT, COMMAND, EVENT, LIMIT_UNLIMITED, RESULT, Records, id_bytes, id_words

from .scripted import STATISTICS, WAIT_S, WELCOME, ScriptedServer, Seen, say_nothing

ID = bytes(range(1, 17))


@pytest.fixture
async def wallet(server: ScriptedServer) -> AsyncIterator[Wallet]:
    async with bezant.connect(server.address, timeout_s=WAIT_S) as opened:
        yield opened


def sent(server: ScriptedServer) -> Records:
    """All commands that have arrived."""
    return np.concatenate([seen.commands for seen in server.frames(Operation.COMMANDS)])


# Opening and closing.


async def test_a_wallet_can_be_awaited_or_entered(server: ScriptedServer) -> None:
    awaited = await bezant.connect(server.address)
    assert awaited.welcome == WELCOME
    assert awaited.timeout_s == 5.0
    async with awaited as same:
        assert same is awaited
    async with bezant.connect(server.address, timeout_s=2.0) as entered:
        assert entered.timeout_s == 2.0
    for closed in (awaited, entered):
        with pytest.raises(UsageError, match="closed"):
            await closed.transfer("a", "b", "1", "EUR")
        with pytest.raises(UsageError, match="closed"):
            await closed.ping()


async def test_an_opening_that_is_not_used_does_nothing(server: ScriptedServer) -> None:
    bezant.connect(server.address)
    await asyncio.sleep(0)
    assert server.peers == []


async def test_the_channel_is_closed_when_the_currencies_cannot_be_had(server: ScriptedServer) -> None:
    server.handlers[Operation.LIST_CURRENCIES] = lambda seen: seen.peer.refuse(seen, FrameError.REQUEST_REFUSED)
    with pytest.raises(RequestRefused):
        await bezant.connect(server.address)
    assert asyncio.all_tasks() - server.tasks == {asyncio.current_task()}


async def test_closing_ends_commands_unknown_and_reads_with_an_error(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.COMMANDS] = server.handlers[Operation.PING] = say_nothing
    transfer = asyncio.ensure_future(wallet.transfer("a", "b", "1", "EUR"))
    ping = asyncio.ensure_future(wallet.ping())
    await server.wait_for(Operation.COMMANDS)
    staged = asyncio.ensure_future(wallet.transfer("a", "b", "1", "EUR"))
    await asyncio.sleep(0)
    await wallet.close()
    await wallet.close()
    assert asyncio.all_tasks() - server.tasks <= {asyncio.current_task(), transfer, staged, ping}
    assert (await transfer).outcome is bezant.Outcome.UNKNOWN
    assert (await staged).outcome is bezant.Outcome.UNKNOWN
    with pytest.raises(ConnectionFailed):
        await ping


# Commands.


async def test_a_transfer(server: ScriptedServer, wallet: Wallet) -> None:
    result = await wallet.transfer("ann", "bob", "12.50", "EUR", id=ID, user_data=b"order", code=7)
    (command,) = sent(server)
    assert id_bytes(command["id_head"], command["id_tail"]) == result.id == ID
    assert id_bytes(command["debit_head"], command["debit_tail"]) == account_id("ann", "EUR")
    assert id_bytes(command["credit_head"], command["credit_tail"]) == account_id("bob", "EUR")
    assert id_bytes(command["user_data_head"], command["user_data_tail"]).rstrip(b"\0") == b"order"
    assert (command["kind"], command["amount"], command["code"]) == (CommandKind.TRANSFER, 1250, 7)
    assert (result.committed, result.amount_text, result.position) == (True, "12.50", 1)


async def test_amounts_have_the_decimals_of_their_currency(server: ScriptedServer, wallet: Wallet) -> None:
    await wallet.transfer("ann", "bob", "12", "JPY")
    await wallet.transfer("ann", "bob", Decimal("0.00000012"), "BTC")
    assert sent(server)["amount"].tolist() == [12, 12]
    with pytest.raises(InvalidAmountOrName, match="decimals"):
        await wallet.transfer("ann", "bob", "12.0", "JPY")


async def test_opening_an_account_and_its_limit(server: ScriptedServer, wallet: Wallet) -> None:
    await wallet.open_account("ann", "EUR")
    await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED, code=3)
    await wallet.set_limit("ann", "EUR", "10.00", user_data=b"why")
    await wallet.set_limit("ann", "EUR", Decimal("0"), id=ID)
    commands = sent(server)
    kinds = [CommandKind.OPEN, CommandKind.OPEN, CommandKind.SET_LIMIT, CommandKind.SET_LIMIT]
    assert commands["kind"].tolist() == kinds
    assert commands["amount"].tolist() == [0, LIMIT_UNLIMITED, 1000, 0]
    assert commands["code"].tolist() == [0, 3, 0, 0]


async def test_commands_without_an_id_get_a_fresh_one_each(wallet: Wallet) -> None:
    results = await asyncio.gather(*(wallet.transfer("ann", "bob", "1", "EUR") for _ in range(1000)))
    ids = {result.id for result in results}
    assert len(ids) == 1000
    assert {len(identifier) for identifier in ids} == {ID_SIZE}


async def test_a_thousand_concurrent_awaits_are_few_frames(server: ScriptedServer, wallet: Wallet) -> None:
    async def pay(number: int) -> None:
        for _ in range(3):
            result = await wallet.transfer(f"a{number}", "b", f"{number + 1}", "JPY")
            assert result.amount == number + 1

    await asyncio.gather(*(pay(number) for number in range(1000)))
    assert len(sent(server)) == 3000
    assert len(server.frames(Operation.COMMANDS)) <= 6


async def test_a_rejection_is_a_result(server: ScriptedServer, wallet: Wallet) -> None:
    async def reject(seen: Seen) -> None:
        results = server.results(1)
        results["code"] = ResultCode.ID_CONFLICT
        results["detail"] = CommandField.AMOUNT
        await seen.peer.reply(seen, results.tobytes())

    server.handlers[Operation.COMMANDS] = reject
    result = await wallet.transfer("ann", "bob", "1", "EUR", id=ID)
    assert (result.outcome, result.code) == (bezant.Outcome.REJECTED, ResultCode.ID_CONFLICT)
    assert (result.conflict_field, result.committed) == (CommandField.AMOUNT, False)


async def test_no_answer_is_an_unknown_outcome_with_the_id_to_ask_again(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.COMMANDS] = say_nothing
    results = await asyncio.gather(
        wallet.transfer("ann", "bob", "1", "EUR", timeout_s=0.02),
        wallet.open_account("ann", "EUR", timeout_s=0.02),
        wallet.set_limit("ann", "EUR", "1", timeout_s=0.02),
    )
    assert {result.outcome for result in results} == {bezant.Outcome.UNKNOWN}
    assert {len(result.id) for result in results} == {ID_SIZE}
    del server.handlers[Operation.COMMANDS]
    assert (await wallet.transfer("ann", "bob", "1", "EUR", id=results[0].id)).committed


async def test_deadlines_travel_with_the_frames(server: ScriptedServer, wallet: Wallet) -> None:
    await asyncio.gather(
        wallet.transfer("a", "b", "1", "EUR", timeout_s=1.0),
        wallet.transfer("a", "b", "1", "EUR"),
        wallet.transfer("a", "b", "1", "EUR", timeout_s=1.0),
    )
    timeouts_ms = [seen.header.timeout_ms for seen in server.frames(Operation.COMMANDS)]
    assert [round(timeout_ms / 1000) for timeout_ms in timeouts_ms] == [1, round(WAIT_S)]


async def test_a_refused_frame_raises(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.COMMANDS] = lambda seen: seen.peer.refuse(seen, FrameError.REQUEST_REFUSED)
    with pytest.raises(RequestRefused, match="because"):
        await wallet.transfer("ann", "bob", "1", "EUR")


@pytest.mark.parametrize(
    "arguments",
    [
        {"id": b"short"},
        {"amount": "1.234"},
        {"amount": 5},
        {"debit": "two words"},
        {"user_data": bytes(17)},
        {"code": 2**31},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
    ],
)
async def test_what_cannot_be_asked_raises_and_hurts_nobody(
    server: ScriptedServer, wallet: Wallet, arguments: dict[str, Any]
) -> None:
    wrong: dict[str, Any] = {"debit": "a", "credit": "b", "amount": "1", "currency": "EUR"} | arguments
    good = asyncio.ensure_future(wallet.transfer("a", "b", "1", "EUR"))
    with pytest.raises(UsageError):
        await wallet.transfer(**wrong)
    assert (await good).committed
    assert len(sent(server)) == 1


# Chains, and what became of a command. What they do is in `test_kinds.py`; here is what travels.


async def test_a_chain_is_linked_and_side_by_side_whatever_else_is_asked(
    server: ScriptedServer, wallet: Wallet
) -> None:
    chains = [[wallet.command.transfer("a", "b", f"{1000 * n + k}", "JPY") for k in range(1, 201)] for n in range(5)]
    work = []
    for commands in chains:
        work += [wallet.transfer("c", "d", "7", "JPY") for _ in range(30)]
        work.append(wallet.linked(commands))
    results = await asyncio.gather(*work)
    assert [result.amount for result in results[30]] == list(range(1, 201))
    frames = [seen.commands for seen in server.frames(Operation.COMMANDS)]
    for number, commands in enumerate(chains):
        amounts = [1000 * number + k for k in range(1, 201)]
        (frame,) = [frame for frame in frames if amounts[0] in frame["amount"]]
        start = frame["amount"].tolist().index(amounts[0])
        chain = frame[start : start + len(commands)]
        assert chain["amount"].tolist() == amounts
        assert chain["flags"].tolist() == [CommandFlag.LINKED] * 199 + [0]
    assert sum(int(np.count_nonzero(frame["flags"])) for frame in frames) == 5 * 199


async def test_a_chain_of_one_is_not_linked(server: ScriptedServer, wallet: Wallet) -> None:
    assert (await wallet.linked([wallet.command.freeze("ann", "EUR")]))[0].committed
    assert sent(server)["flags"].tolist() == [0]


async def test_every_command_of_a_chain_has_its_own_currency(server: ScriptedServer, wallet: Wallet) -> None:
    server.currencies["POINTS"] = 1
    amounts = {"EUR": "1.25", "JPY": "12", "POINTS": "1.2"}
    commands = [wallet.command.transfer("a", "b", amount, currency) for currency, amount in amounts.items()]
    results = await wallet.linked(commands)
    assert sent(server)["amount"].tolist() == [125, 12, 12]
    assert [result.amount_text for result in results] == list(amounts.values())


async def test_a_chain_without_an_answer_can_be_linked_again(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.COMMANDS] = say_nothing
    commands = [wallet.command.transfer("a", "b", "1", "EUR") for _ in range(2)]
    results = await wallet.linked(commands, timeout_s=0.2)
    assert [result.outcome for result in results] == [bezant.Outcome.UNKNOWN] * 2
    del server.handlers[Operation.COMMANDS]
    assert all(result.committed for result in await wallet.linked(commands))
    first, again = (seen.body for seen in server.frames(Operation.COMMANDS))
    assert first == again


async def test_resolving_forbids_the_id(server: ScriptedServer, wallet: Wallet) -> None:
    await wallet.resolve(ID, "ann", "EUR")
    (command,) = sent(server)
    assert (command["kind"], command["amount"], command["flags"]) == (CommandKind.FORBID, 0, 0)
    assert id_bytes(command["id_head"], command["id_tail"]) == ID
    assert id_bytes(command["debit_head"], command["debit_tail"]) == account_id("ann", "EUR")
    with pytest.raises(UsageError, match="16 bytes"):
        await wallet.resolve(b"short", "ann", "EUR")


@pytest.mark.parametrize("code", [code for code in ResultCode if 100 <= code < 200])
async def test_a_resolve_that_was_not_executed_settles_nothing(
    server: ScriptedServer, wallet: Wallet, code: ResultCode
) -> None:
    """Rejected would say that the command was."""

    async def refuse(seen: Seen) -> None:
        results = np.zeros(1, RESULT)
        results["code"] = code
        await seen.peer.reply(seen, results.tobytes())

    server.handlers[Operation.COMMANDS] = refuse
    result = await wallet.resolve(ID, "ann", "EUR")
    assert (result.outcome, result.code, result.id) == (bezant.Outcome.UNKNOWN, None, ID)
    assert (await wallet.transfer("ann", "bob", "1", "EUR")).code is code


# Arrays.


async def test_arrays_go_as_they_are(server: ScriptedServer, wallet: Wallet) -> None:
    commands = np.zeros(BATCH_COUNT_MAX + 5, COMMAND)
    commands["amount"] = np.arange(len(commands))
    results = await wallet.submit(commands)
    assert [len(seen.commands) for seen in server.frames(Operation.COMMANDS)] == [BATCH_COUNT_MAX, 5]
    assert np.array_equal(results["effective_amount"], commands["amount"])
    results["code"] = 1


async def test_arrays_without_an_answer_raise(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.COMMANDS] = say_nothing
    commands = np.zeros(5, COMMAND)
    with pytest.raises(bezant.OutcomeUnknown) as caught:
        await wallet.submit(commands, timeout_s=0.02)
    assert caught.value.commands is commands
    assert caught.value.unknown.all()


# Currencies.


async def test_a_currency_registered_by_somebody_else_is_found(server: ScriptedServer, wallet: Wallet) -> None:
    server.currencies["POINTS"] = 0
    assert (await wallet.transfer("a", "b", "7", "POINTS")).amount_text == "7"
    assert len(server.frames(Operation.LIST_CURRENCIES)) == 2


async def test_an_unknown_currency_is_asked_for_once_however_many_name_it(
    server: ScriptedServer, wallet: Wallet
) -> None:
    outcomes = await asyncio.gather(
        *(wallet.transfer("a", "b", "7", "NONE") for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(outcome, InvalidAmountOrName) for outcome in outcomes)
    assert len(server.frames(Operation.LIST_CURRENCIES)) == 2


async def test_a_caller_that_leaves_does_not_take_the_currencies_from_the_others(
    server: ScriptedServer, wallet: Wallet
) -> None:
    server.currencies["POINTS"] = 0
    may_answer = asyncio.Event()

    async def answer_later(seen: Seen) -> None:
        await may_answer.wait()
        await server.answer(seen)

    server.handlers[Operation.LIST_CURRENCIES] = answer_later
    leaver, stayer = (asyncio.ensure_future(wallet.transfer("a", "b", "7", "POINTS")) for _ in range(2))
    await server.wait_for(Operation.LIST_CURRENCIES, 2)
    leaver.cancel()
    may_answer.set()
    assert (await stayer).committed
    assert leaver.cancelled()


async def test_currencies_without_an_answer(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.LIST_CURRENCIES] = say_nothing
    with pytest.raises(RequestTimedOut):
        await wallet.transfer("a", "b", "7", "POINTS", timeout_s=0.02)


async def test_registering_a_currency(server: ScriptedServer, wallet: Wallet) -> None:
    await wallet.register_currency("POINTS", 1)
    assert (await wallet.transfer("a", "b", "0.7", "POINTS")).amount == 7
    assert len(server.frames(Operation.LIST_CURRENCIES)) == 1
    assert await wallet.currencies() == {"EUR": 2, "JPY": 0, "BTC": 8, "POINTS": 1}
    with pytest.raises(InvalidAmountOrName):
        await wallet.register_currency("points", 1)


# Reads.


def account_records(*names: str) -> Records:
    records = np.zeros(len(names), ACCOUNT)
    for record, name in zip(records, names, strict=True):
        record["id_head"], record["id_tail"] = id_words(account_id(name, "EUR"))
        record["found"] = 1
        record["decimals"] = 2
        record["name"] = name.encode()
    return records


async def test_accounts_by_name_and_by_id(server: ScriptedServer, wallet: Wallet) -> None:
    server.accounts = account_records("ann", "bob")
    ann = await wallet.account("ann", "EUR")
    assert ann is not None
    assert (ann.name, ann.id) == ("ann", account_id("ann", "EUR"))
    assert await wallet.account("ann", "JPY") is None
    found = await wallet.accounts_by_id([account_id(name, "EUR") for name in ("bob", "eve", "ann")])
    assert [account and account.name for account in found] == ["bob", None, "ann"]
    assert await wallet.accounts_by_id([]) == []
    with pytest.raises(UsageError):
        await wallet.accounts_by_id([b"short"])


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7])
async def test_all_accounts_come_in_pages(
    server: ScriptedServer, wallet: Wallet, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(lookups, "ACCOUNTS_PER_PAGE", 3)
    names = [f"account{number}" for number in range(count)]
    server.accounts = account_records(*names)
    assert [account.name async for account in wallet.accounts()] == names
    assert len(await wallet.accounts_by_id([account_id(name, "EUR") for name in names])) == count


async def test_a_node_may_answer_fewer_accounts_than_asked(server: ScriptedServer, wallet: Wallet) -> None:
    server.accounts = account_records("ann", "bob", "eve")

    async def answer_one(seen: Seen) -> None:
        cursor = msgspec.msgpack.decode(seen.body)["cursor"]
        await seen.peer.reply(seen, server.accounts[cursor : cursor + 1].tobytes())

    server.handlers[Operation.LIST_ACCOUNTS] = answer_one
    assert [account.name async for account in wallet.accounts()] == ["ann", "bob", "eve"]


async def test_an_event(server: ScriptedServer, wallet: Wallet) -> None:
    assert await wallet.event(ID, "ann", "EUR") is None
    event = np.zeros(1, EVENT)
    event["kind"] = CommandKind.TRANSFER
    event["amount"] = 1250
    server.event_answer["found"] = 1
    server.event_answer["position"] = 9
    server.event_answer["event"] = event.tobytes()
    found = await wallet.event(ID, "ann", "EUR")
    assert found is not None
    assert (found.position, found.amount_text) == (9, "12.50")
    assert {seen.body for seen in server.frames(Operation.LOOKUP_EVENTS)} == {ID + account_id("ann", "EUR")}


async def test_counters_and_signs_of_life(wallet: Wallet) -> None:
    assert await wallet.statistics() == STATISTICS
    assert 0 < await wallet.ping() < WAIT_S


@pytest.mark.parametrize("operation", [Operation.LOOKUP_ACCOUNTS, Operation.LOOKUP_EVENTS, Operation.STATISTICS])
async def test_replies_that_make_no_sense(server: ScriptedServer, wallet: Wallet, operation: Operation) -> None:
    server.handlers[operation] = lambda seen: seen.peer.reply(seen, b"\xc1")
    with pytest.raises(RemoteProtocolError):
        match operation:
            case Operation.LOOKUP_ACCOUNTS:
                await wallet.account("ann", "EUR")
            case Operation.LOOKUP_EVENTS:
                await wallet.event(ID, "ann", "EUR")
            case _:
                await wallet.statistics()


async def test_too_few_accounts_in_a_reply(server: ScriptedServer, wallet: Wallet) -> None:
    server.handlers[Operation.LOOKUP_ACCOUNTS] = lambda seen: seen.peer.reply(seen, b"")
    with pytest.raises(RemoteProtocolError, match="1 accounts were asked for and 0 answered"):
        await wallet.account("ann", "EUR")
