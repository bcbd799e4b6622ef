"""What an entry of kind BLOB does to a ledger, and what it must be like to do it."""

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.entry import Entry
from bezant.protocol.errors import CorruptLog, RemoteProtocolError
from bezant.protocol.metadata import SubjectKind, decode_blob, position_of_subject
from bezant.protocol.records import split_position


def apply_blob(ledger: Ledger, entry: Entry) -> None:
    """Take metadata into a ledger. Raises `CorruptLog` for an entry that no leader makes."""
    header = entry.header
    try:
        blob = decode_blob(entry.body)
    except RemoteProtocolError as error:
        raise CorruptLog(f"entry {header.index} cannot be read: {error}") from error
    known = ledger.metadata.index_of(blob.subject_kind, blob.subject)
    if blob.previous_index != known:
        raise CorruptLog(
            f"entry {header.index} supersedes the metadata of entry {blob.previous_index}; its subject has that of "
            f"entry {known}"
        )
    if blob.is_erasure and not known:
        raise CorruptLog(f"entry {header.index} erases metadata where there is none")
    if not has_subject(ledger, header.shard, blob.subject_kind, blob.subject):
        raise CorruptLog(f"entry {header.index} has metadata of something that was not there")
    ledger.metadata.note(blob.subject_kind, blob.subject, 0 if blob.is_erasure else header.index)


def has_subject(ledger: Ledger, shard: int, subject_kind: int, subject: bytes) -> bool:
    """Whether there is such an account, or event. The subject has been checked to be one."""
    if subject_kind == SubjectKind.ACCOUNT:
        return bool(ledger.lookup_accounts(np.frombuffer(subject, np.int64).reshape(1, 2).copy())["found"][0])
    of_shard, sequence = split_position(position_of_subject(subject))
    return of_shard == shard and 0 < sequence < ledger.next_sequence
