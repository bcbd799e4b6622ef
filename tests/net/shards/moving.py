"""Shards of one node each, whose slots move: with coordinators, moves and a slot map that all of them follow."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import bezant
from bezant.net.client.connection import TcpChannel
from bezant.net.placement.memory import MemoryStore
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.moving import Moving
from bezant.net.server.moving_out import Around
from bezant.net.server.placing import Placing
from bezant.net.server.shard_links import ShardLinks
from bezant.protocol.frames import Operation
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.moves import Moves, MoveSlots, MoveStatus, encode_slots
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import SLOT_COUNT

from ..server.node import WAIT_S
from .shards import CURRENCY, Shards


class MovingShards(Shards):
    """See the module."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        super().__init__(folder, count)
        self.store = MemoryStore()
        self.links: list[ShardLinks] = []
        self.following: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await super().start()
        await self.store.replace(0, self.slot_map)
        for node in self.nodes:
            reactor = node.reactor
            placing = reactor.placing
            assert placing is not None
            links = ShardLinks(placing.addresses_of)
            self.links.append(links)
            reactor.coordinator = Coordinator(reactor.member, placing, links, reactor.legs, reactor.schedule)
            reactor.moving = Moving(Around(reactor.member, placing, links, lambda: self.store, reactor.schedule))
            self.following.append(asyncio.create_task(self.follow(placing)))

    async def follow(self, placing: Placing) -> None:
        async for found in self.store.watch(placing.map_version):
            self.slot_map = found
            placing.take(found)

    async def ask(self, shard: int, operation: Operation, body: bytes = b"") -> bytes:
        channel = await TcpChannel.open(self.addresses[shard], 5.0)
        try:
            return await channel.request(operation, body, 5.0)
        finally:
            await channel.close()

    async def begin(self, slots: Iterable[int], source: int, to: int, move: bytes | None = None) -> str:
        wanted = np.zeros(SLOT_COUNT, np.bool_)
        wanted[list(slots)] = True
        asked = MoveSlots(move or os.urandom(16), encode_slots(wanted), to)
        await self.ask(source, Operation.MOVE_SLOTS, encode_message(asked))
        return asked.move.hex()

    async def status(self, shard: int, move: str) -> MoveStatus:
        told = decode_message(await self.ask(shard, Operation.MOVES), Moves)
        return next(status for status in told.moves if status.move == move)

    async def move_to_end(self, slots: Iterable[int], source: int, to: int) -> MoveStatus:
        move = await self.begin(slots, source, to)
        return await self.ended(source, move)

    async def ended(self, source: int, move: str) -> MoveStatus:
        async with asyncio.timeout(WAIT_S):
            while (status := await self.status(source, move)).phase not in {"ended", "called_off"}:
                await asyncio.sleep(0.01)
        return status

    async def stop(self) -> None:
        for task in self.following:
            task.cancel()
        for links in self.links:
            await links.close()
        await super().stop()


def slots_of(names: Iterable[str]) -> list[int]:
    return [slot_of(account_id(name, CURRENCY)) for name in names]


async def open_accounts(wallet: bezant.Wallet, names: Iterable[str], funds: str = "100.00") -> None:
    await wallet.register_currency(CURRENCY, 2)
    assert (await wallet.open_account("bank", CURRENCY, limit=bezant.UNLIMITED)).committed
    for name in names:
        assert (await wallet.open_account(name, CURRENCY)).committed
        assert (await wallet.transfer("bank", name, funds, CURRENCY)).committed
