"""Claim: a shard asks another one over TCP for legs and for what it has under way, and hears what was wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.placement.maps import first_map
from bezant.engine.transactions.ids import Leg, derived_ids, words_of
from bezant.engine.transactions.legs import build_transit_open, transit_id
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.placing import Placing
from bezant.net.server.shard_links import ShardLinks
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.frames import TRIES_COUNT_MAX, FrameError, Operation
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import owners_of
from bezant.protocol.records import LIMIT_UNLIMITED

from ...engine.commands import opening, transfer
from .node import Node, until

MAP = first_map({0: ["a:1"], 1: ["b:1"]})


def name_in(shard: int) -> str:
    names = (f"wallet:{number}" for number in range(1000))
    return next(name for name in names if owners_of(MAP)[slot_of(account_id(name, "EUR"))] == shard)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """The only node of shard 1, which knows of a shard 0 and cannot reach it."""
    node = Node(tmp_path, shard=1)
    await node.start()
    reactor = node.reactor
    links = ShardLinks(lambda shard: "")
    placing = Placing(1, MAP)
    reactor.coordinator = Coordinator(reactor.member, placing, links, reactor.legs, reactor.schedule)
    yield node
    await links.close()
    await node.stop()


@pytest.fixture
async def links(node: Node) -> AsyncIterator[ShardLinks]:
    links = ShardLinks(lambda shard: f"127.0.0.1:{node.port}" if shard == 1 else "")
    yield links
    await links.close()


async def test_legs_are_executed(links: ShardLinks) -> None:
    opened = build_transit_open(1, 0, "EUR", transit_id(1, 0, "EUR"))
    assert (await links.ask(1, opened, 10))["code"].tolist() == [ResultCode.COMMITTED]
    assert (await links.ask(1, opened, 10))["code"].tolist() == [ResultCode.COMMITTED]
    with pytest.raises(ConnectionFailed, match="shard 2"):
        await links.ask(2, opened, 10)


async def test_only_what_is_under_way_is_known(node: Node, links: ShardLinks) -> None:
    """Also while a client waits for the other shard's answer: that waits for this one, perhaps."""
    client = await node.connect()
    await client.execute(opening(name_in(1), LIMIT_UNLIMITED))
    command = transfer(name_in(1), name_in(0), 30)
    asking = asyncio.create_task(client.execute(command))
    ledger = node.reactor.replica.ledger
    await until(lambda: len(ledger.open_tries()) == 1)
    known = derived_ids(command, Leg.TRY_CREDIT)
    assert (await links.ask_tries(1, np.concatenate([known, words_of(command, "id")]), 5)).tolist() == [True, False]
    assert not asking.done()
    asking.cancel()


@pytest.mark.parametrize("size", [15, 16 * (TRIES_COUNT_MAX + 1)])
async def test_ids_of_another_number_of_bytes_are_refused(node: Node, size: int) -> None:
    client = await node.connect()
    reply = await client.ask(Operation.TRIES, bytes(size))
    assert reply.error.code == FrameError.BODY_MALFORMED
