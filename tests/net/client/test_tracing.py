"""Claim: to trace an id costs a bounded number of questions and events, however many accounts have used it."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bezant.net.client import history as history_module
from bezant.net.client.history import AsOf, History
from bezant.net.client.results import Event
from bezant.net.client.tracing import TRACES_MAX, trace_transactions
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import CommandKind

ID, NO_ID = b"i" * 16, bytes(16)


def first_of(number: int) -> Event:
    """A transfer to another shard, with the same id as all others, by an account of its own."""
    debit = number.to_bytes(16, "big")
    told = (number, number, None, debit, b"c" * 16, NO_ID, NO_ID, 0, 5, 5, 0, 5, 0, 0, None, None, False, 2)
    return Event(CommandKind.TRY_DEBIT, ResultCode.COMMITTED, ID, *cast(Any, told))


class Shards:
    """Where so many accounts have used one id."""

    def __init__(self, accounts: int) -> None:
        self.events = [first_of(number) for number in range(1, accounts + 1)]
        self.asked = 0

    async def find(self, ids: Sequence[bytes]) -> list[Event]:
        self.asked += 1
        return self.events if ID in ids else []


async def test_an_id_that_many_accounts_have_used_is_traced_of_one_that_is_named() -> None:
    shards = Shards(TRACES_MAX)
    assert len(await trace_transactions(shards.find, ID)) == TRACES_MAX
    shards = Shards(TRACES_MAX + 1)
    with pytest.raises(UsageError, match=f"{TRACES_MAX + 1} accounts"):
        await trace_transactions(shards.find, ID)
    assert shards.asked == 1, "nothing is asked about any of them"
    payer = shards.events[7].debit
    (trace,) = await trace_transactions(shards.find, ID, payer)
    assert trace.debit == payer
    assert await trace_transactions(shards.find, ID, b"nobody" + bytes(10)) == []


async def test_so_many_events_are_looked_at_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "EVENTS_MAX", 5)
    read = []

    async def found() -> AsyncIterator[Event]:
        for number in range(1, 1000):
            read.append(number)
            yield first_of(number)

    class Told:
        as_of = AsOf(1, 1)

        def __aiter__(self) -> AsyncIterator[Event]:
            return found()

    history = cast(History, SimpleNamespace(by_id=lambda *ids, **moment: Told()))
    with pytest.raises(UsageError, match="more than 5 events"):
        await History.trace(history, ID)
    assert len(read) == 6
