"""A subscription: committed events, those there are and those to come, as an asynchronous iterator that survives nodes.

It has a connection of its own, to the reader of the node that the wallet is connected to, or else to that of any other
node of the group. When the connection is lost, or says nothing for too long, it finds another, goes on behind the last
event or progress that has arrived, and nobody notices but for the time that passed.

What has arrived and is not taken yet is bounded: the connection is not read meanwhile, and the reader keeps no more for
us either, but reads on from its log when we do.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
import numpy as np

from bezant.net.access.credentials import Credentials
from bezant.net.client.link import Link, dial, welcome_at
from bezant.net.client.pipeline import refusal_of
from bezant.net.client.results import Event, pushed_event_of
from bezant.protocol.errors import (
    AccessDenied,
    BezantError,
    ConnectionFailed,
    RemoteProtocolError,
    RequestRefused,
    UsageError,
)
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameError,
    FrameHeader,
    Operation,
    encode_frame,
)
from bezant.protocol.messages import Acknowledge, ErrorMessage, Subscribe, Subscribed, decode_message, encode_message
from bezant.protocol.names import currency_code
from bezant.protocol.records import PROGRESS, PUSHED_EVENT, Records

QUEUE_BYTES_MAX: Final = 4 << 20
"""Bytes of events that have arrived and are not taken at which the connection is not read any more."""
DIAL_S_MAX: Final = 2.0
"""Seconds that a node or a reader may take to greet us while there are others."""
BACKOFF_S_MIN: Final = 0.05
BACKOFF_S_MAX: Final = 1.0
"""Seconds between rounds of attempts: doubled each time, less up to half of it by chance."""
SILENT_S: Final = 5.0
"""Seconds without a byte after which the reader is asked for a sign of life, and after as many more given up."""
LOST_S_MAX: Final = 60.0
"""Seconds that a subscription looks for a reader, unless it is told otherwise, before it fails."""
DENIED_S_MIN: Final = 1.0
"""Seconds for which a token is shown to nodes that do not know it: a new one may not have come to all of them yet."""
ACKNOWLEDGE_S_MAX: Final = 10.0
"""Seconds that a reader has to say that it remembers a position."""
IDS_PER_FRAME: Final = 32_768
"""Accounts of a filter that one frame carries; the rest goes in more."""

_SUBSCRIPTION_ID: Final = 1
_FIRST_REQUEST_ID: Final = 2
_ELSEWHERE: Final = frozenset({FrameError.OVERLOADED, FrameError.BEHIND, FrameError.OPERATION_UNKNOWN})
"""Refusals that another reader, or this one a little later, may not give."""
_ANY_HOSTS: Final = frozenset({"0.0.0.0", "[::]"})

if IDS_PER_FRAME * 16 + (64 << 10) + FRAME_HEADER_SIZE > FRAME_SIZE_MAX:
    raise AssertionError("the accounts of a filter must fit in a frame")


class Statistics(NamedTuple):
    """What a subscription did: events that arrived, and those of them that wait; connections that it has had."""

    received: int
    waiting: int
    connections: int


class Subscription:
    """See the module. Made by `Wallet.subscribe`; iterate over it, or use it in ``async with`` to begin at once.

    ``position`` is that behind which it stands: of the last event that was taken, or further if nothing else matches
    up to there. Kept somewhere, it is where to go on with ``after=position``. Iterating ends with `close`, and raises
    `RequestRefused` if a reader will not have it, `ConnectionFailed` if none was found for the time that the
    subscription may be without one.
    """

    def __init__(
        self,
        prepare: Callable[[], Awaitable[Subscribe]],
        addresses: Callable[[], list[str]],
        decimals_of: Callable[[str], Awaitable[int]],
        *,
        log_id: str,
        lost_s_max: float,
        credentials: Credentials | None = None,
    ) -> None:
        """`prepare` makes the request, without a position if it has none; `addresses` are those of nodes to try.

        `credentials`: what is shown to them, if not what this process shows to everybody."""
        self._prepare = prepare
        self._addresses = addresses
        self._decimals_of = decimals_of
        self._log_id = log_id
        self._lost_s_max = lost_s_max
        self._credentials = credentials
        self._loop = asyncio.get_running_loop()
        self._request: Subscribe | None = None
        self._queue: deque[Records | int] = deque()
        self._queue_bytes = 0
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._begun = asyncio.Event()
        self._received_position: int | None = None
        self._link_position: int | None = None
        """Where we stood when the reader of this connection began to tell us."""
        self._keeper: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._link_lost = asyncio.Event()
        self._link_error: BezantError | None = None
        self._is_paused = False
        self._is_subscribed = False
        self._is_told = False
        self._lost_since_s = 0.0
        self._refusal: RequestRefused | None = None
        self._acknowledging: dict[int, asyncio.Future[None]] = {}
        self._next_request_id = _FIRST_REQUEST_ID
        self._failure: BezantError | None = None
        self._closed = False
        self._received = 0
        self._connections = 0
        self.position: int | None = None
        self.address = ""
        """Where the reader is that tells us, or told us last; "host:port"."""

    # ---- what the caller does ----

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event."""
        while not self._events:
            if not await self._take():
                raise StopAsyncIteration
        event = self._events.popleft()
        self.position = event.position
        return event

    async def next_events(self) -> list[Event]:
        """All events that have arrived, in order, at least one; none only when the subscription has been closed."""
        while not self._events and await self._take():
            pass
        events = list(self._events)
        self._events.clear()
        if events:
            self.position = events[-1].position
        return events

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def begin(self) -> None:
        """Return when a reader tells us: whatever is committed from now on will come. Raises as iterating does."""
        self._start()
        await self._begun.wait()
        if self._failure is not None and not self._is_subscribed:
            raise self._failure

    async def acknowledge(self, position: int | None = None) -> None:
        """Have the reader remember under the subscription's name that all up to `position` has been dealt with.

        None is where the iterating stands. Returns when it is durable there. Raises `UsageError` without a name,
        `ConnectionFailed` if the connection is lost meanwhile: acknowledge again, or with the next event.
        """
        position = self.position if position is None else position
        if self._request is None or not self._request.name:
            raise UsageError("only a subscription that has a name, and has begun, remembers a position")
        if position is None:
            return
        if self._link is None or self._link.has_ended:
            raise ConnectionFailed("there is no reader just now that could remember the position")
        request_id, self._next_request_id = self._next_request_id, self._next_request_id + 1
        answered = self._acknowledging[request_id] = self._loop.create_future()
        message = Acknowledge(self._request.name, position, self._log_id)
        self._link.write(encode_frame(Operation.ACKNOWLEDGE, request_id, encode_message(message)))
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S_MAX):
                await answered
        except TimeoutError as error:
            raise ConnectionFailed("the reader did not say that it remembers the position") from error
        finally:
            self._acknowledging.pop(request_id, None)

    def statistics(self) -> Statistics:
        """What this did so far."""
        waiting = len(self._events) + sum(len(item) for item in self._queue if not isinstance(item, int))
        return Statistics(self._received, waiting, self._connections)

    async def close(self) -> None:
        """End it; who iterates gets to the end. May be called again."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._end_link(ConnectionFailed("the subscription was closed"))
        self._arrived.set()
        self._begun.set()

    # ---- what has arrived ----

    async def _take(self) -> bool:
        """Make events of what arrived next, if it has any; False when there will be no more."""
        self._start()
        while not self._queue:
            if self._closed:
                return False
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        item = self._queue.popleft()
        if isinstance(item, int):
            self.position = item
            return True
        self._queue_bytes -= item.nbytes
        if self._is_paused and self._queue_bytes <= QUEUE_BYTES_MAX // 2:
            self._is_paused = False
            if self._link is not None:
                self._link.resume_reading()
        for position, word, record in item.tolist():
            currency = currency_code(word) if word else ""
            decimals = await self._decimals_of(currency) if word else 0
            self._events.append(pushed_event_of(position, record, currency, decimals))
        return True

    def _on_frame(self, header: FrameHeader, body: memoryview) -> None:
        operation = header.operation
        if operation == Operation.EVENTS and header.request_id == _SUBSCRIPTION_ID:
            self._on_events(body)
        elif operation == Operation.PROGRESS and header.request_id == _SUBSCRIPTION_ID:
            self._on_progress(body)
        elif operation == Operation.SUBSCRIBE:
            self._on_subscribed(decode_message(body, Subscribed))
        elif operation == Operation.ACKNOWLEDGE:
            answered = self._acknowledging.get(header.request_id)
            if answered is not None and not answered.done():
                answered.set_result(None)
        elif operation == Operation.ERROR:
            self._on_error(header.request_id, decode_message(body, ErrorMessage))

    def _on_events(self, body: memoryview) -> None:
        if not len(body) or len(body) % PUSHED_EVENT.itemsize:
            raise RemoteProtocolError(f"{len(body)} bytes are no whole number of events")
        records: Records = np.frombuffer(bytes(body), PUSHED_EVENT)
        self._received += len(records)
        self._received_position = int(records[-1]["position"])
        self._queue.append(records)
        self._queue_bytes += records.nbytes
        if self._queue_bytes > QUEUE_BYTES_MAX and not self._is_paused and self._link is not None:
            self._is_paused = True
            self._link.pause_reading()
        self._arrived.set()

    def _on_progress(self, body: memoryview) -> None:
        if len(body) != PROGRESS.itemsize:
            raise RemoteProtocolError(f"{len(body)} bytes are no progress")
        position = self._received_position = int(np.frombuffer(body, PROGRESS)[0]["position"])
        if self._queue and isinstance(self._queue[-1], int):
            self._queue[-1] = position
        else:
            self._queue.append(position)
        self._arrived.set()

    def _on_subscribed(self, subscribed: Subscribed) -> None:
        self._is_subscribed = self._is_told = True
        if self._received_position is None:
            self._received_position = self.position = subscribed.after
        self._link_position = self._received_position
        self._begun.set()

    def _on_error(self, request_id: int, error: ErrorMessage) -> None:
        refusal = refusal_of(error)
        answered = self._acknowledging.get(request_id)
        if answered is not None:
            if not answered.done():
                answered.set_exception(refusal)
        elif error.code == FrameError.TOO_SLOW or self._may_be_elsewhere(error):
            self._refusal = refusal
            self._end_link(ConnectionFailed(f"the reader will not go on: {error.message}"))
        else:
            self._fail(refusal)
            self._end_link(refusal)

    def _may_be_elsewhere(self, error: ErrorMessage) -> bool:
        """Whether to look for another reader, or for this one later."""
        if self._received_position == self._link_position:
            self._is_told = False  # It has taken us, and could then not tell us anything.
        return error.code in _ELSEWHERE and not self._is_given_up()

    def _is_given_up(self) -> bool:
        """Whether no reader has told us anything for so long that none will."""
        return not self._is_told and self._loop.time() > self._lost_since_s + self._lost_s_max

    def _fail(self, error: BezantError) -> None:
        self._failure = error
        self._arrived.set()
        self._begun.set()

    # ---- the connection ----

    def _start(self) -> None:
        if self._closed:
            return
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected(), name="bezant subscription")

    async def _keep_connected(self) -> None:
        """Have a connection for as long as this lives, or fail."""
        try:
            self._request = await self._prepare()
            self._log_id = self._request.log_id or self._log_id
            self._received_position = self.position = self._request.after
            self._lost_since_s = self._loop.time()
            while self._failure is None:
                link = await self._connect()
                await self._watch(link)
                if not self._is_told:
                    await asyncio.sleep(BACKOFF_S_MAX * random.uniform(0.5, 1.0))
                    continue
                self._lost_since_s, self._refusal = self._loop.time(), None
        except BezantError as error:
            self._fail(error)

    async def _connect(self) -> Link:
        """Find a reader, and subscribe. Raises `ConnectionFailed`, or the last refusal, if none has us for too long."""
        deadline_s, denied_s = self._lost_since_s + self._lost_s_max, self._loop.time() + DENIED_S_MIN
        backoff_s, reason = BACKOFF_S_MIN, "no node of it has one"
        while True:
            denied: list[AccessDenied] = []
            addresses = self._addresses()
            for address in addresses:
                try:
                    return await self._connect_by(address)
                except AccessDenied as error:
                    denied.append(error)
                    reason = str(error)
                except (ConnectionFailed, RequestRefused, RemoteProtocolError) as error:
                    reason = str(error)
            if 2 * len(denied) > len(addresses) and self._loop.time() > denied_s:
                raise denied[-1]
            if self._loop.time() + backoff_s > deadline_s:
                raise self._refusal or ConnectionFailed(
                    f"no reader of the ledger was found within {self._lost_s_max:g} s; what was heard last: {reason}"
                )
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _connect_by(self, node_address: str) -> Link:
        """Subscribe at the reader of this node. Raises what keeps us from it."""
        welcome = await welcome_at(node_address, DIAL_S_MAX, self._credentials)
        address = reader_address(welcome.reader, node_address)
        if not address:
            raise ConnectionFailed(f"the node at {node_address} has no reader")
        link = Link(self._on_frame, lambda: None, self._on_end)
        self._link_lost.clear()
        self._link, self._is_paused, self._is_told = link, False, False
        try:
            reader = await dial(link, address, DIAL_S_MAX, self._credentials)
            if reader.log_id != self._log_id:
                raise ConnectionFailed(f"the reader at {address} reads log {reader.log_id}, not {self._log_id}")
        except BaseException:
            link.end(ConnectionFailed("this reader will not do"))
            raise
        self.address = address
        self._connections += 1
        self._subscribe(link)
        return link

    def _subscribe(self, link: Link) -> None:
        if self._request is None:
            raise UsageError("a subscription has no request yet")
        request = msgspec.structs.replace(self._request, after=self._received_position, log_id=self._log_id)
        accounts, size = request.accounts, IDS_PER_FRAME * 16
        for start in range(0, max(len(accounts), 1), size):
            message = msgspec.structs.replace(
                request, accounts=accounts[start : start + size], more=start + size < len(accounts)
            )
            link.write(encode_frame(Operation.SUBSCRIBE, _SUBSCRIPTION_ID, encode_message(message)))

    async def _watch(self, link: Link) -> None:
        """Return when the connection is lost; ask for a sign of life when it is silent."""
        heard, asked = link.received_count, False
        while not link.has_ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENT_S):
                    await self._link_lost.wait()
            if link.has_ended:
                return
            if self._is_paused or link.received_count != heard:
                heard, asked = link.received_count, False
            elif asked:
                link.end(ConnectionFailed(f"the reader said nothing for {2 * SILENT_S:g} s"))
            else:
                asked = True
                link.write(encode_frame(Operation.PING, 0))

    def _on_end(self, link: Link, error: BezantError) -> None:
        if link is not self._link:
            return
        self._link_lost.set()
        for answered in self._acknowledging.values():
            if not answered.done():
                answered.set_exception(ConnectionFailed(f"the connection to the reader was lost: {error}"))

    def _end_link(self, error: BezantError) -> None:
        if self._link is not None:
            self._link.end(error)


def reader_address(told: str, node_address: str) -> str:
    """Where the reader is that a node at `node_address` names; "" if it names none."""
    host, _, port = told.rpartition(":")
    return f"{node_address.rpartition(':')[0]}:{port}" if host in _ANY_HOSTS else told
