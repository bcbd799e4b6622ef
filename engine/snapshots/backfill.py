"""Fills in the history behind a state, a segment at a time, the last one first, from any member that has it.

Each segment is made of entries and put in its place when its last one has the hash that the first one behind it
continues: so what is there is at all times one piece of the one history, up to the end. What was set aside at the
install is taken before anybody is asked, by the same rules.
"""

from collections.abc import Callable
from typing import Final

from bezant.engine.log.entry import decode_header
from bezant.engine.log.incomplete import INCOMPLETE_NAME
from bezant.engine.log.reading import OpenedLog
from bezant.engine.log.segment import Segment, segment_name
from bezant.engine.metadata.kept import IsWanted
from bezant.engine.snapshots.entries import EntriesFetch
from bezant.engine.snapshots.installing import BEFORE_PREFIX
from bezant.engine.snapshots.jobs import Jobs
from bezant.engine.snapshots.making import SegmentMaker
from bezant.engine.snapshots.receiving import Facts, segment_header
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError, UnsupportedFormat
from bezant.protocol.records import ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE

PAUSE_TICKS: Final = 100
"""Ticks before the next attempt, after one that has failed."""
REFUSED_PAUSES_TICKS: Final = (5, 10, 20, 40, 80, PAUSE_TICKS)
"""The same after one refusal, after two in a row, and so on. A member that has the entries in an archive refuses until
they have come from there, and it is asked for one segment after the other."""
REFUSALS_PER_SOURCE: Final = 2
"""Refusals after which another member is asked: not each of them is to fetch the same."""
SILENCES_MAX: Final = 4
"""Questions in a row without an answer after which another member is asked."""
PIECE_SIZE: Final = 1 << 20
"""Bytes of entries that are taken from an old segment at a time, at least."""


