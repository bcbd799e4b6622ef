"""Who is told of what: subscriptions, from the log and as things happen, with no gap between the two and nothing twice.

What has left the disk for an archive is read beside that, by a thread of its own, because it may take long to come; and
who asks for what cannot be had is told so, and nobody else.

A subscription is in one of these modes, and changes only between two batches:

    live      is told of each batch as the feed brings it
    catching  is told from the log, a chunk at a time, until it is level with the feed: then live
    held      its client does not read, and is told nothing; catching, once it reads

`position` is the event up to which everything live has been told; a subscription that stops being live goes on behind
it. All those that are catching share the reading of the log: each chunk is read where one of them stands, in turn, and
told to all that stand within it, so that a thousand that come back at once cost hardly more than one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import xxhash

from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry
from bezant.net.reader.connection import ReaderConnection
from bezant.net.reader.fan_out import (
    MODE_CATCHING,
    MODE_HELD,
    MODE_LIVE,
    PROGRESS_FRAME_SIZE,
    SUB_AFTER,
    SUB_CURRENCY,
    SUB_KINDS,
    SUB_MODE,
    SUB_REFUSED,
    SUB_REQUEST_ID,
    SUB_TOLD,
    advance,
    fan_out,
    lay_out,
    write_events,
    write_progress,
)
from bezant.net.reader.tables import Currencies, SubscriptionTables
from bezant.protocol.errors import ArchiveUnavailable, HistoryIncomplete
from bezant.protocol.frames import CHECKSUM_OFFSET_END
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT, Bytes, Words, position_of

PAIRS_MAX: Final = 64 << 10
"""Events, counted for each who is told, in the frames that are made at a time: 15 MiB at most."""
CHUNK_EVENTS: Final = 8192
"""Events of the log that are read at a time for those that are catching."""
INLINE_EVENTS_MAX: Final = 64
"""Events that are read on the loop: they were written just now."""
PROGRESS_S: Final = 1.0
"""Seconds between two looks at whose clients do not know how far they are."""

_EVENT_WORDS: Final = EVENT.itemsize // 8
_TIMESTAMP_AT: Final = 16
_EVENTS: Final = int(EntryKind.EVENTS)


class Filter:
    """What a subscription asks for. `accounts`: ids, shape (count, 2); None is all. `kinds`: a bit each; 0 is all."""

    def __init__(self, accounts: Words | None, currency: int, kinds: int, *, refused: bool) -> None:
        self.accounts = accounts
        self.currency = currency
        self.kinds = kinds
        self.refused = refused


class _Lane:
    """Those that are catching, by number, whose part of the log is read by one thread."""

    def __init__(self, name: str, *, archived: bool) -> None:
        self.archived = archived
        self.waiting: OrderedDict[int, None] = OrderedDict()
        """Each once, however often it stopped and went on being told meanwhile."""
        self.task: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)


class Hub:
    """See the module. All methods on the loop."""

    def __init__(
        self,
        follower: Follower,
        on_failure: Callable[[Exception], None],
        on_unavailable: Callable[[ReaderConnection, int, ArchiveUnavailable | HistoryIncomplete], None],
    ) -> None:
        """`follower` has begun; `on_failure` is called when the log fails.

        `on_unavailable` is called with a connection and a request id when a subscription can be told nothing more,
        because that part of the history cannot be had here: to remove it.
        """
        self._follower = follower
        self._on_failure = on_failure
        self._on_unavailable = on_unavailable
        self._shard = follower.shard
        self._loop = asyncio.get_running_loop()
        self.position = follower.last_sequence
        """The last event of which everything live has been told."""
        self.timestamp_ns = 0
        """Its time, if it has been seen."""
        self.currencies = Currencies()
        self._tables = SubscriptionTables()
        self._wanted: dict[int, Filter] = {}
        self._connections: dict[int, ReaderConnection] = {}
        self._of_connection: dict[ReaderConnection, set[int]] = {}
        self._live_count = 0
        self.events_sent = 0
        """Events, counted for each who was told."""
        self._order: Words = np.zeros((0, 2), np.int64)
        self._is_ordered = True
        self._lanes = [
            _Lane("bezant-catch-up", archived=False),
            _Lane("bezant-catch-up-archived", archived=True),
        ]
        self._pairs: Words = np.zeros((PAIRS_MAX, 3), np.int64)
        self._long_frames: Words = np.zeros((PAIRS_MAX, 2), np.int64)
        self._timer = self._loop.call_later(PROGRESS_S, self._tell_progress)

    # ---- subscriptions ----

    @property
    def count(self) -> int:
        """Subscriptions that there are."""
        return self._tables.count

    def count_of(self, connection: ReaderConnection) -> int:
        """Subscriptions of a connection."""
        return len(self._of_connection.get(connection, ()))

    @property
    def is_awaited(self) -> bool:
        """Whether anybody is told of what happens as it does."""
        return self._live_count > 0

    def add(self, connection: ReaderConnection, request_id: int, wanted: Filter, after: int) -> int:
        """Have a connection told of what is wanted behind a sequence, up to `position`; returns the number of it."""
        number = self._tables.add(wanted.accounts)
        row = self._tables.subs[number]
        row[SUB_AFTER] = row[SUB_TOLD] = after
        row[SUB_CURRENCY], row[SUB_KINDS], row[SUB_REFUSED] = wanted.currency, wanted.kinds, wanted.refused
        row[SUB_REQUEST_ID] = np.uint64(request_id).astype(np.int64)
        self._wanted[number] = wanted
        self._connections[number] = connection
        self._of_connection.setdefault(connection, set()).add(number)
        self._is_ordered = False
        if connection.is_congested:
            row[SUB_MODE] = MODE_HELD
        else:
            self._catch(number)
        return number

    def remove(self, number: int) -> Filter:
        """Tell this one nothing more; returns what it wanted."""
        if self._tables.subs[number, SUB_MODE] == MODE_LIVE:
            self._live_count -= 1
        wanted = self._wanted.pop(number)
        self._tables.remove(number, wanted.accounts)
        own = self._of_connection[connection := self._connections.pop(number)]
        own.discard(number)
        if not own:
            del self._of_connection[connection]
        self._is_ordered = False
        return wanted

    def on_congested(self, connection: ReaderConnection) -> None:
        """Tell a connection nothing more for now."""
        for number in self._of_connection.get(connection, ()):
            row = self._tables.subs[number]
            if row[SUB_MODE] == MODE_LIVE:
                self._live_count -= 1
                row[SUB_AFTER] = self.position
            row[SUB_MODE] = MODE_HELD

    def on_writable(self, connection: ReaderConnection) -> None:
        """Go on with a connection."""
        for number in self._of_connection.get(connection, ()):
            if self._tables.subs[number, SUB_MODE] == MODE_HELD:
                self._catch(number)

    def _catch(self, number: int) -> None:
        """Have one told from where it stands."""
        row = self._tables.subs[number]
        if row[SUB_AFTER] == self.position:
            self._go_live(number)
            return
        row[SUB_MODE] = MODE_CATCHING
        self._queue(number)

    def _queue(self, number: int) -> None:
        """Have the next chunk of one that is catching read."""
        lane = self._lanes[self._follower.is_archived(int(self._tables.subs[number, SUB_AFTER]) + 1)]
        lane.waiting[number] = None
        if lane.task is None:
            lane.task = self._loop.create_task(self._catch_up(lane))

    def _go_live(self, number: int) -> None:
        self._tables.subs[number, SUB_MODE] = MODE_LIVE
        self._live_count += 1

    # ---- what happens ----

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Tell of the next entries of the log."""
        bodies = [entry.body for entry in entries if entry.header.kind == _EVENTS]
        if not bodies:
            return
        events = words_of(bodies[0] if len(bodies) == 1 else b"".join(bodies))
        self.currencies.note_openings(events)
        self.timestamp_ns = int(events[-1, _TIMESTAMP_AT])
        first_sequence, done = self.position + 1, 0
        while done < len(events):
            if not self._live_count:
                self.position = first_sequence + len(events) - 1
                return
            done = self._tell(events, done, first_sequence, MODE_LIVE, 0)

    def _tell(self, events: Words, first: int, first_sequence: int, mode: int, least_after: int) -> int:
        """Send the events from number `first` on, or as many as can be sent at a time; returns how many are done."""
        tables, pairs, done = self._tables, self._pairs, np.zeros(1, np.int64)
        if len(pairs) < len(tables.subs):
            pairs = self._pairs = np.zeros((2 * len(tables.subs), 3), np.int64)
            self._long_frames = np.zeros((len(pairs), 2), np.int64)
        count = fan_out(
            events,
            first,
            first_sequence,
            mode,
            least_after,
            tables.filters,
            tables.subs,
            self.currencies.table,
            self.currencies.salts,
            pairs,
            done,
        )
        told = int(done[0])
        # Before anything is sent: a client that turns out not to read goes on behind all that it is sent now.
        if mode == MODE_LIVE:
            self.position = first_sequence + told - 1
        else:
            advance(tables.subs, mode, least_after, first_sequence + told - 1)
        if count:
            self.events_sent += count
            self._send_events(events, first_sequence, count)
        return told

    def _send_events(self, events: Words, first_sequence: int, count: int) -> None:
        subs, pairs, order = self._tables.subs, self._pairs, self._ordered()
        starts: Words = np.empty(len(subs), np.int64)
        pieces: Words = np.empty((min(len(order), count) + 1, 3), np.int64)
        size = lay_out(pairs, count, subs, order, starts, pieces)
        out: Bytes = np.empty(size, np.uint8)
        long_count = write_events(
            events,
            position_of(self._shard, first_sequence),
            pairs,
            count,
            subs,
            starts,
            out.view(np.int64),
            out,
            self._long_frames,
        )
        view = out.data
        for offset, length in self._long_frames[:long_count].tolist():
            checksum = xxhash.xxh3_64_intdigest(view[offset + CHECKSUM_OFFSET_END : offset + length])
            view[offset : offset + CHECKSUM_OFFSET_END] = checksum.to_bytes(CHECKSUM_OFFSET_END, "little")
        self._send(view, pieces)

    def _send(self, view: memoryview, pieces: Words) -> None:
        runs = pieces[: int(pieces[-1, 0])].tolist()
        for number, start, end in runs:
            connection = self._connections.get(number)
            if connection is not None:
                # Copied if there are others: what one client leaves unread would keep the frames of all in memory.
                connection.push(view if len(runs) == 1 else bytes(view[start:end]))

    def _ordered(self) -> Words:
        """(subscription, one subscription of the same connection) of all, those of one connection side by side."""
        if not self._is_ordered:
            groups = (sorted(own) for own in self._of_connection.values())
            rows = [(number, own[0]) for own in groups for number in own]
            self._order = np.array(rows, np.int64).reshape(-1, 2)
            self._is_ordered = True
        return self._order

    # ---- the log ----

    @property
    def is_catching(self) -> bool:
        """Whether anybody is being told from the log."""
        return any(lane.task is not None for lane in self._lanes)

    async def _catch_up(self, lane: _Lane) -> None:
        """Tell those that are catching, a chunk at a time, until nobody is."""
        try:
            while lane.waiting:
                number, _ = lane.waiting.popitem(last=False)
                row = self._tables.subs[number]
                if row[SUB_MODE] != MODE_CATCHING:
                    continue
                after, last = int(row[SUB_AFTER]), min(int(row[SUB_AFTER]) + CHUNK_EVENTS, self.position)
                if after == self.position:
                    self._go_live(number)
                    continue
                wanted = self._wanted[number]
                try:
                    if last - after <= INLINE_EVENTS_MAX and not lane.archived:
                        # Without giving others a turn, so that it is level when it has been told.
                        events = self._read(after, last)
                    else:
                        events = await self._loop.run_in_executor(lane.thread, self._read, after, last)
                except (ArchiveUnavailable, HistoryIncomplete) as error:
                    self._give_up(number, wanted, after, error)
                    continue
                done = 0
                while done < len(events):
                    done = self._tell(events, done, after + 1, MODE_CATCHING, after)
                if self._tables.subs[number, SUB_MODE] == MODE_CATCHING:
                    self._queue(number)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._on_failure(error)
        finally:
            lane.task = None

    def _give_up(self, number: int, wanted: Filter, after: int, error: ArchiveUnavailable | HistoryIncomplete) -> None:
        """End one that needs what cannot be had, unless it has gone, or been told by way of another, meanwhile."""
        row = self._tables.subs[number]
        if self._wanted.get(number) is not wanted:
            return
        if row[SUB_AFTER] != after:
            if row[SUB_MODE] == MODE_CATCHING:
                self._queue(number)
            return
        self._on_unavailable(self._connections[number], int(row[SUB_REQUEST_ID].astype(np.uint64)), error)

    def _read(self, after: int, last: int) -> Words:
        """The events behind one sequence up to another; in the thread."""
        events = self._follower.read_events(np.arange(after + 1, last + 1, dtype=np.int64))
        return events.view(np.int64).reshape(-1, _EVENT_WORDS)

    # ---- progress ----

    def _tell_progress(self) -> None:
        self._timer = self._loop.call_later(PROGRESS_S, self._tell_progress)
        order = self._ordered()
        if not len(order):
            return
        out: Bytes = np.empty(len(order) * PROGRESS_FRAME_SIZE, np.uint8)
        pieces: Words = np.empty((len(order) + 1, 3), np.int64)
        size = write_progress(
            self._tables.subs,
            order,
            self.position,
            self.timestamp_ns,
            position_of(self._shard, 0),
            pieces,
            out.view(np.int64),
            out,
        )
        if size:
            self._send(out.data[:size], pieces)

    def stop(self) -> None:
        """Tell nothing more."""
        self._timer.cancel()
        for lane in self._lanes:
            if lane.task is not None:
                lane.task.cancel()
            lane.thread.shutdown(wait=False, cancel_futures=True)


def words_of(body: bytes | memoryview) -> Words:
    """Events as words, shape (count, 24)."""
    return np.frombuffer(body, np.int64).reshape(-1, _EVENT_WORDS)
