"""Claim: a transaction of several legs is done as a whole or not at all, whatever is lost, late or repeated."""

import asyncio
from collections.abc import Sequence

import numpy as np

from bezant.protocol.codes import ResultCode
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import currency_word
from bezant.protocol.records import Records
from bezant.protocol.transactions import Transact, Transacted, TransactionMode

from ...engine.commands import join, transfer
from .two_shards import Shard, settled

COMMITTED = int(ResultCode.COMMITTED)
TCC, SAGA = TransactionMode.TCC, TransactionMode.SAGA
Leg = tuple[str, str, int]


def encode_legs(legs: Sequence[Leg], currency: str = "EUR") -> Records:
    commands = join(*(transfer(*leg) for leg in legs))
    commands["id_head"] = commands["id_tail"] = 0
    commands["currency"] = currency_word(currency)
    return commands


def new_id() -> bytes:
    return np.random.default_rng().bytes(16)


async def ask(
    shard: Shard, legs: Sequence[Leg], *, key: bytes | None = None, mode=TCC, applied: bool = True
) -> Transacted:
    """What a client of the shard is told."""
    future = asyncio.get_running_loop().create_future()

    def respond(answer: bytes | Exception) -> None:
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(decode_message(answer, Transacted))

    asked = Transact(key or new_id(), int(mode), encode_legs(legs).tobytes(), await_applied=applied)
    shard.reactor.coordinator.transactor.ask(encode_message(asked), 1, respond)
    async with asyncio.timeout(20):
        return await future


async def test_a_payout_over_two_shards(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    a, b = first.names, second.names
    told = await ask(first, [(a[0], b[0], 30), (b[1], a[1], 20), (a[2], a[3], 5), (b[2], b[3], 6)])
    assert told == Transacted(COMMITTED, applied=True)
    await settled(first, second)
    assert first.balances(*a) == [70, 120, 95, 105]
    assert second.balances(*b) == [130, 80, 94, 106]
