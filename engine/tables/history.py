"""The tables of a data folder as of a moment: of a node at rest, or of one that runs, as far as it has published."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.following import Follower, open_follower
from bezant.engine.log.entry import Entry
from bezant.engine.node_file import shard_of_folder
from bezant.engine.projections.layout import HOLD_REMAINING, HOLD_SEQUENCE
from bezant.engine.replica import shard_directory
from bezant.engine.tables.replaying import BATCH_EVENTS_MAX, Batch, Replay, joined
from bezant.engine.tables.seeding import find_checkpoint
from bezant.engine.tables.surveying import survey
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import Records, Words, split_position

_NS_PER_S: Final = 10**9
_NEVER: Final = 2**63 - 1


class State(NamedTuple):
    """What there is at the end: the replay, and open holds in the order in which they were made."""

    replay: Replay
    hold_sequences: Words
    hold_events: Records
    hold_remaining: Words


class HistoryTables:
    """See the module. All passes end at the same event, whatever is written meanwhile. Any thread may ask."""

    def __init__(
        self,
        data_directory: Path,
        shard: int | None = None,
        *,
        position: int | None = None,
        time_ns: int | None = None,
        after_position: int | None = None,
        since_ns: int | None = None,
    ) -> None:
        """Look at the log, and settle where to end: behind an event, at a time, or with what is published now.

        Of events only those behind `after_position`, or from `since_ns` on, are told of; accounts and holds are those
        of the whole history.

        `shard` is that of the folder, unless given. Raises `StorageError` if there is no log, `CorruptLog`, and
        `UsageError` for a moment that is none of this log, or that is not known yet.
        """
        shard = shard_of_folder(data_directory) if shard is None else shard
        self._directory = shard_directory(data_directory, shard)
        self.shard = shard
        self.survey = survey(self._directory, shard)
        self._until_ns = _NEVER if time_ns is None else time_ns
        self.until_sequence = self.survey.last_sequence
        """No event behind this one is told of; with a time, fewer may be."""
        self._takes_all = position is None
        if position is not None:
            self.until_sequence = self._sequence_of(position)
        if time_ns is not None and time_ns > self.survey.last_timestamp_ns:
            raise UsageError(
                f"the time asked for is {(time_ns - self.survey.last_timestamp_ns) / _NS_PER_S:.9f} s after the last "
                "event that is known here: what was then is not known yet. Ask for an earlier time, or for now"
            )
        self._after_sequence = 0 if after_position is None else self._sequence_of(after_position)
        self._since_ns = since_ns
        self._lock = threading.Lock()
        self._state: State | None = None

    def _sequence_of(self, position: int) -> int:
        shard, sequence = split_position(position)
        if shard != self.shard or sequence > self.survey.last_sequence:
            raise UsageError(
                f"position {position} is ahead of the last one known here, or none of this log: its last event has the "
                f"sequence {self.survey.last_sequence}"
            )
        return sequence

    @property
    def decimals_max(self) -> int:
        """The most decimals that a registered currency has."""
        return max(self.survey.currencies.values(), default=0)

    # ---- passes ----

    def batches(self) -> Iterator[tuple[Replay, Batch]]:
        """The events in order, and a replay that knows the accounts of each batch. Raises as `Follower.take`."""
        replay = Replay()
        follower = self._follow()
        try:
            for batch in self._ranged(follower, replay):
                yield replay, batch
        finally:
            follower.close()

    def _ranged(self, follower: Follower, replay: Replay) -> Iterator[Batch]:
        """The events of the range: those before the newest checkpoint are read where they lie, and nothing before."""
        is_all = not self._after_sequence and self._since_ns is None
        checkpoint = None if is_all else find_checkpoint(self._directory, self.survey.last_index)
        after = self._after_sequence
        if checkpoint is not None:
            replay.begin_behind(checkpoint.image)
            follower.begin(checkpoint.manifest.point)
            after = max(after, self._last_before(follower))
            yield from self._read(follower, replay, after)
        else:
            follower.begin()
        for batch in self._run(follower, replay):
            start = max(after - batch.first_sequence + 1, 0)
            if self._since_ns is not None:
                start = max(start, int(np.searchsorted(batch.events["timestamp_ns"], self._since_ns)))
            if start < len(batch.events):
                first = batch.first_sequence + start
                yield Batch(first, batch.events[start:], batch.debit[start:], batch.credit[start:])

    def _last_before(self, follower: Follower) -> int:
        """Sequence of the last event before `since_ns` of those that can be read back; 0 if there is none."""
        if self._since_ns is None:
            return 0
        low, high = 0, follower.last_sequence
        middle = follower.log.archived_sequence + 1  # If it lies behind that, an archive is not needed to find it.
        while low < high:
            middle = max(min(middle, high), low + 1)
            (event,) = follower.read_events(np.array([middle]))
            if event["timestamp_ns"] < self._since_ns:
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low

    def _read(self, follower: Follower, replay: Replay, after: int) -> Iterator[Batch]:
        """The events behind one, as far as the replay has begun behind them."""
        end = min(replay.sequence, self.until_sequence)
        for first in range(after + 1, end + 1, BATCH_EVENTS_MAX):
            wanted = np.arange(first, min(first + BATCH_EVENTS_MAX, end + 1))
            events = self._wanted(follower.read_events(wanted), first)
            if len(events):
                yield replay.batch_of(events, first)
            if len(events) < len(wanted):
                return

    def state(self) -> State:
        """What there is at the end; the first time this takes a pass, and then it is known."""
        with self._lock:
            if self._state is None:
                self._state = self._make_state()
            return self._state

    def _make_state(self) -> State:
        replay = Replay()
        follower = self._follow()
        try:
            follower.begin()
            for _ in self._run(follower, replay):
                pass
            holds = replay.tables.holds
            holds = holds[holds[:, HOLD_SEQUENCE] > 0]
            holds = holds[np.argsort(holds[:, HOLD_SEQUENCE])]
            sequences = holds[:, HOLD_SEQUENCE].copy()
            events = follower.log.read_events(sequences)
        finally:
            follower.close()
        return State(replay, sequences, events, holds[:, HOLD_REMAINING].copy())

    def _follow(self) -> Follower:
        follower = open_follower(self._directory, self.shard)
        if follower is None:
            raise StorageError(f"{self._directory.path}: there is no log any more")
        return follower

    def _run(self, follower: Follower, replay: Replay) -> Iterator[Batch]:
        """Take the log in as far as it is asked for, from where the follower and the replay are on."""
        while follower.applied_index < self.survey.last_index:
            entries = follower.take()
            if not entries:
                raise CorruptLog(f"{self._directory.path}: entries that were published are not there any more")
            for run in _runs(entry for entry in entries if entry.header.index <= self.survey.last_index):
                if not self._takes_all and run[0].header.first_sequence > self.until_sequence:
                    return
                if run[0].header.timestamp_ns > self._until_ns and run[0].header.kind == EntryKind.CONTROL:
                    return
                if run[0].header.kind == EntryKind.CONTROL:
                    self._register(replay, run[0])
                    continue
                if run[0].header.kind != EntryKind.EVENTS:
                    continue
                events = self._wanted(joined(entry.body for entry in run), run[0].header.first_sequence)
                for start in range(0, len(events), BATCH_EVENTS_MAX):
                    yield replay.take(events[start : start + BATCH_EVENTS_MAX])
                if replay.sequence < run[-1].header.first_sequence + run[-1].header.count - 1:
                    return

    def _wanted(self, events: Records, first_sequence: int) -> Records:
        """Those of some events that are not behind the end."""
        count = min(len(events), self.until_sequence - first_sequence + 1)
        # Times rise from event to event.
        return events[: min(count, int(np.searchsorted(events["timestamp_ns"], self._until_ns, side="right")))]

    def _register(self, replay: Replay, entry: Entry) -> None:
        try:
            control = decode_control_entry(entry.body)
        except RemoteProtocolError as error:
            raise CorruptLog(f"control entry {entry.header.index} cannot be read: {error}") from error
        for currency in control.currencies:
            if self.survey.currencies.get(currency.code) != currency.decimals:
                raise CorruptLog(f"currency {currency.code} is not registered as it was found to be")
            replay.tables.register_currency(currency.code, currency.decimals)


def _runs(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Entries of events that follow one another together, every other entry by itself."""
    run: list[Entry] = []
    for entry in entries:
        if entry.header.kind == EntryKind.EVENTS:
            run.append(entry)
            continue
        if run:
            yield run
        run = []
        yield [entry]
    if run:
        yield run
