"""Claim: every kind of command does what the wallet's methods say, over a node and over one's own engine alike."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import bezant
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings
from bezant.net.client.results import Result
from bezant.net.client.wallet import Wallet
from bezant.net.embedded import open_channel
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX, CommandKind

from ..server.node import WAIT_S, Node

SETTINGS = ReplicaSettings(segment_size=1 << 20, accounts_max=16, holds_max=8, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)
EUR = "EUR"


@pytest.fixture(params=["node", "embedded"])
async def wallet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wallet]:
    """A ledger in which ann has 100.00, and the shop and the bank for fees nothing."""
    node = None
    if request.param == "node":
        node = Node(tmp_path / "data", SETTINGS)
        await node.start()
        opened = await bezant.connect(f"127.0.0.1:{node.port}", timeout_s=WAIT_S)
    else:
        opened = await Wallet.open_over(await open_channel(tmp_path / "data", SETTINGS), WAIT_S)
    await opened.open_account("world", EUR, limit=bezant.UNLIMITED)
    for name in ("ann", "shop", "fees"):
        assert (await opened.open_account(name, EUR)).committed
    assert (await opened.transfer("world", "ann", "100.00", EUR)).committed
    yield opened
    await opened.close()
    if node is not None:
        await node.stop()


async def standing(wallet: Wallet, *names: str) -> list[tuple[str, str]]:
    """(balance, held) of accounts."""
    accounts = [await wallet.account(name, EUR) for name in names]
    return [(account.balance_text, account.held_text) for account in accounts if account is not None]


def codes(results: list[Result]) -> list[ResultCode | None]:
    return [result.code for result in results]


# Holds.


async def test_a_hold_is_captured(wallet: Wallet) -> None:
    hold = await wallet.hold("ann", "shop", "30.00", EUR, hold_timeout_ms=600_000)
    assert (hold.committed, hold.amount_text, hold.debit_held_text) == (True, "30.00", "30.00")
    assert await standing(wallet, "ann", "shop") == [("100.00", "30.00"), ("0.00", "0.00")]
    assert (await wallet.transfer("ann", "shop", "70.01", EUR)).code is ResultCode.INSUFFICIENT_FUNDS
    captured = await wallet.capture(hold.id, "ann", "shop", EUR)
    assert (captured.committed, captured.amount_text) == (True, "30.00")
    assert await standing(wallet, "ann", "shop") == [("70.00", "0.00"), ("30.00", "0.00")]
    assert (await wallet.capture(hold.id, "ann", "shop", EUR)).code is ResultCode.HOLD_CAPTURED
    event = await wallet.event(captured.id, "ann", EUR)
    assert event is not None
    assert (event.kind, event.reference, event.effective_amount_text) == (CommandKind.CAPTURE, hold.id, "30.00")
    made = await wallet.event(hold.id, "ann", EUR)
    assert made is not None
    assert (made.hold_timeout_ms, made.debit_held_text, made.credit_held_text) == (600_000, "30.00", "0.00")


async def test_a_part_is_captured_and_the_rest_is_free(wallet: Wallet) -> None:
    hold = await wallet.hold("ann", "shop", "30.00", EUR)
    assert (await wallet.capture(hold.id, "ann", "shop", EUR, amount="10.00")).amount_text == "10.00"
    assert await standing(wallet, "ann", "shop") == [("90.00", "0.00"), ("10.00", "0.00")]
    assert (await wallet.release(hold.id, "ann", EUR)).code is ResultCode.HOLD_CAPTURED


async def test_parts_are_captured_one_by_one_while_it_is_kept_open(wallet: Wallet) -> None:
    hold = await wallet.hold("ann", "shop", "30.00", EUR)
    for part in ("10.00", "5.00"):
        assert (await wallet.capture(hold.id, "ann", "shop", EUR, amount=part, keep_open=True)).committed
    assert await standing(wallet, "ann", "shop") == [("85.00", "15.00"), ("15.00", "0.00")]
    too_much = await wallet.capture(hold.id, "ann", "shop", EUR, amount="15.01")
    assert too_much.code is ResultCode.CAPTURE_EXCEEDS_HOLD
    released = await wallet.release(hold.id, "ann", EUR)
    assert (released.committed, released.amount_text) == (True, "15.00")
    assert await standing(wallet, "ann") == [("85.00", "0.00")]


async def test_a_hold_expires_by_itself(wallet: Wallet) -> None:
    hold = await wallet.hold("ann", "shop", "30.00", EUR, hold_timeout_ms=10)
    async with asyncio.timeout(WAIT_S):
        while await standing(wallet, "ann") != [("100.00", "0.00")]:
            await asyncio.sleep(0.001)
    assert time.time_ns() >= hold.timestamp_ns + 10_000_000
    assert (await wallet.capture(hold.id, "ann", "shop", EUR)).code is ResultCode.HOLD_EXPIRED
    assert (await wallet.release(hold.id, "ann", EUR)).code is ResultCode.HOLD_EXPIRED


async def test_no_more_holds_than_the_node_takes(wallet: Wallet) -> None:
    """A hold that was not made for want of room is no hold, and the same one can be made when there is some."""
    holds = [await wallet.hold("ann", "shop", "1.00", EUR) for _ in range(SETTINGS.holds_max)]
    full = await wallet.hold("ann", "shop", "1.00", EUR)
    assert (full.code, full.position) == (ResultCode.HOLDS_FULL, None)
    assert (await wallet.release(holds[0].id, "ann", EUR)).committed
    assert (await wallet.hold("ann", "shop", "1.00", EUR, id=full.id)).committed


# Accounts.


async def test_a_frozen_account_takes_no_part_until_it_is_unfrozen(wallet: Wallet) -> None:
    hold = await wallet.hold("ann", "shop", "30.00", EUR)
    assert (await wallet.freeze("ann", EUR)).committed
    account = await wallet.account("ann", EUR)
    assert account is not None
    assert account.frozen
    assert (await wallet.transfer("ann", "shop", "1.00", EUR)).code is ResultCode.DEBIT_ACCOUNT_FROZEN
    assert (await wallet.transfer("world", "ann", "1.00", EUR)).code is ResultCode.CREDIT_ACCOUNT_FROZEN
    assert (await wallet.capture(hold.id, "ann", "shop", EUR)).code is ResultCode.DEBIT_ACCOUNT_FROZEN
    assert (await wallet.release(hold.id, "ann", EUR)).committed
    assert (await wallet.unfreeze("ann", EUR)).committed
    assert (await wallet.transfer("ann", "shop", "1.00", EUR)).committed


async def test_an_account_is_closed_when_it_is_empty(wallet: Wallet) -> None:
    assert (await wallet.close_account("ann", EUR)).code is ResultCode.ACCOUNT_NOT_EMPTY
    assert (await wallet.close_account("shop", EUR)).committed
    account = await wallet.account("shop", EUR)
    assert account is not None
    assert account.closed
    assert (await wallet.transfer("ann", "shop", "1.00", EUR)).code is ResultCode.CREDIT_ACCOUNT_CLOSED


async def test_as_much_as_is_available(wallet: Wallet) -> None:
    await wallet.hold("ann", "shop", "30.00", EUR)
    moved = await wallet.transfer_available("ann", "shop", "500.00", EUR)
    assert (moved.committed, moved.amount_text) == (True, "70.00")
    assert (await wallet.transfer_available("ann", "shop", "0.01", EUR)).code is ResultCode.NOTHING_AVAILABLE
    assert (await wallet.transfer_available("world", "ann", "20.00", EUR)).amount_text == "20.00"


# Chains.


async def test_a_chain_is_done_as_a_whole(wallet: Wallet) -> None:
    hold = wallet.command.hold("ann", "shop", "40.00", EUR)
    results = await wallet.linked(
        [
            wallet.command.open_account("bob", EUR),
            wallet.command.transfer("ann", "bob", "5.00", EUR),
            hold,
            wallet.command.capture(hold.id, "ann", "shop", EUR, amount="25.00"),
            wallet.command.transfer("shop", "fees", "1.00", EUR),
        ]
    )
    assert codes(results) == [ResultCode.COMMITTED] * 5
    assert [result.debit_balance_text for result in results] == ["0.00", "95.00", "95.00", "70.00", "24.00"]
    assert await standing(wallet, "ann", "bob", "shop", "fees") == [
        ("70.00", "0.00"),
        ("5.00", "0.00"),
        ("24.00", "0.00"),
        ("1.00", "0.00"),
    ]
    event = await wallet.event(results[1].id, "ann", EUR)
    assert event is not None
    assert event.linked


async def test_a_chain_is_not_done_at_all(wallet: Wallet) -> None:
    commands = [
        wallet.command.transfer("ann", "shop", "60.00", EUR),
        wallet.command.transfer("ann", "fees", "60.00", EUR),
        wallet.command.transfer("world", "ann", "60.00", EUR),
    ]
    refused = [
        ResultCode.CHAIN_MEMBER_REFUSED,
        ResultCode.INSUFFICIENT_FUNDS,
        ResultCode.CHAIN_MEMBER_REFUSED,
    ]
    results = await wallet.linked(commands)
    assert codes(results) == refused
    assert {result.amount for result in results} == {0}
    assert await standing(wallet, "ann", "shop", "fees") == [("100.00", "0.00"), ("0.00", "0.00"), ("0.00", "0.00")]
    # For ever, even when there would be money now.
    assert (await wallet.transfer("world", "ann", "60.00", EUR)).committed
    assert codes(await wallet.linked(commands)) == refused


async def test_a_chain_that_is_linked_again_is_done_once(wallet: Wallet) -> None:
    commands = [wallet.command.transfer("ann", "shop", "1.00", EUR) for _ in range(3)]
    first = await wallet.linked(commands)
    again = await wallet.linked(commands)
    assert [result.position for result in first] == [result.position for result in again]
    assert ([result.repeated for result in first], [result.repeated for result in again]) == ([False] * 3, [True] * 3)
    mixed = await wallet.linked([*commands[:2], wallet.command.transfer("ann", "shop", "1.00", EUR)])
    assert codes(mixed) == [ResultCode.CHAIN_REPEATED_IN_PART] * 3
    assert await standing(wallet, "shop") == [("3.00", "0.00")]


async def test_chains_and_single_commands_at_the_same_time(wallet: Wallet) -> None:
    """Whatever shares their frames, each chain is whole and each command stands alone."""
    before = wallet.command.transfer
    work = []
    for number in range(60):
        good = [before("world", "shop", "1.00", EUR) for _ in range(3)]
        bad = [before("world", "fees", "1.00", EUR), before("nobody", "fees", "1.00", EUR)]
        work += [wallet.linked(good), wallet.linked(bad), wallet.linked([before("world", "ann", "1.00", EUR)])]
        if number % 7 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*work)
    assert [codes(chain) for chain in results[0::3]] == [[ResultCode.COMMITTED] * 3] * 60
    assert [codes(chain) for chain in results[1::3]] == [
        [ResultCode.CHAIN_MEMBER_REFUSED, ResultCode.DEBIT_ACCOUNT_UNKNOWN]
    ] * 60
    assert await standing(wallet, "shop", "fees", "ann") == [("180.00", "0.00"), ("0.00", "0.00"), ("160.00", "0.00")]


async def test_the_longest_chain_and_one_that_is_too_long(wallet: Wallet) -> None:
    commands = [wallet.command.transfer("world", "shop", "0.01", EUR) for _ in range(CHAIN_COMMANDS_MAX + 1)]
    for wrong in (commands, []):
        with pytest.raises(UsageError, match="1 to 256 commands"):
            await wallet.linked(wrong)
    assert {result.code for result in await wallet.linked(commands[1:])} == {ResultCode.COMMITTED}
    assert await standing(wallet, "shop") == [("2.56", "0.00")]


async def test_a_chain_with_a_command_that_cannot_be_asked_is_not_asked(wallet: Wallet) -> None:
    good = wallet.command.transfer("ann", "shop", "1.00", EUR)
    for wrong in (
        wallet.command.transfer("ann", "shop", "1.001", EUR),
        wallet.command.transfer("ann", "shop", "1.00", "NONE"),
        wallet.command.capture(good.id, "ann", "shop", EUR, amount="0.00"),
    ):
        with pytest.raises(UsageError):
            await wallet.linked([good, wrong])
    assert await standing(wallet, "ann") == [("100.00", "0.00")]


async def test_a_chain_with_a_malformed_command_leaves_no_trace(wallet: Wallet) -> None:
    good = wallet.command.transfer("ann", "shop", "1.00", EUR)
    results = await wallet.linked([good, wallet.command.transfer("ann", "ann", "1.00", EUR)])
    assert codes(results) == [ResultCode.CHAIN_MEMBER_NOT_EXECUTED, ResultCode.ACCOUNTS_EQUAL]
    assert [result.position for result in results] == [None, None]
    assert (await wallet.linked([good]))[0].committed


# Settling.


async def test_an_id_that_was_not_used_never_will_be(wallet: Wallet) -> None:
    identifier = bytes(range(16))
    for repeated in (False, True):
        result = await wallet.resolve(identifier, "ann", EUR)
        assert (result.outcome, result.code) == (bezant.Outcome.REJECTED, ResultCode.ID_FORBIDDEN)
        assert (result.id, result.repeated) == (identifier, repeated)
    late = await wallet.transfer("ann", "shop", "1.00", EUR, id=identifier)
    assert late.code is ResultCode.ID_FORBIDDEN
    assert await standing(wallet, "ann") == [("100.00", "0.00")]


async def test_an_id_that_was_used_has_the_outcome_that_it_had(wallet: Wallet) -> None:
    done = await wallet.transfer("ann", "shop", "1.00", EUR)
    refused = await wallet.transfer("ann", "shop", "100.00", EUR)
    for first in (done, refused):
        result = await wallet.resolve(first.id, "ann", EUR)
        assert (result.code, result.position, result.repeated) == (first.code, first.position, True)
        assert (result.amount, result.debit_balance) == (first.amount, first.debit_balance)


async def test_any_command_of_a_chain_settles_it(wallet: Wallet) -> None:
    done = [wallet.command.transfer("ann", "shop", "1.00", EUR) for _ in range(2)]
    await wallet.linked(done)
    assert (await wallet.resolve(done[1].id, "ann", EUR)).committed
    given_up = [wallet.command.transfer("ann", "shop", "1.00", EUR) for _ in range(2)]
    assert (await wallet.resolve(given_up[1].id, "ann", EUR)).code is ResultCode.ID_FORBIDDEN
    assert codes(await wallet.linked(given_up)) == [ResultCode.CHAIN_REPEATED_IN_PART] * 2
    assert await standing(wallet, "shop") == [("2.00", "0.00")]
