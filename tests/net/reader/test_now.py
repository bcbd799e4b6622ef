"""Claim: who asks a reader for what is now is told all that its node has told anybody, however late the reader is."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bezant.engine.log.entry import Entry
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.publication import Publisher
from bezant.engine.replica import ReplicaSettings, open_replica
from bezant.net.reader import parts as parts_module
from bezant.net.reader import server as server_module
from bezant.net.reader.parts import Parts
from bezant.net.reader.projecting import Projection
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.history_messages import QueryTotals, TotalsAsOf
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.metadata import GetMetadata, Metadata, SetMetadata, SubjectKind
from bezant.protocol.names import account_id
from bezant.protocol.records import position_of

from ...engine.commands import opening_world, transfers
from ..server.node import Client, Reply
from .rig import WAIT_S, ReaderRig

LATE_S = 0.2
"""Seconds that the reader is behind with each batch."""
SMALL = ReplicaSettings(segment_size=64 << 10, free_space_floor=0, accounts_max=64, holds_max=16)
ANN = account_id("ann", "EUR")
OPENED = 2
"""Events at the start."""
make_parts = parts_module.make_parts


class Late:
    """A projection that takes a batch in some time after it has come."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._projection, name)

    def take_in(self, entries: Sequence[Entry]) -> None:
        time.sleep(LATE_S)
        self._projection.take_in(entries)


class Node:
    """A ledger that publishes what it has written, as a node does before it tells of it, and a client of its reader."""

    def __init__(self, data: Path) -> None:
        self.replica = open_replica(data, settings=SMALL)
        self.publisher = Publisher(data / "shard-0000", self.replica.log.log_id)
        self.replica.execute(opening_world("ann"))
        self._publish()
        self.client: Client

    def _publish(self) -> None:
        self.replica.write_group()
        self.publisher.publish(self.replica.log.durable_index)

    def pay(self) -> None:
        self.replica.execute(transfers("world", "ann", 1))
        self._publish()

    def set_metadata(self, content: bytes) -> None:
        set_metadata(self.replica, SetMetadata(SubjectKind.ACCOUNT, ANN, content), bytes(16))
        self._publish()

    async def ask_totals(self, wait_for: int = 0) -> Reply:
        return await self.client.ask(Operation.TOTALS, encode_message(QueryTotals(wait_for=wait_for)))

    async def ask_metadata(self) -> Reply:
        return await self.client.ask(Operation.GET_METADATA, encode_message(GetMetadata(SubjectKind.ACCOUNT, ANN)))

    def close(self) -> None:
        self.publisher.close()
        self.replica.close()


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node whose reader is late with all that follows what it read at its start."""

    def make_late(folder: Path, shard: int, log_id: int) -> Parts:
        parts = make_parts(folder, shard, log_id)
        return parts._replace(projections=[Late(projection) for projection in parts.projections])

    monkeypatch.setattr(server_module, "make_parts", make_late)
    node, rig = Node(tmp_path / "data"), ReaderRig(tmp_path / "data")
    await rig.start()
    node.client = await rig.connect()
    async with asyncio.timeout(WAIT_S):
        while (await node.ask_totals()).operation == Operation.ERROR:
            await asyncio.sleep(0.01)
    yield node
    await rig.stop()
    node.close()


async def test_metadata_is_what_was_set_before_it_was_asked_for(node: Node) -> None:
    for content in (b'{"a": 1}', b'{"a": 2}', b""):
        node.set_metadata(content)
        assert decode_message((await node.ask_metadata()).body, Metadata).content == content


async def test_sums_are_those_of_all_events_before_they_were_asked_for(node: Node) -> None:
    for count in (1, 2):
        node.pay()
        told = decode_message((await node.ask_totals()).body, TotalsAsOf)
        assert told.position == position_of(0, OPENED + count)


async def test_a_reader_that_is_too_late_says_so_or_says_what_it_knows(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WAIT_S_MAX", LATE_S / 20)
    monkeypatch.setitem(globals(), "LATE_S", 5 * LATE_S)  # Whatever this machine does between two questions.
    node.set_metadata(b'{"a": 1}')
    assert (await node.ask_metadata()).error.code == FrameError.BEHIND
    node.pay()
    assert decode_message((await node.ask_totals()).body, TotalsAsOf).position == position_of(0, OPENED)
    assert (await node.ask_totals(position_of(0, OPENED + 1))).error.code == FrameError.BEHIND
    monkeypatch.setitem(globals(), "LATE_S", 0.0)  # Its thread is waited for, and not for ever.
