"""Claim: the doctor calls no folder healthy that a node refuses, and a folder made to harm it does not."""

import os
import socket
from pathlib import Path

import pytest

from bezant.engine.diagnosis import Diagnosis, Finding, FindingKind, Severity, Verdict, printable
from bezant.engine.doctor import examine
from bezant.engine.examining_walk import holds_data
from bezant.engine.log.entry import Entry
from bezant.engine.log.segment import segment_name
from bezant.engine.replica import ReplicaSettings, open_replica
from bezant.protocol.errors import StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import ControlEntry, Currency, encode_message

from .log.logs import flip
from .test_doctor import look
from .test_verify import Forgery, Good, forge, good, in_header, settings, with_body

__all__ = ["good", "settings"]

HUGE = 1 << 43
"""Bytes of a file with holes: no memory takes it, and to read it would take hours."""


def of_kind(diagnosis: Diagnosis, kind: FindingKind) -> Finding:
    (found,) = (finding for finding in diagnosis.findings if finding.kind is kind)
    return found


# --- Whole, and refused by a node

REFUSED = {
    "first sequence": in_header(3, first_sequence=7),
    "count of an entry without events": in_header(4, count=1),
    "count of an entry with events": in_header(3, count=5),
    "no rules": in_header(3, rules_version=0),
    "time": in_header(3, timestamp_ns=5),
    "control": with_body(4, b"not a message"),
    "currency": with_body(4, encode_message(ControlEntry(currencies=[Currency("EUR", 3)]))),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_what_a_node_refuses_is_not_healthy(good: Good, settings: ReplicaSettings, change: Forgery) -> None:
    forge(good.folder, change)
    diagnosis = look(good.folder)
    assert diagnosis.verdict is Verdict.DAMAGED
    finding = of_kind(diagnosis, FindingKind.ENTRY_WRONG)
    assert finding.severity is Severity.DAMAGE
    assert finding.file.endswith(segment_name(1))
    assert finding.offset is not None
    assert "a node refuses to start" in finding.meaning
    with pytest.raises(StorageError) as refused:
        open_replica(good.folder, settings=settings)
    assert str(refused.value) == finding.found


def test_an_entry_of_a_reserved_kind_is_of_a_newer_version(good: Good) -> None:
    forge(good.folder, in_header(4, kind=int(EntryKind.PHASES)))
    diagnosis = look(good.folder)
    assert diagnosis.verdict is Verdict.OTHER_FORMAT
    assert f"kind {int(EntryKind.PHASES)}" in of_kind(diagnosis, FindingKind.OTHER_FORMAT).found


def test_damage_is_not_hidden_by_something_newer(good: Good) -> None:
    def both(entries: list[Entry]) -> list[Entry]:
        return in_header(6, kind=99)(in_header(3, first_sequence=7)(entries))

    forge(good.folder, both)
    diagnosis = look(good.folder)
    assert {FindingKind.ENTRY_WRONG, FindingKind.OTHER_FORMAT} <= {finding.kind for finding in diagnosis.findings}
    assert diagnosis.verdict is Verdict.DAMAGED


# --- Made to harm


@pytest.mark.parametrize("what", ["pipe", "folder", "link", "socket"])
def test_a_lock_that_is_none_is_a_finding_and_nobody_waits_for_it(good: Good, what: str) -> None:
    lock = good.folder / "lock"
    lock.unlink()
    if what == "pipe":
        os.mkfifo(lock)
    elif what == "folder":
        lock.mkdir()
    elif what == "link":
        lock.symlink_to("shard-0000/control")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(lock))
    diagnosis = look(good.folder)
    assert diagnosis.verdict is Verdict.DAMAGED
    assert str(lock) in of_kind(diagnosis, FindingKind.LOCK_UNUSABLE).found
    assert diagnosis.events == good.events, "the history is looked at all the same"


def test_a_huge_file_with_holes_is_not_read(good: Good) -> None:
    """Neither a segment with a bad header nor a control file without segments."""
    folder = good.folder / "shard-0000"
    flip(folder / segment_name(1), 0)
    os.truncate(folder / segment_name(1), HUGE)
    found = of_kind(examined(good.folder), FindingKind.SEGMENT_HEADER)
    assert "cannot be trusted" in found.meaning, "there is something in it"
    for name in folder.glob("segment-*"):
        name.unlink()
    with (folder / "control").open("wb") as file:
        file.truncate(HUGE)
    assert examined(good.folder).verdict is not Verdict.DAMAGED


def examined(folder: Path) -> Diagnosis:
    """Without the snapshots of `look`, which would read the file."""
    return examine(folder, free_space_floor=0)


@pytest.mark.parametrize(
    ("at", "start", "is_found"), [(None, 0, False), (5, 0, True), (5, 6, False), (HUGE - 1, 9, True)]
)
def test_bytes_are_found_wherever_they_lie(tmp_path: Path, at: int | None, start: int, is_found: bool) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(HUGE)
        file.seek(4096)
        file.write(bytes(4096))  # zeros that are no hole
        if at is not None:
            file.seek(at)
            file.write(b"\x01")
    assert holds_data(path, start) is is_found


def test_names_that_a_terminal_would_obey_are_written_out(good: Good) -> None:
    for name in (b"torn-\x1b[2J\nx", b"caf\xc3\xa9.new", b"\xff\x9b.new"):
        (good.folder / "shard-0000" / os.fsdecode(name)).write_bytes(b"")
    told = [finding.file for finding in look(good.folder).findings]
    assert "shard-0000/torn-\\x1b[2J\\nx" in told
    assert "shard-0000/caf\u00e9.new" in told
    assert all(file.isprintable() for file in told)
    "".join(told).encode()
    assert printable("a\u202eb") == "a\\u202eb"
