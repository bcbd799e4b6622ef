"""Claim: the doctor tells every kind of damage apart, decides as recovery does, and changes nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
import xxhash

from bezant.engine.diagnosis import Diagnosis, Finding, FindingKind, Severity, Verdict
from bezant.engine.doctor import examine
from bezant.engine.log.entry import decode_header, encode_entry
from bezant.engine.log.segment import SegmentHeader, create_segment, read_segment_header, segment_name
from bezant.engine.log.storage import Directory, FolderLock
from bezant.engine.replica import ReplicaSettings, open_replica, shard_directory
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, DataFolderInUse, UnsupportedFormat
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import CONTROL_PAGE_SIZE, ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE

from .commands import join, opening, opening_world, transfer, transfers
from .log.logs import ROOM, SEGMENT_SIZE, Writer, damage, flip, forget_control, newest_page, open_entries, places

SHARD: Final = "shard-0000"
FULL: Final = 300
"""Events of an entry that fills a segment."""
FIRST: Final = f"{SHARD}/{segment_name(1)}"


class Seen(NamedTuple):
    """All that a look must leave as it is."""

    size: int
    modified_ns: int
    changed_ns: int
    data: bytes


def snapshot(folder: Path) -> dict[str, Seen]:
    seen = {}
    for path in sorted((folder, *folder.rglob("*"))):
        status = path.stat()
        data = path.read_bytes() if path.is_file() else b""
        seen[str(path)] = Seen(status.st_size, status.st_mtime_ns, status.st_ctime_ns, data)
    return seen


def look(folder: Path, **settings: Any) -> Diagnosis:
    """Examine a folder, and hold the doctor to its promise."""
    before = snapshot(folder)
    diagnosis = examine(folder, **{"free_space_floor": 0, **settings})
    assert snapshot(folder) == before
    return diagnosis


def only(diagnosis: Diagnosis, kind: FindingKind) -> Finding:
    """The finding of this kind, if it is the only one."""
    assert [finding.kind for finding in diagnosis.findings] == [kind]
    return diagnosis.findings[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with three groups: entry 1; entries 2 and 3; entry 4. The control file has the third."""
    folder = tmp_path / "data"
    folder.mkdir()
    writer = Writer(folder / SHARD)
    writer.write(1)
    writer.write(2, 1)
    writer.write(3)
    writer.close()
    return folder


def log_of(folder: Path) -> Path:
    return folder / SHARD


def start_of(folder: Path, index: int, number: int = 1) -> int:
    """Offset of the header of an entry."""
    found = places((log_of(folder) / segment_name(number)).read_bytes())
    return next(place.start for place in found if int(place.header["index"]) == index)


def reseal(path: Path, offset: int, size: int) -> None:
    """Make the checksum in front of a page right again."""
    page = path.read_bytes()[offset : offset + size]
    damage(path, offset, xxhash.xxh3_64_intdigest(page[8:]).to_bytes(8, "little"))


# --- Healthy


def test_a_node_that_stopped_cleanly(tmp_path: Path, small: ReplicaSettings) -> None:
    """Counts and the chain hash are those of the node."""
    replica = open_replica(tmp_path / "data", settings=small)
    replica.execute(join(opening_world("ann", "bob"), transfer("world", "ann", 5), transfer("ann", "bob", 9)))
    replica.write_group()
    replica.execute(transfers("world", "ann", FULL - 1))
    replica.write_group()
    log = replica.log
    expected = (log.last_index, log.durable_sequence, log.chain_hash.hex(), replica.ledger.account_count)
    replica.close()

    diagnosis = look(tmp_path / "data")
    assert diagnosis.verdict is Verdict.HEALTHY
    finding = only(diagnosis, FindingKind.CLEAN_STOP)
    assert finding.severity is Severity.NOTE
    assert (diagnosis.entries, diagnosis.events, diagnosis.chain_hash, diagnosis.accounts) == expected
    assert (diagnosis.last_index, diagnosis.durable_index) == (expected[0], expected[0])
    assert (diagnosis.clean_stop, diagnosis.torn_bytes, diagnosis.walked) == (True, 0, True)
    assert diagnosis.segments == len(list(log_of(tmp_path / "data").glob("segment-*")))
    assert diagnosis.segments_used == 2
    assert diagnosis.free_bytes > 0


