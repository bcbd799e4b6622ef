"""The structure in which `bezant.engine.doctor` tells what it found in a data folder, and how findings gather."""

from enum import StrEnum, unique

import msgspec


@unique
class Severity(StrEnum):
    """How bad a finding is."""

    NOTE = "note"
    """Nothing to do."""
    WARNING = "warning"
    """A node starts all the same; somebody should know."""
    DAMAGE = "damage"
    """Bytes that were durable have changed or are gone."""


@unique
class FindingKind(StrEnum):
    """What a finding is about, for programs."""

    CLEAN_STOP = "clean_stop"
    CRASH = "crash"
    NO_HISTORY = "no_history"
    TORN_TAIL = "torn_tail"
    CUT_UNFINISHED = "cut_unfinished"
    ROT = "rot"
    ENTRY_WRONG = "entry_wrong"
    SEGMENT_HEADER = "segment_header"
    SEGMENT_FOREIGN = "segment_foreign"
    SEGMENT_MISSING = "segment_missing"
    HISTORY_INCOMPLETE = "history_incomplete"
    INSTALL_UNFINISHED = "install_unfinished"
    CONTROL_DAMAGED = "control_damaged"
    CONTROL_MISSING = "control_missing"
    LOG_MISSING = "log_missing"
    LOCK_UNUSABLE = "lock_unusable"
    CHECKPOINTS = "checkpoints"
    CHECKPOINT_DAMAGED = "checkpoint_damaged"
    RUN_UNLISTED = "run_unlisted"
    OTHER_FORMAT = "other_format"
    UNFINISHED_FILE = "unfinished_file"
    SET_ASIDE = "set_aside"
    IN_USE = "in_use"
    DISK_NEARLY_FULL = "disk_nearly_full"
    NOT_A_DATA_FOLDER = "not_a_data_folder"


@unique
class Verdict(StrEnum):
    """The whole folder in one word. Damage goes before all else, also before what only another version can judge."""

    HEALTHY = "healthy"
    IN_USE = "in_use"
    DAMAGED = "damaged"
    OTHER_FORMAT = "other_format"
    NOT_A_DATA_FOLDER = "not_a_data_folder"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to know about a folder. ``file`` is a path within it ("" for the folder), ``offset`` a byte in that."""

    severity: Severity
    kind: FindingKind
    file: str = ""
    offset: int | None = None
    found: str
    expected: str = ""
    meaning: str
    next_step: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of a folder.

    Counts are of good entries, from the first up to where the walk stopped; ``walked`` is false where no entry could be
    looked at. Segments are files; those behind ``segments_used`` hold no good entry: they are made ahead of need.
    ``torn_bytes`` is the size of a torn tail that is still in place. Sizes are bytes, hashes and ids hexadecimal.
    """

    verdict: Verdict
    findings: list[Finding]
    walked: bool = False
    log_id: str = ""
    segments: int = 0
    segments_used: int = 0
    entries: int = 0
    events: int = 0
    accounts: int = 0
    last_index: int = 0
    durable_index: int = 0
    clean_stop: bool = False
    chain_hash: str = ""
    torn_bytes: int = 0
    free_bytes: int = 0
    holder: str = ""


def printable(text: str) -> str:
    """A text without characters that a terminal would obey, or that cannot be written at all."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


class Findings(list[Finding]):
    """Findings about one folder, in the order in which they are made."""

    def __init__(self, folder: str) -> None:
        """`folder` is its path within the data folder, which precedes the names of files in it."""
        super().__init__()
        self._folder = folder

    def add(
        self,
        severity: Severity,
        kind: FindingKind,
        file: str = "",
        *,
        found: str,
        meaning: str,
        expected: str = "",
        next_step: str = "",
        offset: int | None = None,
    ) -> None:
        """Add one; `file` is a path within the folder."""
        self.append(
            Finding(
                severity=severity,
                kind=kind,
                file=printable(f"{self._folder}/{file}") if file else "",
                offset=offset,
                found=printable(found),
                expected=expected,
                meaning=meaning,
                next_step=next_step,
            )
        )
