"""What a data folder lacks because its node began with the state of its group, in the words of the doctor."""

from bezant.engine.diagnosis import FindingKind, Findings, Severity
from bezant.engine.log.archived import ARCHIVED_NAME, read_archived
from bezant.engine.log.incomplete import INCOMPLETE_NAME, count_missing, first_segment_required
from bezant.engine.log.segment import segment_name, segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.snapshots.installing import FOLDER_NAME, READY_NAME, names_in
from bezant.protocol.errors import CorruptLog, UnsupportedFormat


def examine_incomplete(directory: Directory, shard: int, findings: Findings) -> int:
    """Add what is missing, as it may be; the number of the first segment that must be there."""
    if READY_NAME in names_in(directory.subdirectory(FOLDER_NAME)):
        findings.add(
            Severity.NOTE,
            FindingKind.INSTALL_UNFINISHED,
            FOLDER_NAME,
            found="the state of the group, whole, which is to take the place of this log",
            expected="none",
            meaning="the node ended while it was put there",
            next_step="start the node: it finishes that before anything else",
        )
    try:
        required = first_segment_required(directory, shard)
    except CorruptLog as error:
        findings.add(
            Severity.DAMAGE,
            FindingKind.HISTORY_INCOMPLETE,
            INCOMPLETE_NAME,
            found=str(error),
            expected="from which segment on the log is here",
            meaning="whether the history is complete cannot be told; a node refuses to start",
            next_step="bezant serve --repair-from-group",
        )
        return 1
    here = segment_numbers(directory)
    archived = _examine_archived(directory, shard, findings)
    if archived:
        return next((number for number in here if number > archived), archived + 1)
    missing = count_missing(here, required)
    if missing <= 0:
        return 1
    findings.add(
        Severity.WARNING,
        FindingKind.HISTORY_INCOMPLETE,
        segment_name(1),
        found=f"no segments up to {segment_name(missing)}",
        expected="the whole history",
        meaning="this node began with the state of its group; the history before has not all come from the others yet, "
        "and without it the entries that are here are not walked",
        next_step="start the node, and see how far it is: bezant members status",
    )
    return missing + 1


def _examine_archived(directory: Directory, shard: int, findings: Findings) -> int:
    """Add what is in an archive; the number of the last segment that is not here for that, 0 if there is none."""
    try:
        mark = read_archived(directory, shard)
    except (CorruptLog, UnsupportedFormat) as error:
        findings.add(
            Severity.DAMAGE,
            FindingKind.HISTORY_INCOMPLETE,
            ARCHIVED_NAME,
            found=str(error),
            expected="which segments are in an archive",
            meaning="where the first segments are cannot be told; a node refuses to start",
            next_step="bezant archive fetch, from the archive that the segments were dropped to, after this file was "
            "moved away",
        )
        return 0
    here = frozenset(segment_numbers(directory))
    gone = [] if mark is None else [segment for segment in mark.segments if segment.number not in here]
    if not gone:
        return 0
    findings.add(
        Severity.NOTE,
        FindingKind.HISTORY_INCOMPLETE,
        segment_name(gone[0].number),
        found=f"no segments {gone[0].number} to {gone[-1].number}, which the archive {gone[-1].target} has",
        expected="the whole history, here or in an archive",
        meaning="they were dropped; who reads the history has them fetched. Here nothing is fetched, and the entries "
        "are not walked",
        next_step="nothing; to have them back: bezant archive fetch",
    )
    return gone[-1].number
