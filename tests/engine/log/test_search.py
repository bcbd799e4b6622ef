"""Claim: headers behind damage are found wherever they lie, no client can make one, and no search takes much memory."""

import os
import tracemalloc
from pathlib import Path
from typing import Final

import pytest
import xxhash

from bezant.engine.log import recovery
from bezant.engine.log.entry import EntryHeader, encode_entry, public_log_id
from bezant.engine.log.log import open_log
from bezant.engine.log.recovery import PART_SIZE
from bezant.engine.log.segment import SEGMENT_SIZE_MAX, SegmentHeader, create_segment, read_segment_header
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT_SIZE

from .crashes import COUNT, FORGOTTEN, History, Remains, check_recovered, check_refused
from .logs import SEGMENT_SIZE, Fact, Writer, damage, fact_of, flip, open_entries, places_in, segment_path

LARGE_SIZE: Final = 256 << 20
"""Bytes of a segment that nobody wants to have in memory twice."""
MEMORY_MAX: Final = 4 * PART_SIZE


def header_of(log_id: int, index: int, durable_before: int) -> EntryHeader:
    """A header whose checksums will be right, and in which recovery has nothing to object to."""
    kind = int(EntryKind.EVENTS)
    return EntryHeader(0, durable_before, 0, bytes(32), 0, index, 1, 1, 0, 0, kind, 2, 1, log_id, 0)


# --- What a client can make


def torn_with(folder: Path, log_id: int | None, index: int, durable_before: int) -> list[Fact]:
    """A log with an acknowledged entry, and behind it a torn one in whose body somebody has put a header.

    With the log's own id if none is given. Returns what was acknowledged.
    """
    writer = Writer(folder)
    writer.write(1)
    acknowledged = list(writer.facts)
    control = (folder / "control").read_bytes()
    known = writer.log.log_id if log_id is None else log_id
    forged = encode_entry(header_of(known, index, durable_before), b"").encoded
    body = bytearray(4 * EVENT_SIZE)
    body[136 : 136 + len(forged)] = forged
    writer.append_body(EntryKind.EVENTS, bytes(body), 4)
    writer.sync()
    writer.close()
    (folder / "control").write_bytes(control)
    flip(segment_path(folder), places_in(folder)[1].start + 60)
    return acknowledged


def test_a_header_made_of_what_clients_are_told_proves_nothing(tmp_path: Path) -> None:
    """The checksum has no key, so a client can make all of a header but the id of the log."""
    folder = tmp_path / "log"
    writer = Writer(folder)
    told = int(writer.log.public_id, 16)
    writer.close()
    signed = told - (1 << 64) if told >> 63 else told
    acknowledged = torn_with(folder, signed, 1 << 40, (1 << 40) - 1)
    log, entries = open_entries(folder)
    assert [fact_of(entry) for entry in entries] == acknowledged
    assert log.recovery.torn_bytes > 0
    log.close()


@pytest.mark.parametrize(
    ("durable_before", "refused"),
    [(1, False), (2, True), (3, True), (4, False), (1 << 40, False), (-1, False)],
)
def test_a_header_of_the_log_counts_if_it_makes_sense(tmp_path: Path, durable_before: int, refused: bool) -> None:
    """Wherever it is: entry 4 knew that 2 or 3 was durable, and none knows that of itself or of later ones."""
    folder = tmp_path / "log"
    acknowledged = torn_with(folder, None, 4, durable_before)
    if refused:
        with pytest.raises(CorruptLog, match=f"index 2 was expected; the log was durable up to index {durable_before}"):
            open_entries(folder)
        return
    log, entries = open_entries(folder)
    assert [fact_of(entry) for entry in entries] == acknowledged
    log.close()


def test_the_public_id_tells_logs_apart_and_not_their_ids(tmp_path: Path) -> None:
    ids = [0, 1, 2, -1, 2**63 - 1, -(2**63)]
    public = [public_log_id(log_id) for log_id in ids]
    assert len(set(public)) == len(ids)
    assert all(len(text) == 16 and int(text, 16) not in {log_id % 2**64 for log_id in ids} for text in public)
    writer = Writer(tmp_path)
    assert writer.log.public_id == public_log_id(writer.log.log_id)
    public_id = writer.log.public_id
    writer.close()
    writer = Writer(tmp_path)
    assert writer.log.public_id == public_id
    writer.close()
    assert public_log_id(1) == "8f0c6fdf33487af5", "what clients remember a log by has changed"


