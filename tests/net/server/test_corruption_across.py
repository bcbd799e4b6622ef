"""Claim: a coordinator that comes upon corruption ends its node, and does not take it for a disk that is full."""

import pytest

from bezant.net.server import failure
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.records import Words

from ...engine.commands import transfer
from .node import until
from .two_shards import Shard, settled

COMMITTED = int(ResultCode.COMMITTED)


@pytest.mark.parametrize("error", [StorageError("no room"), CorruptLog("not what it was")], ids=["full", "corrupt"])
async def test_what_has_ended_cannot_be_settled(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch, error: StorageError
) -> None:
    first, second = pair
    bugs: list[BaseException] = []
    asked: list[int] = []

    def settle(sequences: Words) -> int:
        asked.append(len(sequences))
        raise error

    is_corrupt = isinstance(error, CorruptLog)
    with monkeypatch.context() as failing:
        failing.setattr(failure, "end_after_bug", bugs.append)
        failing.setattr(first.member.replica, "settle", settle)
        (result,) = await first.execute(transfer(first.names[0], second.names[0], 1))
        assert result["code"] == COMMITTED
        await until(lambda: len(asked) > (0 if is_corrupt else 1))
        assert bugs == ([error] if is_corrupt else [])
    if not is_corrupt:
        await settled(first, second)
