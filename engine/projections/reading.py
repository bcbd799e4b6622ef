"""Events and moments behind a view: read back from the log and checked, found by time and by list."""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import numpy as np

from bezant.engine.compiled import quick
from bezant.engine.projections.layout import LIST_BITS
from bezant.engine.projections.lists import find_differing, find_last, find_range
from bezant.engine.projections.projections import View
from bezant.engine.projections.span import Span
from bezant.protocol.errors import CorruptLog, LedgerError, UsageError
from bezant.protocol.records import Records, Words

EVENTS_AT_A_TIME: Final = 1 << 14
"""Events that are read back in one piece: 3 MiB."""


class NotKnownYet(UsageError):  # noqa: N818 - it says what happened, as in `bezant.protocol.errors`
    """A position or a time that lies ahead of what is known: the answer could still change."""


class Moment(NamedTuple):
    """What a question is as of: behind the event with this sequence, at its time. 0 and 0: before all events."""

    sequence: int
    timestamp_ns: int


class ReadEvents(Protocol):
    """Gives the EVENT records with these sequences, ascending, as `Log.read_events` does."""

    def __call__(self, sequences: Words, check_bodies: bool = True) -> Records:
        """Without `check_bodies` they are checked by the caller."""


class EventReader:
    """Reads events back and holds each against its checksum. Of several threads one at a time is served."""

    def __init__(self, read_events: ReadEvents, condemn: Callable[[Span], None]) -> None:
        """`condemn` is told of a span that turns out to be damaged."""
        self._read_events = read_events
        self._condemn = condemn
        self._lock = threading.Lock()

    def read(self, view: View, sequences: Words) -> Records:
        """Events of a view (ascending). Raises `CorruptLog` for damage in the log, or in an index."""
        sequences = np.ascontiguousarray(sequences, np.int64)  # kernels know one type
        with self._lock:
            events = self._read_events(sequences, check_bodies=False)
        data, start = events.view(np.uint8), 0
        data.flags.writeable = False
        for span in spans_within(view, int(sequences[0]), int(sequences[-1])) if len(sequences) else ():
            first = span.first_sequence
            end = start + quick(find_differing)(data, span.lists.checksums, sequences, start, first)
            if end < len(sequences) and sequences[end] <= span.last_sequence:
                with self._lock:
                    self._read_events(sequences[end : end + 1])  # raises what is wrong if the log is
                raise self.damaged(span, "its checksums are not those of the events")
            start = end
        if start < len(sequences):
            raise LedgerError(f"event {sequences[start]} is behind those of the view that it is read for")
        return events

    def damaged(self, span: Span, what: str) -> CorruptLog:
        """The error for an index that says what is not so; the index is made again at the next start."""
        self._condemn(span)
        return CorruptLog(
            f"index {span.number} of the events from {span.first_sequence} on is damaged: {what}; it is made again "
            "from the log when the reader is started again"
        )


def span_of(view: View, sequence: int) -> Span:
    """The span that has an event."""
    return view.spans[bisect_left(view.spans, sequence, key=_last_sequence)]


def spans_within(view: View, low: int, high: int) -> tuple[Span, ...]:
    """The spans that have events from one sequence to another, in order."""
    if low > high:
        return ()
    first = bisect_left(view.spans, low, key=_last_sequence)
    return view.spans[first : bisect_right(view.spans, high, key=_first_sequence)]


def _last_sequence(span: Span) -> int:
    return span.last_sequence


def _first_sequence(span: Span) -> int:
    return span.first_sequence


def _first_time_ns(span: Span) -> int:
    return int(span.lists.times[0])


def sequence_at(view: View, reader: EventReader, time_ns: int) -> int:
    """Sequence of the last event at or before a time; 0 if there is none."""
    if time_ns >= view.timestamp_ns:
        return view.sequence
    number = bisect_right(view.spans, time_ns, key=_first_time_ns) - 1
    if number < 0:
        return 0
    span = view.spans[number]
    place = int(np.searchsorted(span.lists.times, time_ns, side="right")) - 1
    first = span.first_sequence + place * view.time_distance
    last = min(first + view.time_distance - 1, span.last_sequence)
    times = reader.read(view, np.arange(first, last + 1))["timestamp_ns"]
    return first + int(np.searchsorted(times, time_ns, side="right")) - 1


# ---- lists ----


def last_of_lists(view: View, keys: Words, sequence: int) -> tuple[Words, Words]:
    """For each list key the last event up to a sequence, 0 if there is none; and how many its list has up to there."""
    found, counts = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    left = len(keys)
    for span in reversed(spans_within(view, 1, sequence)):
        lists = span.lists
        bound = min(sequence - span.first_sequence, span.event_count)
        left -= quick(find_last)(
            lists.keys, lists.starts, lists.before, lists.postings, bound, span.first_sequence, keys, found, counts
        )
        if not left:
            break
    return found, counts


def walk_list(view: View, account: int, which: int, low: int, high: int, *, reverse: bool) -> Iterator[Words]:
    """Sequences of a list of an account from one to another, in pieces, in order or backwards."""
    places = np.zeros(2, np.int64)
    spans = spans_within(view, low, high)
    for span in reversed(spans) if reverse else spans:
        lists, first = span.lists, span.first_sequence
        key = account << LIST_BITS | which
        quick(find_range)(lists.keys, lists.starts, lists.postings, key, max(low - first, 0), high - first, places)
        start, end = places.tolist()
        while start < end:
            size = min(end - start, EVENTS_AT_A_TIME)
            piece = lists.postings[end - size : end][::-1] if reverse else lists.postings[start : start + size]
            yield piece.astype(np.int64) + first
            start, end = (start, end - size) if reverse else (start + size, end)
