"""Claim: the doctor tells a cut that was interrupted from damage, and leaves the finishing of it to a start."""

from pathlib import Path

from bezant.engine.diagnosis import FindingKind, Verdict
from bezant.engine.ledger.state import RULES_VERSION_FIRST
from bezant.engine.log.control import ControlFile
from bezant.engine.log.storage import Directory
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import ControlEntry, encode_message

from .log.logs import Writer, open_entries
from .test_doctor import log_of, look, only, start_of


def test_a_cut_that_was_interrupted(tmp_path: Path) -> None:
    """What lies behind counts no more, whole as it is; a start finishes the cut, and looking does not."""
    data = tmp_path
    log_of(data).mkdir()
    folder = Directory(log_of(data))
    writer = Writer(folder)
    writer.append_body(EntryKind.CONTROL, encode_message(ControlEntry(rules_version=RULES_VERSION_FIRST)))
    writer.append_body(EntryKind.FILLER, bytes(100))
    writer.append_body(EntryKind.FILLER, bytes(200))
    writer.sync()
    writer.close()
    log, entries = open_entries(folder, writable=False)
    log.close()
    last = len(entries)
    control = ControlFile(folder, shard=0, log_id=log.log_id, writable=True)
    mark = control.read()
    control.write(
        mark._replace(
            write_count=mark.write_count + 1,
            durable_index=last - 1,
            durable_offset=start_of(data, last),
            clean_stop=0,
            cutting=1,
        )
    )
    control.close()
    for _ in range(2):
        diagnosis = look(data)
        assert diagnosis.verdict is Verdict.HEALTHY
        assert (diagnosis.last_index, diagnosis.entries) == (last - 1, last - 1)
        assert f"behind the entry with index {last - 1}" in only(diagnosis, FindingKind.CUT_UNFINISHED).found
    Writer(folder).close()
    diagnosis = look(data)
    only(diagnosis, FindingKind.CLEAN_STOP)
    assert diagnosis.last_index == last - 1
