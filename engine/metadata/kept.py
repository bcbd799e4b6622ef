"""What is still there of metadata: in entries that are copied, and in a history that is verified."""

from collections.abc import Callable, Sequence
from typing import Final

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log
from bezant.protocol.errors import CorruptLog
from bezant.protocol.kinds import EntryKind
from bezant.protocol.metadata import BLOB_HEAD_SIZE, BLOB_STATE_AT, BLOB_STATE_ERASED, Blob, blob_is_erased, decode_blob
from bezant.protocol.records import ENTRY_HEADER_SIZE

IsWanted = Callable[[Blob, int], bool]
"""Whether the content of an entry, with this index, is the metadata of its subject still."""
_ERASED: Final = bytes((BLOB_STATE_ERASED,))


def leave_out(entries: memoryview, received: Sequence[Entry], is_wanted: IsWanted) -> memoryview:
    """Entries as they came, back to back, but for the content that is not wanted, which is erased in the copy."""
    copy: bytearray | None = None
    offset = 0
    for entry in received:
        end = offset + ENTRY_HEADER_SIZE + entry.header.body_size
        if entry.header.kind == EntryKind.BLOB and entry.header.body_size > BLOB_HEAD_SIZE:
            start = offset + ENTRY_HEADER_SIZE + BLOB_STATE_AT
            if not is_wanted(decode_blob(entry.body), entry.header.index):
                copy = bytearray(entries) if copy is None else copy
                copy[start:end] = _ERASED * (end - start)
        offset = end
    return entries if copy is None else memoryview(copy)


def check_kept(ledger: Ledger, log: Log) -> None:
    """Raise `CorruptLog` if metadata is gone that nothing has superseded, up to the end of a log that is alone."""
    for index in ledger.metadata.records()["index"].tolist():
        entry = log.read_entry(index)
        if blob_is_erased(entry.body):
            raise CorruptLog(
                f"entry {index}: the metadata that it set is erased, and no entry behind it says that it should be: "
                "restore the file from a copy"
            )