# --- Parts


@pytest.fixture(params=[1, 7, 8, 100, 4096])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery looks at so many bytes at a time."""
    monkeypatch.setattr(recovery, "PART_SIZE", request.param)


@pytest.mark.usefixtures("parts")
def test_headers_are_found_across_parts(tmp_path: Path, history: History) -> None:
    for at in range(1, 5):
        message = check_refused(tmp_path, Remains.of(history, FORGOTTEN).break_header(at), at)
        assert "durable up to index 4" in message


@pytest.mark.parametrize("at", [5, COUNT])
@pytest.mark.usefixtures("parts")
def test_a_torn_tail_is_set_aside_in_parts(tmp_path: Path, history: History, at: int) -> None:
    remains = Remains.of(history, history.controls[-2]).break_header(at)
    check_recovered(tmp_path, remains, at, torn=remains.torn_tail(at))


# --- Large segments


def test_a_torn_byte_in_a_large_segment_takes_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    writer = Writer(folder)
    writer.write(1)
    writer.close()
    header = read_segment_header(Directory(folder), 1)
    entry = segment_path(folder).read_bytes()[4096:][: places_in(folder)[0].end - 4096]
    for path in folder.glob("segment-*"):
        path.unlink()
    create_sparse(folder, header._replace(segment_size=LARGE_SIZE))
    damage(segment_path(folder), 4096, entry)
    damage(segment_path(folder), 4096 + len(entry) + 1000, b"torn")
    tracemalloc.start()
    try:
        log, entries = open_entries(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(entries), log.recovery.torn_bytes) == (1, 1004)
    log.close()
    assert peak < MEMORY_MAX


def create_sparse(folder: Path, header: SegmentHeader) -> None:
    """A segment whose zeros take no room on the disk."""
    small = header._replace(segment_size=1 << 16)
    create_segment(Directory(folder), small)
    page = bytearray(segment_path(folder, header.segment_number).read_bytes()[:4096])
    page[40:48] = header.segment_size.to_bytes(8, "little")
    page[:8] = xxhash.xxh3_64_intdigest(bytes(page[8:])).to_bytes(8, "little")
    path = segment_path(folder, header.segment_number)
    damage(path, 0, bytes(page))
    os.truncate(path, header.segment_size)


def test_a_segment_is_not_larger_than_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"a segment of {SEGMENT_SIZE_MAX + 4096} bytes: it has 16384 to 4294967296"):
        Writer(tmp_path / "new", segment_size=SEGMENT_SIZE_MAX + 4096)
    folder = tmp_path / "log"
    Writer(folder).close()
    header = read_segment_header(Directory(folder), 1)
    create_sparse(folder, header._replace(segment_size=SEGMENT_SIZE_MAX))
    assert read_segment_header(Directory(folder), 1).segment_size == SEGMENT_SIZE_MAX
    create_sparse(folder, header._replace(segment_size=SEGMENT_SIZE_MAX + 4096))
    with pytest.raises(CorruptLog, match=f"{SEGMENT_SIZE_MAX + 4096} bytes; a segment has {SEGMENT_SIZE_MAX} at most"):
        open_entries(folder)


@pytest.mark.parametrize("head", [b"", b"garbage"])
def test_a_file_that_is_no_segment_does_not_count_for_the_size_of_the_log(tmp_path: Path, head: bytes) -> None:
    """Tables are made as large as the events of a log may need; a sparse file costs whoever put it there nothing."""
    Writer(tmp_path).close()
    log = open_log(Directory(tmp_path), segment_size=SEGMENT_SIZE, writable=False)
    number = len(list(tmp_path.glob("segment-*")))
    assert log.count_events_at_most() == number * SEGMENT_SIZE // EVENT_SIZE
    path = segment_path(tmp_path, number + 1)
    path.write_bytes(head)
    os.truncate(path, 1 << 40)
    with pytest.raises(CorruptLog, match="damaged"):
        log.count_events_at_most()
