"""What was, over several shards: one answer, as of one time that all of them have closed.

Each shard has positions of its own, so what is asked of several is as of a time: the one that is given, or now, taken
once. Their leaders first see to it that nothing can be dated then or before any more (``protocol/SHARDS.md``, "Times
over shards"); what each shard had then is one consistent state. Lines of several shards are merged by their times.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from bezant.net.client.channel import Channel
from bezant.net.client.history import (
    AccountsThen,
    AsOf,
    CurrencySums,
    History,
    OpenHold,
    SumsThen,
    Time,
    time_ns,
)
from bezant.net.client.readers import ReaderChannel
from bezant.net.client.results import Account, Event
from bezant.net.client.sharding import ShardedChannel
from bezant.net.client.sharding_readers import Readers, ShardReaders
from bezant.protocol.errors import RequestRefused, UsageError
from bezant.protocol.frames import HISTORY_ACCOUNTS_MAX, FrameError, Operation
from bezant.protocol.history_messages import CloseTime, QueryHolds, TimeClosed
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import TRANSIT_NAME_PREFIX, account_id
from bezant.protocol.records import split_position

CLOSE_AGAIN_S: Final = 0.02
"""Seconds until a shard is asked again whose clock has not come to a time yet."""

_Item = TypeVar("_Item")
_Decimals = Callable[[str], Awaitable[int]]


def history_of(channel: Channel, readers: Readers, decimals_of: _Decimals, timeout_s: float) -> History:
    """What was, in the ledger that a channel leads to."""
    if isinstance(channel, ShardedChannel) and isinstance(readers, ShardReaders):
        return ShardedHistory(channel, readers, decimals_of, timeout_s)
    return History(readers, decimals_of, timeout_s)


class _ReaderOfShard:
    """The reader of one shard, whatever is asked."""

    def __init__(self, readers: ShardReaders, shard: int) -> None:
        self._readers = readers
        self._shard = shard

    async def reader_of(self, ids: bytes) -> tuple[ReaderChannel, str]:
        """See `Readers`."""
        return await self._readers.reader_in(self._shard)

    async def reader_at(self, position: int) -> tuple[ReaderChannel, str]:
        """See `Readers`."""
        return await self._readers.reader_in(self._shard)

    async def close(self) -> None:
        """See `Readers`."""
        await self._readers.close()


class _ShardHistory(History):
    """What was in one shard; what is asked as of a time is asked when that is closed."""

    def __init__(
        self, channel: ShardedChannel, readers: ShardReaders, shard: int, decimals_of: _Decimals, timeout_s: float
    ) -> None:
        super().__init__(_ReaderOfShard(readers, shard), decimals_of, timeout_s)
        self._channel = channel
        self._shard = shard

    async def close_time(self, moment_ns: int) -> TimeClosed:
        """Have a time closed; 0 asks for the shard's own. Raises `RequestRefused` for one that has not come."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        body = encode_message(CloseTime(moment_ns))
        while True:
            left_s = deadline_s - loop.time()
            try:
                reply = await self._channel.request_of(self._shard, Operation.CLOSE_TIME, body, max(left_s, 0.001))
                return decode_message(reply, TimeClosed)
            except RequestRefused as refusal:
                if refusal.code != FrameError.OVERLOADED or left_s < 2 * CLOSE_AGAIN_S:
                    raise
            await asyncio.sleep(CLOSE_AGAIN_S)

    async def _ask(self, operation: Operation, asked: msgspec.Struct, about: bytes) -> bytes:
        moment_ns = getattr(asked, "as_of_time_ns", None)
        if moment_ns is not None and 0 <= moment_ns < 1 << 63 and getattr(asked, "as_of_position", None) is None:
            closed = await self.close_time(moment_ns)
            if closed.timestamp_ns <= moment_ns:
                asked = msgspec.structs.replace(asked, as_of_time_ns=None, as_of_position=closed.position)
            else:
                asked = msgspec.structs.replace(asked, wait_for=closed.position)
        return await super()._ask(operation, asked, about)