def test_a_node_that_was_killed(data: Path, tmp_path: Path) -> None:
    """What is on the disk while a log is open is what a killed process leaves."""
    killed = tmp_path / "killed"
    log_of(killed).mkdir(parents=True)
    writer = Writer(log_of(data))
    writer.write(1)
    # Not the whole folder, in which a segment may be being made.
    for name in ("control", segment_name(1)):
        shutil.copy(log_of(data) / name, log_of(killed) / name)
    writer.close()
    diagnosis = look(killed)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "killed" in only(diagnosis, FindingKind.CRASH).meaning
    assert (diagnosis.entries, diagnosis.events, diagnosis.clean_stop) == (5, 8, False)
    only(look(data), FindingKind.CLEAN_STOP)


def test_the_page_of_an_earlier_clean_stop(data: Path) -> None:
    """A power cut may leave it beside the entries that came later."""
    stopped = (log_of(data) / "control").read_bytes()
    writer = Writer(log_of(data))
    writer.write(1)
    writer.close()
    (log_of(data) / "control").write_bytes(stopped)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.HEALTHY
    only(diagnosis, FindingKind.CRASH)
    assert (diagnosis.entries, diagnosis.durable_index, diagnosis.clean_stop) == (5, 4, False)


def test_progress_is_told_in_bytes(data: Path) -> None:
    told: list[tuple[int, int]] = []
    look(data, on_progress=lambda done, total: told.append((done, total)))
    assert len(told) == 4
    assert all(0 < done <= total for done, total in told)


@pytest.mark.parametrize("made", [(), ("control",), ("segment-0000000001.new",)])
def test_a_first_start_that_ended_before_it_had_a_history(tmp_path: Path, made: tuple[str, ...]) -> None:
    log = tmp_path / SHARD
    log.mkdir()
    for name in made:
        (log / name).write_bytes(bytes(2 * CONTROL_PAGE_SIZE))
    diagnosis = look(tmp_path)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert diagnosis.findings[-1].kind is FindingKind.NO_HISTORY
    assert open_entries(log)[1] == []


# --- The decisions of recovery: each case says what the doctor finds, and recovery must agree


class Case(NamedTuple):
    """Damage, and the finding that explains it."""

    damage: Callable[[Path], None]
    kind: FindingKind
    file: str = FIRST
    at_entry: int = 0
    """The entry at whose place the finding is; 0: at offset 0."""
    says: str = ""


def forget_last_group(folder: Path) -> None:
    """The control file as it was before the last group, so that damage to that one is a torn tail."""
    path = log_of(folder) / "control"
    for _ in range(2):
        number = int(newest_page(log_of(folder))["write_count"]) % 2
        if int(newest_page(log_of(folder))["durable_index"]) < 4:
            return
        damage(path, number * CONTROL_PAGE_SIZE, bytes(CONTROL_PAGE_SIZE))


def tear_last_entry(folder: Path) -> None:
    forget_last_group(folder)
    flip(log_of(folder) / segment_name(1), start_of(folder, 4) + ENTRY_HEADER_SIZE)


def lose_last_entry(folder: Path) -> None:
    path = log_of(folder) / segment_name(1)
    start = start_of(folder, 4)
    damage(path, start, bytes(SEGMENT_SIZE - start))


