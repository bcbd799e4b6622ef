"""Erases what has been superseded: overwrites it in the log, on a helper thread, once that is committed and durable."""

from collections import defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from typing import Final, NamedTuple

from bezant.engine.log.archived import is_archived
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import HistoryIncomplete, LedgerError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.metadata import BLOB_STATE_AT, BLOB_STATE_ERASED, decode_blob
from bezant.protocol.records import ENTRY_HEADER_SIZE

_ERASED: Final = bytes((BLOB_STATE_ERASED,))


class _Place(NamedTuple):
    """Where the state of a blob lies, and how many bytes from there on are to be overwritten."""

    segment: str
    offset: int
    size_bytes: int


class _Superseded(NamedTuple):
    """An entry whose content is not wanted any more, and the one that says so."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    by_index: int


class Erasing:
    """See the module. All methods on the thread that the log belongs to."""

    def __init__(self, log: Log, helper: Executor) -> None:
        self._log = log
        self._helper = helper
        self.waiting: deque[_Superseded] = deque()
        """What is to be erased, in the order of the entries that supersede it; as many as are not committed yet."""
        self._under_way: deque[Future[None]] = deque()
        self._missing: set[int] = set()
        """Entries whose content is to be erased as soon as their segments have come."""

    def note(self, entry: Entry) -> None:
        """An entry of kind BLOB is in the ledger."""
        blob = decode_blob(entry.body)
        if blob.previous_index:
            self.waiting.append(_Superseded(blob.previous_index, entry.header.index))

    def begin(self, until_index: int) -> None:
        """Begin to erase what entries up to this one supersede, which are committed and durable here.

        Raises OSError if the disk did not take what was begun earlier: then the process must end.
        """
        self._check_done()
        places: list[_Place] = []
        while self.waiting and self.waiting[0].by_index <= until_index:
            self._find(self.waiting.popleft().index, places)
        self._submit(places)

    def erase(self, indexes: Iterable[int]) -> None:
        """Erase what entries with these indexes have, and return when it is done. Raises as `begin`."""
        places: list[_Place] = []
        for index in indexes:
            self._find(index, places)
        self._submit(places)
        self.finish()

    def retry(self) -> None:
        """A segment has come that was missing. Raises as `begin`."""
        missing, self._missing = self._missing, set()
        places: list[_Place] = []
        for index in sorted(missing):
            self._find(index, places)
        self._submit(places)

    def _submit(self, places: list[_Place]) -> None:
        if places:
            self._under_way.append(self._helper.submit(_erase, self._log.directory, places))

    def finish(self) -> None:
        """Return when all that was begun is erased, durably; may be called on another thread. Raises as `begin`."""
        for begun in tuple(self._under_way):
            begun.result()

    def erase_walked(self, until_index: int) -> None:
        """The same as both, for a log that is being opened and may not be durable yet. Raises as `begin`."""
        due = [item for item in self.waiting if item.by_index <= until_index]
        for name in {self._log.place_of(item.by_index).segment.name for item in due}:
            file = self._log.directory.open(name, writable=True)
            try:
                file.sync()
            finally:
                file.close()
        self.begin(until_index)
        self.finish()

    def _check_done(self) -> None:
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft().result()

    def _find(self, index: int, places: list[_Place]) -> None:
        """Add the place where the content of an entry lies, if anything is left of it, and no archive has it."""
        if self._log.history_index <= index < self._log.first_index:
            return
        try:
            located = self._log.place_of(index)
            view = located.segment.view()
        except HistoryIncomplete:
            self._missing.add(index)  # Whoever fills it in leaves it out, if that has not begun yet.
            return
        if located.header.kind != EntryKind.BLOB:
            raise LedgerError(f"entry {index} has no metadata that could be superseded")
        start, end = located.offset + ENTRY_HEADER_SIZE + BLOB_STATE_AT, located.offset + located.size
        if view[start:end] != _ERASED * (end - start):
            places.append(_Place(located.segment.name, start, end - start))

    def close(self) -> None:
        """Finish what was begun. May be called again."""
        try:
            self.finish()
        finally:
            self._helper.shutdown()


def _erase(directory: Directory, places: Iterable[_Place]) -> None:
    """Overwrite what lies at places, durably; on the helper thread."""
    by_segment: defaultdict[str, list[_Place]] = defaultdict(list)
    for place in places:
        by_segment[place.segment].append(place)
    for segment, within in by_segment.items():
        try:
            file = directory.open(segment, writable=True)
        except FileNotFoundError:
            if is_archived(directory, segment):
                continue  # It has left the disk meanwhile: what an archive has is as it was made.
            raise
        try:
            # The state first, and durably: once a byte of the rest has gone, nothing else tells it from damage.
            for place in within:
                file.write([_ERASED], place.offset)
            file.sync()
            for place in within:
                file.write([_ERASED * place.size_bytes], place.offset)
            file.sync()
        finally:
            file.close()
