"""What a data folder lacks because its node began with the state of its group, in the words of the doctor."""

from bezant.engine.diagnosis import FindingKind, Findings, Severity
from bezant.engine.log.incomplete import INCOMPLETE_NAME, count_missing, first_segment_required
from bezant.engine.log.segment import segment_name, segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.snapshots.installing import FOLDER_NAME, READY_NAME, names_in
from bezant.protocol.errors import CorruptLog


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
    missing = count_missing(segment_numbers(directory), required)
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