class ShardedHistory(History):
    """See the module, and `History`; a question about accounts of one shard alone can be as of a position of that."""

    def __init__(
        self, channel: ShardedChannel, readers: ShardReaders, decimals_of: _Decimals, timeout_s: float
    ) -> None:
        super().__init__(readers, decimals_of, timeout_s)
        self._channel = channel
        self._shard_readers = readers
        self._parts: dict[int, _ShardHistory] = {}

    def _of(self, shard: int) -> _ShardHistory:
        part = self._parts.get(shard)
        if part is None:
            part = _ShardHistory(self._channel, self._shard_readers, shard, self._decimals_of, self._timeout_s)
            self._parts[shard] = part
        return part

    async def _moment(self, shards: Sequence[int], at: Time | None, position: int | None) -> int:
        """The time that a question to several shards is as of: the one given, or now."""
        if position is not None:
            raise UsageError(
                f"this is about {len(shards)} shards, and a position is of one: ask for what was at a time, or now"
            )
        if at is not None:
            return time_ns(at) or 0
        told = await asyncio.gather(*(self._of(shard).close_time(0) for shard in shards))
        return max(closed.time_ns for closed in told)

    async def accounts(
        self, ids: Sequence[bytes], *, at: Time | None = None, position: int | None = None, wait_for: int = 0
    ) -> AccountsThen:
        """See `History.accounts`."""
        places = self._channel.shards_of(b"".join(ids)) if all(len(one) == 16 for one in ids) else []
        shards = sorted(set(places))
        if len(shards) <= 1 or len(ids) > HISTORY_ACCOUNTS_MAX:
            return await super().accounts(ids, at=at, position=position, wait_for=wait_for)
        moment_ns = await self._moment(shards, at, position)
        rows = {shard: [row for row, place in enumerate(places) if place == shard] for shard in shards}
        answers = await asyncio.gather(
            *(
                self._of(shard).accounts([ids[row] for row in own], at=moment_ns, wait_for=_wait_in(shard, wait_for))
                for shard, own in rows.items()
            )
        )
        found: list[Account | None] = [None] * len(ids)
        for own, answer in zip(rows.values(), answers, strict=True):
            for row, account in zip(own, answer.accounts, strict=True):
                found[row] = account
        return AccountsThen(AsOf(0, moment_ns), found)

    async def totals(self, *, at: Time | None = None, position: int | None = None, wait_for: int = 0) -> SumsThen:
        """See `History.totals`. Transit accounts are in none of the sums but in `in_flight`."""
        shards = self._channel.shards
        moment_ns = await self._moment(shards, at, position)
        answers = await asyncio.gather(
            *(self._of(shard).totals(at=moment_ns, wait_for=_wait_in(shard, wait_for)) for shard in shards)
        )
        codes = sorted({sums.currency for answer in answers for sums in answer.currencies})
        transits = await asyncio.gather(*(self._transits(shard, codes, moment_ns) for shard in shards))
        accounts = [account for found in transits for account in found]
        parts = [sums for answer in answers for sums in answer.currencies]
        return SumsThen(AsOf(0, moment_ns), [_sum_up(code, parts, accounts) for code in codes])

    async def _transits(self, shard: int, currencies: Sequence[str], moment_ns: int) -> list[Account]:
        """The transit accounts of a shard, as they were."""
        names = [f"{TRANSIT_NAME_PREFIX}{shard}:{peer}" for peer in self._channel.shards]
        ids = [account_id(name, currency) for name in names for currency in currencies]
        found: list[Account] = []
        for first in range(0, len(ids), HISTORY_ACCOUNTS_MAX):
            answer = await self._of(shard).accounts(ids[first : first + HISTORY_ACCOUNTS_MAX], at=moment_ns)
            found += [account for account in answer.accounts if account is not None]
        return found

    async def _holds(
        self, asked: QueryHolds, limit: int | None, about: bytes
    ) -> AsyncIterator[tuple[AsOf, OpenHold | None]]:
        shards = self._channel.shards
        if about or len(shards) == 1:
            async for line in super()._holds(asked, limit, about):
                yield line
            return
        if asked.after:
            raise UsageError(
                f"this is about {len(shards)} shards, and the position of a hold is of one: name an account"
            )
        moment_ns = await self._moment(shards, asked.as_of_time_ns, asked.as_of_position)
        as_of = AsOf(0, moment_ns)
        yield as_of, None
        parts = [
            self._of(shard).holds(at=moment_ns, limit=limit, wait_for=_wait_in(shard, asked.wait_for))
            for shard in shards
        ]
        left = limit
        async for hold in _merge(parts, lambda hold: hold.event.timestamp_ns):
            if left == 0:
                return
            left = None if left is None else left - 1
            yield as_of, hold

    async def _ask(self, operation: Operation, asked: msgspec.Struct, about: bytes) -> bytes:
        """A question to one shard."""
        shards = self._channel.shards
        shard = shards[0] if not about and len(shards) == 1 else self._channel.shard_of(about)
        return await self._of(shard)._ask(operation, asked, about)

    async def _lines(
        self, operation: Operation, asked: Any, limit: int | None, about: bytes
    ) -> AsyncIterator[tuple[AsOf, Event | None]]:
        shards = self._channel.shards
        if about or len(shards) == 1:
            async for line in super()._lines(operation, asked, limit, about):
                yield line
            return
        moment_ns = await self._moment(shards, asked.as_of_time_ns, asked.as_of_position)
        as_of = AsOf(0, moment_ns)
        yield as_of, None
        parts = []
        for shard in shards:
            own = msgspec.structs.replace(asked, as_of_time_ns=moment_ns, wait_for=_wait_in(shard, asked.wait_for))
            lines = self._of(shard)._lines(operation, own, limit, about)
            parts.append(_events_of(lines))
        sign, left = -1 if asked.reverse else 1, limit
        async for event in _merge(parts, lambda event: sign * event.timestamp_ns):
            if left == 0:
                return
            left = None if left is None else left - 1
            yield as_of, event


