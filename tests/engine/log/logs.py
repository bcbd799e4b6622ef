"""Small logs, and what became of them: written through the public interface, read by the byte tables alone.

`Writer` remembers everything that it appended, so that a test can say what must be there after a crash. `places` finds
the entries of a segment file with nothing but the dtypes, so that it cannot share a mistake with the code under test.
"""

from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bezant.engine.ledger.state import RULES_VERSION_FIRST
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import UNFINISHED_SUFFIX, Directory
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import (
    CONTROL_PAGE,
    CONTROL_PAGE_SIZE,
    ENTRY_HEADER,
    ENTRY_HEADER_SIZE,
    EVENT,
    EVENT_SIZE,
    SEGMENT_HEADER_SIZE,
    Records,
)

SEGMENT_SIZE: Final = 64 << 10
ROOM: Final = SEGMENT_SIZE - SEGMENT_HEADER_SIZE
"""Bytes for entries in a segment."""


class Fact(NamedTuple):
    """What was appended: all of an entry that the log does not add by itself."""

    index: int
    kind: int
    first_sequence: int
    count: int
    timestamp_ns: int
    body: bytes


class Place(NamedTuple):
    """Where an entry lies in a segment file: offsets of its header, its body and its end, and its header."""

    start: int
    body: int
    end: int
    header: np.void


def fact_of(entry: Entry) -> Fact:
    header = entry.header
    return Fact(header.index, header.kind, header.first_sequence, header.count, header.timestamp_ns, bytes(entry.body))


def events_of(first_sequence: int, count: int) -> Records:
    """Events that can be told apart: each has its sequence in three places."""
    events = np.zeros(count, EVENT)
    sequences = np.arange(first_sequence, first_sequence + count)
    events["amount"], events["id_tail"], events["credit_previous"] = sequences, ~sequences, sequences << 40
    return events


def open_entries(
    folder: Path | Directory,
    *,
    shard: int = 0,
    segment_size: int = SEGMENT_SIZE,
    free_space_floor: int = 0,
    writable: bool = True,
    start: ResumePoint | None = None,
    until_index: int | None = None,
) -> tuple[Log, list[Entry]]:
    """Open a log and read all of it; bodies are copied, so that they do not keep mappings alive."""
    directory = folder if isinstance(folder, Directory) else Directory(folder)
    log = open_log(
        directory, shard=shard, segment_size=segment_size, free_space_floor=free_space_floor, writable=writable
    )
    return log, [entry._replace(body=bytes(entry.body)) for entry in log.open(start, until_index)]


def read_facts(folder: Path | Directory) -> list[Fact]:
    """What a log holds, read without changing it."""
    log, entries = open_entries(folder, writable=False)
    log.close()
    return [fact_of(entry) for entry in entries]


def resume_points(folder: Path | Directory) -> list[ResumePoint]:
    """Where a log can be gone on with: behind each of its entries in turn, as a checkpoint keeps it."""
    log = open_log(folder if isinstance(folder, Directory) else Directory(folder), writable=False)
    points = []
    for _ in log.open():
        point = log.resume_point()
        if point is None:
            raise AssertionError("an entry was yielded and there is no point behind it")
        points.append(msgspec.msgpack.decode(msgspec.msgpack.encode(point), type=ResumePoint))
    log.close()
    return points


class Writer:
    """A log that is open for writing, and all that it must hold."""

    def __init__(
        self,
        folder: Path | Directory,
        *,
        shard: int = 0,
        segment_size: int = SEGMENT_SIZE,
        free_space_floor: int = 0,
    ) -> None:
        if isinstance(folder, Path):
            folder.mkdir(exist_ok=True)
        self.log, entries = open_entries(
            folder, shard=shard, segment_size=segment_size, free_space_floor=free_space_floor
        )
        self.facts = [fact_of(entry) for entry in entries]

    @property
    def next_sequence(self) -> int:
        return self.facts[-1].first_sequence + self.facts[-1].count if self.facts else 1

    def append(self, count: int) -> Fact:
        """Append so many events as one entry."""
        return self.append_body(EntryKind.EVENTS, events_of(self.next_sequence, count).tobytes(), count)

    def append_body(self, kind: EntryKind, body: bytes, count: int = 0) -> Fact:
        if not self.log.has_room(len(body)):
            raise AssertionError("the log has no room for the entries of the test")
        sequence, timestamp_ns = self.next_sequence, 10 * (len(self.facts) + 1)
        header = self.log.append(
            kind,
            body,
            first_sequence=sequence,
            count=count,
            timestamp_ns=timestamp_ns,
            rules_version=RULES_VERSION_FIRST,
        )
        fact = Fact(header.index, int(kind), sequence, count, timestamp_ns, body)
        self.facts.append(fact)
        return fact

    def sync(self) -> None:
        """Make everything appended durable, as one group."""
        group = self.log.begin_group()
        if group is not None:
            group.write_and_sync()
            self.log.finish_group(group)
            self.log.tidy()

    def write(self, *counts: int) -> None:
        """One group, of entries with so many events."""
        for count in counts:
            self.append(count)
        self.sync()

    def read(self, *sequences: int) -> list[int]:
        """The sequences that events carry which were read back by their sequence."""
        events = self.log.read_events(np.array(sequences, np.int64))
        if any(event.tobytes() != events_of(int(event["amount"]), 1).tobytes() for event in events):
            raise AssertionError("an event came back with other bytes than it had")
        return events["amount"].tolist()

    def close(self) -> None:
        self.log.close()


def entry_size(count: int) -> int:
    """Bytes in the log of an entry with so many events."""
    return ENTRY_HEADER_SIZE + count * EVENT_SIZE


def segment_path(folder: Path, number: int = 1) -> Path:
    return folder / segment_name(number)


def places(data: bytes | bytearray) -> list[Place]:
    """The entries in the bytes of a segment file; it ends where a header is all zeros."""
    found: list[Place] = []
    offset = SEGMENT_HEADER_SIZE
    while offset + ENTRY_HEADER_SIZE <= len(data) and any(data[offset : offset + ENTRY_HEADER_SIZE]):
        header = np.frombuffer(bytes(data[offset : offset + ENTRY_HEADER_SIZE]), ENTRY_HEADER)[0]
        body = offset + ENTRY_HEADER_SIZE
        end = body + int(header["body_size"])
        found.append(Place(offset, body, end, header))
        offset = end
    return found


def places_in(folder: Path, number: int = 1) -> list[Place]:
    return places(segment_path(folder, number).read_bytes())


def newest_page(folder: Path) -> np.void:
    """The control page with the higher count of writes."""
    pages = np.frombuffer((folder / "control").read_bytes(), CONTROL_PAGE)
    return pages[int(np.argmax(pages["write_count"]))]


def forget_control(folder: Path) -> None:
    """What a power cut may leave of control pages that were never synced."""
    (folder / "control").write_bytes(bytes(2 * CONTROL_PAGE_SIZE))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    # Not those that are being made: a thread renames them, perhaps right now.
    paths = [path for path in folder.iterdir() if path.is_file() and path.suffix != UNFINISHED_SUFFIX]
    return {path.name: path.read_bytes() for path in paths}


def damage(path: Path, offset: int, data: bytes) -> None:
    """Overwrite a part of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file over."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
