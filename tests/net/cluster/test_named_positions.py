"""Claim: what was acknowledged under a name at one node is known at the others, also when the leader is killed then."""

import asyncio
import time

from bezant.net.client.connection import TcpChannel
from bezant.net.client.link import welcome_at
from bezant.protocol.frames import Operation
from bezant.protocol.messages import Acknowledge, Subscribe, Subscribed, decode_message, encode_message

from .nodes import Nodes, open_books

WAIT_S = 120.0


async def reader_of(nodes: Nodes, number: int) -> TcpChannel:
    address = (await welcome_at(nodes.places[number][1], WAIT_S)).reader
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            return await TcpChannel.open(address, WAIT_S)
        except Exception:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.2)


async def told_by(nodes: Nodes, number: int, name: str) -> int:
    """Behind which position a subscription of this name begins there."""
    reader = await reader_of(nodes, number)
    try:
        reply = await reader.request(Operation.SUBSCRIBE, encode_message(Subscribe(name=name)), WAIT_S)
        return decode_message(reply, Subscribed).after
    finally:
        await reader.close()


async def test_a_name_is_known_to_all_nodes(nodes: Nodes) -> None:
    nodes.have_readers = True
    nodes.start()
    for node in nodes.running.values():
        await node.ready(WAIT_S)
    async with nodes.connect(timeout_s=WAIT_S) as wallet:
        await open_books(wallet)
        position = 0
        for _ in range(5):
            result = await wallet.transfer("wallet:ann", "wallet:bob", "1.00", "EUR")
            position = position or result.position or 0
    leader = await nodes.leader(WAIT_S)
    follower, other = (number for number in nodes.running if number != leader)
    reader = await reader_of(nodes, follower)
    await reader.request(Operation.ACKNOWLEDGE, encode_message(Acknowledge("mail", position)), WAIT_S)
    await reader.close()
    deadline_s = time.monotonic() + WAIT_S
    while await told_by(nodes, other, "mail") != position:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.2)
    nodes.kill(leader)
    assert await told_by(nodes, other, "mail") == position
