"""Claim: a load counts what the node answered, checks it against the books, and ends early for what it cannot trust."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator

import pytest

from bezant.cli.session import run_async
from bezant.perf.load.books import Books, books_fault
from bezant.perf.load.control import ControlClient
from bezant.perf.load.generator import run_transfers
from bezant.perf.load.mixed import UnexpectedResult
from bezant.perf.load.plan import LoadPlan
from bezant.perf.load.sdk import run_sdk
from bezant.protocol.errors import (
    BezantError,
    ConnectionFailed,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
    UsageError,
)


def plan_for(node, **changes: object) -> LoadPlan:
    settings = {"address": node.address, "transfers": 500, "accounts": 10, "clients": 2, "inflight": 3}
    return LoadPlan(**settings | changes)


def ignore(_done: int) -> None:
    pass


@pytest.mark.parametrize("ids", ["time", "random"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (500, 1, 1, 1), (500, 1, 7, 9), (500, 3, 2, 2), (5, 64, 4, 4), (20_000, 8191, 2, 4)],
)
async def test_everything_sent_is_answered(good_node, shape: tuple[int, ...], ids: str) -> None:
    asked = dict(zip(("transfers", "batch", "clients", "inflight"), shape, strict=True))
    transfers = asked["transfers"]
    plan = plan_for(good_node, **asked, ids=ids, echo=good_node.echo)
    told = []
    outcome = await run_transfers(plan, told.append)
    assert (outcome.accepted, outcome.rejected, outcome.unknown, outcome.repeated) == (transfers, 0, 0, 0)
    assert outcome.books_fault is None
    assert outcome.seconds > 0
    assert outcome.latency_us["p50"] <= outcome.latency_us["max"]
    assert outcome.echo_p50_us > 0
    assert told[-1] == transfers
    assert outcome.statistics_after.commands - outcome.statistics_before.commands == transfers


async def test_a_run_longer_than_the_ring(good_node, monkeypatch) -> None:
    monkeypatch.setattr("bezant.perf.load.limits.SLOT_COUNT_MAX", 64)
    outcome = await run_transfers(plan_for(good_node, transfers=20_000, clients=4, inflight=8), ignore)
    assert outcome.accepted == 20_000
    assert outcome.books_fault is None


async def test_rejected_transfers_are_counted_by_code(start_fake_node) -> None:
    node = start_fake_node("--fault", "reject", "--fault-after", "210")
    outcome = await run_transfers(plan_for(node), ignore)
    assert outcome.accepted == 200
    assert outcome.rejected == 300
    assert outcome.rejected_codes == {"INSUFFICIENT_FUNDS": 300}
    assert outcome.books_fault is None


MIXED = {"load": "mixed", "zipf": 1.1, "transfers": 4000, "batch": 100, "inflight": 2}


async def test_a_mixed_load_ends_with_a_result_that_was_not_expected(good_node) -> None:
    # This node commits whatever it is asked.
    expected = "INSUFFICIENT_FUNDS|CREDIT_ACCOUNT_UNKNOWN"
    with pytest.raises(
        UnexpectedResult, match=rf"command \d+ of frame 0 \(refused\) was answered COMMITTED, not ({expected})"
    ):
        await run_transfers(plan_for(good_node, **MIXED), ignore)


async def test_a_mixed_load_ends_with_a_refusal_that_was_not_meant(start_fake_node) -> None:
    node = start_fake_node("--fault", "reject", "--fault-after", "0")
    with pytest.raises(
        UnexpectedResult, match=r"command 0 of frame 0 \(\w+\) was answered INSUFFICIENT_FUNDS, not COMM"
    ):
        await run_transfers(plan_for(node, **MIXED), ignore)


async def test_a_mixed_load_ends_with_a_repeat(start_fake_node) -> None:
    with pytest.raises(UnexpectedResult, match="COMMITTED as a repeat, not COMMITTED"):
        await run_transfers(plan_for(start_fake_node("--fault", "repeat"), **MIXED), ignore)


@pytest.mark.parametrize("batch", [1, 50])
async def test_accounts_of_a_plain_load_may_be_chosen_by_zipfs_law(good_node, batch: int) -> None:
    outcome = await run_transfers(plan_for(good_node, zipf=1.1, batch=batch), ignore)
    assert (outcome.accepted, outcome.kinds, outcome.refused) == (500, {"plain": 500}, 0)
    assert outcome.books_fault is None


async def test_transfers_before_the_load_are_part_of_no_figure(good_node) -> None:
    told: list[int] = []
    outcome = await run_transfers(plan_for(good_node, ids_before=20_000), told.append)
    assert outcome.accepted == outcome.kinds["plain"] == 500
    assert outcome.books_fault is None
    assert outcome.statistics_after.commands - outcome.statistics_before.commands == 500
    assert told == sorted(told)
    assert 20_000 in told
    assert told[-1] == 20_500


async def test_transfers_before_the_load_must_be_committed(start_fake_node) -> None:
    node = start_fake_node("--fault", "reject", "--fault-after", "1000")
    with pytest.raises(UnexpectedResult, match=r"before the load.*INSUFFICIENT_FUNDS"):
        await run_transfers(plan_for(node, ids_before=2000), ignore)


async def test_repeats_are_no_transfers(start_fake_node) -> None:
    outcome = await run_transfers(plan_for(start_fake_node("--fault", "repeat")), ignore)
    assert (outcome.accepted, outcome.repeated) == (500, 500)
    assert outcome.books_fault is None


async def test_books_that_lack_a_transfer_are_found(start_fake_node) -> None:
    node = start_fake_node("--fault", "lose", "--fault-after", "509")
    outcome = await run_transfers(plan_for(node), ignore)
    assert outcome.accepted == 500
    assert "500 transfers were answered" in outcome.books_fault
    assert "499" in outcome.books_fault


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (Books(17, 5, 7), None),
        (Books(18, 5, 7), "4 transfers .* 4.5"),
        (Books(17, 6, 7), "add up to 1"),
        (Books(17, 5, 9), "2 minor units more than before are held"),
    ],
)
def test_the_books_of_captured_holds(after: Books, words: str | None) -> None:
    # A transfer, a hold and its capture, and another transfer: the hold touches one account, the others two.
    fault = books_fault(Books(10, 5, 7), after, 4, holds=1)
    assert fault is None if words is None else re.search(words, str(fault))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("fault", "kind", "meaning"),
    [
        ("checksum", RemoteProtocolError, "checksum"),
        ("request-id", RemoteProtocolError, "no request that is waiting|not one to a frame"),
        ("wrong-connection", RemoteProtocolError, "another connection"),
        ("error", RequestRefused, "too much"),
        ("close", ConnectionFailed, "closed connection"),
        ("silent", RequestTimedOut, "then nothing"),
    ],
)
async def test_a_node_that_cannot_be_trusted_ends_the_load(
    start_fake_node, fault: str, kind: type[BezantError], meaning: str, batch: int
) -> None:
    node = start_fake_node("--fault", fault, "--fault-after", "100")
    patience = {"stall_timeout_s": 0.1} if fault == "silent" else {}
    with pytest.raises(kind, match=meaning):
        await run_transfers(plan_for(node, batch=batch, **patience), ignore)


async def test_a_batch_beyond_the_nodes_is_a_usage_error(start_fake_node) -> None:
    with pytest.raises(UsageError, match="2000 that the node takes"):
        await run_transfers(plan_for(start_fake_node("--batch-max", "2000"), batch=2001), ignore)


async def test_more_in_flight_than_the_node_takes_is_told(good_node) -> None:
    outcome = await run_transfers(plan_for(good_node, transfers=40_000, batch=8191, clients=1, inflight=5), ignore)
    assert len(outcome.warnings) == 1
    assert "waiting in the socket" in outcome.warnings[0]


@contextlib.contextmanager
def closing_listener() -> Iterator[str]:
    """The address of a port where nobody listens any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    yield address


