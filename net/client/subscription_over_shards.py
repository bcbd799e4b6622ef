"""A subscription over several shards: one stream, made of one subscription in each.

What each shard tells comes once and in its order, across lost connections and with `after`, as a `Subscription`
promises; so with several there is no gap and no repeat, either. Between shards there is no order: what has arrived at
the same time is sorted by its times, and what arrives later may be dated before it.

Where it stands is a token: the position in each shard, as text with commas between. What has arrived and is not taken
is bounded in each shard as in a `Subscription`, and here by one batch of each.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from bezant.net.client.results import Event
from bezant.net.client.subscription import Statistics, Subscription
from bezant.protocol.errors import BezantError, UsageError
from bezant.protocol.records import position_of, split_position

After = int | str | None
"""Where to go on: a position, of one shard; a token, of several; 0 is the beginning."""
_TOKEN_SHARDS_MAX: Final = 4096


def read_token(token: str) -> dict[int, int]:
    """The position in each shard. Raises `UsageError`."""
    try:
        positions = [int(part) for part in token.split(",")]
        found = {split_position(position)[0]: position for position in positions}
    except (ValueError, OverflowError) as error:
        raise UsageError(f"a token is positions with commas between, one a shard, not {token!r}") from error
    if len(found) != len(positions) or len(found) > _TOKEN_SHARDS_MAX:
        raise UsageError(f"{token!r} has two positions of one shard")
    return found


def write_token(positions: Mapping[int, int]) -> str:
    """The token of the position in each shard."""
    return ",".join(str(position or position_of(shard, 0)) for shard, position in sorted(positions.items()))


def advanced(token: str, position: int) -> str:
    """A token that stands behind the event at a position in its shard, and elsewhere where it stood."""
    return write_token({**read_token(token), split_position(position)[0]: position})


def after_in(after: After, shard: int) -> int | None:
    """Where to go on in one shard. One that the token does not name yet is told from its beginning."""
    if not isinstance(after, str):
        return after
    position = read_token(after).get(shard, 0)
    return position if split_position(position)[1] else 0


class SubscriptionOverShards:
    """See the module. Made by `Wallet.subscribe`; used as a `Subscription`, and raises what that raises.

    ``position`` is a token, once it has begun. `acknowledge` takes a token, the position of an event, which counts for
    its shard, or None: where the iterating stands in each.
    """

    def __init__(self, parts: Mapping[int, Subscription]) -> None:
        """`parts`: a subscription in each shard, by its number."""
        self._parts = dict(parts)
        self._arrived: asyncio.Queue[tuple[int, list[Event]] | BezantError | None] = asyncio.Queue(len(parts))
        self._pumps: list[asyncio.Task[None]] = []
        self._events: deque[Event] = deque()
        self._given: dict[int, int] = {}
        """The last event of each shard that was given to the caller."""
        self._waiting: dict[int, int] = dict.fromkeys(parts, 0)
        """Events of each shard that its subscription has given, and the caller has not got yet."""
        self._failure: BezantError | None = None
        self._closed = False

    @property
    def position(self) -> str | None:
        """Where the iterating stands; None before it has begun."""
        told = {
            shard: self._given.get(shard) if self._waiting[shard] else part.position
            for shard, part in self._parts.items()
        }
        known = {shard: position for shard, position in told.items() if position is not None}
        return write_token(known) if len(known) == len(told) else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event."""
        if not self._events and not await self._take():
            raise StopAsyncIteration
        event = self._events.popleft()
        self._note_given(event)
        return event

    async def next_events(self) -> list[Event]:
        """All events that have arrived, at least one; none only when the subscription has been closed."""
        if not self._events and not await self._take():
            return []
        events = list(self._events)
        self._events.clear()
        for event in events:
            self._note_given(event)
        return events

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def begin(self) -> None:
        """Return when a reader of each shard tells us."""
        await asyncio.gather(*(part.begin() for part in self._parts.values()))
        for shard, part in self._parts.items():
            self._given.setdefault(shard, part.position or 0)

    async def acknowledge(self, position: int | str | None = None) -> None:
        """Have the readers remember what has been dealt with; see `Subscription.acknowledge`."""
        token = self.position if position is None else position
        if token is None:
            return
        positions = read_token(token) if isinstance(token, str) else {split_position(token)[0]: token}
        unknown = positions.keys() - self._parts.keys()
        if unknown:
            raise UsageError(f"the subscription is told nothing of shard {min(unknown)}")
        await asyncio.gather(*(self._parts[shard].acknowledge(own) for shard, own in positions.items()))

    def statistics(self) -> Statistics:
        """What this did so far, in all shards."""
        told = [part.statistics() for part in self._parts.values()]
        return Statistics(
            sum(each.received for each in told),
            sum(each.waiting for each in told) + sum(self._waiting.values()),
            sum(each.connections for each in told),
        )

    async def close(self) -> None:
        """End it; who iterates gets to the end. May be called again."""
        self._closed = True
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        for part in self._parts.values():
            await part.close()
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)

    # ---- what has arrived ----

    async def _take(self) -> bool:
        """Wait for events; False when there will be no more. Raises what a shard's subscription has ended with."""
        if self._failure is not None:
            raise self._failure
        if self._closed:
            return False
        if not self._pumps:
            await self.begin()
            self._pumps = [
                asyncio.create_task(self._pump(shard), name="bezant shard's events") for shard in self._parts
            ]
        arrived = await self._arrived.get()
        events: list[Event] = []
        while isinstance(arrived, tuple):
            events += arrived[1]
            if self._arrived.empty():
                break
            arrived = self._arrived.get_nowait()
        if isinstance(arrived, BezantError):
            self._failure = arrived
            if not events:
                raise arrived
        if not events:
            return False
        # Times rise in each shard, and a sort leaves what is equal as it was.
        self._events.extend(sorted(events, key=lambda event: event.timestamp_ns))
        return True

    async def _pump(self, shard: int) -> None:
        part = self._parts[shard]
        try:
            while events := await part.next_events():
                self._waiting[shard] += len(events)
                await self._arrived.put((shard, events))
        except BezantError as error:
            await self._arrived.put(error)

    def _note_given(self, event: Event) -> None:
        shard = split_position(event.position)[0]
        self._given[shard] = event.position
        self._waiting[shard] -= 1


AnySubscription = Subscription | SubscriptionOverShards
