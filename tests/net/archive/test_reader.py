"""Claim: the reader of a node answers the same whether a part of the history has left for an archive or not; and while
the archive cannot be had, that keeps nobody from anything who does not ask for that part."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

import bezant
from bezant.engine.log.archive_cache import CACHE_NAME
from bezant.engine.log.storage import Directory
from bezant.engine.replica import shard_directory
from bezant.engine.tables.history import HistoryTables
from bezant.net.archive.segments import drop_segments, push_segments
from bezant.net.archive.store import LocalStore
from bezant.net.client.members import ask_node
from bezant.net.client.wallet import Wallet
from bezant.protocol.errors import RequestRefused
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.history_messages import QueryAccounts
from bezant.protocol.messages import encode_message
from bezant.protocol.names import account_id
from bezant.protocol.records import Records, id_words

from ...engine.projections.naive import State, step
from ..server.process import NodeProcess, running
from .conftest import Folder

WAIT_S = 60.0
NAMES = ("world", "ann", "bob")
SMALL = ("--segment-size-mib", "1", "--free-space-floor-mib", "1", "--ids-memory-mib", "64")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "kept")


@asynccontextmanager
async def node_of(folder: Folder) -> AsyncIterator[tuple[NodeProcess, Wallet]]:
    async with (
        running(folder.path, reader=True, options=SMALL) as node,
        bezant.connect("{}:{}".format(*node.address), timeout_s=WAIT_S) as wallet,
    ):
        yield node, wallet


def shard(folder: Folder) -> Directory:
    return shard_directory(folder.path, 0)


def events_of(folder: Folder) -> Records:
    return np.concatenate([batch.events for _, batch in HistoryTables(folder.path).batches()])


async def drop(folder: Folder, store: LocalStore) -> None:
    await push_segments(folder.path, store)
    assert len((await drop_segments(folder.path, store, keep=1)).dropped) >= 2
    shutil.rmtree(shard(folder).path / CACHE_NAME, ignore_errors=True)


async def check_all(wallet: Wallet, events: Records) -> None:
    """Every kind of question about any time, held against a replay."""
    state, history = State(), wallet.history
    for sequence, event in enumerate(events, start=1):
        step(state, event)
        if sequence % 97 and sequence != len(events):
            continue
        for name in NAMES:
            as_of, found = await history.account(name, "EUR", position=sequence)
            assert (as_of.position, as_of.timestamp_ns) == (sequence, int(event["timestamp_ns"]))
            assert found is not None
            account = state.accounts[words_of(name)]
            assert (found.balance, found.held, found.event_count) == (
                account.balance,
                account.held,
                len(account.touched),
            )
            _, at = await history.account(name, "EUR", at=int(event["timestamp_ns"]))
            assert at == found
        receipt = bezant.check_receipt(await wallet.receipts.receipt(sequence))
        assert (receipt.position, receipt.event) == (sequence, event.tobytes())
    for reverse in (False, True):
        lines = [line.position async for line in history.statement("ann", "EUR", position=len(events), reverse=reverse)]
        touched = state.accounts[words_of("ann")].touched
        assert lines == (touched[::-1] if reverse else touched)
    for sequence in (5, len(events) // 2):
        event = events[sequence - 1]
        found = await history.transfer(event["id_head"].tobytes() + event["id_tail"].tobytes())
        assert [line.position for line in found] == [sequence]


def words_of(name: str) -> tuple[int, int]:
    return id_words(account_id(name, "EUR"))


async def told(wallet: Wallet, after: int, count: int) -> list[int]:
    async with asyncio.timeout(WAIT_S), wallet.subscribe(after=after) as subscription:
        return [(await anext(subscription)).position for _ in range(count)]


async def refused_for_want_of_segment_1(wallet: Wallet) -> None:
    """Ask the reader itself about the past: a wallet would ask again until its time is up."""
    question, told = encode_message(QueryAccounts(account_id("ann", "EUR"), as_of_position=5)), ""
    async with asyncio.timeout(WAIT_S):
        while not re.search(r"segment 1 in the archive .*kept", told):  # At first it has not noticed yet.
            await asyncio.sleep(0.02)
            with pytest.raises(RequestRefused) as refused:
                await ask_node(wallet.channel.welcome.reader, Operation.QUERY_ACCOUNTS, question, WAIT_S)
            assert refused.value.code == FrameError.OVERLOADED
            told = str(refused.value)


async def test_all_is_answered_as_before(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    events = events_of(folder)
    await drop(folder, store)
    async with node_of(folder) as (_, wallet):
        await check_all(wallet, events)
        assert await told(wallet, 0, len(events)) == list(range(1, len(events) + 1))


async def test_without_the_archive_all_else_goes_on(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    events = events_of(folder)
    await drop(folder, store)
    (tmp_path / "kept").rename(tmp_path / "away")
    async with node_of(folder) as (_, wallet):
        async with wallet.subscribe() as live:
            old = wallet.subscribe(after=0, lost_s_max=0.5)
            with pytest.raises(RequestRefused, match=r"segment 1 in the archive .*kept") as refused:
                await anext(old)
            assert refused.value.code == FrameError.OVERLOADED
            await refused_for_want_of_segment_1(wallet)
            result = await wallet.transfer("world", "ann", "1.00", "EUR")
            async with asyncio.timeout(WAIT_S):
                assert (await anext(live)).position == result.position
            assert live.statistics().connections == 1
            assert await told(wallet, len(events) - 3, 4) == list(range(len(events) - 2, len(events) + 2))
        (tmp_path / "away").rename(tmp_path / "kept")
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await wallet.history.account("ann", "EUR")
                    break
                except RequestRefused as error:
                    assert error.code == FrameError.OVERLOADED
                    await asyncio.sleep(0.1)
        await check_all(wallet, events)
        assert await told(wallet, 0, len(events)) == list(range(1, len(events) + 1))
