"""Claim: the bytes of a data folder are those in use, to the end of the log's last entry."""

from pathlib import Path

from bezant.engine.replica import Replica, ReplicaSettings, open_replica
from bezant.perf.load.books import LoadAccounts, opening_commands
from bezant.perf.load.disk import used_bytes
from bezant.protocol.records import ENTRY_HEADER_SIZE, EVENT_SIZE, SEGMENT_HEADER_SIZE

SEGMENT_SIZE = 64 << 10


def open_in(folder: Path) -> Replica:
    return open_replica(folder, settings=ReplicaSettings(segment_size=SEGMENT_SIZE, holds_max=64, free_space_floor=0))


def other_bytes(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file() and "segment-" not in path.name]
    return sum(path.stat().st_size for path in files)


def test_only_what_entries_fill_counts(tmp_path: Path) -> None:
    replica = open_in(tmp_path)
    try:
        replica.write_group()
        empty = used_bytes(tmp_path)
        assert empty == SEGMENT_HEADER_SIZE + replica.log.bytes_count + other_bytes(tmp_path)
        commands = opening_commands(LoadAccounts(100), range(100))
        replica.execute(commands[:1])
        replica.write_group()
        assert used_bytes(tmp_path) - empty == ENTRY_HEADER_SIZE + EVENT_SIZE
    finally:
        replica.close()


def test_segments_before_the_last_count_whole(tmp_path: Path) -> None:
    count = 250
    entry_size = ENTRY_HEADER_SIZE + count * EVENT_SIZE
    replica = open_in(tmp_path)
    try:
        accounts = LoadAccounts(2 * count)
        replica.execute(opening_commands(accounts, range(count)))
        replica.execute(opening_commands(accounts, range(count, 2 * count)))
        replica.write_group()
        # The second entry does not fit behind the first, so it begins the next segment.
        assert used_bytes(tmp_path) == SEGMENT_SIZE + SEGMENT_HEADER_SIZE + entry_size + other_bytes(tmp_path)
    finally:
        replica.close()


def test_a_damaged_control_page_does_not_count(tmp_path: Path) -> None:
    replica = open_in(tmp_path)
    try:
        replica.write_group()
        before = used_bytes(tmp_path)
        (control,) = tmp_path.rglob("control")
        pages = bytearray(control.read_bytes())
        pages[100] ^= 1
        pages[4196] ^= 1
        control.write_bytes(pages)
        assert used_bytes(tmp_path) < before
    finally:
        replica.close()


def test_a_folder_without_a_log_counts_its_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "inner" / "b").write_bytes(b"4567")
    (tmp_path / "inner" / "c.new").write_bytes(b"8")
    assert used_bytes(tmp_path) == 7