class Backfill:
    """What a log lacks at its beginning. `ask` takes (node id, first, last index); `sources` gives whom to ask."""

    def __init__(
        self,
        log: OpenedLog,
        facts: Facts,
        jobs: Jobs,
        *,
        ask: Callable[[int, int, int], None],
        sources: Callable[[], list[int]],
        warn: Callable[[str], None],
        is_wanted: IsWanted | None = None,
        on_filled: Callable[[], None] | None = None,
    ) -> None:
        """`is_wanted`: see `SegmentMaker`. `on_filled` is called when a segment has come."""
        self._log = log
        self._is_wanted = is_wanted
        self._on_filled = on_filled
        self._facts = facts
        self._jobs = jobs
        self._ask = ask
        self._sources = sources
        self._warn = warn
        self._segment: Segment | None = None
        self._fetch: EntriesFetch | None = None
        self._source = 0
        self._turn = 0
        self._refusals = 0
        self._pause_ticks = 0
        self._has_cleaned = False
        self.segments_filled = 0
        self.segments_kept = 0
        """Those that were made of what had been set aside."""

    @property
    def is_complete(self) -> bool:
        """Whether the log has its beginning."""
        return not self._log.segments or not self._log.segments[0].is_missing

    def on_tick(self) -> None:
        """Go on. Nothing that fails is worse than having to be tried again."""
        if self._has_cleaned:
            return
        if self._pause_ticks:
            self._pause_ticks -= 1
            return
        try:
            self._go_on()
        except (RemoteProtocolError, StorageError, OSError) as error:
            self._give_up(f"{error}")

    def _go_on(self) -> None:
        self._jobs.poll()
        if self._fetch is not None:
            self._go_on_fetching(self._fetch)
        elif self._segment is not None:
            if self._jobs.is_idle:
                self._after_own(self._segment)
        elif not self.is_complete:
            self._begin()
        elif self._jobs.is_idle:
            self._has_cleaned = True
            self._jobs.add(self._clean)

    def _begin(self) -> None:
        """Look for the last segment that is missing among what was set aside, then ask for it."""
        self._segment = [segment for segment in self._log.segments if segment.is_missing][-1]
        if self._before_name(self._segment) in self._log.directory.names():
            self._jobs.add(self._make_of_own, self._segment, self._maker(self._segment))
        else:
            self._begin_fetching(self._segment)

    def _maker(self, segment: Segment) -> SegmentMaker:
        following = self._log.segments[segment.number]
        first = decode_header(following.view()[SEGMENT_HEADER_SIZE:][:ENTRY_HEADER_SIZE])
        if first is None or first.index != following.first_index:
            raise CorruptLog(f"{following.name}: the entry that it begins with is damaged")
        summary = segment.summary(segment.end)
        header = segment_header(self._facts, segment.number, segment.end)
        return SegmentMaker(
            self._log.directory,
            header,
            summary,
            last_index=first.index - 1,
            last_hash=first.previous_hash,
            is_wanted=self._is_wanted,
        )

    @staticmethod
    def _before_name(segment: Segment) -> str:
        return BEFORE_PREFIX + segment_name(segment.number)

    def _make_of_own(self, segment: Segment, maker: SegmentMaker) -> None:
        """Make a segment of one that was set aside; if that is another one, the file is removed."""
        directory, name = self._log.directory, self._before_name(segment)
        file = directory.open(name, writable=False)
        try:
            data = file.map().data
        finally:
            file.close()
        try:
            start = end = SEGMENT_HEADER_SIZE
            while not maker.is_full:
                header = decode_header(data[end : end + ENTRY_HEADER_SIZE])
                if header is None:
                    break
                end += ENTRY_HEADER_SIZE + header.body_size
                if end - start >= PIECE_SIZE or header.index >= maker.last_index:
                    maker.add(data[start:end])
                    start = end
            maker.finish()
        except (RemoteProtocolError, UnsupportedFormat):
            maker.discard()
            directory.remove(name)
        except BaseException:
            maker.discard()
            raise

    def _after_own(self, segment: Segment) -> None:
        self._segment = None
        if segment.name in self._log.directory.names():
            self.segments_kept += 1
            self._note_here(segment)
        # Otherwise it is begun again, and the file that was of no use is gone.

    def _begin_fetching(self, segment: Segment) -> None:
        sources = self._sources()
        if not sources:
            self._segment, self._pause_ticks = None, PAUSE_TICKS
            return
        self._source = source = sources[self._turn % len(sources)]
        self._fetch = EntriesFetch(self._maker(segment), self._jobs, lambda first, last: self._ask(source, first, last))

    def _go_on_fetching(self, fetch: EntriesFetch) -> None:
        fetch.on_tick(may_ask=True)
        if fetch.is_refused:
            self._refusals += 1
            pauses = len(REFUSED_PAUSES_TICKS)
            self._begin_again(
                REFUSED_PAUSES_TICKS[min(self._refusals, pauses) - 1],
                elsewhere=self._refusals % REFUSALS_PER_SOURCE == 0,
            )
        elif fetch.silences > SILENCES_MAX:
            self._begin_again(PAUSE_TICKS)
        elif fetch.is_done and self._segment is not None:
            segment, self._segment, self._fetch = self._segment, None, None
            self.segments_filled += 1
            self._note_here(segment)

    def _note_here(self, segment: Segment) -> None:
        """It has come; `mapping` notices that. Nobody may need it soon."""
        self._refusals = 0
        segment.view()
        segment.unmap()
        if self._on_filled is not None:
            self._on_filled()

    def on_entries(self, sender: int, first_index: int, entries: memoryview) -> None:
        """Entries have come."""
        if self._fetch is None or sender != self._source or self._pause_ticks:
            return
        try:
            self._fetch.on_reply(first_index, entries)
        except (RemoteProtocolError, StorageError, OSError) as error:
            self._give_up(f"{error}")

    def _give_up(self, problem: str) -> None:
        self._warn(f"the history before this node's state is not complete yet: {problem}")
        self._begin_again(PAUSE_TICKS)

    def _begin_again(self, pause_ticks: int, *, elsewhere: bool = True) -> None:
        """Try again in a while; `elsewhere` if there is another member to ask."""
        self.discard()
        self._turn += elsewhere
        self._pause_ticks = pause_ticks
        self._has_cleaned = False

    def _clean(self) -> None:
        """The history is complete: nothing else need be kept. The mark goes last."""
        directory = self._log.directory
        for name in directory.names():
            if name.startswith(BEFORE_PREFIX):
                directory.remove(name)
        if INCOMPLETE_NAME in directory.names():
            directory.remove(INCOMPLETE_NAME)

    def discard(self) -> None:
        """Leave nothing unfinished."""
        self._jobs.drop()
        if self._fetch is not None:
            self._fetch.discard()
        self._fetch = self._segment = None


def is_incomplete(log: OpenedLog) -> bool:
    """Whether a log lacks something, or has not been tidied since it had it."""
    names = log.directory.names()
    return INCOMPLETE_NAME in names or any(name.startswith(BEFORE_PREFIX) for name in names)
