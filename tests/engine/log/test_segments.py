"""Claim: a log of any length opens, reads and grows with a bounded number of files open, and waits for a full disk."""

import ctypes
import mmap
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from typing_extensions import Buffer

from bezant.engine.log.history import SEGMENTS_MAPPED_MAX
from bezant.engine.log.log import open_log
from bezant.engine.log.preparing import SEGMENTS_PREPARED
from bezant.engine.log.seeking import SPARSE_DISTANCE, ask_for
from bezant.engine.log.segment import create_segment, read_segment_header, segment_numbers
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import SEGMENT_HEADER_SIZE

from .logs import ROOM, SEGMENT_SIZE, Writer, contents, entry_size, open_entries, places_in, read_facts, segment_path

SEGMENTS: Final = SEGMENTS_MAPPED_MAX + 16
EVENTS_OF_SEGMENT: Final = 310
WAIT_S: Final = 60
LIBC: Final = ctypes.CDLL(None, use_errno=True)
LEAVE_S: Final = 30
"""Seconds for pages to leave the cache: they do only when all of them are on the disk, which may be busy."""
FILES_SPARE: Final = 24
"""Descriptors that a process may take beyond those it has: few beside the segments of the long log."""


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of many segments, one entry in each."""
    folder = tmp_path_factory.mktemp("long")
    writer = Writer(folder)
    for _ in range(SEGMENTS):
        writer.append(EVENTS_OF_SEGMENT)
    writer.sync()
    writer.close()
    return folder


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """For as long as the test runs, this process can open only a few more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + FILES_SPARE, soft), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def mapped_segments(folder: Path) -> int:
    """Segments of a folder that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line for line in lines if f"{folder}/segment-" in line})


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("writable", [False, True], ids=["to read", "to write"])
def test_a_long_log_opens_with_few_descriptors(long_log: Path, writable: bool) -> None:
    log, entries = open_entries(long_log, writable=writable)
    assert len(entries) == SEGMENTS
    assert mapped_segments(long_log) <= 1
    log.close()


@pytest.mark.usefixtures("few_descriptors")
def test_a_long_log_is_written_with_few_descriptors(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for _ in range(2 * FILES_SPARE):
        writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    assert len(read_facts(tmp_path)) == 2 * FILES_SPARE


def test_history_is_read_through_a_bounded_number_of_mappings(long_log: Path) -> None:
    writer = Writer(long_log)
    firsts = range(1, SEGMENTS * EVENTS_OF_SEGMENT, EVENTS_OF_SEGMENT)
    assert writer.read(*firsts) == list(firsts)
    assert mapped_segments(long_log) <= SEGMENTS_MAPPED_MAX
    assert writer.read(*firsts) == list(firsts)
    # The one that was not read for longest goes, so one that is read again and again stays.
    for sequence in firsts[1:]:
        writer.read(1)
        writer.read(sequence)
        assert f"{segment_path(long_log)}\n" in Path("/proc/self/maps").read_text()
    writer.close()
    assert mapped_segments(long_log) == 0


def test_bodies_outlive_the_mappings_they_came_from(long_log: Path) -> None:
    log = open_log(Directory(long_log), writable=False)
    bodies = [entry.body for entry in log.open()]
    log.close()
    assert [bytes(body) for body in bodies] == [fact.body for fact in read_facts(long_log)]


def test_segments_are_made_ahead(tmp_path: Path) -> None:
    """Each stop waits for the one that is being made; and those that are ready are used before others are made."""
    for _ in range(2 * SEGMENTS_PREPARED):
        writer = Writer(tmp_path)
        writer.close()
    assert segment_numbers(Directory(tmp_path)) == list(range(1, SEGMENTS_PREPARED + 2))
    nodes = {name: (tmp_path / name).stat().st_ino for name in contents(tmp_path)}
    writer = Writer(tmp_path)
    writer.write(*[EVENTS_OF_SEGMENT] * (SEGMENTS_PREPARED + 1))
    writer.close()
    assert {name: (tmp_path / name).stat().st_ino for name in nodes} == nodes
    assert [len(places_in(tmp_path, number)) for number in range(1, SEGMENTS_PREPARED + 2)] == [1, 1, 1]


def test_a_segment_that_was_being_made_when_the_process_died_is_no_obstacle(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    unfinished = tmp_path / "segment-0000000099.new"
    unfinished.write_bytes(bytes(100))
    assert read_facts(tmp_path) == writer.facts
    assert unfinished.exists()
    again = Writer(tmp_path)
    assert again.facts == writer.facts
    assert not unfinished.exists()
    again.close()


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(1)
    writer.close()
    for name in ("segment-", "segment-12", "segment-0000000002~", "segment-0000000002.bak", "notes"):
        (tmp_path / name).write_bytes(b"mine")
    assert Directory(tmp_path).names() == sorted(contents(tmp_path))
    Writer(tmp_path).close()
    assert {name for name, data in contents(tmp_path).items() if data == b"mine"} == {
        "segment-",
        "segment-12",
        "segment-0000000002~",
        "segment-0000000002.bak",
        "notes",
    }


def test_the_size_of_a_segment_counts_for_new_ones_only(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    old = len(segment_numbers(Directory(tmp_path)))
    larger = 2 * SEGMENT_SIZE
    writer = Writer(tmp_path, segment_size=larger)
    assert not writer.log.has_room(SEGMENT_SIZE)  # the empty ones of the old size come first
    for _ in range(old):
        writer.write(EVENTS_OF_SEGMENT)
    writer.write(2 * EVENTS_OF_SEGMENT)
    writer.close()
    sizes = [segment_path(tmp_path, number).stat().st_size for number in segment_numbers(Directory(tmp_path))]
    assert sizes[: old + 1] == [SEGMENT_SIZE] * old + [larger]
    assert read_facts(tmp_path) == writer.facts


# --- Segment headers


def test_a_header_is_read_as_it_was_written(tmp_path: Path) -> None:
    Writer(tmp_path, shard=7).close()
    header = read_segment_header(Directory(tmp_path), 1)
    assert (header.shard, header.segment_number, header.segment_size) == (7, 1, SEGMENT_SIZE)
    create_segment(Directory(tmp_path), header._replace(segment_number=9))
    assert read_segment_header(Directory(tmp_path), 9) == header._replace(segment_number=9)
    data = segment_path(tmp_path, 9).read_bytes()
    assert len(data) == SEGMENT_SIZE
    assert not any(data[SEGMENT_HEADER_SIZE:])


def test_a_file_under_another_number_is_refused(tmp_path: Path) -> None:
    Writer(tmp_path).close()
    segment_path(tmp_path, 4).write_bytes(segment_path(tmp_path, 1).read_bytes())
    with pytest.raises(CorruptLog, match=f"speaks of segment 1 of {SEGMENT_SIZE} bytes; the file is number 4"):
        read_segment_header(Directory(tmp_path), 4)


@pytest.mark.parametrize("size", [0, 100, SEGMENT_HEADER_SIZE, SEGMENT_SIZE - 1, SEGMENT_SIZE + 1])
def test_a_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    Writer(tmp_path).close()
    os.truncate(segment_path(tmp_path), size)
    before = contents(tmp_path)
    with pytest.raises(CorruptLog, match=f"{size}"):
        open_entries(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("size", [0, SEGMENT_HEADER_SIZE, SEGMENT_SIZE - 1])
def test_a_file_that_was_shortened_since_the_log_was_opened_is_not_read(tmp_path: Path, size: int) -> None:
    """Kernels would read behind its end, and what is behind the last page of a mapping ends the process."""
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    log, _ = open_entries(tmp_path, writable=False)
    assert f"{segment_path(tmp_path)}\n" not in Path("/proc/self/maps").read_text()
    os.truncate(segment_path(tmp_path), size)
    with pytest.raises(CorruptLog, match=f"segment-0000000001: it had {SEGMENT_SIZE} bytes and has {size} now"):
        log.read_events(np.array([1], np.int64))
    log.close()


# --- A full disk


class Disk(Directory):
    """A folder on a disk whose free space the test decides."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.free = 1 << 40
        self.refuses = False
        self.asked = 0

    def free_bytes(self) -> int:
        free = self.free
        self.asked += 1
        return free

    def create_file(self, name: str, size: int, head: Buffer = b"") -> None:
        if self.refuses:
            raise StorageError(f"no file {name} of {size} bytes on this disk")
        super().create_file(name, size, head)


