"""What is kept of a history so that it can be asked, and how that is made durable.

Events come in batches. A kernel takes them in one after the other; every `block_events` of them are a *block*, whose
lists are sorted in memory; every `blocks_per_seal` blocks are *sealed*: written to a file, durably, and then named in
the database, in one write with all that belongs to it. So after a crash either all of a seal counts or nothing of it;
what comes behind the last seal is taken in again from the log. Files that nothing names are removed at the next start.
Sealing and merging are done by a thread of their own; whoever feeds events waits once it is too far behind.

Threads: one may call `apply`, others may ask. The lock is held for one batch, or for one question.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.ids.run_set import RunSet
from bezant.engine.log.entry import Entry
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.projections.files import Files, Sealing, open_files
from bezant.engine.projections.kernels import take_events
from bezant.engine.projections.layout import (
    BLOCK_EVENTS_MAX,
    CHANGE_WORDS,
    COUNTER_CHANGES,
    COUNTER_IDS,
    COUNTER_POSTINGS,
    COUNTER_TIMES,
    HOLD_SEQUENCE,
    IDS_PER_EVENT,
    POSTINGS_PER_EVENT,
    SUMMARY_FIRST,
    SUMMARY_WORDS,
    BlockArrays,
    TableArrays,
)
from bezant.engine.projections.lists import add_counts, make_lists
from bezant.engine.projections.span import Lists, Span, span_name
from bezant.engine.projections.tables import Tables
from bezant.protocol.errors import CorruptLog, LedgerError, RemoteProtocolError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import EVENT, EVENT_SIZE, Records, Words

TIME_DISTANCE: Final = 256
"""Events between two whose times are in the index."""
SEALS_WAITING_MAX: Final = 2
"""Seals that wait for the thread that writes them; whoever feeds events waits for more."""
BATCH_EVENTS_MAX: Final = 8192
"""Events that are taken in at a time, while questions wait: some milliseconds."""
_EVENT_WORDS: Final = EVENT_SIZE // 8


class ProjectionSettings(NamedTuple):
    """Sizes. Other ones than those that a folder was made with make it anew."""

    block_events: int = 1 << 14
    blocks_per_seal: int = 16
    fan_in: int = 8
    filter_bytes_max: int = 64 << 20
    """Memory for the filters of ids; what finds no room is searched without."""

    @property
    def time_distance(self) -> int:
        """Events between two whose times are in the index."""
        return min(TIME_DISTANCE, self.block_events)


class View(NamedTuple):
    """What can be asked, as it was at one time. `spans` are in the order of events and leave none out."""

    spans: tuple[Span, ...]
    runs: RunSet
    unsealed: tuple[tuple[Words, Words], ...]
    """Hashes and sequences of the ids that are in no run yet."""
    tables: TableArrays
    account_count: int
    currencies: tuple[tuple[str, int], ...]
    salts: tuple[int, int]
    time_distance: int
    sequence: int
    timestamp_ns: int


class Projections:
    """The projections of one shard's history. Use `open_projections`."""

    def __init__(self, files: Files, settings: ProjectionSettings) -> None:
        if not 0 < settings.block_events <= BLOCK_EVENTS_MAX:
            raise LedgerError(f"a block has 1 to {BLOCK_EVENTS_MAX} events, not {settings.block_events}")
        self.settings = settings
        self.lock = threading.RLock()
        """Held while events are taken in, and by whoever asks."""
        self.tables: Tables = files.tables
        self.sequence = files.manifest.sequence
        """Of the last event that was taken in."""
        self.timestamp_ns = files.manifest.timestamp_ns
        self.index = files.manifest.index
        """Of the last entry that was taken in whole, as far as it is known: after a repair it is 0."""
        self._files = files
        self._block_spans: deque[Span] = deque()
        self._sealing: deque[Sealing] = deque()
        self._unsealed_ids: list[tuple[Words, Words]] = []
        self._accounts_sealed = files.manifest.account_count
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bezant-seal")
        self._seals: deque[Future[None]] = deque()
        self._has_failed = False
        self._resume_point: ResumePoint | None = None
        self._latest: Span | None = None
        self._begin_block()

    # ---- taking entries in ----

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where a log may be opened so that nothing that is missing here is passed over; None: at its beginning."""
        return self._files.resume_point

    def offer_resume_point(self, point: ResumePoint | None) -> None:
        """Have a place remembered where the log may be opened, once all before it is durable here.

        Cheap to call; one is remembered at a time.
        """
        if point is not None and self._resume_point is None:
            self._resume_point = point

    def apply(self, entry: Entry) -> None:
        """Take in an entry of the log, which must be committed and verified; one that is known already is passed over.

        Raises `CorruptLog` for what cannot follow, and `StorageError` if what came before cannot be written: then this
        object is of no more use, and is to be opened again.
        """
        header = entry.header
        if header.kind == EntryKind.CONTROL:
            self._apply_control(entry)
        elif header.kind == EntryKind.EVENTS:
            self._apply_events(header.first_sequence, np.frombuffer(entry.body, EVENT))
        self.index = max(self.index, header.index)

    def _apply_control(self, entry: Entry) -> None:
        try:
            control = decode_control_entry(entry.body)
        except RemoteProtocolError as error:
            raise CorruptLog(f"control entry {entry.header.index} cannot be read: {error}") from error
        with self.lock:
            for currency in control.currencies:
                self.tables.register_currency(currency.code, currency.decimals)

    def _apply_events(self, first_sequence: int, events: Records) -> None:
        start = self.sequence + 1 - first_sequence
        if start < 0:
            raise LedgerError(f"event {first_sequence} is given behind event {self.sequence}")
        events.flags.writeable = False  # kernels know one type
        words = events.view(np.int64).reshape(len(events), _EVENT_WORDS)
        data = events.view(np.uint8)
        while start < len(events):
            room = self.settings.block_events - self._place
            end = min(start + min(room, BATCH_EVENTS_MAX), len(events))
            with self.lock:
                self._take(events, words, data, start, end)
                start = end
                if self._place == self.settings.block_events:
                    self._end_block()
            self._wait_for_seals(SEALS_WAITING_MAX)

    def _take(self, events: Records, words: Words, data: "np.typing.NDArray[np.uint8]", start: int, end: int) -> None:
        """Take in events from `start` to `end` of an entry; all find room in the block."""
        tables = self.tables.make_room(end - start)
        taken = take_events(
            tables,
            self._arrays,
            events,
            words,
            data,
            start,
            end,
            self._place,
            self.sequence + 1,
            self.settings.time_distance,
        )
        if taken != end:
            sequence = self.sequence + 1 + (-taken - 1 - start)
            raise CorruptLog(
                f"event {sequence} names an account, a currency or a hold that no event before it made; verify the log"
            )
        self._place += end - start
        self.sequence += end - start
        self.timestamp_ns = int(events[end - 1]["timestamp_ns"])

    def _begin_block(self) -> None:
        size = self.settings.block_events
        self._arrays = BlockArrays(
            np.empty(POSTINGS_PER_EVENT * size, np.int64),
            np.empty(IDS_PER_EVENT * size, np.int64),
            np.empty(IDS_PER_EVENT * size, np.int64),
            np.empty((size, CHANGE_WORDS), np.int64),
            np.empty(-(-size // self.settings.time_distance), np.int64),
            np.empty(size, np.uint32),
            np.zeros(SUMMARY_WORDS, np.int64),
        )
        self._arrays.summary[SUMMARY_FIRST] = self.sequence + 1
        self._place = 0
        self.tables.arrays.counters[COUNTER_POSTINGS:] = 0

    def _end_block(self) -> None:
        """Sort the lists of a whole block; every so many blocks are sealed."""
        span = self._make_span()
        add_counts(span.lists.keys, span.lists.starts, span.lists.before, self.tables.counts)
        self._block_spans.append(span)
        self._unsealed_ids.append(self._ids())
        self._begin_block()
        if len(self._block_spans) == self.settings.blocks_per_seal:
            self._begin_seal()

    def _make_span(self) -> Span:
        """What came behind the last whole block, with its lists sorted. Nothing of it changes afterwards."""
        arrays, counters = self._arrays, self.tables.arrays.counters
        postings = np.sort(arrays.postings[: int(counters[COUNTER_POSTINGS])])
        count = len(postings)
        keys, starts, before = np.empty(count, np.int64), np.empty(count + 1, np.int64), np.empty(count, np.int64)
        places = np.empty(count, np.int32)
        key_count = make_lists(postings, self.tables.counts, keys, starts, before, places)
        lists = Lists(
            keys[:key_count].copy(),
            starts[: key_count + 1].copy(),
            before[:key_count].copy(),
            places,
            arrays.checksums[: self._place],
            arrays.times[: int(counters[COUNTER_TIMES])],
            arrays.summary.reshape(1, SUMMARY_WORDS).copy(),
            self.tables.totals_rows(self.sequence),
            arrays.changes[: int(counters[COUNTER_CHANGES])],
        )
        for array in lists:
            array.flags.writeable = False  # as in files that are mapped, so that kernels know one type
        return Span(0, self.sequence - self._place + 1, self._place, self.timestamp_ns, lists)

    def _ids(self) -> tuple[Words, Words]:
        count = int(self.tables.arrays.counters[COUNTER_IDS])
        return self._arrays.hashes[:count], self._arrays.values[:count]

    # ---- sealing ----

    def _begin_seal(self) -> None:
        point = self._resume_point
        if point is not None and point.next_sequence <= self.sequence + 1:
            self._resume_point = None
        else:
            point = None
        sealing = Sealing(
            spans=tuple(self._block_spans),
            ids=tuple(self._unsealed_ids),
            sequence=self.sequence,
            index=self.index,
            timestamp_ns=self.timestamp_ns,
            accounts=self.tables.account_blocks(self._accounts_sealed),
            account_count=self.tables.account_count,
            currencies=tuple(self.tables.currencies.items()),
            resume_point=point,
        )
        self._accounts_sealed = self.tables.account_count
        self._block_spans.clear()
        self._unsealed_ids = []
        self._sealing.append(sealing)
        self._seals.append(self._thread.submit(self._seal, sealing))

    def _seal(self, sealing: Sealing) -> None:
        """In the thread: make a seal durable, and merge what is due. Behind a failure nothing is written any more."""
        if self._has_failed:
            raise StorageError("what came before could not be written")
        try:
            self._files.seal(sealing, self._swap_sealed)
            self._files.merge(self._swap)
        except BaseException:
            self._has_failed = True
            raise

    def _swap_sealed(self, change: Callable[[], None]) -> None:
        with self.lock:
            self._sealing.popleft()
            change()

    def _swap(self, change: Callable[[], None]) -> None:
        with self.lock:
            change()

    def _wait_for_seals(self, waiting_max: int) -> None:
        """Wait until no more seals wait than that; raise what has kept one from being written."""
        while self._seals and (self._seals[0].done() or len(self._seals) > waiting_max):
            self._seals.popleft().result()

    def settle(self) -> None:
        """Wait until every whole seal is durable and merged. Raises what `apply` raises."""
        self._wait_for_seals(0)

    # ---- what is there to be asked ----

    def view(self) -> View:
        """All that is there now. It stays as it is, whatever is taken in later, but for rows of open holds."""
        with self.lock:
            waiting = [span for sealing in self._sealing for span in sealing.spans]
            ids = [pair for sealing in self._sealing for pair in sealing.ids]
            spans = [*self._files.spans, *waiting, *self._block_spans]
            if self._place:
                if self._latest is None or self._latest.last_sequence != self.sequence:
                    self._latest = self._make_span()
                spans.append(self._latest)
            return View(
                tuple(spans),
                self._files.runs,
                (*ids, *self._unsealed_ids, self._ids()),
                self.tables.arrays,
                self.tables.account_count,
                tuple(self.tables.currencies.items()),
                self._files.manifest.salts,
                self.settings.time_distance,
                self.sequence,
                self.timestamp_ns,
            )

    def open_holds(self) -> tuple[View, Words]:
        """A view, and a copy of the rows of the holds that are open now (`HOLD_WORDS`)."""
        with self.lock:
            rows = self.tables.holds
            return self.view(), rows[rows[:, HOLD_SEQUENCE] > 0]

    def condemn(self, span: Span) -> None:
        """Have the file of a span that was found damaged removed, so that the next opening makes it again."""
        if span.number:
            self._files.condemn(span_name(span.number))

    def damaged_ids(self, error: CorruptLog) -> CorruptLog:
        """The same for the files of ids, one of which was found damaged: without them all is made again. Returns what
        to raise."""
        return self._files.damaged_runs(error)

    def close(self) -> None:
        """Give up what is under way and close. What is not sealed is taken in again from the log next time."""
        self._files.stop()
        self._thread.shutdown(cancel_futures=True)
        self._files.close()


def open_projections(
    directory: Directory,
    *,
    log_id: str,
    shard: int = 0,
    settings: ProjectionSettings | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Projections:
    """Open the projections in a folder, or begin them; `log_id` is the public id of the log that they are to be of.

    What is damaged, or of another log, is removed and will be made again by entries from the log, and `on_notice` is
    told so in words. Entries must then come from `Projections.resume_point` on. Raises `DataFolderInUse`,
    `StorageError`.
    """
    chosen = settings or ProjectionSettings()
    files = open_files(
        directory,
        log_id=log_id,
        shard=shard,
        block_events=chosen.block_events,
        blocks_per_seal=chosen.blocks_per_seal,
        fan_in=chosen.fan_in,
        filter_bytes_max=chosen.filter_bytes_max,
        on_notice=on_notice or (lambda _: None),
    )
    return Projections(files, chosen)
