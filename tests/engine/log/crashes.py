"""Logs after a crash: a history that was written for real, and ways to damage what is left of it.

A `Remains` holds the files as bytes and knows where every entry lies, so that a case can say "the header of entry 5"
and the check afterwards knows what must be there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import pytest

from bezant.engine.log.log import Log
from bezant.engine.log.segment import segment_name
from bezant.protocol.errors import CorruptLog
from bezant.protocol.records import CONTROL_PAGE_SIZE, ENTRY_HEADER_SIZE

from .logs import Fact, Place, Writer, contents, fact_of, open_entries, places

GROUPS: Final = ([1], [2, 1], [3], [1, 2, 1])
"""The history that most cases start from. Entry 1; 2 and 3; 4; 5, 6 and 7 are its groups, all in one segment."""
COUNT: Final = 7
FULL: Final = 300
"""Events of an entry that fills a segment: not even a fifth as many fit behind it."""
SECTOR_SIZE: Final = 512
FORGOTTEN: Final = bytes(2 * CONTROL_PAGE_SIZE)
"""What a power cut may leave of control pages that were never synced."""


@dataclass(frozen=True)
class History:
    """Files of a log, the control file after each of its groups, and what was appended."""

    facts: list[Fact]
    segments: dict[int, bytes]
    controls: list[bytes]
    """``controls[n]``: the control file after n groups."""


def write_history(folder: Path, *groups: list[int]) -> History:
    """Write groups of entries with so many events, and keep what is on the disk afterwards."""
    writer = Writer(folder)
    control = folder / "control"
    controls = [control.read_bytes()]
    for group in groups:
        writer.write(*group)
        controls.append(control.read_bytes())
    writer.close()
    segments = {number: path.read_bytes() for number, path in enumerate(sorted(folder.glob("segment-*")), 1)}
    return History(writer.facts, segments, controls)


@dataclass
class Remains:
    """What a crash has left of a history: all of it, until it is damaged. Methods that damage return the remains."""

    history: History
    control: bytes
    segments: dict[int, bytearray] = field(default_factory=dict)
    where: dict[int, tuple[int, Place]] = field(default_factory=dict)
    """Segment number and place of each entry, by its index."""

    @classmethod
    def of(cls, history: History, control: bytes) -> Self:
        segments = {number: bytearray(data) for number, data in history.segments.items()}
        found = [(number, place) for number, data in segments.items() for place in places(data)]
        return cls(history, control, segments, {int(place.header["index"]): (number, place) for number, place in found})

    def overwrite(self, index: int, offset: int, data: bytes) -> Self:
        """Overwrite bytes that lie `offset` behind the start of an entry."""
        number, place = self.where[index]
        start = place.start + offset
        self.segments[number][start : start + len(data)] = data
        return self

    def flip(self, index: int, offset: int) -> Self:
        number, place = self.where[index]
        self.segments[number][place.start + offset] ^= 0x10
        return self

    def break_header(self, index: int) -> Self:
        return self.flip(index, 75)

    def break_body(self, index: int) -> Self:
        _, place = self.where[index]
        return self.flip(index, place.end - place.start - 1)

    def lose(self, index: int, first: int = 0, end: int | None = None) -> Self:
        """Zeros where an entry, or the bytes from `first` to `end` of it, should be."""
        _, place = self.where[index]
        stop = place.end - place.start if end is None else end
        return self.overwrite(index, first, bytes(stop - first))

    def lose_header(self, index: int) -> Self:
        return self.lose(index, 0, ENTRY_HEADER_SIZE)

    def lose_sector(self, index: int) -> Self:
        """The sector in which an entry begins, from there on."""
        _, place = self.where[index]
        return self.lose(index, 0, SECTOR_SIZE - place.start % SECTOR_SIZE)

    def lose_from(self, index: int) -> Self:
        """Zeros from an entry on to the end of the log."""
        for later in self.where:
            if later >= index:
                self.lose(later)
        return self

    def put(self, number: int, offset: int, data: bytes) -> Self:
        """Bytes at an offset of a segment."""
        self.segments[number][offset : offset + len(data)] = data
        return self

    def save(self, folder: Path) -> None:
        """Write the remains as the files of a folder, which is made if it is not there."""
        folder.mkdir(exist_ok=True)
        for number, data in self.segments.items():
            (folder / segment_name(number)).write_bytes(data)
        (folder / "control").write_bytes(self.control)

    def torn_tail(self, index: int) -> bytes:
        """The bytes from the place of an entry on to the last one that is not zero."""
        number, place = self.where[index]
        return bytes(self.segments[number][place.start :].rstrip(b"\0"))


Damage = Callable[[Remains], Remains]


def check_refused(folder: Path, remains: Remains, at: int, *, segment: int | None = None) -> str:
    """The log refuses to open and names the place, whoever opens it, and not a byte of the folder is changed."""
    remains.save(folder)
    before = contents(folder)
    number, place = remains.where[at]
    where = f"{segment_name(segment or number)}, offset {place.start}: "
    message = ""
    for writable in (False, True):
        with pytest.raises(CorruptLog, match=f"entry with index {at} was expected") as caught:
            open_entries(folder, writable=writable)
        message = str(caught.value)
        assert message.startswith(where), message
        assert contents(folder) == before
    return message


def check_recovered(folder: Path, remains: Remains, end: int, *, torn: bytes) -> None:
    """The entries before `end` are there, what followed is set aside, and the log goes on from there."""
    facts = remains.history.facts[: end - 1]
    remains.save(folder)
    before = contents(folder)

    log, entries = open_entries(folder, writable=False)
    assert [fact_of(entry) for entry in entries] == facts
    assert log.recovery.torn_bytes == len(torn)
    log.close()
    assert contents(folder) == before

    log, entries = open_entries(folder)
    assert [fact_of(entry) for entry in entries] == facts
    check_torn_file(folder, log, torn)
    assert set(contents(folder)) >= set(before)
    assert log.last_index == log.durable_index == end - 1
    log.close()
    check_goes_on(folder, facts)


def check_torn_file(folder: Path, log: Log, torn: bytes) -> None:
    """What was torn is in a file of its own, whole, and no such file is there for nothing."""
    report = log.recovery
    assert report.torn_bytes == len(torn)
    names = [path.name for path in folder.glob("torn-*")]
    assert names == ([report.torn_file] if torn else [])
    if torn:
        assert (folder / report.torn_file).read_bytes() == torn


def check_goes_on(folder: Path, facts: list[Fact]) -> None:
    """Only the surviving entries are left in the segments; every event can be read, and new entries follow."""
    writer = Writer(folder)
    assert writer.log.recovery.torn_bytes == 0
    assert writer.log.recovery.clean_stop
    assert writer.facts == facts
    everything = list(range(1, writer.next_sequence))
    assert writer.read(*everything) == everything
    writer.write(2, FULL)
    writer.write(1)
    everything = list(range(1, writer.next_sequence))
    assert writer.read(*everything) == everything
    writer.close()
    log, entries = open_entries(folder, writable=False)
    assert [fact_of(entry) for entry in entries] == writer.facts
    assert log.recovery.torn_bytes == 0
    log.close()
