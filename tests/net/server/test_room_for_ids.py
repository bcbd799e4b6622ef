"""Claim: what takes ids just before a batch has none of its commands refused that wait, or need no wait."""

import pytest

from bezant.engine import replica as replica_module
from bezant.engine.ledger.generations import FULL_PERCENT
from bezant.engine.ledger.index import META_COUNT
from bezant.protocol.codes import ResultCode

from ...engine.commands import join, transfer
from .node import until
from .two_shards import Shard, settled

COMMITTED = int(ResultCode.COMMITTED)


async def leave_room(shard: Shard, commands: int) -> None:
    """Have the memory for ids look as full as it is when so many commands find room, and no more."""
    await shard.reactor.wait_idle()
    generations = shard.ledger.generations
    count_max = FULL_PERCENT * len(generations.arrays.current) // 100
    generations.arrays.meta[META_COUNT] = count_max - shard.ledger._ids_at_most(commands)
    assert shard.ledger.has_room_for_ids(commands)
    assert not shard.ledger.has_room_for_ids(commands + 1)


async def until_made(shard: Shard) -> None:
    """The checkpoint that the memory calls for."""
    await until(lambda: shard.member.replica.checkpoint_index > 0)


async def test_a_batch_finds_room_behind_the_opening_of_a_transit_account(pair: tuple[Shard, Shard]) -> None:
    """There was room when it was looked for, and the opening took it: all of the batch was refused."""
    first, second = pair
    a, b = first.names, second.names
    commands = join(transfer(a[0], a[1], 1), transfer(a[0], b[0], 2))
    await leave_room(first, len(commands))
    assert (await first.execute(commands))["code"].tolist() == [COMMITTED, COMMITTED]
    await settled(first, second)
    await until_made(first)


async def test_without_room_for_more_than_the_batch_no_transit_account_is_opened(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may need more of them than there is room for: those that need the rest try again, and nobody else."""
    monkeypatch.setattr(replica_module, "ENTRIES_BESIDE_MAX", 0, raising=False)
    first, second = pair
    a, b = first.names, second.names
    commands = join(transfer(a[0], a[1], 1), transfer(a[0], b[0], 2))
    await leave_room(first, len(commands))
    assert (await first.execute(commands))["code"].tolist() == [COMMITTED, ResultCode.TRANSIT_UNKNOWN]
    await until_made(first)
    assert (await first.execute(commands[1:]))["code"].tolist() == [COMMITTED]
    await settled(first, second)
