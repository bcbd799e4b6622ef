"""What is in a data folder, damaged or not, as findings: what was found, what was expected, what it means, what to do.

Pure inspection: every file is opened to read, nothing is written, made, renamed or removed, and not even the lock file
changes. What damage means is decided by the table in `bezant.engine.log.recovery` and by nothing here: its `Walk` goes
over the entries, as it does when a node starts, and this module puts its decision into words.

A folder that a node has open is not walked: what the node is writing just now would look torn.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import xxhash

from bezant.engine.checkpoints.folder import FOLDER_NAME
from bezant.engine.diagnosis import Diagnosis, Finding, FindingKind, Findings, Severity, Verdict
from bezant.engine.examining_checkpoints import examine_checkpoints
from bezant.engine.examining_incomplete import examine_incomplete
from bezant.engine.examining_walk import ExaminingWalk, Sequel, Stop, holds_data
from bezant.engine.log.control import CONTROL_NAME, ControlFile, Watermark
from bezant.engine.log.entry import Entry, public_log_id
from bezant.engine.log.log import FREE_SPACE_FLOOR_DEFAULT
from bezant.engine.log.repairing import KIND as SET_ASIDE_KIND
from bezant.engine.log.segment import (
    Segment,
    SegmentHeader,
    read_segment_header,
    segment_name,
    segment_numbers,
)
from bezant.engine.log.storage import LOCK_NAME, UNFINISHED_SUFFIX, Directory, LookingLock
from bezant.engine.node_file import likely_shard_of_folder
from bezant.engine.replica import shard_directory
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError, UnsupportedFormat
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.records import (
    CONTROL_MAGIC,
    CONTROL_PAGE,
    CONTROL_PAGE_SIZE,
    ENTRY_HEADER_SIZE,
    EVENT,
    EVENT_SIZE,
    SEGMENT_HEADER_SIZE,
)

TORN_PREFIX: Final = "torn-"
ROT_PREFIX: Final = f"{SET_ASIDE_KIND}-"
_CONTROL_SIZE: Final = 2 * CONTROL_PAGE_SIZE
_CHECKSUM_SIZE: Final = 8

_RESTORE: Final = (
    "start nothing on the folder; keep a copy of it as it is, then restore this file from a backup or a replica and "
    "examine it again; a node of a group gets it from the others: bezant serve --repair-from-group"
)
_OTHER: Final = "use the version of Bezant that wrote it; this one will not touch the folder"


Progress = Callable[[int, int], None]
"""Told the bytes of entries that were read, and at most how many there are."""


def examine(
    data_directory: Path,
    *,
    free_space_floor: int = FREE_SPACE_FLOOR_DEFAULT,
    on_progress: Progress | None = None,
) -> Diagnosis:
    """Look at a data folder; `free_space_floor` (bytes) is what its node is set to. Changes nothing.

    No node can start on the folder meanwhile. Raises OSError if something cannot be read at all.
    """
    shard = likely_shard_of_folder(data_directory)
    directory = shard_directory(data_directory, shard)
    if not directory.path.is_dir():
        return _without_log(data_directory, directory)
    lock: LookingLock | None = None
    unusable = ""
    try:
        lock = LookingLock(data_directory)
    except StorageError as error:
        unusable = str(error)
    try:
        examination = _Examination(directory, shard, free_space_floor, "" if lock is None else lock.holder)
        if unusable:
            examination.note_lock(unusable)
        return examination.run(on_progress)
    finally:
        if lock is not None:
            lock.release()


def _without_log(data_directory: Path, directory: Directory) -> Diagnosis:
    """A folder without the folder of a log: one that lost it, or something else."""
    name = directory.path.name
    if (data_directory / LOCK_NAME).is_file():
        finding = Finding(
            severity=Severity.DAMAGE,
            kind=FindingKind.LOG_MISSING,
            file=name,
            found=f"a lock file of a node, and no folder {name}",
            expected=f"the log in {name}",
            meaning="a node was here, and its whole history is gone",
            next_step="find the folder (is a disk not mounted?) or restore it; a node would begin a new history here",
        )
        return Diagnosis(verdict=Verdict.DAMAGED, findings=[finding])
    found = "nothing there" if not data_directory.exists() else f"no folder {name} in it"
    next_step = "check the path; `bezant serve --data DIR` would make a new data folder there"
    if data_directory.is_dir() and segment_numbers(Directory(data_directory)):
        found, next_step = "the segment files of one shard", "give the folder above it"
    finding = Finding(
        severity=Severity.WARNING,
        kind=FindingKind.NOT_A_DATA_FOLDER,
        found=found,
        expected=f"a folder with {name} in it",
        meaning="this is not a data folder",
        next_step=next_step,
    )
    return Diagnosis(verdict=Verdict.NOT_A_DATA_FOLDER, findings=[finding])


class _Examination:
    """One look at one folder; the findings gather in the order in which they are made."""

    def __init__(self, directory: Directory, shard: int, free_space_floor: int, holder: str) -> None:
        self._directory = directory
        self._shard = shard
        self._names = directory.names()
        self._free_space_floor = free_space_floor
        self._holder = holder
        self._findings = Findings(directory.path.name)
        self._add = self._findings.add
        self._sequel: Sequel | None = Sequel(shard)
        self._watermark = Watermark()
        self._unreadable: dict[int, bool] = {}
        """Segments that cannot be used or are not there, and whether they may hold anything."""
        self._entries = self._events = self._accounts = self._torn_bytes = 0

    def run(self, on_progress: Progress | None) -> Diagnosis:
        """Look at everything, in the order in which a start does."""
        if self._holder:
            self._note_in_use()
        segments = self._read_headers()
        self._check_control(segments)
        self._check_files()
        examine_checkpoints(self._directory, self._shard, self._findings, in_use=bool(self._holder))
        self._check_disk(segments)
        walk = None
        if segments and segments[0].segment_number == 1 and not self._holder:
            walk = self._walk(segments, on_progress)
        return self._diagnose(segments, walk)

    def note_lock(self, problem: str) -> None:
        """Say that the lock file cannot be used."""
        self._add(
            Severity.DAMAGE,
            FindingKind.LOCK_UNUSABLE,
            found=problem,
            expected=f"a regular file {LOCK_NAME}, which a node makes and locks",
            meaning="a node refuses to start, and whether one runs cannot be told; the history is not touched by it",
            next_step="if no node runs on the folder, move what is there out of it: a node makes the file anew",
        )

    def _note_in_use(self) -> None:
        self._add(
            Severity.NOTE,
            FindingKind.IN_USE,
            found=f"process {self._holder} has the folder open",
            expected="a folder that no process has open",
            meaning="it is being written to, so its entries cannot be judged from outside; it did so when it started",
            next_step=f"to look at them, stop process {self._holder} first",
        )

    # ---- segment files ----

    def _read_headers(self) -> list[SegmentHeader]:
        """Headers of the segments from the first on, up to one that is missing or cannot be used."""
        usable: list[SegmentHeader] = []
        expected = examine_incomplete(self._directory, self._shard, self._findings)
        for number in segment_numbers(self._directory):
            if number < expected:
                self._note_misnumbered(number)
                continue
            if number > expected:
                self._note_missing(expected, number - 1)
            expected = number + 1
            header = self._read_header(number)
            if header is None:
                continue
            if header.shard != self._shard or (usable and header.log_id != usable[0].log_id):
                self._note_foreign(number, header, usable)
            elif not self._unreadable:
                usable.append(header)
        return usable

    def _read_header(self, number: int) -> SegmentHeader | None:
        name = segment_name(number)
        try:
            return read_segment_header(self._directory, number)
        except UnsupportedFormat as error:
            self._unreadable[number] = True
            self._note_other_format(name, 0, error)
        except CorruptLog as error:
            self._unreadable[number] = self._holds_anything(name)
            self._note_bad_header(number, str(error).rsplit(": ", 1)[-1])
        return None

    def _note_bad_header(self, number: int, problem: str) -> None:
        meaning, next_step = "the entries in it cannot be trusted to belong here; a node refuses to start", _RESTORE
        if not self._unreadable[number]:
            meaning = "it holds no entries, and yet a node refuses to start: it does not guess"
            next_step = (
                "if the files behind it hold none either (this says so of each), move them all out of the folder: a "
                "node makes empty segments anew"
            )
        self._add(
            Severity.DAMAGE,
            FindingKind.SEGMENT_HEADER,
            segment_name(number),
            offset=0,
            found=problem,
            expected=f"the header of segment {number} of this log, and a file as long as it says",
            meaning=meaning,
            next_step=next_step,
        )

    def _holds_anything(self, name: str) -> bool:
        """Whether anything but zeros lies behind the header of a segment file."""
        return holds_data(self._directory.path / name, SEGMENT_HEADER_SIZE)

    def _note_missing(self, first: int, last: int) -> None:
        self._unreadable[first] = True
        self._add(
            Severity.DAMAGE,
            FindingKind.SEGMENT_MISSING,
            segment_name(first),
            found="no such file" if first == last else f"no such file, nor any other up to {segment_name(last)}",
            expected="a segment: files are made in order, and others bear witness to this one",
            meaning="a part of the history is gone, and what follows cannot be tied to what comes before",
            next_step=_RESTORE,
        )

    def _note_misnumbered(self, number: int) -> None:
        self._unreadable[number] = True
        self._add(
            Severity.DAMAGE,
            FindingKind.SEGMENT_FOREIGN,
            segment_name(number),
            found=f"another file with the number {number}",
            expected="segments numbered from 1, each number once",
            meaning="somebody put a file here that no node made; a node refuses to start",
            next_step="find out where it came from, and move it out of the folder",
        )

    def _note_foreign(self, number: int, header: SegmentHeader, usable: list[SegmentHeader]) -> None:
        self._unreadable[number] = True
        expected = f"log {public_log_id(usable[0].log_id)}, shard {self._shard}" if usable else f"shard {self._shard}"
        self._add(
            Severity.DAMAGE,
            FindingKind.SEGMENT_FOREIGN,
            segment_name(number),
            offset=0,
            found=f"a segment of log {public_log_id(header.log_id)}, shard {header.shard}",
            expected=expected,
            meaning="the file belongs to another log: somebody copied it here, or over the right one",
            next_step=_RESTORE,
        )

    def _note_other_format(self, file: str, offset: int, error: UnsupportedFormat) -> None:
        self._add(
            Severity.WARNING,
            FindingKind.OTHER_FORMAT,
            file,
            offset=offset,
            found=str(error),
            expected="what this version of Bezant knows",
            meaning="another version wrote it; this is not damage, and this version cannot judge what follows",
            next_step=_OTHER,
        )

    # ---- the control file ----

    def _check_control(self, segments: list[SegmentHeader]) -> None:
        has_segments = bool(segments or self._unreadable)
        if CONTROL_NAME not in self._names:
            if has_segments:
                self._note_control_missing()
            return
        if not has_segments:
            if holds_data(self._directory.path / CONTROL_NAME, 0):
                self._note_missing(1, 1)
            return
        if segments and not self._holder:
            self._read_control(segments[0].log_id)

    def _note_control_missing(self) -> None:
        self._add(
            Severity.DAMAGE,
            FindingKind.CONTROL_MISSING,
            CONTROL_NAME,
            found="no such file",
            expected="the control file, which says how far the log is durable",
            meaning="without it a damaged last group could pass for a torn one; a node refuses to start",
            next_step=_RESTORE,
        )

    def _read_control(self, log_id: int) -> None:
        """Take the watermark as recovery does, and say what is wrong with pages that do not count."""
        control = ControlFile(self._directory, shard=self._shard, log_id=log_id, writable=False)
        try:
            self._watermark = control.read()
        except UnsupportedFormat as error:
            self._note_other_format(CONTROL_NAME, 0, error)
            return
        finally:
            control.close()
        file = self._directory.open(CONTROL_NAME, writable=False)
        try:
            data = file.read(_CONTROL_SIZE, 0)
        finally:
            file.close()
        for number in range(2):
            offset = number * CONTROL_PAGE_SIZE
            problem = _problem_of_page(data[offset : offset + CONTROL_PAGE_SIZE], log_id, self._shard)
            if problem:
                self._note_control_page(offset, problem)

    def _note_control_page(self, offset: int, problem: str) -> None:
        other_counts = self._watermark.write_count > 0
        meaning = "the other page counts; a power cut may tear the page that was being written"
        if not other_counts:
            meaning = (
                "nothing says any more how far the log is durable: a node starts, and damage to the last group that "
                "was acknowledged would pass for a torn tail"
            )
        self._add(
            Severity.WARNING if other_counts else Severity.DAMAGE,
            FindingKind.CONTROL_DAMAGED,
            CONTROL_NAME,
            offset=offset,
            found=problem,
            expected="a page that says how far the log is durable",
            meaning=meaning,
            next_step="nothing: the next start writes it anew" if other_counts else _RESTORE,
        )

    # ---- other files, and the disk ----

    def _check_files(self) -> None:
        for name in self._names:
            if name.endswith(UNFINISHED_SUFFIX) and not self._holder:
                self._add(
                    Severity.NOTE,
                    FindingKind.UNFINISHED_FILE,
                    name,
                    found="a file that was being made",
                    expected="none",
                    meaning="the node ended meanwhile; nothing in it was ever used",
                    next_step="nothing: the next start removes it",
                )
            elif name.startswith(TORN_PREFIX):
                self._note_set_aside(
                    name,
                    "of a torn tail",
                    "an earlier start set them aside after a crash: they were never acknowledged",
                )
            elif name.startswith(ROT_PREFIX):
                self._note_set_aside(
                    name, "of a damaged log", "a repair set them aside; what was in them came from the group again"
                )

    def _note_set_aside(self, name: str, what: str, meaning: str) -> None:
        file = self._directory.open(name, writable=False)
        try:
            size = file.size()
        finally:
            file.close()
        self._add(
            Severity.NOTE,
            FindingKind.SET_ASIDE,
            name,
            found=f"{size:,} bytes {what}",
            expected="none",
            meaning=meaning,
            next_step="nothing; the file can be removed once nobody wants to look at it",
        )

    def _check_disk(self, segments: list[SegmentHeader]) -> None:
        free = self._directory.free_bytes()
        needed = self._free_space_floor + (segments[-1].segment_size if segments else 0)
        if free < needed:
            self._add(
                Severity.WARNING,
                FindingKind.DISK_NEARLY_FULL,
                found=f"{free:,} bytes free on the disk",
                expected=f"{needed:,}: the floor of {self._free_space_floor:,}, and the next segment",
                meaning="a node serves what is there, and refuses commands as STORAGE_FULL once its segments are full",
                next_step="make room on the disk; the node goes on by itself",
            )

    # ---- entries ----

    def _walk(self, headers: list[SegmentHeader], on_progress: Progress | None) -> ExaminingWalk:
        """Go over all entries that can be reached, and say how that ended."""
        segments = [Segment(self._directory, header) for header in headers]
        walk = ExaminingWalk(segments, log_id=headers[0].log_id, shard=self._shard, watermark=self._watermark)
        total = sum(header.segment_size for header in headers)
        done = 0
        try:
            for entry in walk:
                self._count(entry)
                self._check_sequel(entry, walk)
                done += ENTRY_HEADER_SIZE + entry.header.body_size
                if on_progress is not None:
                    on_progress(done, total)
        except UnsupportedFormat as error:
            stop = walk.refused
            self._note_other_format(stop.segment if stop else "", stop.offset if stop else 0, error)
        except CorruptLog:
            self._note_rot(walk)
        else:
            self._note_end(walk)
        return walk

    def _count(self, entry: Entry) -> None:
        header = entry.header
        self._entries += 1
        self._events += header.count
        if header.kind == EntryKind.EVENTS and header.body_size == header.count * EVENT_SIZE:
            events = np.frombuffer(entry.body, EVENT)
            opened = (events["kind"] == CommandKind.OPEN) & (events["result"] == ResultCode.COMMITTED)
            self._accounts += int(np.count_nonzero(opened))

    def _check_sequel(self, entry: Entry, walk: ExaminingWalk) -> None:
        """Say of the first entry that a node would refuse, though it is whole, why."""
        if self._sequel is None:
            return
        try:
            self._sequel.take_in(entry)
        except UnsupportedFormat as error:
            self._note_other_format(walk.last_segment.name, walk.last_offset, error)
        except CorruptLog as error:
            self._add(
                Severity.DAMAGE,
                FindingKind.ENTRY_WRONG,
                walk.last_segment.name,
                offset=walk.last_offset,
                found=str(error),
                expected="an entry that continues the history",
                meaning="its checksums are right, so neither a crash nor a disk made it so; a node refuses to start",
                next_step=_RESTORE,
            )
        else:
            return
        self._sequel = None

    def _note_rot(self, walk: ExaminingWalk) -> None:
        stop = walk.refused
        if stop is None:
            raise LedgerError("a walk refused a log and did not say where")
        if walk.torn is None and any(self._unreadable.values()):
            return  # only zeros are left here: what was durable lies in the files that are missing or unreadable
        self._add(
            Severity.DAMAGE,
            FindingKind.ROT,
            stop.segment,
            offset=stop.offset,
            found=stop.problem,
            expected=f"the entry with index {stop.entry_index}",
            meaning=f"it was durable, for {stop.proof}: this is damage to acknowledged data, not the trace of a crash",
            next_step=_RESTORE,
        )

    def _note_end(self, walk: ExaminingWalk) -> None:
        torn = walk.torn
        if torn is not None:
            self._note_torn(torn, walk.torn_bytes)
        elif not any(self._unreadable.values()):
            self._note_stop(walk)

    def _note_torn(self, torn: Stop, torn_bytes: int) -> None:
        later = min((number for number, holds in self._unreadable.items() if holds), default=None)
        if later is not None:
            self._add(
                Severity.DAMAGE,
                FindingKind.ROT,
                torn.segment,
                offset=torn.offset,
                found=torn.problem,
                expected=f"the entry with index {torn.entry_index}",
                meaning=f"{segment_name(later)} comes behind it and is written only when this one is durable",
                next_step=_RESTORE,
            )
            return
        self._torn_bytes = torn_bytes
        self._add(
            Severity.WARNING,
            FindingKind.TORN_TAIL,
            torn.segment,
            offset=torn.offset,
            found=f"{torn.problem}, and {torn_bytes:,} bytes up to the last that is not zero",
            expected=f"the entry with index {torn.entry_index}, or zeros",
            meaning=(
                f"a torn tail: the {torn_bytes:,} bytes were being written when the node ended, and were never "
                "acknowledged to anyone"
            ),
            next_step="nothing: the next start sets them aside in a file of their own and goes on",
        )

    def _note_stop(self, walk: ExaminingWalk) -> None:
        last_index = walk.next_index - 1
        if self._watermark.cutting:
            self._add(
                Severity.NOTE,
                FindingKind.CUT_UNFINISHED,
                CONTROL_NAME,
                found=f"a cut behind the entry with index {last_index} that was being made when the node ended",
                meaning="what lies behind was never committed by its group, and counts no more",
                next_step="nothing: the next start finishes the cut",
            )
        elif last_index == 0:
            self._add(
                Severity.NOTE,
                FindingKind.NO_HISTORY,
                found="no entry",
                meaning="no node has written here yet, or the first one ended before it had",
                next_step="nothing: the next start begins the history",
            )
        elif self._watermark.is_clean_stop_at(last_index):
            self._add(
                Severity.NOTE,
                FindingKind.CLEAN_STOP,
                found=f"the mark of a clean stop, behind the entry with index {last_index}",
                meaning="the node stopped as it should, and everything is there",
            )
        else:
            self._add(
                Severity.NOTE,
                FindingKind.CRASH,
                found=f"no mark of a clean stop; the last entry, with index {last_index}, is whole",
                meaning="the node was killed or the machine stopped; everything that was acknowledged is there",
                next_step="nothing: the next start goes on from there",
            )

    # ---- the result ----

    def _diagnose(self, segments: list[SegmentHeader], walk: ExaminingWalk | None) -> Diagnosis:
        if not segments and not self._unreadable:
            self._add(
                Severity.NOTE,
                FindingKind.NO_HISTORY,
                found="no segment file",
                meaning="a first start ended before it had made one",
                next_step="nothing: the next start makes it",
            )
        is_damaged = any(finding.severity is Severity.DAMAGE for finding in self._findings)
        # Checkpoints of another version do not keep this one from starting.
        is_newer = any(
            finding.kind is FindingKind.OTHER_FORMAT and f"/{FOLDER_NAME}/" not in finding.file
            for finding in self._findings
        )
        verdict = Verdict.IN_USE if self._holder else Verdict.HEALTHY
        verdict = Verdict.DAMAGED if is_damaged else Verdict.OTHER_FORMAT if is_newer else verdict
        return Diagnosis(
            verdict=verdict,
            findings=self._findings,
            walked=walk is not None,
            log_id=public_log_id(segments[0].log_id) if segments else "",
            segments=len(segment_numbers(self._directory)),
            segments_used=walk.last_segment.number if walk is not None else 0,
            entries=self._entries,
            events=self._events,
            accounts=self._accounts,
            last_index=walk.next_index - 1 if walk is not None else 0,
            durable_index=self._watermark.durable_index,
            clean_stop=walk is not None and self._watermark.is_clean_stop_at(walk.next_index - 1),
            chain_hash=walk.previous_hash.hex() if walk is not None and walk.last_header is not None else "",
            torn_bytes=self._torn_bytes,
            free_bytes=self._directory.free_bytes(),
            holder=self._holder,
        )


def _problem_of_page(page: bytes, log_id: int, shard: int) -> str:
    """Why a control page does not count, in words; "" if it does, or was never written."""
    if len(page) != CONTROL_PAGE_SIZE:
        return f"{len(page)} bytes where a page of {CONTROL_PAGE_SIZE} should be"
    if not any(page):
        return ""
    fields = np.frombuffer(page, CONTROL_PAGE)[0]
    checksum = xxhash.xxh3_64_intdigest(page[_CHECKSUM_SIZE:])
    if fields["magic"] != CONTROL_MAGIC or int(fields["checksum"]) != checksum:
        return "a page that fails its checksum"
    if (int(fields["log_id"]), int(fields["shard"])) != (log_id, shard):
        return f"a page of log {public_log_id(int(fields['log_id']))}, shard {fields['shard']}"
    return ""
