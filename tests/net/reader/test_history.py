"""Claim: what was is answered over the wire as it was, by the reader of a running node, to whoever asks the wallet."""

import asyncio
import os
import signal
from datetime import UTC, datetime

import pytest

import bezant
from bezant.cli.node_process import NodeProcess
from bezant.engine.projections.warm import warm_projections
from bezant.net.client.history import AsOf
from bezant.net.client.members import ask_node
from bezant.net.client.wallet import Wallet
from bezant.net.server.warm import warm_kernels
from bezant.protocol.errors import RequestRefused, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.history_messages import QueryAccounts, QueryStatement, QueryTransfers
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import encode_message
from bezant.protocol.names import account_id
from bezant.protocol.records import position_of

from .conftest import readers_of

WAIT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Has the kernels of both processes compiled before anything waits for them."""
    warm_kernels()
    warm_projections()


@pytest.fixture(scope="module")
def done(shared_node: NodeProcess) -> dict[str, bezant.Result]:
    """A small history, by name of what was done; all tests here only ask for it."""
    done = {}
    with bezant.connect_blocking(shared_node.address, timeout_s=WAIT_S) as wallet:
        done["world"] = wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
        done["ann"] = wallet.open_account("ann", "EUR")
        done["paid"] = wallet.transfer("world", "ann", "10.00", "EUR", code=7)
        done["held"] = wallet.hold("ann", "world", "4.00", "EUR")
        done["part"] = wallet.capture(done["held"].id, "ann", "world", "EUR", amount="1.50", keep_open=True)
        done["frozen"] = wallet.freeze("ann", "EUR")
        done["refused"] = wallet.transfer("ann", "world", "99.00", "EUR")
        done["released"] = wallet.release(done["held"].id, "ann", "EUR")
    for name, result in done.items():
        assert result.committed == (name != "refused")
        assert result.position is not None
    return done


@pytest.fixture
def wallet(shared_wallet: Wallet) -> Wallet:
    return shared_wallet


async def refusal(asking: object) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await asking  # type: ignore[misc]
    return caught.value


async def test_everything_as_it_was(wallet: Wallet, done: dict[str, bezant.Result]) -> None:
    history = wallet.history
    last = done["released"].position or 0

    async def balance(position: int | None) -> tuple[str, str, bool] | None:
        as_of, account = await history.account("ann", "EUR", position=position, wait_for=last)
        assert as_of.position == (last if position is None else position)
        return None if account is None else (account.balance_text, account.held_text, account.frozen)

    assert await balance(0) is None
    assert await balance(done["world"].position) is None
    assert await balance(done["ann"].position) == ("0.00", "0.00", False)
    assert await balance(done["paid"].position) == ("10.00", "0.00", False)
    assert await balance(done["held"].position) == ("10.00", "4.00", False)
    assert await balance(done["part"].position) == ("8.50", "2.50", False)
    assert await balance(done["frozen"].position) == ("8.50", "2.50", True)
    assert await balance(None) == ("8.50", "0.00", True)
    assert (await wallet.account("ann", "EUR")) == (await history.account("ann", "EUR"))[1]
    # By time: a datetime has microseconds, an integer nanoseconds.
    paid_ns, held_ns = done["paid"].timestamp_ns, done["held"].timestamp_ns
    assert (await history.account("ann", "EUR", at=held_ns - 1))[0] == AsOf(done["paid"].position or 0, paid_ns)
    year_2000 = datetime(2000, 1, 1, tzinfo=UTC)
    assert await history.account("ann", "EUR", at=year_2000) == (AsOf(0, 0), None)

    sequence = ["ann", "paid", "held", "part", "frozen", "released"]
    lines = [event.position async for event in history.statement("ann", "EUR")]
    assert lines == [done[name].position for name in sequence]
    statement = history.statement("ann", "EUR", reverse=True, limit=2, position=done["part"].position)
    assert [event.position async for event in statement] == [done["part"].position, done["held"].position]
    assert statement.as_of == AsOf(done["part"].position or 0, done["part"].timestamp_ns)
    between = history.statement("ann", "EUR", start=paid_ns, end=done["frozen"].timestamp_ns)
    assert [event.kind async for event in between] == [CommandKind.TRANSFER, CommandKind.HOLD, CommandKind.CAPTURE]

    found = [event async for event in history.transfers(currency="EUR", code=7)]
    assert [(event.position, event.amount_text) for event in found] == [(done["paid"].position, "10.00")]
    refused = [event.result async for event in history.transfers(account=("ann", "EUR"), refused=True)]
    assert refused.count(bezant.ResultCode.DEBIT_ACCOUNT_FROZEN) == 1
    of_hold = [event.kind for event in await history.transfer(done["held"].id)]
    assert of_hold == [CommandKind.HOLD, CommandKind.CAPTURE, CommandKind.RELEASE]

    assert [hold async for hold in history.holds()] == []
    holds = [hold async for hold in history.holds(position=done["part"].position, account=("ann", "EUR"))]
    assert [(hold.event.position, hold.remaining_text) for hold in holds] == [(done["held"].position, "2.50")]
    (sums,) = (await history.totals(position=done["part"].position)).currencies
    assert (sums.currency, sums.accounts_opened, sums.moves) == ("EUR", 2, 2)
    assert (sums.moved, sums.positive, sums.held) == (1150, 850, 250)


async def test_the_same_without_await(shared_node: NodeProcess, done: dict[str, bezant.Result]) -> None:
    last = done["released"].position or 0

    def ask() -> None:
        with bezant.connect_blocking(shared_node.address, timeout_s=WAIT_S) as blocking:
            history = blocking.history
            as_of, account = history.account("ann", "EUR", wait_for=last)
            assert (as_of.position, account and account.balance_text) == (last, "8.50")
            assert history.accounts([account_id("ann", "EUR")]).accounts == [account]
            positions = [event.position for event in history.statement("ann", "EUR", reverse=True)]
            assert positions[0] == last
            assert [event.position for event in history.transfers(code=7)] == [done["paid"].position]
            assert len(history.transfer(done["held"].id)) == 3
            assert [hold.remaining for hold in history.holds(position=done["part"].position)] == [250]
            assert [sums.currency for sums in history.totals().currencies] == ["EUR"]

    await asyncio.get_running_loop().run_in_executor(None, ask)


async def test_what_cannot_be_known_is_refused_in_words(wallet: Wallet, done: dict[str, bezant.Result]) -> None:
    last = done["released"].position or 0
    history = wallet.history
    await history.account("ann", "EUR", wait_for=last)
    ahead = await refusal(history.account("ann", "EUR", position=last + 1_000_000))
    assert (ahead.code, "ahead of the last" in str(ahead)) == (FrameError.REQUEST_REFUSED, True)
    later = await refusal(history.account("ann", "EUR", at=done["released"].timestamp_ns + 10**12))
    assert (later.code, "not known yet" in str(later)) == (FrameError.REQUEST_REFUSED, True)
    other = await refusal(history.account("ann", "EUR", position=position_of(5, 1)))
    assert "another shard" in str(other)
    nobody = await history.account("nobody", "EUR")
    assert nobody[1] is None
    assert [event async for event in history.statement("nobody", "EUR")] == []
    assert [event async for event in history.transfers(currency="XXX")] == []
    reader = wallet.welcome.reader
    ann = account_id("ann", "EUR")
    for operation, message, code, words in (
        (Operation.QUERY_ACCOUNTS, QueryAccounts(ann, log_id="00" * 8), FrameError.REQUEST_REFUSED, "log"),
        (Operation.QUERY_ACCOUNTS, QueryAccounts(ann[:-1]), FrameError.BODY_MALFORMED, "whole number"),
        (Operation.QUERY_ACCOUNTS, QueryAccounts(ann * 4097), FrameError.REQUEST_REFUSED, "4096"),
        (Operation.QUERY_ACCOUNTS, QueryAccounts(ann, 1, 1), FrameError.REQUEST_REFUSED, "not both"),
        (Operation.QUERY_ACCOUNTS, QueryAccounts(ann, as_of_time_ns=-1), FrameError.REQUEST_REFUSED, "before 1970"),
        (Operation.STATEMENT, QueryStatement(b"x"), FrameError.BODY_MALFORMED, "16 bytes"),
        (Operation.STATEMENT, QueryStatement(ann, limit=0), FrameError.REQUEST_REFUSED, "4096"),
        (Operation.STATEMENT, QueryStatement(ann, limit=4097), FrameError.REQUEST_REFUSED, "4096"),
        (Operation.STATEMENT, QueryStatement(ann, from_ns=-1), FrameError.REQUEST_REFUSED, "1970"),
        (Operation.FIND_TRANSFERS, QueryTransfers(kinds=[99]), FrameError.BODY_MALFORMED, "99"),
        (Operation.FIND_TRANSFERS, QueryTransfers(ann, code=1), FrameError.REQUEST_REFUSED, "nothing else"),
        (Operation.FIND_TRANSFERS, QueryTransfers(code=2**31), FrameError.REQUEST_REFUSED, "32 bits"),
    ):
        answer = await refusal(ask_node(reader, operation, encode_message(message), WAIT_S))
        assert (answer.code, words in str(answer)) == (code, True), str(answer)
    waits = await refusal(ask_node(reader, Operation.TOTALS, b"\x80\x80", WAIT_S))
    assert waits.code == FrameError.BODY_MALFORMED


async def test_numbers_of_more_than_64_bits_are_refused_in_words(wallet: Wallet) -> None:
    for number in (1 << 64, -(1 << 63) - 1):
        with pytest.raises(UsageError, match="64 bits"):
            await wallet.history.totals(position=number)
        with pytest.raises(UsageError, match="64 bits"):
            await wallet.history.totals(at=number)
        with pytest.raises(UsageError, match="64 bits"):
            wallet.subscribe(after=number)
        with pytest.raises(UsageError, match="64 bits"):
            await wallet.receipts.receipt(number)


async def test_a_reader_that_is_killed_answers_the_same_again(
    wallet: Wallet, shared_node: NodeProcess, done: dict[str, bezant.Result]
) -> None:
    before = await wallet.history.accounts([account_id("ann", "EUR")], wait_for=done["released"].position or 0)
    for number in readers_of(shared_node):
        os.kill(number, signal.SIGKILL)
    after = await wallet.history.accounts([account_id("ann", "EUR")])
    assert after == before