async def test_nobody_there_is_told() -> None:
    with closing_listener() as address, pytest.raises(ConnectionFailed, match=address):
        await run_transfers(LoadPlan(address=address, transfers=1, accounts=2), ignore)


async def test_something_else_than_a_node_is_told() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP, and some more to make a header of it\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(RemoteProtocolError, match="version"):
        await run_transfers(LoadPlan(address=address, transfers=1, accounts=2), ignore)
    server.close()
    await server.wait_closed()


async def test_the_sdk_makes_all_transfers(good_node) -> None:
    plan = LoadPlan(address=good_node.address, transfers=700, accounts=10, concurrency=50, echo=good_node.echo)
    told = []
    outcome = await run_sdk(plan, told.append)
    assert (outcome.accepted, outcome.rejected, outcome.unknown) == (700, 0, 0)
    assert outcome.books_fault is None
    assert outcome.latency_us["p50"] > 0
    assert told[-1] == 700


async def test_the_sdk_counts_rejections(start_fake_node) -> None:
    node = start_fake_node("--fault", "reject", "--fault-after", "10")
    outcome = await run_sdk(LoadPlan(address=node.address, transfers=30, accounts=10, concurrency=4), ignore)
    assert outcome.rejected_codes == {"INSUFFICIENT_FUNDS": 30}
    assert outcome.books_fault is None


def test_who_asks_a_node_whose_end_has_been_seen_is_told_that_it_is_gone(good_node) -> None:
    """Not as a fault of who asks: uvloop has no other word for a write behind the end of a connection."""

    async def ask() -> None:
        async with ControlClient(good_node.address) as control:
            await control.statistics()
            control._writer.transport.abort()
            await asyncio.sleep(0.01)
            with pytest.raises(ConnectionFailed, match="the connection was closed"):
                await control.statistics()

    run_async(ask())
