"""Claim: a shard asks another one over TCP for legs and for what it has under way, and hears what was wrong."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.placement.maps import first_map
from bezant.engine.transactions.ids import derived_ids, words_of
from bezant.engine.transactions.legs import build_transit_open
from bezant.net.server import coordinating, shard_links
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.placing import Placing
from bezant.net.server.shard_links import ShardLinks
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError, RequestRefused
from bezant.protocol.frames import TRIES_COUNT_MAX, FrameError, Operation
from bezant.protocol.kinds import CommandFlag
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import owners_of
from bezant.protocol.records import LIMIT_UNLIMITED
from bezant.protocol.transactions import Leg

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
    opened = build_transit_open(1, 0, "EUR", "once")
    assert (await links.ask(1, opened, 10))["code"].tolist() == [ResultCode.COMMITTED]
    assert (await links.ask(1, opened, 10))["code"].tolist() == [ResultCode.COMMITTED]
    with pytest.raises(ConnectionFailed, match="shard 2"):
        await links.ask(2, opened, 10)


async def test_only_what_is_under_way_is_known(node: Node, links: ShardLinks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a client waits for the other shard's answer: that waits for this one, perhaps."""
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 1.0)  # The node ends when it is over.
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


async def test_legs_in_a_chain_are_refused(node: Node) -> None:
    client = await node.connect()
    opened = build_transit_open(1, 0, "EUR", "once")
    opened["flags"] |= int(CommandFlag.LINKED)
    reply = await client.ask(Operation.LEGS, opened.tobytes())
    assert reply.error.code == FrameError.BODY_MALFORMED


@pytest.mark.parametrize("size", [15, 16 * (TRIES_COUNT_MAX + 1)])
async def test_ids_of_another_number_of_bytes_are_refused(node: Node, size: int) -> None:
    client = await node.connect()
    reply = await client.ask(Operation.TRIES, bytes(size))
    assert reply.error.code == FrameError.BODY_MALFORMED


async def test_a_node_of_another_shard_is_not_asked(node: Node) -> None:
    """Nothing is executed where an address leads that has come to be another shard's."""
    links = ShardLinks(lambda shard: f"127.0.0.1:{node.port}")
    opened = build_transit_open(0, 1, "EUR", "once")
    with pytest.raises(RemoteProtocolError, match="is of shard 1 and not 0"):
        await links.ask(0, opened, 10)
    with pytest.raises(RemoteProtocolError, match="is of shard 1 and not 0"):
        await links.ask_tries(0, np.zeros((1, 2), np.int64), 10)
    assert node.reactor.replica.ledger.account_count == 0
    await links.close()


async def test_a_connection_that_is_given_up_fails_for_all_who_wait_for_it(node: Node) -> None:
    """They are told that it failed, and are not cancelled themselves."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    addresses = [f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"]
    links = ShardLinks(lambda shard: addresses[-1])
    ids = np.zeros((1, 2), np.int64)
    waiting = [asyncio.create_task(links.ask_tries(1, ids, 10)) for _ in range(2)]
    await asyncio.sleep(0.05)
    addresses.append(f"127.0.0.1:{node.port}")
    assert (await links.ask_tries(1, ids, 10)).tolist() == [False]
    for one in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(one, ConnectionFailed)
    await links.close()
    mute.close()
    await mute.wait_closed()


@pytest.mark.parametrize("turns", range(4))
async def test_who_is_given_up_together_with_a_connection_ends(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """It took that for a failed connection, and carried on for a leader who was one no more."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(shard_links.TcpChannel, "open", never)
    links = ShardLinks(lambda shard: "a:1")
    asking = asyncio.create_task(links.ask_tries(1, np.zeros((1, 2), np.int64), 10))
    await until(lambda: 1 in links._links)
    links._let_go(links._links.pop(1))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not asking.done()
    asking.cancel()
    assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
    await links.close()


async def test_a_connection_that_has_failed_is_made_again(node: Node, links: ShardLinks) -> None:
    ids = np.zeros((1, 2), np.int64)
    assert (await links.ask_tries(1, ids, 10)).tolist() == [False]
    channel = await links._channel(1)
    channel._fail(ConnectionFailed("somebody talks nonsense"))
    assert (await links.ask_tries(1, ids, 10)).tolist() == [False]


async def test_legs_leave_at_once_where_a_connection_stands(node: Node) -> None:
    addresses = [f"127.0.0.1:{node.port}"]
    links = ShardLinks(lambda shard: addresses[-1])
    opened = build_transit_open(1, 0, "EUR", "once")
    assert links.begin(1, opened, 10) is None
    assert node.reactor.replica.ledger.account_count == 0
    await links.ask_tries(1, np.zeros((1, 2), np.int64), 10)
    begun = links.begin(1, opened, 10)
    await until(lambda: node.reactor.replica.ledger.account_count == 1)
    assert (await begun.results())["code"].tolist() == [ResultCode.COMMITTED]
    addresses.append("127.0.0.1:1")
    assert links.begin(1, opened, 10) is None
    addresses.pop()
    (await links._channel(1))._fail(ConnectionFailed("somebody talks nonsense"))
    assert links.begin(1, opened, 10) is None
    await links.close()
    assert links.begin(1, opened, 10) is None


async def test_frames_are_asked_for_together_and_answered_in_order(
    node: Node, links: ShardLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one is refused, or nobody looks at the answers any more, nothing is left behind of the others."""
    monkeypatch.setattr(shard_links, "BATCH_COUNT_MAX", 4)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    legs = np.concatenate([build_transit_open(1, 0, "EUR", str(number)) for number in range(10)])
    legs[9:] = build_transit_open(1, 0, "XXX", "once")
    expected = [ResultCode.COMMITTED] + 8 * [ResultCode.ACCOUNT_EXISTS] + [ResultCode.CURRENCY_UNKNOWN]
    assert (await links.ask(1, legs, 10))["code"].tolist() == expected
    assert (await links.ask(1, legs, 10))["code"].tolist() == expected
    legs["flags"][[0, 9]] |= int(CommandFlag.LINKED)
    begun = links.begin(1, legs, 10)
    assert begun is not None
    assert begun.counts == [4, 4, 2]
    with pytest.raises(RequestRefused):
        await begun.results()
    await asyncio.wait(begun.answers)
    begun.answers.clear()
    gc.collect()
    await asyncio.sleep(0)
    assert errors == []