FLOOR: Final = 1 << 20


def fill(writer: Writer) -> None:
    """Write until there is no room."""
    while writer.log.has_room(ROOM - entry_size(0)):
        writer.write(EVENTS_OF_SEGMENT)


def test_below_the_floor_no_segment_is_made_and_above_it_the_log_goes_on(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    writer = Writer(disk, free_space_floor=FLOOR)
    disk.free = FLOOR + SEGMENT_SIZE - 1
    fill(writer)
    count = len(segment_numbers(disk))
    assert not writer.log.has_room(ROOM - entry_size(0))
    assert not writer.log.has_room(ROOM - entry_size(0))
    assert len(segment_numbers(disk)) == count
    # What is there can be read, and small entries still fit.
    assert writer.read(1, EVENTS_OF_SEGMENT + 1) == [1, EVENTS_OF_SEGMENT + 1]
    assert writer.log.has_room(100)
    writer.append_body(EntryKind.CONTROL, b"small")
    writer.sync()
    disk.free = FLOOR + SEGMENT_SIZE
    assert writer.log.has_room(ROOM - entry_size(0))
    writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    assert read_facts(tmp_path) == writer.facts


def test_a_disk_that_fails_to_make_a_file_is_asked_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    writer = Writer(disk)
    disk.refuses = True
    fill(writer)
    assert not writer.log.has_room(ROOM - entry_size(0))
    disk.refuses = False
    assert writer.log.has_room(ROOM - entry_size(0))
    writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    assert read_facts(tmp_path) == writer.facts


def test_room_that_was_made_counts_at_once(tmp_path: Path) -> None:
    """An attempt that failed before there was room is not the answer to who asks afterwards."""
    disk = Disk(tmp_path)
    writer = Writer(disk, free_space_floor=FLOOR)
    writer.close()
    disk.free = 0
    writer = Writer(disk, free_space_floor=FLOOR)
    fill(writer)
    assert not writer.log.has_room(ROOM - entry_size(0))
    asked = disk.asked
    writer.append_body(EntryKind.CONTROL, b"")
    writer.sync()  # has the next attempt begun, that nobody waits for
    deadline = time.monotonic() + WAIT_S
    while disk.asked == asked:
        assert time.monotonic() < deadline, "no attempt was begun"
        time.sleep(0.001)
    disk.free = 1 << 40
    assert writer.log.has_room(ROOM - entry_size(0))
    writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    assert read_facts(tmp_path) == writer.facts


def test_a_full_disk_is_asked_no_more_than_twice(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    writer = Writer(disk)
    disk.free = -1
    fill(writer)
    for _ in range(3):
        asked = disk.asked
        assert not writer.log.has_room(ROOM - entry_size(0))
        assert disk.asked <= asked + 2
    writer.close()


@pytest.mark.parametrize("name", ["x.new", "segment-0000000002.new", "segment-0000000009.new"])
def test_a_folder_in_the_place_of_an_unfinished_file_is_left(tmp_path: Path, name: str) -> None:
    """It is nobody's who makes segments. One that it stands in the way of cannot be made, and the log has no room."""
    folder = tmp_path / "log"
    writer = Writer(folder)
    writer.write(1)
    writer.close()
    for path in folder.glob("segment-*"):
        if path != segment_path(folder):
            path.unlink()
    (folder / name).mkdir()
    (folder / name / "mine").write_bytes(b"mine")
    writer = Writer(folder)
    assert writer.log.has_room(100)
    assert writer.log.has_room(ROOM - entry_size(0)) == ("2" not in name)
    writer.write(2)
    writer.close()
    assert read_facts(folder) == writer.facts
    assert (folder / name / "mine").read_bytes() == b"mine"


def test_a_log_opens_on_a_full_disk(tmp_path: Path) -> None:
    """And says that it has no room, rather than not to start: its history can be read."""
    writer = Writer(tmp_path)
    writer.write(EVENTS_OF_SEGMENT)
    writer.close()
    disk = Disk(tmp_path)
    disk.free = 0
    writer = Writer(disk)
    fill(writer)
    assert writer.read(1) == [1]
    writer.close()
    log, _ = open_entries(tmp_path)
    assert log.recovery.clean_stop
    log.close()


def test_an_error_that_is_not_for_want_of_room_is_not_taken_for_it(tmp_path: Path) -> None:
    class Broken(Disk):
        def free_bytes(self) -> int:
            raise PermissionError("statvfs")

    writer = Writer(Broken(tmp_path))
    with pytest.raises(PermissionError):
        fill(writer)
    writer.close()


def is_cached(path: Path, offset: int) -> bool:
    """Whether a page of a file is in the page cache; asked without a look at the page, which would keep it there."""
    start = offset - offset % mmap.PAGESIZE
    resident = ctypes.c_ubyte()
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), mmap.PAGESIZE, access=mmap.ACCESS_COPY, offset=start) as page,
    ):
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        if LIBC.mincore(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), ctypes.byref(resident)) != 0:
            raise OSError(ctypes.get_errno(), "mincore", str(path))
    return bool(resident.value & 1)