def _wait_in(shard: int, wait_for: int) -> int:
    """The position that the reader of a shard must have come to: the one given, if it is of that shard."""
    return wait_for if wait_for and split_position(wait_for)[0] == shard else 0


def _sum_up(currency: str, parts: Sequence[CurrencySums], transits: Sequence[Account]) -> CurrencySums:
    """The sums of one currency over all shards, without their transit accounts."""
    parts = [part for part in parts if part.currency == currency]
    own = [account for account in transits if account.currency == currency]
    return CurrencySums(
        currency,
        parts[0].decimals,
        sum(part.accounts_opened for part in parts) - len(own),
        sum(part.accounts_closed for part in parts),
        sum(part.moves for part in parts),
        sum(part.moved for part in parts),
        sum(part.positive for part in parts) - sum(max(account.balance, 0) for account in own),
        sum(part.held for part in parts) - sum(account.held for account in own),
        sum(account.balance for account in own),
    )


async def _events_of(lines: AsyncIterator[tuple[AsOf, Event | None]]) -> AsyncIterator[Event]:
    async for _, event in lines:
        if event is not None:
            yield event


async def _merge(parts: Sequence[AsyncIterator[_Item]], key: Callable[[_Item], int]) -> AsyncIterator[_Item]:
    """What several iterators give, each in the order of a key, in that order; in memory is one of each at a time."""
    waiting: list[tuple[int, int, _Item]] = []
    for number, part in enumerate(parts):
        async for item in part:
            waiting.append((key(item), number, item))
            break
    heapq.heapify(waiting)
    while waiting:
        _, number, item = waiting[0]
        yield item
        async for following in parts[number]:
            heapq.heapreplace(waiting, (key(following), number, following))
            break
        else:
            heapq.heappop(waiting)