CASES: Final[dict[str, Case]] = {
    "a torn tail": Case(tear_last_entry, FindingKind.TORN_TAIL, at_entry=4, says="never acknowledged"),
    "rot in a body": Case(
        lambda folder: flip(log_of(folder) / segment_name(1), start_of(folder, 2) + ENTRY_HEADER_SIZE),
        FindingKind.ROT,
        at_entry=2,
        says="durable up to index 4",
    ),
    "rot in a header": Case(
        lambda folder: flip(log_of(folder) / segment_name(1), start_of(folder, 3) + 60),
        FindingKind.ROT,
        at_entry=3,
        says="durable up to index 4",
    ),
    "the last entry is gone": Case(lose_last_entry, FindingKind.ROT, at_entry=4, says="durable up to index 4"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_damage_among_the_entries(data: Path, case: Case) -> None:
    offset = start_of(data, case.at_entry)
    case.damage(data)
    diagnosis = look(data)
    finding = next(found for found in diagnosis.findings if found.kind is case.kind)
    assert (finding.file, finding.offset) == (case.file, offset)
    assert f"index {case.at_entry}" in finding.expected
    assert case.says in finding.meaning
    assert diagnosis.entries == diagnosis.last_index == case.at_entry - 1
    if case.kind is FindingKind.TORN_TAIL:
        assert diagnosis.verdict is Verdict.HEALTHY
        log, entries = open_entries(log_of(data))
        assert (len(entries), log.recovery.torn_bytes) == (diagnosis.entries, diagnosis.torn_bytes)
        assert log.chain_hash.hex() == diagnosis.chain_hash
        log.close()
        after = look(data)
        assert after.verdict is Verdict.HEALTHY
        set_aside = next(found for found in after.findings if found.kind is FindingKind.SET_ASIDE)
        assert f"{diagnosis.torn_bytes:,} bytes" in set_aside.found
    else:
        assert diagnosis.verdict is Verdict.DAMAGED
        assert diagnosis.torn_bytes == 0
        with pytest.raises(CorruptLog, match=f"offset {offset}: found {finding.found}"):
            open_entries(log_of(data))


def test_an_entry_that_says_what_cannot_be(data: Path) -> None:
    """Its checksums are right: no crash has made it, and it is no torn tail although nothing is known behind it."""
    path, start = log_of(data) / segment_name(1), start_of(data, 4)
    raw = path.read_bytes()[start:]
    header = decode_header(np.frombuffer(raw, np.uint8))
    assert header is not None
    body = raw[ENTRY_HEADER_SIZE:][: header.body_size]
    damage(path, start, encode_entry(header._replace(durable_before=4), body).encoded)
    forget_control(log_of(data))
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.DAMAGED
    finding = next(found for found in diagnosis.findings if found.kind is FindingKind.ROT)
    assert (finding.file, finding.offset) == (FIRST, start)
    assert finding.found == "an entry that claims the log to be durable up to index 4"
    assert "its checksums are right" in finding.meaning
    assert (diagnosis.entries, diagnosis.torn_bytes) == (3, 0)


def test_an_entry_of_a_newer_version(data: Path) -> None:
    """It is whole, so it is not damage; and nothing behind it is judged."""
    path, start = log_of(data) / segment_name(1), start_of(data, 4)
    raw = path.read_bytes()[start:]
    header = decode_header(np.frombuffer(raw, np.uint8))
    assert header is not None
    body = raw[ENTRY_HEADER_SIZE:][: header.body_size]
    damage(path, start, encode_entry(header._replace(rules_version=99), body).encoded)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.OTHER_FORMAT
    finding = next(found for found in diagnosis.findings if found.kind is FindingKind.OTHER_FORMAT)
    assert (finding.file, finding.offset) == (FIRST, start)
    assert "rules 99" in finding.found
    assert diagnosis.entries == 3
    with pytest.raises(UnsupportedFormat):
        open_entries(log_of(data))


# --- Segment files


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Entries in three segments, and empty ones behind them."""
    folder = tmp_path / "data"
    folder.mkdir()
    writer = Writer(log_of(folder))
    for _ in range(3):
        writer.write(FULL)
    writer.close()
    return folder


def refuses(folder: Path) -> None:
    with pytest.raises(CorruptLog):
        open_entries(log_of(folder))


def test_a_missing_segment(three: Path) -> None:
    (log_of(three) / segment_name(2)).unlink()
    diagnosis = look(three)
    assert diagnosis.verdict is Verdict.DAMAGED
    finding = only(diagnosis, FindingKind.SEGMENT_MISSING)
    assert (finding.file, finding.found) == (f"{SHARD}/{segment_name(2)}", "no such file")
    assert (diagnosis.entries, diagnosis.events) == (1, FULL)
    refuses(three)


def test_a_gap_is_one_finding_however_wide(data: Path) -> None:
    directory = shard_directory(data, 0)
    log_id = read_segment_header(directory, 1).log_id
    create_segment(directory, SegmentHeader(0, log_id, 9_999_999_999, SEGMENT_SIZE))
    kinds = [finding.kind for finding in look(data).findings]
    assert kinds == [FindingKind.SEGMENT_MISSING]
    refuses(data)


@pytest.mark.parametrize("name", ["segment-0000000000", "segment-00000000001"])
def test_a_number_that_no_node_gives(data: Path, name: str) -> None:
    (log_of(data) / name).write_bytes((log_of(data) / segment_name(1)).read_bytes())
    assert look(data).findings[0].kind is FindingKind.SEGMENT_FOREIGN
    refuses(data)


@pytest.mark.parametrize(
    ("number", "offset", "entries", "says"),
    [
        (1, 8, 0, "cannot be trusted"),
        (2, 24, 1, "cannot be trusted"),
        (3, 4000, 2, "cannot be trusted"),
        (4, 0, 3, "holds no entries"),
    ],
)
def test_a_damaged_segment_header(three: Path, number: int, offset: int, entries: int, says: str) -> None:
    flip(log_of(three) / segment_name(number), offset)
    diagnosis = look(three)
    assert diagnosis.verdict is Verdict.DAMAGED
    finding = diagnosis.findings[0]
    assert (finding.kind, finding.offset) == (FindingKind.SEGMENT_HEADER, 0)
    assert finding.file == f"{SHARD}/{segment_name(number)}"
    assert says in finding.meaning
    assert diagnosis.entries == entries
    assert not [found for found in diagnosis.findings if found.kind is FindingKind.ROT]
    refuses(three)


def test_a_segment_that_is_cut_short(three: Path) -> None:
    os.truncate(log_of(three) / segment_name(2), SEGMENT_SIZE - 4096)
    finding = only(look(three), FindingKind.SEGMENT_HEADER)
    assert f"number 2 of {SEGMENT_SIZE - 4096}" in finding.found
    refuses(three)


def test_an_empty_segment_file(three: Path) -> None:
    os.truncate(log_of(three) / segment_name(3), 0)
    assert look(three).findings[0].kind is FindingKind.SEGMENT_HEADER
    refuses(three)


def test_damage_before_a_segment_that_cannot_be_read_is_rot(three: Path) -> None:
    """Without the later file recovery would see the end of the log; with it, it is in the middle."""
    (log_of(three) / "control").write_bytes(bytes(2 * CONTROL_PAGE_SIZE))
    flip(log_of(three) / segment_name(1), SEGMENT_HEADER_SIZE + 200)
    flip(log_of(three) / segment_name(2), 8)
    diagnosis = look(three)
    finding = next(found for found in diagnosis.findings if found.kind is FindingKind.ROT)
    assert (finding.file, finding.offset) == (FIRST, SEGMENT_HEADER_SIZE)
    assert segment_name(2) in finding.meaning
    assert diagnosis.torn_bytes == 0


@pytest.mark.parametrize("change", [{"log_id": 77}, {"shard": 1}])
def test_a_segment_of_another_log(three: Path, change: dict[str, int]) -> None:
    directory = shard_directory(three, 0)
    header = read_segment_header(directory, 2)._replace(**change)
    (log_of(three) / segment_name(2)).unlink()
    create_segment(directory, header)
    assert only(look(three), FindingKind.SEGMENT_FOREIGN).file == f"{SHARD}/{segment_name(2)}"
    refuses(three)


def test_a_segment_of_a_newer_format(three: Path) -> None:
    path = log_of(three) / segment_name(3)
    damage(path, 16, (9).to_bytes(4, "little"))
    diagnosis = look(three)
    assert diagnosis.verdict is Verdict.OTHER_FORMAT
    assert "format 9" in only(diagnosis, FindingKind.OTHER_FORMAT).found
    assert diagnosis.entries == 2


# --- The control file


def test_the_control_file_is_gone(data: Path) -> None:
    (log_of(data) / "control").unlink()
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.DAMAGED
    assert diagnosis.findings[0].kind is FindingKind.CONTROL_MISSING
    assert diagnosis.entries == 4
    refuses(data)


def test_a_control_file_alone(data: Path) -> None:
    (log_of(data) / segment_name(1)).unlink()
    for path in log_of(data).glob("segment-*"):
        path.unlink()
    assert only(look(data), FindingKind.SEGMENT_MISSING).file == FIRST
    refuses(data)


@pytest.mark.parametrize("page", [0, 1])
def test_one_control_page_is_damaged(data: Path, page: int) -> None:
    """Whichever it is, the other one counts, and the history is whole."""
    flip(log_of(data) / "control", page * CONTROL_PAGE_SIZE + 100)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.HEALTHY
    finding = diagnosis.findings[0]
    assert (finding.kind, finding.severity) == (FindingKind.CONTROL_DAMAGED, Severity.WARNING)
    assert finding.offset == page * CONTROL_PAGE_SIZE
    assert diagnosis.durable_index == 4


def test_both_control_pages_are_damaged(data: Path) -> None:
    for page in range(2):
        flip(log_of(data) / "control", page * CONTROL_PAGE_SIZE + 100)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.DAMAGED
    assert [finding.kind for finding in diagnosis.findings[:2]] == [FindingKind.CONTROL_DAMAGED] * 2
    assert (diagnosis.entries, diagnosis.durable_index) == (4, 0)


def test_a_control_file_that_a_power_cut_lost(data: Path) -> None:
    forget_control(log_of(data))
    assert look(data).verdict is Verdict.HEALTHY


def test_a_control_file_that_is_cut_short(data: Path) -> None:
    os.truncate(log_of(data) / "control", 0)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.DAMAGED
    assert "0 bytes" in diagnosis.findings[0].found


def test_a_control_file_of_another_log(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    writer = Writer(other)
    writer.write(1)
    writer.close()
    (log_of(data) / "control").write_bytes((other / "control").read_bytes())
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.DAMAGED
    assert "a page of log" in diagnosis.findings[0].found


def test_a_control_file_of_a_newer_format(data: Path) -> None:
    path = log_of(data) / "control"
    for page in range(2):
        damage(path, page * CONTROL_PAGE_SIZE + 16, (9).to_bytes(4, "little"))
        reseal(path, page * CONTROL_PAGE_SIZE, CONTROL_PAGE_SIZE)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.OTHER_FORMAT
    assert diagnosis.findings[0].file == f"{SHARD}/control"


# --- Around the log


def test_what_a_crash_left_unfinished(data: Path) -> None:
    (log_of(data) / "segment-0000000009.new").write_bytes(b"half")
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert diagnosis.findings[0].kind is FindingKind.UNFINISHED_FILE


def test_a_folder_that_a_process_has_open(data: Path) -> None:
    """Its process is named, and its entries are left alone."""
    lock = FolderLock(data)
    diagnosis = look(data)
    assert diagnosis.verdict is Verdict.IN_USE
    assert diagnosis.holder == str(os.getpid())
    assert f"process {os.getpid()} " in only(diagnosis, FindingKind.IN_USE).found
    assert not diagnosis.walked
    lock.release()
    assert look(data).verdict is Verdict.HEALTHY
    FolderLock(data).release()


def test_a_replica_goes_on_undisturbed(tmp_path: Path, small: ReplicaSettings) -> None:
    folder = tmp_path / "data"
    replica = open_replica(folder, settings=small)
    for name in ("ann", "bob"):
        assert examine(folder, free_space_floor=0).verdict is Verdict.IN_USE
        assert replica.execute(opening(name)).results["code"][0] == ResultCode.COMMITTED
        replica.write_group()
    replica.close()
    assert look(folder).accounts == 2


def test_nobody_takes_the_folder_while_it_is_examined(data: Path) -> None:
    """Others that only look may look as well."""
    (data / "lock").write_bytes(b"")
    told: list[Verdict] = []

    def meanwhile(_done: int, _total: int) -> None:
        with pytest.raises(DataFolderInUse):
            FolderLock(data)
        told.append(look(data).verdict)

    look(data, on_progress=meanwhile)
    assert told == [Verdict.HEALTHY] * 4
    FolderLock(data).release()


def test_damage_is_told_even_while_a_process_has_the_folder(data: Path) -> None:
    flip(log_of(data) / segment_name(1), 8)
    lock = FolderLock(data)
    assert look(data).verdict is Verdict.DAMAGED
    lock.release()


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_not_a_data_folder(tmp_path: Path, name: str) -> None:
    diagnosis = look(tmp_path) if name == "." else examine(tmp_path / name)
    assert diagnosis.verdict is Verdict.NOT_A_DATA_FOLDER
    only(diagnosis, FindingKind.NOT_A_DATA_FOLDER)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_shard_is_not_a_data_folder(data: Path) -> None:
    diagnosis = look(log_of(data))
    assert "above" in only(diagnosis, FindingKind.NOT_A_DATA_FOLDER).next_step


def test_a_data_folder_that_lost_its_log(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"1")
    diagnosis = look(tmp_path)
    assert diagnosis.verdict is Verdict.DAMAGED
    only(diagnosis, FindingKind.LOG_MISSING)


def test_a_disk_at_its_floor(data: Path) -> None:
    free = Directory(data).free_bytes()
    diagnosis = look(data, free_space_floor=free)
    assert diagnosis.verdict is Verdict.HEALTHY
    finding = diagnosis.findings[0]
    assert (finding.kind, finding.severity) == (FindingKind.DISK_NEARLY_FULL, Severity.WARNING)
    assert "STORAGE_FULL" in finding.meaning


def test_every_flipped_byte_of_the_first_page_and_entry_is_told(data: Path) -> None:
    """A coarse sweep; recovery's own tests turn over every byte."""
    path = log_of(data) / segment_name(1)
    whole = path.read_bytes()
    for offset in range(0, start_of(data, 2), 97):
        flip(path, offset)
        assert look(data).verdict is Verdict.DAMAGED, offset
        path.write_bytes(whole)
    assert look(data).verdict is Verdict.HEALTHY


def test_kinds_without_events_are_counted_as_entries(tmp_path: Path) -> None:
    log = tmp_path / SHARD
    writer = Writer(log)
    writer.append_body(EntryKind.FILLER, bytes(ROOM // 2))
    writer.write(2)
    writer.close()
    diagnosis = look(tmp_path)
    assert (diagnosis.entries, diagnosis.events, diagnosis.accounts) == (2, 2, 0)
