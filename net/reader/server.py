"""A running reader: its parts, made when the log is there, and what each request comes to."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bezant.engine.compiled import kernel_digest
from bezant.engine.following import Follower, open_follower
from bezant.engine.log.entry import Entry
from bezant.engine.replica import shard_directory
from bezant.engine.tokens.table import TokenTable, apply_tokens
from bezant.net.access.guard import Guard
from bezant.net.metrics.http import Watchers
from bezant.net.metrics.latencies import LoopWatch
from bezant.net.reader.connection import REQUESTS_IN_FLIGHT_MAX, ReaderConnection
from bezant.net.reader.feed import Feed
from bezant.net.reader.forwarding import Forwarding
from bezant.net.reader.hub import Hub
from bezant.net.reader.names import NamedPositions
from bezant.net.reader.parts import LimitedQuery, Parts, Query, make_parts
from bezant.net.reader.projecting import Awaits, Projector
from bezant.net.reader.queries import NotForToken
from bezant.net.reader.setup import Setup
from bezant.net.reader.starting import find_start
from bezant.net.reader.statistics import ReaderCounters, report
from bezant.net.reader.subscriptions import Subscriptions
from bezant.net.reader.warm import warm_subscriptions
from bezant.net.reader.watchers import reader_pages
from bezant.net.server.listening import Listener, listen_on
from bezant.net.server.open_connections import OpenConnections, files_for_connections
from bezant.protocol.access import OPERATION_RULES, OPERATIONS, Limited
from bezant.protocol.errors import (
    ArchiveUnavailable,
    CorruptLog,
    HistoryIncomplete,
    RemoteProtocolError,
    StorageError,
    UsageError,
)
from bezant.protocol.frames import BATCH_COUNT_MAX, FRAME_SIZE_MAX, PROTOCOL_VERSION, FrameError, FrameHeader, Operation
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import Welcome, encode_message
from bezant.protocol.statistics import Queue, ReaderStatistics

QUERY_THREADS: Final = 2
QUERIES_MAX: Final = 1024
"""Queries of all connections together that are not answered yet; more are refused as OVERLOADED."""
WAITING_MAX: Final = QUERIES_MAX // 2
"""Queries among them that wait for the reader to come further; more are answered at once that it has not, so that
those who ask for what is known are not kept out by them."""
WAIT_S_MAX: Final = 5.0
"""Seconds that a query, or a subscription, waits for the reader to come as far as it asks."""
LOG_POLL_S: Final = 0.1
"""Seconds between two looks for a log, or for a first entry in it, where there is none yet."""
READER_FOLDER: Final = "reader"
SUBSCRIPTIONS_FOLDER: Final = "subscriptions"

_log = logging.getLogger("bezant")


class ReaderServer:
    """See the module. All methods on the loop."""

    def __init__(
        self,
        setup: Setup,
        sockets: Sequence[socket.socket],
        metrics: Sequence[socket.socket] = (),
        on_begun: Callable[[], object] = lambda: None,
    ) -> None:
        """`metrics` are where it tells how it is. `on_begun` is called, on another thread, when all that the reader
        keeps is loaded and taken up."""
        self._setup = setup
        self._on_begun = on_begun
        self._sockets = list(sockets)
        self._metrics = list(metrics)
        self.shard = setup.shard
        self.counters = ReaderCounters()
        self._directory = shard_directory(Path(setup.data_directory), setup.shard)
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._threads = ThreadPoolExecutor(QUERY_THREADS, thread_name_prefix="bezant-query")
        self._queries_in_flight = 0
        self._queries_waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._queries: dict[int, Query] = {}
        self._limited: dict[int, LimitedQuery] = {}
        self._follower: Follower | None = None
        self._feed: Feed | None = None
        self._hub: Hub | None = None
        self._subscriptions: Subscriptions | None = None
        self._forwarding: Forwarding | None = None
        self._projector: Projector | None = None
        self.leaves_thread = False
        """Whether a thread that keeps something of the log did not end in time: the process must not wait for it."""
        self._welcome: Welcome | None = None
        self._tokens = TokenTable()
        guard = Guard(self._tokens, setup.security.cluster_token())
        self.connections = OpenConnections(files_for_connections(), guard)

    # ---- life ----

    async def run(self) -> None:
        """Serve until `stop`. Raises what the log or a projection failed with: `StorageError` and its kinds."""
        servers: list[Listener] = []
        loop_watch = LoopWatch(self._loop, self.counters.loop)
        watchers = Watchers(reader_pages(self.statistics, loop_watch))
        tls = self._setup.security.clients_context()
        loop_watch.start()
        try:
            servers += await listen_on(self._loop, watchers.connection, self._metrics) if self._metrics else []
            follower = await self._open()
            if follower is None:
                return
            self._welcome = self._make_welcome(follower)
            await self._begin(follower)
            await self._come_level()
            servers += await listen_on(self._loop, lambda: ReaderConnection(self), self._sockets, tls)
            await self._stopped
        finally:
            for server in servers:
                server.close()
            loop_watch.stop()
            watchers.close()
            await self._close()

    def stop(self) -> None:
        """End in order."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._stopped.done():
            self._stopped.set_exception(error)

    async def _open(self) -> Follower | None:
        """The log, once it is there and has an entry; None if this is to stop before."""
        follower: Follower | None = None
        while not self._stopped.done():
            follower = follower or open_follower(self._directory, self._setup.shard)
            if follower is not None:
                follower.publication.refresh()
                if follower.published_index:
                    return follower
            await asyncio.wait([self._stopped], timeout=LOG_POLL_S)
        return None

    async def _begin(self, follower: Follower) -> None:
        """Open the log, at the newest checkpoint, and follow it."""
        self._follower = follower
        folder = self._directory.subdirectory(READER_FOLDER)
        parts = make_parts(folder.path, self._setup.shard, follower.log_id)
        await self._loop.run_in_executor(None, warm_subscriptions)
        start = await self._loop.run_in_executor(None, find_start, self._directory, follower)
        follower.begin(start.point)
        hub = self._hub = Hub(follower, self._fail, self._on_unavailable)
        hub.currencies.add(start.ids, start.currencies)
        feed = self._feed = Feed(
            follower,
            self._on_entries,
            wake=self._setup.wake,
            is_awaited=lambda: hub.is_awaited,
            on_failure=self._fail,
        )
        names = NamedPositions(folder.subdirectory(SUBSCRIPTIONS_FOLDER), follower.log_id)
        names.learn(start.positions)
        self._tokens.restore(start.tokens)
        if self._setup.node:
            self._forwarding = Forwarding(
                names,
                node=self._setup.node,
                shard=self._setup.shard,
                public_log_id=follower.public_id,
                on_failure=self._fail,
            )
        self._subscriptions = Subscriptions(
            hub,
            names,
            shard=self._setup.shard,
            public_log_id=follower.public_id,
            catch_up=feed.catch_up,
            on_failure=self._fail,
        )
        feed.start()
        self._start_parts(parts)

    async def _come_level(self) -> None:
        """Return when all that was published has been taken in once, or when this is to stop."""
        if self._feed is not None:
            level: asyncio.Future[Any] = self._loop.create_task(self._feed.is_level.wait())
            await asyncio.wait([level, self._stopped], return_when=asyncio.FIRST_COMPLETED)
            level.cancel()

    def _start_parts(self, parts: Parts) -> None:
        self._queries, self._limited = parts.queries, parts.limited
        if parts.projections:
            follower = open_follower(self._directory, self._setup.shard)
            if follower is None:
                raise StorageError(f"{self._directory.path}: the log has gone")
            self._projector = Projector(parts.projections, follower, self._fail, parts.find_obstacle, self._on_begun)
            self._projector.start()

    def _on_entries(self, entries: Sequence[Entry]) -> None:
        """More of the log, in order: first who may be told of it, then to those who wait for it."""
        for entry in entries:
            if entry.header.kind == EntryKind.CONTROL:
                apply_tokens(self._tokens, entry)
        if self._hub is not None and self._subscriptions is not None:
            before = self._hub.position
            self._hub.take_in(entries)
            self._subscriptions.take_in(entries)
            self._subscriptions.on_position()
            if self._hub.is_awaited and self._hub.position > before:
                self.counters.note_told(self._hub.timestamp_ns)
        if self._projector is not None:
            self._projector.wake()

    def _on_unavailable(
        self, connection: ReaderConnection, request_id: int, error: ArchiveUnavailable | HistoryIncomplete
    ) -> None:
        if self._subscriptions is not None:
            self._subscriptions.on_unavailable(connection, request_id, error)

    async def _close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await self.connections.end_all(self._wait_idle)
        if self._feed is not None:
            self._feed.stop()
        if self._forwarding is not None:
            await self._forwarding.stop()
        if self._subscriptions is not None:
            await self._subscriptions.stop()
        if self._hub is not None:
            self._hub.stop()
        if self._projector is not None:
            self.leaves_thread = not await self._loop.run_in_executor(None, self._projector.stop)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._follower is not None:
            self._follower.close()

    async def _wait_idle(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ---- how it is ----

    @property
    def problem(self) -> str:
        """What keeps the projections where they are; "" if nothing does."""
        return "" if self._projector is None else self._projector.problem

    @property
    def projected_sequence(self) -> int:
        """The last event that questions see."""
        return 0 if self._projector is None else self._projector.applied_sequence

    def queues(self) -> dict[str, Queue]:
        """What waits."""
        return {
            "queries": Queue(self._queries_in_flight, QUERIES_MAX),
            "queries_waiting": Queue(self._queries_waiting, WAITING_MAX),
            "connections": Queue(self.connections.count, self.connections.connections_max),
        }

    def statistics(self) -> ReaderStatistics:
        """All that it tells of itself."""
        follower = self._follower
        published, followed = (0, 0) if follower is None else (follower.published_index, follower.applied_index)
        return report(self, self._hub, published, followed)

    # ---- what connections ask ----

    def _make_welcome(self, follower: Follower) -> Welcome:
        return Welcome(
            server=f"bezant {version('bezant')} reader",
            protocol_version=PROTOCOL_VERSION,
            log_id=follower.public_id,
            shard=follower.shard,
            rules_version=0,
            kernel_digest=kernel_digest(),
            frame_size_max=FRAME_SIZE_MAX,
            batch_count_max=BATCH_COUNT_MAX,
            connection_bytes_in_flight_max=REQUESTS_IN_FLIGHT_MAX * FRAME_SIZE_MAX,
            clock_ns=time.time_ns(),
            reader=self._setup.address,
        )

    def welcome(self) -> Welcome:
        """What a client is told now."""
        if self._welcome is None:
            raise UsageError("the reader has no log yet")
        return self._welcome

    def handle(self, connection: ReaderConnection, header: FrameHeader, body: bytes) -> None:
        """Answer a request, now or later. Raises `RemoteProtocolError`."""
        query = self._query_of(connection, header.operation)
        subscriptions = self._subscriptions
        if subscriptions is not None and header.operation in subscriptions.operations:
            subscriptions.operations[header.operation](connection, header, body)
        elif header.operation == Operation.STATISTICS and not body:
            connection.reply(header, encode_message(self.statistics()))
            connection.settle()
        elif query is None:
            message = f"operation {header.operation} is not one that a reader can be asked for"
            connection.refuse(header.request_id, FrameError.OPERATION_UNKNOWN, message)
            connection.settle()
        elif self._queries_in_flight >= QUERIES_MAX:
            connection.refuse(header.request_id, FrameError.OVERLOADED, "the reader has too many queries at a time")
            connection.settle()
        else:
            self._queries_in_flight += 1
            task = self._loop.create_task(self._answer(connection, header, body, query))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _query_of(self, connection: ReaderConnection, operation: int) -> Query | None:
        """What answers an operation to whoever asks; None if nothing does. The guard has let it through."""
        principal = connection.principal
        is_known = operation in OPERATIONS
        if principal.prefixes and is_known and OPERATION_RULES[Operation(operation)].limited is Limited.CHECKED:
            limited = self._limited.get(operation)
            return None if limited is None else partial(limited, principal.prefixes)
        return self._queries.get(operation)

    async def _answer(self, connection: ReaderConnection, header: FrameHeader, body: bytes, query: Query) -> None:
        problem, started_ns = self.problem, time.monotonic_ns()
        try:
            connection.reply(header, await self._run_query(query, body))
        except Awaits:
            message = (
                f"this reader is at event {self.projected_sequence}, and has not come in time as far as is asked: that"
                " is of another log, or not known here yet"
            )
            connection.refuse(header.request_id, FrameError.BEHIND, f"{message}. {problem}" if problem else message)
        except RemoteProtocolError as error:
            connection.refuse(header.request_id, FrameError.BODY_MALFORMED, str(error))
        except NotForToken as error:
            connection.refuse(header.request_id, FrameError.FORBIDDEN, str(error))
        except UsageError as error:
            connection.refuse(header.request_id, FrameError.REQUEST_REFUSED, str(error))
        except CorruptLog as error:
            self._fail(error)
        except StorageError as error:
            connection.refuse(header.request_id, FrameError.OVERLOADED, problem or str(error))
        except Exception as error:
            self._fail(error)
        finally:
            self._queries_in_flight -= 1
            self.counters.note_query(header.operation, time.monotonic_ns() - started_ns)
            connection.settle()

    async def _run_query(self, query: Query, body: bytes) -> bytes:
        """Run a query, and once more if it has to wait for the projections. Raises what it raises."""
        projector = self._projector
        published_index = 0 if projector is None else projector.published_index
        try:
            return await self._loop.run_in_executor(self._threads, query, body, published_index)
        except Awaits as awaited:
            if not await self._wait(awaited):
                if awaited.needed:
                    raise
                published_index = 0
        return await self._loop.run_in_executor(self._threads, query, body, published_index)

    async def _wait(self, awaited: Awaits) -> bool:
        """Whether the projections come as far within the time that a query waits, if there is room to wait."""
        if self._projector is None or self._projector.problem or self._queries_waiting >= WAITING_MAX:
            return False
        self._queries_waiting += 1
        try:
            return await self._projector.wait(awaited, WAIT_S_MAX)
        finally:
            self._queries_waiting -= 1

    def on_congested(self, connection: ReaderConnection) -> None:
        """A client does not read."""
        if self._hub is not None:
            self._hub.on_congested(connection)

    def on_writable(self, connection: ReaderConnection) -> None:
        """A client reads again."""
        if self._hub is not None:
            self._hub.on_writable(connection)

    def on_gone(self, connection: ReaderConnection) -> None:
        """A connection takes nothing any more."""
        if self._hub is not None and connection.is_too_slow:
            self.counters.subscriptions_dropped += self._hub.count_of(connection)
        if self._subscriptions is not None:
            self._subscriptions.on_gone(connection)