def test_full_segments_leave_the_page_cache(tmp_path: Path) -> None:
    writer, count = Writer(tmp_path), 6
    for _ in range(count):
        writer.write(EVENTS_OF_SEGMENT)
    assert is_cached(segment_path(tmp_path, count), SEGMENT_HEADER_SIZE)
    until_s = time.monotonic() + LEAVE_S
    while any(is_cached(segment_path(tmp_path, number), SEGMENT_HEADER_SIZE) for number in (1, 2, 3)):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert is_cached(segment_path(tmp_path, count), SEGMENT_HEADER_SIZE)
    writer.close()
    assert read_facts(tmp_path) == writer.facts


def test_pages_that_are_asked_for_come_without_a_look_at_them(tmp_path: Path) -> None:
    """Those and no others: what a page that is waited for brings along may be megabytes."""
    path, pages = tmp_path / "file", 4096
    path.write_bytes(bytes(pages * mmap.PAGESIZE))
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if is_cached(path, 0):
            pytest.skip("this file system lives in memory")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            base = np.frombuffer(mapping, np.uint8).ctypes.data
            chosen = {7, 2000, 2001}
            ask_for(np.array([(base + 7 * mmap.PAGESIZE, 10), (base + 2000 * mmap.PAGESIZE, 5000)], np.int64))
            until_s = time.monotonic() + LEAVE_S
            while not all(is_cached(path, number * mmap.PAGESIZE) for number in chosen):
                assert time.monotonic() < until_s
                time.sleep(0.01)
            near = {number for page in chosen for number in range(page - 3, page + 4)}
            assert {number for number in near if is_cached(path, number * mmap.PAGESIZE)} == chosen


def bytes_read_from_disks() -> int:
    """By this process, since it began."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["read_bytes"])


def test_no_page_is_read_to_be_written_to(tmp_path: Path) -> None:
    """A new segment is not in the page cache, and a group ends in the middle of a page."""
    writer = Writer(tmp_path)
    writer.write(1)
    before = bytes_read_from_disks()
    for count in (1, 30, 2, 200, 7, 1, 40):
        writer.write(count)
    assert bytes_read_from_disks() == before
    writer.close()


def test_the_bytes_between_two_entries_are_told_nearly(tmp_path: Path) -> None:
    writer = Writer(tmp_path, segment_size=1 << 20)
    for _ in range(40):
        writer.write(600)
    assert len(segment_numbers(Directory(tmp_path))) > 3
    entry = entry_size(600)
    for first in range(41):
        for last in range(first, 41):
            told = writer.log.bytes_between(first, last)
            assert abs(told - (last - first) * entry) <= SPARSE_DISTANCE + entry
    assert writer.log.bytes_between(30, 20) == 0
    writer.log.close()
